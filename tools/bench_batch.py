"""CPU and memory of batches of growing size, and what the machinery of tiles costs against a run without them.

    python tools/bench_batch.py [862 1724 2586] [--run] [--workers 2] [--out DIR] [--tile 1000]

Sizes are sides of towns of the simulator (tools/large_town.py), metres; images of 862, 1724 and 2586 m cover about 1, 4
and 9 km2 by three views. CPU is that of all processes, per km2 of surface that was measured, filled or water. Memory is
the largest of a worker, and of the driver. --run adds ``terrain3d run`` on the same images with as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from large_town import write_large


@dataclass(frozen=True)
class Taken:
    """What a command took: CPU and wall seconds, largest memory of its first process, MB."""

    cpu_s: float
    wall_s: float
    peak_mb: float


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("sizes", type=float, nargs="*", default=[862.0, 1724.0, 2586.0])
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--tile", type=float, default=1000.0)
    options.add_argument("--out", type=Path, help="keep scenes and results here, and use scenes that are there")
    options.add_argument("--run", action="store_true")
    given = options.parse_args()
    print(f"{'km2':>7s}{'CPU s':>9s}{'CPU s/km2':>11s}{'wall s':>9s}{'worker MB':>11s}{'driver MB':>11s}"
          f"{'run CPU s':>11s}{'more':>7s}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for size in given.sizes:
            folder = (given.out or Path(temporary)) / f"town_{size:.0f}"
            if not (folder / "area.yaml").exists():
                write_large(folder, size)
            area = folder / "area.yaml"
            content = yaml.safe_load(area.read_text()) | {"tiles": {"utm": given.tile}}
            area.write_text(yaml.safe_dump(content, sort_keys=False))
            out = folder / "batch"
            batch = measured("batch", area, out, given.workers)
            km2, worker_mb = found(out)
            run = measured("run", folder / "scene.yaml", folder / "run", given.workers) if given.run else None
            print(f"{km2:7.2f}{batch.cpu_s:9.0f}{batch.cpu_s / km2:11.1f}{batch.wall_s:9.0f}{worker_mb:11.0f}"
                  f"{batch.peak_mb:11.0f}" + ("" if run is None else f"{run.cpu_s:11.0f}"
                  f"{batch.cpu_s / run.cpu_s - 1:+7.1%}"), flush=True)  # fmt: skip


def measured(command: str, config: Path, out: Path, workers: int) -> Taken:
    """Run a command of terrain3d; its children count."""
    words = [sys.executable, "-m", "terrain3d", command, str(config), "--out", str(out), "--quiet"]
    start = time.monotonic()
    process = subprocess.Popen([*words, "--workers", str(workers)])
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} of {config} failed")
    return Taken(used.ru_utime + used.ru_stime, time.monotonic() - start, peak(out, used.ru_maxrss))


def peak(out: Path, largest: int) -> float:
    """Largest memory of the first process, MB: what the system says is the largest of it and its children."""
    manifest = out / "manifest.sqlite"
    if not manifest.exists():
        return largest / 1024
    query = "SELECT MAX(memory_mb) FROM work WHERE place = 'all'"
    return float(sqlite3.connect(manifest).execute(query).fetchone()[0] or 0)


def found(out: Path) -> tuple[float, float]:
    """Square kilometres with a surface, and largest memory of a worker, MB."""
    area = 0.0
    for path in (out / "tiles").glob("*/*_lineage.json"):
        cells = json.loads(path.read_text())["cells"]
        area += (1 - cells["nodata_share"]) * cells["width"] * cells["height"] * cells["resolution_m"] ** 2
    query = "SELECT MAX(memory_mb) FROM work WHERE place != 'all'"
    return area / 1e6, float(sqlite3.connect(out / "manifest.sqlite").execute(query).fetchone()[0])


if __name__ == "__main__":
    main()
