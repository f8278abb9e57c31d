"""How the process keeps its memory, seen in one of its own."""

import subprocess
import sys

PROGRAM = """
import ctypes, threading
from dockyard.process_memory import give_back_freed, use_one_heap
{setup}
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
there = threading.Barrier(4)
def work():
    libc.malloc(2000)
    there.wait()
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
there.wait()
for thread in threads: thread.join()
give_back_freed()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def heaps_after(setup: str) -> int:
    command = [sys.executable, "-c", PROGRAM.format(setup=setup)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap nr=")


def test_all_threads_share_one_heap() -> None:
    assert heaps_after("") > 1  # or the other line would prove nothing
    assert heaps_after("use_one_heap()") == 1


CYCLES = """
import gc, weakref
from dockyard.process_memory import collect, set_aside

class Knot:
    def __init__(self): self.me = self

def survives():
    knot = weakref.ref(Knot())
    collect()
    return knot() is not None

gc.disable()
print(survives())
set_aside()
gc.disable()
print(survives())
"""


def test_a_server_that_still_starts_is_not_walked_through() -> None:
    command = [sys.executable, "-c", CYCLES]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["True", "False"]
