"""What adapters cost beside their base's weights, where an engine adds them while it computes."""

from dataclasses import replace

import pytest
from tests.unit.domain.cards import LARGE, SMALL

from dockyard.domain.adapter import AdapterCard
from dockyard.domain.adapter_slots import VLLM_SLOTS, VLLM_TOKENS_AT_ONCE, bytes_of_slots, rank_of_slot
from dockyard.domain.compatibility import takes_adapters
from dockyard.domain.memory import memory_need
from dockyard.domain.spec import EngineName

T, V = EngineName.TRANSFORMERS, EngineName.VLLM
ADAPTER = AdapterCard(base_key="base", rank=8, parameters=1_000_000, modules=("q_proj", "v_proj"), plain=True)
# (inputs, outputs) of a layer's matrices: queries, keys, values, output, gate, up, down.
SMALLS = [(576, 576), (576, 192), (576, 192), (576, 576), (576, 1536), (576, 1536), (1536, 576)]


@pytest.mark.parametrize(("rank", "room"), [(1, 16), (16, 16), (17, 32), (512, 512)])
def test_a_slot_is_as_large_as_the_largest_of_its_step(rank: int, room: int) -> None:
    assert rank_of_slot(rank) == room


def test_a_slot_has_a_pair_for_every_matrix_of_every_layer() -> None:
    assert SMALL.dimensions is not None
    pairs = sum(16 * (inputs + outputs) for inputs, outputs in SMALLS)
    assert bytes_of_slots(SMALL.dimensions, 30, 8, 4) == VLLM_SLOTS * 30 * pairs * 4


def test_gpus_share_one_side_of_each_pair() -> None:
    """Llama 3.1 8B on four: each has all inputs of queries, keys, values, gate and up, all outputs of the others."""
    assert LARGE.dimensions is not None
    column = sum(16 * (4 * inputs + outputs) for inputs, outputs in [(4096, 4096), *[(4096, 1024)] * 2])
    column += 2 * 16 * (4 * 4096 + 14336)
    row = 16 * (4096 + 4 * 4096) + 16 * (14336 + 4 * 4096)
    assert bytes_of_slots(LARGE.dimensions, 32, 16, 2, gpus=4) == VLLM_SLOTS * 32 * (column + row) * 2


def test_what_a_fine_tune_needs_beside_its_base_on_a_cpu() -> None:
    base = memory_need(SMALL, V, "float32", "cpu", 10, 1024)
    tuned = memory_need(replace(SMALL, adapter=ADAPTER), V, "float32", "cpu", 10, 1024)
    assert SMALL.dimensions is not None
    slots = bytes_of_slots(SMALL.dimensions, 30, 8, 4)
    assert tuned.weights_bytes - base.weights_bytes == slots + 4 * ADAPTER.parameters
    assert tuned.work_bytes - base.work_bytes == VLLM_TOKENS_AT_ONCE * 16 * 1536 * 4
    assert (tuned.cache_bytes, tuned.overhead_bytes) == (base.cache_bytes, base.overhead_bytes)


def test_on_gpus_the_adapter_itself_is_the_hosts() -> None:
    base = memory_need(LARGE, V, "bfloat16", "cuda", 10, 4096)
    tuned = memory_need(replace(LARGE, adapter=replace(ADAPTER, rank=64)), V, "bfloat16", "cuda", 10, 4096)
    assert LARGE.dimensions is not None
    assert tuned.total_bytes - base.total_bytes == bytes_of_slots(LARGE.dimensions, 32, 64, 2)


@pytest.mark.parametrize("change", [{"plain": False}, {"modules": ("project_in", "q_proj")}, {"rank": 513}])
def test_what_is_merged_costs_nothing_more(change: dict[str, object]) -> None:
    merged = replace(SMALL, adapter=replace(ADAPTER, **change))  # pyright: ignore[reportArgumentType]
    assert not takes_adapters(merged)
    assert memory_need(merged, V, "float32", "cpu", 10, 1024) == memory_need(SMALL, V, "float32", "cpu", 10, 1024)
    tuned = replace(SMALL, adapter=ADAPTER)
    assert memory_need(tuned, T, "float32", "cpu", 4, 64) == memory_need(SMALL, T, "float32", "cpu", 4, 64)
