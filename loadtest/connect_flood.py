"""Opens connections at a rate and resets each at once: `connect_flood.py HOST:PORT PER_SECOND`.

A connection that is not answered is given up after a second.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections import deque

PATIENCE_S = 1.0
RESET = struct.pack("ii", 1, 0)


def main() -> None:
    to, per_second = sys.argv[1], int(sys.argv[2])
    host, port = to.rsplit(":", 1)
    poll, begun, opened = select.epoll(), time.monotonic(), 0
    waiting: dict[int, socket.socket] = {}
    order: deque[tuple[float, int, socket.socket]] = deque()
    while True:
        now = time.monotonic()
        due = int((now - begun) * per_second)
        # What could not be opened in time is not opened later at once.
        opened = max(opened, due - per_second // 10)
        while opened < due:
            opened += 1
            client = socket.socket()
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            try:
                client.connect((host, int(port)))
            except BlockingIOError:
                pass
            except OSError:
                client.close()
                continue
            waiting[client.fileno()] = client
            order.append((now, client.fileno(), client))
            poll.register(client, select.EPOLLOUT)
        for fd, _ in poll.poll(0.001):
            waiting.pop(fd).close()
        while order and now - order[0][0] > PATIENCE_S:
            _, fd, client = order.popleft()
            if waiting.get(fd) is client:
                waiting.pop(fd).close()


if __name__ == "__main__":
    main()
