"""What the gateway tells Prometheus. Labels are names of real deployments and statuses, nothing a client may choose."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from dockyard.gateway.admission import Load
from dockyard.protocols.routing import Route

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 180)
NO_DEPLOYMENT = ""  # the label of a request that named none that exists
Loads = Callable[[], Iterator[tuple[Route, Load]]]


class Metrics:
    """The counters and histograms, registered in `registry`; gauges are read from `loads` when they are asked for."""

    def __init__(self, registry: CollectorRegistry, loads: Loads) -> None:
        one = ["deployment"]
        self._requests = Counter(
            "dockyard_requests", "Inference requests by final status", [*one, "status"], registry=registry
        )
        self._tokens_in = Counter("dockyard_prompt_tokens", "Tokens of prompts", one, registry=registry)
        self._tokens_out = Counter("dockyard_completion_tokens", "Tokens generated", one, registry=registry)
        self._failovers = Counter(
            "dockyard_failovers", "Times a request was moved to another replica", one, registry=registry
        )
        self._latency = Histogram(
            "dockyard_request_seconds", "From arrival to the end of the reply", one, buckets=SECONDS, registry=registry
        )
        self._first_token = Histogram(
            "dockyard_first_token_seconds", "From arrival to the first token", one, buckets=SECONDS, registry=registry
        )
        self._of: dict[str, DeploymentMetrics] = {}
        registry.register(_LoadCollector(loads))

    def of(self, deployment: str) -> "DeploymentMetrics":
        """The metrics of one deployment, looked up once."""
        found = self._of.get(deployment)
        if found is None:
            found = self._of[deployment] = DeploymentMetrics(self, deployment)
        return found


class DeploymentMetrics:
    """One deployment's children of the metrics: finding them by label each time costs more than counting."""

    __slots__ = (
        "_by_status",
        "_failovers",
        "_first_token",
        "_latency",
        "_name",
        "_requests",
        "_tokens_in",
        "_tokens_out",
    )

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name = name
        self._requests = metrics._requests
        self._by_status: dict[int, Counter] = {}
        self._tokens_in = metrics._tokens_in.labels(name)
        self._tokens_out = metrics._tokens_out.labels(name)
        self._failovers = metrics._failovers.labels(name)
        self._latency = metrics._latency.labels(name)
        self._first_token = metrics._first_token.labels(name)

    def request(self, status: int, seconds: float) -> None:
        counter = self._by_status.get(status)
        if counter is None:
            counter = self._by_status[status] = self._requests.labels(self._name, str(status))
        counter.inc()
        self._latency.observe(seconds)

    def tokens(self, prompt: int, completion: int) -> None:
        self._tokens_in.inc(prompt)
        self._tokens_out.inc(completion)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def failovers(self, times: int) -> None:
        self._failovers.inc(times)


class _LoadCollector(Collector):
    """Requests that wait and run, as exact as admission counts them."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def collect(self) -> Iterator[GaugeMetricFamily]:
        queued = GaugeMetricFamily("dockyard_requests_queued", "Requests that wait for a place", labels=["deployment"])
        running = GaugeMetricFamily("dockyard_requests_in_flight", "Requests on replicas", labels=["deployment"])
        for route, load in self._loads():
            queued.add_metric([route.name], load.queued)
            running.add_metric([route.name], load.in_flight)
        yield queued
        yield running

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Without it the registry would collect once, when there is nothing yet."""
        yield from ()
