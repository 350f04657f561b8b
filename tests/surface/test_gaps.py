from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.surface.gaps import from_gaps, likely_ground

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 200, 200)


def raster(values: np.ndarray) -> Raster:
    return Raster(values.astype(np.float32), GRID)


def forest(ground: np.ndarray, seed: int = 1, share: float = 0.75) -> tuple[np.ndarray, np.ndarray]:
    """Surface of crowns 12 m high on ground, blurred a little, and where it is ground."""
    rng = np.random.default_rng(seed)
    row, column = np.indices(ground.shape)
    height = np.zeros(ground.shape)
    for r, c, radius in zip(*rng.uniform(0, 200, (2, 400)), rng.uniform(3, 7, 400), strict=True):
        far = np.hypot(row - r, column - c) / radius
        if (height > 0).mean() < share:
            height = np.maximum(height, np.where(far < 1, 8 + 4 * np.sqrt(np.maximum(1 - far**2, 0)), 0))
    return ground + height + rng.normal(0, 0.1, ground.shape), height == 0


def test_likely_ground__even_and_low_cells_away_from_crowns() -> None:
    surface, open_ground = forest(np.zeros(GRID.shape))
    likely = likely_ground(raster(surface), raster(np.full(GRID.shape, 0.2)), np.zeros(GRID.shape, np.float32))
    middle = cv2.erode(open_ground.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    rim = ~open_ground & (cv2.dilate(open_ground.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    assert likely[middle].min() > 0.85 > 0.3 > likely[rim].max()
    surface[:] = np.nan
    assert (likely_ground(raster(surface), raster(surface), np.zeros(GRID.shape, np.float32)) == 0).all()


@pytest.mark.parametrize("off", [1.2, -1.2, 0.0])
def test_from_gaps__brings_the_estimate_to_the_ground_between_crowns(off: float) -> None:
    row, column = np.indices(GRID.shape)
    ground = 100 + 0.1 * column + off * np.sin(column / 20) * np.cos(row / 25)
    surface, _ = forest(ground)
    under = (100 + 0.1 * column).astype(np.float32)
    error = np.full(GRID.shape, 1.5, np.float32)
    left = (under + from_gaps(raster(surface), raster(np.full(GRID.shape, 0.15)), under, error) - ground)[
        20:-20, 20:-20
    ]
    before = (under - ground)[20:-20, 20:-20]
    assert np.sqrt((left**2).mean()) < 0.55 * np.sqrt((before**2).mean()) + 0.15


def test_from_gaps__closed_crowns_and_voids_change_nothing() -> None:
    under, error = np.full(GRID.shape, 100, np.float32), np.full(GRID.shape, np.nan, np.float32)
    surface = np.full(GRID.shape, 112.0)
    surface[50:80] = np.nan
    assert (from_gaps(raster(surface), raster(np.full(GRID.shape, 0.2)), under, error) == 0).all()


def test_from_gaps__an_estimate_off_by_more_than_a_crown_is_not_bent() -> None:
    surface, _ = forest(np.full(GRID.shape, 100.0))
    under, sigma = np.full(GRID.shape, 98.5, np.float32), raster(np.full(GRID.shape, 0.15))
    sure, unsure = (from_gaps(raster(surface), sigma, under, np.full(GRID.shape, e, np.float32)) for e in (2, 12))
    assert np.median(sure) > 1.0
    assert np.median(np.abs(unsure)) < 0.1 and np.abs(unsure).max() < 0.4
