"""Export over HTTP: the published reply, and the signed link with its ranges, its expiry and its refusals."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx
import pytest
from tests.integration.api_rig import BASE, ApiRig, message, problems

from dockyard.domain.access import Scope
from dockyard.domain.job import Job
from dockyard.domain.lifecycle import JobStatus, ModelState
from dockyard.errors import Reason
from dockyard.loops.exports import Exports
from dockyard.protocols.preparation import Outcome

CONTENT = bytes(range(256)) * 400
SHA256 = "ab" * 32


async def packed(rig: ApiRig, name: str = "Flan T5 (ä)", until: datetime | None = None) -> tuple[str, str]:
    """(job id, path and query of its link) of an export that is done."""
    reply = await rig.client.post(f"{BASE}/models/{(await rig.ready_model(name=name)).model_id}/export")
    job_id = reply.json()["dockStatusId"]
    rig.ctx.downloads.folder.mkdir(exist_ok=True)
    rig.ctx.downloads.path(job_id).write_bytes(CONTENT)
    outcome = Outcome(key="weights", size_bytes=len(CONTENT), sha256=SHA256)
    await Exports(rig.ctx, "", "").finish(job_id, outcome)
    response = (await rig.client.get(f"{BASE}/dock-status/{job_id}")).json()["response"]
    url = urlsplit(rig.ctx.downloads.link(job_id, until) if until else response["downloadUrl"])
    return job_id, f"{url.path}?{url.query}"


async def fetch(rig: ApiRig, link: str, method: str = "GET", **headers: str) -> httpx.Response:
    """Without a key: the link is all that is needed."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(rig.app), base_url="http://dockyard") as client:
        return await client.request(method, link, headers={name.replace("_", "-"): v for name, v in headers.items()})


async def test_the_published_reply(rig: ApiRig) -> None:
    model = await rig.ready_model()
    reply = await rig.client.post(f"{BASE}/models/:{model.model_id}/export?nmae=x")
    assert reply.status_code == 200
    told = reply.json()
    assert told.pop("warnings") == ["unknown parameter 'nmae' was ignored; did you mean 'name'?"]
    job_id = told["_id"]
    assert told == {
        "_id": job_id,
        "dockStatusId": job_id,
        "dock-statusId": job_id,
        "modelId": model.model_id,
        "jobType": "MODELS",
        "action": "EXPORT",
        "status": "IN_PROGRESS",
        "percentageComplete": 0,
        "response": None,
    }
    assert "warnings" not in (await rig.client.post(f"{BASE}/models/{model.model_id}/export")).json()
    assert rig.wakes


async def test_refusals(rig: ApiRig) -> None:
    reply = await rig.client.post(f"{BASE}/models/cm-0/export")
    assert (reply.status_code, problems(reply)) == (404, [(None, "NOT_FOUND")])
    importing = await rig.ready_model(state=ModelState.IMPORTING, card=None)
    reply = await rig.client.post(f"{BASE}/models/{importing.model_id}/export")
    assert (reply.status_code, problems(reply)) == (409, [(None, "MODEL_NOT_READY")])
    model = await rig.ready_model()
    reply = await rig.client.post(f"{BASE}/models/{model.model_id}/export?name=nope")
    assert (reply.status_code, problems(reply)) == (404, [("name", "NOT_FOUND")])


async def test_the_link_opens_the_archive_without_a_key(rig: ApiRig) -> None:
    job_id, link = await packed(rig)
    status = (await rig.client.get(f"{BASE}/dock-status/{job_id}")).json()
    assert status["percentageComplete"] == 100
    assert status["response"] == {
        "downloadUrl": f"http://dockyard{link}",
        "expiresOn": status["response"]["expiresOn"],
        "sizeBytes": len(CONTENT),
        "sha256": SHA256,
    }
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", status["response"]["expiresOn"])
    assert re.fullmatch(rf"{BASE}/downloads/{job_id}\?expires=\d+&signature=[0-9a-f]{{64}}", link)

    reply = await fetch(rig, link)
    assert (reply.status_code, reply.content) == (200, CONTENT)
    assert reply.headers["content-type"] == "application/x-tar"
    assert reply.headers["content-length"] == str(len(CONTENT))
    assert reply.headers["content-disposition"] == 'attachment; filename="Flan-T5.tar"'
    assert reply.headers["etag"] == f'"{SHA256}"'
    assert reply.headers["accept-ranges"] == "bytes"

    head = await fetch(rig, link, "HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(CONTENT))
    assert problems(await fetch(rig, link, "POST")) == [(None, "METHOD_NOT_ALLOWED")]


@pytest.mark.parametrize(
    ("asked", "part", "told"),
    [
        ("bytes=0-9", CONTENT[:10], "0-9"),
        ("bytes=100-", CONTENT[100:], "100-102399"),
        ("bytes=-5", CONTENT[-5:], "102395-102399"),
        ("bytes=5-999999999", CONTENT[5:], "5-102399"),
        ("bytes=102399-", CONTENT[-1:], "102399-102399"),
    ],
)
async def test_ranges(rig: ApiRig, asked: str, part: bytes, told: str) -> None:
    _, link = await packed(rig)
    reply = await fetch(rig, link, range=asked)
    assert (reply.status_code, reply.content) == (206, part)
    assert reply.headers["content-range"] == f"bytes {told}/{len(CONTENT)}"
    assert reply.headers["content-length"] == str(len(part))
    assert (await fetch(rig, link, "HEAD", range=asked)).status_code == 206


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=-", "bytes=x-", "lines=0-5", "bytes", "bytes=0-1,5-6", "bytes=" + "9" * 99 + "-", ""]
)
async def test_ranges_that_mean_nothing_are_ignored(rig: ApiRig, asked: str) -> None:
    _, link = await packed(rig)
    reply = await fetch(rig, link, range=asked)
    assert (reply.status_code, reply.content) == (200, CONTENT)


