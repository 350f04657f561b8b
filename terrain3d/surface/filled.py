"""Filled cells of a surface model by what they hide, once the terrain is known.

Between ground and crown there is nothing, so no mean of the two may stand there. What a crown or roof was carried over
is ground; if what was matched lies near the terrain, it hung over nothing, and stays. Where nothing was matched the
ground is most often hidden or in shadow too; but a void that all around is level with its edge, high over the terrain,
is one in a roof.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.rims import STEP

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

ROOF = 3.0  # m over the terrain from which on a void may be one in a roof
LEVEL = 1.0  # m between a void's filling and the edge that it continues
AROUND = 9.0  # m, window of the share of the edge that is level with the filling
TERRAIN, CROWN = 0.6, 0.85  # factors of the terrain's sigma and of the crown's height, chosen as in ``sigma``
SHARE = 0.6  # of the edge around a void in a roof; of gaps between crowns less than half is level


@dataclass(frozen=True)
class Overhangs:
    """What was matched where a crown or roof was carried over the ground: heights (h, w; m, NaN where nothing was
    matched at all), and the logarithm of the odds that it was."""

    heights: Singles
    odds: Singles


def on_terrain(
    dsm: Raster, sigma: Raster, terrain: Raster, terrain_sigma: Raster, filled: Bools, over: Overhangs
) -> tuple[Raster, Raster]:
    """Surface and its sigma (m) with those of the terrain in the filled cells that are ground.

    dsm, sigma, terrain, terrain_sigma: (h, w) metres, NaN for none. filled: (h, w) cells of ``dsm`` that were filled.
    The sigma counts how likely an overhang is what was matched after all; where nothing was, it is not less than that
    of the filling. Cells farther than ``AROUND`` from the border do not depend on what lies beyond it.
    """
    z, ground = np.asarray(dsm.values, np.float32), np.asarray(terrain.values, np.float32)
    hanging = filled & np.isfinite(over.heights)
    lower = filled & np.isfinite(ground) & (hanging | ~_in_roof(dsm, ground, filled))
    seen = hanging & (np.abs(over.heights - ground) < STEP)
    ground = np.where(seen, over.heights, ground)
    crown = (CROWN * (over.heights - ground)) ** 2 / (1 + np.exp(over.odds))
    lowered = np.sqrt((TERRAIN * terrain_sigma.values) ** 2 + crown)
    spread = np.where(hanging, lowered, np.fmax(terrain_sigma.values, sigma.values))
    return (
        replace(dsm, values=np.where(lower, ground, z)),
        replace(sigma, values=np.where(lower, spread, sigma.values).astype(np.float32)),
    )


def _in_roof(dsm: Raster, ground: Singles, filled: Bools) -> Bools:
    """Filled cells high over the ground whose edge around is level with them."""
    z, touching = np.asarray(dsm.values, np.float32), np.ones((3, 3), np.uint8)
    high = filled & (z - ground > ROOF)
    if not high.any():
        return high
    edge = (cv2.dilate(filled.astype(np.uint8), touching) > 0) & ~filled & np.isfinite(z)
    level = edge & (z <= cv2.erode(np.where(filled, z, np.float32(np.inf)), touching) + LEVEL)
    size = (odd_cells(AROUND, dsm.grid.resolution),) * 2
    whole, share = (cv2.blur(cells.astype(np.float32), size) for cells in (edge, level))
    return high & (share > SHARE * whole)
