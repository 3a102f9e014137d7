#!/usr/bin/env bash
# Three balancers with the same pool behind a router with equal routes to them (ECMP,
# docs/failover.md): bird with scripts/bird.conf announces the address while each is ready. The
# router, each balancer and the clients are in networks of their own.
#
#   scripts/ecmp.sh
#
# Clients each keep a connection, over IPv4 and IPv6, and the router spreads them by ports too
# (fib_multipath_hash_policy=1). One balancer leaves, and joins again. Right when
#   - 99 % of the clients at least get the backend that they had before, of a pool with Maglev and
#     bounded loads,
#   - no new connection fails meanwhile, and no kept one breaks: those of the others do not, nor do
#     those of the one that left.
# As root. By environment:
#   CLIENTS=1000    of each family
#   ROUNDS=1        how often each of the three leaves and joins; 0: one of them does, once
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       install missing tools by apt-get
# Exits 1 when it is not right.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"
CLIENTS=${CLIENTS:-1000}
ROUNDS=${ROUNDS:-1}

need_tools bird birdc curl ip nft nsenter ping python3 sysctl unshare
need_descriptors $((CLIENTS * 8 + 4096))
find_mahoraga
enter_own_network "$@"

SHARED=(198.51.100.1 2001:db8:1::1)
declare -A N=([a]=11 [b]=12 [c]=13) SPACE_OF
BACKENDS=(21 22 23 24)

# space NAME: a network of its own, with a cable from here. SPACE is its process.
space() {
    local name=$1
    cable_to "$name" eth0
    ip link set dev "$name" up
    within "$SPACE" ip link set eth0 up
}

# at SPACE ADDRESS ADDRESS6 GATEWAY GATEWAY6
at() {
    within "$1" ip addr add "$2" dev eth0
    within "$1" ip addr add "$3" dev eth0 nodad
    within "$1" ip route add default via "$4"
    within "$1" ip -6 route add default via "$5"
}

# The router: the balancers' and backends' network, and the clients' behind it.
make_networks() {
    local name n
    ip link set lo up
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
        net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
    ip link add name switch type bridge
    ip link set dev switch up
    ip addr add 192.0.2.1/24 dev switch
    ip addr add 2001:db8::1/64 dev switch nodad
    for n in "${BACKENDS[@]}"; do
        ip addr add "192.0.2.$n/24" dev switch
    done
    for name in a b c; do
        mkdir "$WORK/$name"
        space "$name"
        ip link set dev "$name" master switch
        at "$SPACE" "192.0.2.${N[$name]}/24" "2001:db8::${N[$name]}/64" 192.0.2.1 2001:db8::1
        # The address of all stays on each: what is announced decides who gets clients.
        within "$SPACE" ip addr add "${SHARED[0]}/32" dev lo
        within "$SPACE" ip addr add "${SHARED[1]}/128" dev lo nodad
        SPACE_OF[$name]=$SPACE
    done
    space clients
    CLIENT=$SPACE
    ip addr add 10.2.0.1/24 dev clients
    ip addr add fd02::1/64 dev clients nodad
    at "$CLIENT" 10.2.0.2/24 fd02::2/64 10.2.0.1 fd02::1
    ip route add 10.1.0.0/16 via 10.2.0.2
    ip -6 route add fd01::/64 via fd02::2
    within "$CLIENT" ip route add local 10.1.0.0/16 dev lo
    within "$CLIENT" ip -6 route add local fd01::/64 dev lo
}

# The router's side of scripts/bird.conf.
start_router() {
    local name
    {
        echo 'router id 192.0.2.1;'
        echo 'protocol device { scan time 1; }'
        echo 'protocol kernel { merge paths on; ipv4 { import none; export all; }; }'
        echo 'protocol kernel { merge paths on; ipv6 { import none; export all; }; }'
        for name in a b c; do
            echo "protocol bgp ${name}_4 { local 192.0.2.1 as 65000; hold time 3;"
            echo "  neighbor 192.0.2.${N[$name]} as 65001; ipv4 { import all; export none; }; }"
            echo "protocol bgp ${name}_6 { local 2001:db8::1 as 65000; hold time 3;"
            echo "  neighbor 2001:db8::${N[$name]} as 65001; ipv6 { import all; export none; }; }"
        done
    } >"$WORK/router.conf"
    start any router bird -f -c "$WORK/router.conf" -s "$WORK/router.ctl"
}

