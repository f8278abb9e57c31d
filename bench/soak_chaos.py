"""What goes wrong on purpose: redeploys, rollbacks, `kill -9` of replicas and server, each at a request's number.

Two lanes, so that a kill may meet a redeploy under way: one redeploys and rolls back, one kills. What a lane does is
chosen by the seed; it happens once the request of its number begins.
"""

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psutil

from bench.processes import BenchFailed
from bench.soak_server import RETRY_S, SoakServer

READY_S = 30.0  # for a replica that may be killed to be there


class Act(StrEnum):
    REDEPLOY = "redeploy"
    ROLLBACK = "rollback"
    KILL_REPLICA = "kill -9 of a replica"
    KILL_SERVER = "kill -9 of the server"


CHANGES = (Act.REDEPLOY, Act.ROLLBACK)
FULL: Mapping[Act, int] = {Act.REDEPLOY: 5, Act.ROLLBACK: 2, Act.KILL_REPLICA: 20, Act.KILL_SERVER: 2}
SLOW: Mapping[Act, int] = {Act.REDEPLOY: 2, Act.ROLLBACK: 1, Act.KILL_REPLICA: 6, Act.KILL_SERVER: 1}
QUICK: Mapping[Act, int] = {Act.REDEPLOY: 1, Act.ROLLBACK: 1, Act.KILL_REPLICA: 2, Act.KILL_SERVER: 1}


@dataclass(frozen=True)
class Deployed:
    """A deployment under soak. `wish` is the body of its deploy."""

    deployment_id: str
    model_id: str
    wish: dict[str, Any]

    @property
    def name(self) -> str:
        return self.wish["name"]


def plan_acts(rng: random.Random, wanted: Mapping[Act, int], requests: int) -> dict[int, Act]:
    """Request number → act. Spread evenly with some jitter, in random order; a rollback comes after a redeploy.

    The server is killed in the first third, so that its last life is long enough to tell whether it leaks.
    """
    others = [act for act, count in wanted.items() for _ in range(count) if act is not Act.KILL_SERVER]
    rng.shuffle(others)
    changes = iter(sorted((act for act in others if act in CHANGES), key=lambda act: act is Act.ROLLBACK))
    first = next(changes, None)  # a redeploy; the rest of the changes in any order
    rest = [act for act in others if act in CHANGES]
    if first is not None:
        rest.remove(first)
        places = [index for index, act in enumerate(others) if act in CHANGES]
        for place, act in zip(places, [first, *rest], strict=True):
            others[place] = act
    kills = wanted.get(Act.KILL_SERVER, 0)
    order = list(others)
    for number in range(kills):
        order.insert(max(1, round(len(order) * (number + 1) / (3 * kills))), Act.KILL_SERVER)
    stride = requests / (len(order) + 1)
    return {round((index + 1 + rng.uniform(-0.3, 0.3)) * stride): act for index, act in enumerate(order)}


