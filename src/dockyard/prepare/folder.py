"""Looking at a Hugging Face folder before a byte is copied: what it is, which files make it up, why it is refused.

Pickled weights beside complete safetensors are common on hubs; they are never read and never copied. A folder whose
only weights are pickled is refused.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dockyard.domain.compatibility import ARCHITECTURES, Architecture
from dockyard.errors import Failed, Reason
from dockyard.prepare.files import leads_out, open_inside, read_inside
from dockyard.prepare.folder_tokenizer import made_tokenizer
from dockyard.prepare.safetensors_header import TensorEntry, read_header

ECHO = "EchoForCausalLM"  # answers with its prompt; needs neither tokenizer nor weights
SINGLE = "model.safetensors"
GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"

_CONFIG_LIMIT = 1 << 20
_JSON_LIMIT = 64 << 20
_ENTRIES_LIMIT = 10_000

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_COPIED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja",
    "source.spm", "target.spm", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "README.md", "LICENSE*", "LICENCE*",
)  # fmt: skip

_HEADLESS = (
    "ForSequenceClassification", "ForTokenClassification", "ForMaskedLM", "ForQuestionAnswering", "ForMultipleChoice",
    "ForNextSentencePrediction", "ForImageClassification", "ForPreTraining", "EncoderModel", "Model",
)  # fmt: skip
_ENCODERS = (
    "albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "eurobert", "modernbert", "mpnet",
    "nomic_bert", "roberta", "vit", "xlm-roberta",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder that can be imported: what its config says, the names of the files to copy, and the tokenizer.json that
    it lacks.
    """

    root: Path
    config: Mapping[str, Any]
    architecture: Architecture
    files: tuple[str, ...]
    total_bytes: int
    tokenizer: bytes | None = None


def look_at_folder(source: Path) -> ModelFolder:
    """Judge the folder. Raises `Failed` with the reason why it cannot be imported."""
    root = source.resolve(strict=True)
    names = _entries(root)
    refuse_code(names)
    config = _read_config(root, names)
    _refuse_auto_map(root, names, config)
    _refuse_unreadable(root, names)
    architecture = _known_architecture(config)
    if architecture.name == ECHO:
        weights, tokenizer = (), None
    else:
        weights = _weights(root, names)
        tokenizer = made_tokenizer(root, names, config)
    files = (*(name for name in names if any(fnmatchcase(name, form) for form in _COPIED)), *weights)
    total = sum((root / name).stat().st_size for name in files)
    return ModelFolder(root, config, architecture, files, total, tokenizer)


def harmless_files(root: Path) -> list[str]:
    """The names of the files in `root`. Raises `Failed` for links out of it and for code, a tokenizer's too."""
    names = _entries(root)
    refuse_code(names)
    _refuse_auto_map(root, names, {})
    return names


def is_description(name: str) -> bool:
    """Whether a file of this name belongs to a model beside its weights; such files are small."""
    return name == INDEX or any(fnmatchcase(name, form) for form in _COPIED)


def wanted_weights(root: Path, names: list[str]) -> tuple[str, ...]:
    """The weight files of a model of which only the descriptions are in `root` so far; `names` is all that it has.

    Judges it by what is there, before gigabytes are fetched. Raises `Failed` as `look_at_folder` does.
    """
    refuse_code(names)
    config = _read_config(root, names)
    _refuse_auto_map(root, names, config)
    if _known_architecture(config).name == ECHO:
        return ()
    wanted = _weight_files(root, names)
    made_tokenizer(root, names, config)
    return wanted


def read_json(root: Path, name: str, limit_bytes: int = _JSON_LIMIT) -> dict[str, Any] | None:
    """The JSON object in `root/name`; None if it is none, or too large. UTF-8, as the engines read it."""
    content = read_inside(root, name, limit_bytes)
    try:
        value = json.loads(content.decode()) if content is not None else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def tensors_of(root: Path, shards: Iterable[str]) -> dict[str, tuple[TensorEntry, ...]]:
    """The tensors of each safetensors file. Raises `Failed` (WEIGHTS_UNREADABLE)."""
    found: dict[str, tuple[TensorEntry, ...]] = {}
    for name in shards:
        with open_inside(root, name) as file:
            found[name] = read_header(file, os.fstat(file.fileno()).st_size, name)
    return found


def _entries(root: Path) -> list[str]:
    """The names of the folder's regular files. No link may lead out of it, and nothing else may lie in it."""
    names: list[str] = []
    with os.scandir(root) as entries:
        for count, entry in enumerate(entries):
            if count >= _ENTRIES_LIMIT:
                raise Failed(
                    f"the folder has more than {_ENTRIES_LIMIT} entries; name the folder of one model",
                    reason=Reason.SOURCE_NOT_SUPPORTED,
                )
            if entry.is_symlink() and not _stays_inside(root, entry.name):
                raise leads_out(entry.name)
            if entry.is_file():
                names.append(entry.name)
            elif not entry.is_dir() and not entry.is_symlink():
                raise Failed(
                    f"{entry.name} is no regular file; remove it from the folder", reason=Reason.SOURCE_NOT_SUPPORTED
                )
    return sorted(names)


def _stays_inside(root: Path, name: str) -> bool:
    try:
        return (root / name).resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a circle of links
        return False


def refuse_code(names: Iterable[str]) -> None:
    code = [name for name in names if name.endswith(".py")]
    if code:
        raise Failed(
            f"the folder holds Python code ({_some(code)}), and Dockyard never runs a model's code; if Transformers "
            "knows the architecture by itself, remove the file and import again",
            reason=Reason.CODE_REFUSED,
        )


