"""What the soak asks, and whether an answer is right: byte for byte from the echo engine, date for date from T5, verse
for verse (as it was before anything went wrong) from GPT-2.

Pure: no server, no clock. Each request is made from its number and the seed, and carries the only answer it may get.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

ECHO, DATES, VERSES = "echo", "dates", "verses"  # the deployments: the first one, and one of the others
MODEL_SHARE = 0.3  # of the requests, for the other one
VERSE_STARTS = ("And God said", "Moses", "In the beginning", "a", "And the king", "Behold", "Thou shalt", "The word of")
VERSE_TOKENS = (8, 24, 64)

_ASCII = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,;:-"
_WIDE = _ASCII + "äéßñΩж漢字한글😀🚀"  # a character of two to four ids must survive a move between replicas, too
_FIRST_DAY, _DAYS = date(1900, 1, 1), 73_049  # to 2099-12-31, as the model was trained
_FORMS = (
    "{day:%A}, {day:%B} {day.day}, {day.year}",
    "{day:%B} {day.day}, {day.year}",
    "{day.day} {day:%B} {day.year}",
    "{day:%A}, {day.day} {day:%B} {day.year}",
    "{day:%b} {day.day}, {day.year}",
    "{day.day} {day:%b} {day.year}",
    "{day:%a} {day:%b} {day.day} {day.year}",
)


@dataclass(frozen=True)
class Expected:
    """One choice: its whole text and why it ends."""

    text: str
    finish: str


@dataclass(frozen=True)
class Ask:
    """A request and its only right answer."""

    number: int
    body: dict[str, Any]
    expected: tuple[Expected, ...]
    prompt_tokens: int
    completion_tokens: int

    @property
    def streams(self) -> bool:
        return bool(self.body.get("stream"))

    @property
    def usage(self) -> dict[str, int]:
        prompt, completion = self.prompt_tokens, self.completion_tokens
        return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@dataclass(frozen=True)
class Verse:
    """A greedy completion, as nothing disturbed it."""

    prompt: str
    max_tokens: int
    expected: Expected
    prompt_tokens: int
    completion_tokens: int

    @property
    def body(self) -> dict[str, Any]:
        return {"model": VERSES, "prompt": self.prompt, "temperature": 0, "max_tokens": self.max_tokens}


class Wrong(Exception):
    """An answer that is not the right one; the message says in what."""


def make_ask(seed: int, number: int, verses: Sequence[Verse] = ()) -> Ask:
    """Request `number`: every second one streams, every second stream asks for its usage. Without `verses`, dates."""
    rng = random.Random(f"{seed}/{number}")
    of_model = rng.random() < MODEL_SHARE
    made = (_verse(rng, verses) if verses else _date(rng)) if of_model else _echo(rng, number)
    body = dict(made.body)
    if number % 2:
        body |= {"stream": True}
        if number % 4 == 1:
            body |= {"stream_options": {"include_usage": True}}
    return Ask(number, body, made.expected, made.prompt_tokens, made.completion_tokens)


def check_whole(ask: Ask, body: bytes) -> None:
    """Raises `Wrong` unless `body` is the right answer of a request that does not stream."""
    told = _object(body)
    if told.get("model") != ask.body["model"] or told.get("object") != "text_completion":
        raise Wrong(f"model {told.get('model')!r}, object {told.get('object')!r}")
    try:
        choices = [(c["index"], c["text"], c["finish_reason"]) for c in told["choices"]]
    except (KeyError, TypeError) as error:
        raise Wrong(f"no completion ({error!r}): {body[:500]!r}") from None
    right = [(index, one.text, one.finish) for index, one in enumerate(ask.expected)]
    if choices != right:
        raise Wrong(f"choices {choices}, not {right}")
    if told.get("usage") != ask.usage:
        raise Wrong(f"usage {told.get('usage')}, not {ask.usage}")


@dataclass
class _Choice:
    text: str = ""
    finish: str | None = None


@dataclass
class StreamCheck:
    """Takes a stream as it comes. Whatever has come so far is a true beginning of the answer, or `Wrong` is raised."""

    ask: Ask
    done: bool = False
    _rest: bytes = b""
    _id: str | None = None
    _usage: dict[str, int] | None = None
    _choices: list[_Choice] = field(default_factory=list[_Choice])

    def __post_init__(self) -> None:
        self._choices = [_Choice() for _ in self.ask.expected]

    def feed(self, chunk: bytes) -> None:
        *events, self._rest = (self._rest + chunk).split(b"\n\n")
        for event in events:
            if not event.startswith(b"data: "):
                raise Wrong(f"no event: {event[:200]!r}")
            self._take(event.removeprefix(b"data: "))

    def end(self) -> None:
        """The connection ended as if all had been said: then all must have been."""
        if self._rest:
            raise Wrong(f"half an event at the end: {self._rest[:200]!r}")
        if not self.done:
            raise Wrong(f"ended without [DONE], as if complete, after {self.so_far!r}")

    @property
    def so_far(self) -> list[str]:
        return [choice.text for choice in self._choices]

    def _take(self, data: bytes) -> None:
        if self.done:
            raise Wrong(f"{data[:200]!r} after [DONE]")
        if data == b"[DONE]":
            self._check_complete()
            self.done = True
            return
        told = _object(data)
        try:
            self._take_event(told)
        except (KeyError, IndexError, TypeError) as error:
            raise Wrong(f"no event of a completion ({error!r}): {data[:500]!r}") from None

    def _take_event(self, told: dict[str, Any]) -> None:
        if self._id not in (None, told["id"]):
            raise Wrong(f"id {told['id']} in the stream of {self._id}")
        self._id = told["id"]
        if told.get("usage") is not None:
            if self._usage is not None or told["choices"]:
                raise Wrong("usage twice, or in an event with choices")
            self._usage = told["usage"]
        for choice in told["choices"]:
            self._take_choice(choice["index"], choice["text"], choice["finish_reason"])

    def _take_choice(self, index: int, text: str, finish: str | None) -> None:
        choice, right = self._choices[index], self.ask.expected[index]
        if choice.finish is not None:
            raise Wrong(f"choice {index}: {text!r}, {finish!r} after finish_reason {choice.finish!r}")
        choice.text += text
        if not right.text.startswith(choice.text):
            raise Wrong(f"choice {index}: {choice.text!r} is no beginning of {right.text!r}")
        if finish is not None:
            if (choice.text, finish) != (right.text, right.finish):
                raise Wrong(f"choice {index} ends with {choice.text!r}, {finish!r}, not {right}")
            choice.finish = finish

    def _check_complete(self) -> None:
        if any(choice.finish is None for choice in self._choices):
            raise Wrong(f"[DONE] without a finish_reason, after {self.so_far!r}")
        wanted = self.ask.usage if "stream_options" in self.ask.body else None
        if self._usage != wanted:
            raise Wrong(f"usage {self._usage}, not {wanted}")


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError as error:
        raise Wrong(f"no JSON ({error}): {body[:200]!r}") from None
    if not isinstance(told, dict) or "error" in told:
        raise Wrong(f"an error in place of an answer: {body[:500]!r}")
    return told


def _date(rng: random.Random) -> Ask:
    day = _FIRST_DAY + timedelta(days=rng.randrange(_DAYS))
    prompt = f"date: {rng.choice(_FORMS).format(day=day)}".lower()
    body = {"model": DATES, "prompt": prompt, "temperature": 0}
    answer = day.isoformat()
    return Ask(0, body, (Expected(answer, "stop"),), len(prompt) + 1, len(answer))  # one id a character, and the end


def _verse(rng: random.Random, verses: Sequence[Verse]) -> Ask:
    verse = rng.choice(verses)
    return Ask(0, verse.body, (verse.expected,), verse.prompt_tokens, verse.completion_tokens)


def _echo(rng: random.Random, number: int) -> Ask:
    """Mostly a plain echo; some are cut by max_tokens, some by a stop sequence, some have two prompts."""
    kind = rng.choice(("plain", "plain", "plain", "plain", "length", "stop", "two"))
    if kind == "two":
        prompts = [_text(rng, _WIDE, f"{number}a "), _text(rng, _WIDE, f"{number}b ")]
        expected = tuple(Expected(prompt, "stop") for prompt in prompts)
        size = sum(len(prompt.encode()) for prompt in prompts)
        return Ask(0, {"model": ECHO, "prompt": prompts}, expected, size, size)
    prompt = _text(rng, _ASCII if kind != "plain" else _WIDE, f"{number} ")
    size = len(prompt.encode())
    body: dict[str, Any] = {"model": ECHO, "prompt": prompt}
    if kind == "length":
        most = rng.randint(1, size)
        return Ask(0, body | {"max_tokens": most}, (Expected(prompt[:most], "length"),), size, most)
    if kind == "stop":
        at = rng.randint(len(prompt) // 2, len(prompt) - 3)
        stop = prompt[at : at + 3]
        at = prompt.index(stop)
        return Ask(0, body | {"stop": [stop]}, (Expected(prompt[:at], "stop"),), size, at + len(stop))
    return Ask(0, body, (Expected(prompt, "stop"),), size, size)


def _text(rng: random.Random, letters: str, head: str) -> str:
    return head + "".join(rng.choice(letters) for _ in range(rng.randint(8, 32)))
