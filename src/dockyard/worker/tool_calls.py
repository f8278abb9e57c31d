"""Finds the calls of tools in a text as it comes: what is a call never goes out as text, what is none always does."""

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from dockyard.protocols.generation import ToolCall
from dockyard.worker.json_extent import JsonExtent
from dockyard.worker.tool_calls_formats import ARGS, ToolFormat

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SEPARATORS = ";,"  # between calls without marks
_BETWEEN = _SEPARATORS + " \t\r\n"


class ToolCalls:
    """Feed it the pieces of a text; each time it gives the text to pass on, and appends to `made` the calls it found.

    `offered`: the names of the tools. A call in its family's marks may name any; one without marks is a call only if it
    names one of these. `begun`: the opening is in the prompt already. `most`: the text is over after so many calls.
    What it gives depends on the text alone, not on where the pieces begin, so that another replica can go on.
    """

    def __init__(
        self,
        form: ToolFormat,
        request_id: str,
        offered: Collection[str],
        *,
        begun: bool = False,
        most: int | None = None,
    ) -> None:
        self.made: list[ToolCall] = []
        self._form = form
        self._request_id = request_id
        self._offered = offered
        self._most = most
        self._held = ""  # not decided yet
        self._opening = ""  # of the call that is being read, with the space before it
        self._extent: JsonExtent | None = None  # of its JSON
        self._read = self._a_call if begun else self._a_beginning
        self._marked = begun

    @property
    def complete(self) -> bool:
        return self._most is not None and len(self.made) >= self._most

    def push(self, piece: str) -> str:
        """The text that is certain to be text."""
        self._held += piece
        out: list[str] = []
        while not self.complete:
            before = self._read, len(self._held)
            out.append(self._read())
            if before == (self._read, len(self._held)):
                break
        return "".join(out)

    def flush(self) -> str:
        """No more comes: what has been held back and is no call."""
        if self.complete:
            return ""
        pending, self._held = self._opening + self._held, ""
        if self._read == self._after_a_call and self._form.closing.startswith(pending.strip(_BETWEEN)):
            return ""
        return pending

    # Where in the text it is: each takes what it can off `_held`, returns text, and says what comes next.

    def _a_beginning(self) -> str:
        """White space, which is no text if a call comes after it."""
        text = self._held.lstrip()
        if not text:
            return ""
        if self._form.bare and text[0] in "{[":
            return self._open("", marked=False)
        for opening in self._form.openings:
            if text.startswith(opening):
                return self._open(self._held[: len(self._held) - len(text)] + opening)
        if any(opening.startswith(text) for opening in self._form.openings):
            return ""
        self._read = self._some_text
        return ""

    def _some_text(self) -> str:
        """Up to where a call is opened, or may be."""
        starts = [(at, opening) for opening in self._form.openings if (at := self._held.find(opening)) >= 0]
        if not starts:
            return self._take(len(self._held) - _possible_beginning(self._held, self._form.openings))
        at, opening = min(starts)
        text = self._take(at)
        self._open(opening)
        return text

    def _a_call(self) -> str:
        """To the end of its JSON; if it is none, it was text."""
        if self._extent is None:
            start = self._start_of_json()
            if start is None:
                return ""
            if start < 0:
                return self._no_call()
            self._extent = JsonExtent(start)
        end = self._extent.find(self._held)
        if end is None:
            return ""
        calls = self._calls(self._held[:end]) if end >= 0 else []
        if not calls:
            return self._no_call()
        self.made.extend(calls[: None if self._most is None else self._most - len(self.made)])
        self._held = self._held[end:]
        self._opening, self._extent = "", None
        self._read = self._after_a_call
        return ""

    def _after_a_call(self) -> str:
        """White space, a closing mark and separators are no text if nothing or one more call comes after them."""
        text = self._held.lstrip()
        closing = self._form.closing
        if closing and text.startswith(closing):
            self._held = text[len(closing) :]
            return ""
        for opening in self._form.openings:
            if text.startswith(opening):
                return self._open(self._held[: len(self._held) - len(text)] + opening)
        if any(mark.startswith(text) for mark in (*self._form.openings, closing)):
            return ""
        if not self._marked:
            rest = text.lstrip(_BETWEEN)
            if not rest:
                return ""
            if rest[0] == "{":
                return self._open(self._held[: len(self._held) - len(rest)], marked=False)
        self._read = self._some_text
        return ""

    def _open(self, opening: str, *, marked: bool = True) -> str:
        self._held = self._held[len(opening) :]
        self._opening, self._extent, self._marked = opening, None, marked
        self._read = self._a_call
        return ""

    def _no_call(self) -> str:
        """Nothing but the opening is given back at once: what follows it may hold another one."""
        opening, self._opening, self._extent = self._opening, "", None
        self._read = self._some_text
        if opening:
            return opening
        return self._take(len(self._held) - len(self._held.lstrip()) + 1)

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    # What a call is

    def _start_of_json(self) -> int | None:
        """Where the JSON begins; None if that cannot be told yet, -1 if there is none."""
        rest = self._held.lstrip()
        name = _NAME.match(rest) if self._marked and self._form.named else None
        if name is not None:
            rest = rest[name.end() :].lstrip()
            if rest.startswith(ARGS):
                rest = rest[len(ARGS) :].lstrip()
            elif ARGS.startswith(rest):
                return None
        if not rest:
            return None
        return len(self._held) - len(rest) if rest[0] in "{[" else -1

    def _calls(self, text: str) -> list[ToolCall]:
        """The calls that `text` is; empty if it is anything else."""
        name = _NAME.match(text.lstrip()) if self._marked and self._form.named else None
        if name is not None:
            body = text[text.index("{") :] if "{" in text else ""
            told = [_Told(name.group(), Raw(body.encode()))]
        else:
            told = _told(text)
        calls: list[ToolCall] = []
        for one in told:
            arguments = one.text()
            if arguments is None or not _NAME.fullmatch(one.name):
                return []
            if not self._marked and (one.name not in self._offered or not one.has_arguments):
                return []
            calls.append(ToolCall(self._id(len(self.made) + len(calls)), one.name, arguments))
        return calls

    def _id(self, number: int) -> str:
        digest = hashlib.sha256(f"{self._request_id} {number}".encode()).hexdigest()
        return digest[:9] if self._form.short_ids else f"call_{digest[:24]}"


