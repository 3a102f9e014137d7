#!/usr/bin/env bash
# Connections that begin at their client's address (docs/transparency.md): a client, the balancer
# and a backend, each in a network of its own.
#
#   scripts/transparency.sh
#
# Right when backends see the clients' addresses, over IPv4 and IPv6 and by both workers, answers
# come back by the rules of the document, and not without them; and when what can't work is refused
# with a reason. Takes some seconds, as root. By environment:
#   MAHORAGA=PATH   the binary (default: what `cargo build --release` makes now)
#   INSTALL=1       as root, install missing tools by apt-get
# Exits 1 when it is not right.

set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=../loadtest/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../loadtest/lib.sh"

help_if_asked "$@"

need_tools ip nft nsenter python3 setpriv sysctl unshare
find_mahoraga
enter_own_network "$@"

# space NAME N: a network for NAME behind a cable from here, 10.0.N.0/24 and fd00:N::/64, where this
# machine is .1 and NAME is .2. SPACE is its process.
space() {
    local name=$1 n=$2
    cable_to "$name" cable
    ip addr add "10.0.$n.1/24" dev "$name"
    ip addr add "fd00:$n::1/64" dev "$name" nodad
    ip link set "$name" up
    within "$SPACE" ip addr add "10.0.$n.2/24" dev cable
    within "$SPACE" ip addr add "fd00:$n::2/64" dev cable nodad
    within "$SPACE" ip link set cable up
    # The balancer is the gateway: so answers to clients come back to it.
    within "$SPACE" ip route add default via "10.0.$n.1"
    within "$SPACE" ip -6 route add default via "fd00:$n::1"
}

# The rules of docs/transparency.md, as they stand there.
rules() {
    # shellcheck disable=SC2016 # the script is sed's
    sed -n '/^## What the machine needs/,/^## /{ /^```sh/,/^```/{ /^```/d; p } }' \
        "$REPO/docs/transparency.md" >"$WORK/rules.sh"
    grep -q 'socket transparent' "$WORK/rules.sh" || die 'docs/transparency.md has no rules'
    bash -euo pipefail "$WORK/rules.sh"
}

# Each connection gets the peer's address as a line, and then what it sends.
cat >"$WORK/server.py" <<'PYTHON'
import asyncio, sys


async def serve(reader, writer):
    writer.write(f"{writer.get_extra_info('peername')[0]}\n".encode())
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def main():
    for at in sys.argv[2:]:
        host, port = at.rsplit(":", 1)
        await asyncio.start_server(serve, host.strip("[]"), int(port))
    open(sys.argv[1], "w").close()
    await asyncio.Event().wait()


asyncio.run(main())
PYTHON

# client OWN AT PORT COUNT [NAMED]: connects COUNT times from OWN, sends and gets back 200 kB each
# time, and prints the addresses that the server saw, or the error. With NAMED it is a proxy, whose
# header says that the client has that address.
cat >"$WORK/client.py" <<'PYTHON'
import os, socket, sys, threading

own, at, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
named = sys.argv[5] if len(sys.argv) > 5 else None
header = f"PROXY TCP{6 if ':' in named else 4} {named} {named} 7777 80\r\n" if named else ""
data = os.urandom(200_000)
seen, lock = set(), threading.Lock()


def connect():
    try:
        with socket.create_connection((at, port), 5, (own, 0)) as client:
            client.sendall(header.encode())
            file = client.makefile("rb")
            who = file.readline().decode().strip()
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(1)))
            sender.start()
            got = file.read()
            sender.join()
        who = who if who and got == data else f"{who or 'none'}, {len(got)} bytes came back"
    except OSError as error:
        who = type(error).__name__
    with lock:
        seen.add(who)


