"""Every cell of the matrix at POST: what says yes passes, what says no is refused with what would work instead."""

import re
from dataclasses import dataclass, replace
from itertools import product

import httpx
import pytest
from tests.integration.api_rig import CARD, ApiRig, message, problems

from dockyard.domain.compatibility import ARCHITECTURES, QUANTIZATIONS
from dockyard.domain.spec import EngineName, Quantization

OPTIMIZATIONS = {
    "": EngineName.TRANSFORMERS,
    "ctranslate2": EngineName.CTRANSLATE2,
    "vllm": EngineName.VLLM,
}
FIELD = "optimizationInfo.optimizationType"


async def ask(rig: ApiRig, model_id: str, optimization: str, quantization: Quantization, query: str) -> httpx.Response:
    info = {"optimizationType": optimization, "quantizationType": str(quantization)}
    return await rig.deploy(model_id, f"modelType=openSource{query}", optimizationInfo=info, isDeployedPreviously=False)


@pytest.mark.parametrize("vllm", [False, True], ids=["without vllm", "with vllm"])
@pytest.mark.parametrize(("optimization", "quantization"), list(product(OPTIMIZATIONS, Quantization)))
async def test_each_cell_says_yes_or_is_refused(
    rig: ApiRig, optimization: str, quantization: Quantization, vllm: bool
) -> None:
    """A refusal says why, and each way out that it names is one: it is tried."""
    engine = OPTIMIZATIONS[optimization]
    rig.preparer.absent = frozenset() if vllm else frozenset({"vllm"})
    for name, known in ARCHITECTURES.items():
        if name == "EchoForCausalLM":
            continue
        card = replace(CARD, architecture=name, family=known.family)
        model_id = (await rig.ready_model(card=card)).model_id
        plan = await ask(rig, model_id, optimization, quantization, "&dryRun=true")
        if quantization not in QUANTIZATIONS[engine]:
            expected = [("optimizationInfo.quantizationType", "QUANTIZATION_NOT_SUPPORTED")]
        elif engine not in known.engines:
            expected = [(FIELD, "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE")]
        elif engine is EngineName.VLLM and not vllm:
            expected = [(FIELD, "ENGINE_NOT_INSTALLED")]
        else:
            assert plan.status_code == 200, (name, plan.text)
            assert plan.json()["engine"] == engine, name
            continue
        reply = await ask(rig, model_id, optimization, quantization, "")
        assert [(r.status_code, problems(r)) for r in (plan, reply)] == [(400, expected)] * 2, name
        if quantization not in QUANTIZATIONS[engine]:
            assert "quantizationType int8_float16 needs optimizationType ctranslate2, on a model" in message(reply)
            continue
        ways = ways_out(message(reply))
        others = [other for other in known.engines if other is not engine]
        assert {OPTIMIZATIONS[way.optimization] for way in ways} == set(others), message(reply)
        for way in ways:
            await check_way_out(rig, model_id, way, quantization)


@dataclass(frozen=True)
class WayOut:
    optimization: str
    unquantized: bool  # only with quantizationType no_quantization
    installing: str | None  # the command that brings the engine


def ways_out(told: str) -> list[WayOut]:
    _, _, listed = told.partition("optimizationType that can: ")
    form = r"'(\w*)'( with quantizationType 'no_quantization')?(?: after `([^`]+)` on the server)?"
    return [WayOut(way[1], bool(way[2]), way[3]) for way in re.finditer(form, listed)]


async def check_way_out(rig: ApiRig, model_id: str, way: WayOut, quantization: Quantization) -> None:
    chosen = Quantization.NONE if way.unquantized else quantization
    if way.installing:
        assert way.installing == "dockyard engines install vllm"
        absent, rig.preparer.absent = rig.preparer.absent, frozenset()
        assert (await ask(rig, model_id, way.optimization, chosen, "&dryRun=true")).status_code == 200
        rig.preparer.absent = absent
    works = (await ask(rig, model_id, way.optimization, chosen, "&dryRun=true")).status_code == 200
    assert works is (way.installing is None)


async def test_a_model_that_is_an_exception_of_its_architecture_is_refused_on_that_engine(rig: ApiRig) -> None:
    card = replace(CARD, ctranslate2_cannot="config.json has attention_bias = True")
    model = await rig.ready_model(card=card)
    reply = await ask(rig, model.model_id, "ctranslate2", Quantization.NONE, "")
    assert problems(reply) == [(FIELD, "ENGINE_DOES_NOT_SUPPORT_ARCHITECTURE")]
    assert message(reply) == (
        "ctranslate2 runs LlamaForCausalLM, but not this model: config.json has attention_bias = True; "
        "optimizationType that can: '', 'vllm' after `dockyard engines install vllm` on the server"
    )
    assert (await ask(rig, model.model_id, "", Quantization.NONE, "")).status_code == 200


async def test_a_context_that_the_engine_cannot_serve_is_cut_and_said_so(rig: ApiRig) -> None:
    model = await rig.ready_model(card=replace(CARD, plain_context=100))
    plan = (await ask(rig, model.model_id, "ctranslate2", Quantization.NONE, "&dryRun=true")).json()
    assert plan["memory"]["contextLength"] == 100
    assert plan["warnings"] == [
        "ctranslate2 serves a context of 100 tokens instead of the model's 256: past them it would not compute what "
        "the model was trained for; optimizationType '' serves all"
    ]
    plan = (await ask(rig, model.model_id, "", Quantization.NONE, "&dryRun=true")).json()
    assert (plan["memory"]["contextLength"], plan["warnings"]) == (256, [])
