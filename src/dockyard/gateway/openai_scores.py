"""What requests ask of the engine's scores: `response_format` and `logprobs`. Pure; every refusal names the field."""

import re
from typing import Any

import msgspec

from dockyard.domain.abilities import cannot_see_scores
from dockyard.domain.json_schema import schema_problems
from dockyard.errors import Problem, Reason
from dockyard.gateway.openai_wire import ChatCompletionRequest, CompletionRequest, ResponseFormat, Sampling
from dockyard.protocols.routing import Route

MAX_CHAT_LOGPROBS = 20
MAX_TEXT_LOGPROBS = 5
FORMATS = ("text", "json_object", "json_schema")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_AT = "response_format.json_schema"


def scores_asked(
    wanted: Sampling, route: Route, problems: list[Problem], *, with_tools: bool = False
) -> dict[str, Any]:
    """`json_schema` and `logprobs` of `GenerateRequest`, where they are asked for; `with_tools`, those win."""
    asked: dict[str, Any] = {}
    schema = None if wanted.response_format is None else _schema(wanted.response_format, problems)
    if schema is not None and not with_tools:
        asked["json_schema"] = schema
        _check_engine(problems, route, "response_format")
    if (count := _logprobs(wanted, problems)) is not None:
        asked["logprobs"] = count
        _check_engine(problems, route, "logprobs")
    return asked


def _check_engine(problems: list[Problem], route: Route, field: str) -> None:
    if why := cannot_see_scores(route.engine, field, of=route.name):
        problems.append(Problem(why, Reason.ENGINE_CANNOT, field))


def _schema(wanted: ResponseFormat, problems: list[Problem]) -> str | None:
    """The text of the schema; None if any text will do, or none can be made of this."""
    if wanted.type not in FORMATS:
        msg = f"response_format.type must be one of {', '.join(FORMATS)}, got '{wanted.type[:64]}'"
        problems.append(Problem(msg, Reason.NOT_IN_ENUM, "response_format.type"))
        return None
    if wanted.type != "json_schema":
        return '{"type":"object"}' if wanted.type == "json_object" else None
    given = wanted.json_schema
    if given is None:
        problems.append(Problem(f"{_AT} is required with the type json_schema", Reason.MISSING_FIELD, _AT))
        return None
    if given.name is None or not _NAME.fullmatch(given.name):
        msg = f"{_AT}.name must have 1 to 64 letters, digits, '_' and '-'"
        problems.append(Problem(msg, Reason.MISSING_FIELD if given.name is None else Reason.BAD_FORMAT, f"{_AT}.name"))
    if given.schema is None:
        problems.append(Problem(f"{_AT}.schema is required", Reason.MISSING_FIELD, f"{_AT}.schema"))
        return None
    text = msgspec.json.encode(given.schema)
    for found in schema_problems(given.schema, len(text)):
        field = f"{_AT}.schema{found.at}"
        problems.append(Problem(f"{field} {found.what}", Reason.SCHEMA_NOT_SUPPORTED, field))
    return text.decode()


def _logprobs(wanted: Sampling, problems: list[Problem]) -> int | None:
    if isinstance(wanted, CompletionRequest):
        if wanted.logprobs is None or wanted.logprobs is False:
            return None
        if wanted.logprobs is True:
            msg = f"logprobs must be a number of tokens from 0 to {MAX_TEXT_LOGPROBS} on this route, got true"
            problems.append(Problem(msg, Reason.WRONG_TYPE, "logprobs"))
            return None
        _check_count(problems, "logprobs", wanted.logprobs, MAX_TEXT_LOGPROBS)
        return wanted.logprobs
    if not isinstance(wanted, ChatCompletionRequest):
        return None
    if wanted.top_logprobs:
        _check_count(problems, "top_logprobs", wanted.top_logprobs, MAX_CHAT_LOGPROBS)
        if not wanted.logprobs:
            msg = "top_logprobs needs logprobs to be true; send both, or neither"
            problems.append(Problem(msg, Reason.BAD_FORMAT, "top_logprobs"))
    return (wanted.top_logprobs or 0) if wanted.logprobs else None


def _check_count(problems: list[Problem], field: str, count: int, most: int) -> None:
    if not 0 <= count <= most:
        problems.append(Problem(f"{field} must be between 0 and {most}, got {count}", Reason.OUT_OF_RANGE, field))
