"""Weights and config of Llama and its kin out of a GGUF file: dequantized block by block, as Transformers has them.

One type for all tensors: float16, unless every matrix is stored as float32 or as bfloat16, which is then kept.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, ReaderTensor
from gguf.quants import dequantize

from dockyard.errors import Failed, Reason
from dockyard.prepare.files import ArtifactFile, OnBytes
from dockyard.prepare.gguf_file import GgufFile
from dockyard.prepare.gguf_kinds import OUTSIDE
from dockyard.prepare.manifest import FileEntry

_BLOCK_ELEMENTS = 1 << 22  # 16 MiB as float32
_SAFETENSORS_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

_ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Placement:
    """A tensor of the GGUF file and what it becomes. `rotary_heads`: its rows were permuted within so many heads;
    `plus`: what its values are greater by.
    """

    tensor: ReaderTensor
    name: str
    shape: tuple[int, ...]
    rotary_heads: int | None = None
    plus: float = 0.0


def model_config(gguf: GgufFile, dtype: str) -> dict[str, Any]:
    """`config.json` as Transformers writes it. Raises `Failed` for what it cannot express."""
    heads = gguf.number("attention.head_count")
    width = gguf.number("embedding_length")
    head_width = gguf.number("attention.key_length", width // heads)
    if gguf.number("rope.dimension_count", head_width) != head_width:
        raise _cannot("it rotates only a part of each head")
    config: dict[str, Any] = {
        "architectures": [gguf.kind.architecture],
        "model_type": gguf.kind.model_type,
        "dtype": dtype,
        "hidden_size": width,
        "intermediate_size": gguf.number("feed_forward_length"),
        "num_hidden_layers": gguf.number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": gguf.number("attention.head_count_kv", heads),
        "head_dim": head_width,
        "max_position_embeddings": gguf.number("context_length"),
        "rms_norm_eps": gguf.real("attention.layer_norm_rms_epsilon"),
        "rope_theta": gguf.real("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(gguf, head_width),
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "vocab_size": _rows(gguf, "token_embd.weight"),
    }
    window = gguf.find_own("attention.sliding_window")
    return {**config, **gguf.kind.constants, **({"sliding_window": window} if window else {})}


def plan_weights(gguf: GgufFile, config: Mapping[str, Any]) -> list[Placement]:
    """Where each tensor goes. Raises `Failed` if one is absent, unknown or of another shape than the config says."""
    placements = list(_placements(gguf, config))
    planned = {placement.tensor.name for placement in placements} | {_ROPE_FACTORS}
    unknown = sorted(gguf.tensors.keys() - planned)
    if unknown:
        raise _cannot(f"it has tensors that the architecture here does not know, such as {unknown[0][:100]}")
    return placements


def stored_type(gguf: GgufFile) -> str:
    """The type that the imported tensors get."""
    kinds = {tensor.tensor_type for tensor in gguf.tensors.values() if len(tensor.shape) > 1}
    if kinds == {GGMLQuantizationType.F32}:
        return "float32"
    return "bfloat16" if kinds == {GGMLQuantizationType.BF16} else "float16"


def write_weights(placements: list[Placement], dtype: str, folder: Path, name: str, on_bytes: OnBytes) -> FileEntry:
    """Write a safetensors file, one block of rows at a time; `on_bytes` is told the bytes written."""
    with ArtifactFile(folder, name) as file:
        file.write(_header(placements, dtype))
        for placement in placements:
            for block in _blocks(placement):
                data = _encode(block, dtype, placement.tensor.name)
                file.write(data)
                on_bytes(len(data))
        return file.finish()


def weight_bytes(placements: list[Placement], dtype: str) -> int:
    return sum(int(np.prod(placement.shape)) for placement in placements) * _width(dtype)


def _placements(gguf: GgufFile, config: Mapping[str, Any]) -> Iterator[Placement]:
    width, kind = config["hidden_size"], gguf.kind
    shapes = _shapes(config)
    rotary = {"attn_q.weight": config["num_attention_heads"], "attn_k.weight": config["num_key_value_heads"]}
    yield _place(gguf, "token_embd.weight", OUTSIDE["token_embd.weight"], (config["vocab_size"], width))
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in kind.in_layer.items():
            heads = rotary.get(theirs) if kind.interleaved else None
            yield _place(gguf, f"blk.{layer}.{theirs}", f"model.layers.{layer}.{ours}", shapes[theirs], heads)
    yield _place(gguf, "output_norm.weight", OUTSIDE["output_norm.weight"], (width,))
    if not config["tie_word_embeddings"]:
        yield _place(gguf, "output.weight", OUTSIDE["output.weight"], (config["vocab_size"], width))


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's tensors, as Transformers has them."""
    width, inner, head_width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head_width, config["num_key_value_heads"] * head_width
    fused = config["model_type"] == "phi3"
    return {
        "attn_norm.weight": (width,),
        "attn_q.weight": (queries, width),
        "attn_q.bias": (queries,),
        "attn_q_norm.weight": (head_width,),
        "attn_k.weight": (keys, width),
        "attn_k.bias": (keys,),
        "attn_k_norm.weight": (head_width,),
        "attn_v.weight": (keys, width),
        "attn_v.bias": (keys,),
        "attn_qkv.weight": (queries + 2 * keys, width),
        "attn_output.weight": (width, queries),
        "ffn_norm.weight": (width,),
        "ffn_gate.weight": (inner, width),
        "ffn_up.weight": (2 * inner if fused else inner, width),
        "ffn_down.weight": (width, inner),
    }


