"""The model card: what a folder's files tell about the model, without loading a weight."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dockyard.domain.card import ModelCard
from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.prepare.ctranslate2_limits import plain_context, why_not
from dockyard.prepare.dimensions import dimensions_of
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

# Where a model keeps its embedding, the first that is there; copies of it that loaders tie whatever the config says;
# and the output layer, which is tied where tie_word_embeddings says so. The kinds below are not tied when it is absent.
_EMBEDDINGS = (
    "shared.weight", "model.shared.weight", "model.embed_tokens.weight", "transformer.wte.weight", "wte.weight",
    "model.decoder.embed_tokens.weight", "decoder.embed_tokens.weight", "gpt_neox.embed_in.weight",
    "transformer.word_embeddings.weight", "word_embeddings.weight",
)  # fmt: skip
_COPIES_OF_EMBEDDINGS = (
    "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "model.encoder.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
)  # fmt: skip
_OUTPUT_LAYERS = ("lm_head.weight", "embed_out.weight", "output.weight")
_UNTIED = (
    "arcee", "codegen", "exaone4", "glm", "glm4", "gpt_neox", "gptj", "granite", "granitemoe", "llama", "mistral",
    "mixtral", "olmo", "olmo2", "olmo3", "olmoe", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "stablelm",
)  # fmt: skip
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


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
    weights = without_tied(weights, config)
    shape = _echo_shape(config) if architecture.name == ECHO else shape_of(config, architecture)
    parameters = sum(tensor.elements for tensor in weights)
    kind, size = tokenizer_facts(_read(root, names, "tokenizer.json"))
    return ModelCard(
        architecture=architecture.name,
        model_type=str(config.get("model_type", ""))[:100],
        family=architecture.family,
        parameters=parameters,
        active_parameters=_active(parameters, weights, config),
        dimensions=dimensions_of(config),
        weights_bytes=sum(tensor.size for tensor in weights),
        dtype=stored_dtype(weights),
        context_length=shape.context_length,
        vocab_size=shape.vocab_size,
        layers=shape.layers,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        cross_kv_bytes_per_token=shape.cross_kv_bytes_per_token,
        chat_template="chat_template.jinja" in names or bool(tokenizer_config.get("chat_template")),
        tokenizer="tokenizer.json" if "tokenizer.json" in names else "",
        tokenizer_kind=kind,
        tokenizer_size=size,
        licence=_licence(root, names),
        eos_token_ids=_eos_ids(root, names, generation, config, tokenizer_config),
        decoder_start_token_id=_token_id(generation, config, "decoder_start_token_id"),
        forced_bos_token_id=_token_id(generation, config, "forced_bos_token_id"),
        plain_context=plain_context(config),
        ctranslate2_cannot=why_not(config),
        generation_defaults={name: generation[name] for name in _DEFAULTS if generation.get(name) is not None},
    )


def without_tied(weights: Sequence[TensorEntry], config: Mapping[str, Any]) -> list[TensorEntry]:
    """Some files hold a tensor twice that the model has once: the output layer that is the embedding, mostly."""
    shapes = {tensor.name: tensor.shape for tensor in weights}
    first = next((name for name in _EMBEDDINGS if name in shapes), None)
    if first is None:
        return list(weights)
    tied = config.get("tie_word_embeddings", config.get("model_type") not in _UNTIED)
    copies = {*_COPIES_OF_EMBEDDINGS, *(_OUTPUT_LAYERS if tied else ())} - {first}
    return [tensor for tensor in weights if tensor.name not in copies or tensor.shape != shapes[first]]


def tokenizer_facts(tokenizer: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """The kind of a tokenizer.json's model ("BPE", "Unigram", "WordPiece" …) and how many entries it has in all."""
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        return None, None
    entries = model.get("vocab")
    kind = model.get("type")
    if not isinstance(entries, dict | list):
        return (kind[:40] if isinstance(kind, str) else None), None
    known = set(entries) if isinstance(entries, dict) else {entry[0] for entry in entries if _is_pair(entry)}
    added = tokenizer.get("added_tokens")
    own = {token.get("content") for token in added if isinstance(token, dict)} if isinstance(added, list) else set()
    return (kind[:40] if isinstance(kind, str) else _kind_of(entries)), len(known | own)


def stored_dtype(weights: Iterable[TensorEntry]) -> str:
    """The type that holds the most bytes; `none` where there are no weights."""
    held: Counter[str] = Counter()
    for tensor in weights:
        held[tensor.dtype] += tensor.size
    if not held:
        return "none"
    most = held.most_common(1)[0][0]
    return FLOAT_NAMES.get(most, most.lower())


def _is_pair(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _kind_of(entries: dict[Any, Any] | list[Any]) -> str:
    """Early files do not name it; pairs of token and score are Unigram's, and BPE's is a mapping."""
    return "Unigram" if isinstance(entries, list) else "BPE"


def _active(parameters: int, weights: Iterable[TensorEntry], config: Mapping[str, Any]) -> int | None:
    """Of a mixture of experts: all but the experts that a token does not pass."""
    experts = next((config[name] for name in _EXPERTS if type(config.get(name)) is int), 0)
    chosen = config.get("num_experts_per_tok")
    if type(chosen) is not int or not 0 < chosen < experts:
        return None
    shared_out = sum(tensor.elements for tensor in weights if ".experts." in tensor.name)
    return parameters - shared_out * (experts - chosen) // experts


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
