import re

import pytest

from dockyard.worker.log import log


def test_a_line_is_an_instant_a_level_an_event_and_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    log("ERROR", "failed", reason="OUT_OF_MEMORY", message='no "room"\nleft', empty="")
    line = capsys.readouterr().err
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ERROR failed ", line)
    assert line.endswith('reason=OUT_OF_MEMORY message="no \\"room\\"\\nleft" empty=""\n')
