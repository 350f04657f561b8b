"""How many images of a run see each cell of a surface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.config import load_scene
from terrain3d.image.view import lean
from terrain3d.pipeline.load import load_views
from terrain3d.raster import Raster
from terrain3d.surface.visibility import visible


def views_seeing(run: Path, surface: Raster) -> NDArray[np.int64]:
    """Number of images of a run's folder that see each cell (h, w) past everything that stands around it.

    surface: heights (m, NaN voids) near ellipsoidal ones. What its images leave out is not looked at. Raises what
    ``load_scene`` and ``load_views`` raise, if the images are no longer where they were.
    """
    x, y = (float(np.mean(a)) for a in surface.grid.centres())
    middle = float(np.nanmedian(surface.values))
    crs = surface.grid.reference.horizontal
    count = np.zeros(surface.grid.shape, np.int64)
    for view in load_views(load_scene(run / "config.yaml")):
        line, sample = view.project(crs, x, y, middle)
        east, north = (float(v) for v in np.ravel(lean(view, crs, middle, line, sample))[:2])
        count += visible(surface.values.astype(np.float32), surface.grid.resolution, (east, north))
    return count
