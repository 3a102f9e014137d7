#!/usr/bin/env bash
# One source floods the balancer: it is banned, and others do not notice.
#
#   loadtest/abuse.sh
#
# Balancer, backend and the good clients are in a network namespace, the attacker is in another one.
# The balancer limits the connections of a source, and bans sources that go beyond the limit. The
# script shows, one after the other:
#
#   others    the p99 of eight open sessions that send a message each 20 ms: without the flood, and
#             while it goes on; in each of ROUNDS rounds both, and the ratio
#   listed    the ban, with its reason, its end and its hits
#   early     the attacker's connections are dropped before they are accepted
#   restart   the ban holds in the next run, until the same time
#   expiry    it ends at that time, and the attacker can connect
#   logged    the lines of the access log, and the events
#
# The exit code does not depend on times; it is 1 when one of the others fails. Needs root and a C
# compiler. By environment:
#   ROUNDS=5         DURATION=5     rounds, and seconds of each figure in a round
#   RATE=5000                       connections that the attacker opens in a second
#   BAN=90                          seconds that a ban lasts: longer than all rounds
#   MAHORAGA=PATH                   the binary (default: what `cargo build --release` makes now)

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ROUNDS=${ROUNDS:-5}
DURATION=${DURATION:-5}
RATE=${RATE:-5000}
BAN=${BAN:-90}
OURS=10.231.0.1
ATTACKER=10.231.0.2
TOOL=$WORK/open_loop
TSV=$WORK/abuse.tsv

write_configuration() {
    cat >"$WORK/balancer.ron" <<RON
(
    workers: 1,
    admin: "$WORK/admin.sock",
    access_log: (to: "$WORK/access.log"),
    histogram_log: "$WORK/balancer.hlog",
    bans: (file: "$WORK/bans"),
    listeners: [(
        name: "in", bind: "0.0.0.0:$PORT", pool: "out",
        source_limits: (rate: 100, burst: 200),
        ban: (after: 50, within: "10s", for: "${BAN}s", up_to: "1h"),
    )],
    pools: [(name: "out", backends: ["127.0.0.1:$1"])],
)
RON
}

# run_balancer NAME: sets BALANCER.
run_balancer() {
    first "$PROXY_CPU" "$1" "$MAHORAGA" run "$WORK/balancer.ron"
    BALANCER=$STARTED
    wait_port "$PORT" "$1"
}

start_flood() {
    start "$LOAD_CPU" flood nsenter --net="/proc/$ATTACKER_PID/ns/net" \
        python3 "$LOADTEST/connect_flood.py" "$OURS:$PORT" "$RATE"
    FLOOD=$STARTED
}

# others: prints the p99 of the good clients, in ms. They are few: their times are to be those of
# the balancer, not of this CPU.
others() {
    local -a times
    read -ra times < <(taskset -c "$LOAD_CPU" chrt -r 20 "$TOOL" pings "$PORT" 8 "$DURATION")
    [[ ${times[3]} == 0 ]] || die "${times[3]} sessions of others were lost"
    echo "${times[1]}"
}

# ban FIELD: of the ban of the attacker; nothing: there is none.
ban() {
    "$MAHORAGA" bans --json --client "$ATTACKER" --admin "$WORK/admin.sock" | python3 -c '
import json
import sys

for one in json.load(sys.stdin):
    print(one[sys.argv[1]])' "$1"
}

until_banned() {
    local i
    for ((i = 0; i < 200; i++)); do
        [[ -z $(ban prefix) ]] || return 0
        sleep 0.05
    done
    die 'the attacker was not banned'
}

# Whether the attacker gets an answer.
connects() {
    attacking python3 - "$OURS" "$PORT" <<'PYTHON'
import socket
import sys

try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as client:
        client.sendall(b"?")
        sys.exit(client.recv(1) != b"?")
except OSError:
    sys.exit(1)
PYTHON
}

# How many connections are accepted in two seconds, while only the attacker opens any.
accepted_from_attacker() {
    local before
    before=$(balancer_number accepted)
    sleep 2
    echo $(($(balancer_number accepted) - before))
}

