# Names and functions that the scripts in hack/ share; sourced by them from the top of the repository.

cache=${APT_OSTREE_CACHE:-$PWD/.cache}
efi=$cache/efi
# A toolchain that rustup installed is found even where no login shell has set the path.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export APT_OSTREE_CACHE=$cache

say() { echo "$(basename "$0"): $*" >&2; }
die() { say "$@"; exit 1; }

debian_major() { sed -n 's/^VERSION_ID="\?\([0-9]*\).*/\1/p' /etc/os-release; }

# Tells whether cargo is there and at least the version that Cargo.toml asks for.
rust_is_new() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d' ' -f2) || return 1
    [[ $(printf '%s\n' "$wanted" "$found" | sort -V | head -n1) == "$wanted" ]]
}

# Runs apt-get without questions; its chatter is shown only when it fails.
apt_get() {
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o APT::Sandbox::User=root "$@" &>"$log"; then
        cat "$log" >&2
        die "apt-get $1 failed"
    fi
    rm "$log"
}

# Runs a phase and says how long it took; its output also goes to the file named by the first argument.
phase() {
    local log=$1 name=$2 start=$SECONDS status=0
    shift 2
    echo "== $name"
    "$@" 2>&1 | tee "$log" || status=$?
    echo "== $name: $((SECONDS - start)) s$( ((status == 0)) || echo ", FAILED ($status)")"
    return "$status"
}

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# debian_sources RELEASE: prints this machine's Debian sources in one-line form for another release.
debian_sources() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        sort -u | while read -r uri suite component; do
        suite=$(sed -E "s/^[a-z]+(-updates|-security|)$/$1\1/; t; d" <<<"$suite")
        if [[ -n $suite && $component == main && $uri == *debian* ]]; then
            echo "deb [signed-by=$debian_keyring] ${uri%/} $suite main"
        fi
    done | sort -u)
    [[ -n $found ]] || die "apt knows no Debian source here; run apt-get update first"
    echo "$found"
}
