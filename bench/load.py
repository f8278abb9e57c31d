"""A load generator in a process of its own: HTTP/1.1 over kept connections, as little CPU per request as Python allows.

    result = run_load(Plan(url, body=b"…", headers={…}, concurrency=16, seconds=5))
    with started_load(plan) as load:   # runs until told
        …
        result = load.stop()

Requests are closed-loop: each of `concurrency` connections sends the next when the last reply is whole. All subjects
are measured by the same generator, so what it costs is in all of them. Instants are of CLOCK_MONOTONIC, equal in all
processes.
"""

import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import uvloop

from bench.processes import BenchFailed

_CLOSED = 0  # the status of a request whose connection broke


@dataclass(kw_only=True)
class Plan:
    """What to send. `bodies` are sent in turn. It ends after `seconds`, after `requests` if given, or at SIGTERM."""

    url: str
    bodies: list[bytes]
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    concurrency: int = 1
    seconds: float = 3600.0
    requests: int | None = None
    warm_up_s: float = 0.0  # load before the measurement, not counted
    unix: str | None = None  # the socket to go through; `url` then gives path and host only
    keep: bool = False  # every reply with its instants and body, for checks and for timelines
    keep_bodies: bool = True


@dataclass
class Sample:
    """One request. `first` is when the first byte of the body came, `chunks` when each further piece did."""

    sent: float
    first: float
    ended: float
    status: int
    body: bytes = b""
    chunks: list[float] = field(default_factory=list[float])


@dataclass
class Percentiles:
    """Milliseconds."""

    p50: float
    p90: float
    p99: float
    max: float
    mean: float


@dataclass
class LoadResult:
    """Only replies of the statuses 200–299 count in rate and latencies. Status 0 is a broken connection."""

    requests: int
    seconds: float
    rate: float  # per second
    latency: Percentiles
    first_byte: Percentiles
    statuses: dict[int, int]
    lost: int  # replies other than 2xx, broken connections included
    generator_cpu_s: float  # of the generator itself: it shares the cores
    errors: list[str] = field(default_factory=list[str])  # the first few
    samples: list[Sample] = field(default_factory=list[Sample])


def run_load(plan: Plan) -> LoadResult:
    """Run the plan to its end in a process of its own."""
    with started_load(plan) as load:
        return load.result()


@contextmanager
def started_load(plan: Plan) -> Iterator["RunningLoad"]:
    """The plan under way; ended at the latest when the block ends."""
    command = [sys.executable, "-m", "bench.load"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    load = RunningLoad(process)
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.msgpack.encode(plan))
        process.stdin.close()
        yield load
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class RunningLoad:
    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def stop(self) -> LoadResult:
        """No new requests; those that run are waited for."""
        self.process.send_signal(signal.SIGTERM)
        return self.result()

    def result(self) -> LoadResult:
        """Wait for the plan's end."""
        assert self.process.stdout is not None
        told = self.process.stdout.read()
        if self.process.wait() != 0 or not told:
            raise BenchFailed(f"the load generator ended with {self.process.returncode}")
        return msgspec.msgpack.decode(told, type=LoadResult)


async def generate(plan: Plan) -> LoadResult:
    """Run the plan on this event loop. A benchmark wants `run_load`: a loop of its own."""
    run = _Run(plan)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, run.stop)
    if plan.warm_up_s:
        await _Run(_warm_up(plan)).go()
    return await run.go()


def _warm_up(plan: Plan) -> Plan:
    return Plan(**{**vars(plan), "warm_up_s": 0.0, "seconds": plan.warm_up_s, "requests": None, "keep": False})


