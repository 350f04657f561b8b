"""Kills a batch over and over, and compares what it comes to with an undisturbed one.

    python tools/break_batch.py AREA.yaml --kills 20 [--workers 2] [--seed 1] [--dask]

Every kill (SIGKILL, without warning) comes after a random part of the work and a random time, and hits the driver or
one of its workers; the batch is then started again. At the end the products must be the same to the bit, and no work
that the manifest had as finished may have been done twice. With --dask a scheduler and two workers are started as
processes of their own, and one worker is killed while it works.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from pathlib import Path


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("area", type=Path)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--dask", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        calm, broken = Path(folder) / "calm", Path(folder) / "broken"
        start = time.monotonic()
        code = command(given.area, calm, given.workers).wait()
        took = time.monotonic() - start
        print(f"undisturbed: exit code {code}, {took:.0f} s, {len(products(calm))} files", flush=True)
        if given.dask:
            with_dask(given.area, broken, took)
        else:
            with_kills(given, calm, broken, took)
        same = compared(calm, broken)
        print("products: " + ("the same to the bit" if same else "DIFFER"))
        sys.exit(0 if same else 1)


def command(area: Path, out: Path, workers: int, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "terrain3d", "batch", str(area), "--out", str(out), "--quiet", *more]
    return subprocess.Popen([*words, "--workers", str(workers)])


def with_kills(given: argparse.Namespace, calm: Path, out: Path, took: float) -> None:
    """Kill until the number is reached; a batch that ends before that must be right, and is begun anew."""
    draw = random.Random(given.seed)
    finished: dict[str, str] = {}
    kills = 0
    run = command(given.area, out, given.workers)
    while kills < given.kills:
        wanted = len(finished) + draw.randrange(1 + pieces(calm) // 10)
        while (code := run.poll()) is None and pieces(out) < wanted:
            time.sleep(0.05)
        if code is None:
            with suppress(subprocess.TimeoutExpired):
                code = run.wait(timeout=draw.uniform(0, 0.02) * took)
        if code is not None:
            right = compared(calm, out)
            print(f"ended with exit code {code}, products {'the same' if right else 'DIFFER'}; begun anew", flush=True)
            if not right or code:
                sys.exit(1)
            shutil.rmtree(out)
            finished.clear()
            run = command(given.area, out, given.workers)
            continue
        workers = children(run.pid)
        victim = draw.choice([run.pid, run.pid, *workers])
        os.kill(victim, signal.SIGKILL)
        kills += 1
        if victim == run.pid:
            run.wait()
            wait_for_end(workers)
        repeated = note_finished(out, finished)
        what = "the driver" if victim == run.pid else "a worker"
        print(
            f"kill {kills}, {what}: {len(finished)} pieces of work finished, {repeated} of them done again", flush=True
        )
        if repeated:
            sys.exit(1)
        if victim == run.pid:
            run = command(given.area, out, given.workers)
    print(f"ended with exit code {run.wait()}, {note_finished(out, finished)} pieces done again", flush=True)


def pieces(out: Path) -> int:
    """How many pieces of work the manifest has as finished."""
    try:
        with closing(sqlite3.connect(f"file:{out / 'manifest.sqlite'}?mode=ro", uri=True)) as manifest:
            return int(manifest.execute("SELECT COUNT(*) FROM work WHERE state = 'done'").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet, or at work on it
        return 0


def note_finished(out: Path, finished: dict[str, str]) -> int:
    """Add what the manifest has as finished; number of pieces that were done again since they were seen."""
    path = out / "manifest.sqlite"
    if not path.exists():
        return 0
    rows = sqlite3.connect(path).execute("SELECT key, finished FROM work WHERE state = 'done'").fetchall()
    again = sum(finished.get(key, when) != when for key, when in rows)
    finished.update(rows)
    return again


def with_dask(area: Path, out: Path, took: float) -> None:
    """A batch by a scheduler and two workers, each a process of its own, of which one is killed half-way."""
    place = out.parent / "scheduler.json"
    python, quiet = [sys.executable, "-m"], ["--scheduler-file", str(place), "--no-dashboard"]
    scheduler = subprocess.Popen([*python, "distributed.cli.dask_scheduler", "--port", "0", *quiet])
    while not place.exists():
        time.sleep(0.2)
    words = ["--nthreads", "1", "--no-nanny", "--local-directory", str(out.parent)]
    workers = [subprocess.Popen([*python, "distributed.cli.dask_worker", *quiet, *words]) for _ in range(2)]
    address = json.loads(place.read_text())["address"]
    try:
        run = command(area, out, 1, "--scheduler", address)
        time.sleep(took * 0.5)
        workers[0].kill()
        print(f"one of the workers killed after {took * 0.5:.0f} s", flush=True)
        print(f"the batch ended with exit code {run.wait(timeout=20 * took)}")
    finally:
        for process in (*workers, scheduler):
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    """Processes that a process started (Linux)."""
    return [int(p) for t in Path(f"/proc/{pid}/task").glob("*/children") for p in t.read_text().split()]


def wait_for_end(pids: list[int]) -> None:
    """Workers must end by themselves once their driver is gone."""
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{pid}").exists() and "Z" not in state(pid) for pid in pids):
        if time.monotonic() > deadline:
            sys.exit("workers outlive their driver")
        time.sleep(0.1)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return "Z"


def compared(calm: Path, out: Path) -> bool:
    """Whether the products are the same; those that are not are named."""
    a, b = products(calm), products(out)
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            print(f"  differs: {name}")
    return a == b


def products(out: Path) -> dict[str, str]:
    """SHA-256 of all files of the tiles, and of the collection and mosaics."""
    files = [*(out / "tiles").rglob("*"), *out.glob("*.vrt"), *out.glob("*.ovr"), out / "collection.json"]
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


if __name__ == "__main__":
    main()
