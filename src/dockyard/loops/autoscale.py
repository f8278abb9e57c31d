"""The autoscaler: each change of a deployment's load becomes a decision of the domain's, at the instant it is due.

It decides; the reconciler reads `desired` and acts. What it knows lives in memory: after a restart the replicas that
were adopted are the beginning, and they stay until there is data again.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from dockyard.clock import Clock
from dockyard.domain.autoscaling import Decision, Demand, History, begin, decide, needed
from dockyard.domain.spec import Scaling

log = structlog.get_logger()


class Timer(Protocol):
    def cancel(self) -> None: ...


@dataclass(slots=True)
class _Followed:
    scaling: Scaling
    history: History
    demand: Demand
    untold: tuple[Decision, ...] = ()  # decisions whose event is not written yet
    timer: Timer | None = None


class Autoscaler:
    """All deployments that are routed to. Runs on the event loop's thread; nothing here waits."""

    def __init__(
        self,
        clock: Clock,
        demand_of: Callable[[str], Demand],
        later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        """`demand_of(deployment_id)`: as of now. `later(delay_s, callback)` defaults to the loop's.

        `wake(deployment_id)`, to be set, is called after each decision.
        """
        self.wake: Callable[[str], None] = lambda deployment_id: None
        self._clock = clock
        self._demand_of = demand_of
        self._later = later or _call_later
        self._followed: dict[str, _Followed] = {}

    def follow(self, deployment_id: str, scaling: Scaling, replicas: int) -> None:
        """Decide for this deployment from now on, within `scaling`, beginning with the `replicas` that are there.

        Called again with the same `scaling` it changes nothing; with another one, a new version serves.
        """
        known = self._followed.get(deployment_id)
        if known is not None and known.scaling == scaling:
            return
        there = max(replicas, known.history.desired) if known else replicas
        history = begin(scaling, there, self._clock.monotonic())
        followed = _Followed(scaling, history, self._demand_of(deployment_id))
        if known is not None:
            followed.untold = known.untold
            _disarm(known)
        self._followed[deployment_id] = followed
        self._decide(deployment_id, followed)

    def follow_only(self, deployment_ids: Collection[str]) -> None:
        """Forget every other deployment."""
        for deployment_id in [known for known in self._followed if known not in deployment_ids]:
            _disarm(self._followed.pop(deployment_id))

    def note(self, deployment_id: str, demand: Demand) -> None:
        """The load of a deployment has changed. Called as each request comes and goes, so mostly one comparison."""
        followed = self._followed.get(deployment_id)
        if followed is None:
            return
        followed.demand = demand
        if needed(followed.scaling, demand) != followed.history.want:
            self._decide(deployment_id, followed)

    def desired(self, deployment_id: str) -> int | None:
        followed = self._followed.get(deployment_id)
        return followed.history.desired if followed else None

    def untold(self, deployment_id: str) -> tuple[Decision, ...]:
        """Decisions that no event tells of yet, oldest first."""
        followed = self._followed.get(deployment_id)
        return followed.untold if followed else ()

    def told(self, deployment_id: str, decisions: Collection[Decision]) -> None:
        """The events of these decisions are written."""
        if followed := self._followed.get(deployment_id):
            followed.untold = followed.untold[len(decisions) :]

    def close(self) -> None:
        self.follow_only(())

    def _decide(self, deployment_id: str, followed: _Followed) -> None:
        _disarm(followed)
        now = self._clock.monotonic()
        decision = decide(followed.scaling, followed.demand, followed.history, now)
        followed.history = decision.history
        if decision.reason:
            followed.untold = (*followed.untold, decision)
            log.info(
                "scale",
                deployment_id=deployment_id,
                before=decision.before,
                desired=decision.desired,
                reason=decision.reason,
                message=decision.message,
            )
            self.wake(deployment_id)
            decision = decide(followed.scaling, followed.demand, followed.history, now)  # when to look again
        if decision.wake_at is not None:
            delay_s = max(0.0, decision.wake_at - now)
            followed.timer = self._later(delay_s, lambda: self._decide(deployment_id, followed))


def _disarm(followed: _Followed) -> None:
    if followed.timer is not None:
        followed.timer.cancel()
        followed.timer = None


def _call_later(delay_s: float, callback: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, callback)
