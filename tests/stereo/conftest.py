"""A pair of exact cameras over flat country with one block on it, and its rendered images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.write import write_image
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile, open_image
from terrain3d.raster import Grid
from terrain3d.simulate.noise import fractal
from terrain3d.simulate.render import render
from terrain3d.simulate.sensor import Pointing, camera_over, fit_rpc
from terrain3d.simulate.sensor import View as Sight
from terrain3d.simulate.shade import illuminate
from terrain3d.simulate.world import CENTRE, REFERENCE, World

CRS = REFERENCE.horizontal
GROUND, ROOF = 520.0, 532.0
BLOCK = (-25.0, -15.0, 25.0, 15.0)  # west, south, east, north against the centre, metres
NO_ERROR = Pointing((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)


@dataclass(frozen=True)
class Stage:
    """Two views without pointing errors of flat ground with a block on it."""

    views: list[View]

    def height_at(self, east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.float64]:
        west, south, e, n = BLOCK
        x, y = east - CENTRE[0], north - CENTRE[1]
        return np.where((x > west) & (x < e) & (y > south) & (y < n), ROOF, GROUND)

    def from_edge(self, east: NDArray[np.float64], north: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the outline of the block, metres."""
        west, south, e, n = BLOCK
        x, y = east - CENTRE[0], north - CENTRE[1]
        dx, dy = np.maximum(west - x, x - e), np.maximum(south - y, y - n)
        return np.abs(np.where((dx > 0) & (dy > 0), np.hypot(dx, dy), np.maximum(dx, dy)))


@cache
def _view_of(
    grid: Grid, along_deg: float, across_deg: float = 0.0, gsd: float = 0.5, name: str = "v", heading_deg: float = 191.0
) -> View:
    """A view without pointing error whose image is not read."""
    camera = camera_over(grid, GROUND, Sight(along_deg, across_deg, heading_deg), gsd)
    rpc = fit_rpc(camera, NO_ERROR, CRS, (450.0, 650.0))
    return View(name, ImageFile(Path(f"{name}.tif"), camera.lines, camera.samples, 0.0, "uint16", 1), Camera(rpc))


def _area(size: float, east: float = 0.0, north: float = 0.0) -> Grid:
    """Ground of that size, its centre moved."""
    x, y = CENTRE[0] + east, CENTRE[1] + north
    return Grid.from_bounds(REFERENCE, x - size / 2, y - size / 2, x + size / 2, y + size / 2, 0.25)


@pytest.fixture(scope="session")
def view_of() -> Callable[..., View]:
    """Maker of views without images: ``view_of(grid, along_deg, across_deg, gsd)``."""
    return _view_of


@pytest.fixture(scope="session")
def area() -> Callable[..., Grid]:
    """Maker of ground: ``area(size, east, north)``, the centre moved by east and north."""
    return _area


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    folder, grid = tmp_path_factory.mktemp("stage"), _area(180)
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(*grid.centres())
    surface = Stage([]).height_at(x, y).astype(np.float32)
    texture = fractal(rng, grid.shape, grid.resolution, 12.0, 0.5, 1.6) + 0.3 * rng.standard_normal(grid.shape)
    albedo = np.clip(0.3 * (1 + 0.3 * texture), 0.05, 0.8).astype(np.float32)
    world = World(
        grid, surface, np.full(grid.shape, GROUND, np.float32), np.full(grid.shape, 2, np.uint8), albedo,
        np.zeros(grid.shape, np.int32), np.zeros(grid.shape, np.float32), (),
    )  # fmt: skip
    lit = illuminate(world)
    views = []
    for i, along in enumerate((12.0, -10.0)):
        camera = camera_over(grid, GROUND, Sight(along, 1.5 - i), 0.5)
        image = render(lit, camera, np.random.default_rng(i))
        rpc = fit_rpc(camera, NO_ERROR, CRS, (480.0, 570.0))
        path = write_image(folder / f"view_{i}.tif", image, rpc)
        views.append(View(path.stem, open_image(path), Camera(rpc)))
    return Stage(views)
