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
# The good client has a listener of its own, of the same worker, in front of a server that echoes. It
# has 50 open sessions with a message on each every 20 ms, and opens 200 more connections a second,
# with a message on each. `syn` floods its listener, the others one in front of nginx. In each round
# its p99s are measured three times: without the attack, while the attack arrives, and while it
# stands. The script prints the medians and ranges of each p99, and of the ratios within a round.
# Each attack is run without limits, and with `source_limits: (connections: LIMIT)`: what the
# attacker holds then is what the limit says. The exit code does not depend on times; it is 1 when
# the good client loses a session, is refused or given up, or when the attacker holds more than the
# limit.
#
# The worker has PROXY_CPU (1) and goes before others there. All else is in a namespace of its own or
# of the attacker on LOAD_CPU (0), the good client and its server first: their times are to be those
# of the balancer, not of the attacker's CPU. Needs root, and a C compiler. By environment:
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
TOOL=$WORK/open_loop
# Of the good client.
SESSIONS=50
RATE=200

# start_balancer HTTP_PORT ECHO_PORT [LIMITS]: sets ATTACKED and CALM, the ports of its listeners,
# and THREAD, its worker.
start_balancer() {
    free_port
    ATTACKED=$PORT
    free_port
    CALM=$PORT
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    admin: "$WORK/admin.sock",
    access_log: "off",
    listeners: [
        (name: "in", bind: "0.0.0.0:$ATTACKED", pool: "out"${3:-}),
        (name: "calm", bind: "0.0.0.0:$CALM", pool: "echo"),
    ],
    pools: [
        (name: "out", backends: ["127.0.0.1:$1"]),
        (name: "echo", backends: ["127.0.0.1:$2"]),
    ],
)
RON
    first "$PROXY_CPU" balancer "$MAHORAGA" run "$WORK/balancer.ron"
    wait_port "$CALM" balancer
    THREAD=$(worker_of "$STARTED")
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

# sessions: those of the attacked listener. More are established for a moment: those that the kernel
# took in and the balancer has not seen.
sessions() {
    "$MAHORAGA" --admin "$WORK/admin.sock" listeners --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["connections"])'
}

# until_attacked NAME MOST: waits until the attack is there, 10 s at most.
until_attacked() {
    local i
    for ((i = 0; i < 100; i++)); do
        case $1 in
        syn) ((i < 10)) || return 0 ;;
        *) (($(sessions) < $2)) || return 0 ;;
        esac
        kill -0 "$STARTED" 2>/dev/null || break
        sleep 0.1
    done
    say "$1: the attacker has $(sessions) sessions of $2"
}

# good_client NAME: prints the p99 of open sessions and of new ones in ms; dies when one is lost.
good_client() {
    local pings
    local -a p=() c=()
    start "$LOAD_CPU" pings chrt -r 20 "$TOOL" pings "$CALM" "$SESSIONS" $((DURATION + 1))
    pings=$STARTED
    start "$LOAD_CPU" clients chrt -r 20 "$TOOL" clients "$CALM" "$RATE" "$DURATION" "$THREAD"
    wait "$STARTED" || die "clients: $(<"$WORK/clients.log")"
    wait "$pings" || die "pings: $(<"$WORK/pings.log")"
    read -ra c <"$WORK/clients.log"
    read -ra p <"$WORK/pings.log"
    ((p[3] + c[2] + c[3] == 0)) || die "$1: the good client lost ${p[3]} sessions;" \
        "${c[2]} connections a second were refused, ${c[3]} given up"
    printf '%s\t%s\n' "${p[1]}" "${c[5]}"
}

# measure NAME LIMITS MOST HTTP_PORT ECHO_PORT: all rounds of an attack.
measure() {
    local name=$1 kind=$2 most=$3 round quiet arriving standing held cookies limits= port attack
    [[ $kind == none ]] || limits=", source_limits: (connections: $LIMIT)"
    start_balancer "$4" "$5" "$limits"
    local balancer=$STARTED
    port=$ATTACKED
    [[ $name != syn ]] || port=$CALM
    good_client "$name" >/dev/null
    for ((round = 1; round <= ROUNDS; round++)); do
        say "$name, limits: $kind, round $round of $ROUNDS"
        quiet=$(good_client "$name")
        cookies=$(counter TcpExtSyncookiesSent)
        start_attack "$name" "$port"
        attack=$STARTED
        arriving=$(good_client "$name")
        until_attacked "$name" "$most"
        standing=$(good_client "$name")
        held=$(sessions)
        if [[ $name == syn ]]; then
            held=$(ss -Htn state syn-recv src "$OURS:$port" | wc -l)
            cookies=$(($(counter TcpExtSyncookiesSent) - cookies))
            ((cookies > 0)) || die "the kernel sent no SYN cookie: the flood did not arrive"
        elif ((held > most)); then
            die "$name: the attacker has $held connections, at most $most are allowed"
        fi
        stop "$attack"
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


print("| attack | limits | p99 of | without, ms | while it arrives | while it stands | held |")
print("|" + " --- |" * 7)
for (name, kind), figures in rounds.items():
    columns = list(zip(*figures))
    held = spread(columns[6], ",.0f") + (" half-open" if name == "syn" else "")
    for offset, client in enumerate(["open sessions", "new ones"]):
        quiet, arriving, standing = columns[offset:6:2]
        ratio = lambda under: spread([two / one for one, two in zip(quiet, under)], ".2f")
        ms = lambda under: f"{median(under):.2f}: {ratio(under)} times"
        cells = [name, kind, client, spread(quiet, ".2f"), ms(arriving), ms(standing), held]
        print("| " + " | ".join(cells) + " |")
PYTHON
}

attacks() {
    local attack http echo
    cc -O2 -o "$TOOL" "$LOADTEST/open_loop.c"
    make_network "$OURS/24" "$ATTACKER/24"
    ip route add "$FORGED" via "$ATTACKER"
    echo 1 >/proc/sys/net/ipv4/tcp_syncookies
    head -c 1000000 /dev/zero >"$WORK/large.bin"
    start_http "$LOAD_CPU" "$WORK"
    http=$PORT
    free_port
    echo=$PORT
    start "$LOAD_CPU" echo chrt -r 10 "$TOOL" echo "$echo"
    wait_port "$echo" echo
    : >"$TSV"
    for attack; do
        measure "$attack" none "$CONNECTIONS" "$http" "$echo"
        [[ $attack == syn ]] || measure "$attack" "$LIMIT" "$LIMIT" "$http" "$echo"
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
need_tools cc chrt nice slowhttptest nginx python3 taskset ip ss nstat nsenter unshare
need_two_cpus
need_descriptors 8192
find_mahoraga
unshare --net true 2>/dev/null || die "may not make a network namespace: run this as root"
status=0
IN_NAMESPACE=1 MAHORAGA=$MAHORAGA unshare --net "${BASH_SOURCE[0]}" "$@" || status=$?
exit "$status"
