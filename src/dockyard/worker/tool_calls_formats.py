"""How families of models write a call of a tool, as data, and which of them a chat template speaks."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """`{"name": …, <arguments>: {…}}`, or a list of such, between `openings` (any of them) and `closing`.

    `signs`: all the texts of one of these tuples stand in a template of the family. `bare`: a reply that begins with
    JSON is a call without an opening. `begin`: what the prompt ends with where a call is demanded. `lists`: several
    calls are one list. `named`: the name may come before the JSON, as `name{…}` or `name[ARGS]{…}`. `short_ids`: the
    template insists on ids of nine letters and digits.
    """

    name: str
    signs: Sequence[Sequence[str]]
    openings: Sequence[str] = ()
    closing: str = ""
    begin: str = ""
    arguments: str = "arguments"
    bare: bool = False
    lists: bool = False
    named: bool = False
    short_ids: bool = False

    @property
    def marks(self) -> frozenset[str]:
        """What may be one special token of the vocabulary, which a text shows only if it is asked to."""
        return frozenset((*self.openings, *((self.closing,) if self.closing else ()), *((ARGS,) if self.named else ())))


ARGS = "[ARGS]"

HERMES = ToolFormat(  # Hermes 2 Pro and 3, Qwen 2.5 and 3, SmolLM3, QwQ
    "hermes",
    signs=[("<tool_call>", "</tool_call>")],
    openings=("<tool_call>",),
    closing="</tool_call>",
    begin="<tool_call>\n",
)
MISTRAL = ToolFormat(  # Mistral 7B v0.3, Nemo, Small, Large, Ministral, Magistral
    "mistral",
    signs=[("[TOOL_CALLS]",)],
    openings=("[TOOL_CALLS]",),
    begin="[TOOL_CALLS]",
    lists=True,
    named=True,
    short_ids=True,
)
LLAMA3 = ToolFormat(  # Llama 3.1, 3.2, 3.3
    "llama3",
    signs=[("<|python_tag|>",), ('"parameters": dictionary of argument name',)],
    openings=("<|python_tag|>",),
    arguments="parameters",
    bare=True,
)
PHI4 = ToolFormat(  # Phi-4 mini
    "phi4",
    signs=[("<|tool_call|>", "<|/tool_call|>")],
    openings=("<|tool_call|>",),
    closing="<|/tool_call|>",
    begin="<|tool_call|>",
    lists=True,
)
GRANITE = ToolFormat(  # Granite 3.0 and 3.1
    "granite", signs=[("<|tool_call|>",)], openings=("<|tool_call|>",), begin="<|tool_call|>", lists=True
)
# XML inside the marks, as Qwen3-Coder and GLM write it, is none of these.
_NOT = ("<function=", "<arg_key>", "<parameter=")
FORMATS = (HERMES, MISTRAL, LLAMA3, PHI4, GRANITE)

# What a call is held to where one is demanded of a family that is none of the above.
PLAIN = ToolFormat("plain", signs=(), bare=True)


def find_tool_format(template: str) -> ToolFormat | None:
    """The format of the first family whose signs stand in the source of a chat template."""
    if any(sign in template for sign in _NOT):
        return None
    return next((form for form in FORMATS if any(all(sign in template for sign in one) for one in form.signs)), None)
