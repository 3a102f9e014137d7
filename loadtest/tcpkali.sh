#!/usr/bin/env bash
# tcpkali through mahoraga to an echo server: opens connections at a given rate, keeps them, and
# exchanges messages over each of them, with the latency from message to echo.
#
#   loadtest/tcpkali.sh
#
# tcpkali is in no Debian release; its source is at https://github.com/satori-com/tcpkali (now
# https://github.com/machinezone/tcpkali). Where it is absent this script reports that and exits 0.
# Last seen to work with tcpkali 1.2.0 (machinezone/tcpkali at 3c3175e) on 2026-11-22, Linux 6.18,
# 2 CPUs: 1052877 bytes sent and received at 5 messages per second over each connection, connects
# p50 0.0 and p99 1.0 ms, messages p50 0.3 and p99 4.3 ms, and at its end
#   ok: 1000 connections, as much came back as was sent
# By environment:
#   TCPKALI=PATH      the tcpkali program (default: the one in PATH)
#   CONNECTIONS=1000  how many to open
#   CONNECT_RATE=500  of them per second
#   MESSAGE_RATE=5    messages per second over each
#   DURATION=10       seconds in all, so it must be longer than the opening takes
#   WORKERS=2         of the balancer
#   MAHORAGA=PATH     the binary (default: what `cargo build --release` makes now)
# Exits 1 when not all connections could be opened, or when what came back differs from what was
# sent by more than a message per connection (what the end of a run leaves between two counters).

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

help_if_asked "$@"
TCPKALI=${TCPKALI:-tcpkali}
if ! command -v "$TCPKALI" >/dev/null; then
    echo "skipped: no tcpkali here (it is in no Debian release; see $0 --help)"
    exit 0
fi
connections=${CONNECTIONS:-1000}
workers=${WORKERS:-2}
message='A message of tcpkali.'

need_tools python3 taskset
need_descriptors $((2 * connections + 200))
find_mahoraga
start_echo any
start_mahoraga any "$workers" "$PORT"
status=0
"$TCPKALI" --connections "$connections" --connect-rate "${CONNECT_RATE:-500}" \
    --message "$message" --message-rate "${MESSAGE_RATE:-5}" --duration "${DURATION:-10}s" \
    --latency-connect --latency-first-byte --latency-marker "$message" \
    --latency-percentiles 50,99,100 "127.0.0.1:$PORT" \
    >"$WORK/tcpkali.out" 2>"$WORK/tcpkali.err" || status=$?
cat "$WORK/tcpkali.out"
((status == 0)) || { cat "$WORK/tcpkali.err" >&2; die "tcpkali ended with $status"; }
grep -q "^Ramped up to $connections connections" "$WORK/tcpkali.err" ||
    die "not all of the $connections connections were opened"
awk -v slack=$((connections * ${#message})) '
    { sub(/.*\(/, "") }
    NR == 1 { sent = $1 + 0 }
    NR == 2 { received = $1 + 0 }
    END { exit !(sent > slack && received <= sent + slack && received + slack >= sent) }
' <(grep -E '^Total data (sent|received):' "$WORK/tcpkali.out") ||
    die "what came back is not what was sent"
echo "ok: $connections connections, as much came back as was sent"