@pytest.mark.parametrize("asked", ["bytes=102400-", "bytes=-0", "bytes=999999-9999999"])
async def test_ranges_past_the_end(rig: ApiRig, asked: str) -> None:
    _, link = await packed(rig)
    reply = await fetch(rig, link, range=asked)
    assert (reply.status_code, problems(reply)) == (416, [(None, "RANGE_NOT_SATISFIABLE")])
    assert reply.headers["content-range"] == f"bytes */{len(CONTENT)}"


async def test_a_range_of_an_archive_that_is_another_one_by_now(rig: ApiRig) -> None:
    _, link = await packed(rig)
    same = await fetch(rig, link, range="bytes=100-", if_range=f'"{SHA256}"')
    assert (same.status_code, same.content) == (206, CONTENT[100:])
    for asked in ("bytes=100-", "bytes=999999-"):
        other = await fetch(rig, link, range=asked, if_range='"another"')
        assert (other.status_code, other.content) == (200, CONTENT)


async def test_an_expired_link(rig: ApiRig) -> None:
    _, link = await packed(rig, until=datetime.now(UTC) - timedelta(seconds=1))
    reply = await fetch(rig, link)
    assert (reply.status_code, problems(reply)) == (403, [("expires", "LINK_EXPIRED")])
    assert message(reply) == "the link has expired; export the model again"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (r"signature=.", "signature=x"),
        (r"signature=.*", "signature="),
        (r"signature=.*", "signature=%C3%A4"),
        (r"signature=(.*)", r"signature=\1a"),
        (r"expires=(\d*)", r"expires=1\1"),
        (r"expires=\d*", r"expires=0"),
        (r"downloads/ds-", "downloads/dx-"),
    ],
)
async def test_a_link_that_was_changed(rig: ApiRig, old: str, new: str) -> None:
    _, link = await packed(rig)
    reply = await fetch(rig, re.sub(old, new, link))
    assert (reply.status_code, problems(reply)) == (403, [("signature", "BAD_SIGNATURE")])


async def test_a_link_without_its_parts(rig: ApiRig) -> None:
    job_id, _ = await packed(rig)
    reply = await fetch(rig, f"{BASE}/downloads/{job_id}")
    assert (reply.status_code, problems(reply)) == (
        400,
        [("expires", "MISSING_FIELD"), ("signature", "MISSING_FIELD")],
    )


async def test_an_archive_that_is_gone(rig: ApiRig) -> None:
    job_id, link = await packed(rig)
    rig.ctx.downloads.remove(job_id)
    for method in ("GET", "HEAD"):
        assert (await fetch(rig, link, method)).status_code == 404
    unknown = urlsplit(rig.ctx.downloads.link("ds-0", datetime.now(UTC) + timedelta(hours=1)))
    reply = await fetch(rig, f"{unknown.path}?{unknown.query}")
    assert (reply.status_code, problems(reply)) == (404, [(None, "NOT_FOUND")])


async def test_an_export_that_failed_has_no_archive(rig: ApiRig) -> None:
    job_id, link = await packed(rig)
    async with rig.ctx.store.transaction() as tx:
        job: Job = await tx.jobs.get(job_id)
        await tx.jobs.save(replace(job, status=JobStatus.FAILED, reason=Reason.CANCELLED))
    assert (await fetch(rig, link)).status_code == 404


async def test_who_may_not_export_does_not_see_the_link(rig: ApiRig) -> None:
    job_id, _ = await packed(rig)
    for scopes, seen in ((set(Scope) - {Scope.EXPORT}, False), ({Scope.VIEW, Scope.EXPORT}, True)):
        mine = {"x-api-key": await rig.key_with(scopes)}
        one = (await rig.client.get(f"{BASE}/dock-status/{job_id}", headers=mine)).json()
        [listed] = (await rig.client.get(f"{BASE}/dock-status", headers=mine)).json()["dockStatuses"]
        for status in (one, listed):
            assert (status["response"]["downloadUrl"] is not None) is seen
            assert status["response"]["sha256"] == SHA256


async def test_no_link_is_logged(rig: ApiRig, capsys: pytest.CaptureFixture[str]) -> None:
    _, link = await packed(rig)
    await fetch(rig, link)
    captured = capsys.readouterr()
    assert "signature" not in captured.out + captured.err
