"""How many replicas the demand needs, and since when. Pure: time is an argument, no replica is started here.

What the demand needs at an instant is ceil((queued + in flight) / maxBatchSize), at most maxReplicas: the *want*.
Up: a want above `desired` without a break for scaleUpDelay, then straight to the want. Down: to the largest want within
the last scaleDownDelay. `desired` counts replicas that still start, so nothing is asked for twice.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from dockyard.domain.spec import Scaling

MOST_REGRETS = 6  # the longest that they stretch scaleDownDelay: 600 ms to 38 s
RIGHT_AFTER = 4  # delays. With 2, Poisson load on the edge between two counts went on changing 12 times a minute

Step = tuple[int, float]  # a want, and the instant until which it held


class Demand(NamedTuple):
    """The exact demand on a deployment, as the gateway counts it.

    `queued`: requests that wait for a place, those included that lost their replica. `in_flight`: requests that have a
    place on any of its replicas: of the version that is routed to, of an older one that drains, of one that has been
    withdrawn. Each prompt of a request counts for itself. A request is in one of the two from its admission to its end,
    and moves between them in one step.
    """

    queued: int
    in_flight: int

    def __str__(self) -> str:
        return f"{self.queued + self.in_flight} requests ({self.queued} waiting, {self.in_flight} running)"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What `decide` remembers. Instants are seconds of a clock that never jumps.

    `highs` are past wants from the highest down, `lows` from the lowest up, each with the instant until which it held
    and only as long as no later one outdid it: the first one inside a window is the window's extreme. Both are short: a
    want is there at most once, and there are maxReplicas + 1 of them.
    """

    desired: int
    want: int
    highs: tuple[Step, ...]
    lows: tuple[Step, ...]
    regrets: int = 0  # scale-downs in a row that were regretted
    lowered_at: float | None = None  # the last scale-down, until the next scale-up has judged it


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`history.desired` holds from now on. `reason` is empty when nothing changed; `wake_at`: when to ask again."""

    history: History
    before: int
    reason: str = ""
    message: str = ""
    wake_at: float | None = None

    @property
    def desired(self) -> int:
        return self.history.desired


def needed(scaling: Scaling, demand: Demand) -> int:
    """The want: replicas that take all of `demand` at once, at most maxReplicas; 0 for none."""
    return min(scaling.max_replicas, math.ceil((demand.queued + demand.in_flight) / scaling.max_batch_size))


def begin(scaling: Scaling, replicas: int, now: float) -> History:
    """A history that starts now with `replicas` there. Before it there is no data, and no data means hold."""
    desired = max(scaling.min_replicas, min(scaling.max_replicas, replicas))
    return History(desired=desired, want=0, highs=((desired, now),), lows=((0, now),))


def decide(scaling: Scaling, demand: Demand, history: History, now: float) -> Decision:
    """What follows from `demand`, which holds since `now` or longer. Deciding again at `now` changes nothing."""
    history = _noted(history, needed(scaling, demand), now)
    up_s, down_s = scaling.scale_up_delay_ms / 1000, _down_s(scaling, history)
    least = min((history.want, *(want for want, until in history.lows if now < until + up_s)))
    most = max((history.want, scaling.min_replicas, *(want for want, until in history.highs if now < until + down_s)))
    if least > history.desired:
        return _rise(scaling, demand, history, now)
    if most < history.desired:
        return _fall(demand, history, most, down_s, now)
    return Decision(history=history, before=history.desired, wake_at=_wake_at(scaling, history, up_s, down_s))


def _noted(history: History, want: int, now: float) -> History:
    if want == history.want:
        return history
    past = (history.want, now)
    return replace(
        history,
        want=want,
        highs=(*(step for step in history.highs if step[0] > history.want), past),
        lows=(*(step for step in history.lows if step[0] < history.want), past),
    )


def _rise(scaling: Scaling, demand: Demand, history: History, now: float) -> Decision:
    regrets = history.regrets if history.lowered_at is None else _regrets(scaling, history, now - history.lowered_at)
    return Decision(
        history=replace(history, desired=max(scaling.min_replicas, history.want), regrets=regrets, lowered_at=None),
        before=history.desired,
        reason="DEMAND_ROSE",
        message=f"{demand} need {history.want} replica(s) of {scaling.max_batch_size}; for "
        f"{scaling.scale_up_delay_ms} ms they were more than {history.desired} can take",
    )


def _fall(demand: Demand, history: History, most: int, down_s: float, now: float) -> Decision:
    return Decision(
        history=replace(history, desired=most, lowered_at=now),
        before=history.desired,
        reason="DEMAND_FELL",
        message=f"for {round(down_s * 1000)} ms {most} replica(s) would have been enough; now there are {demand}",
    )


def _regrets(scaling: Scaling, history: History, calm_s: float) -> int:
    """One more if what was taken away is needed again within four delays; one less for each such span of calm."""
    regrets, span_s = history.regrets, RIGHT_AFTER * _down_s(scaling, history)
    if calm_s < span_s:
        return min(MOST_REGRETS, regrets + 1)
    while regrets and calm_s >= span_s:
        regrets, calm_s, span_s = regrets - 1, calm_s - span_s, span_s / 2
    return regrets


def _down_s(scaling: Scaling, history: History) -> float:
    """scaleDownDelay, doubled for each time in a row that a replica was taken away and needed again right after.

    Demand that comes and goes every second with a delay of 600 ms would start a replica each second. Taken away at
    0.6 s and missed at 1.0 s, within four delays, it stays for 1.2 s the next time, and so is there at 2.0 s.
    """
    return scaling.scale_down_delay_ms / 1000 * 2**history.regrets


def _wake_at(scaling: Scaling, history: History, up_s: float, down_s: float) -> float | None:
    """When the steps that now speak against a change have left their window, if the want stays as it is."""
    if history.want > history.desired:
        return max(until for want, until in history.lows if want <= history.desired) + up_s
    if max(history.want, scaling.min_replicas) < history.desired:
        return max(until for want, until in history.highs if want >= history.desired) + down_s
    return None
