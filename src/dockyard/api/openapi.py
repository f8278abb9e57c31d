"""The OpenAPI document: what FastAPI derives from the routes, with the statuses and scopes that it cannot know of."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from dockyard.api.route import Route
from dockyard.api.wire.errors import ErrorsOut
from dockyard.errors import Reason

ERRORS_REF = {"$ref": f"#/components/schemas/{ErrorsOut.__name__}"}
MEANING = {
    400: "A value of the request is wrong; every one that is has an entry.",
    401: "No key, or an unknown one.",
    403: "The key lacks the scope; of a download: the link was changed, or has expired.",
    404: "There is no such thing.",
    409: "At odds with the present state.",
    413: "The body is too large.",
    415: "The body is not of the content type that the route reads.",
    416: "The range begins where the file has ended.",
    429: "Too many; try again after `Retry-After` seconds.",
    500: "A fault of the server's own; the request id finds it in the log.",
    503: "Not now; try again after `Retry-After` seconds.",
}
DESCRIPTION = """
Turn a language model into a live, optimized inference endpoint with one call.

- **Key**: send `x-api-key: kg-<uuid>-<uuid>` with every call but the operational ones. What a key may do are the scopes
  of its API app; each route names the one it needs. 401: no key, or an unknown one; 403: it lacks the scope.
- **Errors** have one shape on every route, also where there is none (404) and for a method it does not know (405, with
  `Allow`): `{"errors": [{"msg", "code", "reason", "field"}]}`, all problems of a request at once. Act on `reason`.
- **Unknown fields** fail no request; the reply tells them in `warnings`. `null` for an optional field is the same as
  leaving it out. Types are strict: `"1"`, `true`, `1.0` and `1.5` are no integers.
- **Times** are ISO 8601, UTC, in milliseconds. **Ids** are opaque: a prefix for the kind, and a UUID.
- **Listings** show `limit` items (50) and lead on by `nextCursor`; `total` counts them all.
- **Bodies** are JSON in UTF-8, at most 1 MiB (413, 415); the chunk of an upload is a form of at most 1 GiB.
- Every reply carries `x-request-id`: your own, or one that was made. It finds the request in the log.
""".strip()


def build_document(app: FastAPI, endpoints: Iterable[tuple[str, Route]], fragment: dict[str, Any]) -> dict[str, Any]:
    """The whole document. `endpoints`: (path, route); `fragment`: the inference routes, made by the gateway."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="Deploy language models and serve them.",
        description=DESCRIPTION,
        routes=app.routes,
    )
    scopes = {(path, method.lower()): route for path, route in endpoints for method in cast(set[str], route.methods)}
    for path, method, operation in _operations(document):
        _complete(operation, scopes[path, method])
    for shape in document["components"]["schemas"].values():
        for field in shape.get("properties", {}).values():
            field.pop("title", None)  # pydantic's "Maxbatchsize" tells nothing
    for unused in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(unused, None)
    document["components"]["schemas"]["Reason"]["description"] = "\n".join(
        f"- `{reason.value}`: {reason.doc}" for reason in Reason
    )
    return _merged(document, fragment)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _complete(operation: dict[str, Any], route: Route) -> None:
    """Add the scope, the headers, and the errors that the route can reply with."""
    if route.access is not None:
        scope = "any key of an API app" if route.access.scope is None else f"*{route.access.scope.value}*"
        operation["description"] = f"{operation.get('description', '')}\n\nScope: {scope}.".strip()
    for parameter in operation.get("parameters", ()):
        parameter["schema"].pop("title", None)
    responses = operation["responses"]
    del_422 = responses.pop("422", None)
    for response in responses.values():
        response["headers"] = _headers()
    for status in _statuses(operation, bool(del_422)):
        responses[str(status)] = _error(status)
    operation["responses"] = dict(sorted(responses.items()))


def _statuses(operation: dict[str, Any], reads_parameters: bool) -> set[int]:
    """What can go wrong with an operation of this form, beside the statuses that the route declares itself."""
    declared = {int(status) for status in operation["responses"] if status.isdigit() and int(status) >= 400}
    places = {parameter["in"] for parameter in operation.get("parameters", ())}
    return {
        *declared,
        500,
        *((400,) if "query" in places or (reads_parameters and "requestBody" in operation) else ()),
        *((401, 403, 503) if "security" in operation else ()),
        *((404,) if "path" in places else ()),
        *((413, 415) if "requestBody" in operation else ()),
    }


def _error(status: int) -> dict[str, Any]:
    retry = {"retry-after": _header("integer", "Seconds to wait.")} if status in (429, 503) else {}
    return {
        "description": MEANING[status],
        "headers": {**_headers(), **retry},
        "content": {"application/json": {"schema": ERRORS_REF}},
    }


def _headers() -> dict[str, Any]:
    return {"x-request-id": _header("string", "The client's own, or one that was made; it is in the log line.")}


def _header(kind: str, description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


def _merged(document: dict[str, Any], fragment: dict[str, Any]) -> dict[str, Any]:
    """`document` with the gateway's paths and components. Two shapes of one name would be a fault of ours."""
    components = document["components"]
    twice = components["schemas"].keys() & fragment["components"]["schemas"].keys()
    if twice:
        raise ValueError(f"two shapes are called {', '.join(sorted(twice))}")
    return {
        **document,
        "paths": {**document["paths"], **fragment["paths"]},
        "components": {
            "schemas": {**components["schemas"], **fragment["components"]["schemas"]},
            "securitySchemes": {**fragment["components"]["securitySchemes"], **components["securitySchemes"]},
        },
    }
