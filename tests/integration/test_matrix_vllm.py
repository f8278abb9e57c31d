"""Each yes of the matrix for vLLM, on its build for CPUs: a tiny random model of each architecture."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.integration import vllm_generations
from tests.integration.matrix_models import NEW_TOKENS, PROMPTS
from tests.integration.vllm_models import ADAPTED, NAMES, make_for_vllm
from tests.once import made_once
from tests.vllm_environment import ENVIRONMENTS, needs_vllm

from dockyard.fleets.local.spawn import environment

pytestmark = [needs_vllm, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Architecture → what `vllm` and `transformers` continue the prompts with."""
    models = made_once(tmp_path_factory, "for-vllm", make_for_vllm)
    own = ENVIRONMENTS.command_of("vllm")
    assert own is not None
    told = subprocess.run(
        [str(own[0]), vllm_generations.__file__, str(models), json.dumps(PROMPTS), str(NEW_TOKENS)],
        env={**environment(1, os.environ), **own[1]},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    vllm: dict[str, Any] = {}
    for line in told.stdout.splitlines():
        if line.startswith('{"'):  # the library prints, too
            vllm |= json.loads(line)
    alone = json.loads(Path(models, "seen.json").read_text())
    return {name: {"vllm": vllm.get(name), "transformers": alone[name]} for name in (*NAMES, *ADAPTED)}


@pytest.mark.parametrize("name", NAMES)
def test_it_continues_as_transformers_does(seen: dict[str, dict[str, Any]], name: str) -> None:
    assert seen[name]["vllm"] == seen[name]["transformers"]


@pytest.mark.parametrize("name", ADAPTED)
def test_an_adapter_beside_its_base_continues_as_merged(seen: dict[str, dict[str, Any]], name: str) -> None:
    assert seen[name]["vllm"] == seen[name]["transformers"]
    assert seen[name]["vllm"] != seen[name.removesuffix("+adapter")]["vllm"]
