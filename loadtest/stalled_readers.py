"""A backend that sends for ever, and clients that read some of it and then nothing more."""

from __future__ import annotations

import argparse
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

CHUNK = b"x" * (1 << 20)
PATIENCE_S = 5.0
STREAM = 512 << 20
SETTLE_S = 3.0
MEMORY = re.compile(r"skmem:\(r(\d+),rb\d+,t\d+,tb\d+,f\d+,w(\d+)")


def flood(port: int) -> None:
    def send(client: socket.socket) -> None:
        try:
            while True:
                client.sendall(CHUNK)
        except OSError:
            client.close()

    listener = socket.create_server(("127.0.0.1", port), backlog=512)
    while True:
        threading.Thread(target=send, args=(listener.accept()[0],), daemon=True).start()


def connect(port: int, patience: float = PATIENCE_S) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    client.settimeout(patience)
    client.connect(("127.0.0.1", port))
    return client


def read_some(client: socket.socket, number: int, size: int) -> bool:
    """Whether it gets that much, or is reset before."""
    into = bytearray(1 << 20)
    while size > 0:
        try:
            got = client.recv_into(into)
        except TimeoutError:
            sys.exit(f"reader {number} got nothing for {client.gettimeout():.0f} s")
        except ConnectionResetError:
            return False
        if got == 0:
            return False
        size -= got
    return True


def read(port: int, readers: int, mib: int, patience: float) -> list[socket.socket]:
    """All connect first, and then read one after the other. One that was closed comes again."""
    clients = [connect(port, patience) for _ in range(readers)]
    closed = 0
    for number in range(readers):
        while not read_some(clients[number], number, mib << 20):
            closed += 1
            clients[number].close()
            clients[number] = connect(port, patience)
    print(f"{closed} readers were closed while they waited for their turn, and came again")
    return clients


def stream(port: int) -> None:
    """What a client gets that reads on."""
    client, began = connect(port), time.monotonic()
    if not read_some(client, -1, STREAM):
        sys.exit("a client that reads on was closed")
    took = time.monotonic() - began
    print(f"a client that reads on gets {STREAM / took / 1e6:.0f} MB/s")
    client.close()


def report(port: int, backend: int) -> None:
    """What `ss` says of each kind of socket, by its local and its other port."""
    names = {
        (backend, None): "backend, to send",
        (None, backend): "balancer, received from the backend",
        (port, None): "balancer, to send to the client",
        (None, port): "client, received",
    }
    held = {name: [0, 0] for name in names.values()}
    output = subprocess.run(["ss", "-tmnH"], capture_output=True, text=True, check=True).stdout
    for line in re.split(r"\n(?=\S)", output):
        words, memory = line.split(), MEMORY.search(line)
        if memory is None:
            continue
        local, other = (int(word.rsplit(":", 1)[1]) for word in words[3:5])
        name = names.get((local, None)) or names.get((None, other))
        if name is not None:
            held[name][0] += 1
            held[name][1] += int(memory[1]) + int(memory[2])
    for name, (sockets, held_bytes) in held.items():
        print(f"{name}: {held_bytes / max(sockets, 1) / 1e6:.1f} MB each, {sockets} sockets")
    limit = Path("/proc/sys/net/ipv4/tcp_mem").read_text(encoding="ascii").split()[2]
    used = re.search(r"^TCP:.* mem (\d+)$", Path("/proc/net/sockstat").read_text("ascii"), re.M)
    print(f"TCP has {used[1] if used else '?'} pages of the {limit} that tcp_mem allows")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("flood").add_argument("port", type=int)
    reading, holding = kinds.add_parser("read"), kinds.add_parser("hold")
    for kind in (reading, holding):
        kind.add_argument("port", type=int)
        kind.add_argument("--readers", type=int, default=160)
        kind.add_argument("--mib", type=int, default=4)
        kind.add_argument("--patience", type=float, default=PATIENCE_S)
    reading.add_argument("backend", type=int)
    options = parser.parse_args()
    if options.kind == "flood":
        flood(options.port)
        return
    clients = read(options.port, options.readers, options.mib, options.patience)
    sys.stdout.flush()
    if options.kind == "hold":
        signal.pause()
    time.sleep(SETTLE_S)
    report(options.port, options.backend)
    stream(options.port)
    for client in clients:
        client.close()


if __name__ == "__main__":
    main()