class _Run:
    """The plan's connections and what they found."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.samples: list[Sample] = []
        self.errors: list[str] = []
        self.until = float("inf")
        self.sent = 0
        self._payloads = _payloads(plan)
        self._next = 0
        self._stopped = False

    def stop(self) -> None:
        self._stopped = True

    def next_payload(self) -> bytes | None:
        """What to send now; None when there is nothing more to send."""
        if self._stopped or (self.plan.requests is not None and self.sent >= self.plan.requests):
            return None
        if time.monotonic() >= self.until:
            return None
        self.sent += 1
        self._next = (self._next + 1) % len(self._payloads)
        return self._payloads[self._next - 1]

    async def go(self) -> LoadResult:
        cpu = _own_cpu_s()
        began = time.monotonic()
        self.until = began + self.plan.seconds
        await asyncio.gather(*(self._client() for _ in range(self.plan.concurrency)))
        return _result(self, time.monotonic() - began, _own_cpu_s() - cpu)

    async def _client(self) -> None:
        """One connection after another until there is nothing more to send."""
        loop = asyncio.get_running_loop()
        parts = urlsplit(self.plan.url)
        while not self._stopped and time.monotonic() < self.until:
            try:
                if self.plan.unix is not None:
                    _, connection = await loop.create_unix_connection(lambda: _Connection(self), self.plan.unix)
                else:
                    host, port = parts.hostname or "127.0.0.1", parts.port or 80
                    _, connection = await loop.create_connection(lambda: _Connection(self), host, port)
            except OSError as error:
                now = time.monotonic()
                self.sent += 1
                self.samples.append(Sample(now, now, now, _CLOSED))
                self.note(f"cannot connect: {error}")
                await asyncio.sleep(0.01)  # a refused connection costs nothing: do not spin on it
            else:
                if await connection.done:
                    return
            if self.plan.requests is not None and self.sent >= self.plan.requests:
                return

    def note(self, error: str) -> None:
        if len(self.errors) < 10:
            self.errors.append(error)


class _Connection(asyncio.Protocol):
    """One request at a time over one connection. `done`: True when nothing is left to send, False when it broke."""

    def __init__(self, run: _Run) -> None:
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._run = run
        self._keep_bodies = run.plan.keep and run.plan.keep_bodies
        self._keep = run.plan.keep
        self._transport: asyncio.WriteTransport | None = None
        self._parser: Any = None
        self._busy = False
        self._close = False

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's does not derive from it
        self._send()

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._run.note(f"unreadable reply: {error}")
            assert self._transport is not None
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            now = time.monotonic()
            self._run.samples.append(Sample(self._sent, self._first or now, now, _CLOSED, b"".join(self._body)))
            self._run.note(f"the connection broke within a request: {exc or 'closed'}")
        if not self.done.done():
            self.done.set_result(False)

    # httptools

    def on_body(self, body: bytes) -> None:
        if not self._first:
            self._first = self._now
        elif self._keep:
            self._chunks.append(self._now)
        if self._keep_bodies or self._parser.get_status_code() >= 300:
            self._body.append(body)

    def on_message_complete(self) -> None:
        self._busy = False
        now, status = self._now, self._parser.get_status_code()
        body = b"".join(self._body)
        self._run.samples.append(Sample(self._sent, self._first or now, now, status, body, self._chunks))
        if not 200 <= status < 300:
            self._run.note(f"{status}: {body[:200].decode(errors='replace')}")
        if self._parser.should_keep_alive():
            asyncio.get_running_loop().call_soon(self._send)  # not in here: the parser is not done with this reply
        else:
            assert self._transport is not None
            self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        payload = self._run.next_payload()
        if payload is None:
            if not self.done.done():
                self.done.set_result(True)
            self._transport.close()
            return
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._chunks: list[float] = []
        self._first = 0.0
        self._busy = True
        self._sent = time.monotonic()
        self._transport.write(payload)


def _payloads(plan: Plan) -> list[bytes]:
    """The requests as bytes, made once."""
    parts = urlsplit(plan.url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{plan.method} {path} HTTP/1.1", f"host: {parts.netloc or 'localhost'}"]
    lines += [f"{name}: {value}" for name, value in plan.headers.items()]
    head = "\r\n".join(lines)
    return [f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body for body in plan.bodies or [b""]]


def _result(run: _Run, seconds: float, cpu_s: float) -> LoadResult:
    good = [sample for sample in run.samples if 200 <= sample.status < 300]
    statuses = Counter(sample.status for sample in run.samples)
    return LoadResult(
        requests=len(run.samples),
        seconds=seconds,
        rate=len(good) / seconds if seconds else 0.0,
        latency=percentiles([sample.ended - sample.sent for sample in good]),
        first_byte=percentiles([sample.first - sample.sent for sample in good]),
        statuses=dict(statuses),
        lost=len(run.samples) - len(good),
        generator_cpu_s=cpu_s,
        errors=run.errors,
        samples=run.samples if run.plan.keep else [],
    )


def percentiles(seconds: list[float]) -> Percentiles:
    if not seconds:
        return Percentiles(0.0, 0.0, 0.0, 0.0, 0.0)
    ranked = sorted(1000 * second for second in seconds)

    def at(part: float) -> float:
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))]

    return Percentiles(at(0.5), at(0.9), at(0.99), ranked[-1], sum(ranked) / len(ranked))


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(generate(plan))
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main()
