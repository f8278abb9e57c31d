"""The environment of a replica, and how its command line names it."""

from pathlib import Path

import pytest

from dockyard.fleets.local.adoption import replica_of
from dockyard.fleets.local.spawn import environment
from dockyard.protocols.spares import UNNAMED


@pytest.mark.parametrize(
    "name",
    ["DOCKYARD_ADMIN_KEY", "DOCKYARD_DATABASE_URL", "DATABASE_URL", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD"],
)
def test_secrets_are_withheld(name: str) -> None:
    assert name not in environment(2, {name: "secret"})


@pytest.mark.parametrize("name", ["PATH", "HOME", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "KEYBOARD", "LANG"])
def test_what_a_process_needs_is_passed_on(name: str) -> None:
    assert environment(2, {name: "value"})[name] == "value"


def test_threads_and_being_offline_are_set_whatever_was_there() -> None:
    made = environment(2, {"OMP_NUM_THREADS": "64", "HF_HUB_OFFLINE": "0"})

    assert made["OMP_NUM_THREADS"] == made["MKL_NUM_THREADS"] == "2"
    assert made["HF_HUB_OFFLINE"] == made["TRANSFORMERS_OFFLINE"] == "1"
    assert made["TOKENIZERS_PARALLELISM"] == "false"


RUN_DIR = Path("/data/run")


@pytest.mark.parametrize(
    ("cmdline", "replica_id"),
    [
        ("python -m dockyard.worker --socket-fd 6 --replica-id rp-1 --run-dir /data/run", "rp-1"),
        (f"python -m dockyard.worker --socket-fd 6 --replica-id {UNNAMED} --run-dir /data/run", UNNAMED),
        ("python /other/worker.py --socket-fd 6 --replica-id rp-1 --run-dir /data/run", "rp-1"),
        ("python -m dockyard.worker --socket-fd 6 --replica-id rp-1 --run-dir /data/run-of-another", None),
        ("python -m dockyard.worker --socket-fd 6 --replica-id rp-1", None),
        ("vim /data/run/rp-1.log", None),
        ("grep --run-dir /data/run", None),
        ("", None),
    ],
)
def test_a_worker_is_known_by_its_command_line(cmdline: str, replica_id: str | None) -> None:
    assert replica_of(cmdline.split(), RUN_DIR) == replica_id


def test_an_id_written_over_a_longer_one_is_read_without_what_pads_it() -> None:
    cmdline = ["python", "-m", "dockyard.worker", "--socket-fd", "6", "--replica-id", "X", "--run-dir", "/data/run"]
    cmdline[cmdline.index("X")] = "rp-1".ljust(len(UNNAMED))

    assert replica_of(cmdline, RUN_DIR) == "rp-1"
