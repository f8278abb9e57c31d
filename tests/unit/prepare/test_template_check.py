"""Chat templates at import: which are refused before a replica loads them, and which are let in."""

import json
from pathlib import Path

import pytest

from dockyard.errors import Failed, Reason
from dockyard.prepare.template_check import check_chat_templates

HOSTILE = {
    "{{ x": "line 1: ",
    "{% for m in messages %}": "line 1: ",
    "{{ messages | from_a_plugin }}": "No filter named 'from_a_plugin'",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "'__class__'",
    "{{ cycler.__init__.__globals__.os.system('id') }}": "'__init__'",
    "{{ messages.append({}) }}": "'append'",
    "{{ self.__init__.__globals__ }}": "'__init__'",
    "{% for i in range(10 ** 9) %}{% endfor %}": "Range too big",
    "{{ 9 ** 9 ** 9 }}": "power",
    "{{ 'a' * 10000000000 }}": "1000000 characters",
    "{{ [0] * 10000000 }}": "1000000 characters",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "recursion",
}


@pytest.mark.parametrize(("source", "told"), HOSTILE.items())
def test_a_hostile_or_broken_template_is_refused(source: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(Failed) as refusal:
        check_chat_templates(tmp_path)
    assert refusal.value.reason is Reason.CHAT_TEMPLATE_REFUSED
    assert told in refusal.value.message
    assert "chat_template.jinja" in refusal.value.message


_BIG = "{% set a = 'a' * 1000000 %}"  # which is let in; what follows would multiply it


@pytest.mark.parametrize(
    "source",
    [
        "{{ a | replace('a', a) }}",
        "{{ a.replace('a', a) }}",
        "{{ a.replace('', a) | length }}",
        "{{ (['x'] * 100) | join(a) }}",
        "{{ a.join(['x'] * 100) }}",
        "{{ ([a] * 100) | join }}",
        "{{ ''.join([a] * 100) | length }}",
        "{{ ([a] * 100) | string | length }}",
        "{{ ([a] * 100) | tojson | length }}",
        "{{ ([a] * 100) ~ '' }}",
        "{{ [a] * 100 }}",
        "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{{ a.translate({97: a}) }}",
        "{{ '%s%s' * 20 % ((a,) * 40) }}",
        "{{ ('{0}' * 100).format(a) }}",
        "{{ ('%(x)s' * 100) | format(x=a) }}",
        "{{ [1] | slice(1000000000) | list | length }}",
        "{{ [1] | batch(1000000000, 'x') | list | length }}",
        "{{ ('x\n' * 1000) | indent(a) }}",
        "{{ ('x ' * 1000) | wordwrap(1, wrapstring=a) }}",
        "{{ ([['x'] * 1000000] * 1000) | sum(start=[]) | length }}",
        "{% for i in range(100) %}{{ a }}{% endfor %}",
        "{% macro m() %}{% for i in range(100) %}{{ a }}{% endfor %}{% endmacro %}{{ m() | length }}",
        "{% set ns = namespace(x=a) %}{% for i in range(60) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}"
        "{% set ns.x = y %}{% endfor %}",
    ],
)
def test_nothing_multiplies_a_text_without_bound(source: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(_BIG + source)
    with pytest.raises(Failed, match=r"are refused; mend|sum adds numbers only; mend"):
        check_chat_templates(tmp_path)


@pytest.mark.parametrize("named", [False, True])
def test_those_of_the_configuration_are_tried_too(named: bool, tmp_path: Path) -> None:
    source = "{{ ''.__class__.__mro__ }}"
    told = [{"name": "default", "template": "hi"}, {"name": "tools", "template": source}, 7] if named else source
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": told}))
    with pytest.raises(Failed, match="tools" if named else "tokenizer_config.json"):
        check_chat_templates(tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}{{ bos_token }}",
        "{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message is needed') }}{% endif %}",
        "{{ tools | tojson(indent=2) }}{{ 1 / 0 }}",
        "{{ '-' * 80 }}{{ 2 ** 10 }}{{ strftime_now('%Y') }}{% generation %}x{% endgeneration %}",
        "{{ 'a,b'.split(',') | join(' | ') }}{{ ', '.join(['a', 'b']) }}{{ 'aXb' | replace('X', ', ') }}",
        "{{ 'aXb'.replace('X', '') }}{{ [[1, 2], [3]] | sum(attribute='0') }}{{ messages[0] | items | list }}",
        "{{ messages | tojson }}{{ 'x'.join(messages | map(attribute='role')) }}{{ [1, 2] | batch(2) | list }}",
        "{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{% endfor %}{{ documents[0].title }}",
    ],
)
def test_what_real_templates_do_is_let_in(source: str, tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text(source)
    check_chat_templates(tmp_path)


def test_a_template_of_megabytes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x" * (2 << 20))
    with pytest.raises(Failed, match="bytes"):
        check_chat_templates(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x" * (2 << 20)}))
    with pytest.raises(Failed, match="characters"):
        check_chat_templates(tmp_path)


def test_no_template_is_no_fault(tmp_path: Path) -> None:
    check_chat_templates(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": null}')
    check_chat_templates(tmp_path)
