"""How well a model as a whole lies where it should: what is alike in all cells, and so in no difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrain3d.adjust.bundle import BIAS_SIGMA_PX
from terrain3d.adjust.sigma import position_sigma
from terrain3d.pipeline.result import RunResult

LIDAR, POINTING = "lidar", "pointing of the images"


@dataclass(frozen=True)
class Placement:
    """1-sigma (m) of the place of the model's middle. rests_on: ``LIDAR``, and then the sigma of every cell has the
    part of the height in it, or ``POINTING``, and then no cell's sigma has any of it."""

    east: float
    north: float
    height: float
    rests_on: str

    def text(self) -> str:
        """One sentence for a report."""
        place = f"{self.height:.2g} m in height, {self.east:.2g} m east and {self.north:.2g} m north (1-sigma)"
        if self.rests_on == LIDAR:
            return f"The model as a whole lies true to the lidar within {place}; the sigma of the cells counts that."
        return (
            f"The model as a whole may lie off by {place}: nothing but the pointing of the images says where it is, "
            f"and their errors are taken as independent, of {BIAS_SIGMA_PX:g} px. The sigma of the cells is that of "
            "heights against each other and does not count it."
        )


def placement(result: RunResult) -> Placement:
    """Placement of a finished model."""
    grid = result.surfaces.dsm.grid
    west, south, east, north = grid.bounds
    middle = np.array([(west + east) / 2]), np.array([(south + north) / 2])
    found = result.registration
    if found is not None and found.applied:
        sideways = np.sqrt(np.diag(found.covariance)[:2])
        return Placement(float(sideways[0]), float(sideways[1]), float(found.move.sigma_at(*middle)[0]), LIDAR)
    network, views = result.network, tuple(range(len(result.views)))
    height = sum(network.heights) / 2
    sigma = position_sigma(network.adjustment, views, grid.reference.horizontal, *middle, height)[0]
    east, north, up = (float(s) for s in sigma)
    return Placement(east, north, up, POINTING)
