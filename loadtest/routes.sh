#!/usr/bin/env bash
# What a route by SNI costs, against a balancer without routes and against HAProxy and nginx stream
# that do the same, in one run.
#
#   loadtest/routes.sh
#
# Each client connects, sends a real TLS hello (curl's) and resets when the backend has echoed it,
# 64 at a time. `sni` has 8 routes by name, of which the last takes the client, `plain` none.
# HAProxy and nginx have the same 8 names, in the form that each does fastest (a map). Each has one
# worker pinned to PROXY_CPU (1); load and backend are on LOAD_CPU (0). In every round each has its
# turn, another one first. A ratio is taken within a round; the script prints the medians and ranges
# of the rounds. The exit code does not depend on them. By environment:
#   ROUNDS=15       DURATION=2      rounds, and seconds of each figure in a round
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=paired.sh
source "$(dirname "${BASH_SOURCE[0]}")/paired.sh"

TOOL=$WORK/open_loop
HELLO=$REPO/tests/captures/curl.bin
NAMES=(one two three four five six seven shop)
KINDS=(sni plain haproxy nginx)
declare -A THREAD_OF

# measure KIND SECONDS: as that of paired.sh, by hellos.
measure() {
    local kind=$1 seconds=$2 result
    result=$(taskset -c "$LOAD_CPU" "$TOOL" clients "${PORT_OF[$kind]}" 0 "$seconds" \
        "${THREAD_OF[$kind]}" "$HELLO")
    awk '{ printf "%.3f %s %s %s %s\n", $1 ? 1e6 * $7 / $1 : 0, $1, $5, $6, $3 + $4 }' <<<"$result"
}

# start_balancer KIND BACKEND_PORT ROUTE...
start_balancer() {
    local kind=$1 backend=$2
    shift 2
    start "$PROXY_CPU" "$kind" "$MAHORAGA" proxy --from "127.0.0.1:$PORT" \
        --to "127.0.0.1:$backend" --workers 1 --admin off "$@"
    wait_port "$PORT" "$kind"
    THREAD_OF[$kind]=$(worker_thread "$STARTED")
}

# start_haproxy_sni BACKEND_PORT
start_haproxy_sni() {
    printf '%s.example.com out\n' "${NAMES[@]}" >"$WORK/names.map"
    start_haproxy "$PROXY_CPU" haproxy "$PORT" <<CONF
frontend in
    bind 127.0.0.1:$PORT backlog 4096
    tcp-request inspect-delay 3s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend %[req.ssl_sni,lower,map($WORK/names.map)]
    default_backend none
backend out
    server only 127.0.0.1:$1
backend none
    server only 127.0.0.1:1
CONF
    THREAD_OF[haproxy]=/proc/$STARTED/task/$STARTED
}

# start_nginx_stream BACKEND_PORT
start_nginx_stream() {
    start_nginx "$PROXY_CPU" nginx "$PORT" <<CONF
stream {
    access_log off;
    tcp_nodelay on;
    proxy_half_close on;
    proxy_connect_timeout 5s;
    proxy_timeout 10m;
    map \$ssl_preread_server_name \$to {
$(printf "        %s.example.com 127.0.0.1:$1;\n" "${NAMES[@]}")
        default 127.0.0.1:1;
    }
    server {
        listen 127.0.0.1:$PORT backlog=4096;
        ssl_preread on;
        proxy_pass \$to;
    }
}
CONF
    THREAD_OF[nginx]=/proc/$WORKER/task/$WORKER
}

# start_kind KIND BACKEND_PORT
start_kind() {
    local kind=$1 backend=$2 name
    local -a routes=()
    free_port
    PORT_OF[$kind]=$PORT
    case $kind in
    sni)
        for name in "${NAMES[@]}"; do
            routes+=(--route "sni:$name.example.com=127.0.0.1:$backend")
        done
        # Whom no route takes is lost, as with the others here.
        start_balancer "$kind" 1 "${routes[@]}"
        ;;
    plain) start_balancer "$kind" "$backend" ;;
    haproxy) start_haproxy_sni "$backend" ;;
    nginx) start_nginx_stream "$backend" ;;
    esac
}

help_if_asked "$@"
(($# == 0)) || die "expected no argument (see --help)"
need_tools cc haproxy nginx nginx-stream python3 taskset
need_two_cpus
need_descriptors 16000
find_mahoraga
cc -O2 -o "$TOOL" "$LOADTEST/open_loop.c"
free_port
backend=$PORT
start "$LOAD_CPU" echo "$TOOL" echo "$backend"
wait_port "$backend" echo
for kind in "${KINDS[@]}"; do
    start_kind "$kind" "$backend"
done
in_turns hellos
print_table
printf '%s rounds of %s s; %s.\n' "$ROUNDS" "$DURATION" "$(machine_facts)"
