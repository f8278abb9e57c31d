"""Chunks on the disk read as the one file that they were cut from, without being joined."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from dockyard.errors import Failed, Reason

_BUFFER_BYTES = 1 << 18


class ChunkedFile(io.BufferedReader):
    """A file object over `paths`, in order. `largest_read` bounds what one call of `read` takes into memory."""

    def __init__(self, paths: Sequence[Path], largest_read: int) -> None:
        self._chunks = _Chunks(paths)
        self._largest_read = largest_read
        super().__init__(self._chunks, _BUFFER_BYTES)

    @property
    def size(self) -> int:
        return self._chunks.size

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises `Failed` (ARCHIVE_UNREADABLE) for more at once than any sound archive asks for."""
        wanted = self.size - self.tell() if size is None or size < 0 else size
        if wanted > self._largest_read:
            raise Failed(
                f"the archive is damaged, or made to fill the memory: its directory claims {wanted} bytes; "
                "pack it anew",
                reason=Reason.ARCHIVE_UNREADABLE,
            )
        return super().read(wanted)


class _Chunks(io.RawIOBase):
    """Keeps one chunk open at a time."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__()
        self._paths = paths
        try:
            self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        except FileNotFoundError as error:
            raise Failed(
                f"chunk {Path(str(error.filename)).name} of the upload is gone from the server; send the archive again",
                reason=Reason.ARCHIVE_UNREADABLE,
            ) from error
        self.size = self._starts[-1]
        self._at = 0
        self._number = -1
        self._file: BinaryIO | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError(22, "a place before the file's beginning")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "memoryview[int] | bytearray", /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        """At most up to the end of the chunk; the buffer above asks again."""
        if self._at >= self.size:
            return 0
        number = bisect_right(self._starts, self._at) - 1
        file = self._opened(number)
        file.seek(self._at - self._starts[number])
        view = memoryview(buffer)[: self._starts[number + 1] - self._at]
        count = file.readinto(view)  # pyright: ignore[reportAttributeAccessIssue]
        if count == 0:
            raise OSError(5, "a chunk became shorter")
        self._at += count
        return count

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        super().close()

    def _opened(self, number: int) -> BinaryIO:
        if self._file is None or number != self._number:
            if self._file is not None:
                self._file.close()
            self._file = self._paths[number].open("rb", buffering=0)  # pyright: ignore[reportAttributeAccessIssue]
            self._number = number
        assert self._file is not None
        return self._file
