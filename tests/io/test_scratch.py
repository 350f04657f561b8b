from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.errors import OutputError
from terrain3d.io.scratch import new_raster
from terrain3d.raster import Grid

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 60, 70)


def test_stored_raster__windows_come_back(tmp_path: Path) -> None:
    raster = new_raster(tmp_path / "a.raw", GRID, np.float32)
    assert not raster.read(0, 0, 60, 70).any()
    values = np.arange(60 * 70, dtype=np.float32).reshape(60, 70)
    raster.write(0, 0, values)
    raster.write(10, 20, -values[10:30, 20:25])
    values[10:30, 20:25] *= -1
    np.testing.assert_array_equal(raster.read(5, 15, 40, 30), values[5:45, 15:45])
    part = raster.window(5, 15, 40, 30)
    assert part.grid == GRID.window(5, 15, 40, 30)
    np.testing.assert_array_equal(part.read(5, 5, 20, 5), values[10:30, 20:25])
    np.testing.assert_array_equal(np.concatenate([v for _, v in part.strips(17)]), values[5:45, 15:45])
    assert (tmp_path / "a.raw").stat().st_size == 60 * 70 * 4


def test_stored_raster__threads_do_not_meet(tmp_path: Path) -> None:
    raster = new_raster(tmp_path / "a.raw", GRID, np.uint16)

    def work(row: int) -> None:
        for _ in range(20):
            raster.write(row, 0, np.full((1, 70), row, np.uint16))
            assert (raster.read(row, 0, 1, 70) == row).all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(60)))
    assert (raster.read(0, 0, 60, 70) == np.arange(60)[:, None]).all()


def test_stored_raster__outside_is_refused(tmp_path: Path) -> None:
    raster = new_raster(tmp_path / "a.raw", GRID, np.uint8)
    with pytest.raises(ValueError, match="inside"):
        raster.read(50, 0, 11, 70)
    with pytest.raises(ValueError, match="inside"):
        raster.window(5, 5, 10, 10).write(0, 5, np.zeros((2, 6), np.uint8))


def test_stored_raster__errors_of_the_machine(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        new_raster(tmp_path / "no" / "a.raw", GRID, np.uint8)
    raster = new_raster(tmp_path / "a.raw", GRID, np.uint8)
    (tmp_path / "a.raw").unlink()
    with pytest.raises(OutputError, match=r"a\.raw"):
        raster.write(0, 0, np.zeros((2, 2), np.uint8))
    full = Path("/dev/full")
    if full.exists():
        from dataclasses import replace

        with pytest.raises(OutputError, match="space"):
            replace(raster, path=full).write(0, 0, np.zeros((2, 2), np.uint8))
