"""Which process the kernel takes first, seen in processes of the test's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from dockyard.oom_score import GOES_FIRST_BY

# A process that starts makes another one, as engines do, and a third in a session of its own, as for a shared engine,
# which says of itself that it starts; then the first serves.
PROGRAM = """
import subprocess, sys
from pathlib import Path
from dockyard.oom_score import go_first, go_with_others
def of(pid): return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
apart = "from dockyard.oom_score import *; from pathlib import Path; go_first(); print(1, flush=True); input(); "
apart += "go_with_others(); print(Path('/proc/self/oom_score_adj').read_text(), flush=True)"
pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
go_with_others()
before = of("self")
go_first()
with subprocess.Popen(["cat"], **pipe) as child, \
        subprocess.Popen([sys.executable, "-c", apart], start_new_session=True, **pipe) as other:
    other.stdout.readline()
    print(before, of("self"), of(child.pid), of(other.pid))
    go_with_others()
    go_with_others()
    print(of("self"), of(child.pid), of(other.pid))
    other.stdin.write("\\n"); other.stdin.flush()
    print(int(other.stdout.readline()))
    child.stdin.close()
"""


def scores(setup: str = "", *, group: bool = True) -> list[list[int]]:
    command = [sys.executable, "-c", setup + PROGRAM]
    told = subprocess.run(command, capture_output=True, text=True, check=True, start_new_session=group).stdout
    return [[int(word) for word in line.split()] for line in told.splitlines()]


def raised(score: int) -> int:
    return min(1000, score + GOES_FIRST_BY)


def test_what_starts_goes_first_and_what_serves_goes_with_others() -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    starting, serving, apart = scores()
    assert starting == [own, raised(own), raised(own), raised(own)]
    assert serving == [own, own, raised(own)]  # the one apart has not said yet that it serves
    assert apart == [own]


@pytest.mark.parametrize("inherited", [600, 1000])
def test_it_never_goes_past_the_highest_nor_below_what_was_inherited(inherited: int) -> None:
    """Set in that process: whatever a system's own keeper gives to the server."""
    setup = f"import pathlib; pathlib.Path('/proc/self/oom_score_adj').write_text('{inherited}')"
    starting, serving, apart = scores(setup)
    assert starting == [inherited, 1000, 1000, 1000]
    assert serving[:2] == [inherited, inherited]
    assert apart == [inherited]


def test_others_in_a_group_that_is_not_its_own_are_left_alone() -> None:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    starting, serving, _ = scores(group=False)
    assert starting[2] == raised(own)
    assert serving == [own, raised(own), raised(own)]


def test_where_the_kernel_does_not_let_us_nothing_happens() -> None:
    setup = "import dockyard.oom_score as o, pathlib; o._file = lambda pid: pathlib.Path('/nowhere')\n"
    program = setup + "o.go_first(); o.go_with_others()"
    subprocess.run([sys.executable, "-c", program], check=True)
