"""A registered model moves its cameras too, so that images and surfaces stay consistent."""

from __future__ import annotations

import numpy as np

from terrain3d.camera.adjusted import Camera, Correction, along_basis
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.image.view import View
from terrain3d.register.move import Move


def move_camera(view: View, move: Move, crs: str, heights: tuple[float, float]) -> View:
    """View whose camera projects a point of the registered model to where the old camera projected the old point.

    A shift of the model by metres is a bias in the image to a very good approximation; bias, drift and
    along-track terms are fitted over the image and the range of heights.
    """
    along = len(view.camera.correction.line_along)
    lines = max(7, 3 * along)
    line, sample = (a.ravel() for a in np.meshgrid(
        np.linspace(0, view.image.height - 1, lines), np.linspace(0, view.image.width - 1, 7)
    ))  # fmt: skip
    count = len(line)
    line, sample = np.tile(line, 3), np.tile(sample, 3)
    height = np.repeat(np.linspace(*heights, 3), count)
    x, y = from_lonlat(crs, *view.camera.locate(line, sample, height))
    moved = move.apply(np.column_stack([x, y, height]))
    bare = Camera(view.camera.rpc)
    rpc_line, rpc_sample = bare.project(*to_lonlat(crs, moved[:, 0], moved[:, 1]), moved[:, 2])
    u, v = bare.normalized(rpc_line, rpc_sample)
    basis = np.column_stack([np.ones_like(u), u, v])
    if along:
        basis = np.hstack([basis, along_basis(u, along)])
    a, b = (np.linalg.lstsq(basis, observed, rcond=None)[0] for observed in (line - rpc_line, sample - rpc_sample))
    return view.with_camera(bare.corrected(Correction.of(np.asarray(a, float), np.asarray(b, float))))
