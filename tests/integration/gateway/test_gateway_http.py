"""The edges of HTTP: keys, bodies, methods, ids, and one shape for every error."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import structlog
from tests.integration.gateway_rig import ADMIN, VIEWER, Rig

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "Ship 1", "messages": [{"role": "user", "content": "go"}]}


def refused(reply: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert set(reply.json()) == {"error"}
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert reply.headers["x-request-id"]
    return error


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": ADMIN},
        {"X-API-KEY": ADMIN},
        {"Authorization": f"Bearer {ADMIN}"},
        {"authorization": f"bearer {ADMIN}"},
        {"x-api-key": ADMIN, "Authorization": "Bearer something-else"},
    ],
)
async def test_where_the_key_may_be(rig: Rig, headers: dict[str, str]) -> None:
    await rig.double()
    rig.publish()
    assert (await rig.http(None).post(CHAT, json=ASK, headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, {"x-api-key": ""}, {"Authorization": "Basic YTpi"}])
async def test_without_a_key(rig: Rig, headers: dict[str, str]) -> None:
    reply = await rig.http(None).post(CHAT, json=ASK, headers=headers)
    assert refused(reply, 401, "NO_KEY")["type"] == "authentication_error"


async def test_the_key_is_judged_before_the_body(rig: Rig) -> None:
    rig.publish()
    refused(await rig.http(None).post(CHAT, content=b"{"), 401, "NO_KEY")
    refused(await rig.http("kg-nobody").post(CHAT, json={"model": 1}), 401, "UNKNOWN_KEY")
    refused(await rig.http(VIEWER).post(CHAT, json={"model": "Ship 1", "nonsense": 1}), 403, "MISSING_SCOPE")
    refused(await rig.http(VIEWER).post(CHAT, json={**ASK, "temperature": 9}), 403, "MISSING_SCOPE")


async def test_bodies_that_cannot_be_read(rig: Rig) -> None:
    rig.publish()
    client = rig.http()
    json_type = {"content-type": "application/json"}
    for body in (b"", b"{", b"nonsense", b'{"model": "\xff"}', b'{"model": NaN}', b'{"metadata":' + b"[" * 100_000):
        refused(await client.post(CHAT, content=body, headers=json_type), 400, "UNREADABLE_JSON")
    refused(await client.post(CHAT, content=b"[]", headers=json_type), 400, "WRONG_TYPE")
    refused(await client.post(CHAT, content=b"{}"), 415, "UNSUPPORTED_CONTENT_TYPE")
    refused(await client.post(CHAT, data={"model": "Ship 1"}), 415, "UNSUPPORTED_CONTENT_TYPE")
    refused(await client.post(CHAT, json={"model": "Ship 1"}), 400, "MISSING_FIELD")


async def test_a_body_that_is_too_large(rig: Rig) -> None:
    rig.publish()
    json_type = {"content-type": "application/json"}
    big = b'{"model": "' + b"x" * (8 << 20) + b'"}'
    refused(await rig.http().post(CHAT, content=big, headers=json_type), 413, "BODY_TOO_LARGE")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b" " * (1 << 20)

    refused(await rig.http().post(CHAT, content=chunks(), headers=json_type), 413, "BODY_TOO_LARGE")


async def test_routes_and_methods(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    client = rig.http()
    refused(await client.get("/v1/nothing"), 404, "NOT_FOUND")
    refused(await client.post("/v2/completions", json={}), 404, "NOT_FOUND")
    reply = await client.get(CHAT)
    refused(reply, 405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == "POST"
    assert (await client.post("/v2/chat/completions", json=ASK)).status_code == 200


async def test_the_request_id_is_the_clients_own_if_it_is_one(rig: Rig) -> None:
    client = rig.http()
    given = await client.get("/v1/models", headers={"x-request-id": "abc-123"})
    assert given.headers["x-request-id"] == "abc-123"
    for bad in ("", "a b", "x" * 129):
        made = await client.get("/v1/models", headers={"x-request-id": bad})
        assert made.headers["x-request-id"].startswith("req-")


async def test_one_log_line_and_the_counters_for_each_request(rig: Rig) -> None:
    await rig.double()
    rig.publish()
    with structlog.testing.capture_logs() as lines:
        await rig.http().post(CHAT, json=ASK, headers={"x-request-id": "abc"})
        await rig.http().post(CHAT, json={**ASK, "model": "Raft"})
    fine, missing = lines
    assert (fine["request_id"], fine["deployment"], fine["status"]) == ("abc", "Ship 1", 200)
    assert (fine["prompt_tokens"], fine["completion_tokens"], fine["failovers"]) == (1, 8, 0)
    assert fine["ms"] > 0
    assert (missing["status"], missing["reason"], missing["deployment"]) == (404, "MODEL_NOT_SERVED", "")
    assert rig.metric("dockyard_requests_total", deployment="Ship 1", status="200") == 1
    assert rig.metric("dockyard_requests_total", deployment="", status="404") == 1
    assert rig.metric("dockyard_completion_tokens_total", deployment="Ship 1") == 8
    assert rig.metric("dockyard_first_token_seconds_count", deployment="Ship 1") == 1
    assert rig.metric("dockyard_requests_in_flight", deployment="Ship 1") == 0


async def test_a_fault_of_ours_is_a_500_that_tells_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.publish()

    def broken(*_: object) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr("dockyard.gateway.app.served_model", broken)
    with structlog.testing.capture_logs():
        error = refused(await rig.http().get("/v1/models"), 500, "INTERNAL")
    assert "secret" not in error["message"]
