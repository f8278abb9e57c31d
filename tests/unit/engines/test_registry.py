import sys

import pytest

from dockyard.engines.registry import import_engine
from dockyard.errors import Failed, Reason


def test_an_engine_without_an_adapter_is_not_installed() -> None:
    with pytest.raises(Failed, match="ctranslate2, echo, transformers, vllm") as caught:
        import_engine("unheard-of")
    assert caught.value.reason is Reason.ENGINE_NOT_INSTALLED


def test_an_engine_with_an_environment_of_its_own_names_the_command_that_makes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(Failed, match="dockyard engines install vllm") as caught:
        import_engine("vllm")
    assert caught.value.reason is Reason.ENGINE_NOT_INSTALLED


def test_an_engine_whose_library_is_missing_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "dockyard.engines.ctranslate2", raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(Failed, match=r"pip install 'dockyard\[ctranslate2\]'") as caught:
        import_engine("ctranslate2")
    assert caught.value.reason is Reason.ENGINE_NOT_INSTALLED


def test_echo_is_there() -> None:
    assert callable(import_engine("echo"))
