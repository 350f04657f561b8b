"""Large smooth pieces of a surface: land that an opening must not cut, and roofs that are too wide for it.

An opening cuts whatever stands out of a window: houses, but also the brows of cliffs, the benches of quarries and
terraces. Both are smooth. They differ at their rims: a house falls off to nearly all sides, land joins other land along
a good part of its rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.disks import disk
from terrain3d.surface.openings import bends

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
Labels = NDArray[np.int32]
Cells = NDArray[np.int64]

_LEVEL_SLOPE = 0.5  # of benches, terraces and streets, which no wall has
BEND, BEND_REACH = 1.0, 3.0  # m of a second difference, over m: planes that meet at a wall, and crowns, have more
LEAST_AREA = 100.0  # m2, more than the tops of crowns
_KEPT = 0.15  # share that the openings leave of land; of a roof they leave nothing
_OUT = 4.0  # m beyond a rim, past what matching blurs of a wall
_FALL, _FALL_WIDE = 0.4, 0.65  # slope to there that tells a rim from which a piece falls off; of a large piece
_LARGE = 0.2  # share of all the land it joins from which a piece is large: a bench is, a house is not
_STANDING = 0.55  # share of a rim that falls off where something stands on the land
_FOOT, _FOOT_RISE = 3.0, 1.0  # m around the foot of a blurred wall, and over it
_STEP = 5.0  # m between two pieces of land nearby: a wall joins them
_WALL, _WALLED, _KNOWN = 1.0, 0.9, 0.6  # slope of a wall, share of a roof's rim that is one, and that is known
WIDEST_AREA = 60_000.0  # m2 of a roof


def land(z: Singles, ok: Bools, cut: Bools, cell: float, tilt: tuple[float, float] = (0.0, 0.0)) -> Bools:
    """Cells of smooth land, (h, w), cut or not, with the steps between its pieces.

    z: (h, w) metres, everywhere. ok: cells with evidence. cut: what the openings cut. tilt: as for
    ``openings.terrain_slope``. There are no single crowns in it, and no feet of walls.
    """
    found = np.zeros(z.shape, bool)
    if min(z.shape) < 3:
        return found
    for smooth in (_level(z, cell, tilt), bend(z, cell) < BEND):
        labels, area = _pieces(smooth & ok, cell)
        kept = np.bincount(labels[~cut], minlength=len(area)) * cell**2
        terrain = (kept >= _KEPT * area) & (area >= LEAST_AREA)
        terrain[0] = False
        whole = np.where(terrain, area, 0.0)[labels]
        found |= (whole > 0) & ~_standing(z, ok, cut, whole, cell)
    # the feet of walls, blurred by matching, join the land without a step
    higher = cv2.dilate(np.where(cut & ~found, z, np.float32(-1e6)), disk(_FOOT / cell))
    found &= higher < z + _FOOT_RISE
    return found | (ok & ~_level(z, cell, tilt) & _between(z, found, cell))


def roofs(z: Singles, ok: Bools, cell: float, tilt: tuple[float, float] = (0.0, 0.0)) -> Bools:
    """Cells of level pieces of any width with walls on nearly all sides, and of the walls, (h, w); see ``land``."""
    if min(z.shape) < 3:
        return np.zeros(z.shape, bool)
    labels, area = _pieces(_level(z, cell, tilt) & ok, cell)
    rim, walled, known = _rims(z, ok, labels, len(area), cell, _WALL)
    roof = (walled >= _WALLED * known) & (known >= _KNOWN * rim) & (area >= LEAST_AREA) & (area <= WIDEST_AREA)
    roof[0] = False
    return cv2.dilate(roof[labels].astype(np.uint8), disk(_OUT / cell)) > 0


def bend(z: Singles, cell: float, metres: float = BEND_REACH) -> Singles:
    """Largest of the ``bends``: small on planes of any slope, large where they meet, and on crowns."""
    out = np.zeros_like(z)
    for one in bends(z, cell, metres):
        np.maximum(out, one, out=out)
    return out


def _level(z: Singles, cell: float, tilt: tuple[float, float]) -> Bools:
    gy, gx = np.gradient(z, cell)
    return np.asarray(np.hypot(gx + tilt[0], gy + tilt[1]) < _LEVEL_SLOPE)


def _pieces(smooth: Bools, cell: float) -> tuple[Labels, NDArray[np.float64]]:
    """Connected cells, 0 where there are none, and the area of each piece in m2."""
    # narrow bridges of chance between a roof and the ground are opened away
    opened = cv2.morphologyEx(smooth.astype(np.uint8), cv2.MORPH_OPEN, disk(2 / cell))
    n, labels = cv2.connectedComponents(opened, connectivity=4)
    return np.asarray(labels, np.int32), np.bincount(labels.ravel(), minlength=n).astype(float) * cell**2


def _standing(z: Singles, ok: Bools, cut: Bools, whole: NDArray[np.float64], cell: float) -> Bools:
    """What the openings cut of smooth pieces and what falls off along most of its rim: it stands on the land.

    whole: area (m2) of the piece that a cell is part of, 0 where there is none.
    """
    n, labels = cv2.connectedComponents((cut & (whole > 0)).astype(np.uint8), connectivity=4)
    area, around = (np.bincount(labels.ravel(), w, n) for w in (None, whole.ravel()))
    large = area * cell**2 > _LARGE * around / np.maximum(area, 1)
    standing = np.zeros(n, bool)
    for which, slope in ((~large, _FALL), (large, _FALL_WIDE)):
        rim, falls, _ = _rims(z, ok, labels, n, cell, slope)
        standing |= which & (falls > _STANDING * rim)
    standing[0] = False
    return standing[labels]


def _rims(
    z: Singles, ok: Bools, labels: Labels, n: int, cell: float, slope: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Cells on the rim of each of ``n`` pieces, those from which it falls off steeper than ``slope``, and those beyond
    which the surface is known."""
    at = rim_of(labels > 0, cell)
    of = labels[at.row, at.column]
    falls = at.falls(z) > slope * _OUT
    counts = (np.bincount(of[which], minlength=n) for which in (slice(None), falls, at.known(ok)))
    rim, fallen, known = counts
    return rim, fallen, known


