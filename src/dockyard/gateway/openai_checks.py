"""What a decoded body may ask for, and what it becomes for the replica. Pure; every refusal names the field."""

from operator import attrgetter
from typing import Any

from msgspec import structs

from dockyard.domain import spec
from dockyard.domain.abilities import cannot_see_scores
from dockyard.domain.spec import HyperParameters
from dockyard.errors import Invalid, Problem, Reason
from dockyard.gateway.openai_scores import scores_asked
from dockyard.gateway.openai_tools import tools_asked, turn_with_tools
from dockyard.gateway.openai_wire import ChatCompletionRequest, ChatMessage, CompletionRequest, Sampling
from dockyard.protocols.generation import GenerateRequest
from dockyard.protocols.routing import Route

MAX_PROMPTS = 64
SEED_BOUNDS = (-(2**63), 2**63 - 1)
MAX_ROWS = 16  # continuations of one prompt
ROLES = ("system", "developer", "user", "assistant", "tool")

# What no engine here can do yet, and the values that ask for nothing. None asks for nothing everywhere.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "echo": (False,),
    "suffix": ("",),
}
NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "audio": (),
    "function_call": (),
}
_FIELDS_NOT_OFFERED: dict[type[Sampling], tuple[str, ...]] = {
    shape: tuple(field for field in NEUTRAL if field in shape.__struct_fields__)
    for shape in (ChatCompletionRequest, CompletionRequest)
}
# All of them read at once: the one check of these that costs anything is for requests that use none.
_READ_NOT_OFFERED = {shape: attrgetter(*fields) for shape, fields in _FIELDS_NOT_OFFERED.items()}
_NONE_USED = {shape: (None,) * len(fields) for shape, fields in _FIELDS_NOT_OFFERED.items()}
_read_not_offered_in_message = attrgetter(*NEUTRAL_IN_MESSAGE)
_none_used_in_message = (None,) * len(NEUTRAL_IN_MESSAGE)


def chat_generation(wanted: ChatCompletionRequest, route: Route, reply_id: str) -> list[GenerateRequest]:
    """`n` generations of the chat. Raises `Invalid` with every problem of the body."""
    problems = _problems(wanted, route)
    if not wanted.messages:
        problems.append(Problem("messages must hold at least one message", Reason.OUT_OF_RANGE, "messages"))
    messages: list[dict[str, Any]] = []
    for index, message in enumerate(wanted.messages):
        messages.append(_message(message, index, route, messages, problems))
    tools: dict[str, Any] = {}
    if wanted.tools is not None or wanted.tool_choice is not None:
        tools = tools_asked(wanted, route, problems)
    scores = scores_asked(wanted, route, problems, with_tools=bool(tools))
    if problems:
        raise Invalid(problems=tuple(problems))
    return _rows(wanted, [_generation(wanted, route.hyper, reply_id, messages=messages, **tools, **scores)])


def text_generations(wanted: CompletionRequest, route: Route, reply_id: str) -> list[GenerateRequest]:
    """`rows_of_prompt` generations per prompt, in order. Raises `Invalid` with every problem of the body."""
    problems = _problems(wanted, route)
    prompts = _prompts(wanted, problems)
    _check_best_of(problems, wanted, route)
    scores = scores_asked(wanted, route, problems)
    if wanted.best_of is not None and wanted.best_of != (wanted.n or 1):
        scores.setdefault("logprobs", 0)
    rows = len(prompts) * rows_of_prompt(wanted)
    if rows > MAX_PROMPTS and not problems:
        msg = f"prompts times the larger of n and best_of must be at most {MAX_PROMPTS}, got {rows}; send fewer at once"
        problems.append(Problem(msg, Reason.OUT_OF_RANGE, "prompt"))
    if problems:
        raise Invalid(problems=tuple(problems))
    return _rows(wanted, [_generation(wanted, route.hyper, reply_id, **prompt, **scores) for prompt in prompts])


def rows_of_prompt(wanted: Sampling) -> int:
    """How many continuations are made of one prompt."""
    best_of = wanted.best_of if isinstance(wanted, CompletionRequest) else None
    return best_of or wanted.n or 1


def _rows(wanted: Sampling, requests: list[GenerateRequest]) -> list[GenerateRequest]:
    """The rows of each prompt, told apart by id, and by seed: a row's is the seed asked for and the row's number."""
    each = rows_of_prompt(wanted)
    if each * len(requests) == 1:
        return requests
    rows: list[GenerateRequest] = []
    for request in requests:
        for number in range(each):
            seed = None if request.seed is None else _wrapped(request.seed + number)
            rows.append(structs.replace(request, id=f"{request.id}-{len(rows)}", seed=seed))
    return rows


