"""An executor that needs no other process, and parts so small that a small scene has far ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from terrain3d.pipeline import blocks, canopy_check, canopy_ground
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.batch.worker import Outcome, Task, perform


class Here:
    """Performs tasks in this process, one after the other."""

    def run(self, tasks: Iterator[Task], stop: Callable[[], bool]) -> Iterator[Outcome]:
        for task in tasks:
            yield perform(task)
            if stop():
                return

    def where(self) -> str:
        return "here"

    def workers(self) -> int:
        return 1

    def close(self) -> None:
        pass


@pytest.fixture
def here() -> Executor:
    return Here()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks and windows of 128 cells, at a metre of pixel some hundred metres."""
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 128)
    for module in (canopy_ground, canopy_check):
        monkeypatch.setattr(module, "WINDOW_CELLS", 16)
        monkeypatch.setattr(module, "WINDOW_MARGIN", 64.0)
