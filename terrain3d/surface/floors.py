"""Floors of the cells of a canopy: is the lowest that was matched in a cell the ground in a gap, or a crown's flank?

Ground lies as deep under the tops as the stand is high, and is flat; the flanks of crowns are steep and lie anywhere
above. By these two looks alone a floor has odds of being ground; where it lies against an estimate of the ground that
does not know it decides further. Floors of crowns lie at like heights over wide parts of a closed canopy, so an
estimate that knows them would confirm itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from terrain3d.surface.canopy_cells import CanopyCells

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

FLOOR_ERROR = 0.7  # m, 1-sigma of a floor that is ground: blurred with the crowns around, and of a few square metres
# Logarithm of the odds of ground, and its growth with that of depth over the height of the stand, and of flatness.
# Fitted on own scenes, where floors are ground as often as they are said to be.
_ODDS, _OF_DEPTH, _OF_FLATNESS = 1.9, 4.6, 1.0
_LEAST_RATIO, _MOST_RATIO, _LEAST_STAND = 0.05, 1.3, 2.0
_LIKELY = 0.5  # a floor that looks less like ground is left alone
_FIRST_ODDS, _FIRST_OF_DEPTH, _AROUND = -0.5, 3.0, 11  # the same with depth over that in so many cells around
_LEAST_CLEAR = 10  # floors that tell how high the stand is
_STAND = 20.0  # m over the ground, in which floors that are not ground lie
_CHANCE = 0.002  # a metre: of a floor that is neither ground nor in the stand
_MOST_SHARE = 0.9  # that an observation may have in the estimate at its place
_GROSS, _GROSS_RANGE = 0.1, 60.0  # share of returns that are not of the ground, and metres over which they lie


@dataclass(frozen=True)
class Floors:
    """Floors of some cells. which: (h, w) those cells. column, row: (N,) places in cells; height (m), depth under the
    top (m), flatness, and depth over that around: each (N,)."""

    which: Bools
    column: Floats
    row: Floats
    height: Floats
    depth: Floats
    flatness: Floats
    relative: Floats

    def clear_stand(self) -> float | None:
        """Height of the stand by floors that are clearly ground, metres; None with too few."""
        clear = _FIRST_ODDS + _FIRST_OF_DEPTH * np.log(self.relative) + _OF_FLATNESS * np.log(self.flatness) > 0
        return float(np.median(self.depth[clear])) if clear.sum() >= _LEAST_CLEAR else None

    def believed(self, off: Floats, sigma: Floats, stand: Floats) -> Floats:
        """Probability that each floor is ground. off, sigma: over an estimate that does not know it, see ``left_out``;
        stand: height of the stand there, metres."""
        ratio = np.clip(self.depth / np.maximum(stand, _LEAST_STAND), _LEAST_RATIO, _MOST_RATIO)
        likely = 1 / (1 + np.exp(-_ODDS - _OF_DEPTH * np.log(ratio) - _OF_FLATNESS * np.log(self.flatness)))
        ground = likely * _normal(off, sigma)
        crown = (1 - likely) / _STAND * (ndtr(off / sigma) - ndtr((off - _STAND) / sigma))
        return np.where(likely > _LIKELY, ground / (ground + crown + _CHANCE), 0.0)


def find_floors(cells: CanopyCells, which: Bools) -> Floors:
    """Floors of the cells that have one, of those asked for."""
    which = which & np.isfinite(cells.floor)
    rows, columns = np.nonzero(which)
    depth = np.maximum(cells.depth, np.float32(0))
    known = np.isfinite(depth)
    share, total = (
        cv2.blur(a.astype(np.float32), (_AROUND, _AROUND)) for a in (known, np.where(known, depth, np.float32(0)))
    )
    relative = depth * share / np.maximum(total, share)  # at least a metre around
    flat, relative = (np.maximum(a[which].astype(float), _LEAST_RATIO) for a in (cells.flatness, relative))
    column, row = columns + cells.floor_right[which].astype(float), rows + cells.floor_down[which].astype(float)
    return Floors(which, column, row, cells.floor[which].astype(float), depth[which].astype(float), flat, relative)


def left_out(off: Floats, sigma: Floats, error: Floats | float, weight: Floats) -> tuple[Floats, Floats]:
    """How far observations lie off an estimate that does not know them, and the 1-sigma of that.

    off: from the estimate that knows them, whose 1-sigma is ``sigma``. error: their own 1-sigma. weight: that they
    had. By the leverage of each (Cook & Weisberg 1982).
    """
    share = np.minimum(weight * (sigma / error) ** 2, _MOST_SHARE)
    return off / (1 - share), np.sqrt(np.square(error) + sigma**2 / (1 - share))


def honest(off: Floats, sigma: Floats) -> Floats:
    """Probability that lidar returns are of the ground and not gross; off, sigma: as ``left_out`` gives them."""
    ground = (1 - _GROSS) * _normal(off, sigma)
    return np.asarray(ground / (ground + _GROSS / _GROSS_RANGE))


def _normal(off: Floats, sigma: Floats) -> Floats:
    return np.asarray(np.exp(-0.5 * (off / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi)))
