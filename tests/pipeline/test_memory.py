"""How much memory a process may take."""

from __future__ import annotations

import multiprocessing as mp
import sys

import numpy as np
import pytest

from terrain3d.pipeline.memory import held_data, limit_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
MB = 2**20


def _fits(megabytes: int) -> bool:
    try:
        return np.empty(megabytes * MB, dtype=np.uint8).size > 0
    except MemoryError:
        return False


def _worker(answer) -> None:
    limit_memory(300 * MB)
    answer.put((_fits(100), _fits(500)))


def test_limit__counts_what_a_copy_takes_and_not_what_its_program_held() -> None:
    of_program = np.empty(1000 * MB, dtype=np.uint8)  # reserved only: costs nothing
    assert held_data() > of_program.nbytes
    context = mp.get_context("fork")
    answer = context.SimpleQueue()
    process = context.Process(target=_worker, args=(answer,))
    process.start()
    process.join(300)
    assert process.exitcode == 0
    assert answer.get() == (True, False)
