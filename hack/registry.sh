# A real container registry on loopback for the demo and the measurements; sourced after hack/common.sh.

# Starts a registry that keeps its content in a folder; sets `registry` (host:port), `registry_pid` and `registry_log`.
# That this one address speaks plain HTTP is written where skopeo looks: below a HOME of its own, because Debian 12's skopeo
# reads no other place, and in CONTAINERS_REGISTRIES_CONF for newer ones. The machine's own settings are left alone.
start_registry() {
    local folder=$1 port tries=0 settings=$1/home/.config/containers/registries.conf
    mkdir -p "$folder/content" "$(dirname "$settings")"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    registry=127.0.0.1:$port
    registry_log=$folder/log
    cat >"$folder/config.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $folder/content}}
http: {addr: $registry}
END
    printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$registry" >"$settings"
    export HOME=$folder/home CONTAINERS_REGISTRIES_CONF=$settings
    docker-registry serve "$folder/config.yml" &>"$registry_log" &
    registry_pid=$!
    until (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        ((++tries < 100)) || die "the registry does not answer; see $registry_log"
        sleep 0.1
    done
}

stop_registry() {
    [[ -z ${registry_pid:-} ]] || kill "$registry_pid" 2>/dev/null || true
}
