"""Who performs tasks: processes of this machine, or the workers of a Dask scheduler."""

from __future__ import annotations

import gc
import multiprocessing as mp
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import cv2

from terrain3d.errors import ConfigError, MissingExtraError
from terrain3d.pipeline.batch.compiled import load_compiled
from terrain3d.pipeline.batch.worker import Outcome, Task, leave_with_driver, perform, prepare
from terrain3d.pipeline.memory import KEPT_BYTES, keep_freed_memory, limit_memory

ATTEMPTS = 3  # of a task whose worker was lost
AHEAD = 2  # tasks in hand, for each worker
CONNECT_S, POLL_S, NO_WORKERS_S = 20.0, 10.0, 300.0


class Executor(Protocol):
    """Performs tasks somewhere, in any order."""

    def run(self, tasks: Iterator[Task], stop: Callable[[], bool]) -> Iterator[Outcome]:
        """Outcomes as they come. Tasks are taken as workers are free; after ``stop`` no more are."""

    def where(self) -> str:
        """What a person calls it."""

    def workers(self) -> int:
        """How many tasks it does at once."""

    def close(self) -> None:
        """Let the workers go."""


def _lost(task: Task, attempts: int) -> Outcome:
    return Outcome(
        task.key,
        error=f"its worker was lost {attempts} times (killed, out of memory, or out of time)",
        attempts=attempts,
    )


def _begin(memory_limit: int | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the driver tells what happened, its copies need not
        signal.signal(number, signal.SIG_DFL)
    leave_with_driver()
    if memory_limit is None:
        keep_freed_memory()
    else:
        limit_memory(memory_limit)
        keep_freed_memory(min(KEPT_BYTES, memory_limit // 8))


class Processes:
    """Worker processes of this machine. A lost one is replaced; what it worked on is tried again, alone."""

    def __init__(self, workers: int, memory_limit: int | None = None) -> None:
        self._workers, self._limit = workers, memory_limit
        self._pool: ProcessPoolExecutor | None = None
        # copies of a program that has imported all and holds nothing yet cost next to nothing; one with threads may
        # never wake up after a fork
        if sys.platform == "linux" and threading.active_count() == 1:
            load_compiled()
            gc.freeze()  # else the first collection in a copy writes to all of it
            cv2.setNumThreads(1)  # ends its threads, for which a copy of this process would wait for ever
            self._pool = self._started("fork")

    def where(self) -> str:
        return f"{self._workers} local processes"

    def workers(self) -> int:
        return self._workers

    def run(self, tasks: Iterator[Task], stop: Callable[[], bool]) -> Iterator[Outcome]:
        open_: dict[Future[Outcome], Task] = {}
        suspects: list[Task] = []
        while True:
            while len(open_) < AHEAD * self._workers and not stop():
                task = next(tasks, None)
                if task is None:
                    break
                open_[self._submit(task)] = task
            if not open_:
                return
            done, _ = wait(open_, return_when=FIRST_COMPLETED)
            broken = False
            for future in done:
                task = open_.pop(future)
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken = True
                    suspects.append(task)
            if broken:
                suspects += open_.values()
                open_.clear()
                self._drop()
                for task in suspects:
                    yield self._alone(task)
                suspects.clear()

    def _alone(self, task: Task) -> Outcome:
        """A task that may have cost a worker, with no other beside it."""
        for attempt in range(2, ATTEMPTS + 1):
            try:
                return replace(self._submit(task).result(), attempts=attempt)
            except BrokenProcessPool:
                self._drop()
        return _lost(task, ATTEMPTS)

    def _started(self, method: str) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self._workers, mp.get_context(method), initializer=_begin, initargs=(self._limit,))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of BLAS, which knows of forks
            pool.submit(prepare)  # starts all of them
        return pool

    def _submit(self, task: Task) -> Future[Outcome]:
        if self._pool is None:
            self._pool = self._started("spawn")
        try:
            return self._pool.submit(perform, task)
        except BrokenProcessPool:
            self._drop()
            return self._submit(task)

    def _drop(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = None

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


class DaskWorkers:
    """Workers of a running Dask scheduler, which gives what lost workers had to others."""

    def __init__(self, address: str) -> None:
        """Raises MissingExtraError, and ConfigError where no scheduler or no worker answers."""
        try:
            from distributed import Client
        except ImportError as error:
            raise MissingExtraError("Dask is not installed", fix="pip install 'terrain3d[dask]'") from error
        fix = "check --scheduler, and that dask workers of it are running"
        try:
            self._client: Any = Client(address, timeout=CONNECT_S, set_as_default=False)
            self._client.wait_for_workers(1, timeout=CONNECT_S)
        except (OSError, ValueError, TimeoutError) as error:
            raise ConfigError(f"no Dask workers answer at {address}", fix=fix) from error
        self._address = address

    def where(self) -> str:
        link = self._client.dashboard_link
        return f"Dask scheduler {self._address}" + (f", dashboard {link}" if link else "")

    def workers(self) -> int:
        return sum(self._client.nthreads().values())

    def run(self, tasks: Iterator[Task], stop: Callable[[], bool]) -> Iterator[Outcome]:
        from distributed import wait as wait_for

        open_: dict[Any, Task] = {}
        seen = time.monotonic()
        while True:
            threads = sum(self._client.nthreads().values())
            while len(open_) < AHEAD * max(threads, 1) and not stop():
                task = next(tasks, None)
                if task is None:
                    break
                open_[self._client.submit(perform, task, key=f"{task.stage}-{task.key}", pure=False)] = task
            if not open_:
                return
            with suppress(TimeoutError), self._client.as_current():
                wait_for(list(open_), timeout=POLL_S, return_when="FIRST_COMPLETED")
            if threads:
                seen = time.monotonic()
            elif time.monotonic() - seen > NO_WORKERS_S:
                raise ConfigError(f"the Dask scheduler at {self._address} has had no workers for {NO_WORKERS_S:.0f} s",
                                  fix="start workers and this command again: finished work is kept")  # fmt: skip
            for future in [f for f in open_ if f.done()]:
                task = open_.pop(future)
                if future.status == "finished":
                    yield future.result()
                else:
                    yield Outcome(task.key, error=_in_short(future.exception()))
                future.release()

    def close(self) -> None:
        with suppress(Exception):  # the scheduler may have gone first
            self._client.close()


def _in_short(problem: BaseException) -> str:
    if type(problem).__name__ == "KilledWorker":
        return "its workers were lost (killed, out of memory, or out of time)"
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
