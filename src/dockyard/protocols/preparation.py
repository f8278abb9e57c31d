"""What the server asks of the `prepare` process: JSON in on its standard input, JSON lines out on its standard output.

Lines: `{"progress": {...}}` any number of times, then exactly one `{"result": {...}}` or `{"failure": {...}}`. The
process ends by itself when its standard input is closed, so none outlives the server that asked.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec


class PathSource(msgspec.Struct, kw_only=True, tag_field="kind", tag="path"):
    """A model folder, or a GGUF file, of this machine."""

    path: str


class UploadSource(msgspec.Struct, kw_only=True, tag_field="kind", tag="upload"):
    """An archive that came in chunks: `chunks` of them, numbered from 0, as files of these names in `folder`.

    `sha256` is the digest of the whole, if the client named it. `is_adapter`: what the client said that it holds.
    """

    folder: str
    chunks: int
    extension: str  # "tar" or "zip"
    sha256: str | None = None
    is_adapter: bool | None = None


class HubSource(msgspec.Struct, kw_only=True, tag_field="kind", tag="hub"):
    """A repository of a Hugging Face hub. `folder` outlives the process, so that a broken download goes on.

    It is on the file system of the task's scratch folder.
    """

    repository: str  # "org/name"
    revision: str | None  # a branch, a tag or a commit; None: the default branch
    folder: str
    file: str | None = None  # the GGUF file to take; None: the safetensors, or the only GGUF file


Source = PathSource | UploadSource | HubSource


class ImportTask(msgspec.Struct, kw_only=True, tag_field="task", tag="import"):
    """Bring `source` into the artifact store, copied or converted, and describe it.

    `base_key` is the artifact of the base model, if one was named: an adapter is checked against it. `base_problem`
    tells why the named one can be none.
    """

    source: Source
    artifacts_dir: str
    scratch_dir: str
    base_key: str | None = None
    base_problem: str | None = None


class Merge(msgspec.Struct, kw_only=True):
    """The artifacts of an adapter and of its base. `apart`: they are not merged; the engine adds one to the other."""

    adapter_key: str
    base_key: str
    apart: bool = False


class ConvertTask(msgspec.Struct, kw_only=True, tag_field="task", tag="convert"):
    """Make what `engine` loads from the artifact `source_key`; a finished one is reused. Either is verified first.

    With `merge`, `source_key` is what these two are merged into, or what the adapter is beside its base; it is made
    first unless it is there.
    """

    source_key: str
    engine: str
    quantization: str
    artifacts_dir: str
    scratch_dir: str
    merge: Merge | None = None


class ExportTask(msgspec.Struct, kw_only=True, tag_field="task", tag="export"):
    """Pack the files of the artifact `source_key`, with `deploy_config` as `deployconfig.json`, into the tar `archive`.

    Everything in it lies below one folder, `folder`. `archive` is on the file system of `scratch_dir`.
    """

    source_key: str
    folder: str
    deploy_config: dict[str, Any]
    archive: str
    artifacts_dir: str
    scratch_dir: str


Task = ImportTask | ConvertTask | ExportTask


class Progress(msgspec.Struct, kw_only=True):
    """`phase` is a `domain.job.Phase`; `share` of that phase, 0 to 1."""

    phase: str
    share: float
    message: str


class Outcome(msgspec.Struct, kw_only=True):
    """What was made: the artifact's key and size; for an import the model card (`ModelCard` as a JSON object).

    Of an export, size and SHA-256 are the archive's and the key is that of the artifact in it. `found` is what an
    import learned of its source, such as the commit that a branch stood for.
    """

    key: str
    size_bytes: int
    reused: bool = False
    card: dict[str, Any] | None = None
    sha256: str | None = None
    found: dict[str, str] = {}
    merged_bytes: int | None = None  # the size of what was merged on the way, or found merged


class Preparer(Protocol):
    async def run(self, task: Task, on_progress: Callable[[Progress], Awaitable[None]]) -> Outcome:
        """Run `task` in a process of its own to its end.

        Raises `Failed` with the task's reason and log tail. Cancelling the call kills the process and what it began.
        """
        ...

    def cached(self, source_key: str, engine: str, quantization: str) -> str | None:
        """The key of the finished artifact that `ConvertTask` would make, if it is there; no process is started."""
        ...

    def installed(self, engine: str) -> bool:
        """Whether the engine's Python packages can be imported by a replica."""
        ...

    def version(self, engine: str) -> str | None:
        """The version of the engine's package that a replica would import; None where it is not installed."""
        ...

    def without_gpus(self, engine: str) -> str | None:
        """Why replicas of an engine that is installed could not use a GPU, and how to mend it; None if they can."""
        ...

    def artifact_dir(self, key: str) -> str: ...

    async def stored(self) -> Mapping[str, int]:
        """The artifacts whose files lie here: key → bytes."""
        ...

    async def discard(self, key: str) -> int:
        """Remove an artifact in one step; returns its bytes, 0 if it is not there. They are freed in the background."""
        ...

    async def clean_scratch(self) -> None:
        """Remove what a killed server's tasks left half done. Called once, before the first task."""
        ...
