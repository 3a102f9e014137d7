#!/usr/bin/env bash
# 12,000 concurrent client connections through mahoraga with two workers under `ulimit -n 20000`,
# all echoing in rounds over two echo servers; prints the percentiles of the round trips.
#
#   loadtest/many.sh
#
# In a round every connection echoes once, the sends spread over SPREAD seconds. The connections
# stay open from first to last. By environment:
#   CONNECTIONS=12000   how many at once
#   ROUNDS=5            echoes over each, after the first one that opens it
#   SPREAD=3            seconds over which a round sends
#   P99_MAX_MS=100      what the round trips of no round may exceed at the 99th percentile
#   WORKERS=2           of the balancer
#   MAHORAGA=PATH       the binary (default: what `cargo build --release` makes now)
#   INSTALL=1           as root, install missing tools by apt-get
# Exits 1 when a connection is lost, an echo is wrong, P99_MAX_MS is exceeded, or more than a few
# waits of each connection end in vain.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
connections=${CONNECTIONS:-12000}
workers=${WORKERS:-2}

need_tools python3 taskset
# Sets both limits, so that the balancer cannot raise its own.
ulimit -n 20000 2>/dev/null || die "needs 20000 descriptors, may have $(ulimit -Hn) (ulimit -n)"
find_mahoraga
start_echo any
first=$PORT
start_echo any
start_mahoraga any "$workers" "$first" "$PORT"
echo "$connections connections, $workers workers, ulimit -n $(ulimit -n), ${SPREAD:-3} s a round"
status=0
python3 "$LOADTEST/echo_clients.py" "127.0.0.1:$PORT" --connections "$connections" \
    --processes 4 --rounds "${ROUNDS:-5}" --spread "${SPREAD:-3}" \
    --p99-max-ms "${P99_MAX_MS:-100}" || status=$?
echo "balancer: $((($(memory_of "$STARTED" Rss) + 512) / 1024)) KiB resident," \
    "$(($(cpu_ns "$STARTED") / 1000000)) ms of CPU"
in_vain=$(turns_in_vain "$STARTED" "mahoraga-$PORT")
echo "turns in vain: $in_vain"
# A worker that spins makes as many within milliseconds.
if ((in_vain > 500 + 8 * connections)); then
    say "too many turns in vain: expected at most 8 for each connection"
    status=1
fi
machine_facts
echo
exit "$status"
