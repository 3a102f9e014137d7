#!/usr/bin/env bash
# What banned clients cost that keep knocking, once the kernel drops them before accept
# (docs/protection.md): SYN_RATE SYNs a second by a raw socket, from 16,384 banned addresses.
#
#   loadtest/banned.sh [ebpf] [classic]      default: both
#
# The balancer is in a network namespace, the attacker in another one. The kernel handles the
# attacker's packets on the CPU of the only worker, PROXY_CPU. For each round the script prints what
# the worker's thread took of a core, and what the kernel took of that CPU for packets (softirq),
# without the flood and under it. Others that use the network of this machine disturb the second
# figure. The exit code does not depend on times; it is 1 when the flood did not arrive, or when a
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
    local task
    local -a as=()
    [[ $1 == ebpf ]] || as=(setpriv --bounding-set=-bpf,-sys_admin)
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
    for task in "/proc/$STARTED/task/"*; do
        [[ $(<"$task/comm") != worker-0 ]] || WORKER=$task
    done
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

# Nanoseconds that the worker's thread has run, those that PROXY_CPU has spent on packets, and
# packets that have come.
used() {
    local worker softirq
    read -r worker _ <"$WORKER/schedstat"
    softirq=$(awk -v hz="$(getconf CLK_TCK)" -v cpu="cpu$PROXY_CPU" \
        '$1 == cpu { printf "%.0f", $8 * 1e9 / hz }' /proc/stat)
    echo "$worker $softirq $(nstat -asz IpInReceives | awk '$1 == "IpInReceives" { print $2 }')"
}

# measured MEANS ROUND KIND: what is used in DURATION seconds.
measured() {
    local before after
    read -ra before <<<"$(used)"
    sleep "$DURATION"
    read -ra after <<<"$(used)"
    PACKETS=$((after[2] - before[2]))
    printf '%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "$3" \
        "$((after[0] - before[0]))" "$((after[1] - before[1]))" >>"$TSV"
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
        ((PACKETS > SYN_RATE * DURATION / 2)) ||
            die "$PACKETS packets came in $DURATION s: the flood did not arrive (is the CPU busy?)"
        [[ $(status accepted) == "$accepted" ]] || die "the balancer accepted banned clients"
        printf '%s\t%s\tpackets\t%s\t0\n' "$means" "$round" "$PACKETS" >>"$TSV"
    done
    [[ $means == classic ]] || say "dropped, by the map: $(status syn_filter.dropped)"
    stop "$balancer"
}

print_table() {
    python3 - "$TSV" "$DURATION" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

figures, seconds = defaultdict(list), float(sys.argv[2])
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for means, _, kind, worker, softirq in csv.reader(file, delimiter="\t"):
        figures[means, kind].append((int(worker), int(softirq)))


def share(means, kind, which):
    values = [100 * its[which] / 1e9 / seconds for its in figures[means, kind]]
    return f"{median(values):.2f} % ({min(values):.2f} to {max(values):.2f})"


print("| means | SYNs a second | worker, quiet | worker, flood | softirq, quiet | softirq, flood |")
print("| --- | --- | --- | --- | --- | --- |")
for means in dict.fromkeys(means for means, _ in figures):
    packets = median(its[0] for its in figures[means, "packets"]) / seconds
    cells = [share(means, kind, which) for which in (0, 1) for kind in ("quiet", "flood")]
    print("| " + " | ".join([means, f"{packets:,.0f}", *cells]) + " |")
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
