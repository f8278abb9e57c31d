"""Import: look, copy or convert into scratch, verify by reading back, describe, publish in one step."""

import json
from pathlib import Path
from typing import Any

import msgspec

from dockyard.domain.job import Phase
from dockyard.errors import Failed, Reason
from dockyard.prepare import network
from dockyard.prepare.adapter_folder import check_told, is_adapter, look_at_adapter
from dockyard.prepare.adapter_import import describe_adapter
from dockyard.prepare.archive import unpack_upload
from dockyard.prepare.artifacts import Artifacts, check_room
from dockyard.prepare.deploy_config import with_deploy_config
from dockyard.prepare.describe import describe
from dockyard.prepare.files import copy_inside, digest, take_inside, write_file
from dockyard.prepare.folder import SINGLE, ModelFolder, look_at_folder
from dockyard.prepare.manifest import FileEntry, Manifest, imported_key, write_manifest
from dockyard.prepare.reporting import ByteProgress, Reporter
from dockyard.prepare.template_check import check_chat_templates
from dockyard.protocols.preparation import HubSource, ImportTask, Outcome, PathSource, Source, UploadSource

FETCHED = 0.9  # the share of the copying phase that a download takes; what is left is to take the files over
GGUF_FETCHED = 0.5  # the same of a GGUF file, which is converted then


def run_import(task: ImportTask, reporter: Reporter) -> Outcome:
    """Raises `Failed` with the reason; whatever it wrote by then lies in the task's scratch folder only."""
    source, found = _fetched(task.source, Path(task.scratch_dir), reporter)
    built = Path(task.scratch_dir) / "imported"
    built.mkdir()
    files = _read(task.source, source, built, reporter)
    check_chat_templates(built)
    _verify(built, files, reporter)
    card = with_deploy_config(describe_adapter(task, source, built) if is_adapter(built) else describe(built), source)
    manifest = Manifest(key=imported_key(files), files=tuple(files))
    write_manifest(built, manifest)
    reused = Artifacts(Path(task.artifacts_dir)).publish(built, manifest)
    told = "already stored: the same files were imported before" if reused else "stored"
    reporter.progress(Phase.VALIDATING, 1.0, told)
    return Outcome(
        key=manifest.key,
        size_bytes=manifest.size_bytes,
        reused=reused,
        card=msgspec.to_builtins(card),
        found=found,
    )


def _fetched(source: Source, scratch: Path, reporter: Reporter) -> tuple[Path, dict[str, str]]:
    """The folder or file of this machine that `source` comes down to, and what was learned of it on the way."""
    match source:
        case PathSource():
            return _existing(source.path), {}
        case UploadSource():
            folder = unpack_upload(source, scratch, reporter, FETCHED)
            check_told(folder, source.is_adapter)
            return folder, {}
        case HubSource():
            # What speaks HTTP takes 0.5 s to import and only this way of import needs it.
            from dockyard.prepare.hub import fetch_repository

            fetched = fetch_repository(source, reporter, FETCHED, GGUF_FETCHED)
            network.leave()
            return fetched


def _existing(source: str) -> Path:
    path = Path(source)
    try:
        found = path.resolve(strict=True)
        kind_is_known = found.is_dir() or found.is_file()
    except (OSError, RuntimeError) as error:
        raise Failed(
            f"nothing that can be read is at …/{path.name}; check the path", reason=Reason.PATH_NOT_FOUND
        ) from error
    if not kind_is_known:
        raise _unsupported(path.name)
    return found


def _read(given: Source, source: Path, built: Path, reporter: Reporter) -> list[FileEntry]:
    ours = not isinstance(given, PathSource)
    if not source.is_dir():
        return _import_gguf(source, built, reporter, start=GGUF_FETCHED if ours else 0.05)
    return _import_folder(source, built, reporter, ours=ours)


