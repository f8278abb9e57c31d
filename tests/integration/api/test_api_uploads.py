"""Uploads over the API: the three published calls, what they refuse, and what lies on the disk meanwhile."""

import asyncio
import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect
from tests.integration.api_rig import BASE, ApiRig, message, open_rig, problems

from dockyard.domain.access import Scope
from dockyard.domain.job import fail
from dockyard.domain.spec import ModelType
from dockyard.errors import Reason
from dockyard.loops.housekeeping import remove_expired_uploads
from dockyard.services.context import Policy
from dockyard.services.upload_files import IncomingChunk

SESSIONS = f"{BASE}/files/session"
WISH: dict[str, Any] = {
    "fileContext": "model",
    "totalChunks": 2,
    "fileExtension": "tar",
    "fileName": "gpt2.tar",
    "fileSize": 6,
}


async def start(rig: ApiRig, **changes: Any) -> str:
    reply = await rig.client.post(f"{SESSIONS}/start", json={**WISH, **changes})
    assert reply.status_code == 200, reply.text
    return reply.json()["sessionId"]


async def send(rig: ApiRig, session_id: str, number: object, content: bytes, **fields: str) -> httpx.Response:
    form = {"chunkNumber": str(number), **fields}
    return await rig.client.post(f"{SESSIONS}/{session_id}", files={"file": ("blob", content)}, data=form)


async def complete(rig: ApiRig, session_id: str, **options: Any) -> httpx.Response:
    return await rig.client.post(f"{SESSIONS}/{session_id}/complete", **options)


def files(rig: ApiRig) -> list[str]:
    """All that lies below the uploads folder, `session/chunk`, without the session's id."""
    root = rig.ctx.uploads.root
    return sorted(path.name for path in root.glob("*/*"))


async def test_the_three_calls_reply_as_published(rig: ApiRig) -> None:
    started = (await rig.client.post(f"{SESSIONS}/start", json=WISH)).json()
    assert started.keys() == {"sessionId", "expirationDate", "modelId"}
    session_id = started["sessionId"]
    for number, content in ((1, b"def"), (0, b"abc")):
        reply = await send(rig, session_id, number, content)
        assert reply.json() == {"chunkNumber": str(number), "sessionId": session_id}
    assert (await rig.client.get(f"{BASE}/models/{started['modelId']}")).status_code == 404  # not before it is whole
    accepted = (await complete(rig, session_id)).json()
    assert accepted == {
        "dock-statusId": accepted["dockStatusId"],
        "dockStatusId": accepted["dockStatusId"],
        "modelId": started["modelId"],
        "jobType": "MODELS",
        "action": "IMPORT",
        "status": "IN_PROGRESS",
    }
    model = (await rig.client.get(f"{BASE}/models/{started['modelId']}")).json()
    assert (model["name"], model["modelType"], model["state"]) == ("gpt2", "openSource", "Importing")
    assert model["source"]["fileName"] == "gpt2.tar"
    assert (await rig.client.get(f"{BASE}/dock-status/{accepted['dockStatusId']}")).json()["status"] == "IN_PROGRESS"


async def test_completing_again_tells_the_same_job(rig: ApiRig) -> None:
    session_id = await start(rig, totalChunks=1)
    await send(rig, session_id, 0, b"abcdef")
    first, again = await asyncio.gather(complete(rig, session_id), complete(rig, session_id))
    assert first.json()["dockStatusId"] == again.json()["dockStatusId"]
    late = await send(rig, session_id, 0, b"abcdef")
    assert (late.status_code, problems(late)) == (409, [(None, "UPLOAD_COMPLETED")])
    assert (await rig.client.delete(f"{SESSIONS}/{session_id}")).status_code == 409


