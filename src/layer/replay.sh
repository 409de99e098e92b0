#!/bin/sh
# Runs the steps of a plan with the dpkg of the root that this runs in.
#
# Each line of the file `steps` is a verb and its words, which apt-ostree has made: names of packages, and of files
# beside `steps`. What dpkg tells goes to standard output; everything else goes to standard error.
set -efu
exec 3>&1 1>&2
cd /run/apt-ostree/packages
step() {
    dpkg --status-fd 3 --no-triggers --force-unsafe-io --force-confdef --force-confold "$@" </dev/null
}
number=0
while read -r verb words; do
    echo "step: $number" >&3
    number=$((number + 1))
    # Nothing in the words is special to the shell, and patterns are off.
    # shellcheck disable=SC2086
    case $verb in
    architecture) dpkg --add-architecture $words ;;
    unpack) step --unpack $words ;;
    overwrite) step --force-overwrite --unpack $words ;;
    configure) step --configure $words ;;
    remove) step --remove $words ;;
    finish)
        step --configure --pending
        dpkg --status-fd 3 --triggers-only --pending </dev/null
        ;;
    esac
done </run/apt-ostree/steps
