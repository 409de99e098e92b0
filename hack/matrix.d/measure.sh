# Layers one request on the image of the matrix and prints a row of the table; sourced by hack/matrix.

deployed() { apt-ostree status --json | jq -r ".deployments[0]$1"; }
# lines COMMIT PATH: the sorted lines of a file in a commit; none when there is no such file.
lines() { ! repo ls "$1" "$2" &>/dev/null || repo cat "$1" "$2" | sort; }
# new PATH: how many lines a file has that the image's own does not have.
new() { comm -13 <(lines "$base" "$1") <(lines "$commit" "$1") | grep -c "${2:-.}"; }

# measure PACKAGE...: fails when the request does; the machine is the plain image again afterwards.
measure() {
    local wanted=("$@") answers=() name=$* start took result=works commit files var users warnings
    wanted=("${wanted[@]/#VENDOR/$work/vendor.deb}")
    [[ ! -s hack/matrix.d/$1.debconf ]] || answers=(--debconf "hack/matrix.d/$1.debconf")
    # What the network takes is not measured.
    if apt-ostree install --download-only "${answers[@]}" "${wanted[@]}" &>"$work/log"; then
        start=${EPOCHREALTIME/./}
        apt-ostree install --cache-only "${answers[@]}" "${wanted[@]}" &>"$work/log" || result="fails: $(grep -m1 '^error:' "$work/log")"
    else
        start=${EPOCHREALTIME/./} result="not downloaded: $(grep -m1 '^error:' "$work/log")"
    fi
    took=$(((${EPOCHREALTIME/./} - start) / 100000))
    if [[ $result != works ]]; then
        echo "| $name | | | | | | ${result//|/ } |"
        return 1
    fi
    commit=$(deployed .checksum)
    files=$(repo diff "$base" "$commit" | grep -c '^[AM]')
    var=$(new /usr/lib/tmpfiles.d/00-apt-ostree-image.conf)
    users=$(comm -13 <(lines "$base" /usr/etc/passwd) <(lines "$commit" /usr/etc/passwd) | cut -d: -f1 | paste -sd' ')
    warnings=$(deployed '."layered-commit-meta".warnings | map(gsub("[|\n]"; " ")) | join("<br>")')
    printf '| %s | %s | %s.%s | %s | %s | %s | %s | %s |\n' "$name" "$(deployed '."layered-commit-meta".packages | length')" \
        $((took / 10)) $((took % 10)) "$files" "$var" "$users" "$warnings" "$result"
    # A service that the package brings must be enabled as its package wants it, and nothing may have stayed half done.
    apt-ostree reset --overlays &>>"$work/log"
    [[ $(deployed .checksum) == "$base" ]]
}
