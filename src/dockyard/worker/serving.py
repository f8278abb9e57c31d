"""A request's way through the replica: prompt to ids, ids to the engine, the engine's ids to events."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from dockyard.domain.abilities import cannot_see_scores
from dockyard.engines.base import Engine, Generation, Row, Sampling
from dockyard.engines.constraint import Constraint, Constraints, SchemaRefused
from dockyard.errors import Invalid, Reason
from dockyard.protocols.generation import GenerateEvent, GenerateRequest, Usage
from dockyard.worker.continuation import Continuation
from dockyard.worker.logprobs import Logprobs
from dockyard.worker.prompt import Prompts
from dockyard.worker.tokenizer import Tokenizer
from dockyard.worker.tool_calls import ToolCalls
from dockyard.worker.tool_calls_choice import cannot_demand

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
        tools = self.prompts.tool_calls(request)
        if tools is not None:
            request.json_schema = self.prompts.call_schema(request)
        constraint, logprobs = await self._with_scores(request)
        if size <= _SHORT_PROMPT_BYTES:
            prompt = self.prompts.ids_of(request)
        else:
            prompt = await asyncio.to_thread(self.prompts.ids_of, request)
        max_tokens = self.prompts.max_tokens(len(prompt), request.max_tokens)
        max_new = max_tokens - len(request.resume)
        row = Row(prompt, max_new, sampling, request.resume, request.prefilled, constraint, request.logprobs)
        return self._start(request, row, max_tokens, tools, logprobs)

    async def _with_scores(self, request: GenerateRequest) -> tuple[Constraint | None, Logprobs | None]:
        """What the request asks for beside its text. Raises `Invalid`, also for a schema that is wrong."""
        if request.json_schema is None and request.logprobs is None:
            return None, None
        constraints = self.engine.constraints
        if constraints is None:
            what = "response_format" if not request.tools else "tool_choice"
            what = "logprobs" if request.json_schema is None else what
            raise Invalid(cannot_see_scores(self.engine.name, what), reason=Reason.ENGINE_CANNOT, field=what)
        constraint = logprobs = None
        if request.json_schema is not None:
            try:
                constraint = await asyncio.to_thread(_compiled, constraints, request.json_schema, request.resume)
            except SchemaRefused as error:
                raise cannot_demand(error.why) if request.tools else error from error
        if request.logprobs is not None:
            vocabulary = await asyncio.to_thread(lambda: constraints.vocabulary)
            logprobs = Logprobs(vocabulary, self._tokenizer, self.engine.eos_token_ids, begun=bool(request.resume))
        return constraint, logprobs

    def _start(
        self, request: GenerateRequest, row: Row, max_tokens: int, tools: ToolCalls | None, logprobs: Logprobs | None
    ) -> "Answer":
        continuation = Continuation(
            self._tokenizer,
            stop=request.stop,
            max_tokens=max_tokens,
            eos_token_ids=self.engine.eos_token_ids,
            tools=tools,
            marks=self.prompts.tool_marks if tools is not None else None,
        )
        continuation.feed(request.resume)  # text and calls have been sent by the replica that began
        continuation.take_calls()
        generation = None
        if continuation.finish is None:
            generation = self.engine.submit(row)
        return Answer(len(row.prompt), continuation, generation, logprobs)


def _compiled(constraints: Constraints, schema: str, known: Sequence[int]) -> Constraint:
    """Checked on what is known of the output, too: in the engine it would be too late to refuse."""
    constraint = constraints.compile(schema)
    if known:
        constraint.begin(known)
    return constraint


class Answer:
    """The events of one request. `cancel` at any time: the row leaves the batch at the engine's next step."""

    def __init__(
        self,
        prompt_tokens: int,
        continuation: Continuation,
        generation: Generation | None,
        logprobs: Logprobs | None = None,
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._continuation = continuation
        self._generation = generation
        self._logprobs = logprobs

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
                    calls = continuation.take_calls()
                    event = GenerateEvent(text=text, ids=taken, prefilled=prefilled, calls=calls)
                    if self._logprobs is not None:
                        event.logprobs = self._logprobs.told(taken, self._generation.chances)
                    events.append(event)
                if continuation.finish is not None:
                    break
                if events:
                    yield events
                    events = []
            self._generation.cancel()
        rest = continuation.end()
        calls = continuation.take_calls()
        if rest or calls:
            events.append(GenerateEvent(text=rest, calls=calls))
        usage = Usage(self._prompt_tokens, continuation.completion_tokens)
        events.append(GenerateEvent(finish=continuation.finish, usage=usage))
        yield events
