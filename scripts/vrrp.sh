#!/usr/bin/env bash
# Two balancers and an address that moves between them by VRRP (docs/failover.md): keepalived with
# scripts/keepalived.conf, each balancer, the client and the backend in a network of its own.
#
#   scripts/vrrp.sh
#
# A client opens 200 connections a second over IPv4 and as many over IPv6, and keeps some open. In
# each round one balancer is the first: it leaves, joins again, both are masters for a while, it is
# killed alone, and its machine is killed (SIGKILL to all of it, and its cable is cut). Right when
#   - no new connection and no session fails by leave and join, and by two masters,
#   - new connections are served within 3 advertisement intervals + skew + SLACK_MS of each kill,
# in both directions. As root. By environment:
#   ROUNDS=2        rounds, which alternate the first; 20 in the long form
#   ADVERT=1        the advertisement interval, in seconds; the health script, which notices a kill
#                   of the balancer alone, runs each second
#   SLACK_MS=100    what is allowed beyond the intervals; a busy machine needs more
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       install missing tools by apt-get
# Exits 1 when it is not right.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
ROUNDS=${ROUNDS:-2}

need_tools curl ip keepalived nft nsenter ping python3 sysctl unshare
find_mahoraga
enter_own_network "$@"

ADVERT=${ADVERT:-1}
SLACK_MS=${SLACK_MS:-100}
# As in scripts/keepalived.conf.
CHECK_INTERVAL=1
FIRST_PRIORITY=150
SECOND_PRIORITY=100
SHARED=(10.77.0.100 fd77::100)
declare -A N=([a]=11 [b]=12) SPACE_OF KEEPALIVED MAHORAGA_OF

# space NAME N: a network for NAME at the switch, with 10.77.0.N and fd77::N. SPACE is its process.
space() {
    local name=$1 n=$2
    cable_to "$name" eth0
    ip link set dev "$name" master switch up
    within "$SPACE" ip addr add "10.77.0.$n/24" dev eth0
    within "$SPACE" ip addr add "fd77::$n/64" dev eth0 nodad
    within "$SPACE" ip link set eth0 up
}

now() { date +%s.%N; }

other() { [[ $1 == a ]] && echo b || echo a; }

# has NAME: whether it has both addresses.
has() {
    local all
    all=$(within "${SPACE_OF[$1]}" ip -o addr show dev eth0)
    [[ $all == *" ${SHARED[0]}/"* && $all == *" ${SHARED[1]}/"* ]]
}

until_has() {
    local i
    for ((i = 0; i < 300; i++)); do
        ! has "$1" || return 0
        sleep 0.05
    done
    log_of "keepalived-$1"
    log_of "mahoraga-$1"
    die "$1 does not get the addresses"
}

until_lacks() {
    local i all
    for ((i = 0; i < 100; i++)); do
        all=$(within "${SPACE_OF[$1]}" ip -o addr show dev eth0)
        [[ $all == *" ${SHARED[0]}/"* || $all == *" ${SHARED[1]}/"* ]] || return 0
        sleep 0.05
    done
    die "$1 keeps the addresses"
}

start_mahoraga() {
    local name=$1 i
    first any "mahoraga-$name" nsenter --net="/proc/${SPACE_OF[$name]}/ns/net" \
        env -C "$WORK/$name" "$MAHORAGA" run "$WORK/config.ron"
    MAHORAGA_OF[$name]=$STARTED
    for ((i = 0; i < 200; i++)); do
        [[ $(cat "$WORK/$name/left" 2>/dev/null) != 0 ]] || return 0
        sleep 0.05
    done
    log_of "mahoraga-$name"
    die "the balancer $name does not start"
}

# start_keepalived NAME PRIORITY: with the file that operators get.
start_keepalived() {
    local name=$1 priority=$2 peer=${N[$(other "$1")]}
    sed -e "s/192\.0\.2\.100/${SHARED[0]}/g; s/2001:db8::100/${SHARED[1]}/g" \
        -e "s/192\.0\.2\.12/10.77.0.$peer/g; s/2001:db8::12/fd77::$peer/g" \
        -e "s|/etc/keepalived/|$REPO/scripts/|g; s#/\\(run\\|var/lib\\)/mahoraga/#$WORK/$name/#g" \
        -e "s/PRIORITY=150/PRIORITY=$priority/; s/advert_int 1/advert_int $ADVERT/" \
        -e '/enable_script_security/d' "$REPO/scripts/keepalived.conf" \
        >"$WORK/$name/keepalived.conf"
    first any "keepalived-$name" nsenter --net="/proc/${SPACE_OF[$name]}/ns/net" \
        keepalived --dont-fork --log-console --log-detail --vrrp \
        -f "$WORK/$name/keepalived.conf" -p "$WORK/$name/pid" -r "$WORK/$name/vrrp.pid"
    KEEPALIVED[$name]=$STARTED
}

