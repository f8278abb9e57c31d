"""How large a text would become that a chat template asks for, told before it is made. Checks raise `SecurityError`."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

LONGEST_TEXT = 10_000_000  # characters that are put together; a context of a million tokens has fewer
LONGEST_LIST = 1_000_000  # items
_ITEM = 20  # characters that an item counts as: half a million are looked at in 0.3 s

# Filters that make a text of whatever they are given.
MAKE_TEXT = frozenset(
    ("string", "tojson", "pprint", "escape", "e", "forceescape", "safe", "upper", "lower", "capitalize", "title",
     "trim", "striptags", "truncate", "urlencode", "urlize", "wordcount", "wordwrap", "indent", "center",
     "xmlattr", "replace")
)  # fmt: skip


def weighed(value: Any) -> Any:
    """`value`, if it is of a length that may become a text; what a list holds several times counts as often."""
    if not isinstance(value, str | int | float | None):
        _weigh(value, LONGEST_TEXT)
    return value


def joined(pieces: Iterable[str]) -> str:
    """`"".join`, with a bound: what a template, a macro or a block writes comes through here."""
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        _refuse_beyond(length)
        kept.append(piece)
    return "".join(kept)


def bounded_replace(named: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The filter `replace` (`at` 1: after a context) and the method of texts (`at` 0: the text itself)."""

    @functools.wraps(named)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        text, old, new = (str(one) for one in _three((*args[at:], *kwargs.values())))
        times = text.count(old) if old else len(text) + 1
        _refuse_beyond(len(text) + times * max(0, len(new) - len(old)))
        return named(*args, **kwargs)

    return bounded


def bounded_join(named: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `join`, whose first argument is the evaluation's context."""

    @functools.wraps(named)
    def bounded(eval_ctx: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        items = some(value)
        weighed(items)
        _refuse_beyond(len(str(d)) * len(items))
        return named(eval_ctx, items, d, attribute)

    return bounded


def check_joined(separator: str, items: list[Any]) -> None:
    weighed(items)
    _refuse_beyond(len(separator) * len(items))


def check_translated(text: str, table: Any) -> None:
    values = table.values() if isinstance(table, Mapping) else ()
    longest = max((len(value) for value in values if isinstance(value, str)), default=1)
    _refuse_beyond(len(text) * longest)


def check_filled(form: str, fields: Iterable[Any]) -> None:
    """A form that names its fields again and again: `"%(a)s%(a)s"`, `"{0}{0}"`."""
    longest = 1
    for field in fields:
        weighed(field)
        values = field.values() if isinstance(field, Mapping) else (field,)
        longest = max([longest, *(len(value) for value in values if isinstance(value, str))])
    _refuse_beyond(len(form) + longest * (form.count("%") + form.count("{")))


def some(items: Iterable[Any]) -> list[Any]:
    """All of them, if they are not too many."""
    kept: list[Any] = []
    for item in items:
        kept.append(item)
        if len(kept) > LONGEST_LIST:
            raise SecurityError(f"more than {LONGEST_LIST:,} items are refused")
    return kept


def bounded_counts(named: Callable[..., Any]) -> Callable[..., Any]:
    """`batch` and `slice`, which fill up to a number that the template tells."""

    @functools.wraps(named)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        if any(isinstance(one, int) and one > LONGEST_LIST for one in (*args, *kwargs.values())):
            raise SecurityError(f"more than {LONGEST_LIST:,} items are refused")
        return named(*args, **kwargs)

    return bounded


def bounded_lines(named: Callable[..., Any]) -> Callable[..., Any]:
    """`indent` and `wordwrap`, which put a text of the template's into each line."""

    @functools.wraps(named)
    def bounded(text: Any, *args: Any, **kwargs: Any) -> Any:
        longest = max((len(one) for one in (*args, *kwargs.values()) if isinstance(one, str)), default=0)
        _refuse_beyond(len(str(text)) * longest)
        return named(text, *args, **kwargs)

    return bounded


def bounded_sum(named: Callable[..., Any]) -> Callable[..., Any]:
    """`sum` of numbers; of lists it would put them together again and again."""

    @functools.wraps(named)
    def bounded(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, int | float):
            raise SecurityError("sum adds numbers only")
        return named(environment, iterable, attribute, start)

    return bounded


def _three(given: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """Text, old and new of a replacement; a call that lacks one fails by itself."""
    return (*given[:3], *("",) * (3 - len(given[:3])))  # type: ignore[return-value]


def _weigh(value: Any, left: int) -> int:
    """What is left of `left` after the characters of `value`."""
    if isinstance(value, str):
        left -= len(value)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            left = _weigh(one, _weigh(key, left))
    elif isinstance(value, list | tuple | set | frozenset):
        for one in value:
            left = _weigh(one, left)
    if left <= 0:
        raise SecurityError(f"more than {LONGEST_TEXT:,} characters or items are refused")
    return left - _ITEM


def _refuse_beyond(length: int) -> None:
    if length > LONGEST_TEXT:
        raise SecurityError(f"more than {LONGEST_TEXT:,} characters or items are refused")
