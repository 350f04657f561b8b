"""A small made-up place whose every height is known."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.change.epoch import Epoch
from terrain3d.crs import ELLIPSOID, Reference, Vertical
from terrain3d.raster import Grid, Raster

Heights = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
WEST, NORTH = 500_000.0, 3_900_000.0
SIZE = 400
RESOLUTION = 0.5


def ground(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rolling ground, 200 m x 200 m, x and y from its south-west corner, with four gabled houses."""
    z = 100 + 0.06 * y + 4 * np.sin(x / 17) * np.cos(y / 23) + 1.5 * np.sin((x + y) / 9)
    for east, north in ((20, 30), (150, 40), (40, 160), (165, 150)):
        inside = (np.abs(x - east) < 8) & (np.abs(y - north) < 6)
        z = np.where(inside, 100 + 0.06 * north + 9 - 0.5 * np.abs(y - north), z)
    return z


def noise(seed: int, sigma: float, shape: tuple[int, int], length: float = 2.0) -> NDArray[np.float32]:
    """Errors of a matched surface: spatially correlated, standard deviation ``sigma``."""
    white = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    smooth = cv2.GaussianBlur(white, (0, 0), length, borderType=cv2.BORDER_REFLECT)
    return np.asarray(sigma * smooth / smooth.std(), np.float32)


Build = Callable[..., Epoch]


@pytest.fixture(scope="session")
def build() -> Build:
    """Function that makes an epoch of the place; ``change`` alters the heights, (east, north, up) displace them."""

    def make(
        seed: int,
        change: Callable[..., NDArray[np.float64]] | None = None,
        shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
        tilt: tuple[float, float] = (0.0, 0.0),
        resolution: float = RESOLUTION,
        cells: int = SIZE,
        offset: tuple[float, float] = (0.0, 0.0),
        vertical: Vertical = ELLIPSOID,
        sigma: float = 0.2,
    ) -> Epoch:
        west, north = WEST + offset[0], NORTH + offset[1]
        grid = Grid(Reference("EPSG:32654", vertical), west, north, resolution, cells, cells)
        columns, rows = grid.centres()
        x, y = np.meshgrid(columns - WEST, rows - (NORTH - SIZE * RESOLUTION))
        x0, y0 = x - shift[0], y - shift[1]
        z = ground(x0, y0)
        if change is not None:
            z = change(z, x0, y0)
        half = SIZE * RESOLUTION / 2
        z = z + shift[2] + tilt[0] * (x - half) + tilt[1] * (y - half) + noise(seed, sigma, grid.shape)
        known = Raster(np.full(grid.shape, sigma, np.float32), grid)
        return Epoch(f"epoch{seed}", Raster(z.astype(np.float32), grid), sigma=known)

    return make


@pytest.fixture(scope="session")
def box() -> Callable[..., Callable[..., NDArray[np.float64]]]:
    """Function that makes a change: height ``dz`` added within a rectangle about (east, north)."""

    def make(dz: float, east: float = 100, north: float = 100, width: float = 20, depth: float = 14):  # type: ignore[no-untyped-def]
        def change(z, x, y):  # type: ignore[no-untyped-def]
            return z + dz * ((np.abs(x - east) < width / 2) & (np.abs(y - north) < depth / 2))

        return change

    return make