async def test_a_chunk_that_comes_again_replaces_the_first(rig: ApiRig) -> None:
    session_id = await start(rig)
    await send(rig, session_id, 0, b"xyz")
    replies = await asyncio.gather(*(send(rig, session_id, 0, content) for content in (b"abc", b"abc", b"abcd")))
    assert [reply.status_code for reply in replies] == [200, 200, 200]
    [stored] = list(rig.ctx.uploads.folder(session_id).iterdir())
    told = (await rig.client.get(f"{SESSIONS}/{session_id}")).json()
    assert told["receivedChunks"] == [0]
    assert told["receivedBytes"] == len(stored.read_bytes())
    assert stored.read_bytes() != b"xyz"


async def test_an_upload_tells_how_far_it_is(rig: ApiRig) -> None:
    session_id = await start(rig, totalChunks=3)
    await send(rig, session_id, 2, b"f")
    told = (await rig.client.get(f"{SESSIONS}/{session_id}")).json()
    assert (told["receivedChunks"], told["receivedBytes"], told["totalChunks"]) == ([2], 1, 3)
    assert told["dockStatusId"] is None
    (rig.ctx.uploads.folder(session_id) / "2").unlink()  # as a power cut may leave it
    assert (await rig.client.get(f"{SESSIONS}/{session_id}")).json()["receivedChunks"] == []