# start_balancer NAME: Mahoraga, and bird with the files that operators get.
start_balancer() {
    local name=$1 space=${SPACE_OF[$1]} peers='' other
    for other in a b c; do
        [[ $other == "$name" ]] || peers+="192.0.2.${N[$other]},2001:db8::${N[$other]},"
    done
    within "$space" "$REPO/scripts/keepalived-handover.sh" start eth0 \
        "${SHARED[0]},${SHARED[1]}" "${peers%,}"
    start any "mahoraga-$name" nsenter --net="/proc/$space/ns/net" \
        env -C "$WORK/$name" "$MAHORAGA" run "$WORK/config.ron"
    sed -e "s/192\.0\.2\.11/192.0.2.${N[$name]}/; s/2001:db8::11/2001:db8::${N[$name]}/" \
        "$REPO/scripts/bird.conf" >"$WORK/$name/bird.conf"
    start any "bird-$name" nsenter --net="/proc/$space/ns/net" \
        bird -f -c "$WORK/$name/bird.conf" -s "$WORK/$name/bird.ctl"
    start any "follow-$name" "$REPO/scripts/bird-follow.sh" "$WORK/$name/mahoraga.sock" \
        "$WORK/$name/bird.ctl"
}

# routes_are COUNT: whether the router has so many equal routes of each family.
routes_are() {
    local four six
    four=$(ip route show "${SHARED[0]}")
    six=$(ip -6 route show "${SHARED[1]}")
    [[ $(grep -o 'via 192' <<<"$four" | wc -l) == "$1" &&
        $(grep -o 'via 2001' <<<"$six" | wc -l) == "$1" ]]
}

until_routes_are() {
    local i
    for ((i = 0; i < 400; i++)); do
        ! routes_are "$1" || return 0
        sleep 0.05
    done
    ip route show "${SHARED[0]}" >&2
    ip -6 route show "${SHARED[1]}" >&2
    log_of router
    die "the router has other routes than $1"
}

# ask COMMAND: has the clients do something, and prints what they say.
ask() {
    local answer
    echo "$1" >&"${CLIENTS_IO[1]}"
    if ! read -r -t 120 answer <&"${CLIENTS_IO[0]}"; then
        log_of clients
        die 'the clients fail'
    fi
    [[ $answer != FAILED* ]] || die "$2: ${answer#FAILED }"
    echo "$2: $answer"
}

as_operator() {
    local name=$1
    shift
    "$MAHORAGA" "$@" --admin "$WORK/$name/mahoraga.sock"
}

# moves NAME: it leaves and joins.
moves() {
    ask begin "before $1 leaves"
    as_operator "$1" leave --wait 3s >/dev/null
    until_routes_are 2
    ask compare "$1 has left"
    ask begin "before $1 joins"
    as_operator "$1" join >/dev/null
    until_routes_are 3
    ask compare "$1 has joined"
}

# Each client, of an address of its own, keeps a connection: the load that bounds are about. `begin`
# has each connect once more, and starts a stream of new connections of all clients in turn;
# `compare` ends it, has each client connect again, and says how many get the same backend, and
# whether the kept connections still echo.
cat >"$WORK/clients.py" <<'PYTHON'
import asyncio, os, socket, sys

clients, v4, v6 = int(sys.argv[1]), sys.argv[2], sys.argv[3]
IPV6_FREEBIND = 78


async def connect(own):
    """The backend's name, and the streams."""
    is_6 = ":" in own
    sock = socket.socket(socket.AF_INET6 if is_6 else socket.AF_INET)
    sock.setblocking(False)
    if is_6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    sock.bind((own, 0))
    loop = asyncio.get_running_loop()
    await asyncio.wait_for(loop.sock_connect(sock, (v6 if is_6 else v4, 80)), 10)
    reader, writer = await asyncio.open_connection(sock=sock)
    name = await asyncio.wait_for(reader.readline(), 10)
    if not name:
        raise EOFError
    return name, reader, writer


async def visit(own):
    name, _, writer = await connect(own)
    writer.close()
    return name


async def echoes(streams):
    _, reader, writer = streams
    try:
        writer.write(b"still here\n")
        return await asyncio.wait_for(reader.readline(), 10) == b"still here\n"
    except (OSError, asyncio.TimeoutError):
        return False


