"""/docs: the OpenAPI document as one page of HTML, without scripts and without anything from the network."""

import json
from collections.abc import Iterator
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
}

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{ info.title }} {{ info.version }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
  code, pre, summary { font-family: ui-monospace, monospace; font-size: 13px }
  pre { background: #f5f6f8; padding: .7rem; overflow: auto }
  details { border-top: 1px solid #d7dbe0; padding: .4rem 0 }
  summary { cursor: pointer }
  summary b { display: inline-block; width: 4.5rem }
  table { border-collapse: collapse; width: 100% }
  td, th { text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; border-top: 1px solid #eceef1 }
</style>
<h1>{{ info.title }} {{ info.version }}</h1>
{{ info.description | prose }}
{% macro fields(rows) %}
<table>
  {% for row in rows %}
  <tr><td><code>{{ row.name }}</code>{% if row.required %} *{% endif %}
    <td>{{ kind(row.schema) }}<td>{{ row.text | inline }}
  {% endfor %}
</table>
{% endmacro %}
{% macro kind(schema) %}
{%- for part in parts(schema) -%}
{%- if part.link %}<a href="#schema-{{ part.text }}">{{ part.text }}</a>{% else %}{{ part.text }}{% endif -%}
{%- endfor -%}
{% endmacro %}
{% for tag, operations in sections %}
<h2>{{ tag }}</h2>
{% for operation in operations %}
<details id="{{ operation.operationId }}">
  <summary><b>{{ operation.method }}</b> {{ operation.path }} — {{ operation.summary }}</summary>
  {{ operation.description | prose }}
  {% if operation.parameters %}<h4>Parameters</h4>{{ fields(operation.parameters) }}{% endif %}
  {% for type, content in operation.body %}
  <h4>Body, {{ type }}: {{ kind(content.schema) }}</h4>
  {% for name, example in content.examples %}<p>{{ name }}</p><pre>{{ example }}</pre>{% endfor %}
  {% endfor %}
  <h4>Replies</h4>
  <table>
    {% for status, text, schemas in operation.replies %}
    <tr><td>{{ status }}<td>{{ text | inline }}<td>{% for schema in schemas %}{{ kind(schema) }} {% endfor %}
    {% endfor %}
  </table>
</details>
{% endfor %}
{% endfor %}
<h2>Shapes</h2>
{% for name, schema, rows in shapes %}
<details id="schema-{{ name }}" open>
  <summary>{{ name }}</summary>
  {{ (schema.description or "") | prose }}
  {% if rows %}{{ fields(rows) }}{% else %}{{ kind(schema) }}{% endif %}
</details>
{% endfor %}
</html>
"""


def page(document: dict[str, Any]) -> str:
    """The page. The document's prose is Markdown without HTML; whatever else it holds is escaped."""
    from markdown_it import MarkdownIt  # only this page needs it, not the start of the server

    markdown = MarkdownIt("commonmark", {"html": False})
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["prose"] = lambda text: Markup(markdown.render(text))
    environment.filters["inline"] = lambda text: Markup(markdown.renderInline(text))
    return environment.from_string(_PAGE, globals={"parts": _parts}).render(
        info=document["info"], sections=_sections(document), shapes=_shapes(document)
    )


def _sections(document: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Operations by tag, in the order of the document."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            sections.setdefault(operation["tags"][0], []).append(_operation(path, method, operation))
    return list(sections.items())


def _operation(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {})
    return {
        **operation,
        "path": path,
        "method": method.upper(),
        "description": operation.get("description", ""),
        "parameters": [_parameter(parameter) for parameter in operation.get("parameters", ())],
        "body": [(kind, {**content, "examples": list(_examples(content))}) for kind, content in body.items()],
        "replies": [
            (status, reply["description"], [content["schema"] for content in reply.get("content", {}).values()])
            for status, reply in operation["responses"].items()
        ],
    }


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": parameter["name"],
        "required": parameter.get("required", False),
        "schema": parameter["schema"],
        "text": f"in {parameter['in']}. {parameter.get('description', '')}",
    }


def _examples(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "example" in content:
        yield "Example", json.dumps(content["example"], indent=2, ensure_ascii=False)
    for name, example in content.get("examples", {}).items():
        yield example.get("summary", name), json.dumps(example["value"], indent=2, ensure_ascii=False)


def _shapes(document: dict[str, Any]) -> list[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    return [
        (
            name,
            schema,
            [
                {
                    "name": field,
                    "required": field in schema.get("required", ()),
                    "schema": described,
                    "text": described.get("description", ""),
                }
                for field, described in schema.get("properties", {}).items()
            ],
        )
        for name, schema in sorted(document["components"]["schemas"].items())
    ]


def _parts(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema in words, in pieces: text, or the name of a shape to link to."""
    if "$ref" in schema:
        return [{"text": schema["$ref"].rsplit("/", 1)[-1], "link": True}]
    for join in ("anyOf", "oneOf", "allOf"):
        if join in schema:
            first, *others = [_parts(option) for option in schema[join]]
            return [*first, *(part for other in others for part in ({"text": " or "}, *other))]
    if schema.get("type") == "array":
        return [{"text": "array of "}, *_parts(schema.get("items", {}))]
    return [{"text": _words(schema)}]


def _words(schema: dict[str, Any]) -> str:
    """`integer, 1 to 100`; `string, one of "" "vllm"`."""
    words = [str(schema.get("type", "anything"))]
    if "minimum" in schema and "maximum" in schema:
        words.append(f"{schema['minimum']:g} to {schema['maximum']:g}")
    if "maxLength" in schema:
        words.append(f"{schema.get('minLength', 0)} to {schema['maxLength']} characters")
    if "enum" in schema:
        words.append("one of " + " ".join(json.dumps(choice) for choice in schema["enum"]))
    if "const" in schema:
        words.append(json.dumps(schema["const"]))
    return ", ".join(words)
