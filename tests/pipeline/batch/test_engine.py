"""The engine: finished work is known, failures stay where they are, lost workers are replaced."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.errors import OutputError
from terrain3d.io.objects import Desk, DeskShelf, Objects
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline.batch import executors
from terrain3d.pipeline.batch.engine import BatchEngine, BlocksFailed
from terrain3d.pipeline.batch.executors import DaskWorkers, Executor, Processes
from terrain3d.pipeline.batch.keys import Keys
from terrain3d.pipeline.batch.manifest import Manifest, open_manifest
from terrain3d.pipeline.blocks import Block, aligned, cut
from terrain3d.raster import Grid

GRID = aligned(Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 1.0, 160, 160))
BLOCKS = cut(GRID, 8.0, 80)
START_S = 300.0  # for other processes to start, on a machine that is busy; as a rule two seconds


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with open_manifest(tmp_path / "manifest.sqlite") as found:
        yield found


def engine(folder: Path, manifest: Manifest, executor: Executor, most_s: float = 60.0) -> BatchEngine:
    desk = Desk(Objects(folder / "work" / "objects"))
    made = BatchEngine(desk, manifest, executor, Keys(), folder, most_s)
    made.desk = desk  # type: ignore[attr-defined]
    return made


def two_stages(made: BatchEngine, constant: float) -> tuple[list[float], StoredRaster]:
    """Rows times a constant, then the means of blocks, rounded."""
    shelf = DeskShelf(made.desk)  # type: ignore[attr-defined]
    first, second = (new_raster(shelf / n, GRID, np.float32) for n in "ab")

    def fill(block: Block) -> None:
        rows = np.arange(block.row, block.row + block.grid.height, dtype=np.float32)
        block.write(first, np.repeat(rows[:, None] * np.float32(constant), block.grid.width, axis=1))

    def smooth(block: Block) -> float:
        values = np.rint(block.read(first) / 100)
        block.write(second, values)
        return float(values[block.core].mean())

    made.each(fill, BLOCKS)
    return made.each(smooth, BLOCKS), second


def test_engine__knows_finished_work_and_cuts_off_early(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    first = engine(tmp_path, manifest, here)
    means, raster = two_stages(first, 1.0)
    assert first.done == 8 and raster.read(0, 0, *GRID.shape)[150, 3] == 2
    again = engine(tmp_path, manifest, here)
    assert two_stages(again, 1.0)[0] == means and again.done == 0
    # by so little that the rows are the same in single precision: the second stage is not done again
    other = engine(tmp_path, manifest, here)
    assert two_stages(other, 1.0 + 1e-12)[0] == means and other.done == 4
    far = engine(tmp_path, manifest, here)
    assert two_stages(far, 3.0)[0] != means and far.done == 8


def test_engine__holds_a_value_while_it_holds(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    def near(old: float, new: float) -> float | None:
        return old if abs(old - new) < 1 else None

    def held(value: float, *, begin: bool = True) -> float:
        return engine(tmp_path, manifest, here).hold("x", value, near, begin=begin)

    assert held(7.0, begin=False) == 7.0 and held(1.0) == 1.0  # what must not be held was not
    assert held(1.5) == 1.0 and held(1.9) == 1.0  # against the first, not the last
    assert held(5.0, begin=False) == 5.0 and held(1.5) == 1.0
    assert held(5.0) == 5.0 and held(4.5) == 5.0
    manifest.let_go()
    assert held(4.5) == 4.5


def test_engine__damaged_objects_are_made_anew(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    first = engine(tmp_path, manifest, here)
    means, raster = two_stages(first, 1.0)
    cells = raster.read(0, 0, *GRID.shape)
    names = {p.name for r in manifest.records() for _, p in r.pieces}
    for name in names:
        path = Objects(tmp_path / "work" / "objects").path(name)
        path.write_bytes(path.read_bytes()[:-1])
    again = engine(tmp_path, manifest, here)
    found, raster = two_stages(again, 1.0)
    assert found == means and again.done == 8 and (raster.read(0, 0, *GRID.shape) == cells).all()


def test_engine__a_failed_block_is_told_after_all_others_are_done(
    tmp_path: Path, manifest: Manifest, here: Executor
) -> None:
    made, done = engine(tmp_path, manifest, here), []

    def work(block: Block) -> int:
        if block.row > 0 and block.column == 0:
            raise ZeroDivisionError("a bad\nplace")
        return block.row

    with pytest.raises(BlocksFailed) as failed:
        done += made.each(work, BLOCKS)
    assert [(b.row > 0, b.column, e) for b, e in failed.value.failed] == [(True, 0, "ZeroDivisionError: a bad place")]
    assert sum(r.state == "done" for r in manifest.records()) == 3
    manifest.clear_problems()
    assert sum(1 for _ in manifest.records()) == 3


@dataclass(frozen=True)
class Item:
    """Something with a name and a place."""

    code: str
    bounds: tuple[float, float, float, float]


ITEMS = [Item(f"t{i}", (10.0 * i, 0.0, 10.0 * i + 10, 10.0)) for i in range(4)]


def test_engine__a_failed_tile_has_no_result_and_a_line(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    def work(item: Item) -> str:
        if item.code == "t2":
            raise ValueError("no")
        return item.code

    made = engine(tmp_path, manifest, here)
    assert made.each(work, ITEMS) == ["t0", "t1", None, "t3"]
    (problem,) = manifest.problems()
    assert (problem.place, problem.message, problem.bounds) == ("t2", "ValueError: no", ITEMS[2].bounds)
    assert engine(tmp_path, manifest, here).each(work, ITEMS) == ["t0", "t1", None, "t3"]  # not tried again unasked


def test_engine__a_full_disk_stops_all(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    def work(item: Item) -> str:
        if item.code == "t1":
            raise OutputError("cannot be written (No space left on device)", where="x")
        return item.code

    made = engine(tmp_path, manifest, here)
    with pytest.raises(OSError, match=r"^x: cannot be written \(No space left on device\)$"):
        made.each(work, ITEMS)
    assert [r.place for r in manifest.records()] == ["t0"]


def test_engine__once_is_kept(tmp_path: Path, manifest: Manifest, here: Executor) -> None:
    def work(cells: np.ndarray, factor: float) -> np.ndarray:
        return cells * factor

    made = engine(tmp_path, manifest, here)
    first = made.once(work, np.eye(3), 2.0)
    again = engine(tmp_path, manifest, here)
    assert (again.once(work, np.eye(3), 2.0) == first).all() and again.done == 0
    assert (again.once(work, np.eye(3), 3.0) == 1.5 * first).all() and again.done == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only there workers are copies of the driver")
def test_processes__workers_do_not_answer_signals_as_the_driver_does() -> None:
    context = mp.get_context("fork")
    ready = context.Event()

    def worker() -> None:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line does
        executors._begin(None)
        ready.set()
        time.sleep(60)

    process = context.Process(target=worker)
    process.start()
    assert ready.wait(START_S)
    process.terminate()
    process.join()
    assert process.exitcode == -signal.SIGTERM  # not by a KeyboardInterrupt and its traceback


@pytest.mark.slow
def test_processes__lost_workers(tmp_path: Path, manifest: Manifest) -> None:
    marker = tmp_path / "once"

    def work(item: Item) -> str:
        if item.code == "t1":
            time.sleep(600)  # its time is up first, and its process ends
        if item.code == "t2" and not marker.exists():
            marker.touch()
            os._exit(3)  # as the system does where memory ends
        return item.code

    executor = Processes(2)
    try:
        made = engine(tmp_path, manifest, executor, most_s=3.0)
        assert made.each(work, ITEMS) == ["t0", None, "t2", "t3"]
    finally:
        executor.close()
    (problem,) = manifest.problems()
    assert (problem.place, problem.message) == (
        "t1", "its worker was lost 3 times (killed, out of memory, or out of time)"
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_processes__what_needs_more_memory_fails_alone(tmp_path: Path, manifest: Manifest) -> None:
    def work(item: Item) -> str:
        cells = np.ones(2**28 if item.code == "t1" else 2**20)  # 2 GB
        return item.code * int(cells[0])

    executor = Processes(1, memory_limit=1_500_000_000)
    try:
        assert engine(tmp_path, manifest, executor).each(work, ITEMS) == ["t0", None, "t2", "t3"]
    finally:
        executor.close()
    (problem,) = manifest.problems()
    assert (problem.place, problem.message) == ("t1", "out of memory")


def _address(place: Path) -> str:
    """What a scheduler that starts writes into a file, which may be there before all of it is."""
    deadline = time.monotonic() + START_S
    while True:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(place.read_text())["address"])
        assert time.monotonic() < deadline, "no scheduler has started"
        time.sleep(0.1)


@pytest.mark.slow
def test_dask__a_scheduler_and_two_workers_one_of_which_dies(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="the extra 'dask' is not installed")
    monkeypatch.setattr(executors, "CONNECT_S", START_S)
    marker, place = tmp_path / "once", tmp_path / "scheduler.json"

    def work(item: Item) -> str:
        if item.code == "t2" and not marker.exists():
            marker.touch()
            os._exit(3)
        return item.code

    python, file = [sys.executable, "-m"], ["--scheduler-file", str(place), "--no-dashboard"]
    words = ["--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen([*python, "distributed.cli.dask_scheduler", "--port", "0", *file], **quiet)]  # type: ignore[call-overload]
    try:
        processes += [
            subprocess.Popen([*python, "distributed.cli.dask_worker", *file, *words], **quiet)  # type: ignore[call-overload]
            for _ in range(2)
        ]
        executor = DaskWorkers(_address(place))
        try:
            assert engine(tmp_path, manifest, executor).each(work, ITEMS) == ["t0", "t1", "t2", "t3"]
        finally:
            executor.close()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert marker.exists() and manifest.problems() == []
