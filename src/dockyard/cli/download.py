"""Fetching a file by a signed link: on from where it broke off, checked by its digest, named only once it is whole."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.cli.command import Session
from dockyard.cli.failures import BadUsage, CommandFailed, Unreachable
from dockyard.cli.watch import LONGEST_S, UNREACHABLE_FOR_S, Json

if TYPE_CHECKING:
    from dockyard.cli.client import Client

_CHUNK = 1 << 20  # bytes


def free_target(output: Path | None, file_name: str) -> Path:
    """Where to save: `output`, or `file_name` in it if it is a folder. Raises `BadUsage` if a file is there already."""
    target = output or Path(file_name)
    if target.is_dir():
        target = target / file_name
    if target.exists():
        raise BadUsage(f"error: {target} is there already; remove it, or name another file with --output")
    if not target.parent.is_dir():
        raise BadUsage(f"error: there is no folder {target.parent}; make it, or name another file with --output")
    return target


def fetch(session: Session, archive: Json, target: Path, wait: Callable[[float], None] = time.sleep) -> None:
    """Save what `archive` (`downloadUrl`, `sizeBytes`, `sha256`) tells of as `target`, by way of `target`.part.

    A part that is there already is gone on with; Ctrl-C leaves it. Raises `CommandFailed`.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with bytes_bar(session, "DOWNLOADING", archive["sizeBytes"]) as show:
            began_at = _complete(session.client, archive, part, show, wait)
            intact = _digest(part) == archive["sha256"]
            if not intact and began_at:  # the part was one of another archive
                part.unlink()
                _complete(session.client, archive, part, show, wait)
                intact = _digest(part) == archive["sha256"]
        if not intact:
            part.unlink()
            raise CommandFailed("error: what arrived differs from its digest; run the command again")
        part.rename(target)
    except OSError as error:
        raise CommandFailed(f"error: {target} cannot be written: {error.strerror}") from None
    except KeyboardInterrupt:
        session.out.note("\nthe same command goes on with the download")
        raise


def _complete(
    client: "Client", archive: Json, part: Path, show: Callable[[int], None], wait: Callable[[float], None]
) -> int:
    """Fetch until `part` has all bytes; returns how many it had before. A server that comes back is waited for."""
    size = archive["sizeBytes"]
    began_at = have = part.stat().st_size if part.exists() else 0
    if have > size:
        began_at = have = 0
    away_s = 0.0
    with part.open("r+b" if part.exists() else "wb") as file:
        file.truncate(have)
        while have < size:
            show(have)
            before = have
            try:
                for chunk in client.download(archive["downloadUrl"], have):
                    file.seek(have)
                    file.write(chunk)
                    have += len(chunk)
                    show(have)
            except Unreachable:
                away_s = 0.0 if have > before else away_s + LONGEST_S
                if away_s > UNREACHABLE_FOR_S:
                    raise
                wait(LONGEST_S)
    show(have)
    return began_at


def _digest(path: Path) -> str:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            checksum.update(chunk)
    return checksum.hexdigest()


@contextmanager
def bytes_bar(session: Session, label: str, size: int) -> Iterator[Callable[[int], None]]:
    """On a terminal a bar of `size` bytes; what is yielded is told how many are done."""
    if not session.out.terminal:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn(f"{label:<12}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=session.out.out)) as bar:
        task = bar.add_task("", total=size)
        yield lambda have: bar.update(task, completed=have)
