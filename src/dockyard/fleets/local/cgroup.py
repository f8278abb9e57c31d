"""What the control group of this process allows and counts, versions 1 and 2. Reads files only; absent means no bound.

Files: https://docs.kernel.org/admin-guide/cgroup-v2.html and …/cgroup-v1/memory.html.
"""

from dataclasses import dataclass
from pathlib import Path

_CGROUP_ROOT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_UNBOUNDED = 1 << 60  # version 1 writes "no limit" as a number near 2**63


@dataclass(frozen=True, slots=True)
class MemoryBound:
    """The tightest limit above this process, in bytes, and what is left below it (page cache counts as free)."""

    limit_bytes: int
    available_bytes: int


def memory_bound(root: Path = _CGROUP_ROOT, proc: Path = _PROC) -> MemoryBound | None:
    """The memory limit with the least left below it; None where no limit applies."""
    bounds = [bound for folder in _folders("memory", root, proc) if (bound := _bound_of(folder)) is not None]
    if not bounds:
        return None
    return MemoryBound(min(b.limit_bytes for b in bounds), min(b.available_bytes for b in bounds))


def cpu_quota(root: Path = _CGROUP_ROOT, proc: Path = _PROC) -> float | None:
    """How many cores' worth of time the process may use; None where no quota applies."""
    quotas = [quota for folder in _folders("cpu", root, proc) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def oom_kills(root: Path = _CGROUP_ROOT, proc: Path = _PROC) -> int:
    """How many processes of this control group the kernel has killed for memory so far; else of the whole machine."""
    for folder in _folders("memory", root, proc):
        for name in ("memory.events", "memory.oom_control"):
            count = _named_number(folder / name, "oom_kill")
            if count is not None:
                return count
    return _named_number(proc / "vmstat", "oom_kill") or 0


def _folders(controller: str, root: Path, proc: Path) -> list[Path]:
    """The control group of this process and those above it, innermost first, as far as they can be seen from here."""
    path, mount = _membership(controller, root, proc)
    inner = mount / path.lstrip("/")
    return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount) and folder.is_dir()]


def _membership(controller: str, root: Path, proc: Path) -> tuple[str, Path]:
    """Lines read `4:memory:/path` (version 1, one mount per controller) or `0::/path` (version 2, one mount)."""
    unified = "/"
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path, root / controller
        if not controllers:
            unified = path
    return unified, root


def _bound_of(folder: Path) -> MemoryBound | None:
    limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
    if limit is None or limit > _UNBOUNDED:
        return None
    used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
    # Page cache that nobody used lately is dropped before anything is refused.
    stat = folder / "memory.stat"
    cache = _named_number(stat, "total_inactive_file") or _named_number(stat, "inactive_file") or 0
    return MemoryBound(limit, max(0, limit - max(0, used - cache)))


def _quota_of(folder: Path) -> float | None:
    both = _text(folder / "cpu.max").split()  # "150000 100000" or "max 100000"
    if len(both) == 2 and both[0].isdigit():
        return int(both[0]) / int(both[1])
    quota = _number(folder / "cpu.cfs_quota_us")  # -1: none
    period = _number(folder / "cpu.cfs_period_us")
    return quota / period if quota and period else None


def _number(file: Path) -> int | None:
    """The file's number; None where there is no file, or it says "max" or -1."""
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _named_number(file: Path, name: str) -> int | None:
    """The number after `name` in a file of lines `name number`."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