def _import_folder(source: Path, built: Path, reporter: Reporter, *, ours: bool) -> list[FileEntry]:
    """The files of a folder that is `ours`, on the same file system, stay where they are and get a second name."""
    reporter.progress(Phase.COPYING, 0.0, "looking at the files")
    model = look_at_adapter(source) if is_adapter(source) else look_at_folder(source)
    made: list[FileEntry] = []
    if isinstance(model, ModelFolder) and model.tokenizer is not None:
        made.append(write_file(built, "tokenizer.json", model.tokenizer))
    if ours:
        progress = ByteProgress(reporter, Phase.COPYING, "taking over", model.total_bytes, start=FETCHED)
        return [*made, *(take_inside(model.root, name, built, progress.add) for name in sorted(model.files))]
    check_room(built, model.total_bytes)
    progress = ByteProgress(reporter, Phase.COPYING, "copying", model.total_bytes)
    return [*made, *(copy_inside(model.root, name, built, progress.add) for name in sorted(model.files))]


def _import_gguf(source: Path, built: Path, reporter: Reporter, *, start: float) -> list[FileEntry]:
    """A GGUF file becomes the folder that Transformers would have saved."""
    # numpy and gguf take 0.1 s to import and only this way of import needs them.
    from dockyard.prepare.gguf_file import GgufFile, is_gguf
    from dockyard.prepare.gguf_tokenizer import build_tokenizer, special_ids
    from dockyard.prepare.gguf_weights import model_config, plan_weights, stored_type, weight_bytes, write_weights

    if not is_gguf(source):
        raise _unsupported(source.name)
    reporter.progress(Phase.CONVERTING, 0.0, "reading the GGUF file")
    gguf = GgufFile(source)
    dtype = stored_type(gguf)
    config = model_config(gguf, dtype)
    placements = plan_weights(gguf, config)
    tokenizer, tokenizer_config = build_tokenizer(gguf, config["vocab_size"])
    special = special_ids(gguf)
    generation = {f"{name}_id": token_id for name, token_id in special.items() if name != "unk_token"}
    total = weight_bytes(placements, dtype)
    check_room(built, total)
    progress = ByteProgress(reporter, Phase.CONVERTING, f"dequantizing to {dtype}", total, start=start)
    return [
        write_file(built, "config.json", _json({**config, **generation})),
        write_file(built, "generation_config.json", _json(_with_end_of_turn(generation, gguf))),
        write_file(built, "tokenizer.json", tokenizer.to_str().encode()),
        write_file(built, "tokenizer_config.json", _json(tokenizer_config)),
        write_file(built, "README.md", _readme(gguf, dtype)),
        write_weights(placements, dtype, built, SINGLE, progress.add),
    ]


def _with_end_of_turn(generation: dict[str, Any], gguf: Any) -> dict[str, Any]:
    """Some chat models end a turn with another token than a text; generation stops at either."""
    end, turn = generation.get("eos_token_id"), gguf.find("tokenizer.ggml.eot_token_id")
    if end is None or not isinstance(turn, int) or turn == end:
        return generation
    return {**generation, "eos_token_id": [end, turn]}


def _readme(gguf: Any, dtype: str) -> bytes:
    """Where the files come from; the front matter carries the licence as it does on hubs."""
    licence = gguf.find("general.license")
    front = f"---\nlicense: {licence}\n---\n" if isinstance(licence, str) and "\n" not in licence else ""
    name = gguf.find("general.name")
    title = f"{name}: " if isinstance(name, str) else ""
    return f"{front}{title}imported from a GGUF file, its weights dequantized to {dtype}.\n".encode()


def _verify(built: Path, files: list[FileEntry], reporter: Reporter) -> None:
    """Read every file back and compare it with what was meant to be written."""
    progress = ByteProgress(reporter, Phase.VALIDATING, "verifying", sum(entry.size for entry in files), end=0.9)
    for entry in files:
        if digest(built / entry.name, progress.add) != entry.sha256:
            raise Failed(
                f"{entry.name} read back from the disk differs from what was written; check the disk, then try again",
                reason=Reason.ARTIFACT_CORRUPT,
            )


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _unsupported(source: str) -> Failed:
    return Failed(
        f"{source} is neither a model folder nor a GGUF file; name a folder with config.json and safetensors weights, "
        "or a .gguf file",
        reason=Reason.SOURCE_NOT_SUPPORTED,
    )
