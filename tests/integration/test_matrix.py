"""Each cell of the matrix that says yes is proven: a tiny random model of the architecture generates on the engine."""

import json
from pathlib import Path

import pytest
from tests.integration.gguf_models import NAMES as GGUF
from tests.integration.matrix_configs import CONFIGS, VARIATIONS
from tests.integration.matrix_models import NEW_TOKENS, PROMPTS, cells

from dockyard.domain.card import Family
from dockyard.domain.compatibility import ARCHITECTURES
from dockyard.domain.spec import EngineName, Quantization
from dockyard.prepare.gguf_kinds import KINDS

CELLS = [(name, engine, quantization) for name, _, engine, quantization in cells()]
COMPARED = [
    name
    for name, engine, quantization in CELLS
    if (engine, quantization) == (EngineName.CTRANSLATE2, Quantization.NONE)
]


def family_of(name: str) -> Family:
    return ARCHITECTURES[VARIATIONS[name][0] if name in VARIATIONS else name].family


Seen = dict[str, dict[str, list[list[int]] | str]]


@pytest.fixture(scope="module")
def seen(matrix_models: Path) -> Seen:
    return json.loads((matrix_models / "seen.json").read_text())


def test_every_architecture_of_the_matrix_is_tried() -> None:
    assert set(CONFIGS) == set(ARCHITECTURES) - {"EchoForCausalLM"}
    assert {architecture for architecture, _ in VARIATIONS.values()} <= set(CONFIGS)


@pytest.mark.parametrize(("name", "engine", "quantization"), CELLS)
def test_a_cell_that_says_yes_generates(seen: Seen, name: str, engine: EngineName, quantization: Quantization) -> None:
    told = seen[name][f"{engine} {quantization}"]
    assert isinstance(told, list), told
    assert [len(ids) for ids in told] == [NEW_TOKENS] * len(PROMPTS)


@pytest.mark.parametrize("name", [*CONFIGS, *VARIATIONS])
def test_a_batch_continues_as_each_prompt_does_alone(seen: Seen, name: str) -> None:
    assert seen[name][f"transformers {Quantization.NONE}"] == seen[name]["alone"]


@pytest.mark.parametrize("name", [name for name in (*CONFIGS, *VARIATIONS) if family_of(name) is Family.DECODER])
def test_a_row_that_joins_a_running_batch_continues_as_it_does_alone(seen: Seen, name: str) -> None:
    assert seen[name]["joined"] == 2 * seen[name]["alone"]


@pytest.mark.parametrize("name", COMPARED)
def test_ctranslate2_continues_as_transformers_does(seen: Seen, name: str) -> None:
    compared = seen[name]
    assert compared[f"ctranslate2 {Quantization.NONE}"] == compared[f"transformers {Quantization.NONE}"]


@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_file_continues_as_the_model_that_it_was_made_from(seen: Seen, name: str) -> None:
    assert seen[name]["gguf"] == seen[name][f"transformers {Quantization.NONE}"]


def test_every_kind_of_gguf_file_is_tried() -> None:
    assert set(GGUF.values()) == set(KINDS)
