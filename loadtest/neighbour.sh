#!/usr/bin/env bash
# What others do to the sessions of a neighbour: how long its messages take beside them.
#
#   loadtest/neighbour.sh [readers] [handshakes]       default: both
#
#   readers      clients that read the beginning of a fast stream and then nothing more: while
#                READERS come and read READ MiB each, and while they stand
#   handshakes   clients that begin a handshake of TLS, take the answer and leave: while they come
#                twice as fast as the worker can answer them when it does nothing else
#
# The neighbour has 50 open sessions on a listener of its own, of the same worker, and sends a
# message on each every 20 ms. In each round its p50 and p99 are measured alone and beside the
# others. The script prints the medians and ranges of the times and of their ratios within a round,
# and how many readers the balancer closed because the kernel ran short of memory (`stalled`). The
# exit code does not depend on them.
#
# The worker has PROXY_CPU (1); neighbour, the others and backends are on LOAD_CPU (0), the
# neighbour first. Needs root for that, and a C compiler. By environment:
#   ROUNDS=5            DURATION=5     rounds, and seconds of each figure in a round
#   READERS=1000        READ=1         readers, and MiB that each reads
#   MAHORAGA=PATH       the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-5}
READERS=${READERS:-1000}
READ=${READ:-1}
TOOL=$WORK/open_loop
TSV=$WORK/neighbour.tsv

HELLO=$REPO/tests/captures/curl.bin

# start_balancer FLOOD_PORT ECHO_PORT: sets FAST, CALM and SECRET, the ports of its listeners.
start_balancer() {
    free_port
    FAST=$PORT
    free_port
    CALM=$PORT
    free_port
    SECRET=$PORT
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    admin: "$WORK/admin.sock",
    access_log: "off",
    listeners: [
        (name: "fast", bind: "127.0.0.1:$FAST", pool: "flood"),
        (name: "calm", bind: "127.0.0.1:$CALM", pool: "echo"),
        (name: "secret", bind: "127.0.0.1:$SECRET", pool: "echo",
         tls: (certificates: [(certificate: "$WORK/cert.pem", key: "$WORK/key.pem")])),
    ],
    pools: [
        (name: "flood", backends: ["127.0.0.1:$1"]),
        (name: "echo", backends: ["127.0.0.1:$2"]),
    ],
)
RON
    first "$PROXY_CPU" balancer "$MAHORAGA" run "$WORK/balancer.ron"
    wait_port "$CALM" balancer
}

start_pings() { start "$LOAD_CPU" pings chrt -r 20 "$TOOL" pings "$CALM" 50 "$1"; }

# end_pings ROUND KIND: adds a line to the table.
end_pings() {
    local p50 p99 most lost
    wait "$STARTED" || die "pings: $(<"$WORK/pings.log")"
    read -r p50 p99 most lost <"$WORK/pings.log"
    [[ $lost == 0 ]] || die "$lost sessions of the neighbour were lost"
    printf '%s\t' "$1" "$2" "$p50" "$p99" "$most" >>"$TSV"
    balancer_number closed.stalled >>"$TSV"
}

# Until all readers have read their part, or more.
wait_readers() {
    local i
    for ((i = 0; i < 1200; i++)); do
        ! grep -q 'came again' "$WORK/readers.log" || return 0
        kill -0 "$1" 2>/dev/null || die "readers: $(<"$WORK/readers.log")"
        sleep 0.1
    done
    die "the readers have not read their part within two minutes"
}

# turn_readers ROUND
turn_readers() {
    local readers
    start "$LOAD_CPU" readers python3 "$LOADTEST/stalled_readers.py" hold "$FAST" \
        --readers "$READERS" --mib "$READ" --patience 60
    readers=$STARTED
    start_pings "$DURATION"
    end_pings "$1" come
    wait_readers "$readers"
    # What the backend sends into the kernel's buffers comes to its end.
    sleep 3
    start_pings "$DURATION"
    end_pings "$1" stand
    stop "$readers"
    sleep 3
}

# handshakes RATE SECONDS: sets SERVED and OPENED, per second. Their first second is not counted.
handshakes() {
    local result
    result=$(taskset -c "$LOAD_CPU" "$TOOL" clients "$SECRET" "$1" "$2" "$THREAD" "$HELLO")
    read -r SERVED OPENED _ <<<"$result"
}

# turn_handshakes ROUND
turn_handshakes() {
    local peak
    handshakes 0 "$DURATION"
    peak=$SERVED
    # Its sessions are open before.
    start_pings "$DURATION"
    sleep 0.2
    handshakes $((peak * 2)) "$DURATION"
    end_pings "$1" handshakes
    say "peak: $peak handshakes a second; beside the neighbour $OPENED came, $SERVED were answered"
}

turn() {
    say "$2, round $1 of $ROUNDS"
    start_pings "$DURATION"
    end_pings "$1" alone
    "turn_$2" "$1"
}

print_table() {
    python3 - "$TSV" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

NAMES = {
    "alone": "alone",
    "come": "readers come",
    "stand": "readers stand",
    "handshakes": "twice the handshakes",
}
rounds = defaultdict(dict)
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for number, kind, *values in csv.reader(file, delimiter="\t"):
        rounds[int(number)][kind] = [float(value) for value in values]


def spread(values, unit):
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f}) {unit}"


print("| neighbour | p50 | p99 | longest | p50 against alone | p99 against alone |")
print("|" + " --- |" * 6)
for kind, name in NAMES.items():
    if not all(kind in its for its in rounds.values()):
        continue
    of = lambda n: [its[kind][n] for its in rounds.values()]
    ratio = lambda n: [its[kind][n] / its["alone"][n] for its in rounds.values()]
    cells = [name, *(spread(of(n), "ms") for n in range(3))]
    cells += [spread(ratio(n), "times") for n in range(2)]
    print("| " + " | ".join(cells) + " |")
rounds = {number: its for number, its in rounds.items() if "stand" in its}
closed = [its["stand"][3] - its["alone"][3] for its in rounds.values()]
if closed:
    counts = ', '.join(f'{count:.0f}' for count in closed)
    print(f"Readers closed as `stalled` in a round: {counts}.")
PYTHON
}

help_if_asked "$@"
(($#)) || set -- readers handshakes
for others; do
    [[ $others =~ ^(readers|handshakes)$ ]] || die "no part named $others (see --help)"
done
need_tools cc chrt nice openssl python3 taskset
need_two_cpus
find_mahoraga
need_descriptors $((4 * READERS + 500))
cc -O2 -o "$TOOL" "$LOADTEST/open_loop.c"
free_port
flood=$PORT
start "$LOAD_CPU" flood "$TOOL" flood "$flood"
wait_port "$flood" flood
free_port
echo=$PORT
start "$LOAD_CPU" echo chrt -r 10 "$TOOL" echo "$echo"
wait_port "$echo" echo
make_certificate
start_balancer "$flood" "$echo"
THREAD=$(worker_thread "$STARTED")
for others; do
    : >"$TSV"
    for ((round = 1; round <= ROUNDS; round++)); do
        turn "$round" "$others"
    done
    print_table
done
printf '%s rounds of %s s, %s readers of %s MiB; %s.\n' \
    "$ROUNDS" "$DURATION" "$READERS" "$READ" "$(machine_facts)"
printf 'Load of the machine (1, 5, 15 minutes) at the end: %s.\n' \
    "$(cut -d ' ' -f 1-3 /proc/loadavg)"
