"""What a person types for a model to import: a path of the server's machine, or a repository of the hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from dockyard.cli.failures import BadUsage

PREFIX = "hf:"
_FILES = (".gguf", ".tar", ".zip")
_URL = re.compile(r"https?://(?:(?:www\.)?(?:huggingface\.co|hf\.co)/([^/]+/[^/?#]+))?", re.IGNORECASE)
_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ImportSource:
    """`wire` is the body's `source`, `name` what the model is called unless it is told otherwise."""

    wire: dict[str, str]
    name: str
    path: Path | None = None  # None: of the hub
    guessed: bool = False  # only the form tells that it is of the hub


def read_source(typed: str, revision: str | None, file: str | None) -> ImportSource:
    """`hf:org/repo` is of the hub, and so is `org/repo` unless there is such a path here; all else is a path.

    `./org/repo` is a path for sure. Raises `BadUsage`.
    """
    if not typed.strip():
        raise BadUsage(f"error: SOURCE is empty; name a folder, a .gguf, .tar or .zip file, or {PREFIX}org/repo")
    if url := _URL.match(typed):
        raise BadUsage(f"error: {typed} is a URL; write a repository of the hub as {PREFIX}{url[1] or 'org/repo'}")
    said = typed.startswith(PREFIX)
    repository = typed.removeprefix(PREFIX)
    if said and not _REPOSITORY.fullmatch(repository):
        raise BadUsage(f"error: {typed} names no repository; write it as the hub does: {PREFIX}org/repo")
    guessed = not said and _reads_as_repository(typed) and not Path(typed).exists()
    if said or guessed:
        noted = {"huggingFace": repository, "revision": revision, "file": file}
        name = Path(file).stem if file else repository.rpartition("/")[2]
        return ImportSource({key: value for key, value in noted.items() if value}, name, guessed=guessed)
    for option, value in (("--revision", revision), ("--file", file)):
        if value is not None:
            raise BadUsage(
                f"error: {option} is of a repository of the hub, and {typed} is a path; write {PREFIX}org/repo"
            )
    path = Path(typed).absolute()
    return ImportSource({"path": str(path)}, path.stem if path.suffix.lower() in _FILES else path.name, path)


def _reads_as_repository(typed: str) -> bool:
    return _REPOSITORY.fullmatch(typed) is not None and not typed.lower().endswith(_FILES)