def speaks_of_tools(messages: Sequence[Mapping[str, Any]]) -> bool:
    """A tool has been called in the conversation."""
    return any(message.get("role") == "tool" or message.get("tool_calls") for message in messages)


class _Told(msgspec.Struct):
    """A call as models write it; whatever else they add is not read."""

    name: str
    arguments: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET

    @property
    def has_arguments(self) -> bool:
        return self.arguments is not UNSET or self.parameters is not UNSET

    def text(self) -> str | None:
        """The JSON of an object, as the model wrote it; None if the arguments are something else."""
        raw = self.arguments if self.arguments is not UNSET else self.parameters
        if raw is UNSET:
            return "{}"
        try:
            value = msgspec.json.decode(raw)
            text = value if isinstance(value, str) else bytes(raw).decode()
            if isinstance(value, str):  # some write the object as a text
                value = msgspec.json.decode(value)
        except _UNREADABLE:
            return None
        if value is None:
            return "{}"
        return text if isinstance(value, dict) else None


_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError)
_one = msgspec.json.Decoder(_Told)
_several = msgspec.json.Decoder(list[_Told])


def _told(text: str) -> list[_Told]:
    try:
        return _several.decode(text) if text.lstrip().startswith("[") else [_one.decode(text)]
    except _UNREADABLE:
        return []


def _possible_beginning(text: str, marks: Collection[str]) -> int:
    """Length of the longest end of `text` with which a mark begins."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[len(text) - length :]
        if any(mark.startswith(end) for mark in marks):
            return length
    return 0
