#!/usr/bin/env bash
# What banned clients cost that keep knocking, once the kernel drops them before accept
# (docs/protection.md): SYN_RATE SYNs a second by a raw socket, from 16,384 banned addresses.
#
#   loadtest/banned.sh [ebpf] [classic]      default: both
#
# The balancer is in a network namespace, the attacker in another one. The kernel handles the
# attacker's packets on the CPU of the only worker, PROXY_CPU. For each round the script prints what
# the worker's thread took of a core without the flood and under it, and what the kernel took of
# that CPU for all that a packet meets: how much less another process gets done there in the same
# CPU time. (What the kernel says of softirq itself is counted at ticks, which the flood is in step
# with.) The exit code does not depend on times; it is 1 when the flood did not arrive, or when a
# banned client was accepted. Needs root. By environment:
#   ROUNDS=5           DURATION=10    rounds, and seconds of each figure in a round
#   SYN_RATE=10000     SYNs a second
#   MAHORAGA=PATH      the binary (default: what `cargo build --release` makes now)
#   INSTALL=1          install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-10}
SYN_RATE=${SYN_RATE:-10000}
OURS=10.231.0.1
ATTACKER=10.231.128.1
FORGED=10.231.192.0/18
BANNED=10.231.128.0/17
ADMIN=$WORK/admin.sock
TSV=$WORK/banned.tsv

# start_balancer MEANS: sets PORT and WORKER, the directory of its thread in /proc. CAP_BPF decides
# the means.
start_balancer() {
        local -a as=()
    [[ $1 == ebpf ]] || as=(setpriv "--bounding-set=-bpf,-sys_admin")
    free_port
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    user: "root",
    admin: "$ADMIN",
    access_log: "off",
    histogram_log: "$WORK/balancer.hlog",
    listeners: [(name: "in", bind: "0.0.0.0:$PORT", pool: "out")],
    pools: [(name: "out", backends: ["127.0.0.1:9"])],
)
RON
    start "$PROXY_CPU" balancer "${as[@]}" "$MAHORAGA" run "$WORK/balancer.ron"
    wait_port "$PORT" balancer
    WORKER=$(worker_thread "$STARTED")
}

# status FIELD: of `mahoraga status`; a dot is between a group and its field.
status() {
    "$MAHORAGA" status --json --admin "$ADMIN" | python3 -c '
import json, sys
found = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    found = found[name]
print(found)' "$1"
}

# Connects until the kernel drops what is banned.
knock() {
    attacking python3 - "$OURS" "$1" <<'PYTHON'
import socket
import sys
import time

until = time.monotonic() + 20
while time.monotonic() < until:
    for _ in range(20):
        with socket.socket() as client:
            client.settimeout(0.5)
            try:
                client.connect((sys.argv[1], int(sys.argv[2])))
            except TimeoutError:
                sys.exit(0)
            except OSError:
                pass
    time.sleep(0.1)
sys.exit("banned clients are still answered")
PYTHON
}

# Nanoseconds that the worker's thread has run, and packets that have come.
used() {
    local worker
    read -r worker _ <"$WORKER/schedstat"
    echo "$worker $(nstat -asz IpInReceives | awk '$1 == "IpInReceives" { print $2 }')"
}

# Works for DURATION seconds of its own CPU time on PROXY_CPU: how often in a second of it. What
# interrupts it is counted as its own time.
work_done() {
    taskset -c "$PROXY_CPU" python3 - "$DURATION" <<'PYTHON'
import sys
import time

seconds, done = float(sys.argv[1]), 0
begun = time.thread_time()
while (spent := time.thread_time() - begun) < seconds:
    for _ in range(20_000):
        pass
    done += 1
print(f"{done / spent:.3f}")
PYTHON
}

