"""The artifacts of an adapter and its base: merged into whole weights for engines that want those; or kept apart, what
describes the two beside the adapter's own weights, for one that adds them as it computes.
"""

from pathlib import Path

from dockyard.domain.adapter import APART_RECIPE, MERGE_RECIPE
from dockyard.domain.job import Phase
from dockyard.errors import Failed
from dockyard.prepare.adapter_config import ADAPTER_CONFIG
from dockyard.prepare.adapter_folder import lay_over, plan_for
from dockyard.prepare.adapter_merge import TensorFile, merge_file
from dockyard.prepare.adapter_plan import ADAPTER_WEIGHTS
from dockyard.prepare.artifacts import Artifacts, check_room
from dockyard.prepare.files import copy_inside, open_inside
from dockyard.prepare.integrity import check_integrity
from dockyard.prepare.manifest import FileEntry, Manifest, read_manifest, write_manifest
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.protocols.preparation import Merge


def ensure_joined(artifacts: Artifacts, key: str, merge: Merge, scratch: Path, reporter: Reporter) -> Manifest:
    """The manifest of the artifact `key`, merged or apart, which is made unless it is there. Raises `Failed`."""
    if (finished := artifacts.find_intact(key)) is not None:
        return finished
    base, adapter = artifacts.folder(merge.base_key), artifacts.folder(merge.adapter_key)
    stored = _intact(base, "the adapter's base model")
    own = _intact(adapter, "the adapter")
    check_room(artifacts.root, own.size_bytes if merge.apart else stored.size_bytes)
    built = scratch / "joined"
    built.mkdir()
    files = _descriptions(adapter, base, scratch / "laid-over", built)
    files += _own_weights(adapter, built) if merge.apart else _weights(adapter, base, built, reporter)
    manifest = Manifest(
        key=key,
        files=tuple(sorted(files, key=lambda entry: entry.name)),
        source_key=merge.adapter_key,
        base_key=merge.base_key,
        converter=f"apart recipe {APART_RECIPE}" if merge.apart else f"merge recipe {MERGE_RECIPE}",
    )
    write_manifest(built, manifest)
    artifacts.publish(built, manifest)
    done = "laid the adapter beside its base model" if merge.apart else "merged the adapter into its base model"
    reporter.progress(Phase.OPTIMIZING, 1.0, done)
    return manifest


def _intact(folder: Path, what: str) -> Manifest:
    try:
        manifest = read_manifest(folder)
        check_integrity(folder, manifest)
    except Failed as error:
        raise Failed(f"{what}: {error.message}", reason=error.reason) from error
    return manifest


def _descriptions(adapter: Path, base: Path, view: Path, built: Path) -> list[FileEntry]:
    """Copies: an artifact shares no file with another, so that damage to one is not damage to both."""
    return [copy_inside(view, name, built, lambda _: None) for name in lay_over(adapter, base, view)]


def _own_weights(adapter: Path, built: Path) -> list[FileEntry]:
    return [copy_inside(adapter, name, built, lambda _: None) for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]


def _weights(adapter: Path, base: Path, built: Path, reporter: Reporter) -> list[FileEntry]:
    reporter.progress(Phase.OPTIMIZING, 0.0, "comparing the adapter with its base model")
    plan = plan_for(adapter, base)
    shards = sorted(base.glob("*.safetensors"))
    total = sum(path.stat().st_size for path in shards)
    progress = ByteProgress(reporter, Phase.OPTIMIZING, "merging the adapter into its base model", total)
    with open_inside(adapter.resolve(), ADAPTER_WEIGHTS) as file:
        own = TensorFile(file, ADAPTER_WEIGHTS)
        return [merge_file(base.resolve(), path.name, own, plan, built, progress.add) for path in shards]
