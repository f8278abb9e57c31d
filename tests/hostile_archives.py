"""What a hostile archive is, and the names that none may hold. `hostile_tars` and `hostile_zips` make them."""

from collections.abc import Callable
from dataclasses import dataclass

from dockyard.errors import Reason

BAD_NAMES = {
    "absolute": "/etc/passwd",
    "parent": "../config.json",
    "parent inside": "model/../../config.json",
    "parent folder": "model/..",
    "drive": "C:/config.json",
    "backslash": "model\\config.json",
    "newline": "config\n.json",
    "escape sequence": "\x1b[2J.json",
    "right to left": "gpj.\u202enosj",
    "not UTF-8": "config\udcff.json",
    "over-long": "n" * 300 + ".json",
}


@dataclass(frozen=True)
class Hostile:
    """`content()` is the archive, sent as `extension`; it must be refused with `reason`."""

    name: str
    extension: str
    content: Callable[[], bytes]
    reason: Reason

    def __str__(self) -> str:
        return f"{self.extension} {self.name}"
