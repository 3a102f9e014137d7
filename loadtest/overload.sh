#!/usr/bin/env bash
# More clients come than the balancer can serve: how many it still serves, and how long open
# sessions wait meanwhile.
#
#   loadtest/overload.sh [FACTOR...]     default: 2 5
#
# In each round the script first measures the most connections a second that one worker serves
# (64 clients at a time, each opens a connection, sends a message and waits for its echo), and the
# p99 of 50 open sessions that send a message each 20 ms meanwhile. Then new clients come at FACTOR
# times that rate, whatever becomes of those before them. It prints the medians and ranges of the
# rounds: of the connections that are served, as a part of the most, and of the p99, as a multiple.
# The exit code does not depend on them.
#
# The worker has PROXY_CPU (1), clients and backend have LOAD_CPU (0). What else runs on the machine
# slows both down. So the script also prints how many connections a second of the worker's CPU time
# serves, as a part of how many at the most: that falls with what the worker does in vain alone. And
# it prints what it needs to be believed: the part of a CPU that the worker had, and the connections
# that were really opened.
#
# One CPU for clients and backend could not open five times as many connections as one worker can
# serve. So a program takes STEAL percent of the worker's CPU, in steps of 1 ms. Needs root for
# that, and a C compiler. By environment:
#   ROUNDS=5     DURATION=6     rounds, and seconds of each figure in a round
#   STEAL=75                    percent of the worker's CPU that others have
#   OVERLOAD='(wait: "50ms")'   the balancer's setting `overload`
#   MAHORAGA=PATH               the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-6}
STEAL=${STEAL:-75}
OVERLOAD=${OVERLOAD:-'(wait: "50ms")'}
TOOL=$WORK/open_loop
TSV=$WORK/overload.tsv

# start_balancer BACKEND_PORT: sets PORT and THREAD, the directory of the worker's thread in /proc.
start_balancer() {
    free_port
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    admin: "$WORK/admin.sock",
    access_log: "off",
    histogram_log: "$WORK/balancer.hlog",
    overload: $OVERLOAD,
    listeners: [(name: "in", bind: "127.0.0.1:$PORT", pool: "out")],
    pools: [(name: "out", backends: ["127.0.0.1:$1"])],
)
RON
    first "$PROXY_CPU" balancer "$MAHORAGA" run "$WORK/balancer.ron"
    wait_port "$PORT" balancer
    THREAD=$(worker_thread "$STARTED")
}

# turn ROUND FACTOR RATE: adds a line to the table; sets SERVED.
turn() {
    local round=$1 factor=$2 rate=$3 pings refused dropped
    local -a p=() c=()
    say "round $round of $ROUNDS: $factor times the most, $rate connections a second"
    refused=$(balancer_number closed.overloaded)
    dropped=$(balancer_number backlog_drops)
    # Pings are few: their times are to be those of the balancer, not of this CPU.
    start "$LOAD_CPU" pings chrt -r 20 "$TOOL" pings "$PORT" 50 $((DURATION + 1))
    pings=$STARTED
    first "$LOAD_CPU" clients "$TOOL" clients "$PORT" "$rate" "$DURATION" "$THREAD"
    wait "$STARTED" || die "clients: $(<"$WORK/clients.log")"
    wait "$pings" || die "pings: $(<"$WORK/pings.log")"
    read -ra c <"$WORK/clients.log"
    read -ra p <"$WORK/pings.log"
    refused=$((($(balancer_number closed.overloaded) - refused) / (DURATION + 1)))
    dropped=$((($(balancer_number backlog_drops) - dropped) / (DURATION + 1)))
    SERVED=${c[0]}
    [[ ${p[3]} == 0 ]] || die "${p[3]} open sessions were lost"
    printf '%s\t' "$factor" "${c[@]}" "${p[@]:0:3}" "$refused" >>"$TSV"
    printf '%s\n' "$dropped" >>"$TSV"
    # What is left of the load ends.
    sleep 3
}

print_table() {
    python3 - "$TSV" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

HEAD = ["load", "opened/s", "served/s", "of the most", "worker's CPU", "served per its CPU time",
        "served within, p50, p99", "reset/s", "dropped/s", "p99 of open sessions",
        "against that at the most"]
figures, most = defaultdict(list), None
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for factor, *values in csv.reader(file, delimiter="\t"):
        values = [float(value) for value in values]
        most = values if factor == "1" else most
        figures[factor].append((values, most))


def spread(values, form):
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


print("| " + " | ".join(HEAD) + " |")
print("|" + " --- |" * len(HEAD))
for factor, rounds in figures.items():
    column = lambda n: [values[n] for values, _ in rounds]
    against = lambda n: [values[n] / most[n] for values, most in rounds]
    per_cpu = [100 * one / its for one, its in zip(against(0), against(6))]
    cells = [
        "the most" if factor == "1" else f"{factor} times", f"{median(column(1)):,.0f}",
        f"{median(column(0)):,.0f}", spread([100 * part for part in against(0)], ".0f") + " %",
        f"{100 * median(column(6)):.0f} %", spread(per_cpu, ".0f") + " %",
        f"{median(column(4)):.0f} ms, {median(column(5)):.0f} ms", f"{median(column(10)):,.0f}",
        f"{median(column(11)):,.0f}", spread(column(8), ".1f") + " ms",
        spread(against(8), ".1f") + " times",
    ]
    print("| " + " | ".join(cells) + " |")
PYTHON
}

help_if_asked "$@"
(($#)) || set -- 2 5
need_tools cc chrt nice python3 taskset
need_two_cpus
find_mahoraga
cc -O2 -o "$TOOL" "$LOADTEST/open_loop.c"
free_port
backend=$PORT
start "$LOAD_CPU" echo chrt -r 10 "$TOOL" echo "$backend"
wait_port "$backend" echo
start "$PROXY_CPU" steal "$TOOL" steal "$STEAL"
start_balancer "$backend"
: >"$TSV"
for ((round = 1; round <= ROUNDS; round++)); do
    turn "$round" 1 0
    most=$SERVED
    for factor; do
        turn "$round" "$factor" "$(awk "BEGIN { printf \"%.0f\", $most * $factor }")"
    done
done
print_table
printf '%s rounds of %s s, %s %% of the worker taken, overload: %s; %s.\n' \
    "$ROUNDS" "$DURATION" "$STEAL" "$OVERLOAD" "$(machine_facts)"
printf 'Load of the machine (1, 5, 15 minutes) at the end: %s.\n' \
    "$(cut -d ' ' -f 1-3 /proc/loadavg)"
