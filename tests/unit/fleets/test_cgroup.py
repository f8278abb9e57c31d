"""The limits of a control group, read from folders laid out as the kernel does it in versions 1 and 2."""

from pathlib import Path

import pytest

from dockyard.fleets.local.cgroup import MemoryBound, cpu_quota, memory_bound, oom_kills

MIB = 1 << 20


class Tree:
    """`root` stands for /sys/fs/cgroup, `proc` for /proc."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "cgroup"
        self.proc = folder / "proc"

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root.parent / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_version_2_takes_the_tightest_limit_on_the_way_up(tree: Tree) -> None:
    tree.write(
        {
            "proc/self/cgroup": "0::/a/b\n",
            "cgroup/a/b/memory.max": "max\n",
            "cgroup/a/memory.max": f"{512 * MIB}\n",
            "cgroup/a/memory.current": f"{200 * MIB}\n",
            "cgroup/a/memory.stat": f"anon 1\ninactive_file {50 * MIB}\n",
            "cgroup/a/b/cpu.max": "150000 100000\n",
            "cgroup/a/cpu.max": "max 100000\n",
            "cgroup/a/b/memory.events": "low 0\noom 2\noom_kill 2\n",
        }
    )

    assert memory_bound(tree.root, tree.proc) == MemoryBound(512 * MIB, 362 * MIB)
    assert cpu_quota(tree.root, tree.proc) == 1.5
    assert oom_kills(tree.root, tree.proc) == 2


def test_version_1_has_a_folder_per_controller(tree: Tree) -> None:
    tree.write(
        {
            "proc/self/cgroup": "4:memory:/box\n2:cpu,cpuacct:/box\n0::/\n",
            "cgroup/memory/box/memory.limit_in_bytes": f"{256 * MIB}",
            "cgroup/memory/box/memory.usage_in_bytes": f"{100 * MIB}",
            "cgroup/memory/box/memory.stat": f"inactive_file 7\ntotal_inactive_file {20 * MIB}\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "cgroup/memory/box/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
            "cgroup/cpu/box/cpu.cfs_quota_us": "50000",
            "cgroup/cpu/box/cpu.cfs_period_us": "100000",
        }
    )

    assert memory_bound(tree.root, tree.proc) == MemoryBound(256 * MIB, 176 * MIB)
    assert cpu_quota(tree.root, tree.proc) == 0.5
    assert oom_kills(tree.root, tree.proc) == 1


def test_a_path_that_the_container_cannot_see_is_looked_for_at_its_root(tree: Tree) -> None:
    tree.write({"proc/self/cgroup": "0::/docker/1234\n", "cgroup/memory.max": "1000\n"})

    assert memory_bound(tree.root, tree.proc) == MemoryBound(1000, 1000)


def test_no_limit_and_no_control_group_bound_nothing(tree: Tree) -> None:
    assert memory_bound(tree.root, tree.proc) is None
    assert cpu_quota(tree.root, tree.proc) is None
    assert oom_kills(tree.root, tree.proc) == 0


def test_without_a_count_of_the_group_the_machine_counts(tree: Tree) -> None:
    tree.write({"proc/self/cgroup": "0::/\n", "proc/vmstat": "pgfault 9\noom_kill 4\n"})

    assert oom_kills(tree.root, tree.proc) == 4


def test_a_quota_of_minus_one_is_none(tree: Tree) -> None:
    tree.write(
        {
            "proc/self/cgroup": "2:cpu:/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1",
            "cgroup/cpu/cpu.cfs_period_us": "100000",
        }
    )

    assert cpu_quota(tree.root, tree.proc) is None