async def test_more_uploads_than_a_server_keeps_are_refused(rig: ApiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dockyard.domain.upload.MOST_OPEN", 2)
    first, _ = [await start(rig, totalChunks=1) for _ in range(2)]
    reply = await rig.client.post(f"{SESSIONS}/start", json=WISH)
    assert (reply.status_code, problems(reply)) == (429, [(None, "TOO_MANY_UPLOADS")])
    assert "DELETE /api/public/files/session/{sessionId}" in message(reply)
    assert 0 < int(reply.headers["retry-after"]) <= 86_400
    await send(rig, first, 0, b"abcdef")
    await complete(rig, first)  # it is open no more
    again = await start(rig)
    assert (await rig.client.delete(f"{SESSIONS}/{again}")).status_code == 200
    await start(rig)


@pytest.mark.parametrize(("said", "kept"), [({}, None), ({"isAdapter": True}, "true"), ({"isAdapter": False}, "false")])
async def test_what_the_client_says_of_an_adapter_travels_to_the_import(
    rig: ApiRig, said: dict[str, bool], kept: str | None
) -> None:
    session_id = await start(rig, totalChunks=1, **said)
    await send(rig, session_id, 0, b"abcdef")
    accepted = (await complete(rig, session_id)).json()
    async with rig.ctx.store.reading() as tx:
        model = await tx.models.get(accepted["modelId"])
    assert model.source.get("isAdapter") == kept


async def test_missing_chunks_are_named(rig: ApiRig) -> None:
    session_id = await start(rig, totalChunks=6)
    for number in (1, 4):
        await send(rig, session_id, number, b"a")
    reply = await complete(rig, session_id)
    assert (reply.status_code, problems(reply)) == (409, [(None, "CHUNKS_MISSING")])
    assert "4 of 6 chunks are missing: 0, 2–3, 5" in message(reply)


async def test_too_few_bytes_are_told_at_the_end_and_too_many_at_once(rig: ApiRig) -> None:
    session_id = await start(rig)
    await send(rig, session_id, 0, b"abc")
    too_many = await send(rig, session_id, 1, b"defg")
    assert (too_many.status_code, problems(too_many)) == (400, [("file", "SIZE_MISMATCH")])
    await send(rig, session_id, 1, b"d")
    reply = await complete(rig, session_id)
    assert (reply.status_code, problems(reply)) == (409, [(None, "SIZE_MISMATCH")])
    assert files(rig) == ["0", "1"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"fileContext": "dataset"}, [("fileContext", "NOT_IN_ENUM")]),
        ({"fileExtension": "tar.gz"}, [("fileExtension", "NOT_IN_ENUM")]),
        ({"totalChunks": 0}, [("totalChunks", "OUT_OF_RANGE")]),
        ({"totalChunks": "2"}, [("totalChunks", "WRONG_TYPE")]),
        ({"totalChunks": 7}, [("totalChunks", "OUT_OF_RANGE")]),
        ({"fileSize": 0}, [("fileSize", "OUT_OF_RANGE")]),
        ({"fileSize": 3 << 30}, [("totalChunks", "OUT_OF_RANGE")]),
        ({"fileName": "../gpt2.tar"}, [("fileName", "BAD_FORMAT")]),
        ({"fileName": "gpt2.zip"}, [("fileExtension", "ARCHIVE_KIND_MISMATCH")]),
        ({"fileName": "gpt2.tar.gz"}, [("fileName", "ARCHIVE_KIND_MISMATCH")]),
        ({"isAdapter": "yes"}, [("isAdapter", "WRONG_TYPE")]),
    ],
)
async def test_a_start_that_cannot_be_is_refused(
    rig: ApiRig, changes: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    reply = await rig.client.post(f"{SESSIONS}/start", json={**WISH, **changes})
    assert (reply.status_code, problems(reply)) == (400, found)


async def test_what_the_start_is_told_reaches_the_model(rig: ApiRig) -> None:
    base = await rig.ready_model()
    wish = {**WISH, "isAdapter": True, "baseModelId": base.model_id, "totalChunks": 1, "name": "My LoRA", "hue": 1}
    started = (await rig.client.post(f"{SESSIONS}/start", json=wish)).json()
    assert started["warnings"] == ["unknown field 'hue' was ignored"]
    await send(rig, started["sessionId"], 0, b"abcdef")
    assert (await complete(rig, started["sessionId"], json={"fileSha256": "a" * 64})).status_code == 200
    async with rig.ctx.store.reading() as tx:
        model = await tx.models.get(started["modelId"])
    assert (model.name, model.model_type, model.base_model_id) == ("My LoRA", ModelType.FINE_TUNE, base.model_id)
    assert (model.source["isAdapter"], model.source["sha256"]) == ("true", "a" * 64)
    unknown = await rig.client.post(f"{SESSIONS}/start", json={**WISH, "baseModelId": "cm-0"})
    assert (unknown.status_code, problems(unknown)) == (404, [("baseModelId", "NOT_FOUND")])


async def test_a_digest_that_differs_is_refused(rig: ApiRig) -> None:
    session_id = await start(rig)
    good = hashlib.sha256(b"abc").hexdigest()
    assert (await send(rig, session_id, 0, b"abc", sha256=good.upper())).status_code == 200
    reply = await send(rig, session_id, 0, b"abd", sha256=good)
    assert (reply.status_code, problems(reply)) == (400, [("sha256", "DIGEST_MISMATCH")])
    reply = await send(rig, session_id, 0, b"abd", sha256="abc")
    assert problems(reply) == [("sha256", "BAD_FORMAT")]
    by_header = await rig.client.post(
        f"{SESSIONS}/{session_id}",
        files={"file": b"abd"},
        data={"chunkNumber": "0"},
        headers={"x-chunk-sha256": good},
    )
    assert problems(by_header) == [("sha256", "DIGEST_MISMATCH")]
    assert files(rig) == ["0"]
    assert (rig.ctx.uploads.folder(session_id) / "0").read_bytes() == b"abc"
    reply = await complete(rig, session_id, json={"fileSha256": "12"})
    assert problems(reply) == [("fileSha256", "OUT_OF_RANGE")]


@pytest.mark.parametrize(
    ("number", "reason"), [("2", "OUT_OF_RANGE"), ("-1", "WRONG_TYPE"), ("one", "WRONG_TYPE"), ("9" * 30, "WRONG_TYPE")]
)
async def test_a_chunk_number_that_cannot_be_is_refused(rig: ApiRig, number: str, reason: str) -> None:
    session_id = await start(rig)
    reply = await send(rig, session_id, number, b"abc")
    assert (reply.status_code, problems(reply)) == (400, [("chunkNumber", reason)])
    assert files(rig) == []


async def test_a_body_that_is_no_such_form_is_refused(rig: ApiRig) -> None:
    session_id = await start(rig)
    path = f"{SESSIONS}/{session_id}"
    form = {"content-type": "multipart/form-data; boundary=cut"}
    part = b'--cut\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nabc\r\n'
    as_json = await rig.client.post(path, json={"file": "abc"})
    assert (as_json.status_code, problems(as_json)) == (415, [(None, "UNSUPPORTED_CONTENT_TYPE")])
    unbounded = await rig.client.post(path, content=b"abc", headers={"content-type": "multipart/form-data"})
    assert problems(unbounded) == [(None, "BAD_FORMAT")]
    for body, found in (
        (b"no form at all", [(None, "BAD_FORMAT")]),
        (part, [(None, "BAD_FORMAT")]),  # cut off
        (part + b"--cut--\r\n", [("chunkNumber", "MISSING_FIELD")]),
        (part + part + b"--cut--\r\n", [("file", "BAD_FORMAT")]),
        (
            b'--cut\r\ncontent-disposition: form-data; name="chunkNumber"\r\n\r\n0\r\n--cut--\r\n',
            [("file", "MISSING_FIELD")],
        ),
        (
            b'--cut\r\ncontent-disposition: form-data; name="note"\r\n\r\n' + b"n" * 2000 + b"\r\n--cut--\r\n",
            [("note", "OUT_OF_RANGE")],
        ),
        (b"--cut\r\ncontent-disposition: x\r\n\r\n\r\n" * 40 + b"--cut--\r\n", [(None, "BAD_FORMAT")]),
    ):
        reply = await rig.client.post(path, content=body, headers=form)
        assert (reply.status_code, problems(reply)) == (400, found), body[:80]
    assert files(rig) == []


async def test_more_than_the_file_has_is_refused_while_it_comes(rig: ApiRig) -> None:
    session_id = await start(rig)
    promised = await send(rig, session_id, 0, b"a" * 200_000)
    assert (promised.status_code, problems(promised)) == (413, [("file", "BODY_TOO_LARGE")])
    streamed = await send(rig, session_id, 0, b"a" * 7)
    assert (streamed.status_code, problems(streamed)) == (413, [("file", "BODY_TOO_LARGE")])
    assert files(rig) == []


async def test_fields_that_nobody_reads_are_told(rig: ApiRig) -> None:
    session_id = await start(rig)
    reply = await send(rig, session_id, 0, b"abc", chunknumber="0")
    assert reply.json()["warnings"] == ["unknown field 'chunknumber' was ignored; did you mean 'chunkNumber'?"]


async def test_who_goes_away_leaves_nothing(rig: ApiRig) -> None:
    session_id = await start(rig, totalChunks=1, fileSize=5_000_000)

    async def broken() -> AsyncIterator[bytes]:
        yield b'--cut\r\ncontent-disposition: form-data; name="file"\r\n\r\n' + b"a" * 2_000_000
        assert [name[:9] for name in files(rig)] == ["incoming-"]
        raise ClientDisconnect

    path, headers = f"{SESSIONS}/{session_id}", {"content-type": "multipart/form-data; boundary=cut"}
    await rig.client.post(path, content=broken(), headers=headers)
    assert files(rig) == []


async def test_a_full_disk_is_told_and_nothing_half_stays(rig: ApiRig, monkeypatch: pytest.MonkeyPatch) -> None:
    session_id = await start(rig)

    def full(self: IncomingChunk) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: full(None))  # pyright: ignore[reportArgumentType]
        reply = await send(rig, session_id, 0, b"abc")
    assert (reply.status_code, problems(reply)) == (503, [(None, "DISK_FULL")])
    assert "retry-after" in reply.headers
    assert "free some space" in message(reply)
    assert files(rig) == []
    too_large = await rig.client.post(f"{SESSIONS}/start", json={**WISH, "fileSize": 1 << 43, "totalChunks": 1 << 14})
    assert (too_large.status_code, problems(too_large)) == (503, [(None, "DISK_FULL")])


