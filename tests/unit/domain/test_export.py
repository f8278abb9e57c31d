"""Names of archives: what a model may be called, as a file on every system."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.domain.export import file_stem
from dockyard.domain.spec import NAME_PATTERN


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct"),
        ("Flan T5 (date)", "Flan-T5-date"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf", "rf"),
        ("…", "model"),
        ("org/model.v1", "org-model.v1"),
        ("x" * 100, "x" * 64),
    ],
)
def test_the_stem_of_a_name(name: str, stem: str) -> None:
    assert file_stem(name) == stem


@given(st.text())
def test_a_stem_is_a_safe_file_name_and_a_deployment_name(name: str) -> None:
    stem = file_stem(name)
    assert re.fullmatch(NAME_PATTERN, stem)
    assert file_stem(stem) == stem
