"""What merging an adapter does to each tensor of its base, decided from the headers alone. Import checks with it, the
merge follows it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_config import LoraConfig, merge_it_yourself
from dockyard.prepare.safetensors_header import FLOAT_NAMES, TensorEntry

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_OUTER = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<kind>A|B|embedding_A|embedding_B)(?:\.weight)?")
_DECORATIONS = (".base_layer", ".modules_to_save", ".original_module")
# Names in files against names in the loaded model: base checkpoints are saved with and without the body's prefix.
_BODIES = ("transformer.", "model.", "gpt_neox.", "base_model.")
_HEADS = ("lm_head", "embed_out")
_EMBEDDINGS = ("embed_tokens", "wte", "shared", "word_embeddings", "embed_in", "tok_embeddings")
# What Transformers takes these for when config.json does not say; the others it takes for tied.
_UNTIED_UNLESS_SAID = (
    "LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "PhiForCausalLM", "Phi3ForCausalLM", "GPTJForCausalLM", "GPTNeoXForCausalLM",
)  # fmt: skip
# Layers of these are Transformers' Conv1D, which keeps its matrix as (in, out).
_CONV1D = {"GPT2LMHeadModel": ("c_attn", "c_proj", "c_fc", "q_attn")}


@dataclass(frozen=True, slots=True)
class LowRank:
    """The base's matrix plus `scale` · `left` · `right`, each transposed first if so said.

    `onto`: the adapter brings its own matrix to add to, as PEFT saves an embedding that was tuned.
    """

    left: TensorEntry
    right: TensorEntry
    transposed: bool
    scale: float
    onto: TensorEntry | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """The adapter's own tensor in place of the base's."""

    by: TensorEntry


Change = LowRank | Replaced


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseTensors:
    """The headers of the base's weights. `tied`: one matrix is both its embedding and its head."""

    architecture: str
    tensors: Mapping[str, TensorEntry]
    tied: bool


def plan_merge(config: LoraConfig, adapter: Iterable[TensorEntry], base: BaseTensors) -> dict[str, Change]:
    """Tensor of the base → what becomes of it. Raises `Failed` (ADAPTER_NOT_SUPPORTED, ADAPTER_DOES_NOT_FIT)."""
    pairs: dict[str, dict[str, TensorEntry]] = {}
    changes: dict[str, Change] = {}
    for entry in adapter:
        if not entry.name.isascii() or not entry.elements:
            raise merge_it_yourself(
                f"an adapter with tensors like {ascii(entry.name)[:100]}, which is empty or no name,"
            )
        name = _without_decoration(entry.name.removeprefix(_OUTER))
        if found := _LORA.fullmatch(name):
            pairs.setdefault(found["module"], {})[found["kind"]] = entry
        elif "lora_" in name or not name.endswith((".weight", ".bias")):
            raise merge_it_yourself(f"an adapter with tensors like {entry.name[:100]}")
        else:
            _add(changes, *_replaced(name, entry, base))
    for module, pair in pairs.items():
        name, change = _low_rank(module, pair, config, base)
        if isinstance(own := changes.pop(name, None), Replaced):
            change = replace(change, onto=own.by)
        _add(changes, name, change)
    if not changes:
        raise _does_not_fit("its weights hold no LoRA matrices")
    _check_targets(config, pairs, base)
    return changes


def is_plain(changes: Mapping[str, Change]) -> bool:
    """Whether all of them add to matrices between the vectors of layers, and are scaled alike."""
    pairs = [change for change in changes.values() if isinstance(change, LowRank)]
    if len(pairs) < len(changes) or any(change.transposed or change.onto for change in pairs):
        return False
    outer = any(name.removesuffix(".weight").rpartition(".")[2] in (*_HEADS, *_EMBEDDINGS) for name in changes)
    return not outer and len({(change.scale, change.right.shape[0]) for change in pairs}) == 1


def is_tied(config: Mapping[str, object], architecture: str, tensors: Iterable[str]) -> bool:
    """Whether embedding and head of a model with this config.json are one matrix once it is loaded."""
    has_head = any(name.removesuffix(".weight") in _HEADS for name in tensors)
    said = config.get("tie_word_embeddings")
    return not has_head or (said is not False if said is not None else architecture not in _UNTIED_UNLESS_SAID)


