"""Matching of a tile from rendered images: heights of ground and roof, edges, sigma, and what cannot be seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.write import write_image
from terrain3d.crs import Reference
from terrain3d.image.view import View
from terrain3d.io.images import open_image
from terrain3d.simulate.world import CENTRE
from terrain3d.stats import nmad
from terrain3d.stereo import dense
from terrain3d.stereo.dense import DensePoints, match_tile
from terrain3d.stereo.epipolar import EpipolarTile
from terrain3d.stereo.match import SIGMA_FLOOR_PX
from terrain3d.stereo.pairs import choose_pairs
from terrain3d.stereo.plan import MatchTask, plan_matching
from terrain3d.stereo.sgm import SgmBuffers
from terrain3d.stereo.trend import CoarseSurface, flat_surface

CRS = "EPSG:32632"
GROUND, ROOF = 520.0, 532.0


def matched(stage: Any, order: tuple[int, int], **options: Any) -> DensePoints:
    """All points of the stage, matched in one tile."""
    left, right = (stage.views[i] for i in order)
    pair = choose_pairs([left, right], CRS, GROUND)[0]
    surface = flat_surface(Reference(CRS), pair.area.bounds, 515.0, 537.0)
    tasks = plan_matching([left, right], pair, CRS, surface, options.pop("pixel", 0.5), 4096)
    parts = [match_tile(left, right, t.tile, surface, SgmBuffers(), **options) for t in tasks]
    return max(parts, key=lambda p: len(p.xyz))


@pytest.fixture(scope="module", params=[(0, 1), (1, 0)], ids=["as given", "swapped"])
def points(stage: Any, request: pytest.FixtureRequest) -> DensePoints:
    return matched(stage, request.param)


def test_match_tile__ground_and_roof_at_their_heights(stage: Any, points: DensePoints) -> None:
    x, y, z = points.xyz.T
    truth, inside = stage.height_at(x, y), stage.from_edge(x, y) > 2.0
    error = z - truth
    for height, least in ((GROUND, 60_000), (ROOF, 4_000)):
        mine = inside & (truth == height)
        assert mine.sum() > least
        assert abs(np.median(error[mine])) < 0.1, height
        assert nmad(error[mine]) < 0.15, height
        assert (np.abs(error[mine]) < 1).mean() > 0.99, height


def test_match_tile__walls_stand_where_they_are(stage: Any, points: DensePoints) -> None:
    """What is neither roof nor ground lies near the outline, and is little."""
    x, y, z = points.xyz.T
    away = stage.from_edge(x, y)
    wrong = np.abs(z - stage.height_at(x, y)) > 3
    assert (away[wrong] < 2.0).mean() > 0.9
    assert wrong.mean() < 0.006


def test_match_tile__sigma_is_in_metres_and_not_blind(stage: Any, points: DensePoints) -> None:
    x, y, z = points.xyz.T
    inside = stage.from_edge(x, y) > 4.0
    floor = SIGMA_FLOOR_PX * 0.5 / (np.tan(np.radians(12)) + np.tan(np.radians(10)))
    assert points.sigma.min() >= 0.95 * floor
    error = np.abs(z - stage.height_at(x, y))[inside]
    ratio = error / points.sigma[inside]
    assert (ratio < 1).mean() > 0.5
    assert (ratio < 3).mean() > 0.95


def test_match_tile__confidence_and_intensity(stage: Any, points: DensePoints) -> None:
    assert points.confidence.min() >= 0 and points.confidence.max() <= 1 and points.confidence.mean() > 0.3
    assert 100 < np.median(points.intensity) < 2500
    assert points.pixel.dtype == np.int32 and len(points.pixel) == len(points.xyz)


def test_match_tile__ground_behind_the_block_is_not_invented(points: DensePoints) -> None:
    """North and south of the block one view cannot see the ground next to the wall (12 m * tan(10 deg) = 2.1 m)."""
    x, y = points.xyz[:, 0] - CENTRE[0], points.xyz[:, 1] - CENTRE[1]
    off = np.where(y > 0, y - 15, -15 - y)
    low = (np.abs(x) < 20) & (points.xyz[:, 2] < 526)
    hidden, open_ground = (np.count_nonzero(low & (off > a) & (off < a + 1.0)) for a in (0.6, 12.0))
    assert open_ground > 250
    assert hidden < 0.3 * open_ground


def tile_of(stage: Any, surface: CoarseSurface, core_px: int = 4096) -> list[MatchTask]:
    pair = choose_pairs(stage.views, CRS, GROUND)[0]
    return plan_matching(stage.views, pair, CRS, surface, 0.5, core_px)


def over_stage(stage: Any, low: float = 515.0, high: float = 537.0) -> CoarseSurface:
    return flat_surface(Reference(CRS), choose_pairs(stage.views, CRS, GROUND)[0].area.bounds, low, high)


def test_match_tile__holds_where_the_direction_of_disparity_has_turned(stage: Any) -> None:
    """At the end of long images that scan in different directions it is not that of the frame, so that ground far
    above the plane of the tile lies in other rows: here by 1.8 px on average."""
    surface = over_stage(stage)
    (task,) = tile_of(stage, surface)
    frame, turn = task.tile.frame, np.radians(2.0)
    (e, n), c, s = frame.along, np.cos(turn), np.sin(turn)
    turned = replace(frame, along=(c * e - s * n, s * e + c * n))
    column, row = turned.from_ground(np.array(CENTRE[0]), np.array(CENTRE[1]))
    tile = EpipolarTile(turned, int(column) - 256, int(row) - 256, 512, 512, GROUND - 60.0)
    parallax = tile.lattice(*stage.views, 70.0).parallax_of.mean()
    assert 1.5 < abs(parallax) * 66 < 2.1
    found = match_tile(*stage.views, tile, surface, SgmBuffers())
    x, y, z = found.xyz.T
    error = (z - stage.height_at(x, y))[stage.from_edge(x, y) > 2.0]
    assert len(found.xyz) > 80_000
    assert abs(np.median(error)) < 0.1 and nmad(error) < 0.15 and (np.abs(error) < 1).mean() > 0.99


def test_match_tile__tiles_meet_without_a_seam(stage: Any) -> None:
    """Cores of nine tiles, put together, are what one tile makes of it all, also along their borders."""
    surface = over_stage(stage)
    (whole,) = tile_of(stage, surface)
    tasks = tile_of(stage, surface, 256)
    assert len(tasks) == 9
    heights = np.full((2, whole.tile.height, whole.tile.width), np.nan)
    for layer, parts in enumerate(([whole], tasks)):
        for t in parts:
            found, (column, row, width, height) = match_tile(*stage.views, t.tile, surface, SgmBuffers()), t.core
            x, y = found.pixel.T
            mine = (x >= column) & (x < column + width) & (y >= row) & (y < row + height)
            at = y[mine] + t.tile.row - whole.tile.row, x[mine] + t.tile.column - whole.tile.column
            assert np.isnan(heights[layer][at]).all()  # no place has two
            heights[layer][at] = found.xyz[mine, 2]
    one, many = heights
    assert np.isfinite(one).sum() > 100_000
    assert (np.isfinite(one) != np.isfinite(many)).sum() < 50
    apart = np.abs(one - many)[np.isfinite(one - many)]
    assert (apart > 0.05).sum() < 50 and apart.max() < 0.3  # metres


def test_match_tile__searches_what_the_relief_needs(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A valley of 400 m takes no more disparities than level ground, for its trend is known."""
    searched = []
    real = dense.match_images

    def watched(left: Any, right: Any, disparities: int, *rest: Any, **options: Any) -> Any:
        searched.append(disparities)
        return real(left, right, disparities, *rest, **options)

    monkeypatch.setattr(dense, "match_images", watched)
    level = over_stage(stage, 500.0, 540.0)
    grid = level.trend.grid
    slope = np.broadcast_to(np.linspace(-200, 200, grid.width, dtype=np.float32), grid.shape)
    rasters = (level.trend, level.low, level.high, level.height)
    steep = CoarseSurface(*(replace(r, values=r.values + slope) for r in rasters))
    (task,) = tile_of(stage, level)
    for surface in (level, steep, over_stage(stage, 320.0, 720.0)):
        match_tile(*stage.views, task.tile, surface, SgmBuffers())
    assert searched[0] == searched[1] == 64 and searched[2] > 300


