#!/usr/bin/env bash
# Slow and half-open attacks on the balancer, while a well-behaved client works: how much longer its
# requests take.
#
#   loadtest/slow.sh [slowloris] [body] [read] [syn]     default: all of them
#
#   slowloris   CONNECTIONS whose requests never end (slowhttptest -H)
#   body        the same with bodies that never end (-B)
#   read        answers that nearly nobody reads (-X)
#   syn         SYN_RATE half-open connections a second from 65,536 addresses, by a raw socket
#
# Balancer, backend (nginx) and the good client are in a network namespace, the attacker is in
# another one. The good client has 8 connections from wrk; against `syn` it opens a new one for each
# request, as only those could suffer. In each round it is measured three times: without the attack,
# while the attack arrives, and while it stands. The script prints the medians and ranges of each
# p99, and of the ratios within a round. Each attack is run without limits, and with
# `source_limits: (connections: LIMIT)`: what the attacker holds then is what the limit says. The
# exit code does not depend on times; it is 1 when a request of the good client fails, or when the
# attacker holds more than the limit. Needs root. By environment:
#   ROUNDS=5           DURATION=4     rounds, and seconds of each figure in a round
#   CONNECTIONS=1000   LIMIT=50       of the attacker
#   SYN_RATE=10000     SYNs a second
#   MAHORAGA=PATH      the binary (default: what `cargo build --release` makes now)
#   INSTALL=1          install missing tools by apt-get

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-4}
CONNECTIONS=${CONNECTIONS:-1000}
LIMIT=${LIMIT:-50}
SYN_RATE=${SYN_RATE:-10000}
OURS=10.231.0.1
ATTACKER=10.231.0.2
# Addresses of SYNs: routed to the attacker, who answers for none of them.
FORGED=10.232.0.0/16
TSV=$WORK/slow.tsv

# start_balancer BACKEND_PORT [LIMITS]: sets PORT.
start_balancer() {
    free_port
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    admin: "off",
    access_log: "off",
    histogram_log: "$WORK/balancer.hlog",
    listeners: [(name: "in", bind: "0.0.0.0:$PORT", pool: "out"${2:-})],
    pools: [(name: "out", backends: ["127.0.0.1:$1"])],
)
RON
    start "$PROXY_CPU" balancer "$MAHORAGA" run "$WORK/balancer.ron"
    wait_port "$PORT" balancer
}

# start_attack NAME PORT
start_attack() {
    local name=$1 url=http://$OURS:$2 seconds=$((2 * DURATION + 60))
    local -a slow=(slowhttptest -v 0 -c "$CONNECTIONS" -r 1000 -l "$seconds")
    case $name in
    slowloris) slow+=(-H -i 2 -u "$url/small") ;;
    body) slow+=(-B -i 2 -s 65536 -u "$url/upload") ;;
    read) slow+=(-X -n 2 -w 1 -y 256 -z 16 -u "$url/large.bin") ;;
    syn) slow=(python3 "$LOADTEST/syn_flood.py" "$OURS:$2" "$FORGED" "$SYN_RATE") ;;
    esac
    start "$LOAD_CPU" "attack-$name" \
        nsenter --net="/proc/$ATTACKER_PID/ns/net" "${slow[@]}"
}

# established PORT: connections that the attacker has.
established() {
    ss -Htn state established src "$OURS:$1" dst "$ATTACKER" | wc -l
}

# A counter of the kernel for this namespace.
counter() { nstat -asz "$1" | awk -v name="$1" '$1 == name { print $2 }'; }

# until_attacked NAME PORT MOST: waits until the attack is there, 10 s at most.
until_attacked() {
    local i
    for ((i = 0; i < 100; i++)); do
        case $1 in
        syn) ((i < 10)) || return 0 ;;
        *) (($(established "$2") < $3)) || return 0 ;;
        esac
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.1
    done
    say "$1: the attacker has $(established "$2") connections of $3"
}

# good_client NAME PORT: prints its p99 in µs; dies when a request fails.
good_client() {
    local p99 errors
    local -a how=()
    [[ $1 != syn ]] || how=(-H 'Connection: close')
    read -r _ _ _ p99 errors < <(run_wrk "$LOAD_CPU" "$2" 8 "$DURATION" "${how[@]}")
    [[ $errors == 0 ]] || die "$1: $errors requests of the good client failed:" \
        "$(grep -E 'Socket errors|Non-2xx' "$WORK/wrk.out")"
    echo "$p99"
}

