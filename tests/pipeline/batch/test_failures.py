"""A part of the area that fails: it is left out with a line, and all the rest is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import rasterio
import yaml

from terrain3d.pipeline import model
from terrain3d.pipeline.batch.area import load_area
from terrain3d.pipeline.batch.driver import BatchOptions, BatchResult, run_batch
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.progress import Silent
from terrain3d.points import PointCloud
from terrain3d.raster import Grid
from terrain3d.simulate.scene import write_scene
from terrain3d.simulate.world import CENTRE
from terrain3d.surface.dsm import SurfaceModel, rasterize
from terrain3d.surface.mask import MaskCode

pytestmark = pytest.mark.slow


def broken(cloud: PointCloud, grid: Grid) -> SurfaceModel:
    """Fails at every block that lies south-east of a place."""
    if grid.west > CENTRE[0] and grid.north < CENTRE[1]:
        raise ZeroDivisionError("no way")
    return rasterize(cloud, grid)


def test_batch__a_block_that_fails_is_left_out_and_tried_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: Executor
) -> None:
    scene = write_scene(tmp_path / "scene", "town", 150, seed=3, views=2)
    content = yaml.safe_load(scene.config.read_text(encoding="utf-8")) | {"tiles": {"utm": 50}}
    path = scene.folder / "area.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    monkeypatch.setattr(model, "POINT_BLOCK_CELLS", 96)

    def batch(retry: bool = False) -> BatchResult:
        return run_batch(load_area(path), tmp_path / "out", Silent(), here, BatchOptions(retry=retry))

    monkeypatch.setattr(model, "rasterize", broken)
    first = batch()
    assert not first.complete and {p.what for p in first.problems} == {"lost area"}
    assert all("ZeroDivisionError: no way" in p.message for p in first.problems)
    states = {t.state for t in first.tiles}
    assert "incomplete" in states and "failed" not in states
    with rasterio.open(tmp_path / "out" / "mask.vrt") as file:
        codes = file.read(1)
    lost = sum((p.bounds[2] - p.bounds[0]) * (p.bounds[3] - p.bounds[1]) / 0.25 for p in first.problems if p.bounds)
    monkeypatch.setattr(model, "rasterize", rasterize)
    assert batch().problems == first.problems  # it stays so until it is to be tried again
    again = batch(retry=True)
    assert again.complete and {t.state for t in again.tiles} <= {"done", "empty"}
    with rasterio.open(tmp_path / "out" / "mask.vrt") as file:
        whole = file.read(1)
    missing = int((whole != MaskCode.NODATA).sum()) - int((codes != MaskCode.NODATA).sum())
    assert 0.3 * lost < missing <= 1.2 * lost
