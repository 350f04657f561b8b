"""An executor that needs no other process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
