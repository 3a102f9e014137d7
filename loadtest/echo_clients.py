"""Many concurrent clients of an echo server, each checked for getting back just what it sent.

Every connection is established through to the server by a first echo, then stays open; in a round
every connection echoes once more. Several processes share the connections, each from a loopback
address of its own (127.0.0.2 and up), so that neither descriptors nor ports run out.
Exits 1 when a connection is lost, an echo is wrong, or the p99 of a round is above a given limit.
"""

from __future__ import annotations

import argparse
import errno
import gc
import math
import multiprocessing
import os
import select
import signal
import socket
import struct
import sys
import time
from array import array
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

TAG = struct.Struct("!IIQ")
CONNECTING_MAX = 128  # per process; more would only overflow the listener's backlog
PATIENCE_S = 15.0
# In <linux/in.h>; lets the kernel choose the port at connect, so that ports are per destination.
IP_BIND_ADDRESS_NO_PORT = 24


@dataclass
class Report:
    """What one process saw: round-trip times in µs for each phase, and what went wrong."""

    phases: list[array[int]] = field(default_factory=list)
    lost: int = 0
    wrong: int = 0
    first_error: str = ""


@dataclass
class Client:
    sock: socket.socket
    number: int
    busy: bool = True  # from connect or send to the whole echo
    expected: bytes = b""
    received: bytes = b""
    sent_ns: int = 0


