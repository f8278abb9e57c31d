"""A file as the reply, whole or from where a client left off; its refusals in the shape of all others."""

import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from dockyard.errors import DockyardError, Reason

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


class RangeNotSatisfiable(DockyardError):
    """The range begins where the file has ended."""

    kind = "range_not_satisfiable"
    default_reason = Reason.RANGE_NOT_SATISFIABLE

    def __init__(self, size: int) -> None:
        super().__init__(f"the range begins past the end of the file, which has {size} bytes")
        self.size = size


class FileReply(FileResponse):
    """Starlette's, but for ranges: one that it would refuse in its own words is refused in ours, or ignored.

    RFC 9110, 14.2: a server may ignore any Range header, and must one that it does not understand. Several ranges at
    once are ignored, too; nobody needs them of an archive.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        asked = headers.get("range")
        if asked is not None and not self._applies(asked, headers.get("if-range")):
            kept = [(name, value) for name, value in scope["headers"] if name != b"range"]
            scope = {**scope, "headers": kept}
        await super().__call__(scope, receive, send)

    def _applies(self, asked: str, if_range: str | None) -> bool:
        """Whether to send the range. Raises `RangeNotSatisfiable`."""
        form = _ONE_RANGE.fullmatch(asked)
        if form is None or (
            if_range is not None and if_range not in (self.headers["etag"], self.headers["last-modified"])
        ):
            return False
        first, last = form.groups()
        size = int(self.headers["content-length"])
        if first:
            if last and int(last) < int(first):
                return False
            begins_inside = int(first) < size
        else:
            if not last:
                return False
            begins_inside = int(last) > 0
        if not begins_inside:
            raise RangeNotSatisfiable(size)
        return True
