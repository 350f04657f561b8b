"""What a worker does: one item of one stage, from a small description to objects on disk."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from terrain3d.errors import OutputError
from terrain3d.io.objects import Desk, Objects, Piece, digest
from terrain3d.io.rasters import CACHE_BYTES
from terrain3d.pipeline.batch.parcel import pack_value, unpack_work
from terrain3d.pipeline.quality import peak_memory_mb

CLEAR_REFS = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Task:
    """Work on one item. work: file of the function, and its digest. item: packed. layers: pieces of the rasters that it
    may read. objects: folder of the objects. most_s: seconds after which its process ends, for it would never."""

    key: str
    stage: str
    place: str
    work: tuple[Path, str]
    item: bytes
    layers: Mapping[str, tuple[Piece, ...]]
    objects: Path
    most_s: float = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What came of a task. error: one line, None if all went well. fatal: nothing else can go well either."""

    key: str
    result: str | None = None
    pieces: tuple[tuple[str, Piece], ...] = ()
    arrays: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    error: str | None = None
    fatal: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0
    attempts: int = 1


@dataclass(frozen=True)
class Products:
    """Result of work that wrote files: name relative to the output folder, and SHA-256, of each; and what it found."""

    files: tuple[tuple[str, str], ...]
    found: Any = None


def perform(task: Task) -> Outcome:
    """Do a task. Never raises for what the work itself raises."""
    prepare()
    _forget_peak()
    wall, cpu = time.perf_counter(), time.thread_time()
    desk = Desk(Objects(task.objects), task.layers)
    files: tuple[tuple[str, str], ...] = ()
    name, error, fatal = None, None, False
    try:
        work, item = unpack_work(_read_work(*task.work), desk), unpack_work(task.item, desk)
        signal.setitimer(signal.ITIMER_REAL, task.most_s)
        result = work(item)
        if isinstance(result, Products):
            files = result.files
        if result is not None:
            name = desk.objects.put(pack_value(result, desk))
    except OutputError as problem:
        error, fatal = str(problem), True
    except MemoryError:
        error = "out of memory"
    except Exception as problem:  # a tile must not take the others with it
        error = " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    done = Outcome(task.key, name, tuple(desk.new), tuple(desk.arrays), files, error, fatal)
    return replace(done, wall_s=time.perf_counter() - wall, cpu_s=time.thread_time() - cpu, memory_mb=peak_memory_mb())


def _forget_peak() -> None:
    """Let the largest memory of this process be that of what comes now, where the system can (Linux)."""
    with suppress(OSError):
        CLEAR_REFS.write_text("5")


@lru_cache(maxsize=4)
def _read_work(path: Path, name: str) -> bytes:
    """The function of a stage, packed. Raises ValueError if it is not the one that was meant."""
    data = path.read_bytes()
    if digest(data) != name:
        raise ValueError(f"work in {path} is damaged")
    return data


@lru_cache(maxsize=1)
def prepare() -> None:
    """Once in a process: its threads are the engine's, and files take a fixed part of its memory."""
    import cv2
    import rasterio

    cv2.setNumThreads(1)
    rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES).__enter__()


def leave_with_driver() -> None:
    """End this process when its driver is gone, also where that was killed."""
    import multiprocessing as mp
    from multiprocessing.connection import wait

    parent = mp.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
