"""The rollout plan in a world that lives: deploys, rollbacks, cancels, undeploys, crashes, load and restarts at random.

Each round asks for a plan, checks what it must never do, and applies it as the reconciler does. In the end nothing goes
wrong any more, and everything must come to rest.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.unit.domain.rollout_rules import Snapshot, check

from dockyard.domain.deployment import LIVE, Deployment, Runtime, Version
from dockyard.domain.lifecycle import REPLICA, ReplicaState, VersionState
from dockyard.domain.plan import Facts, Plan
from dockyard.domain.replica import Replica, ReplicaFailure
from dockyard.domain.rollout import plan_rollout
from dockyard.domain.spec import DeploySpec, EngineName, HyperParameters, Scaling
from dockyard.errors import Reason

BEGAN_AT = datetime(2026, 1, 1, tzinfo=UTC)
ON_THE_WAY = (VersionState.PENDING, VersionState.OPTIMIZING, VersionState.DEPLOYING)
GROWING = (ReplicaState.PENDING, ReplicaState.STARTING, ReplicaState.LOADING)
MANY = 60  # rounds; whatever needs more does not come to rest

scalings = st.tuples(st.integers(1, 3), st.integers(0, 3)).map(
    lambda pair: Scaling(min_replicas=pair[0], max_replicas=sum(pair))
)
whiches = st.integers(0, 1_000)  # which of those there are


class World(RuleBasedStateMachine):
    """One deployment on one host."""

    @initialize(scaling=scalings)
    def begin(self, scaling: Scaling) -> None:
        self.now = BEGAN_AT
        self.deployment = Deployment(
            deployment_id="dp", model_id="cm", name="d", created_at=self.now, modified_at=self.now
        )
        self.versions: dict[str, Version] = {}
        self.replicas: dict[str, Replica] = {}
        self.running: dict[str, int] = {}
        self.stopping: set[str] = set()
        self.cached: set[str] = set()
        self.unmade: dict[str, ReplicaFailure] = {}
        self.cancelled: set[str] = set()
        self.route: Version | None = None
        self.desired: int | None = None
        self.room = 5
        self._deploy(scaling)

    # What clients do

    @precondition(lambda self: self.may_change())
    @rule(scaling=scalings)
    def deploy(self, scaling: Scaling) -> None:
        self._deploy(scaling)

    @precondition(lambda self: self.may_change())
    @rule(which=whiches)
    def roll_back(self, which: int) -> None:
        old = list(self.versions.values())[which % len(self.versions)]
        self._deploy(old.spec.scaling)
        if old.artifact_key:
            self.cached.add(f"vr-{len(self.versions)}")

    @precondition(lambda self: self.may_change() and self.deployment.wanted)
    @rule()
    def undeploy(self) -> None:
        self.deployment = replace(self.deployment, wanted=False)

    @precondition(lambda self: bool(self.on_the_way()))
    @rule()
    def cancel(self) -> None:
        self.cancelled |= {version.version_id for version in self.on_the_way()}

    @rule(which=whiches, count=st.integers(1, 3))
    def requests_come(self, which: int, count: int) -> None:
        if self.route is not None and (served := self.of(self.route, ReplicaState.READY)):
            replica_id = served[which % len(served)].replica_id
            self.running[replica_id] = self.running.get(replica_id, 0) + count

    @precondition(lambda self: bool(self.running))
    @rule(which=whiches)
    def requests_end(self, which: int) -> None:
        self.running.pop(list(self.running)[which % len(self.running)])

    @rule(desired=st.none() | st.integers(0, 8))
    def demand_changes(self, desired: int | None) -> None:
        self.desired = desired

    # What the machine does

    @rule(room=st.integers(-1, 5))
    def memory_comes_and_goes(self, room: int) -> None:
        self.room = room

    @rule(seconds=st.sampled_from([0.01, 1, 5, 61]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @precondition(lambda self: bool(self.on_the_way()))
    @rule(made=st.booleans())
    def an_artifact_is_made_or_cannot_be(self, made: bool) -> None:
        for version in self.on_the_way():
            if version.state is VersionState.OPTIMIZING:
                if made:
                    self.cached.add(version.version_id)
                else:
                    self.unmade[version.version_id] = self.failure(retryable=False)

    @precondition(lambda self: bool(self.living()))
    @rule(which=whiches)
    def a_replica_goes_on(self, which: int) -> None:
        self._go_on(self.living()[which % len(self.living())])

    @rule(steps=st.integers(1, 6))
    def all_goes_well_for_a_while(self, steps: int) -> None:
        for _ in range(steps):
            self.cached |= {version.version_id for version in self.on_the_way()}
            self._round()
            for replica in self.living():
                self._go_on(replica)

    @precondition(lambda self: bool(self.living()))
    @rule(which=whiches, retryable=st.booleans())
    def a_replica_fails(self, which: int, retryable: bool) -> None:
        self._end(self.living()[which % len(self.living())], self.failure(retryable))

    @rule(survivors=st.just(0) | whiches, room=st.integers(0, 5))
    def the_server_is_killed_and_comes_back(self, survivors: int, room: int) -> None:
        """Requests are gone, stops forgotten; some replicas did not outlive it, which is no failure of theirs."""
        self.room = room
        self.running.clear()
        self.stopping.clear()
        self.unmade.clear()
        self.desired = None
        for bit, replica in enumerate(self.living()):
            if not survivors >> bit & 1:
                self._end(replica, None)

    # What the reconciler does

    @rule()
    def a_round(self) -> None:
        self._round()

    @rule()
    def rounds_until_nothing_is_to_do(self) -> None:
        """As the loop does: it looks again at once while a step was made. Without an event that must come to an end."""
        for _ in range(MANY):
            plan = self._round()
            if not (plan.moves or plan.drain or plan.starts):
                return
        raise AssertionError("the plan never comes to rest")

    def teardown(self) -> None:
        """From here on nothing goes wrong, and in the end there is what was wanted last."""
        if not hasattr(self, "deployment"):
            return
        for _ in range(MANY):
            self._a_good_minute()
        assert [v for v in self.versions.values() if v.state in ON_THE_WAY or v.state is VersionState.DRAINING] == []
        serving = [version for version in self.versions.values() if version.state is VersionState.DEPLOYED]
        if not self.deployment.wanted:
            assert serving == self.living() == []
            return
        assert len(serving) <= 1
        assert self.route == (serving[0] if serving else None)
        for version in serving:
            own = self.of(version)
            assert {replica.state for replica in own} == {ReplicaState.READY}
            assert len(own) == self.snapshot().wanted(version)
            assert own == self.living()

    def _a_good_minute(self) -> None:
        self.now += timedelta(seconds=61)
        self.room = 5
        self.running.clear()
        self.cached |= {version.version_id for version in self.on_the_way()}
        for replica in self.living():
            self._go_on(replica)
        self._round()

    def _round(self) -> Plan:
        before = self.snapshot()
        plan = plan_rollout(before.deployment, before.versions, before.replicas, before.facts, before.now)
        check(before, plan)
        self._apply(plan)
        return plan

    def snapshot(self) -> Snapshot:
        growing = [replica for replica in self.living() if replica.state in GROWING]
        facts = Facts(
            cached=dict.fromkeys(self.cached, "key"),
            unmade=dict(self.unmade),
            cancelled=frozenset(self.cancelled),
            desired=self.desired,
            running=dict(self.running),
            room=self.room,
            settling=bool(growing),
        )
        return Snapshot(
            self.deployment, tuple(self.versions.values()), tuple(self.replicas.values()), facts, self.route, self.now
        )

    def _apply(self, plan: Plan) -> None:
        self.route = plan.route
        for move in plan.moves:
            moved = replace(move.version, state=move.to, modified_at=self.now)
            if move.artifact_key:
                moved = replace(moved, artifact_key=move.artifact_key)
            self.versions[moved.version_id] = moved
            if plan.route is not None and plan.route.version_id == moved.version_id:
                self.route = moved
        for drain in plan.drain:
            self._put(drain.replica, state=ReplicaState.DRAINING)
        for start in plan.starts:
            for _ in range(start.count):
                self._start(start.version, start.restarts)
        self.stopping |= {replica.replica_id for replica in plan.stop}

    # The world's own hands

    def _deploy(self, scaling: Scaling) -> None:
        number = len(self.versions) + 1
        self.deployment = replace(self.deployment, wanted=True)
        self.versions[f"vr-{number}"] = Version(
            version_id=f"vr-{number}",
            deployment_id="dp",
            model_id="cm",
            number=number,
            name="d",
            spec=DeploySpec(
                hyper=HyperParameters(temperature=1, max_tokens=10, top_p=1, top_k=50),
                device_type="g5.xlarge",
                scaling=scaling,
            ),
            runtime=RUNTIME,
            job_id=f"ds-{number}",
            created_at=self.now,
            modified_at=self.now,
        )

    def _start(self, version: Version, restarts: int) -> None:
        replica_id = f"rp-{len(self.replicas)}"
        self.replicas[replica_id] = Replica(
            replica_id=replica_id,
            version_id=version.version_id,
            deployment_id="dp",
            token="t",
            created_at=self.now,
            modified_at=self.now,
            state=ReplicaState.STARTING,
            restarts=restarts,
            started_at=self.now,
        )

    def _go_on(self, replica: Replica) -> None:
        """To its end if it was asked to, else to its next state."""
        if replica.replica_id in self.stopping:
            self._end(replica, None)
        elif replica.state is ReplicaState.STARTING:
            self._put(replica, state=ReplicaState.LOADING)
        elif replica.state is ReplicaState.LOADING:
            self._put(replica, state=ReplicaState.READY, ready_at=self.now)

    def _end(self, replica: Replica, failure: ReplicaFailure | None) -> None:
        wanted = replica.replica_id not in self.stopping
        state = ReplicaState.FAILED if failure and wanted else ReplicaState.STOPPED
        self._put(replica, state=state, failure=failure if wanted else None, stopped_at=self.now)
        self.stopping.discard(replica.replica_id)
        self.running.pop(replica.replica_id, None)

    def _put(self, replica: Replica, **changes: object) -> None:
        self.replicas[replica.replica_id] = replace(replica, modified_at=self.now, **changes)  # type: ignore[arg-type]

    def failure(self, retryable: bool) -> ReplicaFailure:
        return ReplicaFailure(reason=Reason.ENGINE_CRASHED, message="boom", at=self.now, retryable=retryable)

    def living(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if not REPLICA.is_final(replica.state)]

    def of(self, version: Version, *states: ReplicaState) -> list[Replica]:
        own = [replica for replica in self.living() if replica.version_id == version.version_id]
        return [replica for replica in own if not states or replica.state in states]

    def on_the_way(self) -> list[Version]:
        return [version for version in self.versions.values() if version.state in ON_THE_WAY]

    def may_change(self) -> bool:
        """No deploy or undeploy is in progress; the services refuse another one until it has ended."""
        undeploying = not self.deployment.wanted and any(v.state in LIVE for v in self.versions.values())
        return not self.on_the_way() and not undeploying


RUNTIME = Runtime(
    engine=EngineName.ECHO,
    device="cpu",
    gpus=0,
    compute_type="none",
    runs_on="cpu",
    context_length=None,
    memory_bytes=1,
)


TestRolloutInALivingWorld = World.TestCase
World.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
