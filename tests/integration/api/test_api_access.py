"""Keys and scopes: each route asks for what it declares, keys come and go, nobody hands out more than he has."""

import re

import pytest
from tests.integration.api_rig import BASE, ApiRig, message, problems, published_body

from dockyard.api.app import endpoints
from dockyard.domain.access import Scope, new_key
from dockyard.services.keys import ensure_admin_key

# The link of a download is signed, which stands in for the key.
PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", f"{BASE}/downloads/{{dockStatusId}}"}
ROUTES = [(method, path, route) for path, route in endpoints() for method in sorted(route.methods or ())]


async def test_every_route_asks_for_a_key_and_for_its_scope(rig: ApiRig) -> None:
    _, version = await rig.deployed(await rig.ready_model())
    inference = await rig.inference_key(version.deployment_id)
    lacking = {scope: await rig.key_with(set(Scope) - {scope}) for scope in Scope}
    nothing = await rig.key_with([])
    assert {path for _, path, route in ROUTES if route.access is None} == PUBLIC
    for method, path, route in ROUTES:
        url = re.sub(r"\{\w+\}", "id-0", path)
        if route.access is None:
            continue

        async def status(key: str, method: str = method, url: str = url) -> tuple[int, list[tuple[str | None, str]]]:
            # Not even JSON: who may not call is told so before anything else.
            reply = await rig.client.request(method, url, content=b"{", headers={"x-api-key": key})
            return reply.status_code, problems(reply) if reply.is_error else []

        assert await status("") == (401, [(None, "NO_KEY")]), path
        assert await status(new_key()) == (401, [(None, "UNKNOWN_KEY")]), path
        assert await status("kg-x") == (401, [(None, "UNKNOWN_KEY")]), path
        assert await status(inference) == (403, [(None, "MISSING_SCOPE")]), path
        if route.access.scope is None:
            assert (await status(nothing))[0] == 404, path
        else:
            assert await status(lacking[route.access.scope]) == (403, [(None, "MISSING_SCOPE")]), path
            assert (await status(await rig.key_with([route.access.scope])))[0] in (200, 404, 415), path


@pytest.mark.parametrize("header", ["x-api-key", "X-API-KEY", "X-Api-Key"])
async def test_the_header_in_any_case(rig: ApiRig, header: str) -> None:
    reply = await rig.client.get(f"{BASE}/devices", headers={header: rig.key})
    assert reply.status_code == 200


async def test_a_missing_scope_is_named(rig: ApiRig) -> None:
    key = await rig.key_with([Scope.VIEW])
    reply = await rig.client.post(f"{BASE}/models/cm-0/deploy", headers={"x-api-key": key}, json=published_body())
    assert message(reply) == "the key's app lacks the scope 'Deploy Model'"
    assert "www-authenticate" not in reply.headers
    assert "www-authenticate" in (await rig.client.get(f"{BASE}/models", headers={"x-api-key": ""})).headers


