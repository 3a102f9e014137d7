"""Backends, a balancer before them, and clients: what the page is shown on."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

READ = "a-token-that-may-read"
WRITE = "a-token-that-may-write"
# What an attacker would try: the page must show it as it is.
HOSTILE = "<img src=x onerror=alert(1)>"


def free_port():
    """A port that nothing uses, below the range from which the kernel takes ports of clients."""
    while True:
        port = random.randrange(10_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("0.0.0.0", port))
                return port
            except OSError:
                continue


class Backends:
    """HTTP servers on all addresses of loopback, so that there may be hundreds of backends."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.servers = {}
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

    def start(self, port):
        """Listens on a port."""
        serve = asyncio.start_server(self._answer, "0.0.0.0", port, backlog=512)
        self.servers[port] = asyncio.run_coroutine_threadsafe(serve, self.loop).result(10)

    def stop(self, port):
        """Refuses connections from now on."""
        server = self.servers.pop(port)
        self.loop.call_soon_threadsafe(server.close)

    async def _answer(self, reader, writer):
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(random.expovariate(300))
                body = b"x" * random.choice((200, 2_000, 20_000))
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


class Clients:
    """Threads that connect, ask some times, and close."""

    def __init__(self, ports, count=24):
        self.ports = ports
        self.is_over = False
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def _run(self):
        while not self.is_over:
            try:
                with socket.create_connection(
                    ("127.0.0.1", random.choice(self.ports)), timeout=3
                ) as stream:
                    for _ in range(random.randint(1, 10)):
                        stream.sendall(b"GET / HTTP/1.1\r\nHost: page\r\n\r\n")
                        if not stream.recv(65536) or self.is_over:
                            break
                        time.sleep(random.uniform(0.01, 0.2))
            except OSError:
                time.sleep(0.1)

    def stop(self):
        """Ends all of them."""
        self.is_over = True
        for thread in self.threads:
            thread.join(5)


class Stage:
    """The balancer with its configuration."""

    def __init__(self, mahoraga, directory, many=200):
        self.mahoraga = mahoraga
        self.directory = directory
        self.backends = Backends()
        ports = [free_port() for _ in range(9)]
        self.admin, self.front, self.other = ports[:3]
        self.web, self.fleet = ports[3:7], ports[7]
        self.many = many
        for port in [*self.web[:3], self.fleet]:
            self.backends.start(port)
        self.base = f"http://127.0.0.1:{self.admin}/"
        for name, token in (("read", READ), ("write", WRITE)):
            self._write(f"{name}.token", token)
        self._write("config.ron", self._config())
        self.process = None

    def _write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)

    def _config(self):
        check = '(type: "http", interval: "500ms", timeout: "400ms", rise: 1, fall: 2)'
        web = ", ".join(
            f'(name: "app-{number}", address: "127.0.0.1:{port}", weight: {weight})'
            for number, (port, weight) in enumerate(zip(self.web, (4, 2, 2, 1)), 1)
        )
        fleet = ", ".join(f'"127.0.1.{number}:{self.fleet}"' for number in range(1, self.many + 1))
        return f"""(
            workers: 2,
            admin: (socket: "admin.sock", http: (bind: "127.0.0.1:{self.admin}",
                read_token: "read.token", write_token: "write.token")),
            access_lists: [(name: "guests", deny: ["192.0.2.0/24"], others: "allow")],
            listeners: [
                (name: "front", bind: "127.0.0.1:{self.front}", pool: "web", access_list: "guests",
                    routes: [
                        (name: "{HOSTILE}", client: ["192.0.2.0/24"],
                            pools: [(name: "web", weight: 0), (name: "fleet", weight: 5)]),
                        (client: ["198.51.100.7"], pool: "refuse"),
                    ]),
                (name: "bulk", bind: "127.0.0.1:{self.other}", pool: "fleet"),
            ],
            pools: [
                (name: "web", check: {check}, backends: [{web},
                    (name: "{HOSTILE}", address: "127.0.0.9:{self.web[0]}")]),
                (name: "fleet", strategy: "random", backends: [{fleet}]),
            ],
        )"""

    def start(self):
        """Starts the balancer, and waits until it answers."""
        log = open(os.path.join(self.directory, "mahoraga.log"), "ab")
        self.process = subprocess.Popen(
            [self.mahoraga, "run"], cwd=self.directory, stdout=log, stderr=log
        )
        for _ in range(200):
            try:
                self.ask("GET", "status")
                return
            except (OSError, urllib.error.URLError):
                time.sleep(0.05)
        raise RuntimeError("the balancer does not answer: see mahoraga.log")

    def stop(self):
        """Ends the balancer in order."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            # Sessions that go on would be waited for.
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            self.process.wait(10)

    def ask(self, method, path, body=None, token=WRITE):
        """The answer of the API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}v1/{path}", data=data, method=method)
        request.add_header("Authorization", f"Bearer {token}")
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def backend(self, name, pool="web"):
        """A backend, as the API has it."""
        return self.ask("GET", f"pools/{pool}/backends/{urllib.parse.quote(name, safe='')}")