# forget PID: it was killed.
forget() {
    local pid=$1 other
    local -a left=()
    for other in "${PIDS[@]}"; do
        [[ $other == "$pid" ]] || left+=("$other")
    done
    PIDS=("${left[@]}")
}

kill_mahoraga() {
    local pid=${MAHORAGA_OF[$1]}
    disown "$pid"
    kill -KILL "$pid"
    mark kill-balancer
    forget "$pid"
}

# Its machine loses power: all its processes end, and nothing leaves it any more.
kill_machine() {
    local pid=${KEEPALIVED[$1]} children
    children=$(cat "/proc/$pid/task/$pid/children")
    disown "$pid" "${MAHORAGA_OF[$1]}"
    # First the cable: keepalived's child may say good-bye when its parent is gone.
    ip link set dev "$1" down
    # shellcheck disable=SC2086 # a list of processes
    kill -KILL "$pid" $children "${MAHORAGA_OF[$1]}"
    mark kill-machine
    forget "$pid"
    forget "${MAHORAGA_OF[$1]}"
}

# Its machine starts again: nothing is left of what its kernel knew.
boot() {
    stop "${SPACE_OF[$1]}"
    # It would go with the network, but the kernel may take a minute for that.
    ip link del dev "$1" 2>/dev/null || true
    rm -f "$WORK/$1/left"
    space "$1" "${N[$1]}"
    SPACE_OF[$1]=$SPACE
}

mark() { echo "mark $1 $(now)" >>"$WORK/marks"; }

as_operator() {
    local name=$1
    shift
    (cd "$WORK/$name" && "$MAHORAGA" "$@" --admin "$WORK/$name/mahoraga.sock")
}

# What begins after this may be under way at the kill, and fail with it.
before_a_kill() {
    sleep 0.3
    mark doomed
    sleep 0.5
}

# Neither hears the other any more (split brain): both are masters.
split() {
    local name
    for name in a b; do
        within "${SPACE_OF[$name]}" nft 'table inet split {
            chain input { type filter hook input priority 0; meta l4proto vrrp drop; }
        }'
    done
}

heal() {
    local name
    for name in a b; do
        within "${SPACE_OF[$name]}" nft delete table inet split
    done
}

# round FIRST: leave, join, two masters, a kill of the balancer, a kill of its machine.
round() {
    local first=$1 second
    second=$(other "$first")
    start_mahoraga "$first"
    start_mahoraga "$second"
    start_keepalived "$first" "$FIRST_PRIORITY"
    start_keepalived "$second" "$SECOND_PRIORITY"
    until_has "$first"
    until_lacks "$second"
    : >"$WORK/marks"
    first any client nsenter --net="/proc/$client/ns/net" \
        python3 "$REPO/scripts/failover-client.py" \
        "$WORK/connections" 0.005 3 "${SHARED[0]}:80" "[${SHARED[1]}]:80"
    local stream=$STARTED
    sleep 0.5
    mark leave
    as_operator "$first" leave --wait 20s >"$WORK/leave.log" || die 'leave fails'
    until_has "$second"
    sleep 0.3
    mark join
    as_operator "$first" join >/dev/null
    until_has "$first"
    until_lacks "$second"
    sleep 0.3
    mark split
    split
    until_has "$second"
    sleep 1
    has "$first" || die 'there is one master only, although neither hears the other'
    heal
    until_lacks "$second"
    before_a_kill
    kill_mahoraga "$first"
    until_has "$second"
    sleep 0.3
    mark recovery
    start_mahoraga "$first"
    until_has "$first"
    until_lacks "$second"
    before_a_kill
    kill_machine "$first"
    until_has "$second"
    sleep 0.3
    mark end
    kill -TERM "$stream"
    gone_within 15 "$stream" || die 'the client does not end'
    wait "$stream" || { log_of client; die 'the client fails'; }
    forget "$stream"
    stop "${KEEPALIVED[$second]}"
    stop "${MAHORAGA_OF[$second]}"
    boot "$first"
    boot "$second"
    python3 "$WORK/report.py" "$WORK" "$first" \
        "$ADVERT" "$CHECK_INTERVAL" "$SECOND_PRIORITY" "$SLACK_MS"
}

