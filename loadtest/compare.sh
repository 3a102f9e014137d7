#!/usr/bin/env bash
# mahoraga against HAProxy (as it comes, and with splicing forced) and nginx stream, in one run.
#
#   loadtest/compare.sh [latency] [small] [connect] [stream] [memory]     default: all of them
#   loadtest/compare.sh tls         what ending TLS costs: loadtest/tls.sh, which has its own help
#
#   latency  one request at a time over one keep-alive connection: nothing waits in a queue
#   small    requests over 64 and over 1000 keep-alive connections (wrk, nginx)
#   connect  a new connection for every request, 64 at a time
#   stream   2 and 8 streams (iperf3)
#   memory   growth of the resident size by 5000 established idle connections, per connection
#
# Each proxy has one worker pinned to PROXY_CPU (1); load and backend are on LOAD_CPU (0). In every
# round each proxy has its turn, a different one first. The script compares the CPU time of the
# proxy's process for the same work, since rates move with the machine's noise. It takes ratios
# within a round, and prints their median over the rounds. After all parts a line for each floor
# says whether it was held. The exit code does not depend on that: a neighbour's load on a shared
# machine moves any ratio, so look at the figures, and measure again. By environment:
#   ROUNDS=5        DURATION=5      rounds, and seconds of each figure in a round
#   TSV=PATH        where the raw figures go (default target/compare.tsv)
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Congestion control is cubic for all: as root the script sets it for the run, and restores it.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

PROXIES=(mahoraga haproxy haproxy-splice nginx)
ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-5}
TSV=${TSV:-$REPO/target/compare.tsv}
IDLE=5000
declare -A PORT_OF PID_OF

# start_haproxy_tcp PORT BACKEND_PORT OPTION...
start_haproxy_tcp() {
    local port=$1 backend=$2
    shift 2
    start_haproxy "$PROXY_CPU" "haproxy-$port" "$port" <<CONF
$(printf '%s\n' "${@/#/    option }")
frontend in
    bind 127.0.0.1:$port backlog 4096
    default_backend out
backend out
    server only 127.0.0.1:$backend
CONF
}

# start_nginx_stream PORT BACKEND_PORT: with half-closes relayed, as mahoraga and HAProxy do.
start_nginx_stream() {
    start_nginx "$PROXY_CPU" "nginx-$1" "$1" <<CONF
stream {
    access_log off;
    tcp_nodelay on;
    proxy_half_close on;
    proxy_connect_timeout 5s;
    proxy_timeout 10m;
    server {
        listen 127.0.0.1:$1 backlog=4096;
        proxy_pass 127.0.0.1:$2;
    }
}
CONF
}

# start_proxy NAME BACKEND_PORT: notes its port, and the pid of the process that does the work.
start_proxy() {
    local name=$1 backend=$2
    free_port
    case $name in
    mahoraga) start_mahoraga "$PROXY_CPU" 1 "$backend" ;;
    haproxy) start_haproxy_tcp "$PORT" "$backend" ;;
    haproxy-splice) start_haproxy_tcp "$PORT" "$backend" splice-request splice-response ;;
    nginx) start_nginx_stream "$PORT" "$backend" ;;
    esac
    PORT_OF[$name]=$PORT
    PID_OF[$name]=$STARTED
    [[ $name != nginx ]] || PID_OF[$name]=$WORKER
}

start_proxies() {
    local name
    for name in "${PROXIES[@]}"; do
        start_proxy "$name" "$1"
    done
}

# record LOAD ROUND PROXY METRIC=VALUE...
record() {
    local load=$1 round=$2 name=$3 pair
    shift 3
    for pair; do
        printf '%s\t%s\t%s\t%s\t%s\n' "$load" "$round" "$name" "${pair%%=*}" "${pair#*=}" >>"$TSV"
    done
}