def _wrapped(seed: int) -> int:
    """Back to the smallest seed after the largest."""
    low, high = SEED_BOUNDS
    return seed if seed <= high else seed - high - 1 + low


def _generation(wanted: Sampling, hyper: HyperParameters, request_id: str, **prompt: Any) -> GenerateRequest:
    """The request's own values, and the deployment's where it is silent."""
    limit = wanted.max_tokens if wanted.max_tokens is not None else wanted.max_completion_tokens
    stop = hyper.stop if wanted.stop is None else wanted.stop
    return GenerateRequest(
        id=request_id,
        temperature=hyper.temperature if wanted.temperature is None else wanted.temperature,
        top_p=hyper.top_p if wanted.top_p is None else wanted.top_p,
        top_k=hyper.top_k if wanted.top_k is None else wanted.top_k,
        max_tokens=hyper.max_tokens if limit is None else limit,
        stop=[stop] if isinstance(stop, str) else list(stop),
        seed=wanted.seed,
        **prompt,
    )


def _problems(wanted: Sampling, route: Route) -> list[Problem]:
    problems: list[Problem] = []
    _check_bounds(problems, "temperature", wanted.temperature, *spec.TEMPERATURE)
    _check_bounds(problems, "top_p", wanted.top_p, *spec.TOP_P)
    _check_bounds(problems, "top_k", wanted.top_k, *spec.TOP_K)
    _check_bounds(problems, "seed", wanted.seed, *SEED_BOUNDS)
    _check_limits(problems, wanted, route)
    _check_stop(problems, wanted.stop)
    _check_bounds(problems, "n", wanted.n, 1, MAX_ROWS)
    if wanted.stream_options is not None and not wanted.stream:
        problems.append(
            Problem("stream_options is allowed only when stream is true", Reason.BAD_FORMAT, "stream_options")
        )
    shape = type(wanted)
    values = _READ_NOT_OFFERED[shape](wanted)
    if values != _NONE_USED[shape]:
        for field, value in zip(_FIELDS_NOT_OFFERED[shape], values, strict=True):
            if value is not None and not _is_one_of(value, NEUTRAL[field]):
                problems.append(_cannot(route, field, NEUTRAL[field]))
    return problems


def _check_bounds(problems: list[Problem], field: str, value: float | None, low: int, high: int) -> None:
    if value is not None and not low <= value <= high:
        problems.append(
            Problem(f"{field} must be between {low} and {high}, got {_shown(value)}", Reason.OUT_OF_RANGE, field)
        )


def _check_limits(problems: list[Problem], wanted: Sampling, route: Route) -> None:
    both = wanted.max_tokens is not None and wanted.max_completion_tokens is not None
    if both and wanted.max_tokens != wanted.max_completion_tokens:
        msg = "max_tokens and max_completion_tokens mean the same and differ; send one of them"
        problems.append(Problem(msg, Reason.BAD_FORMAT, "max_completion_tokens"))
    ceiling = route.hyper.max_tokens
    for field in ("max_tokens", "max_completion_tokens"):
        value: int | None = getattr(wanted, field)
        if value is None or 0 <= value <= ceiling:
            continue
        why = f"; {ceiling} is maxTokens of the deployment '{route.name}'" if value > ceiling else ""
        msg = f"{field} must be between 0 and {ceiling}, got {_shown(value)}{why}"
        problems.append(Problem(msg, Reason.OUT_OF_RANGE, field))


def _check_best_of(problems: list[Problem], wanted: CompletionRequest, route: Route) -> None:
    """The best are those with the highest mean log probability, which not every engine tells."""
    _check_bounds(problems, "best_of", wanted.best_of, 1, MAX_ROWS)
    sent = wanted.n or 1
    if wanted.best_of is None or wanted.best_of == sent:
        return
    if wanted.best_of < sent:
        msg = f"best_of must be at least n, got {wanted.best_of} for n {sent}"
        problems.append(Problem(msg, Reason.OUT_OF_RANGE, "best_of"))
    elif wanted.stream:
        msg = "best_of above n cannot be streamed: the best are known at the end; leave one of the two out"
        problems.append(Problem(msg, Reason.BAD_FORMAT, "best_of"))
    elif why := cannot_see_scores(route.engine, "best_of above n", of=route.name):
        problems.append(Problem(why, Reason.ENGINE_CANNOT, "best_of"))


def _check_stop(problems: list[Problem], stop: str | list[str] | None) -> None:
    if stop is None:
        return
    sequences = [stop] if isinstance(stop, str) else stop
    most, (shortest, longest) = spec.STOP_SEQUENCES.high, spec.STOP_SEQUENCE_LENGTH
    if len(sequences) > most:
        msg = f"stop must hold at most {most} sequences, got {len(sequences)}"
        problems.append(Problem(msg, Reason.OUT_OF_RANGE, "stop"))
    for index, sequence in enumerate(sequences[:most]):
        if not shortest <= len(sequence) <= longest:
            field = "stop" if isinstance(stop, str) else f"stop[{index}]"
            msg = f"{field} must have {shortest} to {longest} characters, got {len(sequence)}"
            problems.append(Problem(msg, Reason.OUT_OF_RANGE, field))


