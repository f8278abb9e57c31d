"""The replica's life: it loads, serves, drains and ends. Knows no HTTP; `app` shows it to the outside."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import TypeVar

from dockyard import oom_score
from dockyard.clock import SystemClock
from dockyard.engines.base import Engine, TellsItsStart
from dockyard.engines.failures import translated
from dockyard.engines.registry import import_engine
from dockyard.errors import Failed, Reason, Unavailable
from dockyard.process_memory import give_back_freed
from dockyard.protocols.generation import GenerateRequest, Health, ReplicaError, ReplicaPhase, WorkerSpec
from dockyard.worker.log import log
from dockyard.worker.prompt import Prompts, load_prompts
from dockyard.worker.serving import Answer, Serving
from dockyard.worker.tokenizer import Tokenizer, load_tokenizer

EXIT_DRAINED = 0
EXIT_FAILED = 3
# Counts of running and waiting requests change with every request: watchers get them at most this often.
_COUNTS_EVERY_S = 0.25

Result = TypeVar("Result")


class Replica:
    """One per process. `ended` gets the exit code; by then nothing runs any more."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._clock = SystemClock()
        self._phase: ReplicaPhase = "starting"
        self._progress = ""
        self._share = 0.0
        self._timings: dict[str, float] = {}
        self._failure: ReplicaError | None = None
        self._serving: Serving | None = None
        self._open = 0  # requests that are not answered yet
        self._watches: set[asyncio.Event] = set()
        self._counts_timer: asyncio.TimerHandle | None = None
        self._orphan_timer: asyncio.TimerHandle | None = None
        self.hear_from_server()

    def health(self) -> Health:
        engine = self._serving.engine if self._serving else None
        return Health(
            replica_id=self.spec.replica_id,
            phase=self._phase,
            running=engine.running if engine else 0,
            waiting=engine.waiting if engine else 0,
            capacity=engine.capacity if engine else self.spec.max_batch_size,
            engine=self.spec.engine,
            compute_type=self.spec.compute_type,
            progress=self._progress,
            share=self._share,
            timings=self._timings,
            can_seed=engine.can_seed if engine else False,
            chat_template=self._serving.prompts.has_chat_template if self._serving else False,
            largest_batch=engine.largest_batch if engine else 0,
            failure=self._failure,
        )

    # Its life

    async def load(self) -> None:
        """From nothing to ready; a failure is told to the watchers and ends the replica."""
        try:
            await self._load()
        except Exception as error:  # noqa: BLE001  whatever an engine's library throws is told, not swallowed
            self._fail(error)

    def drain(self, why: str) -> None:
        """Take no more requests, finish those that are open, end. Idempotent."""
        if self._phase in ("draining", "failed"):
            return
        log("INFO", "draining", why=why, open=self._open)
        self._enter("draining", f"finishing {self._open} requests")
        self._end_if_drained()

    async def _load(self) -> None:
        name = self.spec.engine
        importing = asyncio.to_thread(import_engine, name, shared=self.spec.adapter is not None)
        engine = (await self._timed("importing", f"importing {name}", "importMs", importing))(self.spec)
        if isinstance(engine, TellsItsStart):
            loop = asyncio.get_running_loop()
            engine.tell_start = partial(loop.call_soon_threadsafe, self._step)
        tokenizer, prompts = await self._timed("loading", "loading weights", "loadMs", self._read(engine))
        serving = Serving(engine, tokenizer, prompts)
        began = self._clock.monotonic()
        self._enter("warming_up", "a first generation")
        await _warm_up(serving)
        self._timings = {**self._timings, "warmUpMs": self._ms_since(began)}
        if self._phase == "warming_up":
            self._serving = serving
            oom_score.go_with_others()
            self._enter("ready", "")
            await asyncio.to_thread(give_back_freed)

    async def _timed(self, phase: ReplicaPhase, progress: str, timing: str, work: Awaitable[Result]) -> Result:
        """`work` is done on threads: health is told meanwhile."""
        self._enter(phase, progress)
        began = self._clock.monotonic()
        result = await work
        self._timings = {**self._timings, timing: self._ms_since(began)}
        return result

    async def _read(self, engine: Engine) -> tuple[Tokenizer, Prompts]:
        """Weights and vocabulary at the same time: SmolLM2 takes 0.22 s of one core and 0.12 s of another."""
        _, texts = await asyncio.gather(asyncio.to_thread(engine.load), asyncio.to_thread(self._read_texts))
        return texts

    def _read_texts(self) -> tuple[Tokenizer, Prompts]:
        tokenizer = load_tokenizer(Path(self.spec.model_dir))
        return tokenizer, load_prompts(self.spec, tokenizer)

    def _ms_since(self, began: float) -> float:
        return round((self._clock.monotonic() - began) * 1000, 1)

    def _enter(self, phase: ReplicaPhase, progress: str) -> None:
        if self._phase in ("draining", "failed"):
            return
        self._phase = phase
        self._progress = progress
        self._share = 0.0
        log("INFO", "phase", phase=phase, **self._timings)
        self._tell_watchers()

    def _step(self, share: float, words: str) -> None:
        """The engine is so far with its loading."""
        if self._phase == "loading":
            self._share = share
            self._progress = words
            log("INFO", "step", phase="loading", share=share, message=words)
            self._tell_watchers()

    def _fail(self, error: Exception) -> None:
        if self._phase in ("draining", "failed"):
            return
        known = translated(error, f"{self._phase} the {self.spec.engine} engine")
        self._failure = ReplicaError(kind="failed", reason=known.reason, message=known.message)
        self._enter("failed", "")
        self._tell_watchers()
        log("ERROR", "failed", reason=known.reason, message=known.message)
        self._end(EXIT_FAILED)

    def _end_if_drained(self) -> None:
        if self._phase == "draining" and not self._open:
            log("INFO", "drained")
            self._end(EXIT_DRAINED)

    def _end(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)
            self._tell_watchers()

    # Its requests

    async def open_request(self, request: GenerateRequest, size: int) -> Answer:
        """Start a request; whoever does calls `close_request` in the end. Raises `Invalid` or `Unavailable`."""
        if self._phase == "draining":
            raise Unavailable("the replica is shutting down; ask another one", reason=Reason.DRAINING)
        if self._serving is None:
            raise Unavailable(f"the replica is not ready yet ({self._phase}); wait for it", reason=Reason.NO_REPLICA)
        self._open += 1
        try:
            answer = await self._serving.answer(request, size)
        except BaseException:
            self.close_request()
            raise
        self._counts_changed()
        return answer

    def close_request(self) -> None:
        self._open -= 1
        self._counts_changed()
        self._end_if_drained()

    # Whoever watches it

    def open_watch(self) -> asyncio.Event:
        """An event that is set at every change, and by `ended`."""
        changed = asyncio.Event()
        self._watches.add(changed)
        self.hear_from_server()
        return changed

    def close_watch(self, changed: asyncio.Event) -> None:
        self._watches.discard(changed)
        self.hear_from_server()

    def hear_from_server(self) -> None:
        """A server lives: it asks now, or watches. Without one for `orphan_after_s` the replica has no purpose."""
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
            self._orphan_timer = None
        if not self._watches:
            self._orphan_timer = asyncio.get_running_loop().call_later(
                self.spec.orphan_after_s, self.drain, f"no server for {self.spec.orphan_after_s} s"
            )

    def _counts_changed(self) -> None:
        if self._counts_timer is None and self._watches:
            self._counts_timer = asyncio.get_running_loop().call_later(_COUNTS_EVERY_S, self._tell_watchers)

    def _tell_watchers(self) -> None:
        if self._counts_timer is not None:
            self._counts_timer.cancel()
            self._counts_timer = None
        for changed in self._watches:
            changed.set()


async def _warm_up(serving: Serving) -> None:
    """A generation as a client's: the first one allocates, and shows that the model works at all."""
    request = GenerateRequest(id="warm-up", prompt="Hello", temperature=0, max_tokens=2)
    answer = await serving.answer(request, 0)
    finish = None
    async for events in answer.events():
        finish = events[-1].finish
    if finish is None:
        raise Failed("the first generation ended without an end", reason=Reason.ENGINE_FAILED)
