"""What a decoded body may ask for, and what it becomes for the replica. Pure; every refusal names the field."""

from operator import attrgetter
from typing import Any

from dockyard.domain import spec
from dockyard.domain.spec import HyperParameters
from dockyard.errors import Invalid, Problem, Reason
from dockyard.gateway.openai_wire import ChatCompletionRequest, ChatMessage, CompletionRequest, Sampling
from dockyard.protocols.generation import GenerateRequest
from dockyard.protocols.routing import Route

MAX_PROMPTS = 64
SEED_BOUNDS = (-(2**63), 2**63 - 1)
ROLES = ("system", "developer", "user", "assistant")

# What no engine here can do yet, and the values that ask for nothing. None asks for nothing everywhere.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "logit_bias": ({},),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": ("none",),
    "verbosity": ("medium",),
    "web_search_options": (),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
}
NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "refusal": (),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
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
    """The one generation that a chat asks for. Raises `Invalid` with every problem of the body."""
    problems = _problems(wanted, route)
    if not wanted.messages:
        problems.append(Problem("messages must hold at least one message", Reason.OUT_OF_RANGE, "messages"))
    messages = [_message(message, index, route, problems) for index, message in enumerate(wanted.messages)]
    if problems:
        raise Invalid(problems=tuple(problems))
    return [_generation(wanted, route.hyper, reply_id, messages=messages)]


def text_generations(wanted: CompletionRequest, route: Route, reply_id: str) -> list[GenerateRequest]:
    """One generation per prompt, in order. Raises `Invalid` with every problem of the body."""
    problems = _problems(wanted, route)
    prompts = _prompts(wanted, problems)
    if problems:
        raise Invalid(problems=tuple(problems))
    if len(prompts) == 1:
        return [_generation(wanted, route.hyper, reply_id, **prompts[0])]
    return [_generation(wanted, route.hyper, f"{reply_id}-{index}", **prompt) for index, prompt in enumerate(prompts)]


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
    if wanted.n is not None and wanted.n != 1:
        problems.append(Problem(f"n must be 1, got {wanted.n}; send the request once more", Reason.OUT_OF_RANGE, "n"))
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


def _message(message: ChatMessage, index: int, route: Route, problems: list[Problem]) -> dict[str, Any]:
    """A message as the chat template sees it: role and one string."""
    at = f"messages[{index}]"
    values = _read_not_offered_in_message(message)
    if values != _none_used_in_message:
        for (field, neutral), value in zip(NEUTRAL_IN_MESSAGE.items(), values, strict=True):
            if value is not None and not _is_one_of(value, neutral):
                problems.append(_cannot(route, f"{at}.{field}", neutral))
    if message.role in ("tool", "function"):
        problems.append(_cannot(route, f"{at}.role '{message.role}'", ROLES, field=f"{at}.role"))
    elif message.role not in ROLES:
        msg = f"{at}.role must be one of {', '.join(ROLES)}, got '{message.role[:64]}'"
        problems.append(Problem(msg, Reason.NOT_IN_ENUM, f"{at}.role"))
    # `developer` is the newer name of `system`, and the one that templates do not know.
    role = "system" if message.role == "developer" else message.role
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
