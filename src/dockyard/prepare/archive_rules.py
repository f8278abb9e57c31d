"""What an archive may hold, whatever kind it is: names, number, sizes, and which of its files make up the model."""

import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from dockyard.errors import Failed, Reason

MOST_ENTRIES = 10_000
# Weights hardly shrink, and text by a factor of ten at most: beyond this an archive is made to fill the disk.
MOST_GROWTH = 20
ALWAYS_ALLOWED = 64 << 20  # bytes, however small the archive is
LARGEST_TEXT = 64 << 20  # bytes of any file but weights: a large tokenizer.json has 35 MB
LARGEST_CONFIG = 1 << 20

_LONGEST_NAME = 255  # bytes; what file systems take
_WEIGHTS = ("*.safetensors", "*.gguf")
_TEXTS = (
    "*.json", "*.jinja", "*.txt", "*.model", "*.spm", "*.md", "LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*",
)  # fmt: skip
# Refused, or passed over, by their names alone: they are made empty, since nothing looks into them.
_JUDGED_BY_NAME = ("*.py", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive: its checked path, its bytes once unpacked, and what its archive finds it by."""

    path: str
    size: int
    handle: object


@dataclass(frozen=True, slots=True)
class Chosen:
    """A file to unpack under `name`; None for `member`: to make empty."""

    name: str
    member: Member | None


def checked_path(raw: str) -> str:
    """The path of an entry, `./` at its beginning and slashes at its end left out.

    Raises `Failed` (ARCHIVE_PATH_REFUSED) for one that leads out, or that no file should have.
    """
    why = _fault(raw)
    if why is not None:
        raise Failed(
            f"the archive holds {quoted(raw)}, {why}; pack the model's folder itself: tar -cf model.tar FOLDER",
            reason=Reason.ARCHIVE_PATH_REFUSED,
        )
    return "/".join(part for part in raw.split("/") if part not in ("", "."))


def choose(members: Sequence[Member], archive_bytes: int) -> list[Chosen]:
    """The files that make up the model, without the folders that they lie in. Raises `Failed`."""
    kept = [member for member in members if not _is_litter(member.path)]
    _refuse_twice(kept)
    _refuse_bomb(kept, archive_bytes)
    root = _root(kept)
    chosen: list[Chosen] = []
    for member in kept:
        folder, _, name = member.path.rpartition("/")
        if folder != root:
            continue
        if _is(name, _JUDGED_BY_NAME):
            chosen.append(Chosen(name, None))
        elif _is(name, _WEIGHTS) or _is(name, _TEXTS):
            _refuse_absurd(name, member.size)
            chosen.append(Chosen(name, member))
    return chosen


def too_many() -> Failed:
    return Failed(
        f"the archive has more than {MOST_ENTRIES} entries; pack one model's files only",
        reason=Reason.ARCHIVE_TOO_MANY_FILES,
    )


def is_link(path: str) -> Failed:
    return Failed(
        f"{quoted(path)} in the archive is a link; pack the files that links lead to: tar -chf model.tar FOLDER",
        reason=Reason.ARCHIVE_LINK_REFUSED,
    )


def is_device(path: str) -> Failed:
    return Failed(
        f"{quoted(path)} in the archive is a device, a pipe or a socket; pack the model's files only",
        reason=Reason.ARCHIVE_DEVICE_REFUSED,
    )


def damaged(what: str) -> Failed:
    return Failed(f"the archive is damaged: {what}; pack and send it again", reason=Reason.ARCHIVE_UNREADABLE)


def unsupported(what: str) -> Failed:
    return Failed(
        f"{what}, which is not read; pack a plain tar (tar -cf model.tar FOLDER) or an ordinary zip",
        reason=Reason.ARCHIVE_FORM_NOT_SUPPORTED,
    )


def quoted(name: str) -> str:
    """A name as messages show it: in quotes, escaped, shortened."""
    return json.dumps(name[:80]) + ("…" if len(name) > 80 else "")


def _fault(raw: str) -> str | None:
    parts = raw.split("/")
    if raw.startswith("/") or (len(raw) > 1 and raw[1] == ":"):
        return "an absolute path"
    if ".." in parts:
        return "a path that leads out of it"
    if "\\" in raw:
        return "a path with backslashes"
    if any(unicodedata.category(character)[0] == "C" for character in raw):
        return "a path with control characters or broken text"
    if any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return f"a name of more than {_LONGEST_NAME} bytes"
    return None


def _is_litter(path: str) -> bool:
    """What macOS and Windows leave in folders."""
    parts = PurePosixPath(path).parts
    return any(part in _LITTER for part in parts) or (bool(parts) and parts[-1].startswith("._"))


def _refuse_twice(members: Iterable[Member]) -> None:
    """Which of two files of one name counts is a guess; a file that is a folder, too, is another such pair."""
    seen: set[str] = set()
    folders: set[str] = set()
    for member in members:
        if member.path in seen:
            raise _twice(member.path)
        seen.add(member.path)
        folders.update(str(parent) for parent in PurePosixPath(member.path).parents)
    both = seen & folders
    if both:
        raise _twice(min(both))


def _twice(path: str) -> Failed:
    return Failed(
        f"the archive holds {quoted(path)} twice, and which one counts is a guess; pack it anew",
        reason=Reason.ARCHIVE_DUPLICATE_NAME,
    )


def _refuse_bomb(members: Iterable[Member], archive_bytes: int) -> None:
    total = sum(member.size for member in members)
    if total > max(ALWAYS_ALLOWED, MOST_GROWTH * archive_bytes):
        raise Failed(
            f"the archive has {archive_bytes} bytes and would unpack to {total}, more than {MOST_GROWTH} times as "
            "many; if that is meant, send the files as a tar",
            reason=Reason.ARCHIVE_TOO_LARGE,
        )


def _refuse_absurd(name: str, size: int) -> None:
    limit = LARGEST_CONFIG if name == "config.json" else LARGEST_TEXT
    if _is(name, _WEIGHTS) or size <= limit:
        return
    raise Failed(
        f"{name} in the archive has {size} bytes, and at most {limit} are read; is it the right file?",
        reason=Reason.CONFIG_UNREADABLE if name == "config.json" else Reason.ARCHIVE_TOO_LARGE,
    )


def _root(members: Sequence[Member]) -> str:
    """The folder of the model: the top, or further down as long as all lies in one folder there."""
    parents = [PurePosixPath(member.path).parent.parts for member in members]
    if not parents:
        raise Failed(
            "the archive holds no files; pack the model's folder: tar -cf model.tar FOLDER",
            reason=Reason.ARCHIVE_LAYOUT,
        )
    shared = parents[0]
    for parts in parents[1:]:
        length = next((i for i, pair in enumerate(zip(shared, parts, strict=False)) if pair[0] != pair[1]), None)
        shared = shared[: min(len(shared), len(parts)) if length is None else length]
    if tuple(shared) not in parents:
        here = sorted({parts[len(shared)] for parts in parents})
        raise Failed(
            f"the archive holds {len(here)} folders side by side ({', '.join(quoted(name) for name in here[:3])}); "
            "pack one model's folder only",
            reason=Reason.ARCHIVE_LAYOUT,
        )
    return "/".join(shared)


def _is(name: str, forms: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, form) for form in forms)
