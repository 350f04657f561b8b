"""How well a model as a whole lies where it should: what is alike in all cells, and so in no difference of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrain3d.adjust.bundle import BIAS_SIGMA_PX
from terrain3d.adjust.network import Network
from terrain3d.adjust.pointing import Pointing, pointing_of
from terrain3d.pipeline.result import RunResult
from terrain3d.raster import Grid
from terrain3d.register.registration import Registration

LIDAR, POINTING = "lidar", "pointing of the images"


@dataclass(frozen=True)
class Placement:
    """1-sigma (m) of the place of the model's middle. rests_on: ``LIDAR``, and then the sigma of every cell has the
    part of the height in it, or ``POINTING``, and then no cell's sigma has any of it. pointing_px: 1-sigma of the
    errors of pointing, as ties and lidar show them."""

    east: float
    north: float
    height: float
    rests_on: str
    pointing_px: float

    def text(self) -> str:
        """One sentence for a report."""
        place = f"{self.height:.2g} m in height, {self.east:.2g} m east and {self.north:.2g} m north (1-sigma)"
        if self.rests_on == LIDAR:
            return f"The model as a whole lies true to the lidar within {place}; the sigma of the cells counts that."
        return (
            f"The model as a whole may lie off by {place}: nothing but the pointing of the images says where it is, "
            f"and their errors are taken as independent, of {self.pointing_px:.2g} px as the ties show. The sigma of "
            "the cells is that of heights against each other and does not count it."
        )


def pointing(network: Network, grid: Grid) -> Pointing:
    """What the orientation of the images tells of the place of the middle of a model."""
    west, south, east, north = grid.bounds
    middle = (west + east) / 2, (south + north) / 2
    return pointing_of(network.adjustment, grid.reference.horizontal, *middle, sum(network.heights) / 2)


def raised(found: Registration | None, grid: Grid) -> float | None:
    """By how much lidar raised the middle of a model; None where it did not."""
    west, south, east, north = grid.bounds
    if found is None or not found.applied:
        return None
    return float(found.vertical_at(np.array([(west + east) / 2]), np.array([(south + north) / 2]))[0])


def placement(result: RunResult) -> Placement:
    """Placement of a finished model."""
    grid, found = result.surfaces.dsm.grid, result.registration
    seen, up = pointing(result.network, grid), raised(found, grid)
    if found is not None and up is not None:
        west, south, east, north = grid.bounds
        middle = np.array([(west + east) / 2]), np.array([(south + north) / 2])
        sideways = np.sqrt(np.diag(found.covariance)[:2])
        height, size = float(found.move.sigma_at(*middle)[0]), seen.seen_up(up).size
        return Placement(float(sideways[0]), float(sideways[1]), height, LIDAR, size * BIAS_SIGMA_PX)
    east, north, height = (float(s) for s in seen.sigma)
    return Placement(east, north, height, POINTING, seen.size * BIAS_SIGMA_PX)
