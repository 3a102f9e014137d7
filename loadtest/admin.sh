#!/usr/bin/env bash
# Measures how long the control thread takes to answer, and how soon workers use what it publishes:
# idle, with both workers saturated by requests and by connections, and at the limit of connections
# with clients that wait. As root also with the priority that scripts/mahoraga.service gives, and
# then with one saturated worker on a CPU of its own. Otherwise balancer, load and backend share two
# CPUs: then the longest part is a worker's wait for a CPU.
#
#   loadtest/admin.sh
#
# By environment:
#   CHANGES=500     changes that are published in each case
#   ANSWERS=100     times that each endpoint is asked in each case
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
changes=${CHANGES:-500}
answers=${ANSWERS:-100}

need_tools wrk nginx python3
need_descriptors 8192
find_mahoraga
need_two_cpus
PRIORITY=()
start_http any "$WORK"
backend=127.0.0.1:$PORT

# balance CPUS WORKERS FLAG...: a balancer with an admin socket. Sets PORT and SOCKET.
balance() {
    local cpus=$1 workers=$2
    shift 2
    free_port
    SOCKET=$WORK/admin-$PORT.sock
    start "$cpus" "mahoraga-$PORT" "${PRIORITY[@]}" "$MAHORAGA" proxy \
        --from "127.0.0.1:$PORT" --to "$backend" --workers "$workers" --admin "$SOCKET" "$@"
    wait_port "$PORT" "mahoraga-$PORT"
}

# load CPUS WRK_ARGUMENT...: until `stop "$LOADING"`.
load() {
    local cpus=$1
    shift
    start "$cpus" "wrk-$PORT" wrk -t2 -d600s "$@" "http://127.0.0.1:$PORT/small"
    LOADING=$STARTED
    sleep 1
}

measure() {
    echo "--- $1"
    python3 "$LOADTEST/admin_clients.py" times "$SOCKET" "$answers" /v1/status /v1/pools \
        /v1/sessions
    python3 "$LOADTEST/admin_clients.py" publish "$SOCKET" "$changes" "$backend"
}

balance any 2
measure "idle"
load any -c512
measure "512 connections with requests"
stop "$LOADING"
load any -c128 -H 'Connection: close'
measure "a connection for each request"
stop "$LOADING"
balance any 2 --max-connections 64
load any -c512 -H 'Connection: close'
measure "64 connections at most, 512 clients"
stop "$LOADING"
if nice -n -10 true 2>/dev/null; then
    PRIORITY=(nice -n -10)
    balance any 2
    load any -c512
    measure "512 connections with requests, balancer at nice -10"
    stop "$LOADING"
    load any -c128 -H 'Connection: close'
    measure "a connection for each request, balancer at nice -10"
    stop "$LOADING"
    PRIORITY=()
fi
stop_all
start_http "$LOAD_CPU" "$WORK"
backend=127.0.0.1:$PORT
balance "$PROXY_CPU" 1
load "$LOAD_CPU" -c128 -H 'Connection: close'
measure "a connection for each request, one worker on a CPU of its own"
stop "$LOADING"
machine_facts
echo
