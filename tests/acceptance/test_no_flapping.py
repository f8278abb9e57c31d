"""The published sample's delays, 30 and 600 ms, taken literally: the number of replicas follows loads, and stays calm.

Four deployments at once, each under a load that a scaler without a memory would follow up and down at every turn of it:
what `tests/unit/domain/test_autoscaling.py` walks through in virtual time, by the real thing.
"""

import asyncio
import itertools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.acceptance.server import Server, body

MOST = 3  # replicas of each, for all run at once
BATCH = 4
PROMPT = (
    "x" * 19
)  # one token a byte and the end of the text: 20 steps of 10 ms, so a replica takes 20 requests a second
LASTS_S = 8


def poisson(per_s: int) -> list[float]:
    generator, at_s, arrivals = random.Random(1), 0.0, list[float]()
    while (at_s := at_s + generator.expovariate(per_s)) < LASTS_S:
        arrivals.append(at_s)
    return arrivals


LOADS = {
    "steady": [index / 19 for index in range(19 * LASTS_S)],
    "sawtooth": [second + index / 40 for second in range(LASTS_S) for index in range(20)],
    "bursts": [second + index / 1000 for second in range(LASTS_S) for index in range(20)],
    "poisson": poisson(19),
}
TOO_MUCH_FOR_ONE = ("sawtooth", "bursts")
# Each time that a replica is missed right after it was taken away it stays twice as long the next time: after 0.6, 1.2,
# 2.4 and 4.8 s the load is over. That is four times up and four times down, however slow the machine is. Without that
# memory it goes up and down with nearly every burst.
MOST_TURNS = 8


@pytest.fixture
def deployments(bare_data_dir: Path, tmp_path: Path) -> Any:
    with Server(bare_data_dir) as server:
        (tmp_path / "stepping").mkdir()
        model = server.import_echo(tmp_path / "stepping", step_ms=10)
        wishes = {
            name: body(name, maxBatchSize=BATCH, maxReplicas=MOST, scaleUpDelay=30, scaleDownDelay=600)
            for name in LOADS
        }
        yield server, {name: server.deploy(model, wish)["deploymentId"] for name, wish in wishes.items()}


def test_replicas_do_not_flap_under_four_loads_and_no_request_is_lost(
    deployments: tuple[Server, dict[str, str]],
) -> None:
    server, ids = deployments
    answers = asyncio.run(bear(server))
    server.until(lambda: all(len(server.replicas(deployment_id)) == 1 for deployment_id in ids.values()))

    assert {name: sum(answer == PROMPT for answer in of) for name, of in answers.items()} == {
        name: len(arrivals) for name, arrivals in LOADS.items()
    }
    steps = {name: decisions(server, deployment_id) for name, deployment_id in ids.items()}
    for name in TOO_MUCH_FOR_ONE:
        assert max(after for _, after in steps[name]) > 1, steps
    for name, taken in steps.items():
        assert all(1 <= after <= MOST for _, after in taken), steps
        assert turns(taken) <= MOST_TURNS, (name, steps)
        assert len(taken) <= (MOST_TURNS + 1) * (MOST - 1), (name, steps)
        assert not taken or (taken[0][0], taken[-1][1]) == (1, 1), (name, steps)
        assert all(before[1] == after[0] for before, after in itertools.pairwise(taken)), (name, steps)


async def bear(server: Server) -> dict[str, list[str]]:
    """Send all loads at once, each request at its instant whatever became of those before; the texts that came."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(server.url, connector=connector, headers=server.headers) as session:
        began_at = asyncio.get_running_loop().time()

        async def ask(model: str, at_s: float) -> str:
            await asyncio.sleep(began_at + at_s - asyncio.get_running_loop().time())
            async with session.post("/v1/completions", json={"model": model, "prompt": PROMPT}) as reply:
                told = await reply.json()
                return told["choices"][0]["text"] if reply.status == 200 else str(told)

        async def load(model: str, arrivals: Sequence[float]) -> list[str]:
            return await asyncio.gather(*(ask(model, at_s) for at_s in arrivals))

        texts = await asyncio.gather(*(load(name, arrivals) for name, arrivals in LOADS.items()))
    return dict(zip(LOADS, texts, strict=True))


def decisions(server: Server, deployment_id: str) -> list[tuple[int, int]]:
    """What the autoscaler decided, from and to how many replicas, oldest first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = server.get(f"/deployments/{deployment_id}/events?limit=200{cursor}")
        found += page["events"]
        if page["nextCursor"] is None:
            break
        cursor = f"&cursor={page['nextCursor']}"
    steps = [event for event in found[::-1] if event["reason"] in ("DEMAND_ROSE", "DEMAND_FELL")]
    return [(int(step["from"].split()[0]), int(step["to"].split()[0])) for step in steps]


def turns(steps: Sequence[tuple[int, int]]) -> int:
    """How often it went the other way than before."""
    rising = [after > before for before, after in steps]
    return sum(before != after for before, after in itertools.pairwise(rising))
