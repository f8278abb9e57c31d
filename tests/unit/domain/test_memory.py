"""What a replica needs, by part: whose cache is how large, and what stands beside the weights."""

from dataclasses import replace

from tests.unit.domain.cards import FALCON, LARGE, MISTRAL, SMALL, T5

from dockyard.domain.card import ModelCard
from dockyard.domain.devices import GIB, MIB
from dockyard.domain.memory import cache_bytes_of_a_row, memory_need
from dockyard.domain.spec import EngineName

T, C, V = EngineName.TRANSFORMERS, EngineName.CTRANSLATE2, EngineName.VLLM


def test_transformers_keeps_as_many_heads_as_the_model_has_and_ctranslate2_one_for_each_that_asks() -> None:
    one = SMALL.kv_bytes_per_token * 1000
    assert cache_bytes_of_a_row(SMALL, T, "float16", 1000) == one
    assert cache_bytes_of_a_row(SMALL, T, "float32", 1000) == 2 * one
    assert cache_bytes_of_a_row(SMALL, C, "int8_float16", 1000) == 3 * one
    assert cache_bytes_of_a_row(FALCON, C, "float16", 1000) == 71 * FALCON.kv_bytes_per_token * 1000


def test_a_window_bounds_the_cache_where_the_engine_has_it() -> None:
    bounded = cache_bytes_of_a_row(MISTRAL, T, "float16", 32_768)
    assert bounded == cache_bytes_of_a_row(MISTRAL, T, "float16", 4096) == MISTRAL.kv_bytes_per_token * 4096
    assert cache_bytes_of_a_row(MISTRAL, V, "bfloat16", 32_768) == 8 * bounded


def test_a_window_in_every_other_layer_bounds_half_of_the_cache() -> None:
    assert MISTRAL.dimensions is not None
    half = replace(MISTRAL, dimensions=replace(MISTRAL.dimensions, window_layers=16))
    expected = MISTRAL.kv_bytes_per_token * (32_768 + 4096) // 2
    assert cache_bytes_of_a_row(half, T, "float16", 32_768) == expected


def test_an_encoder_decoder_keeps_the_prompt_too() -> None:
    assert cache_bytes_of_a_row(T5, T, "float16", 512) == 2 * T5.kv_bytes_per_token * 512


def test_gpus_share_weights_and_cache_and_each_has_the_engine() -> None:
    alone = memory_need(LARGE, V, "bfloat16", "cuda", 10, 4096)
    shared = memory_need(LARGE, V, "bfloat16", "cuda", 10, 4096, gpus=4)
    assert (shared.weights_bytes, shared.cache_bytes) == (alone.weights_bytes, alone.cache_bytes)
    assert shared.overhead_bytes == 4 * alone.overhead_bytes
    assert shared.bytes_each == -(-shared.total_bytes // 4) < alone.total_bytes


def test_a_single_head_of_keys_and_values_is_on_every_gpu() -> None:
    alone = memory_need(FALCON, V, "bfloat16", "cuda", 10, 2048)
    assert memory_need(FALCON, V, "bfloat16", "cuda", 10, 2048, gpus=4).cache_bytes == 4 * alone.cache_bytes


def test_on_a_cpu_the_reserve_has_room_in_the_cache() -> None:
    need = memory_need(SMALL, T, "float32", "cpu", 8, 1024)
    assert need.cache_bytes == (8 + 2) * 2 * SMALL.kv_bytes_per_token * 1024


def test_scores_are_in_memory_where_attention_is_not_fused() -> None:
    scores = 4 * 10 * 9 * 4096 * 4096
    assert memory_need(SMALL, C, "float32", "cpu", 10, 4096).work_bytes > scores
    assert memory_need(SMALL, T, "float32", "cpu", 10, 4096).work_bytes < scores


def test_transformers_reads_prompts_of_decoders_in_pieces_however_many_there_are() -> None:
    def beside_the_cache(card: ModelCard, batch: int) -> int:
        need = memory_need(card, T, "bfloat16", "cuda", batch, 8192)
        return need.work_bytes - batch * cache_bytes_of_a_row(card, T, "bfloat16", 64)

    # What one row of a batch has in one layer: 32 heads of keys and values repeated for attention, and 8 being copied.
    row = 2 * 2 * 8192 * 128 * (32 + 8)
    logits = 2 * 4 * LARGE.vocab_size
    assert beside_the_cache(LARGE, 10) - beside_the_cache(LARGE, 5) == 5 * (row + logits)
    assert beside_the_cache(LARGE, 10) < 3 * GIB
    # All of a piece's scores for all of the context, where attention is not fused.
    eager = replace(LARGE, architecture="BloomForCausalLM")
    scores = 4 * 2 * 32 * 2048 * 8192
    assert beside_the_cache(eager, 10) - beside_the_cache(LARGE, 10) == scores


def test_an_encoder_decoder_of_transformers_computes_a_batch_of_prompts_at_once() -> None:
    one, ten = (memory_need(T5, T, "float16", "cuda", batch, 512).work_bytes for batch in (1, 10))
    assert ten == 10 * one


def test_loading_may_take_more_than_a_batch() -> None:
    need = memory_need(SMALL, T, "float32", "cpu", 1, 8)
    assert need.weights_bytes + need.cache_bytes + need.work_bytes >= 4 * SMALL.parameters + SMALL.weights_bytes


def test_what_was_measured_is_within_fifteen_percent() -> None:
    """Peaks in MiB, of docs/concepts/devices-and-fit.md: full batches of 10 × 1024 tokens on a CPU."""
    for engine, compute, peak in (
        (T, "float32", 2152),
        (C, "float32", 3704),
        (C, "int8_float32", 2773),
    ):
        assert abs(memory_need(SMALL, engine, compute, "cpu", 10, 1024).total_bytes / MIB / peak - 1) < 0.15


def test_a_card_of_an_earlier_release_has_a_need_too() -> None:
    old = replace(SMALL, dimensions=None)
    for engine, compute in ((T, "float32"), (C, "int8_float32"), (V, "bfloat16")):
        assert 0 < memory_need(old, engine, compute, "cpu", 10, 1024).total_bytes < 8 * GIB


def test_a_model_without_weights_needs_its_process_only() -> None:
    echo = ModelCard(
        architecture="EchoForCausalLM",
        model_type="echo",
        family=SMALL.family,
        parameters=0,
        weights_bytes=0,
        dtype="none",
        context_length=4096,
        vocab_size=257,
        layers=0,
        kv_bytes_per_token=0,
    )
    assert memory_need(echo, EngineName.ECHO, "none", "cpu", 64, 4096).total_bytes < 64 * MIB
    assert memory_need(echo, EngineName.ECHO, "none", "cuda", 64, 4096).total_bytes < MIB
