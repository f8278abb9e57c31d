"""The reconciler: for each deployment load → plan (domain) → apply, until what is there is what is wanted."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dockyard.domain.autoscaling import Decision
from dockyard.domain.deployment import LIVE, Version
from dockyard.domain.devices import Host
from dockyard.domain.event import Event
from dockyard.domain.fit import Room, room_on_a_cpu, room_on_gpus, seat_bytes
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import ReplicaState, VersionState
from dockyard.domain.model import Model
from dockyard.domain.plan import Facts, Move, Plan
from dockyard.domain.replica import Replica, engines_beside
from dockyard.domain.rollout import plan_rollout
from dockyard.errors import Reason, Stale
from dockyard.loops.autoscale import Autoscaler
from dockyard.loops.base import as_failure
from dockyard.loops.deploy_jobs import DeployJobs
from dockyard.loops.observe import observe_replicas
from dockyard.loops.preparing import Preparations
from dockyard.loops.publishing import Publisher
from dockyard.loops.replicas import Replicas
from dockyard.loops.shortages import Shortages
from dockyard.loops.situation import Situation, load_situation
from dockyard.loops.undeploys import settle_undeploys
from dockyard.loops.warm_engines import WarmEngines
from dockyard.services.context import SYSTEM, Context
from dockyard.store.transaction import Transaction

# A look at every deployment, whether or not anything called for it: a net under the events. Ten deployments at rest
# that were looked at every 5 s took 1 % of a core.
EVERYTHING_EVERY_S = 30.0
MANY_FAULTS = 6  # in a row, within three seconds as the loop tries again
UNSETTLED_EVERY_S = 5.0  # a deployment that is on its way somewhere, or wants replicas that the host has no room for


class Reconciler:
    """A round looks at the deployments that something happened to; every few seconds, and when asked, at all."""

    def __init__(
        self, ctx: Context, preparations: Preparations, replicas: Replicas, autoscaler: Autoscaler, base_url: str
    ) -> None:
        self._ctx = ctx
        self._preparations = preparations
        self._replicas = replicas
        self._autoscaler = autoscaler
        self._jobs = DeployJobs(ctx, base_url)
        self._publisher = Publisher(ctx)
        self._all_at = 0.0  # when everything is looked at, on the monotonic clock
        self._due: dict[str, float] = {}  # deployment → when it is looked at
        self._warm = WarmEngines(ctx.clock)
        self._faults: dict[str, int] = {}  # deployment → how many rounds in a row a fault of ours ended
        self._shortages = Shortages()
        self._living: Sequence[Replica] = ()  # of all deployments, as of this round's beginning

    def look_at(self, deployment_id: str) -> None:
        """Have the next round look at this deployment."""
        self._due[deployment_id] = 0.0

    def look_at_all(self) -> None:
        """Have the next round look at every deployment."""
        self._all_at = 0.0

    async def work(self) -> float | None:
        """One round over everything; the seconds until something is due, 0 if a step has just been made."""
        self.look_at_all()
        return await self.work_due()

    async def work_due(self) -> float | None:
        """One round over what is due."""
        living = self._living = await observe_replicas(self._ctx, self.look_at)
        now = self._ctx.clock.monotonic()
        if self._shortages.short and self._shortages.gpus_changed(self._ctx.host()):
            for deployment_id in list(self._shortages.short):
                self.look_at(deployment_id)
        everything = now >= self._all_at
        if everything:
            self._all_at = now + EVERYTHING_EVERY_S  # before the look: who asks for one meanwhile gets another
            try:
                await self._find_all(living)
            except BaseException:
                self.look_at_all()
                raise
        due = [deployment_id for deployment_id, at in self._due.items() if at <= now]
        faults = await self._reconcile_each(due)
        if due or everything:
            await settle_undeploys(self._ctx)
        self._ctx.fleet.keep_warm(self._warm.now())
        if faults:
            raise faults[0]  # for the loop to log, and to wait a little
        wake_at = min((self._all_at, *self._due.values()))
        return max(0.0, wake_at - self._ctx.clock.monotonic())

    async def _find_all(self, living: Sequence[Replica]) -> None:
        """Every deployment that is wanted or not yet gone is due; what belongs to no other ends."""
        published = self._publisher.published()  # before the look: a deploy that comes after it publishes, too
        async with self._ctx.store.reading() as tx:
            deployments = await tx.deployments.all_wanted_or_live()
        known = {deployment.deployment_id for deployment in deployments}
        wanted = {deployment.deployment_id for deployment in deployments if deployment.wanted}
        self._publisher.withdraw([deployment_id for deployment_id in published if deployment_id not in wanted])
        self._autoscaler.follow_only(wanted)
        self._faults = {known_id: count for known_id, count in self._faults.items() if known_id in known}
        self._shortages.keep_only(wanted)
        self._warm.keep_only(known)
        self._due = dict.fromkeys(known, 0.0)
        for replica in living:
            if replica.deployment_id not in known:  # of a deployment that is over: a server died while it stopped them
                self._replicas.stop(replica.replica_id)

    async def _reconcile_each(self, due: Sequence[str]) -> list[Exception]:
        """One after the other; a fault with one of them must hold up no other. Returns the faults."""
        faults: list[Exception] = []
        if not due:
            return faults
        host = self._ctx.host()
        for deployment_id in due:
            try:
                await self._reconcile(deployment_id, host)
            except Exception as error:  # noqa: BLE001 - the loop logs it
                faults.append(error)
                self._faults[deployment_id] = self._faults.get(deployment_id, 0) + 1
                if self._faults[deployment_id] >= MANY_FAULTS:
                    with contextlib.suppress(Exception):  # it may be the very same fault
                        await self._give_up(deployment_id, error)
            else:
                self._faults.pop(deployment_id, None)
        return faults

    async def _give_up(self, deployment_id: str, error: Exception) -> None:
        """End the deploys in progress: a fault that comes back round after round must not look like work."""
        situation = await load_situation(self._ctx.store, deployment_id)
        if situation.jobs:
            known = as_failure(error)
            moves = tuple(
                Move(version, VersionState.FAILED, str(known.reason), known.message)
                for version in situation.versions
                if version.version_id in situation.jobs
            )
            async with self._ctx.store.transaction() as tx:
                await self._write(tx, situation, Plan(moves=moves))

    async def _reconcile(self, deployment_id: str, host: Host) -> None:
        del self._due[deployment_id]
        try:
            situation = await load_situation(self._ctx.store, deployment_id)
            self._warm.note(deployment_id, (str(v.runtime.engine) for v in situation.versions if v.state in LIVE))
            facts, now = self._facts(situation, host), self._ctx.clock.now()
            plan = plan_rollout(situation.deployment, situation.versions, situation.replicas, facts, now)
            await self._apply(situation, plan, host)
        except BaseException as error:
            self.look_at(deployment_id)
            if isinstance(error, Stale):  # a request changed the rows meanwhile
                return
            raise
        if plan.moves or plan.drain:
            self.look_at(deployment_id)
        elif plan.wake_at is not None:
            wait_s = (plan.wake_at - self._ctx.clock.now()).total_seconds()
            self._due.setdefault(deployment_id, self._ctx.clock.monotonic() + wait_s)
        if plan.lacking or plan.waiting or situation.is_moving():
            self._due.setdefault(deployment_id, self._ctx.clock.monotonic() + UNSETTLED_EVERY_S)

    def _facts(self, situation: Situation, host: Host) -> Facts:
        ctx = self._ctx
        waiting = [v for v in situation.versions if v.state in (VersionState.PENDING, VersionState.OPTIMIZING)]
        cached = {version.version_id: key for version in waiting if (key := _cached(ctx, situation.model, version))}
        live = [v for v in situation.versions if v.state in LIVE]
        need = max((v.runtime.memory_bytes for v in live if v.runtime.device != "cuda"), default=1)
        growing = self._replicas.still_growing()
        room = room_on_a_cpu(host, need, growing)
        return Facts(
            cached=cached,
            unmade=self._preparations.failures,
            cancelled=frozenset(version_id for version_id, job in situation.jobs.items() if job.cancel_requested),
            desired=self._autoscaler.desired(situation.deployment.deployment_id),
            running={r.replica_id: ctx.router.open_requests(r.replica_id) for r in situation.replicas},
            room=room.count,
            settling=room.settling,
            rooms={v.version_id: own for v in live if (own := self._own_room(v, situation.model, host, need, growing))},
        )

    def _own_room(self, version: Version, model: Model, host: Host, need: int, growing: int) -> Room | None:
        """That of a version on GPUs, and of one whose replicas may share engines with others."""
        group = self._replicas.engine_group(version, model)
        seat = seat_bytes(model.card)
        if version.runtime.device == "cuda":
            return room_on_gpus(host, version.runtime, group, version.version_id, seat)
        engines = engines_beside(self._living, group, version.version_id)
        return room_on_a_cpu(host, need, growing, engines, seat) if engines else None

    async def _apply(self, situation: Situation, plan: Plan, host: Host) -> None:
        """Route first, so that a version is never called Deployed before requests reach it; then the rows; then
        processes.
        """
        self._follow(situation, plan)
        self._publisher.publish(situation, plan)
        created: list[Replica] = []
        decisions = self._autoscaler.untold(situation.deployment.deployment_id)
        events = self._events(situation, plan, decisions, host)
        if plan.moves or plan.drain or plan.starts or situation.jobs or events:  # a quiet round takes no writer's turn
            async with self._ctx.store.transaction() as tx:
                created = await self._write(tx, situation, plan)
                for event in events:
                    await tx.events.add(event)
        self._autoscaler.told(situation.deployment.deployment_id, decisions)  # the events are written: not again
        self._shortages.note(situation, plan, host)
        for version in plan.prepare:
            self._preparations.ensure(version, situation.model)
        for move in plan.moves:
            if move.to is VersionState.FAILED:
                self._preparations.cancel(move.version.version_id)
        versions = {version.version_id: version for version in situation.versions}
        await asyncio.gather(
            *(self._replicas.start(replica, versions[replica.version_id], situation.model) for replica in created)
        )
        for drain in plan.drain:
            self._replicas.watch_drain(drain.replica.replica_id)
        for replica in plan.stop:
            self._replicas.stop(replica.replica_id)

    def _follow(self, situation: Situation, plan: Plan) -> None:
        """Scale what is served, and what is waited for, by its demand."""
        version = plan.route or plan.awaited
        if version is not None:
            scaling, deployment_id = version.spec.scaling, situation.deployment.deployment_id
            self._autoscaler.follow(deployment_id, scaling, situation.staying(version))

    def _events(self, situation: Situation, plan: Plan, decisions: Sequence[Decision], host: Host) -> list[Event]:
        """Why the number of replicas changes, and why it does not although it should: told once, not every round."""
        events = [
            self._event(situation, str(decision.before), str(decision.desired), decision.reason, decision.message)
            for decision in decisions
        ]
        if news := self._shortages.news(situation, plan, host):
            there = sum(situation.staying(v) for v in situation.versions) + sum(start.count for start in plan.starts)
            wanted = there + plan.lacking + plan.waiting
            events.append(self._event(situation, str(there), str(wanted), *news))
        return events

    def _event(self, situation: Situation, before: str, after: str, reason: str, message: str) -> Event:
        return Event(
            event_id=new_id("ev"),
            at=self._ctx.clock.now(),
            subject=situation.deployment.deployment_id,
            before=f"{before} replica(s)",
            after=f"{after} replica(s)",
            reason=reason,
            message=message,
            actor=SYSTEM,
            deployment_id=situation.deployment.deployment_id,
            model_id=situation.deployment.model_id,
        )

    async def _write(self, tx: Transaction, situation: Situation, plan: Plan) -> list[Replica]:
        """The rows of a plan, all or none; returns the replicas to start once they are committed."""
        for move in plan.moves:
            await self._move(tx, move)
            await self._jobs.tell_move(tx, situation, move)
        for drain in plan.drain:
            await tx.transition(
                drain.replica,
                ReplicaState.DRAINING,
                reason=drain.reason,
                message=drain.message,
                actor=SYSTEM,
                now=self._ctx.clock.now(),
            )
        await self._jobs.tell_progress(tx, situation, {move.version.version_id for move in plan.moves})
        return [
            await self._replicas.create(tx, start.version, start.restarts)
            for start in plan.starts
            for _ in range(start.count)
        ]

    async def _move(self, tx: Transaction, move: Move) -> None:
        now = self._ctx.clock.now()
        version = move.version
        changes: dict[str, Any] = {}
        if move.to is VersionState.DEPLOYING:
            changes = {"artifact_key": move.artifact_key}
        elif move.to is VersionState.DEPLOYED:
            changes = {"deployed_at": now}
        elif move.to is VersionState.FAILED:
            tail = move.failure.log_tail if move.failure else ()
            version = replace(version, reason=Reason(move.reason), message=move.message, log_tail=tail)
        await tx.transition(
            version, move.to, reason=move.reason, message=move.message, actor=SYSTEM, now=now, **changes
        )


def _cached(ctx: Context, model: Model, version: Version) -> str | None:
    engine = version.runtime.engine
    return ctx.preparer.cached(model.weights_for(engine) or "", str(engine), str(version.spec.quantization))
