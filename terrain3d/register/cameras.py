"""A registered model moves its cameras too, so that images and surfaces stay consistent."""

from __future__ import annotations

import numpy as np

from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.image.view import View
from terrain3d.register.registration import Registration


def move_camera(view: View, registration: Registration, crs: str, heights: tuple[float, float]) -> View:
    """View whose camera projects a point of the registered model to where the old camera projected the old point.

    A shift of the model by metres is a bias in the image to a very good approximation; bias and drift are fitted over
    the image and the range of heights.
    """
    line, sample = (a.ravel() for a in np.meshgrid(
        np.linspace(0, view.image.height - 1, 7), np.linspace(0, view.image.width - 1, 7)
    ))  # fmt: skip
    line, sample = np.tile(line, 3), np.tile(sample, 3)
    height = np.repeat(np.linspace(*heights, 3), 49)
    x, y = from_lonlat(crs, *view.camera.locate(line, sample, height))
    moved = registration.apply(np.column_stack([x, y, height]))
    bare = Camera(view.camera.rpc)
    rpc_line, rpc_sample = bare.project(*to_lonlat(crs, moved[:, 0], moved[:, 1]), moved[:, 2])
    r = view.camera.rpc
    basis = np.column_stack(
        [np.ones_like(line), (rpc_line - r.line_off) / r.line_scale, (rpc_sample - r.samp_off) / r.samp_scale]
    )
    a, b = (np.linalg.lstsq(basis, observed, rcond=None)[0] for observed in (line - rpc_line, sample - rpc_sample))
    return view.with_camera(bare.corrected(Correction((a[0], a[1], a[2]), (b[0], b[1], b[2]))))
