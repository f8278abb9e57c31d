"""From a name to the one model that is meant, where failed imports left others of that name."""

from typing import Any, cast

import pytest

from dockyard.cli.client import Client
from dockyard.cli.failures import BadUsage, CommandFailed
from dockyard.cli.lookup import get_model


class Listed:
    def __init__(self, *states: str) -> None:
        self.models = [{"modelId": f"cm-{n}", "name": "t5", "state": state} for n, state in enumerate(states)]

    def pages(self, *_: str, plural: str) -> dict[str, Any]:
        return {plural: self.models}


def found(*states: str, to_use: bool) -> str:
    return get_model(cast(Client, Listed(*states)), "t5", to_use=to_use)["modelId"]


def test_an_import_that_failed_is_in_nobodys_way() -> None:
    assert found("Import Failed", "Ready to Deploy", "Import Failed", to_use=True) == "cm-1"
    assert found("Import Failed", "Import Failed", to_use=True) == "cm-0"


def test_what_is_deleted_or_shown_must_be_named_for_sure() -> None:
    with pytest.raises(BadUsage, match="2 models are named 't5'"):
        found("Import Failed", "Ready to Deploy", to_use=False)


def test_two_that_could_be_meant_are_both_named() -> None:
    with pytest.raises(BadUsage, match=r"(?s)cm-0.*cm-1"):
        found("Ready to Deploy", "Importing", to_use=True)


def test_none_of_the_name() -> None:
    with pytest.raises(CommandFailed, match="there is no model named 't5'"):
        found(to_use=True)
