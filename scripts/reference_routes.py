"""The page of the routes, from the OpenAPI document that the server itself gives."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from prometheus_client import CollectorRegistry

from dockyard.api.app import build_app
from dockyard.clock import SystemClock
from dockyard.services.context import Context

Json = dict[str, Any]
DEEPEST = 3  # how many objects within objects a table shows


def routes_page() -> tuple[str, str]:
    document = _document()
    schemas = document["components"]["schemas"]
    parts = [document["info"]["description"], "\n\nThe whole document is at `/openapi.json`, to read at `/docs`.\n"]
    for tag, operations in _by_tag(document).items():
        parts.append(f"\n## {tag}\n")
        parts += [_operation(method, path, operation, schemas) for method, path, operation in operations]
    return "Routes", "\n".join(parts)


def _document() -> Json:
    """The document needs no running server: of the context only the clock is looked at."""
    context = cast(Context, SimpleNamespace(clock=SystemClock()))
    return build_app(context, ready=lambda: True, metrics=CollectorRegistry()).openapi()


def _by_tag(document: Json) -> dict[str, list[tuple[str, str, Json]]]:
    tags: dict[str, list[tuple[str, str, Json]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation.get("tags", ["Other"])[0], []).append((method.upper(), path, operation))
    return tags


def _operation(method: str, path: str, operation: Json, schemas: Json) -> str:
    parts = [f"### {operation.get('summary', path)}\n\n`{method} {path}`\n\n{operation.get('description', '')}\n"]
    rows = [
        [
            p["name"],
            f"{p['in']}{', required' if p.get('required') else ''}",
            _kind(p["schema"]),
            p.get("description", ""),
        ]
        for p in operation.get("parameters", ())
        if p["in"] != "header"
    ]
    if rows:
        parts.append(_table(["parameter", "in", "type", ""], rows))
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        parts.append(_table(["body", "", "type", ""], list(_fields(body, schemas))))
    for status, reply in operation["responses"].items():
        schema = reply.get("content", {}).get("application/json", {}).get("schema")
        if status.startswith("2") and schema:
            for one in schema.get("anyOf", [schema]):
                fields = [[name, kind, text] for name, _, kind, text in _fields(one, schemas)]
                if fields:
                    parts.append(_table([f"reply {status}", "type", ""], fields))
    failing = [status for status in operation["responses"] if not status.startswith("2")]
    parts.append(f"Errors: {', '.join(failing)}.\n" if failing else "")
    return "\n".join(parts)


def _fields(schema: Json, schemas: Json, prefix: str = "", depth: int = 0) -> Iterator[list[str]]:
    """A row per field: dotted name, whether it is required, type with its bounds, description."""
    schema = _resolved(schema, schemas)
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        inner, many = _inner(field, schemas)
        row_name = f"{prefix}{name}{'[]' if many else ''}"
        described = field.get("description") or (_resolved(field, schemas).get("description", "") if not inner else "")
        yield [row_name, "required" if name in required else "", _kind(field, schemas), described.split("\n")[0]]
        if inner and depth < DEEPEST:
            yield from _fields(inner, schemas, f"{row_name}.", depth + 1)


def _inner(field: Json, schemas: Json) -> tuple[Json | None, bool]:
    """The object that a field holds, if it holds one, and whether it holds a list of them."""
    for option in (field, *field.get("anyOf", ())):
        resolved = _resolved(option, schemas)
        if "properties" in resolved:
            return resolved, False
        items = _resolved(resolved.get("items") or {}, schemas)
        if "properties" in items:
            return items, True
    return None, False


def _kind(field: Json, schemas: Json | None = None) -> str:
    """`integer 1–256`, `"openSource" or "fineTune"`, `array of string`, `string or null` …"""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(option, schemas) for option in field["anyOf"]))
    field = _resolved(field, schemas or {})
    if "enum" in field:
        # The reasons are a page of their own.
        return (
            "reason"
            if len(field["enum"]) > 20
            else " or ".join(f"`{value}`" if value else '`""`' for value in field["enum"])
        )
    if "const" in field:
        return f"`{field['const']}`".replace("True", "true")
    if field.get("type") == "array":
        return f"array of {_kind(field.get('items') or {}, schemas)}"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f" {low:g}–{high:g}" if low is not None and high is not None else ""
    return str(field.get("type", "any")) + bounds


def _resolved(schema: Json, schemas: Json) -> Json:
    while "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name not in schemas:
            return {"type": "object"}
        schema = schemas[name]
    return schema


def _table(head: list[str], rows: list[list[str]]) -> str:
    quoted = [[f"`{row[0]}`", *row[1:]] for row in rows]
    lines = [head, ["---"] * len(head), *quoted]
    escaped = ("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines)
    return "\n".join(escaped) + "\n"
