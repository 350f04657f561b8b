"""What cloud hides of images is the same however the ground is cut and whoever does the work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.image.view import View
from terrain3d.io.objects import Desk, Objects
from terrain3d.pipeline import obscured
from terrain3d.pipeline.batch.engine import BatchEngine
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.batch.keys import Keys
from terrain3d.pipeline.batch.manifest import open_manifest
from terrain3d.pipeline.obscured import obscured_share, without_obscured
from terrain3d.pipeline.threads import Workers
from terrain3d.raster import Grid, Raster
from terrain3d.stereo.pairs import Pair, choose_pairs
from terrain3d.stereo.trend import CoarseSurface
from tests.stereo.conftest import CRS, _area, _view_of
from tests.stereo.test_obscured import around, scene

Clouded = tuple[list[View], list[Pair], CoarseSurface]


@pytest.fixture(scope="module")
def clouded(tmp_path_factory: pytest.TempPathFactory) -> Clouded:
    """Three views, the upper third of the second under cloud."""
    views = [_view_of(_area(180), a) for a in (12.0, 0.0, -12.0)]
    seen = scene(views, tmp_path_factory.mktemp("views"), clouded=1)
    grid = Grid.from_bounds(Reference(CRS), *around(views[1]), 4.0)
    flat = Raster(np.full(grid.shape, 520.0, np.float32), grid)
    return seen, choose_pairs(seen, CRS, 520.0), CoarseSurface(flat, flat, flat, flat)


def found(clouded: Clouded, workers: Workers) -> tuple[list[View], list[str]]:
    lines: list[str] = []
    views, _ = without_obscured(*clouded, workers, lines.append)
    return views, lines


def same(a: list[View], b: list[View]) -> bool:
    squares = [[None if v.image.obscured is None else v.image.obscured.squares.tolist() for v in vs] for vs in (a, b)]
    return squares[0] == squares[1]


def test_without_obscured__is_the_same_in_small_blocks_by_two_and_in_a_batch(
    clouded: Clouded, tmp_path: Path, here: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, lines = found(clouded, 1)
    assert [obscured_share(v) for v in whole] == [0, pytest.approx(1 / 3, abs=0.05), 0]
    assert len(lines) == 1 and lines[0].startswith("v1: 3") and "left out there" in lines[0]
    monkeypatch.setattr(obscured, "BLOCK_CELLS", 16)
    assert same(found(clouded, 2)[0], whole)
    with open_manifest(tmp_path / "manifest.sqlite") as manifest:
        engine = BatchEngine(Desk(Objects(tmp_path / "objects")), manifest, here, Keys(), tmp_path, 60.0)
        engine.grow("", grown=False)
        in_batch, told = found(clouded, engine)
    assert same(in_batch, whole) and told == lines
