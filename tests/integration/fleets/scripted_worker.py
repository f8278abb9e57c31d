"""A replica without an engine, standard library only. The spec's `engine` is what it does:

ready          tell of loading, then ready
load           load for ever
crash-at-load  write to the log and exit with code 3
end            exit with code 0
segfault       die of a signal of its own
refuse         tell of a failure and stay
refuse-and-end tell of a failure and exit with code 1
stubborn       ready, and SIGTERM is ignored
parent         ready, with a child in its process group whose pid it writes to the log
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any


class Worker:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.health: dict[str, Any] = {"replica_id": spec["replica_id"], "phase": "starting", "engine": spec["engine"]}
        self.changed = asyncio.Condition()
        self.heard = asyncio.Event()
        self.watchers = 0
        self.delivered = ""  # the phase that a watcher was told last

    async def tell(self, phase: str, **more: Any) -> None:
        async with self.changed:
            self.health |= {"phase": phase, **more}
            self.changed.notify_all()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                headers = {}
                while (header := (await reader.readline()).decode().strip()) != "":
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                self.heard.set()
                await self.reply(line.decode().split()[1], headers.get("x-replica-token"), writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def reply(self, path: str, token: str | None, writer: asyncio.StreamWriter) -> None:
        if token != self.spec["token"]:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
        elif path == "/health":
            body = json.dumps(self.health).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            await self.watch(writer)
        await writer.drain()

    async def watch(self, writer: asyncio.StreamWriter) -> None:
        self.watchers += 1
        try:
            async with self.changed:
                while True:
                    line = json.dumps(self.health).encode() + b"\n"
                    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                    await writer.drain()
                    self.delivered = self.health["phase"]
                    self.changed.notify_all()
                    await self.changed.wait()
        finally:
            self.watchers -= 1

    async def end_as_orphan(self) -> None:
        while True:
            self.heard.clear()
            try:
                async with asyncio.timeout(self.spec["orphan_after_s"]):
                    await self.heard.wait()
            except TimeoutError:
                if not self.watchers:
                    os._exit(9)

    async def act(self) -> None:
        engine = self.spec["engine"]
        log(f"scripted worker, engine {engine}")
        if engine == "crash-at-load":
            log("Traceback: the weights are upside down")
            os._exit(3)
        if engine == "end":
            os._exit(0)
        if engine == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        await self.tell("loading")
        if engine.startswith("refuse"):
            failure = {"kind": "failed", "reason": "ENGINE_FAILED", "message": "the engine knows no such layer"}
            await self.tell("failed", failure=failure)
            if engine == "refuse-and-end":
                async with self.changed:
                    await self.changed.wait_for(lambda: self.delivered == "failed")
                os._exit(1)
        elif engine != "load":
            if engine == "parent":
                child = await asyncio.create_subprocess_exec("sleep", "600")
                log(f"child {child.pid}")
            await self.tell("ready", capacity=self.spec["max_batch_size"])


def log(line: str) -> None:
    sys.stderr.write(line + "\n")


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket-fd", type=int, required=True)
    parser.add_argument("--replica-id", required=True)
    parser.add_argument("--run-dir", required=True)
    arguments = parser.parse_args()
    worker = Worker(json.load(sys.stdin))
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    ignore = worker.spec["engine"] == "stubborn"
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if ignore else ended.set)
    server = await asyncio.start_unix_server(worker.serve, sock=socket.socket(fileno=arguments.socket_fd))
    tasks = [asyncio.create_task(worker.act()), asyncio.create_task(worker.end_as_orphan())]
    await ended.wait()
    server.close()
    for task in tasks:
        task.cancel()
    os._exit(0)


asyncio.run(main())
