"""A repository of a Hugging Face hub, brought into a folder: looked at first, then only what makes up a model.

The folder outlives the process. It pins the commit that was found first, so that what goes on is the same model, even
if the branch has moved on meanwhile.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from dockyard.domain.job import Phase
from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_folder import wanted_of_adapter
from dockyard.prepare.artifacts import check_room
from dockyard.prepare.folder import is_description, wanted_weights
from dockyard.prepare.hub_client import Hub, HubFile, Listing, Patience
from dockyard.prepare.hub_download import Download
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.protocols.preparation import HubSource

_PIN = "pin.json"
_LARGEST_DESCRIPTION = 128 << 20
_FINEST = 1000  # steps of the progress; a hundredth of a large model takes minutes


class _Pin(msgspec.Struct, kw_only=True, frozen=True):
    """What the folder holds parts of."""

    repository: str
    revision: str | None
    commit: str


def fetch_repository(
    source: HubSource, reporter: Reporter, share: float, gguf_share: float, patience: Patience | None = None
) -> tuple[Path, dict[str, str]]:
    """The folder, or GGUF file, that is the model, and `{"commit": …}`; it takes that share of the copying phase.

    Raises `Failed`. What was fetched by then stays in the source's folder, to go on with.
    """
    folder = Path(source.folder)
    (folder / "partial").mkdir(mode=0o700, parents=True, exist_ok=True)
    with _alone(folder):
        fetch = _Fetch(source, folder, reporter, (share, gguf_share), patience or Patience())
        try:
            model = fetch.model()
        except Failed as failed:
            told = failed.message
            named = told if source.repository in told else f"{source.repository}: {told}"
            raise Failed(named, reason=failed.reason) from failed
    return model, {"commit": fetch.commit}


class _Fetch:
    """One run over the repository's files."""

    def __init__(
        self, source: HubSource, folder: Path, reporter: Reporter, shares: tuple[float, float], patience: Patience
    ) -> None:
        self._source = source
        self._share, self._gguf_share = shares
        self._folder = folder
        self._files = folder / "files"
        self._reporter = reporter
        self._hub = Hub(source.repository, patience, self._tell_of_wait)
        self._listing = Listing("", {})

    @property
    def commit(self) -> str:
        return self._listing.commit

    def model(self) -> Path:
        self._tell(f"asking the hub for {self._source.repository}")
        self._listing = self._pinned_listing()
        self._files.mkdir(exist_ok=True)
        names = sorted(self._listing.files)
        gguf = _gguf_file(names, self._source.file)
        if gguf:
            self._download([gguf], "downloading", self._gguf_share)
            return self._files / gguf
        small = [name for name in names if is_description(name)]
        self._check_small(small)
        self._download(small, "downloading what describes the model", 0.0)
        weights = wanted_of_adapter(names)
        if weights is None:
            weights = wanted_weights(self._files, names)
        weights = [name for name in weights if name not in small]
        self._download([*small, *weights], "downloading", self._share)
        return self._files

    def _pinned_listing(self) -> Listing:
        """Of the commit that was begun with, if the hub still has it."""
        pin = _read_pin(self._folder)
        wanted = (self._source.repository, self._source.revision)
        if pin is not None and (pin.repository, pin.revision) == wanted:
            try:
                return self._hub.listing(pin.commit)
            except Failed as failed:
                if failed.reason is not Reason.HUB_REVISION_NOT_FOUND:
                    raise
        _empty(self._folder)
        listing = self._hub.listing(self._source.revision)
        _write_pin(self._folder, _Pin(repository=wanted[0], revision=wanted[1], commit=listing.commit))
        return listing

    def _download(self, names: Iterable[str], verb: str, share: float) -> None:
        """Of the copying phase it is `share`; 0: too little to move the bar."""
        files = [self._known(name) for name in names]
        total = sum(file.size for file in files)
        missing = sum(file.size - self._held(file) for file in files)
        check_room(self._folder, missing)
        progress = ByteProgress(self._reporter, Phase.COPYING, verb, total, end=share, steps=_FINEST)
        for file in files:
            Download(self._hub, self.commit, file, self._files, self._folder / "partial", progress.add).run()

    def _check_small(self, names: Iterable[str]) -> None:
        for name in names:
            if self._known(name).size > _LARGEST_DESCRIPTION:
                raise Failed(
                    f"{name} is larger than {_LARGEST_DESCRIPTION >> 20} MiB, which no such file of a model is",
                    reason=Reason.SOURCE_NOT_SUPPORTED,
                )

    def _known(self, name: str) -> HubFile:
        file = self._listing.files[name]
        if file is None:
            file = self._listing.files[name] = self._hub.look_up(name, self.commit)
        return file

    def _held(self, file: HubFile) -> int:
        """How many of the file's bytes are on the disk already."""
        for place in (self._files / file.name, self._folder / "partial" / file.name):
            if place.exists():
                return min(file.size, place.stat().st_size)
        return 0

    def _tell(self, message: str) -> None:
        self._reporter.progress(Phase.COPYING, 0.0, message)

    def _tell_of_wait(self, wait_s: float) -> None:
        self._tell(f"the hub did not answer as it should; trying again in {wait_s:.0f} s")


def _gguf_file(names: list[str], wanted: str | None) -> str | None:
    """The GGUF file to take; None where the repository is a folder of safetensors, or is to be refused as a folder."""
    found = [name for name in names if name.endswith(".gguf")]
    if wanted is not None:
        if wanted not in found:
            has = f"its GGUF files are {_listed(found)}" if found else "it has none"
            raise Failed(f"there is no GGUF file {wanted} at the top; {has}", reason=Reason.HUB_FILE_NOT_FOUND)
        return wanted
    if not found or any(name.endswith(".safetensors") for name in names):
        return None
    if len(found) > 1:
        raise Failed(
            f"there are {len(found)} GGUF files; name the one to import (source.file, or --file): {_listed(found)}",
            reason=Reason.SOURCE_NOT_SUPPORTED,
        )
    return found[0]


def _listed(names: list[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for the process that had the folder to be dead, as it will be; the kernel lets go when it is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read_pin(folder: Path) -> _Pin | None:
    try:
        return msgspec.json.decode((folder / _PIN).read_bytes(), type=_Pin)
    except (OSError, msgspec.DecodeError):  # none yet, or cut off while it was written
        return None


def _write_pin(folder: Path, pin: _Pin) -> None:
    (folder / f"{_PIN}.new").write_bytes(msgspec.json.encode(pin))
    (folder / f"{_PIN}.new").rename(folder / _PIN)


def _empty(folder: Path) -> None:
    (folder / _PIN).unlink(missing_ok=True)
    for part in (folder / "files", folder / "partial"):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
