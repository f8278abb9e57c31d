"""Convert: what an engine loads, made from an imported artifact and published under its own key."""

from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from dockyard.domain.job import Phase
from dockyard.domain.spec import EngineName
from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_artifact import ensure_joined
from dockyard.prepare.artifacts import Artifacts, check_room
from dockyard.prepare.files import seal_file
from dockyard.prepare.integrity import check_integrity
from dockyard.prepare.manifest import (
    Manifest,
    converted_key,
    converter_version,
    read_manifest,
    write_manifest,
)
from dockyard.prepare.reporting import PartReporter, Reporter
from dockyard.protocols.preparation import ConvertTask, Outcome

_MERGE_SHARE = 0.3  # of the bar, where a conversion follows a merge
_CONVERTER_PACKAGES = ("torch", "transformers")  # beside the engine's own


def run_convert(task: ConvertTask, reporter: Reporter) -> Outcome:
    """A finished artifact is reused. Raises `Failed` (CONVERSION_FAILED, ENGINE_NOT_INSTALLED, ARTIFACT_CORRUPT)."""
    artifacts = Artifacts(Path(task.artifacts_dir))
    if task.merge is None:
        return _convert_whole(task, artifacts, reporter)
    converts = task.engine == EngineName.CTRANSLATE2
    merging = PartReporter(reporter, 0.0, _MERGE_SHARE) if converts else reporter
    joined = ensure_joined(artifacts, task.source_key, task.merge, Path(task.scratch_dir), merging)
    outcome = _convert_whole(task, artifacts, PartReporter(reporter, _MERGE_SHARE, 1.0))
    return replace(outcome, merged_bytes=joined.size_bytes)


def _convert_whole(task: ConvertTask, artifacts: Artifacts, reporter: Reporter) -> Outcome:
    source = artifacts.folder(task.source_key)
    stored = read_manifest(source)
    check_integrity(source, stored)
    if task.engine != EngineName.CTRANSLATE2:
        return Outcome(key=stored.key, size_bytes=stored.size_bytes, reused=True)  # loads what is stored
    converter = converter_version(task.engine)
    if converter is None or any(find_spec(name) is None for name in _CONVERTER_PACKAGES):
        raise _not_installed(task.engine)
    key = converted_key(task.source_key, task.engine, task.quantization, converter)
    finished = artifacts.find_intact(key)
    if finished is not None:
        return Outcome(key=key, size_bytes=finished.size_bytes, reused=True)
    check_room(artifacts.root, stored.size_bytes)
    return _convert(task, artifacts, source, key, converter, reporter)


def _convert(
    task: ConvertTask, artifacts: Artifacts, source: Path, key: str, converter: str, reporter: Reporter
) -> Outcome:
    from dockyard.prepare.ctranslate2_conversion import convert

    built = Path(task.scratch_dir) / "converted"
    convert(source, built, task.quantization, reporter)
    reporter.progress(Phase.OPTIMIZING, 0.97, "writing the files to the disk")
    manifest = Manifest(
        key=key,
        files=tuple(seal_file(path) for path in sorted(built.iterdir())),
        source_key=task.source_key,
        engine=task.engine,
        quantization=task.quantization,
        converter=converter,
    )
    write_manifest(built, manifest)
    reused = artifacts.publish(built, manifest)
    reporter.progress(Phase.OPTIMIZING, 1.0, f"converted to {task.engine} {task.quantization}")
    return Outcome(key=key, size_bytes=manifest.size_bytes, reused=reused)


def _not_installed(engine: str) -> Failed:
    return Failed(
        f"the packages that convert for {engine} are not installed: run `pip install 'dockyard[{engine}]'` on the "
        "server and try again",
        reason=Reason.ENGINE_NOT_INSTALLED,
    )