def _place(
    gguf: GgufFile, theirs: str, ours: str, shape: tuple[int, ...], rotary_heads: int | None = None
) -> Placement:
    tensor = gguf.tensors.get(theirs)
    if tensor is None:
        raise _damaged(f"it lacks the tensor {theirs}")
    found = tuple(int(size) for size in reversed(tensor.shape))  # GGUF counts the innermost dimension first
    if found != shape:
        raise _damaged(f"the tensor {theirs} has the shape {found} where its metadata says {shape}")
    plus = 1.0 if gguf.kind.norms_plus_one and theirs.endswith("norm.weight") else 0.0
    return Placement(tensor, ours, shape, rotary_heads, plus)


def _blocks(placement: Placement) -> Iterator[np.ndarray]:
    """The tensor as float32, some rows at a time. Quantization never crosses a row, so rows can be taken in any order.

    llama.cpp's converter stores the two halves of each rotary head interleaved:
    w.reshape(heads, 2, size / 2, …).swapaxes(1, 2). Taking the rows in the order of the inverse undoes it.
    """
    data, kind = placement.tensor.data, placement.tensor.tensor_type
    if len(placement.shape) == 1:
        yield dequantize(data, kind) - np.float32(placement.plus)
        return
    rows, columns = placement.shape
    order = np.arange(rows)
    if placement.rotary_heads:
        order = order.reshape(placement.rotary_heads, -1, 2).swapaxes(1, 2).reshape(rows)
    step = max(1, _BLOCK_ELEMENTS // columns)
    for start in range(0, rows, step):
        wanted = order[start : start + step]
        block = data[wanted] if placement.rotary_heads else data[start : start + step]
        try:
            yield dequantize(block, kind)
        except NotImplementedError as error:
            raise _cannot(f"its quantization {kind.name} cannot be undone here") from error


def _encode(block: np.ndarray, dtype: str, name: str) -> bytes:
    if dtype == "bfloat16":  # its values came from bfloat16 or are norms: the upper half, rounded to nearest even
        bits = np.ascontiguousarray(block, dtype="<f4").view("<u4")
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        values = block.astype("<f2" if dtype == "float16" else "<f4")
    if not np.isfinite(values).all():
        raise _damaged(f"the tensor {name} holds values that are no numbers or exceed {dtype}")
    return values.tobytes()


def _header(placements: list[Placement], dtype: str) -> bytes:
    """The safetensors header, padded with spaces so that the weights begin at a multiple of 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for placement in placements:
        end = offset + int(np.prod(placement.shape)) * _width(dtype)
        entries[placement.name] = {
            "dtype": _SAFETENSORS_NAMES[dtype],
            "shape": placement.shape,
            "data_offsets": (offset, end),
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _rope_scaling(gguf: GgufFile, head_width: int) -> dict[str, Any] | None:
    """Llama 3.1's scaling is stored as one factor per frequency; only the published parameters are recognized."""
    kind = gguf.find_own("rope.scaling.type")
    factors = gguf.tensors.get(_ROPE_FACTORS)
    if factors is not None:
        stored = np.asarray(factors.data, dtype=np.float32)
        candidate = {
            "rope_type": "llama3",
            "factor": float(stored.max()),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        expected = llama3_factors(candidate, gguf.real("rope.freq_base", 10000.0), head_width)
        if stored.shape == expected.shape and np.allclose(stored, expected, rtol=1e-3):
            return candidate
        raise _cannot("its rotary factors are not those of Llama 3.1")
    if kind in (None, "none"):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": gguf.real("rope.scaling.factor")}
    raise _cannot(f"its rotary scaling {str(kind)[:50]} is not supported")


def llama3_factors(scaling: Mapping[str, Any], theta: float, head_width: int) -> np.ndarray:
    """As llama.cpp's converter computes them: 1 for short wavelengths, `factor` for long ones, smooth in between."""
    frequencies = theta ** -(np.arange(0, head_width, 2, dtype=np.float64) / head_width)
    wavelengths = 2 * np.pi / frequencies
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / scaling["factor"] + smooth)
    return np.where(smooth >= 1, 1.0, np.where(smooth <= 0, scaling["factor"], between))


def _rows(gguf: GgufFile, name: str) -> int:
    tensor = gguf.tensors.get(name)
    if tensor is None or len(tensor.shape) != 2:
        raise _damaged(f"it lacks the matrix {name}")
    return int(tensor.shape[1])


def _width(dtype: str) -> int:
    return 4 if dtype == "float32" else 2


def _cannot(why: str) -> Failed:
    return Failed(
        f"the GGUF file cannot be converted: {why}; import the model's safetensors folder instead",
        reason=Reason.CONVERSION_FAILED,
    )


def _damaged(why: str) -> Failed:
    return Failed(f"the GGUF file is damaged: {why}; fetch the file again", reason=Reason.WEIGHTS_UNREADABLE)
