"""Whatever an adapter's files say, they are refused with a reason that can be told, or merged; nothing else happens."""

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.errors import Failed, Reason
from dockyard.prepare.adapter_config import LoraConfig, read_lora_config
from dockyard.prepare.adapter_plan import BaseTensors, LowRank, plan_merge
from dockyard.prepare.safetensors_header import TensorEntry

REASONS = {Reason.ADAPTER_UNREADABLE, Reason.ADAPTER_NOT_SUPPORTED, Reason.ADAPTER_DOES_NOT_FIT}
SOUND: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
TEXTS = st.text(max_size=8) | st.sampled_from(["q", "a.q", "^a.q", "\ud800", "LORA", "pissa"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda nested: st.lists(nested, max_size=3) | st.dictionaries(TEXTS, nested, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    [*SOUND, "rank_pattern", "alpha_pattern", "use_dora", "use_rslora", "init_lora_weights", "base_model_name_or_path"]
)
NAMES = st.sampled_from(
    [
        f"{outer}{module}.{end}"
        for outer in ("base_model.model.", "")
        for module in ("a.q", "q", "lm_head", "\ud800")
        for end in (
            "lora_A.weight",
            "lora_B.weight",
            "lora_embedding_A",
            "lora_embedding_B",
            "bias",
            "weight",
            "lora_x",
        )
    ]
)
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 10**9]), max_size=3).map(tuple)


def tensor(name: str, shape: tuple[int, ...], dtype: str = "F32") -> TensorEntry:
    return TensorEntry(name, dtype, shape, 0, math.prod(shape) * 4)


BASE = BaseTensors(
    architecture="LlamaForCausalLM",
    tensors={name: tensor(name, (3, 3)) for name in ("a.q.weight", "q.weight", "a.q.bias")},
    tied=True,
)


def told(failed: Failed) -> None:
    assert failed.reason in REASONS
    assert failed.message.encode()  # what cannot be encoded cannot be told


@given(st.dictionaries(FIELDS, VALUES, max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_config(fields: dict[str, Any]) -> None:
    try:
        config = read_lora_config(SOUND | fields)
    except Failed as failed:
        told(failed)
    else:
        assert isinstance(config, LoraConfig)
        assert config.rank_of("a.q") > 0
        assert math.isfinite(config.scale_of("a.q"))


@given(st.dictionaries(NAMES, st.tuples(SHAPES, st.sampled_from(["F32", "BF16", "I8"])), max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_tensors(tensors: dict[str, tuple[tuple[int, ...], str]]) -> None:
    entries = [tensor(name, shape, dtype) for name, (shape, dtype) in tensors.items()]
    try:
        plan = plan_merge(read_lora_config(SOUND), entries, BASE)
    except Failed as failed:
        told(failed)
        return
    for name, change in plan.items():
        target = BASE.tensors[name].shape
        if isinstance(change, LowRank):
            left, right = change.left.shape, change.right.shape
            assert (
                *(left[1:] if change.transposed else left[:1]),
                *(right[:1] if change.transposed else right[1:]),
            ) == target
        else:
            assert change.by.shape == target
