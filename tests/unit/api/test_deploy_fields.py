"""Every field of a deploy, alone and together: what is taken, what is refused, and in which words."""

import json

import pytest
from pydantic import ValidationError
from tests.unit.api.deploy_fields import CASES, MEGABYTE, Case, body_with

from dockyard.api.body import parse
from dockyard.api.problems import problems_of
from dockyard.api.wire.deploy import DeployIn
from dockyard.domain.spec import EngineName, ModelType, Quantization
from dockyard.errors import Problem


def read(text: str) -> DeployIn | tuple[Problem, ...]:
    """What a route makes of a body: the fields, or all its problems."""
    try:
        return DeployIn.model_validate(parse(text.encode()))
    except ValidationError as error:
        return problems_of([{**found, "loc": ("body", *found["loc"])} for found in error.errors()])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_field(case: Case) -> None:
    found = read(body_with(case))
    if case.reason is None:
        assert isinstance(found, DeployIn)
        return
    assert not isinstance(found, DeployIn)
    [problem] = found
    assert (problem.reason, problem.field) == (case.reason, case.at or case.field)
    assert problem.msg.startswith(str(problem.field))
    assert len(problem.msg) < 400


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("hyperParameters.temperature", "3", "must be between 0 and 2, got 3"),
        ("hyperParameters.temperature", "true", "must be a number, got true"),
        ("hyperParameters.temperature", "-Infinity", "must be a number, got -Infinity"),
        ("hyperParameters.topK", '"50"', 'must be an integer, got "50"'),
        ("hyperParameters.topK", "null", "must be an integer, got null"),
        ("hyperParameters.topK", MEGABYTE, f'must be an integer, got "{"x" * 80}…"'),
        ("hyperParameters.topK", "9" * 5000, f"must be between 1 and 100, got {'9' * 80}…"),
        ("hyperParameters.topK", "", "is required"),
        ("hyperParameters", "[1, 2]", "must be an object, got an array"),
        ("hyperParameters.stopSequence", '["x"' + ', "x"' * 16 + "]", "must have 0 to 16 items, got 17"),
        ("scalingParameters.minReplicas", "3", "must be at most maxReplicas, which is 2, got 3"),
        ("name", '""', "must be 1 to 64 characters long, got 0"),
        (
            "name",
            '"a/b"',
            "must be letters, digits, spaces, '.', '_' and '-', starting with a letter or digit, got \"a/b\"",
        ),
        ("optimizationInfo.optimizationType", '"x"', 'must be one of "", ctranslate2, vllm, got "x"'),
    ],
)
def test_the_words(field: str, value: str, sentence: str) -> None:
    found = read(body_with(Case(field, value)))
    assert not isinstance(found, DeployIn)
    assert [problem.msg for problem in found] == [f"{field} {sentence}"]


def test_all_problems_are_told_at_once() -> None:
    found = read(
        """{"name": "", "hyperParameters": {"temperature": NaN, "maxTokens": 513, "topK": "1", "stopSequence": [""]},
            "scalingParameters": {"maxBatchSize": 0, "minReplicas": 5, "maxReplicas": 3},
            "optimizationInfo": {"quantizationType": "int8_float16"}, "isDeployedPreviously": 1}"""
    )
    assert not isinstance(found, DeployIn)
    assert [problem.field for problem in found] == [
        "name",
        "hyperParameters.temperature",
        "hyperParameters.maxTokens",
        "hyperParameters.topP",
        "hyperParameters.topK",
        "hyperParameters.stopSequence[0]",
        "scalingParameters.maxBatchSize",
        "scalingParameters.minReplicas",
        "deviceType",
        "optimizationInfo.quantizationType",
        "isDeployedPreviously",
    ]


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", "true", "NaN"])
def test_a_body_that_is_no_object(text: str) -> None:
    found = read(text)
    assert not isinstance(found, DeployIn)
    [problem] = found
    assert problem.field is None
    assert problem.msg.startswith("the body must be an object, got ")


def test_the_defaults() -> None:
    required = {
        "name": "a",
        "hyperParameters": {"temperature": 0, "maxTokens": 0, "topP": 0, "topK": 1},
        "deviceType": "g4dn.metal",
    }
    body = read(json.dumps(required))
    assert isinstance(body, DeployIn)
    wish = body.wish(ModelType.FINE_TUNE, 1, ())
    scaling = wish.spec.scaling
    assert (scaling.max_batch_size, scaling.min_replicas, scaling.max_replicas) == (10, 1, 2)
    assert (scaling.scale_up_delay_ms, scaling.scale_down_delay_ms) == (30, 600)
    assert (wish.spec.optimization, wish.spec.quantization, wish.spec.hyper.stop) == (None, Quantization.NONE, ())
    assert wish.is_deployed_previously is None


@pytest.mark.parametrize(("least", "most"), [(1, 2), (2, 2), (3, 3), (10, 10)])
def test_max_replicas_is_by_default_the_larger_of_2_and_min_replicas(least: int, most: int) -> None:
    text = body_with(Case("scalingParameters", json.dumps({"minReplicas": least})))
    body = read(text)
    assert isinstance(body, DeployIn)
    assert body.wish(ModelType.OPEN_SOURCE, 1, ()).spec.scaling.max_replicas == most


def test_int8_float16_on_ctranslate2() -> None:
    info = {"optimizationType": "ctranslate2", "quantizationType": "int8_float16"}
    body = read(body_with(Case("optimizationInfo", json.dumps(info))))
    assert isinstance(body, DeployIn)
    spec = body.wish(ModelType.OPEN_SOURCE, 1, ()).spec
    assert (spec.optimization, spec.quantization) == (EngineName.CTRANSLATE2, Quantization.INT8_FLOAT16)