def _read_config(root: Path, names: list[str]) -> dict[str, Any]:
    if "config.json" not in names:
        gguf = [name for name in names if name.endswith(".gguf")]
        below = [path.parent.name for path in sorted(root.glob("*/config.json"))[:1]]
        if gguf:
            hint = f"to import the GGUF file, name it itself: …/{gguf[0]}"
        elif below:
            hint = f"its folder {below[0]!r} has one: name that folder"
        else:
            hint = "name the model's own folder, with config.json, the tokenizer's files and safetensors weights"
        raise Failed(f"the folder has no config.json; {hint}", reason=Reason.CONFIG_MISSING)
    config = read_json(root, "config.json", _CONFIG_LIMIT)
    if config is None:
        raise Failed(
            f"config.json is no JSON object of at most {_CONFIG_LIMIT >> 10} KiB; fetch the file again",
            reason=Reason.CONFIG_UNREADABLE,
        )
    return config


def _refuse_auto_map(root: Path, names: list[str], config: Mapping[str, Any]) -> None:
    asking = ["config.json"] if "auto_map" in config else []
    if "tokenizer_config.json" in names:
        tokenizer_config = read_json(root, "tokenizer_config.json")
        if tokenizer_config is None:
            raise Failed(
                "tokenizer_config.json is no JSON object; fetch the file again", reason=Reason.TOKENIZER_UNREADABLE
            )
        asking += ["tokenizer_config.json"] if "auto_map" in tokenizer_config else []
    if asking:
        raise Failed(
            f"{' and '.join(asking)} asks with auto_map for the model's own code, which Dockyard never runs; if "
            "Transformers knows the architecture by itself, remove the field and import again",
            reason=Reason.AUTO_MAP_REFUSED,
        )


def _refuse_unreadable(root: Path, names: list[str]) -> None:
    if GENERATION in names and read_json(root, GENERATION, _CONFIG_LIMIT) is None:
        raise Failed(
            f"{GENERATION} is no JSON object of at most {_CONFIG_LIMIT >> 10} KiB; fetch the file again, or remove it",
            reason=Reason.CONFIG_UNREADABLE,
        )


def _known_architecture(config: Mapping[str, Any]) -> Architecture:
    named = config.get("architectures")
    if not isinstance(named, list) or not named or not isinstance(named[0], str):
        raise Failed(
            'config.json names no architecture; it needs a field such as "architectures": ["LlamaForCausalLM"]',
            reason=Reason.CONFIG_UNREADABLE,
        )
    name = named[0]
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if config.get("model_type") in _ENCODERS or (name.endswith(_HEADLESS) and not name.endswith("LMHeadModel")):
        raise Failed(
            f"{name[:100]} produces no text (an encoder, or a head that is no language model); "
            "choose a model for text generation",
            reason=Reason.ENCODER_ONLY,
        )
    known = ", ".join(sorted(ARCHITECTURES.keys() - {ECHO}))
    raise Failed(
        f"no engine knows the architecture {name[:100]}; known are {known}", reason=Reason.ARCHITECTURE_UNKNOWN
    )


def _weights(root: Path, names: list[str]) -> tuple[str, ...]:
    """The weight files and their index, after a look at every header."""
    files = _weight_files(root, names)
    tensors = tensors_of(root, [name for name in files if name != INDEX])
    if INDEX in files:
        _check_places(root, tensors)
    return files


def _weight_files(root: Path, names: list[str]) -> tuple[str, ...]:
    """The same by their names, without a look into them."""
    if SINGLE in names:
        return (SINGLE,)
    if INDEX in names:
        return (INDEX, *_indexed_shards(root, names))
    pickled = [name for name in names if any(fnmatchcase(name, form) for form in _PICKLED)]
    if pickled:
        raise Failed(
            f"the weights are pickled ({_some(pickled)}), which can run code when loaded; save the model as "
            "safetensors (save_pretrained does) and import that folder",
            reason=Reason.PICKLE_REFUSED,
        )
    other = [name for name in names if name.endswith(".safetensors")]
    found = f" (found {_some(other)})" if other else ""
    raise Failed(
        f"the folder has no {SINGLE} and no {INDEX}{found}; add the weights as save_pretrained writes them, then "
        "import again; an adapter needs its adapter_config.json",
        reason=Reason.WEIGHTS_MISSING,
    )


def _indexed_shards(root: Path, names: list[str]) -> list[str]:
    shards = sorted(set(_places(root).values()))
    absent = [name for name in shards if name not in names or not name.endswith(".safetensors")]
    if absent:
        raise Failed(
            f"{INDEX} names files that are not in the folder: {_some(absent)}; fetch them, then import again",
            reason=Reason.WEIGHTS_MISSING,
        )
    return shards


def _places(root: Path) -> dict[str, str]:
    """Which file holds which tensor, as the index says."""
    index = read_json(root, INDEX)
    places = index.get("weight_map") if index else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise Failed(f"{INDEX} has no readable weight_map; fetch the file again", reason=Reason.WEIGHTS_UNREADABLE)
    return places


def _check_places(root: Path, tensors: Mapping[str, tuple[TensorEntry, ...]]) -> None:
    held = {name: {entry.name for entry in entries} for name, entries in tensors.items()}
    lost = [tensor for tensor, shard in _places(root).items() if tensor not in held[shard]]
    if lost:
        raise Failed(
            f"{INDEX} places tensors in files that do not hold them: {_some(lost)}; fetch the files again",
            reason=Reason.WEIGHTS_UNREADABLE,
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(name[:100] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
