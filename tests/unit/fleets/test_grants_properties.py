"""Whatever comes and goes: no GPU is two engines' at once, no replica is in the wrong engine, and none is lost."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dockyard.domain.gpus import HostGpu, choose_gpus, engines_to_join
from dockyard.fleets.local.grants import Grant, Grants, Holder

UUIDS = tuple(f"GPU-{index}" for index in range(4))
groups = st.sampled_from(["", "g", "h"])
versions = st.sampled_from(["v-1", "v-2", "v-3"])


class Ledger(RuleBasedStateMachine):
    """A host of four GPUs. `living`: replica → version and group; `engines`: of which GPUs one lives."""

    def __init__(self) -> None:
        super().__init__()
        self.grants = Grants()
        self.living: dict[str, tuple[str, str]] = {}
        self.gpus_of: dict[str, tuple[str, ...]] = {}
        self.engines: set[tuple[str, ...]] = set()
        self.count = 0

    def seen(self) -> list[HostGpu]:
        held = self.grants.by_gpu()
        return [self.gpu(index, held.get(uuid)) for index, uuid in enumerate(UUIDS)]

    def gpu(self, index: int, grant: Grant | None) -> HostGpu:
        return HostGpu(
            uuid=UUIDS[index],
            index=index,
            model="A10G",
            total_bytes=100,
            free_bytes=100,
            replica_id=grant.name if grant else None,
            engine=grant.shared if grant else None,
        )

    def give(self, version: str, group: str) -> tuple[str, Grant] | None:
        """Group "h" computes on two GPUs, the others on one."""
        joined = engines_to_join(self.seen(), group, version)
        chosen = choose_gpus(self.seen(), 2 if group == "h" else 1, 10)
        if not joined and chosen is None:
            return None
        self.count += 1
        uuids = joined[0].uuids if joined else tuple(gpu.uuid for gpu in chosen or ())
        return f"rp-{self.count}", self.grants.give(f"rp-{self.count}", Holder(version), uuids, group)

    @rule(version=versions, group=groups)
    def start(self, version: str, group: str) -> None:
        given = self.give(version, group)
        if given is None:
            return
        replica_id, grant = given
        self.grants.lead(replica_id, 1000 + self.count)
        self.living[replica_id], self.gpus_of[replica_id] = (version, group), grant.uuids
        if group:
            self.engines.add(grant.uuids)
            grant.engine, grant.engine_lives = self.count, True

    @rule(version=versions, group=groups)
    def start_in_vain(self, version: str, group: str) -> None:
        """The process could not be made."""
        given = self.give(version, group)
        if given is not None:
            self.grants.drop(given[0], 1.0)

    @precondition(lambda self: self.living)
    @rule(data=st.data(), asked=st.booleans())
    def end(self, data: st.DataObject, asked: bool) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.living)))
        if asked:
            self.grants.note_ending(replica_id)
        del self.living[replica_id], self.gpus_of[replica_id]
        self.grants.note_ended(self.living.keys(), 1.0)

    @precondition(lambda self: self.engines)
    @rule(data=st.data())
    def end_engine(self, data: st.DataObject) -> None:
        """And all its replicas with it, if there are any."""
        uuids = data.draw(st.sampled_from(sorted(self.engines)))
        self.engines.discard(uuids)
        for replica_id in [known for known, own in self.gpus_of.items() if own == uuids]:
            del self.living[replica_id], self.gpus_of[replica_id]
        self.grants.note_ended(self.living.keys(), 1.0)

    @rule()
    def look(self) -> None:
        for grant in self.grants.all():
            grant.engine_lives = grant.uuids in self.engines
            if grant.ended_at is not None and not grant.engine_lives:
                self.grants.release(grant)

    @invariant()
    def each_gpu_is_given_once(self) -> None:
        given = [uuid for grant in self.grants.all() for uuid in grant.uuids]
        assert len(given) == len(set(given))

    @invariant()
    def each_replica_has_its_gpus(self) -> None:
        for replica_id, uuids in self.gpus_of.items():
            grant = self.grants.find(uuids)
            assert grant is not None
            assert replica_id in grant.holders
            assert grant.ended_at is None
            assert grant.name in self.living

    @invariant()
    def only_those_share_that_may(self) -> None:
        for grant in self.grants.all():
            own = [self.living[replica_id] for replica_id in grant.holders if replica_id in self.living]
            assert len({version for version, _ in own}) == len(own)
            assert len(own) <= 1 or {group for _, group in own} == {grant.group} != {""}

    @invariant()
    def nobody_joins_what_has_ended(self) -> None:
        ended = [grant for grant in self.grants.all() if grant.ended_at is not None and not grant.engine_lives]
        assert [grant.shared for grant in ended] == [None] * len(ended)

    @invariant()
    def the_gpus_of_an_engine_are_held_while_it_lives(self) -> None:
        assert all(self.grants.find(uuids) is not None for uuids in self.engines)

    def teardown(self) -> None:
        """Once all has ended all GPUs are free."""
        self.living.clear()
        self.gpus_of.clear()
        self.engines.clear()
        self.grants.note_ended((), 1.0)
        self.look()
        assert self.grants.all() == []
        assert self.grants.by_gpu() == {}


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
