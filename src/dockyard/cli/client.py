"""The API over httpx: one method per verb, every failure one of `failures`. Knows routes' shapes, not their meaning."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from dockyard import __version__
from dockyard.cli.access import on_loopback
from dockyard.cli.failures import ApiRefused, CommandFailed, Problem, Unreachable

PAGE = 200  # the most that one page may hold
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
CHUNK_TIMEOUT = httpx.Timeout(300.0, connect=5.0)  # a disk that is slow to sync
ANSWER_TIMEOUT = httpx.Timeout(200.0, connect=5.0)  # above the longest endpoint timeout (180 s): the server decides

Json = dict[str, Any]


class Client:
    """A connection to one server with one key; to be closed."""

    def __init__(self, url: str, key: str | None, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url
        headers = {"user-agent": f"dockyard-cli/{__version__}", **({"x-api-key": key} if key else {})}
        self._http = httpx.Client(
            base_url=url,
            headers=headers,
            timeout=TIMEOUT,
            transport=transport,
            trust_env=not on_loopback(url),  # no proxy between this machine and itself
            verify=url.startswith("https"),  # loading the certificates takes 30 ms
        )

    def close(self) -> None:
        self._http.close()

    def get(self, *path: str, **params: Any) -> Json:
        return self.call("GET", *path, params=params)

    def call(self, method: str, *path: str, params: Json | None = None, body: Json | None = None) -> Json:
        """One request to `/api/public/…`, `path` by segments; the reply's JSON object.

        Raises `ApiRefused`, `Unreachable`, or `CommandFailed` for an answer that is no JSON object.
        """
        with self._translated():
            route = "/".join(quote(segment, safe="") for segment in path)
            reply = self._http.request(method, f"/api/public/{route}", params=_given(params), json=body)
        return _read(reply, self.url)

    def pages(self, *path: str, plural: str, **params: Any) -> Json:
        """Every page of a list as one reply: `{plural: [...], "total": n, "nextCursor": null}`."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = self.get(*path, limit=PAGE, cursor=cursor, **params)
            items += page.get(plural, [])
            cursor = page.get("nextCursor")
            if not cursor:
                return {**page, plural: items, "total": page.get("total", len(items)), "nextCursor": None}

    def served(self) -> list[Json]:
        """The deployments that this key may ask now, as OpenAI's list of models. Raises as `call`."""
        with self._translated():
            reply = self._http.get("/v1/models")
        return _read(reply, self.url)["data"]

    def infer(self, path: str, body: Json) -> Json:
        """A whole answer from an inference route such as `/v1/chat/completions`."""
        with self._translated():
            reply = self._http.post(path, json=body, timeout=ANSWER_TIMEOUT)
        return _read(reply, self.url)

    def stream(self, path: str, body: Json) -> Iterator[Json]:
        """The events of a streamed answer, up to `[DONE]`. Closing the iterator frees the place in the batch.

        Raises as `call`; also `CommandFailed` for a stream that ends before its end.
        """
        with self._translated(), self._http.stream("POST", path, json=body, timeout=ANSWER_TIMEOUT) as reply:
            if reply.is_error:
                reply.read()
                _read(reply, self.url)
            for line in reply.iter_lines():
                data = line.removeprefix("data:").strip()
                if not line.startswith("data:") or not data:
                    continue
                if data == "[DONE]":
                    return
                yield _event(data, reply)
        raise CommandFailed("error: the answer broke off: the server closed the stream before its end; try again")

    def download(self, link: str, start: int) -> Iterator[bytes]:
        """The bytes behind a signed link of this server, from `start` on. Raises as `call`, also when it breaks off.

        Asked of the URL that this client knows: the server may know another one of itself than leads to it from here.
        """
        path = f"/api/public/{link.partition('/api/public/')[2]}"
        headers = {"accept-encoding": "identity", **({"range": f"bytes={start}-"} if start else {})}
        with self._translated(), self._http.stream("GET", path, headers=headers) as reply:
            if reply.is_error:
                reply.read()
                _read(reply, self.url)
            if start and reply.status_code != 206:
                raise CommandFailed(f"error: {self.url} does not go on with a download; remove the .part file")
            yield from reply.iter_bytes()  # as they come: what is held back would be lost when it breaks off

    def send_chunk(self, session_id: str, number: int, content: bytes, sha256: str) -> Json:
        """One chunk of an upload. Raises as `call`; safe to call from several threads."""
        with self._translated():
            reply = self._http.post(
                f"/api/public/files/session/{quote(session_id, safe='')}",
                data={"chunkNumber": str(number), "sha256": sha256},
                files={"file": content},
                timeout=CHUNK_TIMEOUT,
            )
        return _read(reply, self.url)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """httpx's exceptions as ours."""
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unreachable(self.url, "it took too long") from error
        except httpx.TransportError as error:
            why = re.sub(r"^\[Errno -?\d+\] ", "", str(error))
            raise Unreachable(self.url, why or type(error).__name__) from error


def _given(params: Json | None) -> Json:
    return {name: value for name, value in (params or {}).items() if value is not None}


def _read(reply: httpx.Response, url: str) -> Json:
    try:
        body = reply.json()
    except ValueError:
        body = None
    if reply.is_success and (body is None and not reply.content):
        return {}
    if not isinstance(body, dict):
        raise CommandFailed(f"error: {url} answered {reply.status_code} and no JSON object; is that a Dockyard server?")
    if reply.is_success:
        return body
    raise _refused(reply.status_code, body, reply.headers)


def _refused(status: int, body: Json, headers: httpx.Headers) -> ApiRefused:
    """Both shapes of an error: the API's list, and OpenAI's single one of the inference routes."""
    entries = body.get("errors")
    if isinstance(entries, list):
        problems = [Problem(str(e.get("msg")), e.get("reason"), e.get("field")) for e in entries if isinstance(e, dict)]
    else:
        problems = [_openai_problem(body)]
    return ApiRefused(status, tuple(problems), headers.get("x-request-id"), headers.get("retry-after"))


def _openai_problem(body: Json) -> Problem:
    error = body.get("error")
    if not isinstance(error, dict):
        return Problem(f"the server gave no reason: {body}")
    return Problem(str(error.get("message")), error.get("code"), error.get("param"))


def _event(data: str, reply: httpx.Response) -> Json:
    event = json.loads(data)
    if "error" in event:
        raise _refused(reply.status_code, event, reply.headers)
    return event
