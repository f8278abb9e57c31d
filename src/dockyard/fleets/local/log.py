"""A replica's log: one file it appends to, kept short by dropping the older half, read from the end."""

import os
from pathlib import Path

MAX_BYTES = 1 << 20
_BYTES_PER_LINE = 512  # guess for how much to read; more is read when lines are longer


def path_of(run_dir: Path, replica_id: str) -> Path:
    """An id names a file in `run_dir`, whatever it holds; ids come in through routes, too."""
    return run_dir / f"{replica_id.replace('/', '_')}.log"


def open_for_append(path: Path) -> int:
    """A descriptor for a replica's output. Appending writers do not mind that the file gets shorter under them."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def shorten(path: Path, max_bytes: int = MAX_BYTES) -> None:
    """Once the file is larger than `max_bytes`, keep its last half, from the start of a line."""
    try:
        with path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= max_bytes:
                return
            file.seek(size - max_bytes // 2)
            kept = file.read().partition(b"\n")[2]
            file.truncate(0)
    except FileNotFoundError:
        return
    with path.open("ab") as file:
        file.write(kept)


def tail(path: Path, lines: int) -> tuple[str, ...]:
    """The last `lines` lines, oldest first; empty where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            block = max(1, lines) * _BYTES_PER_LINE
            while True:
                start = max(0, size - block)
                file.seek(start)
                found = file.read(size - start).splitlines()
                if start == 0 or len(found) > lines:
                    break
                block *= 4
    except FileNotFoundError:
        return ()
    return tuple(line.decode(errors="replace") for line in found[-lines:]) if lines > 0 else ()
