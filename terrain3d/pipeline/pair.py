"""Two epochs on one grid, read by windows: heights that were measured, their sigma, and what else is known there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.align import Alignment, View, align_views, level_off
from terrain3d.change.epoch import ASSUMED_SIGMA, Epoch
from terrain3d.change.evidence import EpochSurfaces
from terrain3d.change.filters import Array
from terrain3d.change.resample import common_grid, on_grid
from terrain3d.errors import OverlapError
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode

WHOLE_CELLS = 4_000_000  # up to which all of a scene is looked at to learn its errors
COARSE_CELLS = 2_000_000
SAMPLES = 16  # windows of a larger scene
SAMPLE_CELLS = 512  # a side
LEAST_COMMON = 0.3  # of a window
STRIP_ROWS = 2048  # of the full resolution


UNMOVED = Alignment(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, False, 0, 0.0)


@dataclass(frozen=True)
class Measured:
    """Heights of an epoch as they were measured: no value for filled cells, water and nodata, which tell no change."""

    epoch: Epoch
    codes: bool = False

    @property
    def grid(self) -> Grid:
        return self.epoch.dsm.grid

    def read(self, row: int, column: int, height: int, width: int) -> Array:
        values: Array = self.epoch.dsm.read(row, column, height, width)
        if self.epoch.mask is None:
            return values
        codes = on_grid(self.epoch.mask, self.grid.window(row, column, height, width))
        return np.where(codes == MaskCode.MEASURED, values, np.float32(np.nan))


@dataclass(frozen=True)
class EpochPair:
    """Both epochs on ``grid``. alignment: of the later one, none at all before it is known. unknown_sigma: what stands
    in for a sigma that has no value, metres, of each."""

    before: Epoch
    after: Epoch
    grid: Grid
    alignment: Alignment = UNMOVED
    unknown_sigma: tuple[float, float] = (ASSUMED_SIGMA, ASSUMED_SIGMA)

    def heights(self, grid: Grid) -> tuple[Array, Array]:
        """Measured heights of both epochs on a part of the grid, the later ones moved onto the earlier."""
        first = on_grid(Measured(self.before), grid)
        return first, self._levelled(on_grid(Measured(self.after), grid, *self._shift), grid)

    def sigma(self, grid: Grid) -> Array:
        """Nominal sigma of the height difference, metres."""
        parts = []
        for epoch, shift, unknown in zip(
            (self.before, self.after), ((0.0, 0.0), self._shift), self.unknown_sigma, strict=True
        ):
            if epoch.sigma is None:
                parts.append(np.full(grid.shape, ASSUMED_SIGMA, np.float32))
                continue
            values = on_grid(epoch.sigma, grid, *shift)
            parts.append(np.where(np.isfinite(values) & (values > 0), values, np.float32(unknown)))
        return np.hypot(*parts).astype(np.float32)

    def surfaces(self, grid: Grid, before: Array, after: Array) -> EpochSurfaces:
        """All that is known on a part of the grid, of which ``heights`` gave the first two."""
        a, b, shift = self.before, self.after, self._shift
        wet = self.wet(grid)
        sigmas = [on_grid(e.dtm_sigma, grid, *s) for e, s in ((a, (0.0, 0.0)), (b, shift)) if e.dtm_sigma is not None]
        grounds = a.dtm is not None and b.dtm is not None
        images = a.ortho is not None and b.ortho is not None
        closed = None
        if wet is not None:
            closed = self._levelled(on_grid(b.dsm, grid, *shift), grid) - on_grid(a.dsm, grid)
        return EpochSurfaces(
            before,
            after,
            closed,
            None if a.dtm is None else on_grid(a.dtm, grid),
            None if b.dtm is None else self._levelled(on_grid(b.dtm, grid, *shift), grid),
            np.hypot(*sigmas).astype(np.float32) if grounds and len(sigmas) == 2 else None,
            wet,
            on_grid(a.ortho, grid) if images and a.ortho is not None else None,
            on_grid(b.ortho, grid, *shift) if images and b.ortho is not None else None,
        )

    def wet(self, grid: Grid) -> NDArray[np.uint8] | None:
        """Water on a part of the grid, codes of ``EpochSurfaces.wet``; None without masks."""
        shifts = ((self.before, (0.0, 0.0)), (self.after, self._shift))
        known = [
            np.where(on_grid(e.mask, grid, *shift) == MaskCode.WATER, np.uint8(k), np.uint8(0))
            for k, (e, shift) in enumerate(shifts, 1)
            if e.mask is not None
        ]
        return np.bitwise_or.reduce(known) if known else None

    @property
    def _shift(self) -> tuple[float, float]:
        return self.alignment.east, self.alignment.north

    def _levelled(self, heights: Array, grid: Grid) -> Array:
        return heights if self.alignment is UNMOVED else level_off(heights, grid, self.alignment)


def aligned_pair(before: Epoch, after: Epoch) -> tuple[EpochPair, list[Grid]]:
    """The pair with its alignment, and the parts of the grid from which the errors are to be learnt.

    Raises OverlapError if the epochs do not cover common ground.
    """
    pair = EpochPair(before, after, common_grid(before.dsm.grid, after.dsm.grid))
    grid = pair.grid
    if grid.height * grid.width <= WHOLE_CELLS:
        samples = [grid]
        whole = _view(pair, grid)
        pair = _with_unknown_sigma(pair, samples)
        alignment = align_views(replace(whole, sigma=pair.sigma(grid)))
    else:
        factor = int(np.ceil(np.sqrt(grid.height * grid.width / COARSE_CELLS)))
        whole = _coarse(pair, factor)
        common = np.isfinite(whole.before.values) & np.isfinite(whole.after.values)
        samples = _samples(grid, common, factor)
        pair = _with_unknown_sigma(pair, samples)
        alignment = align_views(whole, [_view(pair, g) for g in samples])
    return replace(pair, alignment=alignment), samples


def _view(pair: EpochPair, grid: Grid) -> View:
    first, second = pair.heights(grid)
    return View(Raster(first, grid), Raster(second, grid), pair.sigma(grid))


def _coarse(pair: EpochPair, factor: int) -> View:
    """Means of both surfaces in cells ``factor`` times as large."""
    g = pair.grid
    coarse = replace(g, resolution=g.resolution * factor, height=-(-g.height // factor), width=-(-g.width // factor))
    parts = []
    rows = max(STRIP_ROWS // factor, 1)
    for row in range(0, coarse.height, rows):
        parts.append(pair.heights(coarse.window(row, 0, min(rows, coarse.height - row), coarse.width)))
    first, second = (np.concatenate([p[k] for p in parts]) for k in (0, 1))
    return View(Raster(first, coarse), Raster(second, coarse), ASSUMED_SIGMA)


def _samples(grid: Grid, common: NDArray[np.bool_], factor: int) -> list[Grid]:
    """Windows spread over a large scene, where both epochs have values. Raises OverlapError if there are none."""
    size = SAMPLE_CELLS
    found = []
    for row in range(0, max(grid.height - size, 1), size):
        for column in range(0, max(grid.width - size, 1), size):
            part = common[row // factor : (row + size) // factor, column // factor : (column + size) // factor]
            if part.size and part.mean() >= LEAST_COMMON:
                found.append(grid.window(row, column, min(size, grid.height - row), min(size, grid.width - column)))
    if not found:
        raise OverlapError("the two surfaces have hardly any measured ground in common", fix="give epochs of one place")
    return [found[k] for k in np.unique(np.linspace(0, len(found) - 1, SAMPLES).astype(int))]


def _with_unknown_sigma(pair: EpochPair, samples: list[Grid]) -> EpochPair:
    """Where a sigma has no value, the largest common one of its epoch stands in."""

    def worst(epoch: Epoch, read: Callable[[Grid], Array]) -> float:
        if epoch.sigma is None:
            return ASSUMED_SIGMA
        known = np.concatenate([v[np.isfinite(v) & (v > 0)] for v in map(read, samples)])
        return float(np.percentile(known, 95)) if known.size else ASSUMED_SIGMA

    a, b = pair.before, pair.after
    unknown = (
        worst(a, lambda g: on_grid(a.sigma, g) if a.sigma is not None else np.zeros(0, np.float32)),
        worst(b, lambda g: on_grid(b.sigma, g) if b.sigma is not None else np.zeros(0, np.float32)),
    )
    return replace(pair, unknown_sigma=unknown)