async def test_an_app_and_its_keys_from_first_to_last(rig: ApiRig) -> None:
    reply = await rig.client.post(f"{BASE}/apps", json={"name": "CI", "scopes": ["View", "Deploy Model", "View"]})
    assert reply.status_code == 201
    app = reply.json()
    assert app.keys() == {"appId", "name", "scopes", "createdOn"}
    assert (app["name"], app["scopes"]) == ("CI", ["View", "Deploy Model"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", app["createdOn"])

    keys = f"{BASE}/apps/{app['appId']}/keys"
    reply = await rig.client.post(keys, json={"name": "runner"})
    assert reply.status_code == 201
    made = reply.json()
    assert made.keys() == {"keyId", "name", "key", "createdOn"}
    mine = {"x-api-key": made["key"]}
    assert (await rig.client.get(f"{BASE}/devices", headers=mine)).status_code == 200
    await rig.ctx.keyring.flush_used()
    [listed] = (await rig.client.get(keys)).json()["keys"]
    assert listed.keys() == {"keyId", "name", "lastFour", "createdOn", "lastUsedOn"}
    assert listed["lastFour"] == made["key"][-4:]
    assert listed["lastUsedOn"] is not None
    assert made["key"] not in (await rig.client.get(keys)).text

    reply = await rig.client.patch(f"{BASE}/apps/{app['appId']}", json={"scopes": ["Deploy Model"]})
    assert (reply.json()["name"], reply.json()["scopes"]) == ("CI", ["Deploy Model"])
    assert (await rig.client.get(f"{BASE}/devices", headers=mine)).status_code == 403

    reply = await rig.client.delete(f"{keys}/{made['keyId']}")
    assert reply.json() == {"keyId": made["keyId"], "revoked": True}
    assert (await rig.client.get(f"{BASE}/devices", headers=mine)).status_code == 401
    assert (await rig.client.get(keys)).json()["total"] == 0
    assert (await rig.client.delete(f"{keys}/{made['keyId']}")).status_code == 404

    reply = await rig.client.delete(f"{BASE}/apps/{app['appId']}")
    assert reply.json() == {"appId": app["appId"], "deleted": True}
    assert (await rig.client.get(keys)).status_code == 404


async def test_nobody_hands_out_a_scope_that_he_lacks(rig: ApiRig) -> None:
    mine = {"x-api-key": await rig.key_with([Scope.MANAGE_KEYS, Scope.VIEW])}
    strong = (await rig.client.post(f"{BASE}/apps", json={"name": "strong", "scopes": ["Infer"]})).json()["appId"]
    refused = [
        await rig.client.post(f"{BASE}/apps", headers=mine, json={"name": "a", "scopes": ["View", "Infer"]}),
        await rig.client.patch(f"{BASE}/apps/{strong}", headers=mine, json={"scopes": ["Infer", "View"]}),
        await rig.client.post(f"{BASE}/apps/{strong}/keys", headers=mine, json={"name": "a"}),
    ]
    for reply in refused:
        assert (reply.status_code, problems(reply)) == (403, [(None, "MISSING_SCOPE")])
        assert "'Infer'" in message(reply)
    reply = await rig.client.post(f"{BASE}/apps", headers=mine, json={"name": "a", "scopes": ["View"]})
    assert reply.status_code == 201


async def test_the_last_way_in_stays_open(rig: ApiRig) -> None:
    [app] = (await rig.client.get(f"{BASE}/apps")).json()["apps"]
    reply = await rig.client.delete(f"{BASE}/apps/{app['appId']}")
    assert (reply.status_code, problems(reply)) == (409, [(None, "MISSING_SCOPE")])
    assert (await rig.client.get(f"{BASE}/apps")).status_code == 200


async def test_a_key_that_manages_keys_cannot_take_the_last_scope_away(rig: ApiRig) -> None:
    """What no key can hand out any more, nobody could ever have again."""
    [app] = (await rig.client.get(f"{BASE}/apps")).json()["apps"]
    [key] = await _keys_of(rig, app["appId"])
    mine = {"x-api-key": await rig.key_with([Scope.MANAGE_KEYS, Scope.VIEW])}
    url = f"{BASE}/apps/{app['appId']}"
    refused = [
        await rig.client.delete(url, headers=mine),
        await rig.client.delete(f"{url}/keys/{key}", headers=mine),
        await rig.client.patch(url, headers=mine, json={"scopes": ["Manage Keys", "View"]}),
        await rig.client.patch(url, headers=mine, json={"scopes": ["View"]}),
    ]
    for reply in refused:
        assert (reply.status_code, problems(reply)) == (409, [(None, "MISSING_SCOPE")])
        assert "'Deploy Model'" in message(reply)
        assert "'View'" not in message(reply)
    assert await _keys_of(rig, app["appId"]) == [key]
    await rig.key_with(Scope)
    assert (await rig.client.delete(url, headers=mine)).status_code == 200


async def test_a_management_key_that_was_revoked_is_not_brought_back(rig: ApiRig) -> None:
    secret = new_key()
    assert await ensure_admin_key(rig.ctx, secret)
    assert await ensure_admin_key(rig.ctx, secret)
    [app] = [app for app in (await rig.client.get(f"{BASE}/apps")).json()["apps"] if app["name"] == "admin"]
    [key] = await _keys_of(rig, app["appId"])
    assert (await rig.client.delete(f"{BASE}/apps/{app['appId']}/keys/{key}")).status_code == 200
    assert not await ensure_admin_key(rig.ctx, secret)
    assert rig.ctx.keyring.find(secret) is None


async def _keys_of(rig: ApiRig, app_id: str) -> list[str]:
    return [key["keyId"] for key in (await rig.client.get(f"{BASE}/apps/{app_id}/keys")).json()["keys"]]


async def test_inference_keys_of_a_deployment(rig: ApiRig) -> None:
    _, version = await rig.deployed(await rig.ready_model())
    keys = f"{BASE}/deployments/{version.deployment_id}/keys"
    reply = await rig.client.post(keys, json={"name": "app", "extra": 1})
    assert reply.status_code == 201
    assert reply.json()["warnings"] == ["unknown field 'extra' was ignored"]
    principal = rig.ctx.keyring.find(reply.json()["key"])
    assert principal is not None
    assert principal.deployment_id == version.deployment_id
    assert (await rig.client.get(keys)).json()["total"] == 1
    assert (await rig.client.delete(f"{keys}/{reply.json()['keyId']}")).status_code == 200
    assert rig.ctx.keyring.find(reply.json()["key"]) is None
    assert (await rig.client.post(f"{BASE}/deployments/dp-0/keys", json={"name": "app"})).status_code == 404


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"scopes": []}, ("name", "MISSING_FIELD")),
        ({"name": "a"}, ("scopes", "MISSING_FIELD")),
        ({"name": " a", "scopes": []}, ("name", "BAD_FORMAT")),
        ({"name": "a\nb", "scopes": []}, ("name", "BAD_FORMAT")),
        ({"name": "", "scopes": []}, ("name", "OUT_OF_RANGE")),
        ({"name": "a", "scopes": "View"}, ("scopes", "WRONG_TYPE")),
        ({"name": "a", "scopes": ["view"]}, ("scopes[0]", "NOT_IN_ENUM")),
        ({"name": "a", "scopes": ["View"] * 17}, ("scopes", "OUT_OF_RANGE")),
    ],
)
async def test_bad_apps(rig: ApiRig, body: dict[str, object], problem: tuple[str, str]) -> None:
    reply = await rig.client.post(f"{BASE}/apps", json=body)
    assert (reply.status_code, problems(reply)) == (400, [problem])
