#!/usr/bin/env bash
# wrk against nginx through mahoraga: rate, latency and the balancer's CPU time per request.
#
#   loadtest/wrk.sh [CONNECTIONS...]        default: 64 1000
#
# The balancer runs with one worker on PROXY_CPU (1), wrk and nginx on LOAD_CPU (0). By environment:
#   DURATION=5      seconds for each number of connections
#   CLOSE=1         a new connection for every request
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when a request failed.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
(($#)) || set -- 64 1000
duration=${DURATION:-5}
arguments=()
[[ ${CLOSE:-0} != 1 ]] || arguments=(-H 'Connection: close')

need_tools wrk nginx taskset
need_two_cpus
need_descriptors 8192
find_mahoraga
use_congestion_control cubic
start_http "$LOAD_CPU" "$WORK"
start_mahoraga "$PROXY_CPU" 1 "$PORT"
failed=0
for connections; do
    result=$(measure_wrk "$STARTED" "$PORT" "$connections" "$duration" "${arguments[@]}")
    read -r cpu rate p50 p99 errors <<<"$result"
    printf '%s connections, %s s: %.0f req/s, p50 %s µs, p99 %s µs, ' \
        "$connections" "$duration" "$rate" "$p50" "$p99"
    printf '%.1f µs of CPU per request, %s errors\n' "$cpu" "$errors"
    ((errors == 0)) || failed=1
done
machine_facts
echo
exit "$failed"
