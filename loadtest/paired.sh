# Functions for scripts that measure what a feature costs: the same balancer with and without it,
# in one run. Source it after lib.sh.
#
# The script names its KINDS, the first of which the others are compared with, and starts each with
# one worker pinned to PROXY_CPU; load and backend are on LOAD_CPU. In every round each has its
# turn, another one first. A ratio is taken within a round; print_table prints the medians and
# ranges of the rounds. By environment:
#   ROUNDS=15       DURATION=2      rounds, and seconds of each figure in a round
# shellcheck shell=bash

ROUNDS=${ROUNDS:-15}
DURATION=${DURATION:-2}
# shellcheck disable=SC2153 # lib.sh makes it
TSV=$WORK/paired.tsv
declare -A PORT_OF PID_OF
: >"$TSV"

# measure KIND SECONDS WRK_ARGUMENT...: prints "CPU RATE P50 P99 ERRORS", where CPU is in µs for
# each request. A script with another load has its own.
measure() {
    local kind=$1 seconds=$2
    shift 2
    measure_wrk "${PID_OF[$kind]}" "${PORT_OF[$kind]}" 64 "$seconds" "$@"
}

# turn LOAD ROUND KIND ARGUMENT...
turn() {
    local load=$1 round=$2 kind=$3 cpu rate errors result
    shift 3
    result=$(measure "$kind" "$DURATION" "$@")
    read -r cpu rate _ _ errors <<<"$result"
    # Errors are no part of the price: a figure with some is of another load.
    [[ $errors == 0 ]] || say "$load, $kind: $errors requests failed or were refused"
    printf '%s\t%s\t%s\t%s\t%s\n' "$load" "$round" "$kind" "$cpu" "$rate" >>"$TSV"
}

# in_turns LOAD ARGUMENT...
in_turns() {
    local load=$1 kind round nth count=${#KINDS[@]}
    shift
    for kind in "${KINDS[@]}"; do
        measure "$kind" 1 "$@" >/dev/null
    done
    for ((round = 1; round <= ROUNDS; round++)); do
        say "$load: round $round of $ROUNDS"
        for ((nth = 0; nth < count; nth++)); do
            turn "$load" "$round" "${KINDS[(round + nth) % count]}" "$@"
        done
    done
}

# CPU time per connection with one request (wrk, nginx).
part_connect() { in_turns connect -H 'Connection: close'; }

# CPU time per request over 64 keep-alive connections.
part_requests() { in_turns requests; }

# Prints nothing if no part measured by turns.
print_table() {
    python3 - "$TSV" "${KINDS[@]}" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

NAMES = {
    "connect": "µs of CPU per connection with one request",
    "requests": "µs of CPU per request",
    "hellos": "µs of CPU per connection with a TLS hello",
    "full": "µs of CPU per connection with a whole handshake of TLS and one request",
    "resumed": "µs of CPU per connection with a resumed session of TLS and one request",
    "bytes": "µs of CPU per MB",
}
figures = defaultdict(dict)
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for load, turn, kind, cpu, _ in csv.reader(file, delimiter="\t"):
        figures[load, kind][turn] = float(cpu)
first, *others = sys.argv[2:]


def spread(values, form):
    values = list(values)
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


for load in dict.fromkeys(load for load, _ in figures):
    print(f"{NAMES[load]}, median and range:")
    without = figures[load, first]
    print(f"  {first:10}{spread(without.values(), '.3f')}")
    for kind in others:
        ours = figures[load, kind]
        more = [100 * (ours[turn] / without[turn] - 1) for turn in ours]
        line = f"  {kind:10}{spread(ours.values(), '.3f')}"
        print(f"{line}; against {first}: {spread(more, '+.1f')}%")
PYTHON
}
