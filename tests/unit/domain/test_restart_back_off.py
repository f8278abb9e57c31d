"""How long a version waits before it starts the next replica: what served is soon back, what cannot start is spared."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.test_rollout import plan, version

from dockyard.domain.lifecycle import ReplicaState, VersionState
from dockyard.domain.replica import (
    BACK_OFF_CEILING_S,
    SERVED_BACK_OFF_CEILING_S,
    Replica,
    ReplicaFailure,
    restart_back_off_s,
)
from dockyard.domain.replica_plan import STEADY_AFTER
from dockyard.errors import Reason

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEPLOYED = version(1, VersionState.DEPLOYED)
LOAD = timedelta(seconds=0.3)


class Fate(Enum):
    """What becomes of a replica, a load after its start."""

    FAILS_TO_START = "fails to start"
    DIES_SOON = "dies soon after it was ready"
    HELD_ON = "dies long after it was ready"


def walk(fates: Sequence[Fate]) -> list[float]:
    """The pauses, in seconds, of a version with one replica whose replicas meet these fates one after the other."""
    now, history, pauses = NOW, list[Replica](), list[float]()
    for number, fate in enumerate(fates):
        step = plan([DEPLOYED], history, now=now)
        pauses.append((step.wake_at - now).total_seconds() if step.wake_at else 0.0)
        now = step.wake_at or now
        (start,) = plan([DEPLOYED], history, now=now).starts
        now += LOAD
        ready_at = None if fate is Fate.FAILS_TO_START else now
        if fate is Fate.HELD_ON:
            now += STEADY_AFTER
        history.append(ended(f"r{number}", now, ready_at, start.restarts))
    return pauses


def ended(name: str, at: datetime, ready_at: datetime | None, restarts: int) -> Replica:
    return Replica(
        replica_id=name,
        version_id=DEPLOYED.version_id,
        deployment_id=DEPLOYED.deployment_id,
        token="t",
        created_at=at,
        modified_at=at,
        state=ReplicaState.FAILED,
        ready_at=ready_at,
        stopped_at=at,
        restarts=restarts,
        failure=ReplicaFailure(reason=Reason.ENGINE_CRASHED, message="boom", at=at),
    )


def test_a_replica_that_was_ready_may_be_killed_again_and_again() -> None:
    assert walk([Fate.DIES_SOON] * 9) == [0, 0, 1, 2, 2, 2, 2, 2, 2]


def test_a_start_that_never_gets_ready_is_tried_more_and_more_rarely() -> None:
    assert walk([Fate.FAILS_TO_START] * 9) == [0, 0, 1, 2, 4, 8, 16, 32, 60]


@pytest.mark.parametrize("served", [Fate.DIES_SOON, Fate.HELD_ON])
def test_one_that_was_ready_ends_the_long_pauses(served: Fate) -> None:
    pauses = walk([*[Fate.FAILS_TO_START] * 6, served, Fate.FAILS_TO_START, Fate.FAILS_TO_START])
    assert pauses[6] == 16
    assert max(pauses[7:]) <= SERVED_BACK_OFF_CEILING_S


def test_what_served_for_long_after_a_restart_begins_a_count_that_grows() -> None:
    pauses = walk([Fate.FAILS_TO_START, Fate.HELD_ON, *[Fate.FAILS_TO_START] * 6])
    assert pauses == [0, 0, 0, 1, 2, 2, 4, 8]


def test_a_load_that_is_killed_between_others_that_served_makes_nobody_wait_longer() -> None:
    pauses = walk([*[Fate.DIES_SOON] * 7, Fate.FAILS_TO_START, Fate.DIES_SOON])
    assert max(pauses) == SERVED_BACK_OFF_CEILING_S


def test_one_that_became_ready_since_ends_the_count() -> None:
    later = NOW + LOAD
    sound = replace(ended("sound", later, later, 0), state=ReplicaState.READY, stopped_at=None, failure=None)
    two = version(1, VersionState.DEPLOYED, min_replicas=2)
    (start,) = plan([two], [*(ended(f"r{n}", NOW, None, n) for n in range(6)), sound], now=NOW).starts
    assert (start.count, start.restarts) == (1, 0)


@given(st.lists(st.sampled_from(Fate), max_size=12))
def test_only_starts_that_failed_since_one_was_ready_make_a_pause_long(fates: list[Fate]) -> None:
    for number, pause in enumerate(walk([*fates, Fate.DIES_SOON])):
        before = fates[:number]
        since_ready = next((n for n, fate in enumerate(reversed(before)) if fate is not Fate.FAILS_TO_START), number)
        assert pause <= BACK_OFF_CEILING_S
        if since_ready <= 3:  # 0, 1, 2 s: no longer than after failures of the other kind
            assert pause <= SERVED_BACK_OFF_CEILING_S
        else:
            assert pause == min(BACK_OFF_CEILING_S, 2.0 ** (since_ready - 2))


@given(st.integers(0, 2_000), st.integers(0, 2_000))
def test_more_failures_never_shorten_the_pause(failed: int, starts: int) -> None:
    pause = restart_back_off_s(failed, starts)
    assert pause <= restart_back_off_s(failed + 1, starts) <= BACK_OFF_CEILING_S
    assert pause <= restart_back_off_s(failed, starts + 1) <= BACK_OFF_CEILING_S
