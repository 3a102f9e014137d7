#!/usr/bin/env bash
# What the control thread answers within, and how soon workers use what it publishes: idle, with both
# workers saturated by requests and by connections, and at the limit of connections with clients that
# wait. Balancer, load and backend share two CPUs, so that nothing is left over for anybody.
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
start_http any "$WORK"
backend=127.0.0.1:$PORT

# balance FLAG...: a balancer with two workers and an admin socket. Sets PORT and SOCKET.
balance() {
    free_port
    SOCKET=$WORK/admin-$PORT.sock
    start any "mahoraga-$PORT" "$MAHORAGA" proxy --from "127.0.0.1:$PORT" --to "$backend" \
        --workers 2 --admin "$SOCKET" "$@"
    wait_port "$PORT" "mahoraga-$PORT"
}

# load WRK_ARGUMENT...: until `stop "$LOADING"`.
load() {
    start any "wrk-$PORT" wrk -t2 -d600s "$@" "http://127.0.0.1:$PORT/small"
    LOADING=$STARTED
    sleep 1
}

measure() {
    echo "--- $1"
    python3 "$LOADTEST/admin_clients.py" times "$SOCKET" "$answers" /v1/status /v1/pools \
        /v1/sessions
    python3 "$LOADTEST/admin_clients.py" publish "$SOCKET" "$changes" "$backend"
}

balance
measure "idle"
load -c512
measure "512 connections with requests"
stop "$LOADING"
load -c128 -H 'Connection: close'
measure "a connection for each request"
stop "$LOADING"
balance --max-connections 64
load -c512 -H 'Connection: close'
measure "64 connections at most, 512 clients"
stop "$LOADING"
machine_facts
echo
