"""One shape for every error, wherever it arises; a request id on every reply."""

import json
from collections.abc import AsyncIterator

import pytest
import structlog
from starlette.types import Message
from tests.integration.api_rig import BASE, ApiRig, message, problems, published_body
from tests.unit.api.deploy_fields import CASES, body_with

from dockyard.api.body import LARGEST_BODY

JSON = {"content-type": "application/json"}
DEPLOY = f"{BASE}/models/cm-0/deploy?modelType=openSource"


async def test_every_field_of_a_deploy_over_http(rig: ApiRig) -> None:
    """The table of the unit tests again, through the whole app: no model has the id, so what is taken ends in 404."""
    for case in CASES:
        reply = await rig.client.post(DEPLOY, content=body_with(case).encode(), headers=JSON)
        found = (reply.status_code, problems(reply))
        if case.reason is None:
            assert found == (404, [(None, "NOT_FOUND")]), case
        else:
            assert found == (400, [(case.at or case.field, case.reason)]), case
        assert len(reply.content) < 1000


async def test_problems_of_query_and_body_are_told_together(rig: ApiRig) -> None:
    reply = await rig.client.post(
        f"{BASE}/models/cm-0/deploy?modelType=open&dryRun=1", json={**published_body(), "name": 1}
    )
    assert reply.status_code == 400
    assert problems(reply) == [("modelType", "NOT_IN_ENUM"), ("dryRun", "WRONG_TYPE"), ("name", "WRONG_TYPE")]
    reply = await rig.client.post(f"{BASE}/models/cm-0/deploy", json=published_body())
    assert problems(reply) == [("modelType", "MISSING_FIELD")]
    assert message(reply) == "modelType is required"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b"{", "the body is no JSON: expecting property name enclosed in double quotes at line 1 column 2"),
        (b'{"a": 1,}', "the body is no JSON"),
        (b"\xff{}", "the body is not UTF-8: byte 0 begins no character"),
        ('{"name": "ä"}'.encode("latin-1"), "the body is not UTF-8: byte 10 begins no character"),
        ("{}".encode("utf-16"), "the body is not UTF-8"),
        (b"[" * 100_000, "the body nests too deeply"),
        (b'{"a":' * 100_000, "the body nests too deeply"),
        (b"{'a': 1}", "the body is no JSON"),
    ],
)
async def test_unreadable_bodies(rig: ApiRig, content: bytes, sentence: str) -> None:
    reply = await rig.client.post(DEPLOY, content=content, headers=JSON)
    assert (reply.status_code, problems(reply)) == (400, [(None, "UNREADABLE_JSON")])
    assert message(reply).startswith(sentence)


async def test_a_deep_unknown_field_is_only_a_warning(rig: ApiRig) -> None:
    deep = "[" * 300 + "]" * 300
    reply = await rig.client.post(f"{BASE}/apps", content=f'{{"name": "a", "scopes": [], "x": {deep}}}', headers=JSON)
    assert reply.status_code == 201
    assert reply.json()["warnings"] == ["unknown field 'x' was ignored"]


async def test_a_byte_order_mark_is_skipped(rig: ApiRig) -> None:
    reply = await rig.client.post(f"{BASE}/apps", content=b'\xef\xbb\xbf{"name": "a", "scopes": []}', headers=JSON)
    assert reply.status_code == 201


async def test_half_a_surrogate_pair_as_a_name_of_a_field(rig: ApiRig) -> None:
    reply = await rig.client.post(f"{BASE}/apps", content=rb'{"name": "a", "scopes": [], "\ud800": 1}', headers=JSON)
    assert (reply.status_code, problems(reply)) == (400, [(None, "BAD_FORMAT")])
    assert message(reply) == "the body holds half of a surrogate pair, which is no character"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "multipart/form-data", ""]
)
async def test_another_content_type(rig: ApiRig, kind: str) -> None:
    reply = await rig.client.post(DEPLOY, content=b"{}", headers={"content-type": kind} if kind else {})
    assert (reply.status_code, problems(reply)) == (415, [(None, "UNSUPPORTED_CONTENT_TYPE")])


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"])
async def test_the_content_types_of_json(rig: ApiRig, kind: str) -> None:
    reply = await rig.client.post(
        f"{BASE}/apps", content=b'{"name": "a", "scopes": []}', headers={"content-type": kind}
    )
    assert reply.status_code == 201