# measure NAME LIMITS MOST BACKEND_PORT: all rounds of an attack.
measure() {
    local name=$1 kind=$2 most=$3 backend=$4 round quiet arriving standing held cookies limits=
    [[ $kind == none ]] || limits=", source_limits: (connections: $LIMIT)"
    start_balancer "$backend" "$limits"
    local balancer=$STARTED port=$PORT
    run_wrk "$LOAD_CPU" "$port" 8 1 >/dev/null
    for ((round = 1; round <= ROUNDS; round++)); do
        say "$name, limits: $kind, round $round of $ROUNDS"
        quiet=$(good_client "$name" "$port")
        cookies=$(counter TcpExtSyncookiesSent)
        start_attack "$name" "$port"
        until_attacked "$name" "$port" "$most"
        arriving=$(good_client "$name" "$port")
        standing=$(good_client "$name" "$port")
        held=$(established "$port")
        if [[ $name == syn ]]; then
            held=$(ss -Htn state syn-recv src "$OURS:$port" | wc -l)
            cookies=$(($(counter TcpExtSyncookiesSent) - cookies))
            ((cookies > 0)) || die "the kernel sent no SYN cookie: the flood did not arrive"
        elif ((held > most)); then
            die "$name: the attacker has $held connections, at most $most are allowed"
        fi
        stop "$STARTED"
        printf '%s\t%s\t%s\t%s\t%s\t%s\n' \
            "$name" "$kind" "$quiet" "$arriving" "$standing" "$held" >>"$TSV"
        # What the attacker left is gone before the next figure.
        until_gone "$port"
    done
    stop "$balancer"
}

until_gone() {
    local i
    for ((i = 0; i < 100; i++)); do
        (($(established "$1") > 0)) || return 0
        sleep 0.1
    done
}

print_table() {
    python3 - "$TSV" <<'PYTHON'
import csv
import sys
from collections import defaultdict
from statistics import median

rounds = defaultdict(list)
with open(sys.argv[1], encoding="utf-8", newline="") as file:
    for name, kind, *figures in csv.reader(file, delimiter="\t"):
        rounds[name, kind].append([float(figure) for figure in figures])


def spread(values, form):
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


print("| attack | limits | p99 without, ms | while it arrives | while it stands | attacker holds |")
print("| --- | --- | --- | --- | --- | --- |")
for (name, kind), figures in rounds.items():
    quiet, arriving, standing, held = zip(*figures)
    times = lambda under: spread([two / one for one, two in zip(quiet, under)], ".2f") + " times"
    ms = lambda us: f"{median(us) / 1e3:.2f}: "
    cells = [name, kind, spread([us / 1e3 for us in quiet], ".2f"),
             ms(arriving) + times(arriving), ms(standing) + times(standing),
             spread(held, ",.0f") + (" half-open" if name == "syn" else "")]
    print("| " + " | ".join(cells) + " |")
PYTHON
}

attacks() {
    local attack backend
    make_network "$OURS/24" "$ATTACKER/24"
    ip route add "$FORGED" via "$ATTACKER"
    echo 1 >/proc/sys/net/ipv4/tcp_syncookies
    head -c 1000000 /dev/zero >"$WORK/large.bin"
    start_http "$LOAD_CPU" "$WORK"
    backend=$PORT
    : >"$TSV"
    for attack; do
        measure "$attack" none "$CONNECTIONS" "$backend"
        [[ $attack == syn ]] || measure "$attack" "$LIMIT" "$LIMIT" "$backend"
    done
    print_table
    printf '%s rounds of %s s, %s connections, %s SYN/s; %s.\n' \
        "$ROUNDS" "$DURATION" "$CONNECTIONS" "$SYN_RATE" "$(machine_facts)"
}

help_if_asked "$@"
(($#)) || set -- slowloris body read syn
for attack; do
    case $attack in
    slowloris | body | read | syn) ;;
    *) die "no attack named $attack (see --help)" ;;
    esac
done
if [[ -n ${IN_NAMESPACE:-} ]]; then
    attacks "$@"
    exit
fi
need_tools slowhttptest wrk nginx python3 taskset ip ss nstat nsenter unshare
need_two_cpus
need_descriptors 8192
find_mahoraga
unshare --net true 2>/dev/null || die "may not make a network namespace: run this as root"
status=0
IN_NAMESPACE=1 MAHORAGA=$MAHORAGA unshare --net "${BASH_SOURCE[0]}" "$@" || status=$?
exit "$status"