async def test_an_expired_upload_leaves_nothing(tmp_path: Path) -> None:
    async with open_rig(tmp_path, policy=Policy(upload_ttl_s=3600)) as rig:
        session_id, kept = await start(rig), await start(rig)
        await send(rig, session_id, 0, b"abc")
        await send(rig, kept, 0, b"abc")
        stray = rig.ctx.uploads.folder("up-stray")
        stray.mkdir()
        async with rig.ctx.store.transaction() as tx:
            session = await tx.uploads.get(session_id)
            await tx.uploads.save(replace(session, expires_at=rig.ctx.clock.now() - timedelta(seconds=1)))
        for reply in (
            await send(rig, session_id, 1, b"def"),
            await complete(rig, session_id),
            await rig.client.get(f"{SESSIONS}/{session_id}"),
        ):
            assert (reply.status_code, problems(reply)) == (404, [(None, "NOT_FOUND")])
        assert "1 hours after its last chunk" in message(reply)
        wait_s = await remove_expired_uploads(rig.ctx)
        assert wait_s is not None
        assert 3500 < wait_s <= 3600
        assert rig.ctx.uploads.stored() == {kept}
        async with rig.ctx.store.reading() as tx:
            assert await tx.uploads.find(session_id) is None
            assert await tx.uploads.chunks(session_id) == []


