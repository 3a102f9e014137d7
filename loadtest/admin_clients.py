"""Asks the admin API of a balancer over its Unix socket, and tells how long that takes.

    admin_clients.py times SOCKET COUNT PATH...     milliseconds of each answer, on a new connection
    admin_clients.py publish SOCKET COUNT BACKEND   microseconds from a change to the last worker
                                                    that uses it, as the balancer measures it
    admin_clients.py ban SOCKET COUNT FIRST         microseconds of a ban: COUNT addresses are
                                                    banned, from FIRST on

Each prints one line: what, how often, p50, p99 and the longest. `publish` changes the weight of a
backend of the pool `default`.
"""

import http.client
import json
import socket
import sys
import time
from ipaddress import ip_address


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(path, method, target, body=None):
    connection = Connection(path)
    headers = {"Content-Type": "application/json"} if body else {}
    connection.request(method, target, body and json.dumps(body), headers)
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    if answer.status != 200:
        sys.exit(f"{method} {target}: {answer.status} {said.decode()}")
    return json.loads(said)


def tell(what, unit, numbers):
    numbers = sorted(numbers)
    at = lambda share: numbers[min(len(numbers) - 1, int(share * len(numbers)))]
    print(f"{what}: {len(numbers)} times, p50 {at(0.5):.1f} {unit}, p99 {at(0.99):.1f} {unit}, "
          f"longest {numbers[-1]:.1f} {unit}", flush=True)


def times(path, count, targets):
    for target in targets:
        taken = []
        for _ in range(count):
            began = time.monotonic()
            ask(path, "GET", target)
            taken.append((time.monotonic() - began) * 1e3)
            time.sleep(0.005)
        tell(f"GET {target}", "ms", taken)


def publish(path, count, backend):
    taken = []
    for number in range(count):
        weight = {"weight": 1 + number % 2}
        changed = ask(path, "PATCH", f"/v1/pools/default/backends/{backend}", weight)
        while True:
            status = ask(path, "GET", "/v1/status")
            if status["publish_us"] is not None:
                break
        if status["snapshot"] == changed["snapshot"]:
            taken.append(status["publish_us"])
    tell("published", "us", taken)


def ban(path, count, first):
    taken, first = [], ip_address(first)
    for number in range(count):
        began = time.monotonic()
        ask(path, "POST", "/v1/bans", {"prefix": str(first + number), "reason": "a load test"})
        taken.append((time.monotonic() - began) * 1e6)
    tell("POST /v1/bans", "us", taken)


def main():
    what, path, count, *rest = sys.argv[1:]
    if what == "times":
        times(path, int(count), rest)
    elif what == "ban":
        ban(path, int(count), *rest)
    else:
        publish(path, int(count), *rest)


main()
