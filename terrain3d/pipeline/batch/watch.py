"""How far a batch is: share of its work, time left, and a log that is on disk while it works."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from terrain3d.pipeline.batch.manifest import Manifest
from terrain3d.pipeline.progress import Recorder, Reporter

# Share of a batch's work by stage, of each time that it comes, measured on 3 km2 (tools/bench_batch.py 1724); what is
# not named takes hardly any.
SHARES = {
    "tie points and adjustment": 0.12, "coarse surface": 0.03, "matching": 0.29, "surface model": 0.08,
    "registration to lidar": 0.03, "voids": 0.08, "ortho image": 0.03, "super-resolved ortho": 0.1, "water": 0.03,
    "terrain model": 0.17, "tiles": 0.12,
}  # fmt: skip
FIRST = "tie points and adjustment"
PRIOR = 0.05  # of all work, that the plan's estimate of the pace counts as much as
EVERY_S = 1.0  # between two states that are kept
PROGRESS = "progress"


@dataclass(frozen=True)
class Progress:
    """stage: what is worked on, ``done`` of ``total`` items of it. share: of all work, known from before included.
    left_s: seconds until the end at the pace of now. since, at: when the batch was started, and when this was so;
    ended: whether it has left off; finished: with nothing left to be tried."""

    stage: str
    done: int
    total: int
    share: float
    left_s: float
    since: str
    at: str
    ended: bool = False
    finished: bool = False


class Watch(Recorder):
    """Recorder of a batch. What is known from before passes at once, so the pace is that of what is done now; until
    there is enough of it the plan's estimate stands in."""

    def __init__(self, inner: Reporter, log: Path, manifest: Manifest) -> None:
        self._log, self._manifest, self._thread = log, manifest, threading.get_ident()
        self._since, self._told = _now(), 0.0
        self._pace = 0.0  # seconds for all of the work, as planned
        self._worked: Callable[[], int] = lambda: 0
        self._stage, self._total, self._done, self._new = "", 1, 0, 0
        self._passed = self._passed_new = 0.0  # shares of the stages that are over: all of them, and what was new
        self._spent = 0.0  # seconds in which something new was done
        self._last, self._seen = time.perf_counter(), 0
        super().__init__(inner)

    def expect(self, core_s: float, workers: int) -> None:
        """What the plan says: seconds of one core, for so many workers."""
        self._pace = core_s / max(workers, 1)

    def follow(self, worked: Callable[[], int]) -> None:
        """Count as new what this number of pieces of work grows by."""
        self._worked, self._seen = worked, worked()

    def stage(self, name: str, steps: int = 1) -> None:
        self._end_stage()
        if name == FIRST:  # a turn that leaves something out begins anew
            self._passed = self._passed_new = self._spent = 0.0
        self._stage, self._total, self._done, self._new = name, max(steps, 1), 0, 0
        self._keep()  # first, so that the line of the stage before tells what is left after it
        super().stage(name, steps)

    def step(self) -> None:
        super().step()
        self._done = min(self._done + 1, self._total)
        if threading.get_ident() != self._thread:  # the manifest belongs to the thread that opened it
            return
        self._note_new()
        if time.perf_counter() - self._told > EVERY_S:
            self._keep()

    def end(self, *, finished: bool) -> None:
        """The batch leaves off, finished or not."""
        self.close()
        self._keep(ended=True, finished=finished)

    def _note_new(self) -> None:
        now, worked = time.perf_counter(), self._worked()
        if worked > self._seen:
            self._new = min(self._new + worked - self._seen, self._total)
            self._spent += now - self._last
        self._last, self._seen = now, worked

    def _end_stage(self) -> None:
        self._note_new()
        share = SHARES.get(self._stage, 0.0)
        self._passed += share
        self._passed_new += share * self._new / self._total

    def _keep(self, *, ended: bool = False, finished: bool = False) -> None:
        weight = SHARES.get(self._stage, 0.0)
        share = min(self._passed + weight * self._done / self._total, 0.99)
        new = self._passed_new + weight * self._new / self._total
        pace = (PRIOR * self._pace + self._spent) / (PRIOR + new)
        progress = Progress(
            self._stage, self._done, self._total, share, pace * (1 - share), self._since, _now(), ended, finished
        )
        self._told = time.perf_counter()
        self._manifest.note(PROGRESS, asdict(progress))
        if not ended and self._pace:
            self._inner.overall(share, progress.left_s)

    def _write(self, text: str) -> None:
        super()._write(text)
        with suppress(OSError), self._log.open("a", encoding="utf-8") as file:  # on a full disk the work says so
            file.write(self.log[-1] + "\n")


def progress_of(manifest: Manifest) -> Progress | None:
    """How far a batch was when it last said so; None before its first word."""
    found = manifest.noted(PROGRESS)
    return None if found is None else Progress(**found)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
