#!/usr/bin/env bash
# What it costs to be watched: the same balancer with and without logs, history and watchers.
#
#   loadtest/watching.sh [memory] [connect] [requests]     default: all of them
#
#   memory     growth of the resident size by IDLE idle connections, per connection; only right
#              as the first part: later ones reuse memory
#   connect    CPU time per connection with one request (wrk, nginx)
#   requests   CPU time per request over 64 keep-alive connections
#
# `off` has no access log, no API and no listener for metrics; its history is in memory, as always.
# `on` has all of it: an access log to a file with every field, the history in a file, /metrics
# scraped each second from its own listener, and a dashboard that follows what happens. `unlogged`
# is that without the access log, `logged` is the access log alone, with its usual fields. BASE=PATH
# adds `base`: another binary, such as an earlier build, all off; the others are compared with it.
# CPU time is that of the whole process. By environment, beside that of paired.sh:
#   IDLE=2000                       idle connections
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=paired.sh
source "$(dirname "${BASH_SOURCE[0]}")/paired.sh"

IDLE=${IDLE:-2000}
declare -A IDLE_PORT_OF
KINDS=(${BASE:+base} off logged unlogged on)
FIELDS='"standard", "status",
            "client_rtt_us", "client_retransmits", "client_lost",
            "backend_rtt_us", "backend_retransmits", "backend_lost"'

# settings_of KIND: a part of the configuration.
settings_of() {
    local kind=$1 api metrics
    case $kind in
    on) echo "    access_log: (to: \"$WORK/$kind.access\", fields: [$FIELDS])," ;;
    logged) echo "    access_log: (to: \"$WORK/$kind.access\")," ;;
    *) echo '    access_log: "off",' ;;
    esac
    case $kind in
    on | unlogged)
        free_port
        api=$PORT
        free_port
        metrics=$PORT
        cat <<RON
    admin: (
        socket: "$WORK/$kind.sock",
        http: (bind: "127.0.0.1:$api", read_token: "$WORK/token"),
    ),
    metrics: "127.0.0.1:$metrics",
    history: "$WORK/$kind.db",
RON
        echo "$api $metrics" >"$WORK/$kind.ports"
        ;;
    *) echo '    admin: "off",' ;;
    esac
}

# start_kind KIND HTTP_PORT ECHO_PORT
start_kind() {
    local kind=$1 http=$2 echo=$3 binary=$MAHORAGA port settings
    [[ $kind != base ]] || binary=$BASE
    settings=$(settings_of "$kind")
    free_port
    port=$PORT
    free_port
    IDLE_PORT_OF[$kind]=$PORT
    cat >"$WORK/$kind.ron" <<RON
(
    workers: 1,
    histogram_log: "$WORK/$kind.hlog",
$settings
    listeners: [
        (name: "in", bind: "127.0.0.1:$port", pool: "http"),
        (name: "idle", bind: "127.0.0.1:$PORT", pool: "echo"),
    ],
    pools: [
        (name: "http", backends: ["127.0.0.1:$http"]),
        (name: "echo", backends: ["127.0.0.1:$echo"]),
    ],
)
RON
    start "$PROXY_CPU" "$kind" "$binary" run "$WORK/$kind.ron"
    wait_port "$port" "$kind"
    PORT_OF[$kind]=$port
    PID_OF[$kind]=$STARTED
    [[ ! -e $WORK/$kind.ports ]] || watch_kind "$kind"
}

# A scraper that asks each second, and a dashboard that follows. A file of metrics is of a whole
# scrape: one that is being written is empty for a moment.
watch_kind() {
    local kind=$1 api metrics
    read -r api metrics <"$WORK/$kind.ports"
    wait_port "$metrics" "$kind"
    start "$LOAD_CPU" "$kind-scraper" bash -c "while sleep 1; do
        curl -fsS --max-time 5 -o '$WORK/$kind.scrape' http://127.0.0.1:$metrics/metrics &&
            mv '$WORK/$kind.scrape' '$WORK/$kind.metrics'; done"
    start "$LOAD_CPU" "$kind-dashboard" curl -fsSN -o "$WORK/$kind.events" \
        -H "Authorization: Bearer $(<"$WORK/token")" "http://127.0.0.1:$api/v1/events"
}

part_memory() {
    local kind before
    for kind in "${KINDS[@]}"; do
        before=$(memory_of "${PID_OF[$kind]}" Rss)
        hold_idle "$LOAD_CPU" "$kind-idle" "${IDLE_PORT_OF[$kind]}" "$IDLE"
        sleep 1
        echo "$kind: $((($(memory_of "${PID_OF[$kind]}" Rss) - before) / IDLE)) bytes for each" \
            "of $IDLE idle connections"
        stop "$STARTED"
    done
}

help_if_asked "$@"
(($#)) || set -- memory connect requests
for part; do
    declare -F "part_$part" >/dev/null || die "no part named $part (see --help)"
done
need_tools wrk nginx python3 taskset curl
need_two_cpus
need_descriptors $((2 * IDLE + 1000))
find_mahoraga
(umask 077 && head -c 32 /dev/urandom | base64 -w0 >"$WORK/token")
start_http "$LOAD_CPU" "$WORK"
http=$PORT
start_echo "$LOAD_CPU"
for kind in "${KINDS[@]}"; do
    start_kind "$kind" "$http" "$PORT"
done
for part; do
    "part_$part"
done
for kind in on unlogged; do
    [[ -s $WORK/$kind.metrics ]] || {
        log_of "$kind-scraper"
        die "$kind was not scraped"
    }
    [[ -s $WORK/$kind.events ]] || die "$kind was not followed"
done
print_table
echo "$ROUNDS rounds of $DURATION s; $(machine_facts)."