# The filter comes into force within a second or two.
expect_none_accepted() {
    local i count
    for ((i = 0; i < 5; i++)); do
        count=$(accepted_from_attacker)
        ((count > 0)) || break
    done
    echo "early ($1): $count connections accepted in 2 s of some $((2 * RATE));" \
        "$("$MAHORAGA" status --admin "$WORK/admin.sock" | grep 'syn filter' || echo 'no filter')"
    ((count == 0)) || die 'connections of a banned source are accepted'
}

measure_others() {
    local round quiet flooded
    for ((round = 1; round <= ROUNDS; round++)); do
        say "others: round $round of $ROUNDS"
        quiet=$(others)
        start_flood
        until_banned
        sleep 1
        flooded=$(others)
        stop "$FLOOD"
        printf '%s\t%s\n' "$quiet" "$flooded" >>"$TSV"
        sleep 1
    done
    python3 - "$TSV" <<'PYTHON'
import sys
from statistics import median

with open(sys.argv[1], encoding="utf-8") as file:
    rounds = [[float(time) for time in line.split()] for line in file]
quiet, flooded = zip(*rounds)
ratios = [two / one for one, two in rounds]
print(f"others: p99 {median(quiet):.2f} ms without the flood, {median(flooded):.2f} ms with it; "
      f"{median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})")
PYTHON
}

show_logs() {
    # A worker writes 100 lines of refused clients in a second, those of clients that have gone too.
    local lines refused="client=$ATTACKER:.* reason=\\(source_rate\\|banned\\)"
    lines=$(grep -c "$refused" "$WORK/access.log" || true)
    ((lines > 0)) || die 'the access log has no line of the attacker'
    echo "logged: $lines lines of refused connections, such as"
    grep -m 1 "$refused" "$WORK/access.log"
    cat "$WORK/balancer.log" "$WORK/again.log" >"$WORK/all.log"
    grep -i 'ban' "$WORK/all.log" || die 'no event tells of the ban'
}

scenario() {
    local until left
    make_network "$OURS/24" "$ATTACKER/24"
    free_port
    backend=$PORT
    start "$LOAD_CPU" echo chrt -r 10 "$TOOL" echo "$backend"
    wait_port "$backend" echo
    free_port
    write_configuration "$backend"
    run_balancer balancer
    connects || die 'the attacker can not connect before it is banned'
    measure_others
    until=$(ban until)
    echo "listed: $(ban prefix): $(ban reason), until $until, $(ban hits) hits"
    start_flood
    expect_none_accepted 'first run'
    stop "$BALANCER"
    run_balancer again
    [[ $(ban until) == "$until" ]] || die "after the restart the ban ends at \"$(ban until)\""
    echo "restart: the ban holds, until $until"
    expect_none_accepted 'second run'
    stop "$FLOOD"
    ! connects || die 'the attacker can connect'
    left=$(ban left_s)
    say "waiting for the end of the ban, ${left%.*} s"
    sleep "$(awk "BEGIN { print ${left:-0} + 3 }")"
    [[ -z $(ban prefix) ]] || die 'the ban did not end'
    connects || die 'the attacker can not connect after its ban'
    echo 'expiry: the ban has ended, and the attacker connects'
    show_logs
    printf '%s rounds of %s s, %s connections/s; %s.\n' \
        "$ROUNDS" "$DURATION" "$RATE" "$(machine_facts)"
}

help_if_asked "$@"
(($# == 0)) || die "no part named $1 (see --help)"
if [[ -n ${IN_NAMESPACE:-} ]]; then
    cc -O2 -o "$TOOL" "$LOADTEST/open_loop.c"
    scenario
    exit
fi
need_tools cc chrt ip nsenter python3 taskset unshare
need_two_cpus
need_descriptors 20000
find_mahoraga
unshare --net true 2>/dev/null || die "may not make a network namespace: run this as root"
status=0
IN_NAMESPACE=1 MAHORAGA=$MAHORAGA unshare --net "${BASH_SOURCE[0]}" "$@" || status=$?
exit "$status"
