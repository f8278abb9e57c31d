"""Plain lines on standard error: `<instant> <LEVEL> <event> key=value …`, values as JSON where they need quotes."""

import json
import sys

from dockyard.clock import SystemClock

_clock = SystemClock()


def log(level: str, event: str, **fields: object) -> None:
    """One line, written at once: the last one must be there when the process ends."""
    at = _clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
    pairs = [f"{key}={_value(value)}" for key, value in fields.items()]
    sys.stderr.write(" ".join([at, level, event, *pairs]) + "\n")
    sys.stderr.flush()


def _value(value: object) -> str:
    text = str(value)
    bare = text and not any(c.isspace() or c in '"=\\' for c in text)
    return text if bare else json.dumps(text, ensure_ascii=False)
