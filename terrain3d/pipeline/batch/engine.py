"""The engine of a batch: work goes to an executor, finished work is known by its key, failures stay where they are."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from terrain3d import __version__
from terrain3d.errors import OutputError, Terrain3dError
from terrain3d.io.atomic import write_bytes
from terrain3d.io.objects import BlockRaster, Desk, Piece, digest, sha256_of
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.batch.keys import Keys, captured, sight_of
from terrain3d.pipeline.batch.manifest import DONE, FAILED, HELD, Manifest, Problem, Record
from terrain3d.pipeline.batch.parcel import pack_value, pack_work, unpack_value
from terrain3d.pipeline.batch.worker import Outcome, Task
from terrain3d.pipeline.blocks import Block
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.quality import peak_memory_mb
from terrain3d.raster import Bounds
from terrain3d.stereo.plan import MatchTask

LEARNED = "learned/"

T = TypeVar("T")
R = TypeVar("R")


class BlocksFailed(Exception):
    """Parts of the area that could not be worked on: stage, blocks, and what went wrong with each."""

    def __init__(self, stage: str, failed: list[tuple[Block, str]]) -> None:
        super().__init__(f"{stage}: {failed[0][1]}")
        self.stage, self.failed = stage, failed


class BatchEngine:
    """See ``terrain3d.pipeline.threads.Engine``. out: folder of the batch. most_s: for one piece of work. seen: keys of
    all that the products rest on; done: pieces of work that were not known from before. held: objects of what is
    held."""

    def __init__(
        self, desk: Desk, manifest: Manifest, executor: Executor, keys: Keys, out: Path, most_s: float = 3600.0
    ) -> None:
        self._desk, self._manifest, self._executor, self._keys, self._out = desk, manifest, executor, keys, out
        self._most_s = most_s
        self.seen: set[str] = set()
        self.done = 0
        self.held: set[str] = set()
        self._whole: set[str] = set()
        self.basis, self.grown = "", False

    def each(self, work: Callable[[T], R], items: Sequence[T], reporter: Reporter | None = None) -> list[R]:
        """Results of all items. What failed in matching, or in a tile, has None as its result and is in the manifest.

        Raises BlocksFailed after all others are done, OutputError (full disk) at once.
        """
        stage = stage_of(work)
        keys = [self._keys.key(work, item) for item in items]
        self._keys.forget()
        self.seen.update(keys)
        records: dict[str, Record] = {}
        open_: dict[str, T] = {}
        for key, item in zip(keys, items, strict=True):
            record = self._known(key)
            if record is None:
                open_[key] = item
                continue
            records[key] = record
            if reporter is not None:
                reporter.step()
        if open_:
            for record in self._performed(work, stage, open_):
                records[record.key] = record
                if reporter is not None:
                    reporter.step()
        failed = [(i, records[k].error or "") for k, i in zip(keys, items, strict=True) if records[k].state == FAILED]
        blocks: list[tuple[Block, str]] = [(i, e) for i, e in failed if isinstance(i, Block)]
        if blocks:
            raise BlocksFailed(stage, blocks)
        for item, error in failed:
            self._manifest.add_problem(Problem(stage, place_of(item), error, core_of(item)))
        self._desk.take(piece for key in keys for piece in records[key].pieces)
        return [self._result(records[key]) for key in keys]

    def once(self, work: Callable[..., R], *given: Any, threaded: bool = False) -> R:
        """Result of work that needs to see everything; done here, kept, and known the next time."""
        key = self._keys.key(work, given)
        self._keys.forget()
        self.seen.add(key)
        record = self._known(key)
        if record is not None and record.state == DONE:
            return self._result(record)  # type: ignore[no-any-return]
        wall, cpu = time.perf_counter(), time.process_time()
        threads = min(self._executor.workers(), os.cpu_count() or 1)  # of this machine; others may do the rest
        result = work(*given, **({"threads": threads} if threaded else {}))
        name = self._desk.objects.put(pack_value(result, self._desk))
        self.done += 1
        self._manifest.put(
            Record(
                key, stage_of(work), "all", DONE, name, wall_s=time.perf_counter() - wall,
                cpu_s=time.process_time() - cpu, memory_mb=peak_memory_mb(),
            )
        )  # fmt: skip
        return result

    def hold(self, name: str, value: R, held: Callable[[R, R], R | None], *, begin: bool = True) -> R:
        """What was held under a name, as long as it holds; else the value, which is held from now on if it may be."""
        old = self._manifest.noted(_held(name))
        out = None
        if old is not None and self._desk.objects.whole(old):
            out = held(self._unpacked(old, name), value)
        if out is None and not begin:
            return value
        out = value if out is None else out
        new = self._desk.objects.put(pack_value(out, self._desk))
        self._manifest.note(_held(name), new)
        self.held.add(new)
        return out

    def mark(self, value: Any) -> str:
        """Digest of a value, files that it names included."""
        return self._keys.key(mark_of, value)

    def grow(self, basis: str, *, grown: bool) -> None:
        """What is learned from now on rests on a basis. grown: there is more than it, which must not change it."""
        self.basis, self.grown = basis, grown

    def learned(self, name: str, value: R, joined: Callable[[R, R], R]) -> R:
        """What was learned before on the same basis, joined with the value, where there is more now; else the value."""
        basis, old = self._manifest.noted(_held(LEARNED + name)) or ("", "")
        if self.grown and basis == self.basis and self._desk.objects.whole(old):
            value = joined(self._unpacked(old, name), value)
        new = self._desk.objects.put(pack_value(value, self._desk))
        self._manifest.note(_held(LEARNED + name), [self.basis, new])
        self.held.add(new)
        return value

    @contextmanager
    def resting_on(self, basis: str) -> Iterator[None]:
        """Meanwhile all keys depend on it, too, and the pieces of work are kept only until the batch is done."""
        lasting, self._keys.basis = set(self.seen), basis
        try:
            yield
        finally:
            self.seen, self._keys.basis = lasting, ""

    def worked(self) -> int:
        """Pieces of work that were done now."""
        return self.done

    def _known(self, key: str) -> Record | None:
        """What is in the manifest, if all of it is still whole on disk."""
        record = self._manifest.record(key)
        if record is None or record.state == FAILED:
            return record
        for name in record.objects - self._whole:
            if not self._desk.objects.whole(name):
                return None
            self._whole.add(name)
        if any(".." in Path(path).parts or sha256_of(self._out / path) != total for path, total in record.files):
            return None  # or someone else wrote the manifest
        return record

    def _performed(self, work: Any, stage: str, items: dict[str, T]) -> Iterator[Record]:
        rasters = [v for v in captured(work) if isinstance(v, BlockRaster)]
        fatal: list[str] = []
        tasks = self._tasks(work, stage, rasters, items)
        for outcome in self._executor.run(tasks, lambda: bool(fatal)):
            if outcome.fatal:
                fatal.append(outcome.error or "")
                continue
            yield self._record(outcome, stage, items[outcome.key])
        if fatal:
            raise _Full(fatal[0])

    def _tasks(self, work: Any, stage: str, rasters: list[BlockRaster], items: dict[str, T]) -> Iterator[Task]:
        data = pack_work(work, self._desk)
        name = digest(data)
        path = self._desk.objects.folder.parent / "stages" / f"{stage}-{name[:12]}.bin"
        write_bytes(path, data)
        for key, item in items.items():
            bounds = sight_of(item).bounds
            layers: dict[str, tuple[Piece, ...]] = {}
            for raster in rasters:
                if bounds is not None:
                    own = layers.get(str(raster.path), ())
                    layers[str(raster.path)] = tuple(dict.fromkeys((*own, *raster.pieces(bounds))))
            packed = pack_value(item, self._desk)
            place, objects = place_of(item), self._desk.objects.folder
            yield Task(key, stage, place, (path, name), packed, layers, objects, self._most_s)

    def _record(self, o: Outcome, stage: str, item: Any) -> Record:
        record = Record(
            o.key, stage, place_of(item), DONE if o.error is None else FAILED, o.result, o.pieces, o.arrays, o.files,
            o.error, o.wall_s, o.cpu_s, o.memory_mb, o.attempts, core_of(item),
        )  # fmt: skip
        self.done += 1
        self._manifest.put(record)
        self._whole |= record.objects
        return record

    def _result(self, record: Record) -> Any:
        return None if record.result is None else self._unpacked(record.result, record.stage)

    def _unpacked(self, name: str, stage: str) -> Any:
        try:
            return unpack_value(self._desk.objects.get(name), self._desk)
        except (pickle.UnpicklingError, AttributeError, ImportError, EOFError) as error:
            raise OutputError(
                f"result of {stage} is not readable ({error})", where=self._desk.objects.folder,
                fix="delete the folder 'work' there and start again",
            ) from error  # fmt: skip


def _held(name: str) -> str:
    """Name of what is held in the manifest: another version of the program begins anew, as it does all work."""
    return f"{HELD}{__version__} {name}"


def mark_of(value: Any) -> None:
    """Stands for no work in the digest of a value."""


class _Full(Terrain3dError, OSError):
    """A worker could not write; its own line says all."""


def stage_of(work: Any) -> str:
    """Name of the work's stage: the function that holds it, and its own name if it has one."""
    module = str(getattr(work, "__module__", "")).rpartition(".")[2]
    name = str(getattr(work, "__qualname__", type(work).__name__)).replace(".<locals>", "").replace("<lambda>", "")
    own = ".".join(p for p in name.split(".") if p not in ("work", "each", ""))
    return f"{module}.{own}" if own else module


def place_of(item: Any) -> str:
    """Where an item is, for a person: coordinates of its south-west corner in kilometres, or its own name."""
    task = next((i for i in item if isinstance(i, MatchTask)), None) if isinstance(item, tuple) else None
    if task is not None:
        names = "+".join(getattr(i, "name", "") for i in item[2:])
        return f"{names} {task.tile.column},{task.tile.row}"
    code = getattr(item, "code", None)
    if isinstance(code, str):
        return code
    bounds = core_of(item)
    return "all" if bounds is None else f"E{bounds[0] / 1000:.2f} N{bounds[1] / 1000:.2f}"


def core_of(item: Any) -> Bounds | None:
    """Bounds of what an item writes: the core of a block."""
    if isinstance(item, Block):
        return item.part(*item.core).grid.bounds
    return sight_of(item).bounds
