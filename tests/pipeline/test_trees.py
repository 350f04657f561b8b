"""Layers of trees from stored rasters, and the check of what is under trees on tracks that were left out."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import shapely

from terrain3d.crs import Reference, to_lonlat
from terrain3d.io.scratch import new_raster
from terrain3d.pipeline import trees
from terrain3d.pipeline.canopy_check import check_canopy
from terrain3d.pipeline.canopy_ground import StoredCells
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, bilinear
from terrain3d.surface.canopy_cells import LAYERS
from terrain3d.surface.mask import MaskCode

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 300, 320)


def surfaces(folder: Path, chm: np.ndarray) -> Surfaces:
    def stored(name: str, values: np.ndarray) -> Any:
        raster = new_raster(folder / f"{name}.raw", GRID, values.dtype)
        raster.write(0, 0, values)
        return raster

    one = np.ones(GRID.shape, np.float32)
    layers = {"chm": chm, "dsm": chm + 100, "dsm_sigma": 0.6 * one, "dtm_sigma": 0.8 * one, "dtm": 100 * one}
    values: dict[str, Any] = {f.name: None for f in fields(Surfaces)}
    values |= {name: stored(name, a.astype(np.float32)) for name, a in layers.items()}
    values["mask"] = stored("mask", np.full(GRID.shape, MaskCode.MEASURED, np.uint8))
    return Surfaces(**values)


def test_tree_layers__tops_and_stand_of_a_wood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0 : GRID.height, 0 : GRID.width] * 0.5
    chm = np.zeros(GRID.shape)
    places = [
        (30 + 7 * i + rng.uniform(-0.5, 0.5), 30 + 7 * j + rng.uniform(-0.5, 0.5)) for i in range(14) for j in range(12)
    ]
    for east, south in places:
        r = np.hypot(x - east, y - south) / 3
        chm = np.maximum(chm, np.where(r < 1, rng.uniform(14, 18) - 3 * (1 - np.sqrt(np.maximum(1 - r**2, 0))), 0))
    found = surfaces(tmp_path, chm)
    tops, stands = trees.tree_layers(found)
    assert len(tops.geometries) == pytest.approx(len(places), abs=6)
    assert np.allclose(tops.columns["height_sigma_m"], 1.0, atol=1e-3)
    east = shapely.get_x(np.asarray(tops.geometries))
    assert east.min() > 3e5 + 28 and east.max() < 3e5 + 125
    assert len(stands.geometries) == 1
    assert stands.columns["area_m2"][0] == pytest.approx(98 * 84, rel=0.35)
    assert 15 < stands.columns["top_height_m"][0] < 18
    assert stands.columns["mean_height_m"][0] == pytest.approx(chm[chm >= 3].mean(), abs=0.2)
    assert stands.columns["trees"][0] == pytest.approx(len(places), rel=0.35)
    monkeypatch.setattr(trees, "BLOCK_COARSE", 3)
    again, parts = trees.tree_layers(found, 2)
    assert shapely.get_coordinates(again.geometries).tolist() == shapely.get_coordinates(tops.geometries).tolist()
    assert all((again.columns[n] == tops.columns[n]).all() for n in tops.columns)
    assert all((parts.columns[n] == stands.columns[n]).all() for n in stands.columns)


@pytest.mark.slow
def test_check_canopy__held_out_tracks(tmp_path: Path) -> None:
    fine = Grid(GRID.reference, 3e5, 4e6, 1.0, 640, 640)
    cells = StoredCells.create(fine, tmp_path)
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:80, 0:80] * 8.0
    truth = 300 + 0.2 * x + 12 * np.sin(x / 75) * np.cos(y / 90)
    forest = (np.abs(x - 320) < 180) & (np.abs(y - 320) < 180)
    top = np.where(forest, truth + 16 + rng.normal(0, 3, x.shape), truth + 0.1)
    one = np.ones(x.shape)
    trend = cv2.GaussianBlur(top, (0, 0), 2.0)
    floor = np.full(x.shape, np.nan), 0 * one, 0 * one, np.full(x.shape, np.nan), one  # nothing seen between crowns
    values = (np.where(forest, np.nan, truth), 0.2 * one, np.where(forest, 0, 1.0), top, trend, one, *floor)
    assert len(values) == len(LAYERS)
    for layer, a in zip(cells.layers, values, strict=True):
        layer.write(0, 0, a.astype(np.float32))
    n = 120
    track = np.arange(n) % 4
    column, row = 20 + 10.0 * track + rng.uniform(0, 8, n), rng.uniform(20, 60, n)
    height = bilinear(truth, column, row) + rng.normal(0, 0.3, n)
    lon, lat = to_lonlat("EPSG:32654", 3e5 + (column + 0.5) * 8, 4e6 - (row + 0.5) * 8)
    full = np.ones(n)
    returns = LidarReturns(
        lon, lat, height, 0.3 * full, 20 * full, 11 * full, 19 * full, np.arange(n) * 1.0, track.astype(np.int32),
        ("a", "b", "c", "d"), ("ATL08",) * 4,
    )  # fmt: skip
    check = check_canopy(cells, returns, 1)
    assert check is not None and check.folds == 3
    assert check.ground.n > 80 and check.ground.rmse < 1.2 and abs(check.ground.bias) < 0.4
    assert check.coverage[0] > 0.6 and check.coverage[2] > 0.9
    assert check.canopy is not None and abs(check.canopy.bias) < 3
    assert check_canopy(cells, returns.select(track == 0), 1) is None
