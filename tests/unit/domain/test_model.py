"""Which files an engine loads of a model, and of an adapter with its base."""

from dataclasses import replace
from datetime import UTC, datetime

from tests.unit.domain.cards import FALCON, SMALL

from dockyard.domain.adapter import AdapterCard, apart_key, merged_key
from dockyard.domain.card import ModelCard
from dockyard.domain.model import Model
from dockyard.domain.pruning import named_keys
from dockyard.domain.spec import EngineName, ModelType

ADAPTER = AdapterCard(base_key="base", rank=8, parameters=10, modules=("q_proj",), plain=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def model(card: ModelCard) -> Model:
    return Model(
        model_id="cm-1",
        name="m",
        model_type=ModelType.FINE_TUNE,
        source={},
        created_at=NOW,
        modified_at=NOW,
        artifact_key="own",
        card=card,
    )


def test_a_model_is_its_own_files_on_every_engine() -> None:
    plain = model(SMALL)
    assert {plain.weights_for(engine) for engine in EngineName} == {"own"}
    assert plain.apart_key is None


def test_an_adapter_is_merged_but_for_vllm_where_that_can_add_it() -> None:
    tuned = model(replace(SMALL, adapter=ADAPTER))
    merged, apart = merged_key("base", "own"), apart_key("base", "own")
    assert tuned.weights_for(EngineName.VLLM) == apart != merged
    assert tuned.weights_for(EngineName.CTRANSLATE2) == tuned.weights_for(EngineName.TRANSFORMERS) == merged
    assert named_keys([tuned]) == {"own", "base", merged, apart}


def test_an_adapter_that_vllm_cannot_add_is_merged_for_it_too() -> None:
    scaled = model(replace(SMALL, adapter=replace(ADAPTER, plain=False)))
    other = model(replace(FALCON, adapter=ADAPTER))
    large = model(replace(SMALL, adapter=replace(ADAPTER, rank=513)))
    for tuned in (scaled, other, large):
        assert tuned.weights_for(EngineName.VLLM) == merged_key("base", "own")
        assert tuned.apart_key is None