async def test_an_import_that_still_reads_its_chunks_keeps_them(rig: ApiRig) -> None:
    session_id = await start(rig, totalChunks=1)
    await send(rig, session_id, 0, b"abcdef")
    job_id = (await complete(rig, session_id)).json()["dockStatusId"]
    async with rig.ctx.store.transaction() as tx:
        session = await tx.uploads.get(session_id)
        await tx.uploads.save(replace(session, expires_at=rig.ctx.clock.now()))
    await remove_expired_uploads(rig.ctx)
    assert rig.ctx.uploads.stored() == {session_id}
    async with rig.ctx.store.transaction() as tx:
        job = await tx.jobs.get(job_id)
        await tx.jobs.save(fail(job, Reason.CANCELLED, "cancelled", rig.ctx.clock.now()))
    await remove_expired_uploads(rig.ctx)
    assert rig.ctx.uploads.stored() == set()


async def test_an_upload_can_be_given_up(rig: ApiRig) -> None:
    session_id = await start(rig)
    await send(rig, session_id, 0, b"abc")
    assert (await rig.client.delete(f"{SESSIONS}/{session_id}")).json() == {"sessionId": session_id, "deleted": True}
    assert rig.ctx.uploads.stored() == set()
    assert (await complete(rig, session_id)).status_code == 404


async def test_halves_of_a_killed_server_are_removed(rig: ApiRig) -> None:
    session_id = await start(rig)
    await send(rig, session_id, 0, b"abc")
    with contextlib.closing(IncomingChunk(rig.ctx.uploads.folder(session_id))) as half:
        half.write(memoryview(b"de"))
        rig.ctx.uploads.remove_halves()
        assert files(rig) == ["0"]


async def test_only_the_scope_opens_the_routes(rig: ApiRig) -> None:
    session_id = await start(rig)
    key = await rig.key_with([scope for scope in Scope if scope is not Scope.IMPORT])
    for method, path in (
        ("POST", "/start"),
        ("POST", f"/{session_id}"),
        ("POST", f"/{session_id}/complete"),
        ("GET", f"/{session_id}"),
        ("DELETE", f"/{session_id}"),
    ):
        reply = await rig.client.request(method, f"{SESSIONS}{path}", headers={"x-api-key": key})
        assert (reply.status_code, problems(reply)) == (403, [(None, "MISSING_SCOPE")])


async def test_an_upload_without_a_usable_name_is_called_model(rig: ApiRig) -> None:
    session_id = await start(rig, fileName=".tar")
    async with rig.ctx.store.reading() as tx:
        assert (await tx.uploads.get(session_id)).name == "model"
