#!/usr/bin/env python3
"""Clients of several balancers that share a limit of connections (docs/shared-state.md).

  fleet_limits.py LIMIT STOP_SECONDS ETCD_PID PORT:PID:SOCKET...

A client counts from its echo until it closes, so the balancers have at least as many connections
open. scripts/etcd.sh starts three balancers and runs this. Exits 1 when more than LIMIT are ever
open, or a balancer gets too few.
"""

import json
import os
import selectors
import signal
import socket
import sys
import time

LIMIT, STOP, ETCD = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
FLEET = [its.split(":", 2) for its in sys.argv[4:]]
FAIR = LIMIT // len(FLEET)
select = selectors.DefaultSelector()
served = [set() for _ in FLEET]
waiting = [set() for _ in FLEET]
most = 0
wrong = []


def come(place, count):
    """So many clients come to a balancer, and wait for its echo."""
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", int(FLEET[place][0])), timeout=5)
        client.sendall(b"ping")
        client.setblocking(False)
        waiting[place].add(client)
        select.register(client, selectors.EVENT_READ, place)


def go(place, count):
    """So many served clients of a balancer close."""
    for _ in range(min(count, len(served[place]))):
        close(served[place], served[place].copy().pop())


def close(clients, client):
    clients.discard(client)
    select.unregister(client)
    client.close()


def leave(place):
    """All clients of a balancer close, those first that wait."""
    for clients in (waiting[place], served[place]):
        for client in list(clients):
            close(clients, client)


def run(seconds, until=lambda: False):
    """Takes echoes in for so long, or until this holds. Answers how long that took."""
    global most
    began = time.monotonic()
    while not until() and time.monotonic() < began + seconds:
        for key, _ in select.select(0.02):
            client, place = key.fileobj, key.data
            try:
                is_served = client.recv(4) == b"ping"
            except OSError:
                is_served = False
            if is_served:
                waiting[place].discard(client)
                served[place].add(client)
            else:
                close(waiting[place], client)
                served[place].discard(client)
        most = max(most, sum(map(len, served)))
    return time.monotonic() - began


def status(place):
    with socket.socket(socket.AF_UNIX) as api:
        api.settimeout(5)
        api.connect(FLEET[place][2])
        api.sendall(b"GET /v1/status HTTP/1.0\r\nHost: x\r\n\r\n")
        answer = b""
        while more := api.recv(65536):
            answer += more
    return json.loads(answer.split(b"\r\n\r\n", 1)[1])


def shares():
    return [status(place)["fleet"]["limits"][0]["share"] for place in range(len(FLEET))]


def check(what, holds):
    counts = [len(its) for its in served]
    print(f"  {what}: {counts} served", file=sys.stderr)
    if not holds:
        wrong.append(f"{what}: {counts}")


run(5, lambda: status(0)["fleet"]["leased"] == len(FLEET) and min(shares()) > 0)
come(0, 2 * LIMIT)
took = run(5, lambda: len(served[0]) > 2 * FAIR)
check(f"a busy balancer gets more than its part within {took:.1f} s", len(served[0]) > 2 * FAIR)

# All but a few go, and it is stopped before it gives anything back: its share is large then.
for client in list(waiting[0]):
    close(waiting[0], client)
go(0, len(served[0]) - FAIR + 2)
had = shares()[0]
os.kill(int(FLEET[0][1]), signal.SIGSTOP)
if had <= FAIR:
    wrong.append(f"its share was {had} when it was stopped: expected more than {FAIR}")
come(0, 2 * LIMIT)
for place in range(1, len(FLEET)):
    come(place, 2 * LIMIT)
run(STOP)
took = STOP + run(5, lambda: sum(map(len, served[1:])) >= LIMIT - FAIR)
others = sum(map(len, served[1:]))
check(f"others get its share of {had} within {took:.1f} s", others >= LIMIT - FAIR)
os.kill(int(FLEET[0][1]), signal.SIGCONT)
run(0.5)
check("it acts on its base from the first client on", FAIR - 2 < len(served[0]) <= FAIR)
took = run(5, lambda: status(0)["fleet"]["has_lease"])
check(f"it has a lease again {took:.1f} s later", status(0)["fleet"]["has_lease"])

os.kill(ETCD, signal.SIGKILL)
run(5, lambda: not any(status(place)["fleet"]["has_lease"] for place in range(len(FLEET))))
# Connections that were open when the lease ended go on, so all come anew.
for place in range(len(FLEET)):
    leave(place)
for place in range(len(FLEET)):
    come(place, 2 * LIMIT)
run(1)
check("without etcd each has its part", all(0 < len(its) <= FAIR for its in served))
alerts = status(1)["alerts"]
if not any("no lease" in alert for alert in alerts):
    wrong.append(f"no alert: {alerts}")
print(f"  at most {most} of {LIMIT} connections were open", file=sys.stderr)
if most > LIMIT:
    wrong.append(f"{most} connections were open, of {LIMIT}")
for what in wrong:
    print(f"FAILED limits of the fleet: {what}")
sys.exit(bool(wrong))
