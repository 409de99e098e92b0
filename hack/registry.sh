# A real container registry on loopback for the demo and the measurements; sourced after hack/common.sh.

# Starts a registry that keeps its content in a folder; sets `registry` (host:port), `registry_pid` and `registry_log`.
# skopeo and podman learn by CONTAINERS_REGISTRIES_CONF that this one address speaks plain HTTP.
start_registry() {
    local folder=$1 port tries=0
    mkdir -p "$folder/content"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    registry=127.0.0.1:$port
    registry_log=$folder/log
    cat >"$folder/config.yml" <<END
version: 0.1
storage: {filesystem: {rootdirectory: $folder/content}}
http: {addr: $registry}
END
    printf '[[registry]]\nlocation = "%s"\ninsecure = true\n' "$registry" >"$folder/registries.conf"
    export CONTAINERS_REGISTRIES_CONF=$folder/registries.conf
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
