"""How much memory a process may take."""

from __future__ import annotations

import subprocess
import sys

import pytest

# in a process of its own: this one may hold large pieces that are free again, which count as taken
PROGRAM = """
import multiprocessing as mp
import numpy as np
from terrain3d.pipeline.memory import held_data, limit_memory
MB = 2**20

def fits(megabytes):
    try:
        return np.empty(megabytes * MB, dtype=np.uint8).size > 0
    except MemoryError:
        return False

def worker():
    limit_memory(300 * MB)
    print(fits(100), fits(500), flush=True)

of_program = np.empty(1000 * MB, dtype=np.uint8)  # reserved only: costs nothing
assert held_data() > of_program.nbytes
process = mp.get_context("fork").Process(target=worker)
process.start()
process.join()
"""


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")


def test_limit__below_one_that_the_system_set() -> None:
    code = """
import resource
from terrain3d.pipeline.memory import limit_memory
resource.setrlimit(resource.RLIMIT_DATA, (2**33, 2**33))
limit_memory(2**34)
print(*resource.getrlimit(resource.RLIMIT_DATA))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(2**33)] * 2


def test_limit__counts_what_a_copy_takes_and_not_what_its_program_held() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
