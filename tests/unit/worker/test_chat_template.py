import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dockyard.errors import Invalid
from dockyard.worker.chat_template import ChatTemplate, find_chat_template
from dockyard.worker.tool_calls_formats import HERMES

CHATML = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 2, 5, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def render(source: str, messages: list[dict[str, object]] | None = None) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}, FixedClock()).render(messages or list(HELLO))


def test_chatml() -> None:
    assert render(CHATML) == "<s><|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ {'a': '<é>'} | tojson }}", '{"a": "<é>"}'),
        ("{{ strftime_now('%d %b %Y') }}", "05 Feb 2026"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}kept{% endgeneration %}", "kept"),
        ("{% if tools is none %}no tools{% endif %}", "no tools"),
        ("  {% if true %}\nleft\n  {% endif %}\n", "left\n"),
    ],
)
def test_what_templates_expect(source: str, text: str) -> None:
    assert render(source) == text


def test_the_templates_own_refusal_is_the_clients_error() -> None:
    with pytest.raises(Invalid, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.field == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 1 / 0 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ messages[0].content * 10000000 }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    with pytest.raises(Invalid):
        render(source)


def test_text_parts_become_one_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "ab<|im_end|>" in render(CHATML, [{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    "config",
    [
        {"chat_template": "{{ bos_token }}hi", "bos_token": {"content": "<s>"}},
        {"chat_template": [{"name": "default", "template": "{{ bos_token }}hi"}], "bos_token": "<s>"},
    ],
)
def test_the_template_of_the_tokenizer_config(tmp_path: Path, config: dict[str, object]) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    template = find_chat_template(tmp_path, FixedClock())
    assert template is not None
    assert template.render(HELLO) == "<s>hi"


def test_a_file_of_its_own_goes_first(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "config"}')
    (tmp_path / "chat_template.jinja").write_text("file")
    template = find_chat_template(tmp_path, FixedClock())
    assert template is not None
    assert template.render(HELLO) == "file"


def test_a_folder_without_one(tmp_path: Path) -> None:
    assert find_chat_template(tmp_path, FixedClock()) is None


LONG = "{% if messages[0]['content'] == 'slow' %}BODY{% endif %}{{ messages[0]['content'] }}"
ENDLESS = (
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "{% for a in [[[]]] recursive %}{{ loop([a, a, a]) if loop.depth < 40 }}{% endfor %}",
)


@pytest.mark.parametrize("body", ENDLESS)
def test_a_template_that_loops_on_certain_messages_only_is_stopped(body: str) -> None:
    template = ChatTemplate(LONG.replace("BODY", body), {}, FixedClock())
    assert template.render(HELLO) == "hello"
    with pytest.raises(Invalid, match="turns of its loops"):
        template.render([{"role": "user", "content": "slow"}])
    assert template.render(HELLO) == "hello"


@pytest.mark.parametrize(
    "hostile",
    [
        "{{ '%999999999d' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '%999999999d'|format(1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=999999999) }}",
        "{{ 'a'.center(999999999) }}",
        "{{ 'a'|center(999999999) }}",
        "{{ 'a\n'|indent(999999999) }}",
        "{{ '{n:{w}}'.format_map({'n': 1, 'w': 999999999}) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    ],
)
def test_texts_without_end_are_refused(hostile: str) -> None:
    with pytest.raises(Invalid, match="refused"):
        render(hostile)


def test_what_is_usual_passes() -> None:
    usual = (
        "{{ '%5.1f|%s' % (1.5, 'a') }}{{ 1 + 2 }}{{ 'a' ~ 7 ~ 'b' }}{{ 'x'.ljust(3) }}{{ 20260205 % 7 }}",
        "{{ '%s'|format('99999%') }}{{ '{}'.format(123456) }}{{ messages[0]['content'] ~ ' 100000 %' }}",
    )
    assert [render(text) for text in usual] == ["  1.5|a3a7bx  0", "99999%123456hello 100000 %"]


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("{{ messages[0].content }}", False),
        ("{% set tools = none %}", False),
        ("{% if tools %}{% endif %}", True),
        ("{% if not tools is defined %}{% set tools = none %}{% endif %}", True),
        ("{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}", True),
    ],
)
def test_whether_a_template_has_a_place_for_tools(source: str, reads: bool) -> None:
    template = ChatTemplate(source, {}, FixedClock())
    assert (template.reads_tools, template.tool_format) == (reads, None)


def test_tools_reach_the_template() -> None:
    template = ChatTemplate("{{ tools | tojson }}{# <tool_call></tool_call> #}", {}, FixedClock())
    assert json.loads(template.render(HELLO, [TOOL])) == [TOOL]
    assert template.tool_format is HERMES


def test_some_models_have_a_template_of_their_own_for_tools(tmp_path: Path) -> None:
    templates = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ 'with' if tools else 'after' }} tools"},
    ]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    template = find_chat_template(tmp_path, FixedClock())
    assert template is not None
    assert template.reads_tools
    assert template.render(HELLO) == "plain"
    assert template.render(HELLO, [TOOL]) == "with tools"
    assert template.render([{"role": "tool", "content": "x"}]) == "after tools"
