"""The model card: what a folder's files tell about the model, without loading a weight."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dockyard.domain.card import ModelCard
from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.prepare.files import read_inside
from dockyard.prepare.folder import ECHO, read_json, tensors_of
from dockyard.prepare.safetensors_header import FLOAT_NAMES, TensorEntry
from dockyard.prepare.shape import Shape, shape_of
from dockyard.prepare.tokenizer_file import find_token_id

# Tables that old checkpoints store beside the weights and that no loader counts: causal masks, rotary frequencies.
_BUFFER = re.compile(r"(\.attn|\.attention)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$")
_DEFAULTS = ("do_sample", "temperature", "top_p", "top_k", "max_new_tokens", "max_length", "repetition_penalty")
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
_LICENCE_LINE = re.compile(r"^license:[ \t]*['\"]?([\w.+-]+)", re.MULTILINE)
_README_LIMIT = 1 << 20


def describe(folder: Path) -> ModelCard:
    """The card of the model in `folder`, which `look_at_folder` has let in. Raises `Failed` (CONFIG_UNREADABLE)."""
    root = folder.resolve(strict=True)
    names = {path.name for path in root.iterdir() if path.is_file()}
    config = read_json(root, "config.json") or {}
    generation = _read(root, names, "generation_config.json")
    tokenizer_config = _read(root, names, "tokenizer_config.json")
    architecture = ARCHITECTURES[config["architectures"][0]]
    weights = [
        tensor
        for tensors in tensors_of(root, sorted(name for name in names if name.endswith(".safetensors"))).values()
        for tensor in tensors
        if not _BUFFER.search(tensor.name)
    ]
    shape = _echo_shape(config) if architecture.name == ECHO else shape_of(config, architecture)
    return ModelCard(
        architecture=architecture.name,
        model_type=str(config.get("model_type", ""))[:100],
        family=architecture.family,
        parameters=sum(tensor.elements for tensor in weights),
        weights_bytes=sum(tensor.size for tensor in weights),
        dtype=stored_dtype(weights),
        context_length=shape.context_length,
        vocab_size=shape.vocab_size,
        layers=shape.layers,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        cross_kv_bytes_per_token=shape.cross_kv_bytes_per_token,
        chat_template="chat_template.jinja" in names or bool(tokenizer_config.get("chat_template")),
        tokenizer="tokenizer.json" if "tokenizer.json" in names else "",
        licence=_licence(root, names),
        eos_token_ids=_eos_ids(root, names, generation, config, tokenizer_config),
        decoder_start_token_id=_token_id(generation, config, "decoder_start_token_id"),
        generation_defaults={name: generation[name] for name in _DEFAULTS if generation.get(name) is not None},
    )


def stored_dtype(weights: Iterable[TensorEntry]) -> str:
    """The type that holds the most bytes; `none` where there are no weights."""
    held: Counter[str] = Counter()
    for tensor in weights:
        held[tensor.dtype] += tensor.size
    if not held:
        return "none"
    most = held.most_common(1)[0][0]
    return FLOAT_NAMES.get(most, most.lower())


def _read(root: Path, names: set[str], name: str) -> dict[str, Any]:
    """An optional file: one that is absent or cannot be read tells nothing."""
    return (read_json(root, name) or {}) if name in names else {}


def _echo_shape(config: Mapping[str, Any]) -> Shape:
    return Shape(
        layers=0,
        context_length=config.get("max_position_embeddings"),
        vocab_size=config.get("vocab_size", 256),
        kv_bytes_per_token=0,
    )


def _eos_ids(
    root: Path, names: set[str], generation: Mapping[str, Any], config: Mapping[str, Any], tokenizer: Mapping[str, Any]
) -> tuple[int, ...]:
    """The ids that end a generation: generation_config.json's, else config.json's, else the tokenizer's."""
    for source in (generation, config):
        value = source.get("eos_token_id")
        ids = [token_id for token_id in (value if isinstance(value, list) else [value]) if type(token_id) is int]
        if ids:
            return tuple(ids)
    token = tokenizer.get("eos_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str) or "tokenizer.json" not in names:
        return ()
    token_id = find_token_id(root / "tokenizer.json", token)
    return () if token_id is None else (token_id,)


def _token_id(generation: Mapping[str, Any], config: Mapping[str, Any], name: str) -> int | None:
    for source in (generation, config):
        if type(source.get(name)) is int:
            return source[name]
    return None


def _licence(root: Path, names: set[str]) -> str | None:
    """The README's front matter says `license: apache-2.0`; else the name of a licence file."""
    if "README.md" in names:
        text = (read_inside(root, "README.md", _README_LIMIT) or b"").decode("utf-8", "replace")
        front = _FRONT_MATTER.match(text)
        line = _LICENCE_LINE.search(front.group(1)) if front else None
        if line:
            return line.group(1)
    return min((name for name in names if name.startswith(("LICENSE", "LICENCE"))), default=None)
