"""Filled cells of a surface model by what they hide, and its sigma, once the terrain is known.

Between ground and crown there is nothing, so no mean of the two may stand there. What a crown or roof was carried over
is ground; if what was matched lies near the terrain, it hung over nothing, and stays, but its sigma counts that it may
be ground. Where nothing was matched the ground is most often hidden or in shadow too; but a void that all around is
level with its edge, high over the terrain, is one in a roof. About every second of these cells is a crown after all, so
their sigma is a good part of its height.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Raster, odd_cells
from terrain3d.surface.rims import STEP
from terrain3d.surface.sigma import standing_sigma

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

ROOF = 3.0  # m over the terrain from which on a void may be one in a roof
LEVEL = 1.0  # m between a void's filling and the edge that it continues
AROUND = 9.0  # m, window of the share of the edge that is level with the filling
TERRAIN, CROWN = 0.58, 0.84  # factors of the terrain's sigma and of the crown's height, chosen as in ``sigma``
WRONG = 0.48, -0.3  # logistic regression of an overhang that was a crown after all: offset, by its odds of being ground
STAYED = 0.9  # share of the height over the terrain by which what hung over nothing is off: half of it is ground
NEAR_CROWN, NEAR_M = 0.42, 5.0  # share of the height of the highest crown around a void; m, window
OVERHANG = 0.5  # m, 1-sigma of the height of a rim that is one
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
    """Surface and its sigma (m) with those of the terrain in the filled cells that are ground, and the doubt of what
    stands over the terrain.

    dsm, sigma, terrain, terrain_sigma: (h, w) metres, NaN for none. filled: (h, w) cells of ``dsm`` that were filled.
    The sigma counts how likely an overhang is what was matched after all, and a void what stands around it; that of
    measured cells, how likely they are gaps between crowns. Cells farther than ``AROUND`` from the border do not depend
    on what lies beyond it.
    """
    z, ground = np.asarray(dsm.values, np.float32), np.asarray(terrain.values, np.float32)
    resolution = dsm.grid.resolution
    hanging = filled & np.isfinite(over.heights)
    lower = filled & np.isfinite(ground) & (hanging | ~_in_roof(dsm, ground, filled))
    seen = hanging & (np.abs(over.heights - ground) < STEP)
    tall = np.nan_to_num(np.fmax(z, over.heights) - ground)
    around = cv2.dilate(
        np.where(filled & ~hanging, np.float32(0), tall), np.ones((odd_cells(NEAR_M, resolution),) * 2, np.uint8)
    )
    base = np.where(seen, over.heights, ground)
    step = over.heights - ground
    doubt = np.where(seen, STAYED, CROWN / np.sqrt(1 + np.exp(-WRONG[0] - WRONG[1] * over.odds)))
    lowered = np.hypot(TERRAIN * terrain_sigma.values, doubt * step)
    empty = np.hypot(np.fmax(terrain_sigma.values, sigma.values), NEAR_CROWN * around)
    surface = np.where(lower, base, z)
    measured = np.where(filled, sigma.values, standing_sigma(surface - ground, sigma.values, resolution))
    spread = np.where(lower, np.where(hanging, lowered, empty), measured)
    return replace(dsm, values=surface), replace(sigma, values=spread.astype(np.float32))


@dataclass(frozen=True)
class Envelope:
    """Upper envelope of a surface and its sigma, m. raised: (h, w) cells where it is what crowns and roofs were carried
    over the ground."""

    height: Raster
    sigma: Raster
    raised: Bools


def enveloped(dsm: Raster, sigma: Raster, terrain: Raster, over: Overhangs, where: Bools) -> Envelope:
    """Envelope of a surface as ``on_terrain`` gives it and of its overhangs. The sigma counts how likely an overhang is
    none. where: (h, w) cells that may be raised."""
    z = np.asarray(dsm.values, np.float32)
    with np.errstate(invalid="ignore"):
        raised = where & np.isfinite(z) & (over.heights > z)
    height = np.where(raised, over.heights, z)
    step = np.nan_to_num(CROWN * (over.heights - terrain.values))
    own = np.hypot(OVERHANG, step / np.sqrt(1 + np.exp(WRONG[0] + WRONG[1] * over.odds)))
    return Envelope(
        replace(dsm, values=height),
        replace(sigma, values=np.where(raised, own, sigma.values).astype(np.float32)),
        raised,
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
