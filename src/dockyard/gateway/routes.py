"""The routing table: which deployment a request's `model` means."""

from collections.abc import Iterator

from dockyard.gateway.pool import Pool
from dockyard.protocols.routing import Route


class Routes:
    """Deployments by id and by name, each with its pool."""

    def __init__(self) -> None:
        self._by_id: dict[str, tuple[Route, Pool]] = {}
        self._by_name: dict[str, tuple[Route, Pool]] = {}

    def __iter__(self) -> Iterator[Route]:
        return iter([route for route, _ in self._by_id.values()])

    def by_id(self) -> dict[str, Route]:
        return {deployment_id: route for deployment_id, (route, _) in self._by_id.items()}

    def put(self, route: Route, pool: Pool) -> None:
        self.remove(route.deployment_id)
        self._by_id[route.deployment_id] = self._by_name[route.name] = (route, pool)

    def remove(self, deployment_id: str) -> None:
        found = self._by_id.pop(deployment_id, None)
        if found is not None and self._by_name.get(found[0].name) is found:
            del self._by_name[found[0].name]

    def find(self, model: str) -> tuple[Route, Pool] | None:
        """By name or by `dp-` id."""
        return self._by_name.get(model) or self._by_id.get(model)
