"""What the gateway tells Prometheus. Labels are names of real deployments and statuses, nothing a client may choose.

The counts are plain numbers of the event loop's thread, rendered when asked for: a counter of the library costs a
lock and a call each time, and a request touches seven.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from dockyard.domain.autoscaling import Demand
from dockyard.protocols.routing import Route

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 180.0)
MOST_GONE = 100  # deployments without a route that are told of still
NO_DEPLOYMENT = ""  # the label of a request that named none that exists
Loads = Callable[[], Iterator[tuple[Route, Demand]]]


class Seconds:
    """A histogram."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, deployment: str) -> None:
        buckets: list[tuple[str, float]] = []
        below = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric([deployment], buckets, self._sum)


@dataclass(slots=True)
class Tally:
    """One deployment's counts since the start."""

    by_status: dict[int, int] = field(default_factory=dict[int, int])
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failovers: int = 0
    latency: Seconds = field(default_factory=Seconds)
    first_token: Seconds = field(default_factory=Seconds)

    def request(self, status: int, seconds: float) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + 1
        self.latency.observe(seconds)

    def tokens(self, prompt: int, completion: int) -> None:
        self.prompt_tokens += prompt
        self.completion_tokens += completion


class Metrics(Collector):
    """Every deployment's tally, and its load as exact as admission counts it."""

    def __init__(self, registry: CollectorRegistry, loads: Loads) -> None:
        self._loads = loads
        self._tallies: dict[str, Tally] = {}
        registry.register(self)

    def of(self, deployment: str) -> Tally:
        tally = self._tallies.get(deployment)
        if tally is None:
            self._make_room()
            tally = self._tallies[deployment] = Tally()
        return tally

    def _make_room(self) -> None:
        """Names come with deployments and need not go with them: beyond `MOST_GONE` the oldest do."""
        routed = {NO_DEPLOYMENT, *(route.name for route, _ in self._loads())}
        gone = [name for name in self._tallies if name not in routed]
        for name in gone[: max(0, len(gone) - MOST_GONE)]:
            del self._tallies[name]

    def describe(self) -> Iterator[Metric]:
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        one = ["deployment"]
        requests = CounterMetricFamily(
            "dockyard_requests", "Inference requests by final status", labels=[*one, "status"]
        )
        tokens_in = CounterMetricFamily("dockyard_prompt_tokens", "Tokens of prompts", labels=one)
        tokens_out = CounterMetricFamily("dockyard_completion_tokens", "Tokens generated", labels=one)
        failovers = CounterMetricFamily("dockyard_failovers", "Moves of a request to another replica", labels=one)
        latency = HistogramMetricFamily("dockyard_request_seconds", "From arrival to the reply's end", labels=one)
        first = HistogramMetricFamily("dockyard_first_token_seconds", "From arrival to the first token", labels=one)
        for name, tally in self._tallies.items():
            for status, count in tally.by_status.items():
                requests.add_metric([name, str(status)], count)
            tokens_in.add_metric([name], tally.prompt_tokens)
            tokens_out.add_metric([name], tally.completion_tokens)
            failovers.add_metric([name], tally.failovers)
            tally.latency.add_to(latency, name)
            tally.first_token.add_to(first, name)
        yield from (requests, tokens_in, tokens_out, failovers, latency, first)
        queued = GaugeMetricFamily("dockyard_requests_queued", "Requests that wait for a place", labels=one)
        running = GaugeMetricFamily("dockyard_requests_in_flight", "Requests on replicas", labels=one)
        for route, load in self._loads():
            queued.add_metric([route.name], load.queued)
            running.add_metric([route.name], load.in_flight)
        yield from (queued, running)