# measured MEANS ROUND KIND: what is used, and what is done.
measured() {
    local before after begun=$EPOCHREALTIME took work
    read -ra before <<<"$(used)"
    work=$(work_done)
    read -ra after <<<"$(used)"
    took=$((${EPOCHREALTIME/./} - ${begun/./}))
    PACKETS=$(((after[1] - before[1]) * 1000000 / took))
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" \
        "$(((after[0] - before[0]) / (took / 1000)))" "$work" "$PACKETS" >>"$TSV"
}

measure() {
    local means=$1 round accepted
    start_balancer "$means"
    local balancer=$STARTED
    "$MAHORAGA" ban "$BANNED" --admin "$ADMIN" >/dev/null
    for ((round = 1; round <= ROUNDS; round++)); do
        say "$means: round $round of $ROUNDS"
        # Without a knock the filter forgets a network after a minute.
        knock "$PORT"
        [[ $(status syn_filter.means) == "$means" && $(status syn_filter.networks) == 1 ]] ||
            die "the filter is not in force: $("$MAHORAGA" status --admin "$ADMIN")"
        measured "$means" "$round" quiet
        accepted=$(status accepted)
        start "$LOAD_CPU" flood nsenter --net="/proc/$ATTACKER_PID/ns/net" \
            python3 "$LOADTEST/syn_flood.py" "$OURS:$PORT" "$FORGED" "$SYN_RATE"
        sleep 1
        measured "$means" "$round" flood
        stop "$STARTED"
        ((PACKETS > SYN_RATE / 2)) ||
            die "$PACKETS packets came in a second: the flood did not arrive (is the CPU busy?)"
        [[ $(status accepted) == "$accepted" ]] || die "the balancer accepted banned clients"
    done
    [[ $means == classic ]] || say "dropped, by the map: $(status syn_filter.dropped)"
    stop "$balancer"
}

print_table() {
    python3 - "$TSV" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

figures = defaultdict(dict)
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for means, turn, kind, worker, work, packets in csv.reader(file, delimiter="\t"):
        figures[means].setdefault(turn, {})[kind] = int(worker) / 10, float(work), int(packets)


def spread(values):
    values = list(values)
    return f"{median(values):.2f} % ({min(values):.2f} to {max(values):.2f})"


print("| means | SYNs a second | worker, quiet | worker, flood | kernel, flood |")
print("| --- | --- | --- | --- | --- |")
for means, rounds in figures.items():
    quiet, flood = [[its[kind] for its in rounds.values()] for kind in ("quiet", "flood")]
    packets = median(its[2] for its in flood)
    kernel = spread(100 * (1 - two[1] / one[1]) for one, two in zip(quiet, flood))
    workers = [spread(its[0] for its in kind) for kind in (quiet, flood)]
    print("| " + " | ".join([means, f"{packets:,}", *workers, kernel]) + " |")
PYTHON
}

floods() {
    local means mask
    mount -t sysfs sys /sys
    make_network "$OURS/16" "$ATTACKER/16"
    printf -v mask '%x' "$((1 << PROXY_CPU))"
    echo "$mask" >/sys/class/net/ours/queues/rx-0/rps_cpus ||
        say "packets are handled where they are sent (no RPS here): their time is of LOAD_CPU"
    : >"$TSV"
    for means; do
        measure "$means"
    done
    print_table
    printf '%s rounds of %s s; %s.\n' "$ROUNDS" "$DURATION" "$(machine_facts)"
}

help_if_asked "$@"
(($#)) || set -- ebpf classic
for means; do
    [[ $means == ebpf || $means == classic ]] || die "no means named $means (see --help)"
done
if [[ -n ${IN_NAMESPACE:-} ]]; then
    floods "$@"
    exit
fi
need_tools python3 taskset setpriv ip nstat nsenter unshare
need_two_cpus
find_mahoraga
unshare --net --mount true 2>/dev/null || die "may not make a namespace: run this as root"
status=0
IN_NAMESPACE=1 MAHORAGA=$MAHORAGA unshare --net --mount "${BASH_SOURCE[0]}" "$@" || status=$?
exit "$status"
