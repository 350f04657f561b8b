"""Ground under trees: what the surface, the gaps between crowns and lidar returns say together.

Where stereo sees only crowns, the top of the canopy is the ground and the height of the trees: ``top = ground + stand
+ chance``. The height of a stand changes slowly from place to place, that of single trees is chance, and terrain is
smooth in a known way: its second differences are alike on open ground and under trees. So ground and stand height are
estimated together as two Gaussian fields (Rasmussen & Williams 2006, ch. 2; thin-plate prior after Wahba 1990), from
ground that is seen, from tops, from lidar ground returns, and from the floors of gaps (``floors``). Returns, tops and
floors lose the weight with which they do not agree with the rest. The stand height is learnt from the returns, from
gaps and at the borders of the stands; without any of them the sigma says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from terrain3d.crs import from_lonlat
from terrain3d.points import LidarReturns, horizontal_sigma
from terrain3d.raster import Raster, bilinear
from terrain3d.surface.canopy_cells import CanopyCells
from terrain3d.surface.field import Solution, differences, interpolation, second_differences, selection, solve_field
from terrain3d.surface.floors import FLOOR_ERROR, Floors, find_floors, honest, left_out

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_OPEN, _OWN = 0.5, 0.3  # share of ground around a cell and in it from which the ground counts as seen
_CLOSED, _MIXED = 0.05, 0.3  # under it a canopy is closed; over it tops are not those of a stand
_NEAR = 5  # cells around a canopy that are solved with it
_STAND_CELL = 40.0  # m, nodes of the stand height
_STAND_STEP = 0.7  # m: 1-sigma of its change from node to node
_THIN_PLATE = 1.63  # sqrt(8 / 3): a field's second difference along one axis holds 3/8 of its thin-plate variance
# How far the smoothed surface's own bend lets that of the ground grow: crowns bend it a little, cliffs much more.
_BEND, _CLIFF, _CLIFF_FROM = 1.3, 2.0, 2.0  # factors of all of it, and of what is over so many metres
_LEAST_BEND = 0.1  # m
_STEEP = 30.0  # rise over run that a slope hardly exceeds, where nothing else is known
_FIRST_TOP = 6.0  # m: chance of tops before it is measured
_GROUND_ERROR, _RETURN_ERROR = 0.15, 0.5  # m, of cells that stand for more than they saw
_LEAST_WEIGHT = 0.02  # of floors and returns that count
_SPOT = 0.1  # share of slope times footprint: light reaches the ground at a few spots of a footprint, anywhere in it
_LOW_ERROR = 1.5  # m: of tops that are ground or shrubs
_SHARES = (0.6, 0.2, 0.2 / 12.0)  # prior of tops: canopy, ground, anything else (a metre)
ROUNDS = 5
_CALIBRATION = 1.4  # of the sigma: terrain is rougher in places than its second differences are on the whole
_GUESS_SIGMA = 0.6  # relative 1-sigma of a stand height that is only guessed from how far down stereo sees


@dataclass(frozen=True)
class GroundReturns:
    """Lidar ground returns in a surface's plane: place x, y and height, its sigma, that of the place, canopy height
    over the ground (NaN where unknown), and size of the footprint; all (N,) metres."""

    x: Floats
    y: Floats
    height: Floats
    sigma: Floats
    place_sigma: Floats
    canopy: Floats
    footprint: Floats

    def __len__(self) -> int:
        return len(self.height)

    def sigma_on(self, slope: Floats) -> Floats:
        """1-sigma under trees on a slope (rise over run) at each return, metres."""
        sideways = np.hypot(self.place_sigma, _SPOT * self.footprint)
        return np.asarray(np.sqrt(self.sigma**2 + (np.nan_to_num(slope) * sideways) ** 2))


@dataclass(frozen=True)
class HiddenGround:
    """Ground under trees on coarse cells: height and sigma (m, NaN away from trees), weight with which it stands for
    the terrain (0 to 1), stand height (m) that was found with it, and gap: 1 where ground was seen."""

    height: Raster
    sigma: Raster
    weight: Raster
    stand: Raster
    gap: Raster


def ground_returns(returns: LidarReturns, crs: str) -> GroundReturns:
    """Returns in the plane of a surface whose CRS is ``crs``."""
    x, y = from_lonlat(crs, returns.lon_deg, returns.lat_deg)
    footprint = np.nan_to_num(np.sqrt(returns.length * returns.width))
    return GroundReturns(x, y, returns.height, returns.sigma, horizontal_sigma(returns), returns.canopy, footprint)


@dataclass(frozen=True)
class _Evidence:
    """Cells of a part: seen ground, tops that may be a canopy's, those that are one to begin with, and active cells."""

    open: Bools
    tops: Bools
    closed: Bools
    active: Bools


