"""Deployments that want more replicas than the host has room for: told so once, looked at again when that changes."""

from collections.abc import Collection

from dockyard.domain.deployment import LIVE
from dockyard.domain.devices import Host
from dockyard.domain.fit import in_gib
from dockyard.domain.gpus import HostGpu
from dockyard.domain.plan import Plan
from dockyard.errors import Reason
from dockyard.loops.situation import Situation

WAITS_FOR_GPU = "WAITS_FOR_GPU"


class Shortages:
    """`short`: the deployments that lack replicas, or wait for some, as of the last plan of each."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}  # deployment → the reason of the last event
        self._free: frozenset[object] = frozenset()

    @property
    def short(self) -> Collection[str]:
        return self._told.keys()

    def keep_only(self, deployment_ids: Collection[str]) -> None:
        self._told = {known: reason for known, reason in self._told.items() if known in deployment_ids}

    def gpus_changed(self, host: Host) -> bool:
        """Whether other GPUs are free than when this was asked last, or other engines to join."""
        able = [gpu for gpu in host.gpus if gpu.fault is None]
        free = {(gpu.uuid, gpu.free_bytes) for gpu in able if gpu.replica_id is None}
        before, self._free = self._free, frozenset((*free, *(gpu.engine for gpu in able)))
        return self._free != before

    def news(self, situation: Situation, plan: Plan, host: Host) -> tuple[str, str] | None:
        """Reason and message of the event to write; None where there is nothing new to tell."""
        found = _shortage(situation, plan, host)
        told = self._told.get(situation.deployment.deployment_id)
        return found if found is not None and found[0] != told else None

    def note(self, situation: Situation, plan: Plan, host: Host) -> None:
        """What `news` said is written."""
        deployment_id = situation.deployment.deployment_id
        found = _shortage(situation, plan, host)
        if found is not None:
            self._told[deployment_id] = found[0]
        else:
            self._told.pop(deployment_id, None)


def _shortage(situation: Situation, plan: Plan, host: Host) -> tuple[str, str] | None:
    awaits = [gpu.awaits for gpu in host.gpus if gpu.awaits]
    on_gpus = [v.runtime for v in situation.versions if v.state in LIVE and v.runtime.device == "cuda"]
    if plan.waiting and on_gpus and awaits:
        message = f"{plan.waiting} replica(s) wait for memory of ones that have ended: {'; '.join(awaits)}"
        return WAITS_FOR_GPU, message
    if not plan.lacking:
        return None
    there = sum(situation.staying(v) for v in situation.versions) + sum(start.count for start in plan.starts)
    if not on_gpus:
        return str(Reason.NO_CAPACITY), (
            f"the host has no memory free for {plan.lacking} more replica(s); {there} go on serving the queue. "
            "Undeploy something, or lower maxReplicas or maxBatchSize"
        )
    need = max(on_gpus, key=lambda runtime: runtime.bytes_each)
    seen = "; ".join(map(_told, host.gpus)) or host.gpu_trouble or "it has no GPU"
    return str(Reason.NO_CAPACITY), (
        f"the host has no room for {plan.lacking} more replica(s) of {need.gpus} GPU(s) with {in_gib(need.bytes_each)} "
        f"each: {seen}. {there} go on serving the queue. Undeploy something, or lower maxReplicas"
    )


def _told(gpu: HostGpu) -> str:
    state = gpu.fault or (f"{gpu.replica_id}'s" if gpu.replica_id else f"{in_gib(gpu.free_bytes)} free")
    return f"GPU {gpu.index} {state}"
