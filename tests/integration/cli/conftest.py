"""A real HTTP server that answers what a test scripts, and the command line pointed at it."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typer.testing import CliRunner, Result

from dockyard.cli.main import app

KEY = "kg-00000000-0000-4000-8000-000000000001-00000000-0000-4000-8000-000000000002"
COMMAND = (sys.executable, "-c", "from dockyard.cli.main import main; main()")


@dataclass(frozen=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any


@dataclass
class ApiDouble:
    """`on` scripts the answers of a route: several are given one after the other, the last one again and again."""

    url: str = ""
    seen: list[Seen] = field(default_factory=list[Seen])
    arrived: threading.Event = field(default_factory=threading.Event)
    _scripts: dict[tuple[str, str], list[Response]] = field(default_factory=dict[tuple[str, str], list[Response]])

    def on(self, method: str, path: str, *answers: Response | dict[str, Any]) -> None:
        responses = [a if isinstance(a, Response) else JSONResponse(a) for a in answers]
        self._scripts[method, path] = responses

    def bodies(self, method: str, path: str) -> list[Any]:
        return [seen.body for seen in self.seen if (seen.method, seen.path) == (method, path)]

    async def answer(self, request: Request) -> Response:
        raw = await request.body()
        body = json.loads(raw) if raw else None
        path = request.url.path
        self.seen.append(Seen(request.method, path, dict(request.query_params), dict(request.headers), body))
        self.arrived.set()
        answers = self._scripts.get((request.method, path))
        if not answers:
            return self.refusal(404, f"there is no {request.method} {path}", "NOT_FOUND")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    @staticmethod
    def refusal(
        status: int, msg: str, reason: str, field: str | None = None, headers: dict[str, str] | None = None
    ) -> JSONResponse:
        """One problem in the API's shape."""
        error = {"msg": msg, "code": status, "reason": reason, "field": field}
        return JSONResponse({"errors": [error]}, status, {"x-request-id": "rq-7", **(headers or {})})

    @staticmethod
    def job(status: str = "SUCCESS", **fields: Any) -> dict[str, Any]:
        """A dock status with what a test does not care about filled in."""
        return {
            "_id": "ds-1",
            "dockStatusId": "ds-1",
            "modelId": "cm-1",
            "jobType": "MODELS",
            "action": "DEPLOY",
            "status": status,
            "percentageComplete": 100 if status == "SUCCESS" else 40,
            "phase": "DONE" if status == "SUCCESS" else "OPTIMIZING",
            "message": "it serves",
            "reason": None,
            "warnings": [],
            **fields,
        }

    @staticmethod
    def model(model_id: str = "cm-1", name: str = "Flan T5", **fields: Any) -> dict[str, Any]:
        return {
            "modelId": model_id,
            "name": name,
            "modelType": "openSource",
            "state": "Ready to Deploy",
            "createdOn": "2026-02-05T11:58:03.638Z",
            **fields,
        }

    @staticmethod
    def page(plural: str, *items: dict[str, Any], cursor: str | None = None) -> dict[str, Any]:
        return {plural: list(items), "total": len(items), "nextCursor": cursor}

    @staticmethod
    def stream(*pieces: str, end: str = "data: [DONE]\n\n") -> Response:
        """A chat answer as server-sent events."""
        events = [f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n" for piece in pieces]
        return Response("".join(events) + end, media_type="text/event-stream")


class DoubleServer:
    """One server for all tests, since its end takes a while; each test scripts a double of its own."""

    def __init__(self) -> None:
        self.current = ApiDouble()
        methods = ["GET", "POST", "PATCH", "DELETE"]
        app = Starlette(routes=[Route("/{path:path}", self._answer, methods=methods)])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        self._thread = threading.Thread(target=self._server.run, args=([self._listener],))

    def start(self) -> None:
        self._thread.start()  # the socket listens already: what comes before the server is up waits in the backlog

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    async def _answer(self, request: Request) -> Response:
        return await self.current.answer(request)


@pytest.fixture(scope="session")
def double_server() -> Iterator[DoubleServer]:
    server = DoubleServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def double(double_server: DoubleServer) -> ApiDouble:
    double_server.current = ApiDouble(url=double_server.url)
    return double_server.current


class Cli:
    """Runs `dockyard …` in this process against the double. `env` is all that the command finds of the environment."""

    def __init__(self, double: ApiDouble, env: dict[str, str]) -> None:
        self.double = double
        self.env = env

    def __call__(self, *args: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, list(args), input=stdin)


@pytest.fixture
def environment(double: ApiDouble, tmp_path: Path) -> dict[str, str]:
    """What a command may find: the double's URL, a key, a data directory of its own."""
    return {"DOCKYARD_URL": double.url, "DOCKYARD_API_KEY": KEY, "DOCKYARD_DATA_DIR": str(tmp_path), "TERM": "dumb"}


@pytest.fixture
def cli(double: ApiDouble, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    for name in [name for name in os.environ if name.startswith("DOCKYARD_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Cli(double, environment)
