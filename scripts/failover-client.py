"""The client of scripts/vrrp.sh: it opens connections all the time, and keeps some.

    failover-client.py FILE PAUSE SESSIONS ADDRESS...

Each PAUSE seconds it opens a connection to each ADDRESS, reads the line that the backend says and
closes. SESSIONS connections to each stay open, and echo each 50 ms. Each new connection is a line
of FILE, written when it ends: `new ADDRESS BEGAN ENDED ok|ERROR`. A session that breaks is a line
`session ADDRESS BROKE ERROR`, and is opened again. Ends by SIGTERM.
"""

import asyncio, signal, sys, time

out = open(sys.argv[1], "w", buffering=1)
pause, sessions, addresses = float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
# As clients do: longer than the kernel takes to send a lost segment again.
PATIENCE = 10


async def begin(address):
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    line = await reader.readline()
    if not line:
        raise EOFError
    return reader, writer, line


async def connect(address):
    began = time.time()
    try:
        _, writer, _ = await asyncio.wait_for(begin(address), PATIENCE)
        writer.close()
        outcome = "ok"
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        outcome = type(error).__name__
    print("new", address, began, time.time(), outcome, file=out)


async def keep(address):
    while True:
        try:
            reader, writer, _ = await asyncio.wait_for(begin(address), PATIENCE)
            while True:
                writer.write(b"still here\n")
                if await asyncio.wait_for(reader.readline(), PATIENCE) != b"still here\n":
                    raise EOFError
                await asyncio.sleep(0.05)
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            print("session", address, time.time(), type(error).__name__, file=out)
            await asyncio.sleep(0.2)


async def main():
    loop, tasks = asyncio.get_running_loop(), set()
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)
    kept = [asyncio.create_task(keep(address)) for address in addresses * sessions]
    due = time.monotonic()
    while not ending.is_set():
        for address in addresses:
            task = asyncio.create_task(connect(address))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        due = max(due + pause, time.monotonic() - 1)
        await asyncio.sleep(max(0, due - time.monotonic()))
    for task in kept:
        task.cancel()
    await asyncio.gather(*tasks)


asyncio.run(main())