threads = [threading.Thread(target=connect) for _ in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(" ".join(sorted(seen)))
PYTHON

# expect WANT WHAT GOT
expect() {
    [[ $3 == "$1" ]] || { log_of balancer; die "$2: expected '$1', got '$3'"; }
    echo "ok  $2: $3"
}

# balancer ARGUMENT...: starts it on $PORT, for both families.
balancer() {
    free_port
    start any balancer "$MAHORAGA" proxy --from "[::]:$PORT" \
        --workers 2 --admin "$WORK/admin.sock" --connect-timeout 500ms --attempts 1 "$@"
    wait_port "$PORT" balancer
}

as_client() { within "$client" python3 "$WORK/client.py" "$@"; }

ip link set lo up
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
space client 1
client=$SPACE
within "$client" ip addr add 10.0.1.3/24 dev cable
space backend 2
backend=$SPACE
ip addr add 10.0.2.9/24 dev backend
start any server nsenter --net="/proc/$backend/ns/net" python3 "$WORK/server.py" \
    "$WORK/served" 10.0.2.2:80 '[fd00:2::2]:80'
for ((i = 0; i < 200; i++)); do
    [[ ! -e $WORK/served ]] || break
    sleep 0.02
done
[[ -e $WORK/served ]] || { log_of server; die 'the server does not start'; }

both=(--to 10.0.2.2:80 --to '[fd00:2::2]:80')

# Without the rules no answer comes: they do what is claimed of them.
balancer --to 10.0.2.2:80 --source client
expect ConnectionResetError 'without rules' "$(as_client 10.0.1.2 10.0.1.1 "$PORT" 1)"
expect 1 'closed.connect_timeout' "$(balancer_number closed.connect_timeout)"
stop "$STARTED"

rules
balancer "${both[@]}" --source client
for own in 10.0.1.2 10.0.1.3; do
    expect "$own" 'client over IPv4' "$(as_client "$own" 10.0.1.1 "$PORT" 20)"
done
expect fd00:1::2 'client over IPv6' "$(as_client fd00:1::2 fd00:1::1 "$PORT" 20)"
expect 10.0.2.1 'client on this machine' \
    "$(python3 "$WORK/client.py" 10.0.2.1 10.0.1.1 "$PORT" 1)"
workers=$("$MAHORAGA" status --json --admin "$WORK/admin.sock" | python3 -c '
import json, sys
workers = json.load(sys.stdin)["workers"]
print(sum(worker["numbers"]["closed.client_closed"] > 0 for worker in workers))')
expect 2 'workers that served' "$workers"
expect 1 'capabilities that the balancer keeps' \
    "$("$MAHORAGA" status --json --admin "$WORK/admin.sock" | python3 -c '
import json, sys
print(len(json.load(sys.stdin)["privileges"]["capabilities"]))')"
stop "$STARTED"

# One family at both ends, and an address of this machine.
balancer --to 10.0.2.2:80 --source client
expect ConnectionResetError 'IPv6 client, IPv4 backend' \
    "$(as_client fd00:1::2 fd00:1::1 "$PORT" 3)"
expect 3 'closed.not_transparent' "$(balancer_number closed.not_transparent)"
stop "$STARTED"
balancer --to 10.0.2.2:80 --source 10.0.2.9
expect 10.0.2.9 'a fixed address' "$(as_client fd00:1::2 fd00:1::1 "$PORT" 3)"
stop "$STARTED"

# A client that a header names, which may be any machine's, but not this one's.
balancer "${both[@]}" --source client --accept-proxy 10.0.1.0/24
expect 10.0.1.77 'client of a header' "$(as_client 10.0.1.2 10.0.1.1 "$PORT" 5 10.0.1.77)"
expect fd00:1::77 'IPv6 client of a header' "$(as_client 10.0.1.2 10.0.1.1 "$PORT" 5 fd00:1::77)"
refused=(10.0.2.1 10.0.2.9 fd00:2::1 127.0.0.1 ::1 169.254.1.1 fe80::1 224.0.0.1 0.0.0.0 ::)
for named in "${refused[@]}"; do
    expect ConnectionResetError "a header names $named" \
        "$(as_client 10.0.1.2 10.0.1.1 "$PORT" 1 "$named")"
done
expect "${#refused[@]}" 'closed.not_transparent' "$(balancer_number closed.not_transparent)"
stop "$STARTED"

# Without the capability nothing is served.
cat >"$WORK/config.ron" <<CONF
(
    listeners: [(bind: "127.0.0.1:$PORT", pool: "web")],
    pools: [(name: "web", source: "client", backends: ["10.0.2.2:80"])],
)
CONF
# shellcheck disable=SC2054 # setpriv wants these commas
bare=(setpriv --bounding-set=-net_raw,-net_admin --inh-caps=-net_raw,-net_admin)
for command in check run; do
    status=0
    report=$("${bare[@]}" "$MAHORAGA" "$command" --config "$WORK/config.ron" 2>&1) || status=$?
    [[ $status == 1 && $report == *'needs CAP_NET_RAW or CAP_NET_ADMIN'* ]] ||
        die "$command without the capability ends with $status: $report"
    echo "ok  $command without the capability: refused"
done
"$MAHORAGA" check --quiet --config "$WORK/config.ron" 2>"$WORK/check.log" ||
    { log_of check; die 'check refuses it with all capabilities'; }
echo 'ok transparency'