cat >"$WORK/report.py" <<'PYTHON'
import sys

work, first = sys.argv[1:3]
advert, check, priority, slack_ms = map(float, sys.argv[3:])
skew = (256 - priority) / 256 * advert
marks = []
with open(f"{work}/marks") as file:
    for line in file:
        _, name, at = line.split()
        marks.append((name, float(at)))
news, broken = [], []
with open(f"{work}/connections") as file:
    for line in file:
        kind, address, *rest = line.split()
        if kind == "new":
            began, ended, outcome = rest
            news.append((float(began), float(ended), outcome, "6" if "[" in address else "4"))
        else:
            broken.append((float(rest[0]), rest[1]))
wrong = []
print(f"first {first}:", end="")
for (name, begin), (_, end) in zip(marks, marks[1:]):
    if name == "doomed":
        continue
    mine = [its for its in news if begin <= its[0] < end]
    failed = [its for its in mine if its[2] != "ok"]
    lost = [its for its in broken if begin <= its[0] < end]
    if name.startswith("kill"):
        bound = (max(3 * advert, check) if name == "kill-balancer" else 3 * advert) + skew
        bound += slack_ms / 1e3
        # Those that began after the kill and are served: the first of each family.
        served = {
            family: min(
                (its[1] for its in mine if its[2] == "ok" and its[3] == family), default=end + 99
            )
            - begin
            for family in "46"
        }
        print(f" {name} IPv4 {served['4']:.2f} s, IPv6 {served['6']:.2f} s;", end="")
        for family, time in served.items():
            if time > bound:
                wrong.append(f"{name}: IPv{family} is served after {time:.2f} s, not {bound:.2f} s")
    else:
        slowest = max((its[1] - its[0] for its in mine), default=0)
        print(
            f" {name} {len(mine)} new, {len(failed)} failed, slowest {slowest * 1e3:.0f} ms,"
            f" {len(lost)} sessions broken;",
            end="",
        )
        if len(mine) < 100:
            wrong.append(f"{name}: the client opened {len(mine)} connections only")
        if name in ("leave", "join", "split"):
            if failed:
                wrong.append(f"{name}: {len(failed)} new connections failed: {failed[0][2]}")
            if lost:
                wrong.append(f"{name}: {len(lost)} sessions broke: {lost[0][1]}")
        elif failed:
            wrong.append(f"{name}: {len(failed)} new connections failed: {failed[0][2]}")
print()
if wrong:
    print("FAILED vrrp: " + "; ".join(wrong))
sys.exit(bool(wrong))
PYTHON

cat >"$WORK/server.py" <<'PYTHON'
import asyncio, sys


async def serve(reader, writer):
    writer.write(b"hello\n")
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def main():
    await asyncio.start_server(serve, "10.77.0.1", 80, backlog=1024)
    open(sys.argv[1], "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
PYTHON

ip link set lo up
ip link add switch type bridge
ip addr add 10.77.0.1/24 dev switch
ip addr add fd77::1/64 dev switch nodad
ip link set switch up
space client 5
client=$SPACE
for name in a b; do
    mkdir "$WORK/$name"
    space "$name" "${N[$name]}"
    SPACE_OF[$name]=$SPACE
done
start any server python3 "$WORK/server.py" "$WORK/served"
for ((i = 0; i < 200; i++)); do
    [[ ! -e $WORK/served ]] || break
    sleep 0.02
done
cat >"$WORK/config.ron" <<CONF
(
    workers: 1,
    track_file: "left",
    access_log: "off",
    history: "memory",
    listeners: [
        (bind: "${SHARED[0]}:80", pool: "web", freebind: true),
        (bind: "[${SHARED[1]}]:80", pool: "web", freebind: true),
    ],
    pools: [(name: "web", backends: ["10.77.0.1:80"])],
)
CONF

failed=0
for ((round = 0; round < ROUNDS; round++)); do
    first=a
    ((round % 2 == 0)) || first=b
    round "$first" || failed=1
done
((failed == 0)) || exit 1
echo "ok vrrp: $ROUNDS rounds"
