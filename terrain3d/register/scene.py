"""A surface model and the returns on it: everything that stays the same while places of the model are compared."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.points import LidarReturns
from terrain3d.raster import Raster
from terrain3d.register.footprint import Footprints, place_footprints, sample_footprints
from terrain3d.register.level import on_missed_water
from terrain3d.register.objects import object_map
from terrain3d.register.shift import Fit, Linearization, fit_shift, linearize


@dataclass(frozen=True)
class Scene:
    """objects: see ``objects.object_map``. origin: of the tilt, east and north. dsm_sigma: 1-sigma of the heights."""

    dsm: Raster
    objects: Raster
    returns: LidarReturns
    footprints: Footprints
    origin: tuple[float, float]
    dsm_sigma: Raster | None

    def fit(self, free: tuple[int, ...], start: tuple[float, float]) -> tuple[Fit, Linearization]:
        return fit_shift(
            self.dsm, self.objects, self.returns, self.footprints, free, start, self.origin, self.dsm_sigma
        )

    def select(self, rows: NDArray[np.int64]) -> Scene:
        places = Footprints(*(getattr(self.footprints, f.name)[rows] for f in fields(Footprints)))
        return replace(self, returns=self.returns.select(rows), footprints=places)

    def hearing(self, says: NDArray[np.float64]) -> Scene:
        """With other chances of what the returns say, see ``Footprints.says``."""
        return replace(self, footprints=replace(self.footprints, says=says))

    def linearize(self, shift: tuple[float, float]) -> Linearization:
        return linearize(self.dsm, self.objects, self.returns, self.footprints, shift, self.origin, self.dsm_sigma)[0]


def prepare(dsm: Raster, returns: LidarReturns, dsm_sigma: Raster | None) -> Scene:
    """The scene of a surface model, with the returns placed on it."""
    footprints = place_footprints(returns, dsm.grid.reference.horizontal)
    objects = object_map(dsm)
    level = on_missed_water(returns, footprints, sample_footprints(dsm, objects, footprints))
    footprints = replace(footprints, level=level)
    west, south, east, north = dsm.grid.bounds
    return Scene(dsm, objects, returns, footprints, ((west + east) / 2, (south + north) / 2), dsm_sigma)
