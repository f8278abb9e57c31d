"""What a deploy's job is told as its version moves on: phases in order, how far its replicas are, and how it ended."""

from dataclasses import dataclass
from datetime import datetime

from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.job import Job, Phase, advance, fail, succeed
from dockyard.domain.lifecycle import VersionState
from dockyard.domain.plan import Move
from dockyard.domain.progress import Stage, deploy_progress
from dockyard.errors import Reason
from dockyard.loops.situation import Situation
from dockyard.services.context import Context
from dockyard.store.transaction import Transaction

# The phases that a deploy passes after its artifact is there; a fast start shows them all the same, in order.
_START_PHASES = (Phase.PROVISIONING, Phase.LOADING, Phase.WARMING_UP, Phase.ROUTING)


@dataclass(frozen=True, slots=True)
class DeployJobs:
    """Writes to the jobs of deploys that are in progress. `base_url`: where clients reach the server."""

    ctx: Context
    base_url: str

    async def tell_move(self, tx: Transaction, situation: Situation, move: Move) -> None:
        job = situation.jobs.get(move.version.version_id)
        if job is not None:
            await tx.jobs.save(self._after(job, situation.deployment, move, self.ctx.clock.now()))

    async def tell_progress(self, tx: Transaction, situation: Situation, moved: set[str]) -> None:
        """Tell the jobs of starting versions, except those that `moved` (version ids), how far their replicas are."""
        statuses = self.ctx.fleet.statuses()
        for version in situation.versions:
            job = situation.jobs.get(version.version_id)
            if job is None or version.state is not VersionState.DEPLOYING or version.version_id in moved:
                continue
            own = situation.replicas_of(version)
            healths = [status.health for r in own if (status := statuses.get(r.replica_id)) and status.alive]
            told = deploy_progress(
                [Stage(h.phase, h.share, h.progress) if h else Stage("starting") for h in healths],
                version.spec.scaling.min_replicas,
                str(version.runtime.engine),
                sum(1 for replica in own if replica.failure is not None),
            )
            if (told.phase, told.message) != (job.phase, job.message):
                now = self.ctx.clock.now()
                await tx.jobs.save(_arrive(job, version, told.phase, told.message, now, told.share))

    def _after(self, job: Job, deployment: Deployment, move: Move, now: datetime) -> Job:
        version = move.version
        if move.to is VersionState.FAILED:
            tail = move.failure.log_tail if move.failure else ()
            return fail(job, Reason(move.reason), move.message, now, tail)
        if move.to is VersionState.DEPLOYED:
            job = _arrive(job, version, Phase.ROUTING, _passed(Phase.ROUTING, version), now, 1.0)
            return succeed(job, f"{version.name} serves", now, self._response(deployment, version))
        if version.state is VersionState.PENDING:
            checked = "request, model, engine, quantization and device are in order"
            job = advance(job, Phase.VALIDATING, checked, now, 1.0)
        if move.to is VersionState.OPTIMIZING:
            return advance(job, Phase.OPTIMIZING, f"makes the artifact for {version.runtime.engine}", now)
        return advance(job, Phase.PROVISIONING, "the artifact is ready; replicas start", now)

    def _response(self, deployment: Deployment, version: Version) -> dict[str, object]:
        """What a client needs once it is deployed; also what the replicas really run on."""
        return {
            "model": deployment.name,
            "deploymentId": deployment.deployment_id,
            "version": version.number,
            "versionName": version.name,
            "endpoints": {
                "baseUrl": f"{self.base_url}/v1",
                "chatCompletions": f"{self.base_url}/v1/chat/completions",
                "completions": f"{self.base_url}/v1/completions",
            },
            "engine": str(version.runtime.engine),
            "device": version.runtime.device,
            "runsOn": version.runtime.runs_on,
            "computeType": version.runtime.compute_type,
            "contextLength": version.runtime.context_length,
        }


def _arrive(job: Job, version: Version, phase: Phase, message: str, now: datetime, share: float) -> Job:
    """`job` at a phase of the start. Those before it that were too short to be seen are told, too, in order; what a
    phase that is over says is that it is over.
    """
    if job.logs and job.logs[-1].phase in _START_PHASES and job.logs[-1].phase is not phase:
        job = advance(job, job.logs[-1].phase, _passed(job.logs[-1].phase, version), now)
    told = {line.phase for line in job.logs}
    for earlier in _START_PHASES[: _START_PHASES.index(phase)]:
        if earlier not in told:
            job = advance(job, earlier, _passed(earlier, version), now, 1.0)
    return advance(job, phase, message, now, share)


def _passed(phase: Phase, version: Version) -> str:
    wanted, engine = version.spec.scaling.min_replicas, version.runtime.engine
    return {
        Phase.PROVISIONING: f"{wanted} {engine} replica(s) started",
        Phase.LOADING: "weights loaded",
        Phase.WARMING_UP: "a real generation succeeded",
        Phase.ROUTING: "requests go to this version",
    }[phase]
