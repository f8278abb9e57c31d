"""The GPUs of the host: which of them may be given out, and which a replica gets. Pure; nothing is read here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

USABLE_SHARE = 0.92  # of a GPU's memory; the rest is the driver's and fragmentation
Capability = tuple[int, int]
OLDEST = (7, 0)  # what the engines compute float16 on; the published devices begin at 7.5
BFLOAT16_FROM = (8, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOnGpus:
    """An engine that several replicas use, and that has the GPUs `uuids` for all of them.

    `group`: what a replica must agree in to join it; `versions`: of which one is there already, so that a second one of
    the same does not.
    """

    group: str
    uuids: tuple[str, ...]
    versions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostGpu:
    """One GPU. `index` as `nvidia-smi` numbers it; `others_bytes` is what processes that are not ours take of it.

    `replica_id`: who has it, or one of those who share it. `ending`: they are all on their way out; `awaits` then says
    what is waited for, once their processes are gone and their memory is not. `engine`: which runs here and takes more
    replicas. `fault`: why it is not given out at all.
    """

    uuid: str
    index: int
    model: str
    total_bytes: int
    free_bytes: int
    others_bytes: int = 0
    capability: Capability = (0, 0)
    replica_id: str | None = None
    ending: bool = False
    awaits: str | None = None
    engine: EngineOnGpus | None = None
    fault: str | None = None

    def could_hold(self, need_bytes: int) -> bool:
        """Whether a replica that needs so much on each GPU may run here, were it free."""
        return self.fault is None and int(self.total_bytes * USABLE_SHARE) >= need_bytes

    def can_hold(self, need_bytes: int) -> bool:
        """Whether it may run here now: nobody of ours has it, and what others use leaves enough."""
        return self.replica_id is None and self.could_hold(need_bytes) and self.free_bytes >= need_bytes


def choose_gpus(gpus: Iterable[HostGpu], count: int, need_bytes: int) -> tuple[HostGpu, ...] | None:
    """`count` GPUs of one kind for a replica that needs `need_bytes` on each; None where there are not so many.

    Those that nobody else uses come first; then the smallest that do, so that the large ones are left for who needs
    them.
    """
    choices: list[tuple[HostGpu, ...]] = []
    for alike in _kinds([gpu for gpu in gpus if gpu.can_hold(need_bytes)]):
        if len(alike) >= count:
            choices.append(tuple(sorted(alike, key=_order)[:count]))
    return min(choices, key=lambda chosen: max(_order(gpu) for gpu in chosen), default=None)


def sets_free(gpus: Iterable[HostGpu], count: int, need_bytes: int) -> int:
    """How many more replicas of `count` GPUs each have room now."""
    able = [gpu for gpu in gpus if gpu.can_hold(need_bytes)]
    return sum(len(alike) // max(1, count) for alike in _kinds(able))


def engines_to_join(gpus: Iterable[HostGpu], group: str, version_id: str) -> tuple[EngineOnGpus, ...]:
    """Those that a replica of this version may join without GPUs of its own, in the order in which it tries them.

    Replicas of one version never share: the second one is there to compute beside the first.
    """
    known = list(gpus)
    faulty = {gpu.uuid for gpu in known if gpu.fault is not None}
    engines = dict.fromkeys(gpu.engine for gpu in sorted(known, key=lambda gpu: gpu.index) if gpu.engine is not None)
    alike = [engine for engine in engines if group and engine.group == group and version_id not in engine.versions]
    return tuple(engine for engine in alike if faulty.isdisjoint(engine.uuids))


def stand_ins(gpus: Iterable[HostGpu], count: int) -> Sequence[HostGpu]:
    """The GPUs of one kind that can stand in for a device of `count`: those with most memory; empty: not enough."""
    kinds = [alike for alike in _kinds([gpu for gpu in gpus if gpu.fault is None]) if len(alike) >= count]
    return max(kinds, key=lambda alike: min(gpu.total_bytes for gpu in alike), default=())


def _kinds(gpus: Sequence[HostGpu]) -> list[list[HostGpu]]:
    kinds: dict[tuple[str, Capability], list[HostGpu]] = {}
    for gpu in gpus:
        kinds.setdefault((gpu.model, gpu.capability), []).append(gpu)
    return list(kinds.values())


def _order(gpu: HostGpu) -> tuple[bool, int, int]:
    return gpu.others_bytes > 0, gpu.total_bytes, gpu.index
