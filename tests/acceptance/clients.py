"""Clients that must not notice anything: streams read on threads of their own, and askers who never stop."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
from tests.acceptance.server import Server, client

PATIENCE_S = 60.0


class Stream:
    """One streamed completion. `text` grows as it comes; `whole` waits for the end and insists on a clean one."""

    def __init__(self, server: Server, model: str, prompt: str, **options: Any) -> None:
        self.text = ""
        self.finish: str | None = None
        self.status = 0
        self.ended = False
        self.error: str | None = None
        self._body = {"model": model, "prompt": prompt, "stream": True, **options}
        self._url, self._headers = f"{server.url}/v1/completions", server.headers
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def after(self, count: int) -> "Stream":
        """Return once `count` characters have come; it must not be over by then."""
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.text) >= count or self.ended, PATIENCE_S), "nothing came"
            assert not self.ended, f"over after {len(self.text)} characters: {self.error or self.finish}"
        return self

    def wait(self, seconds: float) -> None:
        """Return when more has come, and after `seconds` at the latest."""
        with self._grown:
            self._grown.wait(seconds)

    def end(self) -> str | None:
        """Wait for the end, whatever it is; returns what went wrong, if anything did."""
        with self._grown:
            assert self._grown.wait_for(lambda: self.ended, PATIENCE_S), "the stream does not end"
        return self.error

    def whole(self) -> str:
        assert self.end() is None, self.error
        return self.text

    def _read(self) -> None:
        error: str | None = None
        try:
            with client(headers=self._headers) as own, own.stream("POST", self._url, json=self._body) as reply:
                self.status = reply.status_code
                error = self._take_in(reply)
        except httpx.HTTPError as broken:
            error = repr(broken)
        with self._grown:
            self.error, self.ended = error, True
            self._grown.notify_all()

    def _take_in(self, reply: httpx.Response) -> str | None:
        if reply.status_code != 200:
            return f"{reply.status_code} {reply.read().decode()}"
        for line in reply.iter_lines():
            if line == "data: [DONE]":
                return None if self.finish else "done without a finish_reason"
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
                if "error" in told:
                    return line
                with self._grown:
                    self.text += told["choices"][0]["text"]
                    self.finish = told["choices"][0]["finish_reason"] or self.finish
                    self._grown.notify_all()
        return "the stream ended without [DONE]"


@dataclass(frozen=True, slots=True)
class Answer:
    """When it was asked and answered (monotonic), and what came: a text, or what went wrong."""

    asked_at: float
    answered_at: float
    text: str | None
    error: str | None = None
    refused_cleanly: bool = False  # the connection was refused, or 503 with `Retry-After`


class Askers:
    """`with Askers(server, model, prompt, count) as askers:` so many clients, each asking anew as soon as answered."""

    def __init__(self, server: Server, model: str, prompt: str, count: int, **options: Any) -> None:
        self.answers: list[Answer] = []
        self._url, self._headers = f"{server.url}/v1/completions", server.headers
        self._body = {"model": model, "prompt": prompt, **options}
        self._stopped = threading.Event()
        self._came = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(count)]

    def __enter__(self) -> "Askers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    @property
    def errors(self) -> list[str]:
        return [answer.error for answer in self.answers if answer.error is not None]

    def until(self, happened: Callable[[], bool]) -> None:
        """Go on asking until the answers are such that `happened` says so."""
        with self._came:
            assert self._came.wait_for(happened, PATIENCE_S), f"it never happened: {self.answers[-3:]}"

    def go_on(self, count: int) -> None:
        """Return when so many more answers have come."""
        goal = len(self.answers) + count
        self.until(lambda: len(self.answers) >= goal)

    def _ask(self) -> None:
        with client(headers=self._headers) as own:
            while not self._stopped.is_set():
                answer = self._answer(own)
                with self._came:
                    self.answers.append(answer)
                    self._came.notify_all()
                if answer.error is not None:
                    self._stopped.wait(0.02)  # nobody asks a closed door without a pause

    def _answer(self, own: httpx.Client) -> Answer:
        asked_at = time.monotonic()
        try:
            reply = own.post(self._url, json=self._body)
        except httpx.HTTPError as broken:
            refused = isinstance(broken, httpx.ConnectError)
            return Answer(asked_at, time.monotonic(), None, repr(broken), refused)
        if reply.status_code == 200:
            return Answer(asked_at, time.monotonic(), reply.json()["choices"][0]["text"])
        refused = reply.status_code == 503 and "retry-after" in reply.headers
        return Answer(asked_at, time.monotonic(), None, f"{reply.status_code} {reply.text}", refused)