@dataclass(frozen=True)
class Rim:
    """Cells on the rim of pieces, and those ``_OUT`` beyond each; inside: whether the latter are on the raster."""

    row: Cells
    column: Cells
    out_row: Cells
    out_column: Cells
    inside: Bools

    def falls(self, z: Singles) -> Singles:
        """How far a surface falls from the cells to those beyond, metres; 0 where these are not on the raster."""
        return np.where(self.inside, z[self.row, self.column] - z[self.out_row, self.out_column], np.float32(0))

    def known(self, ok: Bools) -> Bools:
        """Whether the surface beyond is known."""
        return np.asarray(self.inside & ok[self.out_row, self.out_column])


def rim_of(pieces: Bools, cell: float) -> Rim:
    """The rim of pieces, which have no cell beyond the border of the raster."""
    mask = pieces.astype(np.uint8)
    inner = cv2.erode(mask, disk(1), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    rows, columns = np.nonzero(mask > inner)
    down, right = np.gradient(cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5 / cell))
    down, right = -down[rows, columns], -right[rows, columns]
    reach = _OUT / cell / np.maximum(np.hypot(down, right), np.float32(1e-6))
    r, c = np.rint(rows + reach * down).astype(np.int64), np.rint(columns + reach * right).astype(np.int64)
    inside = (r >= 0) & (c >= 0) & (r < mask.shape[0]) & (c < mask.shape[1])
    r, c = np.clip(r, 0, mask.shape[0] - 1), np.clip(c, 0, mask.shape[1] - 1)
    return Rim(rows, columns, r, c, inside)


def _between(z: Singles, found: Bools, cell: float) -> Bools:
    """Cells between land that is higher and land that is lower, both nearby and a wall apart."""
    around = disk(_OUT / cell)
    high = cv2.dilate(np.where(found, z, np.float32(-1e6)), around)
    low = cv2.erode(np.where(found, z, np.float32(1e6)), around)
    return np.asarray((high - low > _STEP) & (high < 1e5) & (low > -1e5) & (z < high) & (z > low))
