"""Every kind of error has a status and a type; the document describes every one that the routes can answer."""

import inspect

import pytest

from dockyard import errors
from dockyard.errors import DockyardError, Invalid, NotFound, Problem, Reason
from dockyard.gateway.openai_errors import BY_KIND, BY_REASON, body_of, rendering
from dockyard.gateway.openapi import openapi_fragment

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DockyardError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_line_in_the_table(kind: type[DockyardError]) -> None:
    assert kind.kind in BY_KIND
    assert rendering(kind()) == BY_KIND[kind.kind]


def test_the_shape() -> None:
    problems = (Problem("a is wrong", Reason.OUT_OF_RANGE, "a"), Problem("b is missing", Reason.MISSING_FIELD, "b"))
    told = body_of(Invalid(problems=problems)).error
    assert (told.message, told.type, told.param, told.code) == (
        "a is wrong; b is missing",
        "invalid_request_error",
        "a",
        "OUT_OF_RANGE",
    )
    assert body_of(NotFound(reason=Reason.MODEL_NOT_SERVED)).error.code == "model_not_found"


def test_the_document_names_every_route_and_status() -> None:
    document = openapi_fragment()
    assert set(document["paths"]) == {
        "/v1/chat/completions",
        "/v2/chat/completions",
        "/v1/completions",
        "/v1/models",
        "/v1/models/{model}",
    }
    statuses = {kind.status for name, kind in BY_KIND.items() if name != "conflict"}
    statuses |= {kind.status for reason, kind in BY_REASON.items() if reason is not Reason.METHOD_NOT_ALLOWED}
    for path in ("/v1/chat/completions", "/v2/chat/completions", "/v1/completions"):
        answers = document["paths"][path]["post"]["responses"]
        assert set(answers) == {"200", *map(str, statuses)}
        assert all("example" in answer["content"]["application/json"] for answer in answers.values())


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openapi_fragment()

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            here = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return here + [found for value in node.values() for found in references(value)]
        return [found for value in node for found in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def test_values_that_are_equal_in_python_and_not_in_json_stay_apart() -> None:
    fields = openapi_fragment()["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["echo"]["enum"] == [None, False]
    assert fields["echo"]["enum"][1] is False
    assert fields["presence_penalty"]["enum"][1] is not False
