"""All rows that belong to one deployment, read in one go."""

from collections.abc import Sequence
from dataclasses import dataclass

from dockyard.domain.deployment import Deployment, Version
from dockyard.domain.job import Action, Job
from dockyard.domain.lifecycle import REPLICA, ReplicaState
from dockyard.domain.model import Model
from dockyard.domain.replica import Replica
from dockyard.store.database import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """A deployment with its model, versions, and replicas, the ended ones included. `jobs`: of versions whose deploy is
    in progress, by version id.
    """

    deployment: Deployment
    model: Model
    versions: Sequence[Version]
    replicas: Sequence[Replica]
    jobs: dict[str, Job]

    def replicas_of(self, version: Version) -> list[Replica]:
        return [replica for replica in self.replicas if replica.version_id == version.version_id]

    def is_moving(self) -> bool:
        """Whether it is on its way to another state: a job or a replica has not arrived."""
        return bool(self.jobs) or any(
            not REPLICA.is_final(replica.state) and replica.state is not ReplicaState.READY for replica in self.replicas
        )

    def staying(self, version: Version) -> int:
        """How many replicas a version has that live and are not about to leave."""
        return sum(
            1
            for replica in self.replicas_of(version)
            if not REPLICA.is_final(replica.state) and replica.state is not ReplicaState.DRAINING
        )


async def load_situation(store: Store, deployment_id: str) -> Situation:
    async with store.reading() as tx:
        deployment = await tx.deployments.get(deployment_id)
        jobs = await tx.jobs.open_for_deployment(deployment_id)
        return Situation(
            deployment=deployment,
            model=await tx.models.get(deployment.model_id),
            versions=await tx.versions.of_deployment(deployment_id),
            replicas=await tx.replicas.of_deployment(deployment_id),
            jobs={job.version_id: job for job in jobs if job.action is Action.DEPLOY and job.version_id},
        )