def _message(
    message: ChatMessage, index: int, route: Route, before: list[dict[str, Any]], problems: list[Problem]
) -> dict[str, Any]:
    """A message as the chat template sees it: role, one string, and what it has of tools."""
    at = f"messages[{index}]"
    values = _read_not_offered_in_message(message)
    if values != _none_used_in_message:
        for (field, neutral), value in zip(NEUTRAL_IN_MESSAGE.items(), values, strict=True):
            if value is not None and not _is_one_of(value, neutral):
                problems.append(_cannot(route, f"{at}.{field}", neutral))
    if message.role == "function":
        problems.append(_cannot(route, f"{at}.role '{message.role}'", ROLES, field=f"{at}.role"))
    elif message.role not in ROLES:
        msg = f"{at}.role must be one of {', '.join(ROLES)}, got '{message.role[:64]}'"
        problems.append(Problem(msg, Reason.NOT_IN_ENUM, f"{at}.role"))
    # `developer` is the newer name of `system`, and the one that templates do not know.
    role = "system" if message.role == "developer" else message.role
    if message.role == "tool" or message.tool_calls or message.tool_call_id is not None:
        tools = turn_with_tools(message, at, before, problems)
        content = "" if message.content is None and message.tool_calls else _content(message, at, route, problems)
        return {"role": role, "content": content, **tools}
    return {"role": role, "content": _content(message, at, route, problems)}


def _content(message: ChatMessage, at: str, route: Route, problems: list[Problem]) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    if content is None:
        problems.append(Problem(f"{at}.content is required", Reason.MISSING_FIELD, f"{at}.content"))
        return ""
    for index, part in enumerate(content):
        field = f"{at}.content[{index}]"
        if part.type != "text":
            problems.append(_cannot(route, f"{field} of type '{part.type[:64]}'", ("text",), field=field))
        elif part.text is None:
            problems.append(Problem(f"{field}.text is required", Reason.MISSING_FIELD, f"{field}.text"))
    return "".join(part.text or "" for part in content)


def _prompts(wanted: CompletionRequest, problems: list[Problem]) -> list[dict[str, Any]]:
    """The prompts as keyword arguments of `GenerateRequest`."""
    prompt = wanted.prompt
    if isinstance(prompt, str):
        return [{"prompt": prompt}]
    if not prompt:
        problems.append(Problem("prompt must not be an empty list", Reason.OUT_OF_RANGE, "prompt"))
    kinds = {type(item) for item in prompt}
    if len(kinds) > 1:
        msg = "prompt must be a string, a list of strings, a list of token ids, or a list of such lists, not a mix"
        problems.append(Problem(msg, Reason.WRONG_TYPE, "prompt"))
        return []
    if kinds == {str}:
        found = [{"prompt": item} for item in prompt]
    else:
        found = [{"prompt_ids": ids} for ids in ([prompt] if kinds == {int} else prompt)]
        _check_ids(problems, [ids["prompt_ids"] for ids in found])
    if len(found) > MAX_PROMPTS:
        msg = f"prompt must hold at most {MAX_PROMPTS} prompts, got {len(found)}"
        problems.append(Problem(msg, Reason.OUT_OF_RANGE, "prompt"))
    return found


def _check_ids(problems: list[Problem], lists: list[Any]) -> None:
    if any(not ids for ids in lists):
        problems.append(Problem("prompt must not hold an empty list", Reason.OUT_OF_RANGE, "prompt"))
    if any(not 0 <= token_id < 2**31 for ids in lists for token_id in ids):
        problems.append(Problem("prompt holds a number that is no token id", Reason.OUT_OF_RANGE, "prompt"))


def _cannot(route: Route, what: str, neutral: tuple[Any, ...], *, field: str | None = None) -> Problem:
    allowed = " or ".join(repr(value) for value in neutral)
    hint = (
        f"leave it out or send {allowed}"
        if allowed and field is None
        else f"send {allowed}"
        if allowed
        else "leave it out"
    )
    return Problem(
        f"the engine {route.engine} of '{route.name}' cannot do {what}; {hint}",
        Reason.ENGINE_CANNOT,
        field or what,
    )


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Equality without Python's `True == 1`."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def _shown(value: float) -> str:
    """A number short enough for a message: 3 for 3.0, and no thousand digits."""
    return f"{value:g}" if abs(value) < 1e15 else f"{value:.3e}" if isinstance(value, float) else "a very large number"
