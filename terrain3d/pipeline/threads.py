"""Who does the work on many items: threads of this process, or whatever a caller brings along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from terrain3d.pipeline.progress import Reporter

T = TypeVar("T")
R = TypeVar("R")


class Engine(Protocol):
    """Does work elsewhere, such as in other processes, and may know results from before.

    The work then must depend on nothing but its item and what it captured, read rasters only over the item, and do
    nothing but write rasters, save arrays and return a result.
    """

    def each(self, work: Callable[[T], R], items: Sequence[T], reporter: Reporter | None = None) -> list[R]:
        """Results of the work on all items, in their order."""

    def once(self, work: Callable[..., R], *given: Any, threaded: bool = False) -> R:
        """Result of work that needs to see everything. threaded: it takes a number of ``threads``."""

    def hold(self, name: str, value: R, held: Callable[[R, R], R | None], *, begin: bool = True) -> R:
        """What was held under a name from before, as long as it holds; else the value. See ``hold``."""

    def mark(self, value: Any) -> str:
        """A digest of a value, files that it names included."""

    basis: str
    grown: bool

    def grow(self, basis: str, *, grown: bool) -> None:
        """What is learned from now on rests on a basis. grown: there is more than it, which must not change it."""

    def learned(self, name: str, value: R, joined: Callable[[R, R], R]) -> R:
        """What was learned before on the same basis, where there is more now; else the value. See ``learned``."""


Workers = int | Engine  # an int: threads


def for_each(work: Callable[[T], R], items: Sequence[T], workers: Workers, reporter: Reporter | None = None) -> list[R]:
    """Results of the work on all items, several at once, in their order."""
    if not isinstance(workers, int):
        return workers.each(work, items, reporter)

    def one(item: T) -> R:
        result = work(item)
        if reporter is not None:
            reporter.step()
        return result

    return list(in_threads(one, items, workers))


def once(work: Callable[..., R], workers: Workers, *given: Any, threaded: bool = False) -> R:
    """Result of work that needs to see everything, done here unless it is known from before. threaded: it takes a
    number of ``threads``, on which the result does not depend."""
    if isinstance(workers, int):
        return work(*given, **({"threads": workers} if threaded else {}))
    return workers.once(work, *given, threaded=threaded)


def hold(
    name: str, value: R, held: Callable[[R, R], R | None], workers: Workers, *, begin: bool = True
) -> R:  # fmt: skip
    """A value on which all work rests, or that of an earlier batch while it holds, so that little is done anew.

    held: gives what of the old and the new value is to be held; None where the old one holds no more. begin: whether
    the value may be the one that is held from now on.
    """
    return value if isinstance(workers, int) else workers.hold(name, value, held, begin=begin)


def learned(
    name: str, value: R, workers: Workers, joined: Callable[[R, R], R] = lambda old, new: old
) -> R:  # fmt: skip
    """What an area as a whole says of all its parts, such as the light of its images: it stays as it was where images
    came to those of before, so that what they do not touch stays, too. joined: the old and the new value."""
    return value if isinstance(workers, int) else workers.learned(name, value, joined)


def in_threads(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Results in the order of the items; the first error stops the rest."""
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()
