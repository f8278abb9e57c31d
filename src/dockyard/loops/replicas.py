"""Replica processes for the reconciler: rows before processes, stops that do not hold up a round, drains watched."""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import structlog

from dockyard.domain.deployment import Version
from dockyard.domain.fit import cache_on_a_cpu
from dockyard.domain.ids import new_id
from dockyard.domain.lifecycle import ReplicaState
from dockyard.domain.model import Model
from dockyard.domain.replica import Replica, ReplicaFailure
from dockyard.domain.threads import most_replicas, threads_per_replica
from dockyard.engines.groups import group_of
from dockyard.errors import Failed
from dockyard.protocols.generation import Adapter, WorkerSpec
from dockyard.services.context import SYSTEM, Context
from dockyard.store.transaction import Transaction

log = structlog.get_logger()

STOP_GRACE_S = 5.0  # for a replica that nothing runs on any more: time to end by itself before it is killed


class Replicas:
    """Creates, starts and stops replicas. Each stop and each drain is awaited in a task of its own."""

    def __init__(self, ctx: Context, threads: int | None) -> None:
        self._ctx = ctx
        self._threads = threads
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def create(self, tx: Transaction, version: Version, restarts: int) -> Replica:
        """The row of a replica, before its process: whatever dies in between leaves a row, never an orphan."""
        now = self._ctx.clock.now()
        replica = Replica(
            replica_id=new_id("rp"),
            version_id=version.version_id,
            deployment_id=version.deployment_id,
            token=secrets.token_urlsafe(32),
            created_at=now,
            modified_at=now,
            engine=str(version.runtime.engine),
            compute_type=version.runtime.compute_type,
            runs_on=version.runtime.runs_on,
            restarts=restarts,
        )
        await tx.replicas.add(replica)
        return replica

    async def start(self, replica: Replica, version: Version, model: Model) -> None:
        """Start the process of a created replica and note which one it is."""
        now, spec = self._ctx.clock.now(), self._spec(version, model, replica.replica_id, replica.token)
        try:
            status = await self._ctx.fleet.start(spec)
        except Failed as error:
            failure = ReplicaFailure(reason=error.reason, message=error.message, at=now, log_tail=error.log_tail)
            async with self._ctx.store.transaction() as tx:
                await tx.transition(
                    replica,
                    ReplicaState.FAILED,
                    reason=error.reason,
                    message=error.message,
                    actor=SYSTEM,
                    now=now,
                    failure=failure,
                    stopped_at=now,
                )
            return
        identified = replace(
            replica,
            pid=status.pid,
            process_started_at=status.process_started_at,
            socket=status.address.socket,
            started_at=now,
            gpus=status.gpus,
            engine_group=spec.adapter.group if spec.adapter else "",
        )
        async with self._ctx.store.transaction() as tx:
            await tx.transition(
                identified,
                ReplicaState.STARTING,
                reason="STARTED",
                message=f"process {status.pid}" + (f" on {', '.join(status.gpus)}" if status.gpus else ""),
                actor=SYSTEM,
                now=now,
            )

    def stop(self, replica_id: str) -> None:
        """End a replica in the background; its row follows when it is seen to be gone."""
        self._run("stop", replica_id, lambda: self._ctx.fleet.stop(replica_id, grace_s=STOP_GRACE_S))

    def watch_drain(self, replica_id: str) -> None:
        """Wake the reconciler as soon as the replica's last request has ended."""
        self._run("drain", replica_id, lambda: self._ctx.router.drained(replica_id))

    def still_growing(self) -> int:
        """How many replicas have started and not yet loaded: their memory is spoken for and not yet taken."""
        statuses = self._ctx.fleet.statuses().values()
        return sum(
            1
            for status in statuses
            if status.alive and (status.health is None or status.health.phase not in ("ready", "draining"))
        )

    def engine_group(self, version: Version, model: Model) -> str:
        """Of the replicas with which those of this version may share an engine; empty where they do not."""
        if version.artifact_key is None or version.artifact_key != model.apart_key:
            return ""
        adapter = self._spec(version, model).adapter
        return adapter.group if adapter is not None else ""

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _run(self, what: str, replica_id: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if (what, replica_id) in self._tasks:
            return
        task = asyncio.create_task(work(), name=f"{what} {replica_id}")
        self._tasks[what, replica_id] = task
        task.add_done_callback(lambda done: self._done(what, replica_id, done))

    def _done(self, what: str, replica_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop((what, replica_id), None)
        if not task.cancelled() and (error := task.exception()):
            log.error("a replica could not be ended; it is tried again", what=what, replica=replica_id, exc_info=error)
        self._ctx.wake()

    def _spec(self, version: Version, model: Model, replica_id: str = "", token: str = "") -> WorkerSpec:
        assert model.card is not None
        assert model.weights_key is not None
        card, runtime, folder = model.card, version.runtime, self._ctx.preparer.artifact_dir
        apart = model.apart_key if version.artifact_key == model.apart_key else None
        adapter = None
        if apart is not None and card.adapter is not None:
            adapter = Adapter(folder=folder(apart), rank=card.adapter.rank, version_id=version.version_id)
            weights = card.adapter.base_key
        else:
            weights = version.artifact_key or model.weights_key
        spec = WorkerSpec(
            replica_id=replica_id,
            token=token,
            engine=str(runtime.engine),
            artifact_dir=folder(weights),
            model_dir=folder(apart or model.weights_key),
            family=str(card.family),
            device=runtime.device,
            compute_type=runtime.compute_type,
            max_batch_size=version.spec.scaling.max_batch_size,
            context_length=runtime.context_length,
            threads=self._threads or self._share_of_cores(version, card.parameters),
            eos_token_ids=list(card.eos_token_ids),
            decoder_start_token_id=card.decoder_start_token_id,
            forced_bos_token_id=card.forced_bos_token_id,
            cache_bytes=cache_on_a_cpu(card, runtime, version.spec.scaling.max_batch_size),
            adapter=adapter,
            gpus=runtime.gpus,
            gpu_bytes=runtime.bytes_each if runtime.gpus else 0,
        )
        if adapter is not None:
            adapter.group = group_of(spec)
        return spec

    def _share_of_cores(self, version: Version, parameters: int) -> int:
        host = self._ctx.host()
        replicas = most_replicas(version.spec.scaling, host.memory_bytes, version.runtime.memory_bytes)
        return threads_per_replica(version.runtime.engine, parameters, host.cores, replicas)
