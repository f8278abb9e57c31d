"""JSON schemas as constraints on the next token, by llguidance. Compiled once per schema, one `Guide` per row.

llguidance walks the schema's grammar over the bytes of all tokens and says, for each step, which tokens may come. What
a schema may cost is bounded by `_LIMITS`; what of it is refused before that, by `domain.json_schema`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from dockyard.engines.vocabulary import Vocabulary
from dockyard.errors import Invalid, Reason

FIELD = "response_format"
_NO_TEXT = "no text that this model can write matches it"
_MOST_KEPT = 32  # compiled schemas; one is some 100 KiB
# Fuel is about 50 units for a microsecond; the library's own limits let a schema have seconds for a step.
_LIMITS = {
    "initial_lexer_fuel": 100_000,
    "step_lexer_fuel": 50_000,
    "step_max_items": 10_000,
    "max_lexer_states": 20_000,
    "max_grammar_size": 50_000,
    "precompute_large_lexemes": False,
    "verbose_errors": False,
}
_JSON = {
    # On one line, with a space after a separator or without: where any white space may be, a small model goes on with
    # it for ever.
    "whitespace_flexible": False,
    "item_separator": ", ?",
    "key_separator": ": ?",
    "lenient": False,  # a keyword that is not understood is told, not ignored
    "coerce_one_of": False,
}


class SchemaRefused(Invalid):
    """`why` alone is for whoever made the schema of something else than response_format."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"the JSON schema of response_format cannot be used: {why}; change it, or leave response_format out",
            reason=Reason.SCHEMA_NOT_SUPPORTED,
            field=f"{FIELD}.json_schema.schema",
        )
        self.why = why


class Constraints:
    """Compiles schemas for one vocabulary, which is read when the first one comes. For any thread."""

    def __init__(self, read: Callable[[], Vocabulary], eos_token_ids: Callable[[], frozenset[int]]) -> None:
        self._read = read
        self._eos_token_ids = eos_token_ids
        self._vocabulary: Vocabulary | None = None
        self._tokenizer: Any = None
        self._compiled: OrderedDict[str, Constraint] = OrderedDict()
        self._turn = threading.RLock()

    @property
    def vocabulary(self) -> Vocabulary:
        with self._turn:
            if self._vocabulary is None:
                self._vocabulary = self._read()
            return self._vocabulary

    def prepare(self) -> None:
        """Have the vocabulary ready; half a second for 50,000 tokens, of which no other Python runs."""
        with self._turn:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self.vocabulary, sorted(self._eos_token_ids()))

    def compile(self, schema: str) -> "Constraint":
        """Blocks. Raises `Invalid` for a schema that is wrong, cannot be honoured, or asks for too much work."""
        with self._turn:
            known = self._compiled.get(schema)
            if known is None:
                self.prepare()
                known = self._compiled[schema] = _constraint(self._tokenizer, schema)
                if len(self._compiled) > _MOST_KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(schema)
            return known


class Constraint:
    """A compiled schema."""

    def __init__(self, schema: str, matcher: Any, eos_token_id: int) -> None:
        self.schema = schema
        self._matcher = matcher
        self._eos_token_id = eos_token_id
        self._turn = threading.Lock()

    def begin(self, known: Sequence[int] = ()) -> "Guide":
        """For a row of which `known` is there already. Raises `Invalid` if that is not of this schema."""
        with self._turn:
            guide = Guide(self._matcher.deep_copy(), self._eos_token_id)
        for token in known:
            guide.take(token)
        return guide


class Guide:
    """Where one row is in its schema's grammar. For one thread at a time."""

    def __init__(self, matcher: Any, eos_token_id: int) -> None:
        self._matcher = matcher
        self._eos_token_id = eos_token_id

    @property
    def complete(self) -> bool:
        """What came so far is a whole text of the schema."""
        return self._matcher.is_accepting()

    def allowed(self) -> bytes:
        """A bit for each token id, the lowest first.

        Raises `Invalid` where the grammar became too costly, or asks for a character that no token is made of.
        """
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            told = self._matcher.get_error()
            if "NoExtension" not in told:
                raise _refused(_told(told))
            raise _refused(_NO_TEXT)
        ends = mask[self._eos_token_id // 8] >> (self._eos_token_id % 8) & 1
        if not any(mask) or (ends and not self.complete):
            raise _refused(_NO_TEXT)
        return mask

    def take(self, token: int) -> None:
        if self._matcher.is_stopped() and not self._matcher.is_error():
            return  # complete: an end of sequence follows, or nothing
        if not self._matcher.consume_token(token):
            raise _refused(f"it does not go on after token {token}: {_told(self._matcher.get_error())}")


def _tokenizer(vocabulary: Vocabulary, eos_token_ids: list[int]) -> Any:
    if not vocabulary.spells:
        raise Invalid(
            "the tokenizer of the model writes between its tokens, so that its output cannot be constrained; leave "
            "response_format out",
            reason=Reason.ENGINE_CANNOT,
            field=FIELD,
        )
    from llguidance import LLTokenizer

    return LLTokenizer(_Tokens(vocabulary, eos_token_ids), eos_token=eos_token_ids, slices=LLTokenizer.json_slices())  # pyright: ignore[reportArgumentType]


class _Tokens:
    """What llguidance asks of a tokenizer (its `TokenizerWrapper`)."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, eos_token_ids: list[int]) -> None:
        self.eos_token_id = eos_token_ids[0]
        missing = max(0, eos_token_ids[-1] + 1 - len(vocabulary.tokens))
        # 0xFF marks special tokens there, and is in no text.
        self.tokens = [b"" if token[:1] == b"\xff" else token for token in vocabulary.tokens] + [b""] * missing
        special = vocabulary.special | {*eos_token_ids}
        self.special_token_ids = sorted(special)
        self._ids = {token: token_id for token_id, token in enumerate(self.tokens) if token_id not in special}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Where the grammar leaves no choice, its text comes in these tokens: the longest that fits, again and again.

        That is what the model's own tokenizer says but for one place in a thousand, and needs no second one loaded.
        """
        rest = text.encode() if isinstance(text, str) else text
        ids: list[int] = []
        while rest:
            sizes = range(min(self._longest, len(rest)), 0, -1)
            size = next((size for size in sizes if rest[:size] in self._ids), 0)
            if not size:
                return [*ids, self.eos_token_id]  # no token begins so, and `Guide.allowed` sees an end that is none
            ids.append(self._ids[rest[:size]])
            rest = rest[size:]
        return ids


def _constraint(tokenizer: Any, schema: str) -> Constraint:
    """Its first step is taken here: whatever refuses at once is told before anything runs."""
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(**_LIMITS)
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_JSON)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        raise _refused(_told(str(error))) from error
    wrong, messages = LLMatcher.validate_grammar_with_warnings(grammar, limits=limits)
    if wrong:
        raise _refused(_told(messages[0]))
    matcher = LLMatcher(tokenizer, grammar, log_level=0, limits=limits)
    Guide(matcher, tokenizer.eos_token).allowed()
    return Constraint(schema, matcher, tokenizer.eos_token)


def _told(error: str) -> str:
    """The library's own words, without its dump of a state."""
    return error.partition("\n")[0].strip()[:300] or "unknown error"


def _refused(why: str) -> "SchemaRefused":
    return SchemaRefused(why)
