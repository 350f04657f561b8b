"""Cameras that follow their model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile
from terrain3d.raster import Grid
from terrain3d.register.cameras import move_camera
from terrain3d.register.registration import Registration
from terrain3d.simulate.sensor import Pointing, camera_over, fit_rpc
from terrain3d.simulate.sensor import View as Sight
from terrain3d.simulate.world import CENTRE, REFERENCE

CRS = REFERENCE.horizontal
X, Y = CENTRE
JITTER = tuple((0.3 * np.sin(np.arange(12.0))).tolist())


@dataclass(frozen=True)
class Shift:
    """Stands for a registration that shifts the model."""

    by: tuple[float, float, float] = (3.0, -2.0, 4.0)

    def apply(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        return xyz + self.by


@pytest.mark.parametrize("along", [(), JITTER])
def test_move_camera__sees_the_moved_point_where_it_saw_the_old(along: tuple[float, ...]) -> None:
    grid = Grid.from_bounds(REFERENCE, X - 300, Y - 300, X + 300, Y + 300, 1.0)
    exact = camera_over(grid, 540.0, Sight(12.0, 3.0), 0.5)
    rpc = fit_rpc(exact, Pointing((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0), CRS, (500.0, 600.0))
    camera = Camera(rpc.normalized(exact.lines, exact.samples))
    camera = camera.corrected(Correction((1.0, 0.2, 0.0), (-2.0, 0.1, 0.1), along, along[::-1]))
    view = View("v", ImageFile(Path("v.tif"), exact.lines, exact.samples, 0.0, "uint16", 1), camera)
    moved = move_camera(view, cast(Registration, Shift()), CRS, (510.0, 580.0))
    rng = np.random.default_rng(0)
    points = np.column_stack(
        [rng.uniform(X - 250, X + 250, 500), rng.uniform(Y - 250, Y + 250, 500), np.full(500, 540.0)]
    )
    old, new = view.project(CRS, *points.T), moved.project(CRS, *Shift().apply(points).T)
    np.testing.assert_allclose(new, old, rtol=0, atol=0.02)