class Shard:
    """The connections of one process."""

    def __init__(self, number: int, target: tuple[str, int]) -> None:
        self.number = number
        self.target = target
        self.epoll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.awaited = 0
        self.phase = 0
        self.times: array[int] = array("L")
        self.report = Report()

    def open(self, count: int) -> None:
        """Phase 0: connects, and echoes once over each connection."""
        deadline = time.monotonic() + PATIENCE_S + count / 500
        opened = 0
        while (opened < count or self.awaited) and time.monotonic() < deadline:
            while opened < count and self.awaited < CONNECTING_MAX:
                self._connect(opened)
                opened += 1
            self._poll(0.5)
        self.report.lost += count - opened
        self._end_phase()

    def round(self, spread_s: float) -> None:
        """Echoes once over each connection, the sends spread evenly over `spread_s`."""
        self.phase += 1
        clients = list(self.clients.values())
        start = time.monotonic()
        for index, client in enumerate(clients):
            due = start + spread_s * index / len(clients)
            while (wait := due - time.monotonic()) > 0:
                self._poll(wait)
            if client.sock.fileno() in self.clients:
                client.busy = True
                self.awaited += 1
                self._send(client)
        deadline = time.monotonic() + PATIENCE_S
        while self.awaited and time.monotonic() < deadline:
            self._poll(0.5)
        self._end_phase()

    def _connect(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        client = Client(sock, number)
        self.clients[sock.fileno()] = client
        self.epoll.register(sock, select.EPOLLOUT)
        self.awaited += 1
        try:
            sock.bind((f"127.0.0.{2 + self.number}", 0))
            sock.connect(self.target)
        except BlockingIOError:
            pass
        except OSError as error:
            self._lose(client, str(error))

    def _poll(self, timeout_s: float) -> None:
        for fd, event in self.epoll.poll(timeout_s):
            client = self.clients.get(fd)
            if client is None:
                continue
            if event & select.EPOLLOUT:
                self._on_connected(client)
            else:
                self._on_readable(client)

    def _on_connected(self, client: Client) -> None:
        if code := client.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._lose(client, os.strerror(code))
            return
        self.epoll.modify(client.sock, select.EPOLLIN)
        self._send(client)

    def _send(self, client: Client) -> None:
        client.expected = TAG.pack(self.number, client.number, self.phase)
        client.sent_ns = time.monotonic_ns()
        try:
            client.sock.send(client.expected)
        except OSError as error:
            self._lose(client, str(error))

    def _on_readable(self, client: Client) -> None:
        try:
            data = client.sock.recv(4096)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._lose(client, str(error))
            return
        if not data:
            self._lose(client, "closed by the peer")
            return
        client.received += data
        if client.received == client.expected:
            self.times.append((time.monotonic_ns() - client.sent_ns) // 1000)
            self.awaited -= 1
            client.busy = False
            client.expected = client.received = b""
        elif not client.expected.startswith(client.received):
            self.report.wrong += 1
            self._lose(client, f"got {client.received!r}, sent {client.expected!r}")

    def _lose(self, client: Client, why: str) -> None:
        self.awaited -= client.busy
        self.report.lost += 1
        self.report.first_error = self.report.first_error or why
        del self.clients[client.sock.fileno()]
        client.sock.close()

    def _end_phase(self) -> None:
        for client in [c for c in self.clients.values() if c.busy]:
            self._lose(client, "no answer in time")
        self.report.phases.append(self.times)
        self.times = array("L")


def run_shard(
    number: int, options: argparse.Namespace, step: Barrier, reports: Queue[Report]
) -> None:
    """One process: all phases, each begun only when every process has ended the one before."""
    gc.disable()
    host, _, port = options.target.rpartition(":")
    share = options.connections // options.processes
    share += number < options.connections % options.processes
    shard = Shard(number, (host, int(port)))
    step.wait(PATIENCE_S)
    shard.open(share)
    for _ in range(options.rounds):
        step.wait(options.connections / 100 + 2 * PATIENCE_S)
        shard.round(options.spread)
    reports.put(shard.report)
    signal.pause()  # The connections stay open until the parent has what it wants.


def percentile_ms(times: list[int], percent: int) -> float:
    """Of sorted times, of which there is at least one."""
    return times[min(len(times) * percent // 100, len(times) - 1)] / 1e3


def print_phases(reports: list[Report]) -> list[float]:
    """Answers with the p99 of each round, in ms."""
    rounds = []
    for phase in range(len(reports[0].phases)):
        times = sorted(time for report in reports for time in report.phases[phase])
        name = f"round {phase}" if phase else "opening"
        if not times:
            print(f"{name}: no echo", flush=True)
            continue
        p50, p99, most = (percentile_ms(times, percent) for percent in (50, 99, 100))
        print(
            f"{name}: {len(times)} echoes, p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {most:.2f} ms",
            flush=True,
        )
        if phase:
            rounds.append(p99)
    return rounds


def print_p99(rounds: list[float], limit_ms: float) -> bool:
    """The opening is left out: it connects as fast as it can, so its times are those of a queue."""
    worst = max(rounds, default=math.inf)
    held = worst <= limit_ms
    verdict = "within" if held else "TOO SLOW, above"
    print(f"p99 of the slowest round {worst:.2f} ms: {verdict} {limit_ms:g} ms", flush=True)
    return held


def print_losses(reports: list[Report]) -> bool:
    lost = sum(report.lost for report in reports)
    wrong = sum(report.wrong for report in reports)
    why = next((f" (first: {r.first_error})" for r in reports if r.first_error), "")
    print(f"{lost} connections lost, {wrong} wrong echoes{why}", flush=True)
    return lost == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", help="HOST:PORT")
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--spread", type=float, default=2.0, help="seconds a round's sends take")
    parser.add_argument("--p99-max-ms", type=float, help="limit of each round, none by default")
    parser.add_argument("--hold", action="store_true", help="keep the connections until SIGTERM")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    context = multiprocessing.get_context("fork")
    step = context.Barrier(options.processes)
    reports: Queue[Report] = context.Queue()
    for number in range(options.processes):
        arguments = (number, options, step, reports)
        context.Process(target=run_shard, args=arguments, daemon=True).start()
    patience_s = options.connections / 100 + options.spread + 2 * PATIENCE_S
    patience_s *= options.rounds + 1
    found = [reports.get(timeout=patience_s) for _ in range(options.processes)]
    rounds = print_phases(found)
    clean = print_losses(found)
    if options.p99_max_ms is not None:
        clean = print_p99(rounds, options.p99_max_ms) and clean
    if clean and options.hold:
        print("holding", flush=True)
        signal.pause()
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
