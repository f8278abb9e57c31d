"""A request's way through the replica: prompt to ids, ids to the engine, the engine's ids to events."""

import asyncio
from collections.abc import AsyncIterator

from dockyard.engines.base import Engine, Generation, Row, Sampling
from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateEvent, GenerateRequest, Usage
from dockyard.worker.continuation import Continuation
from dockyard.worker.prompt import Prompts
from dockyard.worker.tokenizer import Tokenizer

# A longer text is encoded on a thread: 100,000 characters take some 50 ms, in which nobody else's tokens would flow.
_SHORT_PROMPT_BYTES = 16_384


class Serving:
    """A loaded model."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, prompts: Prompts) -> None:
        self.engine = engine
        self.prompts = prompts
        self._tokenizer = tokenizer

    async def answer(self, request: GenerateRequest, size: int) -> "Answer":
        """Check the request, whose body has `size` bytes. Raises `Invalid`; afterwards the answer is on its way."""
        sampling = Sampling(request.temperature, request.top_p, request.top_k, request.seed)
        if request.seed is not None and not self.engine.can_seed and not sampling.greedy:
            raise Invalid(
                f"the engine {self.engine.name} cannot honour a seed; leave it out, or set temperature to 0",
                reason=Reason.ENGINE_CANNOT,
                field="seed",
            )
        if size <= _SHORT_PROMPT_BYTES:
            prompt = self.prompts.ids_of(request)
        else:
            prompt = await asyncio.to_thread(self.prompts.ids_of, request)
        return self._start(request, prompt, sampling)

    def _start(self, request: GenerateRequest, prompt: list[int], sampling: Sampling) -> "Answer":
        max_tokens = self.prompts.max_tokens(len(prompt), request.max_tokens)
        continuation = Continuation(
            self._tokenizer, stop=request.stop, max_tokens=max_tokens, eos_token_ids=self.engine.eos_token_ids
        )
        continuation.feed(request.resume)  # the text has been sent by the replica that began
        generation = None
        if continuation.finish is None:
            row = Row(prompt, max_tokens - len(request.resume), sampling, request.resume, request.prefilled)
            generation = self.engine.submit(row)
        return Answer(len(prompt), continuation, generation)


class Answer:
    """The events of one request. `cancel` at any time: the row leaves the batch at the engine's next step."""

    def __init__(self, prompt_tokens: int, continuation: Continuation, generation: Generation | None) -> None:
        self._prompt_tokens = prompt_tokens
        self._continuation = continuation
        self._generation = generation

    @property
    def all_there(self) -> bool:
        """Nothing is left to wait for, or to cancel."""
        return self._generation is None or self._generation.ended

    def cancel(self) -> None:
        if self._generation is not None:
            self._generation.cancel()

    async def events(self) -> AsyncIterator[list[GenerateEvent]]:
        """Events to send together; the last list ends with `finish`. Raises what the engine failed with."""
        continuation = self._continuation
        events: list[GenerateEvent] = []
        if self._generation is not None:
            untold = True
            async for ids in self._generation:
                text, taken = continuation.feed(ids)
                if text or taken:
                    prefilled = self._generation.prefilled if untold else None
                    untold = False
                    events.append(GenerateEvent(text=text, ids=taken, prefilled=prefilled))
                if continuation.finish is not None:
                    break
                if events:
                    yield events
                    events = []
            self._generation.cancel()
        rest = continuation.end()
        if rest:
            events.append(GenerateEvent(text=rest))
        usage = Usage(self._prompt_tokens, continuation.completion_tokens)
        events.append(GenerateEvent(finish=continuation.finish, usage=usage))
        yield events
