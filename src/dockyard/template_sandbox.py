"""The sandbox in which a model's chat template runs: nothing of Python's own, no numbers and texts without bound."""

import functools
import re
from collections.abc import Callable
from typing import Any, ClassVar

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import pass_context

from dockyard.template_growth import (
    LONGEST_TEXT,
    MAKE_TEXT,
    bounded_counts,
    bounded_join,
    bounded_lines,
    bounded_replace,
    bounded_sum,
    check_filled,
    check_joined,
    check_translated,
    joined,
    some,
    weighed,
)

_LONGEST_REPEATED = 1_000_000  # characters or items
_WIDEST = 10_000  # of a padded field
_WIDE = re.compile(r"\d{5,}")
_PADDING = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs"))
_LARGEST_EXPONENT = 64
_MOST_STEPS = 100_000  # turns of loops and calls of macros in one rendering: half a second at most

# No names that a template could write.
_STEP, _SIZE, _WEIGHT = "step of the sandbox", "size in the sandbox", "weight in the sandbox"


class _Template(Template):
    """One rendering at a time: its steps are the environment's."""

    def new_context(self, *arguments: Any, **options: Any) -> Context:
        assert isinstance(self.environment, TemplateSandbox)
        self.environment.steps = 0
        return super().new_context(*arguments, **options)


class TemplateSandbox(ImmutableSandboxedEnvironment):
    """Set up as Transformers does it (`utils/chat_template_utils.py`); what repeats or grows is bounded besides."""

    template_class = _Template
    intercepted_binops: ClassVar[frozenset[str]] = frozenset(("*", "**", "+", "%"))  # pyright: ignore[reportIncompatibleVariableOverride]

    concat = staticmethod(joined)  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock], finalize=weighed
        )
        self.steps = 0
        self.filters |= {_STEP: _step, _SIZE: _size, _WEIGHT: weighed}
        self.filters["format"] = _format(self.filters["format"])
        for name in ("center", "indent", "wordwrap"):
            self.filters[name] = _narrow(self.filters[name])
        for name in ("indent", "wordwrap"):
            self.filters[name] = bounded_lines(self.filters[name])
        for name in ("batch", "slice"):
            self.filters[name] = bounded_counts(self.filters[name])
        self.filters["join"] = bounded_join(self.filters["join"])
        self.filters["replace"] = bounded_replace(self.filters["replace"], 1)
        self.filters["sum"] = bounded_sum(self.filters["sum"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """Each turn of a loop and each call of a macro begins with a step, which writes nothing; `~` is measured."""
        tree = super()._parse(source, name, filename)
        _measure(tree)
        for made in tree.find_all(nodes.Filter):
            if made.name in MAKE_TEXT and made.node is not None:
                made.node = nodes.Filter(made.node, _WEIGHT, [], [], None, None, lineno=made.lineno)
        for node in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
            step = nodes.Filter(nodes.Const(""), _STEP, [], [], None, None)
            node.body.insert(0, nodes.Output([step]).set_lineno(node.lineno, override=True))
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Raises `SecurityError` for `9 ** 9 ** 9`, `"a" * 10000000000`, `"%9999999999d" % 1`, texts without end."""
        if operator == "**" and not (abs(right) <= _LARGEST_EXPONENT and abs(left) <= _LONGEST_REPEATED):
            raise SecurityError(f"a power beyond {_LARGEST_EXPONENT} is refused")
        if operator == "*" and _repeated(left, right) > _LONGEST_REPEATED:
            raise SecurityError(f"more than {_LONGEST_REPEATED} characters or items at once are refused")
        if operator == "%" and isinstance(left, str):
            fields = right if isinstance(right, tuple) else (right,)
            _check_width(left, *fields)
            check_filled(left, fields)
        found = super().call_binop(context, operator, left, right)
        return _size(found) if operator == "+" else found

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Raises `SecurityError` for `"a".center(10000000000)` and its like."""
        owner, name = getattr(callee, "__self__", None), getattr(callee, "__name__", "")
        if isinstance(owner, str):
            if name in _PADDING:
                _check_width("*", *args, *kwargs.values())
            elif name == "replace":
                callee = functools.partial(bounded_replace(str.replace, 0), owner)
            elif name == "join" and args:
                args = (some(args[0]), *args[1:])
                check_joined(owner, args[0])
            elif name == "translate" and args:
                check_translated(owner, args[0])
        return super().call(context, callee, *args, **kwargs)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Raises `SecurityError` for `"{:9999999999}".format(1)`."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None

        @functools.wraps(wrapped)
        def bounded(*args: Any, **kwargs: Any) -> str:
            fields = args[0].values() if value.__name__ == "format_map" and args else (*args, *kwargs.values())
            _check_width(value.__self__, *fields)
            check_filled(str(value.__self__), fields)
            return wrapped(*args, **kwargs)

        return bounded


@pass_context  # also keeps it from being computed once, when the template is compiled
def _step(context: Context, nothing: str) -> str:
    sandbox = context.environment
    assert isinstance(sandbox, TemplateSandbox)
    sandbox.steps += 1
    if sandbox.steps > _MOST_STEPS:
        raise SecurityError(f"it takes more than {_MOST_STEPS:,} turns of its loops")
    return nothing


def _measure(node: nodes.Node) -> None:
    """Put every `~` below `node` into the filter that measures."""
    for child in node.iter_child_nodes():
        _measure(child)
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Concat):
            setattr(node, field, _measured(value))
        elif isinstance(value, list):
            value[:] = [_measured(item) if isinstance(item, nodes.Concat) else item for item in value]


def _measured(node: nodes.Concat) -> nodes.Filter:
    node.nodes = [nodes.Filter(one, _WEIGHT, [], [], None, None, lineno=node.lineno) for one in node.nodes]
    return nodes.Filter(node, _SIZE, [], [], None, None, lineno=node.lineno)


def _size(text: Any) -> Any:
    if isinstance(text, str | list) and len(text) > LONGEST_TEXT:
        raise SecurityError(f"more than {LONGEST_TEXT:,} characters or items are refused")
    return text


def _narrow(named: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of Jinja's that pads, with a bound on how far."""

    @functools.wraps(named)
    def bounded(text: Any, *args: Any, **kwargs: Any) -> Any:
        _check_width("*", *args, *kwargs.values())
        return named(text, *args, **kwargs)

    return bounded


def _format(named: Callable[..., Any]) -> Callable[..., Any]:
    """The filter that is `%` as a function."""

    @functools.wraps(named)
    def bounded(form: Any, *args: Any, **kwargs: Any) -> Any:
        _check_width(form, *args, *kwargs.values())
        check_filled(str(form), (*args, *kwargs.values()))
        return named(form, *args, **kwargs)

    return bounded


def _check_width(form: Any, *fields: Any) -> None:
    """Refuse a form that names a wide field, or that lets one of `fields` say how wide another is."""
    text = str(form)
    told = _WIDE.search(text) is not None
    left_open = "*" in text or re.search(r"\{[^{}]*\{", text) is not None
    if told or (left_open and any(type(field) is int and abs(field) > _WIDEST for field in fields)):
        raise SecurityError(f"a field wider than {_WIDEST:,} characters is refused")


def _repeated(left: Any, right: Any) -> int:
    """How long a sequence the product is; 0 for numbers."""
    for sequence, count in ((left, right), (right, left)):
        if hasattr(sequence, "__len__") and isinstance(count, int):
            return len(sequence) * count
    return 0


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012  the base class's way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
