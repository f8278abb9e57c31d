"""A random Llama of a few thousand weights, and the GGUF file that llama.cpp's converter would make of it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
HEAD_WIDTH = WIDTH // HEADS

TEXT = "In 1999 the ships, 20 of them, sailed; by 2024 they're home again. A price of 3.50 is 350 cents!\n\n  Café."


def source_tokenizer() -> Tokenizer:
    """Trained on TEXT, with the pre-tokenizer of SmolLM2."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


def random_llama(vocab_size: int) -> dict[str, np.ndarray]:
    """Weights under the names that Transformers has for them."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab_size, WIDTH),
        "model.norm.weight": (WIDTH,),
    }
    for layer in range(LAYERS):
        within = f"model.layers.{layer}"
        shapes |= {
            f"{within}.input_layernorm.weight": (WIDTH,),
            f"{within}.post_attention_layernorm.weight": (WIDTH,),
            f"{within}.self_attn.q_proj.weight": (HEADS * HEAD_WIDTH, WIDTH),
            f"{within}.self_attn.k_proj.weight": (KV_HEADS * HEAD_WIDTH, WIDTH),
            f"{within}.self_attn.v_proj.weight": (KV_HEADS * HEAD_WIDTH, WIDTH),
            f"{within}.self_attn.o_proj.weight": (WIDTH, HEADS * HEAD_WIDTH),
            f"{within}.mlp.gate_proj.weight": (INNER, WIDTH),
            f"{within}.mlp.up_proj.weight": (INNER, WIDTH),
            f"{within}.mlp.down_proj.weight": (WIDTH, INNER),
        }
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def permuted(weights: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's convert_hf_to_gguf.py stores the rows of q and k."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, weights.shape[1])
    return halves.swapaxes(1, 2).reshape(weights.shape)


@dataclass(kw_only=True)
class TinyGguf:
    """What to write, with the places where a test bends it."""

    tokenizer: Tokenizer = field(default_factory=source_tokenizer)
    matrices: GGMLQuantizationType = GGMLQuantizationType.F32
    architecture: str = "llama"
    pre: str = "smollm"
    drop: str | None = None
    numbers: dict[str, int] = field(default_factory=dict[str, int])
    extra: dict[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])

    def write(self, path: Path) -> dict[str, np.ndarray]:
        """Write the file; returns the weights as they were before."""
        weights = random_llama(self.tokenizer.get_vocab_size())
        writer = GGUFWriter(path, self.architecture)
        self._metadata(writer)
        self._vocabulary(writer)
        for name, values in (*_their_names(weights), *self.extra.items()):
            if name != self.drop:
                self._tensor(writer, name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return weights

    def _metadata(self, writer: GGUFWriter) -> None:
        writer.add_license("mit")
        writer.add_block_count(LAYERS)
        writer.add_context_length(128)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_dimension_count(HEAD_WIDTH)
        writer.add_rope_freq_base(100000.0)
        writer.add_layer_norm_rms_eps(1e-5)
        for key, value in self.numbers.items():
            writer.add_uint32(key, value)

    def _vocabulary(self, writer: GGUFWriter) -> None:
        ids = self.tokenizer.get_vocab()
        tokens = sorted(ids, key=ids.__getitem__)
        special = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(tokens)
        writer.add_token_types([TokenType.CONTROL if token in special else TokenType.NORMAL for token in tokens])
        writer.add_token_merges(_merges(self.tokenizer))
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")

    def _tensor(self, writer: GGUFWriter, name: str, values: np.ndarray) -> None:
        kind = self.matrices if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(name, quantize(values, kind), raw_dtype=kind)


def _their_names(weights: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    renames = {
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    found: list[tuple[str, np.ndarray]] = []
    for name, values in weights.items():
        theirs = name.replace("model.embed_tokens", "token_embd").replace("model.norm", "output_norm")
        theirs = theirs.replace("model.layers.", "blk.")
        for ours, short in renames.items():
            theirs = theirs.replace(ours, short)
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(theirs.split(".")[-2])
        found.append((theirs, permuted(values, heads) if heads else values))
    return found


def _merges(tokenizer: Tokenizer) -> list[str]:
    import json

    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return [" ".join(merge) for merge in model["merges"]]
