"""Which replicas have which GPUs: a ledger. It reads nothing, and the time is told to it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dockyard.domain.gpus import EngineOnGpus


@dataclass(slots=True)
class Holder:
    """A replica. `leader`: its process, once there is one, whose session is its own."""

    version_id: str = ""
    leader: int | None = None
    ending: bool = False


@dataclass(slots=True)
class Grant:
    """GPUs that are given out: to one replica, or to the engine that the replicas of a `group` share.

    `holders`: the replicas that live; once all have gone, the last ones. `before`: what each GPU had in use when it was
    given out, and `share`, how much of it was free; not known of an adopted replica's. `pids`: seen on the GPUs.
    `engine`: the process that the holders share, as last seen, and `engine_lives`.
    """

    uuids: tuple[str, ...]
    holders: dict[str, Holder]
    group: str = ""
    before: Mapping[str, int] = field(default_factory=dict[str, int])
    share: float | None = None
    pids: set[int] = field(default_factory=set[int])
    engine: int | None = None
    engine_lives: bool = False
    engine_killed: bool = False
    ended_at: float | None = None  # the last holder's process is gone

    @property
    def name(self) -> str:
        """The replica by which the grant is called: one that stays, if there is one."""
        return min(self.holders, key=lambda replica_id: self.holders[replica_id].ending)

    @property
    def ending(self) -> bool:
        return self.ended_at is not None or all(holder.ending for holder in self.holders.values())

    @property
    def sessions(self) -> set[int]:
        """Of all that may compute on these GPUs for the holders, as their leaders' pids."""
        leaders = {holder.leader for holder in self.holders.values()} | {self.engine}
        return {pid for pid in leaders if pid is not None}

    @property
    def shared(self) -> EngineOnGpus | None:
        """As other replicas may join it; one that outlives its last holder for a moment, too."""
        if not self.group or (self.ended_at is not None and not self.engine_lives):
            return None
        there = () if self.ended_at is not None else self.holders.values()
        return EngineOnGpus(
            group=self.group, uuids=self.uuids, versions=frozenset(holder.version_id for holder in there)
        )


class Grants:
    """Each GPU is in one grant at most, each replica in one."""

    def __init__(self) -> None:
        self._by_gpus: dict[tuple[str, ...], Grant] = {}
        self._of_replica: dict[str, Grant] = {}

    def all(self) -> list[Grant]:
        return list(self._by_gpus.values())

    def by_gpu(self) -> dict[str, Grant]:
        return {uuid: grant for grant in self._by_gpus.values() for uuid in grant.uuids}

    def find(self, uuids: Collection[str]) -> Grant | None:
        return self._by_gpus.get(tuple(uuids))

    def give(self, replica_id: str, holder: Holder, uuids: tuple[str, ...], group: str = "") -> Grant:
        """GPUs to a replica: those that nobody has, or those of the engine that it joins."""
        grant = self._by_gpus.get(uuids)
        if grant is None:
            taken = self.by_gpu().keys() & set(uuids)
            if taken:
                raise AssertionError(f"{taken} are given out already")
            grant = self._by_gpus[uuids] = Grant(uuids, {}, group)
        elif grant.ended_at is not None:
            self._forget_holders(grant)
            grant.ended_at, grant.engine_killed = None, False
        grant.holders[replica_id] = holder
        self._of_replica[replica_id] = grant
        return grant

    def lead(self, replica_id: str, pid: int) -> None:
        """The process of a replica that GPUs were given to."""
        if grant := self._of_replica.get(replica_id):
            grant.holders[replica_id].leader = pid

    def drop(self, replica_id: str, now: float) -> None:
        """There never was a process of this replica; of others that had these GPUs before there may have been."""
        grant = self._of_replica.pop(replica_id, None)
        if grant is None:
            return
        if len(grant.holders) > 1:
            del grant.holders[replica_id]
        elif grant.pids or grant.engine is not None:
            self._end(grant, now)
        else:
            self.release(grant)

    def note_ending(self, replica_id: str) -> None:
        """It was asked to end."""
        if grant := self._of_replica.get(replica_id):
            grant.holders[replica_id].ending = True

    def note_ended(self, living: Collection[str], now: float) -> bool:
        """The replicas whose processes live. Returns whether the last holder of some GPUs has gone."""
        ended = False
        for grant in self._by_gpus.values():
            gone = [replica_id for replica_id in grant.holders if replica_id not in living]
            if grant.ended_at is not None or not gone:
                continue
            if len(gone) == len(grant.holders):
                self._end(grant, now)
                ended = True
                continue
            for replica_id in gone:
                del grant.holders[replica_id], self._of_replica[replica_id]
        return ended

    def release(self, grant: Grant) -> None:
        """Nothing is left on these GPUs."""
        self._forget_holders(grant)
        del self._by_gpus[grant.uuids]

    def _end(self, grant: Grant, now: float) -> None:
        """Whether its engine goes on is for the next look to find out."""
        grant.ended_at, grant.engine_lives = now, False

    def _forget_holders(self, grant: Grant) -> None:
        for replica_id in grant.holders:
            self._of_replica.pop(replica_id, None)
        grant.holders.clear()
