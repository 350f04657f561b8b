"""A file that cannot be written gives one line, ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from terrain3d.io import atomic
from terrain3d.io.atomic import output_error

WRITE = """
import resource, sys
import numpy as np
from terrain3d.crs import Reference
from terrain3d.errors import OutputError
from terrain3d.io.rasters import write_raster
from terrain3d.raster import Grid, Raster
grid = Grid(Reference("EPSG:32632"), 6e5, 5e6, 0.5, 300, 600)
values = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_raster(sys.argv[1], Raster(values, grid), nodata=-9999.0, heights=False)
except OutputError as error:
    print(error)
"""


def test_write_raster__libraries_add_no_lines_to_ours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    done = subprocess.run([sys.executable, "-c", WRITE, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{path}: cannot be written") and done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_output_error__names_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No space left" not in str(output_error(tmp_path / "a.tif", RuntimeError("odd")))
    monkeypatch.setattr(atomic, "FULL_BYTES", 2**62)
    assert "No space left on device" in str(output_error(tmp_path / "a.tif", RuntimeError("odd")))
    assert "No space left" not in str(output_error(tmp_path / "a.tif", PermissionError(13, "denied")))