class Chaos:
    """`begin(number)` at each request; `settled()` waits for what has been started. `done` counts what happened."""

    def __init__(
        self,
        server: SoakServer,
        deployed: Sequence[Deployed],
        acts: Mapping[int, Act],
        seed: int,
        *,
        patience: float = 1.0,
    ) -> None:
        self.done: Counter[Act] = Counter()
        self.adopted: list[str] = []  # after each kill of the server
        self.problems: list[str] = []
        self._server = server
        self._deployed = deployed
        self._acts = dict(acts)
        self._ready_s = READY_S * patience
        self._lanes = {kind: (asyncio.Queue[Act](), random.Random(f"{seed}/{kind}")) for kind in ("changes", "kills")}
        self._versions = dict.fromkeys((one.deployment_id for one in deployed), 1)

    def begin(self, number: int) -> None:
        act = self._acts.pop(number, None)
        if act is not None:
            queue, _ = self._lanes["changes" if act in CHANGES else "kills"]
            queue.put_nowait(act)

    async def settled(self) -> None:
        for queue, _ in self._lanes.values():
            await queue.join()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Both lanes run inside this."""
        tasks = [asyncio.create_task(self._work(queue, rng)) for queue, rng in self._lanes.values()]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, queue: asyncio.Queue[Act], rng: random.Random) -> None:
        while True:
            act = await queue.get()
            try:
                await self._do(act, rng)
                self.done[act] += 1
            except (BenchFailed, TimeoutError) as error:
                self.problems.append(f"{act}: {error or type(error).__name__}")
            finally:
                queue.task_done()

    async def _do(self, act: Act, rng: random.Random) -> None:
        match act:
            case Act.REDEPLOY:
                await self._redeploy(rng.choice(self._deployed))
            case Act.ROLLBACK:
                await self._roll_back(rng)
            case Act.KILL_REPLICA:
                os.kill(_victim(await self._ready_replica(rng), rng), signal.SIGKILL)
            case Act.KILL_SERVER:
                await self._kill_server(rng)

    async def _redeploy(self, one: Deployed) -> None:
        """The same model and name with another batch size: a new version takes over."""
        version = self._versions[one.deployment_id] + 1
        scaling = one.wish["scalingParameters"]
        wish = one.wish | {"scalingParameters": scaling | {"maxBatchSize": scaling["maxBatchSize"] + version % 2}}
        await self._changed(one, f"/models/{one.model_id}/deploy?modelType=openSource", wish)

    async def _roll_back(self, rng: random.Random) -> None:
        """To the first version, of a deployment that has had more than one, if there is such a one."""
        several = [one for one in self._deployed if self._versions[one.deployment_id] > 1]
        one = rng.choice(several or self._deployed)
        await self._changed(one, f"/deployments/{one.deployment_id}/rollback", {"version": 1})

    async def _changed(self, one: Deployed, path: str, body: dict[str, Any]) -> None:
        job = await self._server.job(await self._server.post(path, body))
        self._versions[one.deployment_id] += 1
        if job["deploymentVersion"] != self._versions[one.deployment_id]:
            raise BenchFailed(f"version {job['deploymentVersion']}, not {self._versions[one.deployment_id]}")

    async def _ready_replica(self, rng: random.Random) -> int:
        """The pid of a random ready replica of a random deployment, as the API tells it."""
        one = rng.choice(self._deployed)
        async with asyncio.timeout(self._ready_s):
            while True:
                if ready := await self._ready(one):
                    return rng.choice(ready)
                await asyncio.sleep(RETRY_S)

    async def _ready(self, one: Deployed) -> list[int]:
        """Pids of ready replicas whose process is a worker of this server: nothing else is ever killed."""
        ours = {worker.pid for worker in self._server.workers()}
        told = await self._server.replicas(one.deployment_id)
        return [replica["pid"] for replica in told if replica["state"] == "Ready" and replica["pid"] in ours]

    async def _kill_server(self, rng: random.Random) -> None:
        """Down for up to a second; in the second one a replica dies meanwhile, too. The replicas left are adopted."""
        async with self._server.untouched:
            ready = {pid for one in self._deployed for pid in await self._ready(one)}
            await self._server.kill()
            if self.done[Act.KILL_SERVER] % 2 and ready:
                victim = rng.choice(sorted(ready))
                os.kill(victim, signal.SIGKILL)
                ready.discard(victim)
            await asyncio.sleep(rng.uniform(0, 1))
            await self._server.start()
        told = [replica for one in self._deployed for replica in await self._server.replicas(one.deployment_id)]
        kept = ready & {replica["pid"] for replica in told if psutil.pid_exists(replica["pid"] or 0)}
        self.adopted.append(f"{len(kept)} of {len(ready)}")
        if not kept and ready:
            raise BenchFailed(f"none of the {len(ready)} replicas that ran on was adopted")


def _victim(pid: int, rng: random.Random) -> int:
    """The replica, or one time in two the process that its engine has made, if it has."""
    with contextlib.suppress(psutil.Error):
        engines = [child.pid for child in psutil.Process(pid).children() if "EngineCore" in child.name()]
        if engines and rng.random() < 0.5:
            return engines[0]
    return pid
