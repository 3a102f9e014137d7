#!/usr/bin/env python3
"""A client of a TLS server before an HTTP server, for loadtest/tls.sh.

  tls_client.py resumed PORT SECONDS   connections that resume a session, with one request each
  tls_client.py bytes PORT SECONDS     downloads of /big over one connection, one after the other

Prints "COUNT RATE ERRORS": connections, or MB (1e6 bytes). A connection that did not resume its
session is an error.
"""

import socket
import ssl
import sys
import time

LOAD, PORT, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def connect(session=None):
    plain = socket.create_connection(("127.0.0.1", PORT), timeout=10)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def ask(client, path, more=""):
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n".encode())


def read_head(client):
    """The length of the body, and what has come of it."""
    head = b""
    while b"\r\n\r\n" not in head:
        part = client.recv(65536)
        if not part:
            raise OSError("it ended in the head of an answer")
        head += part
    head, rest = head.split(b"\r\n\r\n", 1)
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value), len(rest)
    raise OSError("an answer has no length")


def visit(session):
    """One connection with one request; its session, and whether it resumed that one."""
    with connect(session) as client:
        ask(client, "/small", "Connection: close\r\n")
        length, got = read_head(client)
        while got < length:
            got += len(client.recv(65536))
        return client.session, client.session_reused


def resumed(until):
    session, _ = visit(None)
    count = errors = 0
    while time.monotonic() < until:
        _, did_resume = visit(session)
        count += 1
        errors += not did_resume
    return count, errors


def downloads(until):
    total = 0
    buffer = bytearray(1 << 20)
    with connect() as client:
        while time.monotonic() < until:
            ask(client, "/big")
            length, got = read_head(client)
            while got < length:
                got += client.recv_into(buffer)
            total += length
    return total / 1e6, 0


began = time.monotonic()
work = {"resumed": resumed, "bytes": downloads}[LOAD]
done, wrong = work(began + SECONDS)
print(f"{done:.0f} {done / (time.monotonic() - began):.1f} {wrong}")
