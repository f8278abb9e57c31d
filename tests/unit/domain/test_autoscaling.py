"""The autoscaling policy: tables that walk the clock, properties over any demand, and crowds in virtual time."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.domain.crowd import Service, run

from dockyard.domain.autoscaling import Decision, Demand, History, begin, decide, needed
from dockyard.domain.spec import Scaling

SAMPLE = Scaling(max_batch_size=10, min_replicas=1, max_replicas=8, scale_up_delay_ms=30, scale_down_delay_ms=600)


def walk(*steps: tuple[float, int], scaling: Scaling = SAMPLE, replicas: int = 1) -> list[int]:
    """What is desired after each step: at that instant (s) there are so many requests."""
    history = begin(scaling, replicas, 0.0)
    desired: list[int] = []
    for at, requests in steps:
        history = decide(scaling, Demand(requests, 0), history, at).history
        desired.append(history.desired)
    return desired


def test_the_want_is_the_replicas_that_take_all_requests_at_once() -> None:
    assert [needed(SAMPLE, Demand(queued, 5)) for queued in (0, 5, 6, 15, 16, 1000)] == [1, 1, 2, 2, 3, 8]
    assert needed(SAMPLE, Demand(0, 0)) == 0


def test_demand_above_capacity_for_the_whole_delay_goes_straight_to_what_it_needs() -> None:
    assert walk((1.0, 55), (1.029, 55), (1.03, 55)) == [1, 1, 6]


def test_a_break_in_the_demand_begins_the_delay_anew() -> None:
    assert walk((1.0, 55), (1.02, 10), (1.021, 55), (1.05, 55), (1.051, 55)) == [1, 1, 1, 1, 6]


def test_the_want_at_the_end_of_the_delay_counts_not_the_one_at_its_beginning() -> None:
    assert walk((1.0, 11), (1.029, 45), (1.03, 45)) == [1, 1, 5]


def test_replicas_leave_once_the_largest_want_of_the_delay_is_below_them() -> None:
    assert walk((1.0, 25), (2.0, 15), (2.599, 15), (2.6, 15), replicas=3) == [3, 3, 3, 2]


def test_a_peak_within_the_delay_holds_what_it_needed() -> None:
    steps = ((0.1, 25), (1.0, 0), (1.5, 25), (1.501, 0), (1.6, 0), (2.1, 0), (2.101, 0))
    assert walk(*steps, replicas=3) == [3, 3, 3, 3, 3, 3, 1]


def test_no_data_means_hold() -> None:
    assert walk((0.0, 0), (0.599, 0), replicas=4) == [4, 4]
    assert walk((0.6, 0), replicas=4) == [1]


def test_the_bounds_hold_whatever_is_there() -> None:
    scaling = replace(SAMPLE, min_replicas=2, max_replicas=3)
    assert walk((1.0, 0), (9.0, 1000), (9.1, 1000), scaling=scaling, replicas=7) == [2, 2, 3]


def test_a_decision_tells_its_reason_in_numbers() -> None:
    history = decide(SAMPLE, Demand(13, 10), begin(SAMPLE, 1, 0.0), 1.0).history
    rose = decide(SAMPLE, Demand(13, 10), history, 1.03)
    assert (rose.before, rose.desired, rose.reason) == (1, 3, "DEMAND_ROSE")
    assert rose.message == (
        "23 requests (13 waiting, 10 running) need 3 replica(s) of 10; for 30 ms they were more than 1 can take"
    )
    calm = decide(SAMPLE, Demand(0, 4), rose.history, 2.0).history
    fell = decide(SAMPLE, Demand(0, 4), calm, 2.6)
    assert (fell.before, fell.desired, fell.reason) == (3, 1, "DEMAND_FELL")
    assert fell.message.startswith("for 600 ms 1 replica(s) would have been enough")


def test_what_was_taken_away_and_is_needed_right_after_stays_longer_the_next_time() -> None:
    on_and_off = [(at, 25 if index % 2 == 0 else 0) for index, at in enumerate((1.0, 2.0, 3.0, 4.0, 5.0, 6.0))]
    steps = [
        step for at, requests in on_and_off for step in ((at, requests), (at + 0.03, requests), (at + 0.6, requests))
    ]
    assert walk(*steps) == [1, 3, 3, 3, 3, 1, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]


def test_calm_makes_the_delay_short_again() -> None:
    regretful = replace(begin(SAMPLE, 1, 0.0), regrets=3, lowered_at=100.0)
    after = [
        decide(SAMPLE, Demand(25, 0), decide(SAMPLE, Demand(25, 0), regretful, at).history, at + 0.03).history
        for at in (105.0, 125.0, 500.0)
    ]  # four delays of 4.8 s are 19.2 s of calm for the first step back
    assert [history.regrets for history in after] == [4, 2, 0]


# Properties

scalings = st.builds(
    lambda batch, low, more, up, down: Scaling(
        max_batch_size=batch, min_replicas=low, max_replicas=low + more, scale_up_delay_ms=up, scale_down_delay_ms=down
    ),
    st.integers(1, 256),
    st.integers(1, 10),
    st.integers(0, 40),
    st.integers(1, 1000),
    st.integers(50, 2000),
)
walks = st.lists(st.tuples(st.floats(0, 5), st.integers(0, 3000)), max_size=60)


def decisions(scaling: Scaling, steps: list[tuple[float, int]], replicas: int = 1) -> Iterator[tuple[Decision, float]]:
    """Every decision of a walk, with the wakes that it asks for in between, and the instant of each."""
    history, now, demand = begin(scaling, replicas, 0.0), 0.0, Demand(0, 0)
    for wait_s, requests in steps:
        until = now + wait_s
        while True:
            decision = decide(scaling, demand, history, now)
            history = decision.history
            yield decision, now
            if decision.reason:
                continue
            if decision.wake_at is None or decision.wake_at >= until:
                break
            now = decision.wake_at
        now, demand = until, Demand(requests, 0)


def settle(scaling: Scaling, requests: int, history: History, now: float) -> History:
    """Constant demand until nothing more is asked for."""
    for _ in range(10):
        decision = decide(scaling, Demand(requests, 0), history, now)
        history = decision.history
        if not decision.reason and decision.wake_at is None:
            return history
        now = decision.wake_at or now
    raise AssertionError("constant demand never comes to rest")


@given(scalings, walks, st.integers(0, 60))
def test_desired_stays_within_its_bounds_and_a_wake_lies_ahead(
    scaling: Scaling, steps: list[tuple[float, int]], replicas: int
) -> None:
    for decision, now in decisions(scaling, steps, replicas):
        assert scaling.min_replicas <= decision.desired <= scaling.max_replicas
        assert decision.wake_at is None or decision.wake_at > now
        assert (decision.desired != decision.before) == bool(decision.reason)
        assert len(decision.history.highs) + len(decision.history.lows) <= 2 * (scaling.max_replicas + 1)


@given(scalings, walks, st.integers(0, 3000))
def test_constant_demand_reaches_what_it_needs_and_stays(
    scaling: Scaling, steps: list[tuple[float, int]], requests: int
) -> None:
    history, now = begin(scaling, 1, 0.0), 0.0
    for decision, at in decisions(scaling, steps):
        history, now = decision.history, at
    settled = settle(scaling, requests, history, now)
    wanted = max(scaling.min_replicas, needed(scaling, Demand(requests, 0)))
    assert settled.desired == wanted
    later = decide(scaling, Demand(requests, 0), settled, now + 3600)
    assert (later.desired, later.reason) == (wanted, "")


@given(scalings, walks, st.integers(0, 3000), st.integers(0, 3000))
def test_more_demand_never_means_fewer_replicas(
    scaling: Scaling, steps: list[tuple[float, int]], fewer: int, more: int
) -> None:
    history, now = begin(scaling, 1, 0.0), 0.0
    for decision, at in decisions(scaling, steps):
        history, now = decision.history, at
    low, high = sorted((fewer, more))
    for later in (0.0, 0.03, 0.6, 2.0, 200.0):
        few = decide(scaling, Demand(low, 0), decide(scaling, Demand(low, 0), history, now).history, now + later)
        many = decide(scaling, Demand(high, 0), decide(scaling, Demand(high, 0), history, now).history, now + later)
        assert few.desired <= many.desired


@given(scalings, walks, st.integers(0, 3000))
def test_deciding_again_at_the_same_instant_changes_nothing(
    scaling: Scaling, steps: list[tuple[float, int]], requests: int
) -> None:
    demand = Demand(requests, 0)
    for decision, now in decisions(scaling, steps):
        once = decide(scaling, demand, decision.history, now)
        again = decide(scaling, demand, once.history, now)
        assert (again.reason, again.history) == ("", once.history)


# Crowds: the literal delays of the published sample, 30 ms and 600 ms


def poisson(per_s: float, seconds: float, seed: int = 1) -> list[float]:
    generator, at, arrivals = random.Random(seed), 0.0, list[float]()
    while (at := at + generator.expovariate(per_s)) < seconds:
        arrivals.append(at)
    return arrivals


def exponential(mean_s: float) -> Service:
    return lambda generator: generator.expovariate(1 / mean_s)


def constant(seconds: float) -> Service:
    return lambda _: seconds


SMALL = replace(SAMPLE, max_batch_size=4)


@pytest.mark.parametrize("start_s", [0.2, 4.0], ids=["warm start", "cold start"])
@pytest.mark.parametrize("per_s", [5, 19, 40])
def test_steady_load_settles_and_stays(per_s: int, start_s: float) -> None:
    crowd = run([index / per_s for index in range(per_s * 30)], constant(0.2), SMALL, start_s)
    assert crowd.turns(10, 30) == 0
    assert (crowd.served, crowd.replicas) == (per_s * 30, 1)


@pytest.mark.parametrize("start_s", [0.2, 4.0], ids=["warm start", "cold start"])
@pytest.mark.parametrize("period_s", [0.5, 1.0, 1.5])
def test_a_sawtooth_about_as_long_as_the_delay_keeps_what_it_needs(period_s: float, start_s: float) -> None:
    teeth = [tooth * period_s + index * period_s / 40 for tooth in range(int(30 / period_s)) for index in range(20)]
    crowd = run(teeth, constant(0.2), SMALL, start_s)
    assert crowd.turns(10, 30) == 0
    assert crowd.served == len(teeth)


@pytest.mark.parametrize("start_s", [0.2, 4.0], ids=["warm start", "cold start"])
def test_bursts_that_come_again_are_awaited_with_what_they_need(start_s: float) -> None:
    bursts = [second + index / 1000 for second in range(0, 60, 2) for index in range(30)]
    crowd = run(bursts, constant(0.2), SMALL, start_s)
    assert crowd.turns(20, 60) == 0
    assert crowd.served == len(bursts)


def test_a_single_burst_comes_and_goes_within_the_literal_delays() -> None:
    crowd = run([index / 1000 for index in range(30)], constant(1.0), SMALL, 0.2)
    assert crowd.changes[0].at_s == pytest.approx(0.034, abs=0.002)  # the fifth request, and 30 ms
    assert crowd.changes[0].after == 8
    assert crowd.replicas == 1
    assert crowd.changes[-1].at_s < 2.5 + 0.7


@pytest.mark.parametrize("per_s", [10, 19, 30, 40])
def test_random_load_on_the_edge_turns_seldom_once_it_is_known(per_s: int) -> None:
    crowd = run(poisson(per_s, 180), exponential(0.2), SMALL, 0.2)
    assert crowd.turns(60, 180) <= 20  # in two minutes; with the bare delay it is 59 to 95
    assert crowd.replicas == 1
