"""The engines' libraries can be imported in a process that is forked later, and compute there as they should."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import msgspec
import psutil
from tests.conversion import MODELS

from dockyard.domain.devices import GIB, Host
from dockyard.fleets.local.fleet import WORKER_COMMAND
from dockyard.protocols.fleet import ReplicaStatus
from dockyard.protocols.generation import TOKEN_HEADER, GenerateRequest, decode_event, encode_request

if TYPE_CHECKING:
    from conftest import Kit


async def test_transformers_answers_from_a_spare(kit: "Kit", tmp_path: Path) -> None:
    """With two threads, which only the forked process starts. A wrong fork would hang, crash or be refused.

    The second replica has no tokenizer file: the spare has read it by then.
    """
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(host=_roomy)
    folder = str(shutil.copytree(MODELS / "t5-date", tmp_path / "t5-date"))
    spec = msgspec.structs.replace(
        kit.spec("transformers", eos_token_ids=[1]),
        artifact_dir=folder,
        model_dir=folder,
        family="encoder_decoder",
        compute_type="float32",
        context_length=None,
        threads=2,
        decoder_start_token_id=0,
    )
    fleet.keep_warm(["transformers"])
    spare = await kit.once_warm(fleet, "transformers")

    await fleet.start(spec)
    status = await kit.once_in_phase(fleet, spec.replica_id, "ready")

    assert psutil.Process(status.pid).ppid() == spare.pid
    assert await _text(status, "date: monday, march 3, 2014") == "2014-03-03"

    while folder not in fleet.read_ahead()["transformers"]:
        await fleet.changed.wait()
        fleet.changed.clear()
    (tmp_path / "t5-date" / "tokenizer.json").unlink()
    second = msgspec.structs.replace(spec, replica_id=f"{spec.replica_id}-2")
    await fleet.start(second)
    status = await kit.once_in_phase(fleet, second.replica_id, "ready")
    assert await _text(status, "date: monday, march 3, 2014") == "2014-03-03"
    assert spare.num_threads() == 1


async def test_ctranslate2_has_a_spare(kit: "Kit") -> None:
    kit.command = WORKER_COMMAND
    fleet = await kit.open_fleet(host=_roomy)

    fleet.keep_warm(["ctranslate2"])

    assert (await kit.once_warm(fleet, "ctranslate2")).num_threads() == 1


def _roomy() -> Host:
    return Host(cores=2, memory_bytes=8 * GIB, available_bytes=4 * GIB)


async def _text(status: ReplicaStatus, prompt: str) -> str:
    request = GenerateRequest(id="1", prompt=prompt, temperature=0, max_tokens=30)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(status.address.socket or "")) as session,
        session.post(
            "http://replica/generate",
            data=encode_request.encode(request),
            headers={TOKEN_HEADER: status.address.token},
        ) as reply,
    ):
        return "".join([decode_event.decode(line).text async for line in reply.content])