def _low_rank(
    module: str, pair: Mapping[str, TensorEntry], config: LoraConfig, base: BaseTensors
) -> tuple[str, LowRank]:
    name = _name_in(base, f"{module}.weight")
    embedding = "embedding_A" in pair or "embedding_B" in pair
    down, up = (pair.get(f"embedding_{kind}" if embedding else kind) for kind in ("A", "B"))
    if down is None or up is None:
        raise _does_not_fit(f"{module} has only one of its two LoRA matrices")
    _check_untied(module, base)
    target, rank = base.tensors[name], config.rank_of(module)
    transposed = embedding or module.rpartition(".")[2] in _CONV1D.get(base.architecture, ())
    if target.dtype not in FLOAT_NAMES or not {down.dtype, up.dtype} <= FLOAT_NAMES.keys():
        raise merge_it_yourself(f"{module}, whose weights are not stored as plain floating-point numbers,")
    rows_columns = (down.shape[1:], up.shape[:1]) if transposed else (up.shape[:1], down.shape[1:])
    made = (*rows_columns[0], *rows_columns[1])
    if len(down.shape) != 2 or len(up.shape) != 2 or made != target.shape:
        raise _does_not_fit(
            f"{module} of the base is {_shape(target.shape)} and the adapter's matrices are for {_shape(made)}"
        )
    if down.shape[0] != rank or up.shape[1] != rank:
        raise _does_not_fit(
            f"the matrices of {module} have rank {down.shape[0]} and {up.shape[1]}, adapter_config.json says {rank}"
        )
    left, right = (down, up) if transposed else (up, down)
    return name, LowRank(left, right, transposed, config.scale_of(module))


def _replaced(name: str, entry: TensorEntry, base: BaseTensors) -> tuple[str, Replaced]:
    """A tensor that was trained as a whole: modules_to_save, or a bias."""
    found = _name_in(base, name)
    _check_untied(name.rpartition(".")[0], base)
    target = base.tensors[found]
    if target.dtype not in FLOAT_NAMES or entry.dtype not in FLOAT_NAMES:
        raise merge_it_yourself(f"{name}, whose values are not stored as plain floating-point numbers,")
    if target.shape != entry.shape or not target.shape:
        raise _does_not_fit(f"{name} of the base is {_shape(target.shape)} and the adapter's is {_shape(entry.shape)}")
    return found, Replaced(entry)


def _add(changes: dict[str, Change], name: str, change: Change) -> None:
    if name in changes:
        raise _does_not_fit(f"two of its entries change {name}")
    changes[name] = change


def _check_untied(module: str, base: BaseTensors) -> None:
    if base.tied and module.rpartition(".")[2] in _EMBEDDINGS + _HEADS:
        raise merge_it_yourself(f"an adapter that changes {module} of a base whose embedding is also its head")


def _check_targets(config: LoraConfig, modules: Iterable[str], base: BaseTensors) -> None:
    """A target that neither base nor adapter knows tells of another base."""
    known = {*modules, *(name.rpartition(".")[0] for name in base.tensors)}
    lost = [t for t in config.targets if not any(name == t or name.endswith(f".{t}") for name in known)]
    if lost:
        named = ", ".join(ascii(target)[:50] for target in lost[:5])
        raise _does_not_fit(f"it is for {named} (target_modules), of which the base has none")


def _name_in(base: BaseTensors, name: str) -> str:
    first, _, rest = name.partition(".")
    candidates = [name, *(f"{body}{name}" for body in _BODIES), *([rest] if f"{first}." in _BODIES else [])]
    for candidate in candidates:
        if candidate in base.tensors:
            return candidate
    if name.removesuffix(".weight").rpartition(".")[2] in _HEADS and base.tied:
        raise merge_it_yourself(f"an adapter that changes {name} of a base whose embedding is also its head")
    raise _does_not_fit(f"the base has no {name[:150]}")


def _without_decoration(name: str) -> str:
    """Names as PEFT saves them and as older versions of it did: `…q_proj.base_layer.bias`, `…lora_A.default.weight`."""
    for decoration in _DECORATIONS:
        name = name.replace(f"{decoration}.default.", ".").replace(f"{decoration}.", ".")
    return name.replace(".default.weight", ".weight")


def _does_not_fit(why: str) -> Failed:
    return Failed(
        f"the adapter does not fit its base model: {why}; name the model that it was tuned from with baseModelId",
        reason=Reason.ADAPTER_DOES_NOT_FIT,
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(str(size) for size in shape)
