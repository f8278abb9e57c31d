"""What a command prints: tables and bars on a terminal, tab-separated lines in a pipe, the API's JSON with --json.

Standard output holds the result only; notes, warnings and errors go to standard error.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

Cell = str | int | float | bool | None


class Output:
    """The one writer of a command. `as_json` silences all but `json`, `warn` and `note`."""

    def __init__(self, as_json: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self.out = out or sys.stdout
        self.err = err or sys.stderr

    @property
    def terminal(self) -> bool:
        """Whether a person watches the standard output, and not a program."""
        return self.out.isatty() and not self.as_json

    def json(self, document: Any) -> None:
        print(json.dumps(document, indent=2, ensure_ascii=False), file=self.out)

    def line(self, text: str) -> None:
        if not self.as_json:
            print(text, file=self.out)

    def note(self, text: str) -> None:
        """Something for the person beside the result; a program in the pipe never sees it."""
        if not self.as_json:
            print(text, file=self.err)

    def warn(self, texts: Iterable[str]) -> None:
        for text in texts:
            print(f"warning: {text}", file=self.err)

    def fail(self, lines: Iterable[str]) -> None:
        for line in lines:
            print(line, file=self.err)

    def listing(self, document: Any, columns: Sequence[str], rows: Iterable[Sequence[Cell]], empty: str) -> None:
        """A list that the API gave: `document` with --json, else a table, else one line per row with tabs and no head.

        `empty` tells a person that there are no rows, and what to do about it.
        """
        texts = [[_text(cell) for cell in row] for row in rows]
        if self.as_json:
            self.json(document)
        elif not texts:
            self.note(empty)
        elif self.terminal:
            from dockyard.cli.table import print_table  # rich takes 0.1 s to import; a pipe does without it

            print_table(self.out, columns, texts)
        else:
            for row in texts:
                self.line("\t".join(cell.replace("\t", " ").replace("\n", " ") for cell in row))

    def record(self, document: Mapping[str, Any]) -> None:
        """One thing that the API gave, a field a line; nested objects as `outer.inner`."""
        if self.as_json:
            self.json(document)
            return
        flat = dict(_flatten(document))
        width = max((len(name) for name in flat), default=0)
        for name, value in flat.items():
            self.line(f"{name.ljust(width)}  {_text(value)}" if self.terminal else f"{name}\t{_text(value)}")


def size_text(count: int) -> str:
    """A number of bytes as a person reads it."""
    if count == 0:
        return "0 bytes"
    if count < 1 << 20:
        return f"{count / (1 << 10):.1f} KiB"
    return f"{count / (1 << 30):.2f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.1f} MiB"


def cells(document: Mapping[str, Any], *paths: str) -> list[Any]:
    """The values at dotted paths such as `current.engine`; None where there is nothing."""
    return [_at(document, path.split(".")) for path in paths]


def _at(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(_text(item) if not isinstance(item, dict) else json.dumps(item) for item in value) or "-"
        case _:
            return str(value)


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