def test_match_tile__reduced_is_coarse_but_right(stage: Any) -> None:
    found = matched(stage, (0, 1), pixel=2.0, reduction=4, margin_m=0.0, polish=False)
    x, y, z = found.xyz.T
    inside = stage.from_edge(x, y) > 6.0
    error = (z - stage.height_at(x, y))[inside]
    assert inside.sum() > 3_000
    # 0.2 px a metre: whole disparities attract the parabola by up to 0.15 px
    assert abs(np.median(error)) < 0.8 and nmad(error) < 0.8


@pytest.mark.slow
def test_match_tile__strip_of_more_than_32767_lines(stage: Any, tmp_path: Path) -> None:
    """The same images at the end of a long strip give the same points: no coordinate is kept in 16 bits."""
    before = 33_000
    views = []
    for view in stage.views:
        rpc = replace(view.camera.rpc, line_off=view.camera.rpc.line_off + before)
        with rasterio.open(view.image.path) as file:
            image = file.read(1)
        path = write_image(tmp_path / view.image.path.name, np.pad(image, ((before, 0), (0, 0))), rpc)
        views.append(View(path.stem, open_image(path), Camera(rpc)))
    assert views[0].image.height > 32_767
    pair = choose_pairs(stage.views, CRS, GROUND)[0]
    surface = flat_surface(Reference(CRS), pair.area.bounds, 515.0, 537.0)
    tile = max(
        (t.tile for t in plan_matching(stage.views, pair, CRS, surface, 0.5, 4096)), key=lambda t: t.width * t.height
    )
    near, far = (match_tile(*v, tile, surface, SgmBuffers()) for v in (stage.views, views))
    assert len(far.xyz) == pytest.approx(len(near.xyz), rel=1e-3)
    for axis in range(3):
        assert np.median(far.xyz[:, axis]) == pytest.approx(np.median(near.xyz[:, axis]), abs=0.01)
    at = stage.from_edge(far.xyz[:, 0], far.xyz[:, 1]) > 2.0
    error = far.xyz[:, 2] - stage.height_at(far.xyz[:, 0], far.xyz[:, 1])
    assert (np.abs(error[at]) < 1).mean() > 0.99
