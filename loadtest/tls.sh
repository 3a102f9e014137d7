#!/usr/bin/env bash
# What ending TLS costs, against HAProxy and nginx stream that do the same, in one run.
#
#   loadtest/tls.sh [full] [resumed] [requests] [bytes]       default: all of them
#
#   full      connections with a whole handshake and one request (wrk)
#   resumed   connections that resume a session, with one request
#   requests  requests over 64 kept connections (wrk)
#   bytes     one download after the other of 200 MB
#
# All have the same certificate (ECDSA, P-256), and their clients choose the same version, cipher
# and curve, which the script prints. Each has one worker pinned to PROXY_CPU (1); load and backend
# are on LOAD_CPU (0). In every round each has its turn, another one first. A ratio is taken within
# a round; the script prints the medians and ranges of the rounds. The exit code does not depend on
# them. By environment:
#   ROUNDS=15       DURATION=2      rounds, and seconds of each figure in a round
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=paired.sh
source "$(dirname "${BASH_SOURCE[0]}")/paired.sh"

KINDS=(mahoraga haproxy nginx)
# shellcheck disable=SC2034 # run_wrk asks with it
SCHEME=https
BIG=$((200 * 1000 * 1000))

# start_kind KIND BACKEND_PORT
start_kind() {
    local kind=$1 backend=$2
    free_port
    PORT_OF[$kind]=$PORT
    case $kind in
    mahoraga)
        start "$PROXY_CPU" mahoraga "$MAHORAGA" proxy --from "127.0.0.1:$PORT" \
            --to "127.0.0.1:$backend" --workers 1 --admin off \
            --tls-cert "$WORK/cert.pem" --tls-key "$WORK/key.pem"
        wait_port "$PORT" mahoraga
        ;;
    haproxy)
        start_haproxy "$PROXY_CPU" haproxy "$PORT" <<CONF
frontend in
    bind 127.0.0.1:$PORT backlog 4096 ssl crt $WORK/both.pem
    default_backend out
backend out
    server only 127.0.0.1:$backend
CONF
        ;;
    nginx)
        start_nginx "$PROXY_CPU" nginx "$PORT" <<CONF
stream {
    access_log off;
    tcp_nodelay on;
    proxy_timeout 10m;
    server {
        listen 127.0.0.1:$PORT backlog=4096 ssl;
        ssl_certificate $WORK/cert.pem;
        ssl_certificate_key $WORK/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:all:10m;
        proxy_pass 127.0.0.1:$backend;
    }
}
CONF
        STARTED=$WORKER
        ;;
    esac
    PID_OF[$kind]=$STARTED
    say "$kind: $(agreed "$PORT")"
}

# agreed PORT: the version, the cipher and the curve that a client agrees on.
agreed() {
    openssl s_client -connect "127.0.0.1:$1" -servername localhost </dev/null 2>/dev/null |
        awk -F ': |, |Cipher is ' '/^New, /{ print $2, $NF } /^Server Temp Key/{ print $2 }' |
        paste -sd ' '
}

# measure KIND SECONDS LOAD: as that of paired.sh. Bytes are counted by the MB.
measure() {
    local kind=$1 seconds=$2 load=$3 pid=${PID_OF[$1]} port=${PORT_OF[$1]} before
    case $load in
    full) measure_wrk "$pid" "$port" 64 "$seconds" -H 'Connection: close' ;;
    requests) measure_wrk "$pid" "$port" 64 "$seconds" ;;
    resumed | bytes)
        before=$(cpu_ns "$pid")
        taskset -c "$LOAD_CPU" python3 "$LOADTEST/tls_client.py" "$load" "$port" "$seconds" \
            >"$WORK/client.out"
        awk -v ns=$(($(cpu_ns "$pid") - before)) \
            '{ printf "%.3f %s 0 0 %s\n", $1 ? ns / 1e3 / $1 : 0, $2, $3 }' "$WORK/client.out"
        ;;
    esac
}

help_if_asked "$@"
(($#)) || set -- full resumed requests bytes
for load; do
    [[ $load =~ ^(full|resumed|requests|bytes)$ ]] || die "no part named $load (see --help)"
done
need_tools haproxy nginx nginx-stream openssl python3 taskset wrk
need_two_cpus
need_descriptors 16000
find_mahoraga
make_certificate
cat "$WORK/cert.pem" "$WORK/key.pem" >"$WORK/both.pem"
head -c "$BIG" /dev/urandom >"$WORK/big"
start_http "$LOAD_CPU" "$WORK"
backend=$PORT
for kind in "${KINDS[@]}"; do
    start_kind "$kind" "$backend"
done
for load; do
    in_turns "$load" "$load"
done
print_table
printf '%s rounds of %s s; %s.\n' "$ROUNDS" "$DURATION" "$(machine_facts)"
