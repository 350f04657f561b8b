"""How a run tells what it does: stages, steps inside them, and lines worth keeping."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Receiver of progress. The command line shows and logs it; library users may pass ``Silent()``."""

    def stage(self, name: str, steps: int = 1) -> None:
        """A new stage of that many steps begins; the one before it is done."""

    def step(self) -> None:
        """One step of the stage is done."""

    def note(self, text: str) -> None:
        """A line for the log."""

    def warn(self, text: str) -> None:
        """A line that the user should see."""


class Silent:
    """Reporter that says nothing."""

    def stage(self, name: str, steps: int = 1) -> None:
        pass

    def step(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass


def stepped(items: Iterable[T], reporter: Reporter) -> Iterator[T]:
    """The items, with a step reported after each."""
    for item in items:
        yield item
        reporter.step()
