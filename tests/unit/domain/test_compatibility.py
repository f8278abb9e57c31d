"""What an engine serves of a model that it runs."""

from dataclasses import replace

import pytest

from dockyard.domain.card import Family, ModelCard
from dockyard.domain.compatibility import ARCHITECTURES, card_on
from dockyard.domain.spec import EngineName
from dockyard.errors import Invalid, Reason

CARD = ModelCard(
    architecture="MistralForCausalLM",
    model_type="mistral",
    family=Family.DECODER,
    parameters=7_000_000_000,
    weights_bytes=14_000_000_000,
    dtype="bfloat16",
    context_length=32768,
    vocab_size=32000,
    layers=32,
    kv_bytes_per_token=131072,
    plain_context=4096,
)


def test_ctranslate2_serves_what_it_computes_right_and_says_what_serves_the_rest() -> None:
    served, [warning] = card_on(EngineName.CTRANSLATE2, CARD)
    assert served == replace(CARD, context_length=4096)
    assert "4096 tokens instead of the model's 32768" in warning
    assert "optimizationType ''" in warning
    assert card_on(EngineName.TRANSFORMERS, CARD) == (CARD, ())


@pytest.mark.parametrize("plain", [None, 32768, 40000])
def test_nothing_is_cut_where_nothing_changes(plain: int | None) -> None:
    card = replace(CARD, plain_context=plain)
    assert card_on(EngineName.CTRANSLATE2, card) == (card, ())


def test_a_model_beyond_the_engine_is_refused_there_only() -> None:
    card = replace(CARD, ctranslate2_cannot="its weights are quantized already")
    with pytest.raises(Invalid, match="quantized already; optimizationType that can: ''") as caught:
        card_on(EngineName.CTRANSLATE2, card)
    assert caught.value.reason is Reason.ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE
    assert card_on(EngineName.TRANSFORMERS, card) == (card, ())


def test_every_architecture_runs_without_optimization() -> None:
    for name, known in ARCHITECTURES.items():
        assert known.engines[0] is (EngineName.ECHO if name == "EchoForCausalLM" else EngineName.TRANSFORMERS)
