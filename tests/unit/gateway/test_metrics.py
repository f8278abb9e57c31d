"""Which deployments the metrics tell of."""

from collections.abc import Iterator
from dataclasses import replace

from prometheus_client import CollectorRegistry
from tests.integration.gateway_rig import SHIP

from dockyard.domain.autoscaling import Demand
from dockyard.gateway.metrics import MOST_GONE, NO_DEPLOYMENT, Metrics
from dockyard.protocols.routing import Route


def test_deployments_that_are_gone_are_forgotten_in_the_end() -> None:
    routed = [replace(SHIP, name="stays")]
    registry = CollectorRegistry()

    def loads() -> Iterator[tuple[Route, Demand]]:
        yield from ((route, Demand(0, 0)) for route in routed)

    metrics = Metrics(registry, loads)
    for name in (NO_DEPLOYMENT, "stays", *(f"gone {number}" for number in range(3 * MOST_GONE))):
        metrics.of(name).request(200, 0.1)

    def count(name: str) -> float | None:
        return registry.get_sample_value("dockyard_requests_total", {"deployment": name, "status": "200"})

    assert count("stays") == count(NO_DEPLOYMENT) == 1
    kept = [number for number in range(3 * MOST_GONE) if count(f"gone {number}")]
    assert kept == list(range(3 * MOST_GONE))[-len(kept) :]
    assert len(kept) <= MOST_GONE + 1
