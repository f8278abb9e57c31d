"""Completions over HTTP as the benches of models ask for them: same prompts, same lengths, tokens as the server counts.

Any server of OpenAI's `/v1/completions` is an `Endpoint`. Lengths are exact: the benches' model never ends a text by
itself (`bench.models`), and a reply of another length than asked for ends the benchmark.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from bench.load import LoadResult, Plan, run_load
from bench.processes import BenchFailed

# Of different lengths, 6 to 30 tokens, so that a batch has to pad or to pack.
PROMPTS = (
    "Once upon a time there was a lighthouse keeper who",
    "The history of the railway begins with",
    "In the year 2100, people live",
    "My favourite animal is the",
    "The three most important things about cooking for many guests, as my grandmother used to say, are",
    "A letter to the mayor of our town about the old bridge over the river:",
    "To build a small boat out of wood you need",
    "The weather in the mountains changes quickly, so whoever goes up in the morning without a coat",
    "Rivers carry water from the hills to the sea, and on their way they",
    "She opened the door and saw",
)


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and what its requests carry besides the usual."""

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def body(self, prompt: str, tokens: int, *, stream: bool) -> bytes:
        wanted: dict[str, Any] = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0}
        if stream:
            wanted |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(wanted | dict(self.extra)).encode()

    @property
    def completions(self) -> str:
        return f"{self.url}/v1/completions"


def tokens_per_s(endpoint: Endpoint, *, tokens: int, batch: int, batches: int, stream: bool) -> float:
    """The steady rate of a saturated server, over about `batches` full batches of `tokens` tokens for each request.

    Twice as many clients as a batch has rows keep its queue filled (a batch of 1: one client, no queue). Two batches
    more than are counted are sent: the first ones may run half empty, and so may the last one.
    """
    ends = _ends(endpoint, tokens=tokens, batch=batch, requests=requests_sent(batch, batches), stream=stream)
    return tokens * steady_rate(ends, batch)


def first_token_s(endpoint: Endpoint, *, tokens: int, together: int, times: int) -> float:
    """The median time until a stream's first token, of `times` times `together` requests that come at once."""
    waits: list[float] = []
    for number in range(times):
        result = _load(endpoint, tokens=tokens, clients=together, requests=together, stream=True, since=number)
        waits += [sample.first - sample.sent for sample in result.samples]
        if not all(_begins_with_text(sample.body) for sample in result.samples):
            raise BenchFailed(f"a stream of {endpoint.url} begins with something else than a token")
    return median(waits)


def requests_sent(batch: int, batches: int) -> int:
    """How many a measurement of so many batches sends."""
    return batch * (batches + 2)


def warm_up(endpoint: Endpoint, *, batch: int) -> None:
    """Two batches that nobody counts: they open connections and compile what is compiled at first use."""
    _ends(endpoint, tokens=4, batch=batch, requests=2 * batch, stream=True)


def steady_rate(ends: Sequence[float], batch: int) -> float:
    """Replies per second without start and end, by the instants at which they were whole: three batches at least.

    The replies of a batch come together. So both edges are put where a batch has just ended: after the first batch at
    the widest gap within a batch's replies, and at the widest among the last ones.
    """
    ends = sorted(ends)
    first = _widest_gap(ends, batch - 1, 2 * batch - 2) if batch > 1 else 0
    last = _widest_gap(ends, len(ends) - batch - 1, len(ends) - 2) if batch > 1 else len(ends) - 1
    return (last - first) / (ends[last] - ends[first])


def _ends(endpoint: Endpoint, *, tokens: int, batch: int, requests: int, stream: bool) -> list[float]:
    """When each reply was whole."""
    clients = 2 * batch if batch > 1 else 1
    result = _load(endpoint, tokens=tokens, clients=clients, requests=requests, stream=stream)
    return [sample.ended for sample in result.samples]


def _load(endpoint: Endpoint, *, tokens: int, clients: int, requests: int, stream: bool, since: int = 0) -> LoadResult:
    """Prompts in turn, from number `since` on. Every reply has the tokens that were asked for."""
    prompts = [PROMPTS[(since + number) % len(PROMPTS)] for number in range(len(PROMPTS))]
    result = run_load(
        Plan(
            url=endpoint.completions,
            bodies=[endpoint.body(prompt, tokens, stream=stream) for prompt in prompts],
            headers={"content-type": "application/json", **endpoint.headers},
            concurrency=clients,
            requests=requests,
            keep=True,
        )
    )
    _check(result, requests, tokens)
    return result


def _begins_with_text(body: bytes) -> bool:
    first = body.partition(b"\n")[0].removeprefix(b"data: ")
    return bool(json.loads(first)["choices"][0]["text"])


def _widest_gap(ends: Sequence[float], low: int, high: int) -> int:
    """The reply, of `low` to `high`, after which the next one takes longest."""
    return max(range(low, high + 1), key=lambda index: ends[index + 1] - ends[index])


def _check(result: LoadResult, requests: int, tokens: int) -> None:
    """Every reply came and has as many tokens as were asked for."""
    if result.lost or result.requests != requests:
        raise BenchFailed(f"{result.lost} of {requests} requests failed: {'; '.join(result.errors)}")
    for sample in result.samples:
        if (count := completion_tokens(sample.body)) != tokens:
            end = sample.body[-500:].decode(errors="replace")
            raise BenchFailed(f"a reply has {count} tokens, {tokens} were asked for; it ends with {end}")


def completion_tokens(body: bytes) -> int:
    """What the reply, whole or streamed, says in `usage`; 0 if it says nothing."""
    for line in reversed(body.splitlines()):
        told = line.removeprefix(b"data: ")
        if told.startswith(b"{"):
            usage = json.loads(told).get("usage")
            return usage["completion_tokens"] if usage else 0
    return 0
