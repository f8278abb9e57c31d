"""What can go wrong between a hub and the disk: tried again where that helps, else told with a reason and a way on."""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.integration.hub_double import HubDouble, a_port_that_nobody_serves
from tests.integration.hub_rig import QUICK, HubRig
from tests.integration.prepare_rig import GPT2_KJV

from dockyard.errors import Failed, Reason
from dockyard.prepare.hub_client import Patience

MIB = 1 << 20
WEIGHTS = hashlib.shake_256(b"weights").digest(3 * MIB)  # nothing that fetches looks into them
FILES = {path.name: path.read_bytes() for path in GPT2_KJV.iterdir()} | {"model.safetensors": WEIGHTS}
ONCE = Patience(waits_s=(), midway_s=(), longest_s=0)
LATER = {"retry-after": "3600"}


@pytest.fixture(scope="module")
def serving() -> Iterator[HubDouble]:
    with HubDouble() as hub:
        yield hub


@pytest.fixture
def rig(serving: HubDouble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubRig:
    serving.forget()
    serving.add("org/kjv", FILES)
    serving.add("org/private", FILES, asks_for="hf_right")
    serving.add("org/gated", FILES, asks_for="hf_right", gated=True)
    serving.add("org/disabled", FILES, disabled=True)
    return HubRig(serving, tmp_path / "download", monkeypatch)


def _refused(rig: HubRig, repository: str = "org/kjv", revision: str | None = None, **more: object) -> Failed:
    with pytest.raises(Failed) as refusal:
        rig.fetch(repository, revision, **more)
    return refusal.value


def _whole(model: Path) -> bool:
    return (model / "model.safetensors").read_bytes() == WEIGHTS


# Who may read what


@pytest.mark.parametrize("token", [None, "hf_right"])
def test_a_repository_that_is_not_there(rig: HubRig, token: str | None) -> None:
    if token:
        rig.log_in(token)
    failure = _refused(rig, "org/nothing")
    assert failure.reason is Reason.HUB_REPOSITORY_NOT_FOUND
    assert "org/nothing" in failure.message
    assert "HF_TOKEN" in failure.message


def test_a_revision_that_is_not_there(rig: HubRig) -> None:
    failure = _refused(rig, revision="v9")
    assert failure.reason is Reason.HUB_REVISION_NOT_FOUND
    assert "org/kjv has no revision v9" in failure.message


def test_a_wrong_token(rig: HubRig) -> None:
    rig.log_in("hf_wrong")
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_ACCESS_REFUSED
    assert "hf_wrong" not in failure.message
    assert "HF_TOKEN" in failure.message


def test_a_token_that_no_header_can_carry(rig: HubRig) -> None:
    rig.log_in("hf_schlüssel")
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_ACCESS_REFUSED
    assert "schl" not in failure.message


@pytest.mark.parametrize("token", [None, "hf_other"])
def test_a_gated_repository_names_the_way_in(rig: HubRig, token: str | None) -> None:
    if token:
        rig.log_in(token)
    failure = _refused(rig, "org/gated")
    assert failure.reason is Reason.HUB_REPOSITORY_GATED
    assert "accept its terms" in failure.message
    rig.log_in("hf_right")
    model, _ = rig.fetch("org/gated")
    assert _whole(model)


def test_a_token_without_the_right(rig: HubRig) -> None:
    rig.log_in("hf_other")
    assert _refused(rig, "org/private").reason is Reason.HUB_ACCESS_REFUSED
    assert _refused(rig, "org/disabled").reason is Reason.HUB_ACCESS_REFUSED


@pytest.mark.parametrize(("token", "told"), [(None, "asks for a token"), ("hf_other", "refused the server's token")])
def test_a_refusal_without_a_code(rig: HubRig, token: str | None, told: str) -> None:
    rig.hub.add("org/other", FILES, asks_for="hf_right", tells_no_code=True)
    if token:
        rig.log_in(token)
    failure = _refused(rig, "org/other")
    assert failure.reason is Reason.HUB_ACCESS_REFUSED
    assert told in failure.message


# The way to it


def test_a_cut_connection_goes_on_where_it_was(rig: HubRig) -> None:
    rig.hub.faults.cut_after = [MIB // 2, MIB // 2, 0]
    model, _ = rig.fetch()
    assert _whole(model)
    assert rig.hub.served["model.safetensors"] == len(WEIGHTS)


def test_one_that_brings_a_good_deal_each_time_may_break_for_ever(rig: HubRig) -> None:
    rig.hub.faults.cut_after = [MIB] * 2
    model, _ = rig.fetch(patience=Patience(waits_s=(0.001,), midway_s=(), longest_s=1))
    assert _whole(model)


def test_one_that_brings_nothing_ends_with_its_reason_and_the_rest_is_for_the_next_time(rig: HubRig) -> None:
    rig.hub.faults.cut_after = [2 * MIB, 0, 0, 0, 0]
    failure = _refused(rig)
    assert failure.reason is Reason.DOWNLOAD_BROKEN
    rig.hub.faults.cut_after = []
    rig.fetch()
    assert rig.hub.served["model.safetensors"] == len(WEIGHTS)


def test_a_hub_that_sends_the_whole_file_where_the_rest_was_asked_for(rig: HubRig) -> None:
    rig.hub.faults.cut_after = [2 * MIB]
    rig.hub.faults.ignores_ranges = True
    model, _ = rig.fetch()
    assert _whole(model)
    assert rig.hub.served["model.safetensors"] == len(WEIGHTS) + 2 * MIB
    assert rig.told[-1].message == "downloading: 3.3 of 3.3 MB"


def test_what_came_wrong_is_fetched_once_more(rig: HubRig) -> None:
    rig.hub.faults.corrupt = ["model.safetensors", "config.json"]
    model, _ = rig.fetch()
    assert _whole(model)
    assert (model / "config.json").read_bytes() == FILES["config.json"]


def test_what_comes_wrong_again_is_not_kept(rig: HubRig) -> None:
    rig.hub.faults.corrupt = ["model.safetensors"] * 2
    failure = _refused(rig)
    assert failure.reason is Reason.DOWNLOAD_CORRUPT
    assert "model.safetensors" in failure.message
    assert not (rig.folder / "files" / "model.safetensors").exists()


@pytest.mark.parametrize("change", [lambda content: content + b"x", lambda content: content[:-1]])
def test_a_file_that_is_not_as_long_as_the_hub_says(rig: HubRig, change: Callable[[bytes], bytes]) -> None:
    commit = rig.hub.repositories["org/kjv"].revisions["main"]
    rig.hub.faults.swapped = {"config.json": change(FILES["config.json"])}
    failure = _refused(rig, revision=commit)
    assert failure.reason in (Reason.DOWNLOAD_CORRUPT, Reason.DOWNLOAD_BROKEN)
    assert rig.hub.fetched() == {"config.json"}


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_fault_of_the_hub_passes(rig: HubRig, status: int) -> None:
    rig.hub.faults.answers = [(status, {}), (status, {"retry-after": "0"})]
    model, _ = rig.fetch()
    assert _whole(model)


def test_a_fault_of_the_hub_that_does_not_pass(rig: HubRig) -> None:
    rig.hub.faults.answers = [(503, {})] * 4
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_FAILED
    assert "503" in failure.message
    rig.hub.faults.answers = [(501, {})]
    assert _refused(rig).reason is Reason.HUB_FAILED


def test_a_hub_that_asks_for_time_gets_it(rig: HubRig) -> None:
    soon = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    rig.hub.faults.answers = [(429, {"retry-after": "0"}), (429, {"retry-after": soon}), (429, {})]
    model, _ = rig.fetch()
    assert _whole(model)


@pytest.mark.parametrize("told", [LATER, {"ratelimit": '"api";r=0;t=3600'}])
def test_a_hub_that_asks_for_an_hour_is_not_waited_for(rig: HubRig, told: dict[str, str]) -> None:
    rig.hub.faults.answers = [(429, told)]
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_RATE_LIMITED
    assert "3600 s" in failure.message


def test_a_hub_that_answers_nothing(rig: HubRig) -> None:
    rig.time_out_after(0.1)
    rig.hub.faults.silent = True
    failure = _refused(rig, patience=Patience(waits_s=(0.001,), midway_s=(), longest_s=1))
    assert failure.reason is Reason.HUB_UNREACHABLE
    assert "HF_ENDPOINT" in failure.message
    assert len(rig.hub.asked) == 2


def test_a_store_that_falls_silent_in_the_middle(rig: HubRig) -> None:
    rig.time_out_after(0.2)
    rig.hub.faults.pause_after = 2 * MIB
    failure = _refused(rig, patience=ONCE)
    assert failure.reason is Reason.HUB_UNREACHABLE
    assert (rig.folder / "partial" / "model.safetensors").stat().st_size == 2 * MIB


def test_an_address_where_nobody_is(rig: HubRig) -> None:
    with a_port_that_nobody_serves() as endpoint:
        rig.reach(endpoint)
        failure = _refused(rig, patience=QUICK)
    assert failure.reason is Reason.HUB_UNREACHABLE
    assert endpoint.removeprefix("http://") in failure.message


@pytest.mark.parametrize("endpoint", ["htp://hub", "hub.example.com", "http://hub:port", "http://"])
def test_an_address_that_is_none(rig: HubRig, endpoint: str) -> None:
    rig.reach(endpoint)
    failure = _refused(rig, patience=ONCE)
    assert failure.reason is Reason.HUB_UNREACHABLE
    assert "HF_ENDPOINT" in failure.message


def test_a_password_in_the_address_stays_there(rig: HubRig) -> None:
    rig.hub.faults.answers = [(503, {})]
    rig.reach(rig.hub.endpoint.replace("http://", "http://me:secret@"))
    assert "secret" not in _refused(rig, patience=ONCE).message


def test_something_that_is_no_hub(rig: HubRig) -> None:
    rig.hub.faults.no_hub = True
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_FAILED
    assert "does not answer as a hub does" in failure.message


def test_a_server_that_is_told_to_stay_offline(rig: HubRig, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    failure = _refused(rig)
    assert failure.reason is Reason.HUB_UNREACHABLE
    assert "HF_HUB_OFFLINE" in failure.message
    assert not rig.hub.asked
