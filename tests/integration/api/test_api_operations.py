"""Health, metrics, the document and the page; and the fork to the gateway."""

from html.parser import HTMLParser
from pathlib import Path

from tests.integration.api_rig import BASE, ApiRig, open_rig, problems, published_body

from dockyard.api.app import endpoints


async def test_health(rig: ApiRig) -> None:
    del rig.client.headers["x-api-key"]
    for path in ("/healthz", "/readyz"):
        reply = await rig.client.get(path)
        assert (reply.status_code, reply.json()) == (200, {"status": "ok"})
    rig.ready = False
    assert (await rig.client.get("/healthz")).status_code == 200
    reply = await rig.client.get("/readyz")
    assert (reply.status_code, problems(reply)) == (503, [(None, "NOT_READY")])
    assert reply.headers["retry-after"] == "1"


async def test_metrics(rig: ApiRig) -> None:
    reply = await rig.client.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    assert "dockyard_test_total 1.0" in reply.text


async def test_the_document_describes_every_route_and_no_422(rig: ApiRig) -> None:
    document = (await rig.client.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    ours = {(method, path) for path, route in endpoints() for method in route.methods or ()}
    assert ours <= described
    assert {path for _, path in described - ours} == {path for path in document["paths"] if path.startswith("/v")}
    operations = [operation for methods in document["paths"].values() for operation in methods.values()]
    assert not any("422" in operation["responses"] for operation in operations)
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    deploy = document["paths"][f"{BASE}/models/{{modelId}}/deploy"]["post"]
    assert set(deploy["responses"]) == {"200", "400", "401", "403", "404", "409", "413", "415", "500", "503"}
    assert deploy["description"].endswith("Scope: *Deploy Model*.")
    examples = deploy["requestBody"]["content"]["application/json"]["examples"]
    assert examples["openSource"]["value"] == published_body()
    assert examples["fineTune"]["value"] == {**published_body(), "name": "gpt2"}


class Page(HTMLParser):
    """What a page asks of the network, and the links within it."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        known = dict(attrs)
        self.ids.add(known.get("id") or "")
        assert "src" not in known
        if href := known.get("href"):
            self.links.add(href.removeprefix("#"))


async def test_the_page_needs_no_script_and_no_network(rig: ApiRig) -> None:
    reply = await rig.client.get("/docs")
    page = Page()
    page.feed(reply.text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert page.links <= page.ids
    assert "Flant5_model" in reply.text
    for path, _ in endpoints():
        assert path in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]


async def test_the_gateway_s_routes_are_not_here(tmp_path: Path) -> None:
    async with open_rig(tmp_path) as rig:
        for path in ("/v1x", "/v1/chat/completions", "/v3/chat/completions", f"{BASE}/v1/models"):
            assert problems(await rig.client.get(path)) == [(None, "NOT_FOUND")]
