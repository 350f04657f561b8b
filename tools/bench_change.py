"""CPU time and memory of change detection on two made-up surfaces of 0.5 m.

    python tools/bench_change.py [cells a side, 10000] [folder for the surfaces]

The surfaces are rolling ground with woods and houses, some of which change, and the run is a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from terrain3d.crs import ELLIPSOID, Reference
from terrain3d.io.rasters import write_strips
from terrain3d.raster import Grid

ROWS = 512
RESOLUTION = 0.5
HOUSE_EVERY = 120  # cells


def surface(epoch: int, row: int, rows: int, width: int) -> np.ndarray:
    """Heights of some rows: ground, woods, houses of which every fiftieth comes or goes, errors of matching."""
    y, x = np.mgrid[row : row + rows, 0:width].astype(np.float32)
    z = 120 + 15 * np.sin(x / 700) * np.cos(y / 900) + 0.01 * y
    rng = np.random.default_rng((7, row))
    crowns = cv2.GaussianBlur(rng.standard_normal((rows, width)).astype(np.float32), (0, 0), 4) * 18
    wood = (np.sin(x / 900) > 0.5) & (np.cos(y / 1100) > 0)
    z += np.where(wood, 10 + crowns, 0)
    i, j = (y // HOUSE_EVERY).astype(int), (x // HOUSE_EVERY).astype(int)
    inside = (y % HOUSE_EVERY > 40) & (y % HOUSE_EVERY < 72) & (x % HOUSE_EVERY > 40) & (x % HOUSE_EVERY < 80) & ~wood
    z += np.where(inside & ((i * 31 + j * 17) % 50 != epoch), 7, 0)
    errors = np.random.default_rng((epoch, row)).standard_normal((rows, width)).astype(np.float32)
    return z + 1.2 * cv2.GaussianBlur(errors, (0, 0), 2)


def write(path: Path, epoch: int, cells: int) -> None:
    grid = Grid(Reference("EPSG:32654", ELLIPSOID), 400_000.0, 3_950_000.0, RESOLUTION, cells, cells)
    strips = ((row, surface(epoch, row, min(ROWS, cells - row), cells)) for row in range(0, cells, ROWS))
    write_strips(path, grid, strips, np.float32, nodata=-9999)


def main() -> None:
    cells = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"epoch{epoch}_{cells}.tif" for epoch in (1, 2)]
        for epoch, path in enumerate(files, 1):
            if not path.is_file():
                write(path, epoch, cells)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "terrain3d", "change", *map(str, files), "--out", str(folder / "out")]
        subprocess.run([*command, "--workers", "1"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{cells} x {cells} cells: {cpu:.0f} CPU s, {after.ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