def hidden_ground(cells: CanopyCells, returns: GroundReturns | None, rounds: int = ROUNDS) -> HiddenGround | None:
    """Ground under the trees of a scene, or of a part of it with a margin of some 250 m; None where there are none.

    rounds: in which doubtful evidence is weighed.
    """
    seen = _evidence(cells)
    if seen is None:
        return None
    estimate = _Estimate(cells, seen, returns)
    return estimate.result(estimate.solve(rounds))


def _evidence(cells: CanopyCells) -> _Evidence | None:
    share = _around(cells.share)
    ground = np.isfinite(cells.ground) & (share > _OPEN) & (cells.share > _OWN)
    tops = np.isfinite(cells.top) & ~ground & (cells.seen > _OWN) & (share < _MIXED)
    closed = tops & (share < _CLOSED)
    if not closed.any():
        return None
    near = cv2.dilate(closed.astype(np.uint8), np.ones((2 * _NEAR + 1,) * 2, np.uint8)) > 0
    return _Evidence(ground & near, tops & near, closed, near)


def _around(values: Singles) -> Singles:
    return np.asarray(cv2.blur(values, (3, 3)), np.float32)


class _Estimate:
    """The two fields of one part: built once, solved in rounds while doubtful evidence is weighed."""

    def __init__(self, cells: CanopyCells, seen: _Evidence, returns: GroundReturns | None) -> None:
        self.cells, self.seen = cells, seen
        self.base = float(np.mean(cells.trend[seen.active]))
        shape = tuple(int(n * cells.grid.resolution / _STAND_CELL) + 2 for n in cells.grid.shape)
        self.nodes = np.arange(int(np.prod(shape))).reshape(shape)
        self.ground_sigma = np.hypot(np.nan_to_num(cells.ground_sigma, nan=1.0), _GROUND_ERROR)[seen.open]
        self.number = np.full(cells.grid.shape, -1, np.int64)
        self.number[seen.active] = np.arange(int(seen.active.sum()))
        self.cells_n, self.nodes_n = int(seen.active.sum()), self.nodes.size
        self.stand_of_tops = self._stand(seen.tops)
        self.top = cells.top[seen.tops].astype(float) - self.base
        self.floors = self._floors()
        self.places_of_floors = interpolation(self.floors.column, self.floors.row, self.number, self.cells_n)
        self.stand_of_floors = self._stand(self.floors.which)
        self.returns, self.places = self._returns(returns)
        self.prior = self._prior()

    def _stand(self, where: Bools) -> sp.csr_matrix:
        """Stand height at cells from its nodes."""
        column, row = np.meshgrid(np.arange(where.shape[1]), np.arange(where.shape[0]))
        ratio = self.cells.grid.resolution / _STAND_CELL
        return interpolation((column[where] + 0.5) * ratio, (row[where] + 0.5) * ratio, self.nodes)

    def _floors(self) -> Floors:
        """Floors of the cells whose ground is not seen, at places between active cells."""
        found = find_floors(self.cells, self.seen.active & ~self.seen.open)
        whole = self._between_active(found.column, found.row)
        which = found.which.copy()
        which[which] = whole
        return find_floors(self.cells, which)

    def _between_active(self, column: Floats, row: Floats) -> Bools:
        h, w = self.number.shape
        c, r = (np.clip(np.floor(a).astype(np.int64), 0, max(n - 2, 0)) for a, n in ((column, w), (row, h)))
        corners = [self.number[np.minimum(r + i, h - 1), np.minimum(c + j, w - 1)] for i in (0, 1) for j in (0, 1)]
        return np.asarray(np.min(corners, axis=0) >= 0)

    def _returns(self, returns: GroundReturns | None) -> tuple[GroundReturns | None, sp.csr_matrix | None]:
        """Returns over active cells whose ground is not seen, and what they measure."""
        if returns is None or not len(returns):
            return None, None
        column, row = self.cells.grid.column_row(returns.x, returns.y)
        h, w = self.cells.grid.shape
        inside = (column >= 0) & (row >= 0) & (column <= w - 1) & (row <= h - 1) & np.isfinite(returns.height)
        at = np.rint(row[inside]).astype(np.int64), np.rint(column[inside]).astype(np.int64)
        inside[inside] = (self.number[at] >= 0) & (_around(self.cells.share)[at] < _OPEN)
        inside[inside] = self._between_active(column[inside], row[inside])
        if not inside.any():
            return None, None
        kept = GroundReturns(*(getattr(returns, n)[inside] for n in GroundReturns.__dataclass_fields__))
        steep = bilinear(self._slope(), column[inside], row[inside])
        sigma = np.hypot(kept.sigma_on(steep), _RETURN_ERROR)
        matrix = interpolation(column[inside], row[inside], self.number, self.cells_n)
        return replace(kept, sigma=sigma), matrix

    def _slope(self) -> Singles:
        if min(self.cells.trend.shape) < 2:
            return np.zeros_like(self.cells.trend)
        return np.hypot(*np.gradient(self.cells.trend, self.cells.grid.resolution)).astype(np.float32)

    def _prior(self) -> list[tuple[sp.csr_matrix, Floats]]:
        """Rows of what is known before: smooth ground, bounded slopes, like stands nearby, a guess of their height."""
        cells, number = self.cells, self.number
        bend = np.abs(cv2.Laplacian(cells.trend.astype(np.float64), cv2.CV_64F, borderType=cv2.BORDER_REPLICATE))
        bend = cv2.dilate(bend, np.ones((3, 3)))
        typical = _THIN_PLATE * self._typical_bend()
        second, at = second_differences(number)
        bend = _BEND * bend + _CLIFF * np.maximum(bend - _CLIFF_FROM, 0)
        second = sp.diags(1.0 / np.hypot(typical, bend.ravel()[at])) @ second
        first = differences(number) / (_STEEP * cells.grid.resolution)
        nodes = differences(self.nodes) / _STAND_STEP
        guess, spread = self._guess()
        single = spread * np.sqrt(self.nodes_n)  # of all nodes together: the guess is of their mean
        rows = [(second, None), (first, None)]
        out = [(_wide(m, self.nodes_n), np.zeros(m.shape[0])) for m, _ in rows]
        out.append((_wide(nodes, -self.cells_n), np.zeros(nodes.shape[0])))
        out.append((_wide(sp.identity(self.nodes_n) / single, -self.cells_n), np.full(self.nodes_n, guess / single)))
        return out

    def _typical_bend(self) -> float:
        """1-sigma of second differences of the seen ground, metres."""
        z = np.where(self.seen.open, self.cells.ground, np.float32(np.nan))
        both = [(z[:, :-2] - 2 * z[:, 1:-1] + z[:, 2:]).ravel(), (z[:-2] - 2 * z[1:-1] + z[2:]).ravel()]
        size = np.abs(np.concatenate(both))
        size = size[np.isfinite(size)]
        if size.size < 20:
            return 10 * _LEAST_BEND
        return max(float(np.sqrt(np.mean(np.minimum(size, 5 * np.median(size)) ** 2))), _LEAST_BEND)

    def _guess(self) -> tuple[float, float]:
        """Stand height from how far down stereo sees in gaps or else around closed canopy, and its 1-sigma."""
        low = cv2.erode(np.where(np.isfinite(self.cells.ground), self.cells.ground, self.cells.top), np.ones((5, 5)))
        clear = self.floors.clear_stand()
        height = max(clear if clear is not None else float(np.median((self.cells.top - low)[self.seen.closed])), 2.0)
        return height, max(_GUESS_SIGMA * height, 4.0)

    def solve(self, rounds: int) -> Solution:
        """The fields, after rounds in which tops, gaps and returns are weighed against them."""
        cells, seen = self.cells, self.seen
        tops = selection(self.number[seen.tops], self.cells_n)
        chance, weight_top = _FIRST_TOP, seen.closed[seen.tops].astype(float)
        weight_open = np.ones(int(seen.open.sum()))
        weight_return = np.ones(0 if self.returns is None else len(self.returns))
        weight_floor = np.zeros(len(self.floors.height))
        for turn in range(rounds):
            rows = list(self.prior)
            opened = selection(self.number[seen.open], self.cells_n)
            rows.append(self._measured(opened, cells.ground[seen.open], self.ground_sigma / weight_open))
            used = weight_top > 0.05
            both = sp.hstack([tops, self.stand_of_tops]).tocsr()[used] / (chance / weight_top[used])[:, None]
            rows.append((both.tocsr(), self.top[used] * weight_top[used] / chance))
            low = weight_floor > _LEAST_WEIGHT
            sigma = FLOOR_ERROR / np.sqrt(weight_floor[low])
            rows.append(self._measured(self.places_of_floors[low], self.floors.height[low], sigma))
            if self.returns is not None and self.places is not None:
                trusted = weight_return > _LEAST_WEIGHT
                sigma = self.returns.sigma[trusted] / np.sqrt(weight_return[trusted])
                rows.append(self._measured(self.places[trusted], self.returns.height[trusted], sigma))
            last = turn == rounds - 1
            found = solve_field(rows, self.cells_n, samples=32 if last else 8)
            ground, stand = found.mean[: self.cells_n], found.mean[self.cells_n :]
            error = np.abs(opened @ ground + self.base - cells.ground[seen.open]) / self.ground_sigma
            weight_open = 1.0 / np.sqrt(np.maximum(1.0, error / 3.0))
            if self.returns is not None and self.places is not None:
                off = self.returns.height - self.base - self.places @ ground
                own = self.places @ found.sigma
                weight_return = honest(*left_out(off, own, self.returns.sigma, weight_return))
            height = self.top - tops @ ground
            weight_top, chance = self._weigh(height, self.stand_of_tops @ stand, tops @ found.sigma, weight_top)
            off = self.floors.height - self.base - self.places_of_floors @ ground
            off, sigma = left_out(off, self.places_of_floors @ found.sigma, FLOOR_ERROR, weight_floor)
            weight_floor = self.floors.believed(off, sigma, self.stand_of_floors @ stand)
            self.weight_top, self.weight_return = weight_top, weight_return
        self.gap = np.zeros(cells.grid.shape, bool)
        self.gap[self.floors.which] = weight_floor > 0.5
        return found

    def _measured(self, matrix: sp.csr_matrix, height: NDArray[Any], sigma: Floats) -> tuple[sp.csr_matrix, Floats]:
        return _wide(sp.diags(1.0 / sigma) @ matrix, self.nodes_n), (np.asarray(height, float) - self.base) / sigma

    def _weigh(self, height: Floats, stand: Floats, sigma: Floats, weight: Floats) -> tuple[Floats, float]:
        """Weights of the tops by what they are, from their height over the ground, and the chance of the canopy's."""
        of_canopy = np.zeros(self.cells.grid.shape, np.float32)
        of_canopy[self.seen.tops] = np.where(weight > 0.7, height - stand, np.nan)
        of_canopy[~self.seen.tops] = np.nan
        known = of_canopy[np.isfinite(of_canopy)]
        single = float(known.std()) if known.size > 10 else _FIRST_TOP
        pairs = (of_canopy[:, :-1] + of_canopy[:, 1:]) / 2
        pairs = pairs[np.isfinite(pairs)]
        # neighbours that are alike (one crown over both, one age) say less than so many single ones
        chance = max(single, 2 * float(pairs.std()) - (np.sqrt(2) - 1) * single) if pairs.size > 10 else single
        wide, low = np.hypot(max(single, 1.0), sigma), np.hypot(_LOW_ERROR, sigma)
        canopy = _SHARES[0] / wide * np.exp(-0.5 * ((height - stand) / wide) ** 2)
        ground = _SHARES[1] / low * np.exp(-0.5 * (height / low) ** 2)
        return np.sqrt(canopy / (canopy + ground + _SHARES[2] * 2.5)), max(chance, 1.0)

    def _spread(self, values: Floats) -> Floats:
        out = np.full(self.cells.grid.shape, np.nan)
        out[self.seen.active] = values
        return out

    def result(self, found: Solution) -> HiddenGround:
        """Rasters of the estimate."""
        grid, seen = self.cells.grid, self.seen
        variance = self._spread(found.sigma**2)
        smooth = cv2.blur(np.nan_to_num(variance), (3, 3)) / cv2.blur(seen.active.astype(float), (3, 3)).clip(1e-9)
        canopy = np.zeros(grid.shape, np.float32)
        canopy[seen.tops] = self.weight_top**2 > 0.3
        canopy[self.gap & ~seen.open & (_around(self.cells.share) < _OPEN)] = 1
        weight = cv2.morphologyEx(canopy, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        weight[~seen.active] = 0
        stand = self._spread(self._stand(seen.active) @ found.mean[self.cells_n :])
        layers = (
            self._spread(found.mean[: self.cells_n]) + self.base, _CALIBRATION * np.sqrt(np.maximum(smooth, 0)),
            weight, stand, self.gap | seen.open,
        )  # fmt: skip
        values = [np.where(seen.active, a, np.nan).astype(np.float32) for a in layers]
        values[2] = weight
        return HiddenGround(*(Raster(v, grid) for v in values))


def _wide(matrix: Any, columns: int) -> sp.csr_matrix:
    """Matrix with that many empty columns after its own, or before them if negative."""
    empty = sp.csr_matrix((matrix.shape[0], abs(columns)))
    return sp.hstack([matrix, empty] if columns > 0 else [empty, matrix]).tocsr()
