"""What the gateway is told: which deployments are served, by which replicas, and why one is not served any more."""

from collections.abc import Collection, Sequence

from dockyard.domain.lifecycle import ReplicaState, VersionState
from dockyard.domain.plan import Plan
from dockyard.domain.replica import Replica
from dockyard.errors import Unavailable
from dockyard.loops.situation import Situation
from dockyard.protocols.routing import Route, RouteReplica
from dockyard.services.context import Context
from dockyard.services.routes import route_of

START_AGAIN_S = 30.0  # a deploy that failed wants a person; that is the soonest that asking again could help


class Publisher:
    """Publishes a route when it differs from the one that is published."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def publish(self, situation: Situation, plan: Plan) -> None:
        """Tell the gateway in one step. Requests for a version that is on its way wait for its replicas."""
        if plan.route is not None:
            leaving = {replica.replica_id for replica in (*(drain.replica for drain in plan.drain), *plan.stop)}
            staying = [r for r in situation.replicas_of(plan.route) if r.replica_id not in leaving]
            self._put(route_of(situation.deployment, plan.route, self._routed(staying)))
        elif plan.awaited is not None:
            self._put(route_of(situation.deployment, plan.awaited, ()))
        elif situation.deployment.wanted:
            self._withdraw_failed(situation, plan)

    def published(self) -> tuple[str, ...]:
        """The deployments that have a route now."""
        return tuple(self._ctx.router.published())

    def withdraw(self, deployment_ids: Collection[str]) -> None:
        for deployment_id in deployment_ids:
            self._ctx.router.withdraw(deployment_id)

    def _put(self, route: Route) -> None:
        if self._ctx.router.published().get(route.deployment_id) != route:
            self._ctx.router.publish(route)

    def _withdraw_failed(self, situation: Situation, plan: Plan) -> None:
        """Whoever waited for a start that failed is told why. A route that a later deploy has just made stays."""
        route = self._ctx.router.published().get(situation.deployment.deployment_id)
        if route is None or all(version.version_id != route.version_id for version in situation.versions):
            return
        failed = [move.message for move in plan.moves if move.to is VersionState.FAILED]
        why = failed[-1] if failed else "its deploy failed"
        refusal = Unavailable(f"'{situation.deployment.name}' could not start: {why}", retry_after_s=START_AGAIN_S)
        self._ctx.router.withdraw(situation.deployment.deployment_id, refusal)

    def _routed(self, replicas: Sequence[Replica]) -> tuple[RouteReplica, ...]:
        statuses = self._ctx.fleet.statuses()
        return tuple(
            RouteReplica(replica_id=replica.replica_id, address=status.address, capacity=max(1, status.health.capacity))
            for replica in replicas
            if replica.state is ReplicaState.READY
            and (status := statuses.get(replica.replica_id)) is not None
            and status.alive
            and status.health is not None
        )
