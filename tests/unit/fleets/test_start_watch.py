"""A start has all the time it needs while it comes further; one that hangs is told from it, at whatever step."""

from datetime import UTC, datetime

import pytest

from dockyard.fleets.local.start_watch import StartWatch
from dockyard.protocols.generation import Health, ReplicaPhase

PATIENCE_S = 1800.0


class HandClock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        return self.seconds


def at(phase: ReplicaPhase, progress: str = "", share: float = 0.0, running: int = 0) -> Health:
    return Health(replica_id="rp", phase=phase, progress=progress, share=share, running=running)


def test_each_step_gives_it_all_the_time_again() -> None:
    clock = HandClock()
    watch = StartWatch(clock, PATIENCE_S)
    steps = [at("importing", "importing vllm"), at("loading"), at("loading", "reading the weights", 0.2)]
    steps += [at("loading", "reading the weights", 0.3), at("loading", "compiling", 0.3), at("warming_up")]
    for step in steps:
        clock.seconds += PATIENCE_S - 1
        assert watch.left_s() == 1
        watch.take(step)
        assert watch.left_s() == PATIENCE_S


@pytest.mark.parametrize("said", [None, at("starting"), at("loading", "loading weights"), at("warming_up")])
def test_saying_the_same_again_is_no_step(said: Health | None) -> None:
    clock = HandClock()
    watch = StartWatch(clock, PATIENCE_S, said)
    clock.seconds += PATIENCE_S
    if said is not None:
        watch.take(at(said.phase, said.progress, running=1))
    assert watch.left_s() == 0


@pytest.mark.parametrize("phase", ["ready", "draining"])
def test_one_that_serves_has_no_limit(phase: ReplicaPhase) -> None:
    clock = HandClock()
    watch = StartWatch(clock, PATIENCE_S, at("loading"))
    watch.take(at(phase))
    clock.seconds += 10 * PATIENCE_S
    assert watch.left_s() is None


@pytest.mark.parametrize(
    ("said", "doing"),
    [
        (None, "while starting:"),
        (at("importing", "importing vllm"), "while importing (importing vllm):"),
        (at("loading", "reading the weights", 0.25), "while loading (reading the weights, 25% done):"),
        (at("warming_up"), "while warming up:"),
    ],
)
def test_it_is_told_what_it_did_how_long_and_what_to_change(said: Health | None, doing: str) -> None:
    told = StartWatch(HandClock(), PATIENCE_S, said).told()
    assert doing in told
    assert "1800 s" in told
    assert "DOCKYARD_START_TIMEOUT_S" in told
