"""Talking to a hub: what a repository holds, and a file's bytes from an offset on, each asked for with patience.

Through huggingface_hub's own session, headers and endpoint. Its downloads begin anew when their process has died, so
the bytes are written in `hub_download`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, ModelInfo, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from dockyard.clock import SystemClock
from dockyard.errors import Failed, Reason
from dockyard.prepare.hub_errors import FOREIGN, Trouble, not_a_hub, trouble

T = TypeVar("T")
OnWait = Callable[[float], None]

_NAME, _VERSION = "dockyard", version("dockyard")  # as the hub is told who asks
_MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait before each further try; a hub that asks for more than `longest_s` is not waited for.

    `midway_s` is waited on top by a download that has something to lose.
    """

    waits_s: tuple[float, ...] = (1, 2, 4, 8)
    midway_s: tuple[float, ...] = (16, 30, 60, 60)
    longest_s: float = 120


@dataclass(frozen=True, slots=True)
class HubFile:
    """`digest`: SHA-256 (64 digits) of a large file, git's SHA-1 (40 digits) of another; None where nobody tells it."""

    name: str
    size: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files in the top folder of a repository at `commit`, each with the size and digest if the hub told them."""

    commit: str
    files: dict[str, HubFile | None]


class Hub:
    """One repository of the hub. `on_wait` is told how long it waits before it tries again."""

    def __init__(self, repository: str, patience: Patience, on_wait: OnWait) -> None:
        self._repository = repository
        self._patience = patience
        self._on_wait = on_wait
        self._clock = SystemClock()

    def listing(self, revision: str | None) -> Listing:
        """What the repository holds at `revision`. Raises `Failed`."""
        api = HfApi(endpoint=constants.ENDPOINT, library_name=_NAME, library_version=_VERSION)

        def ask() -> Listing:
            timeout_s = constants.HF_HUB_ETAG_TIMEOUT
            try:
                info = api.model_info(self._repository, revision=revision, files_metadata=True, timeout=timeout_s)
            except FOREIGN:  # among them are errors of the kinds below
                raise
            except (ValueError, KeyError, TypeError, AttributeError) as error:  # not the JSON that a hub sends
                raise Failed(not_a_hub(), reason=Reason.HUB_FAILED) from error
            return _listing(info)

        return self.patiently(ask, revision)

    def look_up(self, name: str, commit: str) -> HubFile:
        """One file's size and digest, of a hub whose listing does not tell them. Raises `Failed`."""

        def ask() -> HubFile:
            timeout_s = constants.HF_HUB_ETAG_TIMEOUT
            found = get_hf_file_metadata(self._url(name, commit), timeout=timeout_s)
            if found.size is None or found.commit_hash not in (None, commit):
                raise Failed(not_a_hub(), reason=Reason.HUB_FAILED)
            digest = found.etag if found.etag and _is_digest(found.etag) else None
            return HubFile(name, found.size, digest)

        return self.patiently(ask, commit)

    @contextmanager
    def opened(self, name: str, commit: str, offset: int) -> Iterator[httpx2.Response]:
        """The file's bytes from `offset` on, or from the start if the hub likes it better. Raises `FOREIGN`."""
        headers = build_hf_headers(library_name=_NAME, library_version=_VERSION)
        headers["accept-encoding"] = "identity"  # a packed file's bytes cannot be counted
        if offset:
            headers["range"] = f"bytes={offset}-"
        # A redirect to another host, where large files lie, loses the token on the way.
        timeout = httpx2.Timeout(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        with get_session().stream("GET", self._url(name, commit), headers=headers, timeout=timeout) as response:
            hf_raise_for_status(response)
            yield response

    def patiently(self, ask: Callable[[], T], revision: str | None, came_on: Callable[[], bool] | None = None) -> T:
        """`ask()`, again and again while the trouble may pass. Raises `Failed` when patience ends.

        With `came_on` it is a download: patience is longer, and begins anew after a try that came on.
        """
        all_waits_s = self._patience.waits_s + (self._patience.midway_s if came_on else ())
        waits = iter(all_waits_s)
        while True:
            try:
                return ask()
            except FOREIGN as error:
                met = trouble(error, self._repository, revision, self._clock.now())
                if came_on and came_on():
                    waits = iter(all_waits_s)
                self._wait(met, next(waits, None), error)

    def _url(self, name: str, commit: str) -> str:
        return hf_hub_url(self._repository, name, revision=commit, endpoint=constants.ENDPOINT)

    def _wait(self, met: Trouble, wait_s: float | None, error: Exception) -> None:
        longer_s = max(wait_s or 0, met.after_s or 0)
        if not met.passing or wait_s is None or longer_s > self._patience.longest_s:
            raise met.failure from error
        self._on_wait(longer_s)
        time.sleep(longer_s)  # the hub's pace; this process has nothing else to do


def _listing(info: ModelInfo) -> Listing:
    if not info.sha or not _is_digest(info.sha):
        raise Failed(not_a_hub(), reason=Reason.HUB_FAILED)
    siblings = info.siblings or []
    if len(siblings) > _MOST_FILES:
        raise Failed(
            f"{info.id} has more than {_MOST_FILES} files; choose the repository of one model",
            reason=Reason.SOURCE_NOT_SUPPORTED,
        )
    files: dict[str, HubFile | None] = {}
    for sibling in siblings:
        name = sibling.rfilename
        if "/" in name or "\\" in name or "\0" in name or name.startswith("."):
            continue  # a model's files lie side by side
        digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
        size = sibling.lfs.size if sibling.lfs else sibling.size
        files[name] = None if size is None else HubFile(name, size, digest if digest and _is_digest(digest) else None)
    return Listing(info.sha, files)


def _is_digest(text: str) -> bool:
    return len(text) in (40, 64) and not set(text) - set("0123456789abcdef")
