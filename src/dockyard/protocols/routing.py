"""What the control plane tells the gateway (`Router`) and what the gateway may ask of the keys (`Keyring`).

Both live in memory: the request path never touches the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dockyard.domain.access import Scope
from dockyard.domain.spec import HyperParameters
from dockyard.errors import DockyardError
from dockyard.protocols.fleet import ReplicaAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteReplica:
    """A replica that is ready. `capacity`: the most requests the gateway may have open on it at once."""

    replica_id: str
    address: ReplicaAddress
    capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where requests for a deployment go, as of now. Publishing the same deployment again replaces it in one step.

    `replicas` may be empty while the first ones start or restart: requests then wait, up to the endpoint timeout.
    """

    deployment_id: str
    model_id: str
    name: str
    version_id: str
    version_name: str
    engine: str
    hyper: HyperParameters
    endpoint_timeout_s: int
    created_at: datetime
    replicas: tuple[RouteReplica, ...]


class Router(Protocol):
    def published(self) -> Mapping[str, Route]:
        """What is published now, by deployment id."""
        ...

    def publish(self, route: Route) -> None:
        """Add or replace the route of a deployment. Replicas that are no longer named get no new request."""
        ...

    def withdraw(self, deployment_id: str, refusal: DockyardError | None = None) -> None:
        """Refuse new requests for the deployment; running ones go on.

        `refusal` is what those get who wait for a replica, rendered as any error is: `Unavailable` (503) with the
        reason of a start that failed. Without it they are told that the deployment was undeployed (404).
        """
        ...

    def open_requests(self, replica_id: str) -> int:
        """Requests that are running on a replica now, also of one that is no longer routed to."""
        ...

    async def drained(self, replica_id: str) -> None:
        """Return once nothing runs on the replica any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls: a key of an app with scopes, or an inference key of one deployment (then `deployment_id` is set)."""

    key_id: str
    scopes: frozenset[Scope]
    deployment_id: str | None = None

    def may_infer(self, deployment_id: str) -> bool:
        return self.deployment_id == deployment_id or (self.deployment_id is None and Scope.INFER in self.scopes)


class Keyring(Protocol):
    def find(self, key: str) -> Principal | None:
        """Whose key this is, from memory, and a note that it was used; None for an unknown or revoked one."""
        ...