async def test_too_large_a_body_by_its_own_account_and_by_count(rig: ApiRig) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(LARGEST_BODY // 65536 + 1):
            yield b" " * 65536

    for content in (b" " * (LARGEST_BODY + 1), endless()):
        reply = await rig.client.post(DEPLOY, content=content, headers=JSON)
        assert (reply.status_code, problems(reply)) == (413, [(None, "BODY_TOO_LARGE")])
    padded = json.dumps({"name": "a", "scopes": []}).encode().ljust(LARGEST_BODY)
    assert (await rig.client.post(f"{BASE}/apps", content=padded, headers=JSON)).status_code == 201


@pytest.mark.parametrize(
    "path", ["/", "/nope", BASE, f"{BASE}/", f"{BASE}/nope", f"{BASE}/models/", "/v1/models", "/v3", "//"]
)
async def test_unknown_routes(rig: ApiRig, path: str) -> None:
    reply = await rig.client.get(path)
    assert (reply.status_code, problems(reply)) == (404, [(None, "NOT_FOUND")])


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/models", "GET, POST"),
        ("POST", "/models/cm-1", "DELETE, GET"),
        ("GET", "/models/cm-1/deploy", "POST"),
        ("OPTIONS", "/devices", "GET"),
        ("PUT", "/deployments/dp-1", "GET, PATCH"),
        ("BREW", "/apps", "GET, POST"),
    ],
)
async def test_a_method_that_a_route_does_not_know(rig: ApiRig, method: str, path: str, allow: str) -> None:
    reply = await rig.client.request(method, BASE + path)
    assert (reply.status_code, problems(reply)) == (405, [(None, "METHOD_NOT_ALLOWED")])
    assert reply.headers["allow"] == allow


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limit=0", ("limit", "OUT_OF_RANGE")),
        ("limit=201", ("limit", "OUT_OF_RANGE")),
        ("limit=", ("limit", "WRONG_TYPE")),
        ("limit=1.5", ("limit", "WRONG_TYPE")),
        ("limit=ten", ("limit", "WRONG_TYPE")),
        ("limit=%D9%A1", ("limit", "WRONG_TYPE")),
        ("limit=" + "9" * 5000, ("limit", "WRONG_TYPE")),
        ("cursor=x", ("cursor", "BAD_FORMAT")),
        ("cursor=", ("cursor", "BAD_FORMAT")),
        ("state=Ready", ("state", "NOT_IN_ENUM")),
    ],
)
async def test_bad_queries(rig: ApiRig, query: str, problem: tuple[str, str]) -> None:
    reply = await rig.client.get(f"{BASE}/models?{query}")
    assert (reply.status_code, problems(reply)) == (400, [problem])


async def test_a_fault_of_the_servers_own_tells_the_request_id_and_nothing_else(
    rig: ApiRig, capsys: pytest.CaptureFixture[str]
) -> None:
    rig.preparer.failure = RuntimeError("the secret of /etc/shadow")
    with structlog.testing.capture_logs() as logged:
        reply = await rig.deploy(await rig.ready_model())
    assert (reply.status_code, problems(reply)) == (500, [(None, "INTERNAL")])
    assert reply.headers["x-request-id"] in message(reply)
    assert "secret" not in reply.text
    assert [line["event"] for line in logged] == ["request_crashed", "request"]
    assert logged[0]["exc_info"]


async def test_a_client_that_goes_away_in_the_middle_of_its_body_is_no_fault(rig: ApiRig) -> None:
    said: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return said.pop(0)

    async def send(message: Message) -> None:
        return None

    headers = [(b"x-api-key", rig.key.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": f"{BASE}/apps", "query_string": b"", "headers": headers}
    with structlog.testing.capture_logs() as logged:
        await rig.app(scope, receive, send)
    assert [(line["event"], line["status"]) for line in logged] == [("request", 499)]


async def test_a_database_that_is_away_is_503_with_retry_after(rig: ApiRig) -> None:
    await rig.ctx.store.close()
    reply = await rig.client.get(f"{BASE}/models")
    assert (reply.status_code, problems(reply)) == (503, [(None, "DATABASE_UNAVAILABLE")])
    assert int(reply.headers["retry-after"]) >= 1


async def test_a_very_long_id_is_not_told_in_full(rig: ApiRig) -> None:
    reply = await rig.client.get(f"{BASE}/models/{'x' * 20_000}")
    assert reply.status_code == 404
    assert len(reply.content) < 2000


async def test_the_request_id(rig: ApiRig) -> None:
    for path in (f"{BASE}/models", "/nope", "/healthz", f"{BASE}/models?limit=0"):
        named = await rig.client.get(path, headers={"X-Request-Id": "my~id!"})
        assert named.headers["x-request-id"] == "my~id!"
        made = {(await rig.client.get(path)).headers["x-request-id"] for _ in range(2)}
        assert len(made) == 2
    for unusable in (b"", b"a b", b"x" * 129, "ä".encode()):
        reply = await rig.client.get("/healthz", headers=[(b"x-request-id", unusable)])
        assert reply.headers["x-request-id"].startswith("req-")


async def test_one_line_in_the_log_per_request(rig: ApiRig) -> None:
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logged:
        await rig.client.get(f"{BASE}/models/cm-0", headers={"x-request-id": "mine"})
    [line] = logged
    assert (line["event"], line["method"], line["path"]) == ("request", "GET", f"{BASE}/models/cm-0")
    assert (line["status"], line["request_id"]) == (404, "mine")
    assert line["key_id"].startswith("ak-")
