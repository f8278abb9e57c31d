"""A folder that PEFT saved: which of its files are kept, what it changes in its base, and the two as one model."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tokenizers import Tokenizer

from dockyard.domain.adapter import AdapterCard
from dockyard.domain.card import ModelCard
from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_config import ADAPTER_CONFIG, LoraConfig, read_lora_config
from dockyard.prepare.adapter_plan import ADAPTER_WEIGHTS, BaseTensors, Change, is_plain, is_tied, plan_merge
from dockyard.prepare.describe import describe
from dockyard.prepare.folder import INDEX, SINGLE, harmless_files, is_description, read_json, refuse_code, tensors_of
from dockyard.prepare.folder_tokenizer import made_tokenizer
from dockyard.prepare.safetensors_header import TensorEntry

_CONFIG_LIMIT = 1 << 20
_PICKLED = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
_TEMPLATE = "chat_template.jinja"
# What describes a base and what it generates with stays the base's.
_OF_THE_BASE = ("config.json", "generation_config.json", INDEX)
_ABOUT = ("README", "LICENSE", "LICENCE")


@dataclass(frozen=True, slots=True)
class AdapterFolder:
    """An adapter that can be imported: the names of the files to keep. It needs no tokenizer: its base has one."""

    root: Path
    files: tuple[str, ...]
    total_bytes: int
    tokenizer: None = None


def is_adapter(folder: Path) -> bool:
    """Whether `folder` holds an adapter, and not a whole model beside what is left of one."""
    return (folder / ADAPTER_CONFIG).is_file() and not any((folder / name).exists() for name in (SINGLE, INDEX))


def check_told(folder: Path, told: bool | None) -> None:
    """Raise `Failed` (ADAPTER_MISMATCH) unless `folder` holds what `isAdapter` said of it; None: nothing."""
    if told is None or told is is_adapter(folder):
        return
    if told:
        message = (
            f"isAdapter is true, and the archive holds no adapter ({ADAPTER_CONFIG} without a whole model's weights); "
            "pack the folder that PEFT saved, or, for a whole model, start the upload without isAdapter"
        )
    else:
        message = (
            f"isAdapter is false, and the archive holds an adapter ({ADAPTER_CONFIG} without a whole model's weights); "
            "start the upload with isAdapter true and, in baseModelId, the model that it was tuned from"
        )
    raise Failed(message, reason=Reason.ADAPTER_MISMATCH)


def wanted_of_adapter(names: list[str]) -> tuple[str, ...] | None:
    """What makes a folder of these names an adapter, beside what describes it; None if it is none. Raises `Failed`."""
    if ADAPTER_CONFIG not in names or SINGLE in names or INDEX in names:
        return None
    refuse_code(names)
    if ADAPTER_WEIGHTS not in names:
        raise _no_weights(names)
    return (ADAPTER_CONFIG, ADAPTER_WEIGHTS)


def look_at_adapter(source: Path) -> AdapterFolder:
    """Judge the folder by itself. Raises `Failed` with the reason why it cannot be imported."""
    root = source.resolve(strict=True)
    names = harmless_files(root)
    _config_of(root)
    if ADAPTER_WEIGHTS not in names:
        raise _no_weights(names)
    tensors_of(root, [ADAPTER_WEIGHTS])
    has_tokenizer = "tokenizer.json" in names
    if has_tokenizer:
        made_tokenizer(root, ["tokenizer.json"], {})
    kept = tuple(
        name
        for name in names
        if name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS, _TEMPLATE)
        or (name.startswith(_ABOUT) and is_description(name))
        or (has_tokenizer and is_description(name) and name not in _OF_THE_BASE)
    )
    return AdapterFolder(root, kept, sum((root / name).stat().st_size for name in kept))


def plan_for(adapter: Path, base: Path) -> dict[str, Change]:
    """What the adapter does to its base. Raises `Failed` (ADAPTER_…, BASE_MODEL_NOT_USABLE)."""
    config, tensors = _config_of(adapter), _base_tensors(base)
    try:
        return plan_merge(config, _own_tensors(adapter), tensors)
    except Failed as error:
        if error.reason is not Reason.ADAPTER_DOES_NOT_FIT or not config.tuned_from:
            raise
        told = f"{error.message} ({ADAPTER_CONFIG} calls it {config.tuned_from!a})"
        raise Failed(told, reason=error.reason) from error


def describe_merged(adapter: Path, base: Path, base_key: str, view: Path) -> ModelCard:
    """The card of base and adapter together. `view` is a new folder on the file system of both. Raises `Failed`."""
    plan = plan_for(adapter, base)
    lay_over(adapter, base, view)
    for path in base.glob("*.safetensors"):
        os.link(path, view / path.name)
    card = describe(view)
    _check_vocabulary(adapter, card)
    tensors = _own_tensors(adapter)
    modules = {entry.name.partition(".lora_")[0].rpartition(".")[2] for entry in tensors if ".lora_" in entry.name}
    config = _config_of(adapter)
    told = AdapterCard(
        base_key=base_key,
        rank=max((config.rank, *config.ranks.values())),
        parameters=sum(entry.elements for entry in tensors),
        modules=tuple(sorted(modules)),
        plain=is_plain(plan),
    )
    return replace(card, adapter=told)


def lay_over(adapter: Path, base: Path, target: Path) -> list[str]:
    """Link all but the weights into the new folder `target`: the base's files, the tokenizer and template the adapter's
    where it has them. Returns the names.
    """
    target.mkdir()
    own = {path.name for path in adapter.iterdir() if _replaces(path.name)}
    of_base = {path.name for path in base.iterdir() if is_description(path.name)}
    if "tokenizer.json" in own:
        of_base = {name for name in of_base if not _replaces(name) or name == _TEMPLATE}
    for name in sorted(own | of_base):
        os.link((adapter if name in own else base) / name, target / name)
    return sorted(own | of_base)


def _replaces(name: str) -> bool:
    return is_description(name) and name not in (*_OF_THE_BASE, ADAPTER_CONFIG) and not name.startswith(_ABOUT)


def _config_of(folder: Path) -> LoraConfig:
    return read_lora_config(read_json(folder.resolve(), ADAPTER_CONFIG, _CONFIG_LIMIT))


def _own_tensors(adapter: Path) -> tuple[TensorEntry, ...]:
    return tensors_of(adapter.resolve(), [ADAPTER_WEIGHTS])[ADAPTER_WEIGHTS]


def _base_tensors(base: Path) -> BaseTensors:
    root = base.resolve()
    shards = sorted(path.name for path in root.glob("*.safetensors"))
    tensors = {entry.name: entry for entries in tensors_of(root, shards).values() for entry in entries}
    if not tensors:
        raise Failed(
            "the model named as base has no weights to merge an adapter into; name the model that it was tuned from",
            reason=Reason.BASE_MODEL_NOT_USABLE,
        )
    config: Mapping[str, object] = read_json(root, "config.json") or {}
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else ""
    return BaseTensors(architecture=architecture, tensors=tensors, tied=is_tied(config, architecture, tensors))


def _check_vocabulary(adapter: Path, card: ModelCard) -> None:
    """A tokenizer that grew while tuning speaks of tokens that the base has no embedding for."""
    file = adapter / "tokenizer.json"
    if not file.is_file():
        return
    size = Tokenizer.from_file(str(file)).get_vocab_size()
    if size > card.vocab_size:
        raise Failed(
            f"the adapter's tokenizer has {size} tokens and its base {card.vocab_size}; load both with PEFT, call "
            "merge_and_unload() and import the result as a model of its own",
            reason=Reason.ADAPTER_DOES_NOT_FIT,
        )


def _no_weights(names: list[str]) -> Failed:
    pickled = [name for name in names if name in _PICKLED]
    if pickled:
        return Failed(
            f"the adapter's weights are pickled ({pickled[0]}), which can run code when loaded; save it as safetensors "
            "(save_pretrained of PEFT does) and import that folder",
            reason=Reason.PICKLE_REFUSED,
        )
    return Failed(
        f"the folder has {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS}; fetch the file, then import again",
        reason=Reason.WEIGHTS_MISSING,
    )