async def each(call, all, width=50):
    """Calls for all of them, some at a time."""
    gate = asyncio.Semaphore(width)

    async def one(its):
        async with gate:
            return await call(its)

    return await asyncio.gather(*(one(its) for its in all), return_exceptions=True)


async def stream(all, ending):
    """New connections of all clients in turn: how many, and how many failed."""
    done, failed, at = 0, [], 0
    while not ending.is_set():
        some = [all[(at + n) % len(all)] for n in range(4)]
        at += 4
        for outcome in await asyncio.gather(*map(visit, some), return_exceptions=True):
            done += 1
            if isinstance(outcome, BaseException):
                failed.append(type(outcome).__name__)
        await asyncio.sleep(0.01)
    return done, failed


async def main():
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    all = [f"10.1.{n // 250}.{n % 250 + 1}" for n in range(clients)]
    all += [f"fd01::{n + 1:x}" for n in range(clients)]
    kept = await each(connect, all)
    wrong = [its for its in kept if isinstance(its, BaseException)]
    if wrong:
        return print(f"FAILED {len(wrong)} clients can't connect: {wrong[0]!r}", flush=True)
    print(f"{len(kept)} clients are connected", flush=True)
    running = None
    while line := await lines.readline():
        if line == b"begin\n":
            before = await each(visit, all)
            ending = asyncio.Event()
            running = asyncio.create_task(stream(all, ending))
            await asyncio.sleep(0.3)
            print("a stream of new connections begins", flush=True)
            continue
        again = await each(visit, all)
        alive = sum(await each(echoes, kept, 500))
        ending.set()
        done, failed = await running
        both = before + again
        failed += [type(its).__name__ for its in both if isinstance(its, BaseException)]
        same = sum(new == old for new, old in zip(again, before)) / len(all)
        text = (
            f"{same:.2%} of {len(all)} clients get the same backend, {alive} of {len(kept)} kept"
            f" connections echo, {len(failed)} of {done + len(both)} new ones failed"
        )
        bad = same < 0.99 or alive < len(kept) or failed
        print(f"FAILED {text} {failed[:3]}" if bad else text, flush=True)


asyncio.run(main())
PYTHON

cat >"$WORK/server.py" <<'PYTHON'
import asyncio, sys


async def serve(reader, writer):
    name = writer.get_extra_info("sockname")[0]
    writer.write(f"{name}\n".encode())
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()


async def main():
    for host in sys.argv[2:]:
        await asyncio.start_server(serve, host, 80, backlog=4096)
    open(sys.argv[1], "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
PYTHON

make_networks
start any server python3 "$WORK/server.py" "$WORK/served" "${BACKENDS[@]/#/192.0.2.}"
for ((i = 0; i < 200; i++)); do
    [[ ! -e $WORK/served ]] || break
    sleep 0.02
done
backends=
for n in "${BACKENDS[@]}"; do
    backends+="\"192.0.2.$n:80\", "
done
cat >"$WORK/config.ron" <<CONF
(
    workers: 1,
    access_log: "off",
    history: "memory",
    listeners: [
        (bind: "${SHARED[0]}:80", pool: "web"),
        (bind: "[${SHARED[1]}]:80", pool: "web"),
    ],
    pools: [(
        name: "web",
        strategy: (name: "hash", key: "source_ip(32, 128)", max_load: 1.25),
        backends: [$backends],
    )],
)
CONF
start_router
for name in a b c; do
    start_balancer "$name"
done
until_routes_are 3
coproc CLIENTS_IO {
    exec nsenter --net="/proc/$CLIENT/ns/net" python3 "$WORK/clients.py" "$CLIENTS" "${SHARED[@]}" \
        2>"$WORK/clients.log"
}
PIDS+=("$CLIENTS_IO_PID")
read -r -t 60 connected <&"${CLIENTS_IO[0]}" || { log_of clients; die 'no client'; }
[[ $connected != FAILED* ]] || die "${connected#FAILED }"
for name in a b c; do
    echo "$name has $(as_operator "$name" status --json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["connections"])') connections"
done
if ((ROUNDS == 0)); then
    moves c
else
    for ((round = 0; round < ROUNDS; round++)); do
        for name in c a b; do
            moves "$name"
        done
    done
fi
echo 'ok ecmp'
