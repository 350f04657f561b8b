"""How a run tells what it does: stages, steps inside them, and lines worth keeping."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


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

    def overall(self, share: float, left_s: float) -> None:
        """That share of all stages together is done, and the rest will take some ``left_s`` seconds."""


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

    def overall(self, share: float, left_s: float) -> None:
        pass


class Recorder:
    """Reporter that passes everything on and keeps what the results need: time by stage, warnings, and the log."""

    def __init__(self, inner: Reporter) -> None:
        self._inner = inner
        self._open: tuple[str, float, float] | None = None
        self.seconds: dict[str, tuple[float, float]] = {}
        self.warnings: list[str] = []
        self.log: list[str] = []

    def stage(self, name: str, steps: int = 1) -> None:
        self.close()
        self._open = (name, time.perf_counter(), time.process_time())
        self._write(f"begin {name}")
        self._inner.stage(name, steps)

    def close(self) -> None:
        """End the last stage."""
        if self._open is not None:
            name, wall, cpu = self._open
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            before = self.seconds.get(name, (0.0, 0.0))
            self.seconds[name] = (before[0] + wall, before[1] + cpu)
            self._write(f"end {name}: {wall:.2f} s, {cpu:.2f} CPU s")
        self._open = None

    def step(self) -> None:
        self._inner.step()

    def note(self, text: str) -> None:
        self._write(text)
        self._inner.note(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        self._write(f"warning: {text}")
        self._inner.warn(text)

    def overall(self, share: float, left_s: float) -> None:
        self._inner.overall(share, left_s)

    def _write(self, text: str) -> None:
        self.log.append(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {text}")


def time_left(seconds: float) -> str:
    """A time to come in words, no finer than it can be known."""
    minutes = seconds / 60
    if minutes < 1:
        return "under 1 min"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
