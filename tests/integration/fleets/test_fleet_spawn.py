"""What a replica process is given: a socket that listens already, its spec, a clean environment."""

import errno
import os
import socket
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from dockyard.clock import SystemClock
from dockyard.errors import Failed, Reason
from dockyard.fleets.local.fleet import LocalFleet

if TYPE_CHECKING:
    from conftest import Kit


async def test_the_socket_listens_before_the_replica_does(kit: "Kit", fleet: LocalFleet) -> None:
    status = await fleet.start(kit.spec("ready"))

    path = status.address.socket
    assert path is not None
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert stat.S_IMODE(kit.run_dir.stat().st_mode) == 0o700


async def test_a_spec_larger_than_a_pipe_arrives(kit: "Kit", fleet: LocalFleet) -> None:
    spec = kit.spec("ready", eos_token_ids=list(range(200_000)))

    await fleet.start(spec)

    await kit.once_in_phase(fleet, spec.replica_id, "ready")


async def test_no_secret_of_the_server_reaches_a_replica(
    kit: "Kit", fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKYARD_ADMIN_KEY", "kg-1")
    monkeypatch.setenv("DOCKYARD_DATABASE_URL", "postgresql://user:word@host/db")
    monkeypatch.setenv("HF_TOKEN", "hf_1")

    status = await kit.start_ready(fleet)

    environment = psutil.Process(status.pid).environ()
    assert not {"DOCKYARD_ADMIN_KEY", "DOCKYARD_DATABASE_URL", "HF_TOKEN"} & environment.keys()
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["HF_HUB_OFFLINE"] == "1"


async def test_a_replica_leads_a_session_of_its_own(kit: "Kit", fleet: LocalFleet) -> None:
    status = await kit.start_ready(fleet)

    assert status.pid is not None
    assert os.getsid(status.pid) == status.pid


async def test_a_run_directory_too_deep_for_a_socket_has_them_elsewhere(kit: "Kit") -> None:
    kit.run_dir = kit.run_dir / ("deep" * 25)
    fleet = await kit.open_fleet()

    status = await kit.start_ready(fleet)

    assert status.address.socket is not None
    folder = Path(status.address.socket).parent
    assert folder.parent == Path("/tmp")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    await fleet.close(stop_replicas=True)
    assert not folder.exists()


async def test_a_missing_python_is_told_at_the_start(kit: "Kit") -> None:
    fleet = LocalFleet(kit.run_dir, SystemClock(), command=("/nowhere/python", "-m", "dockyard.worker"))
    await fleet.open([])

    with pytest.raises(Failed, match="/nowhere/python") as raised:
        await fleet.start(kit.spec("ready"))

    assert raised.value.reason is Reason.INTERNAL
    assert fleet.statuses() == {}
    assert list(kit.run_dir.glob("*.sock")) == []


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EAGAIN, Reason.NO_CAPACITY), (errno.ENOMEM, Reason.NO_CAPACITY), (errno.ENOSPC, Reason.DISK_FULL)],
)
async def test_a_host_that_cannot_make_a_process_is_told_apart(
    kit: "Kit", fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    descriptors = len(os.listdir("/proc/self/fd"))

    with pytest.raises(Failed) as raised:
        await fleet.start(kit.spec("ready"))

    assert raised.value.reason is reason
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert list(kit.run_dir.glob("*.sock")) == []