# in_turns LOAD MEASURE ARGUMENT...: calls MEASURE LOAD ROUND PROXY ARGUMENT... for every round and
# proxy.
in_turns() {
    local load=$1 measure=$2 round turn count=${#PROXIES[@]}
    shift 2
    for ((round = 1; round <= ROUNDS; round++)); do
        say "$load: round $round of $ROUNDS"
        for ((turn = 0; turn < count; turn++)); do
            "$measure" "$load" "$round" "${PROXIES[(round + turn) % count]}" "$@"
        done
    done
}

# requests_turn LOAD ROUND PROXY CONNECTIONS WRK_ARGUMENT...
requests_turn() {
    local load=$1 round=$2 name=$3 connections=$4 result cpu rate p50 p99 errors
    shift 4
    result=$(measure_wrk "${PID_OF[$name]}" "${PORT_OF[$name]}" "$connections" "$DURATION" "$@")
    read -r cpu rate p50 p99 errors <<<"$result"
    record "$load" "$round" "$name" cpu="$cpu" rate="$rate" p50="$p50" p99="$p99" errors="$errors"
}

# stream_turn LOAD ROUND PROXY STREAMS
stream_turn() {
    local result cpu gbits
    result=$(measure_iperf3 "${PID_OF[$3]}" "${PORT_OF[$3]}" "$4" "$DURATION")
    read -r cpu gbits <<<"$result"
    record "$1" "$2" "$3" cpu="$cpu" rate="$gbits"
}

# memory_turn LOAD ROUND PROXY BACKEND_PORT: in a process of its own, since new connections would
# reuse the memory of earlier ones, and it would not be counted.
memory_turn() {
    local load=$1 round=$2 name=$3 backend=$4 before proxy
    start_proxy "$name" "$backend"
    proxy=$STARTED
    sleep 0.3
    before=$(memory_of "${PID_OF[$name]}" Rss)
    hold_idle "$LOAD_CPU" idle "${PORT_OF[$name]}" "$IDLE"
    # Idle memory is what stays once nothing moves: some give memory back a moment later.
    sleep 1
    record "$load" "$round" "$name" before="$before" \
        memory=$((($(memory_of "${PID_OF[$name]}" Rss) - before) / IDLE))
    stop "$STARTED"
    stop "$proxy"
}

# One unmeasured second each, so that the first round meets warm processes like every other.
warm_up() {
    local name
    for name in "${PROXIES[@]}"; do
        run_wrk "$LOAD_CPU" "${PORT_OF[$name]}" 64 1 >/dev/null
    done
}

# The parts, by name: each starts fresh proxies and ends everything that it started.
part_latency() {
    start_http "$LOAD_CPU" "$WORK"
    start_proxies "$PORT"
    warm_up
    in_turns latency requests_turn 1
}

part_small() {
    start_http "$LOAD_CPU" "$WORK"
    start_proxies "$PORT"
    warm_up
    in_turns small64 requests_turn 64
    in_turns small1000 requests_turn 1000
}

part_connect() {
    start_http "$LOAD_CPU" "$WORK"
    start_proxies "$PORT"
    warm_up
    in_turns connect requests_turn 64 -H 'Connection: close'
}

part_stream() {
    start_iperf3 "$LOAD_CPU"
    start_proxies "$PORT"
    in_turns stream2 stream_turn 2
    in_turns stream8 stream_turn 8
}

part_memory() {
    start_echo "$LOAD_CPU"
    in_turns memory memory_turn "$PORT"
}

versions() {
    "$MAHORAGA" --version 2>/dev/null | head -n 1 || true
    haproxy -v | sed -n '1s/ [0-9/]* *- .*//p'
    nginx -v 2>&1 | sed 's/.*: //'
    wrk -v 2>&1 | sed -n '1s/ \[.*//p' || true
    iperf3 --version | sed -n '1s/ (.*//p'
}

help_if_asked "$@"
if [[ ${1:-} == tls ]]; then
    exec "$LOADTEST/tls.sh" "${@:2}"
fi
(($#)) || set -- latency small connect stream memory
for part; do
    declare -F "part_$part" >/dev/null || die "no part named $part (see --help)"
done
need_tools haproxy nginx nginx-stream wrk iperf3 python3 taskset
need_two_cpus
need_descriptors 20000
find_mahoraga
use_congestion_control cubic
mkdir -p "$(dirname "$TSV")"
printf 'load\tround\tproxy\tmetric\tvalue\n' >"$TSV"
for part; do
    "part_$part"
    stop_all
done
python3 "$LOADTEST/compare_table.py" "$TSV"
printf 'Medians of %s rounds of %s s; %s; %s.\n' "$ROUNDS" "$DURATION" "$(machine_facts)" \
    "$(versions | paste -sd , | sed 's/,/, /g')"
say "every round's figures: $TSV"
