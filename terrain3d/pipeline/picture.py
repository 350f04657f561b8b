"""True ortho of a stored surface, and a grey picture in which water is looked for."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.io.scratch import Place, StoredRaster, new_raster
from terrain3d.pipeline.blocks import Block, cut, for_blocks
from terrain3d.pipeline.growth import kept_ranking
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.running import OVERVIEW_RIM, Counts, Tally, laid_over, overview, overview_step, tally, with_rim
from terrain3d.pipeline.threads import Workers, learned
from terrain3d.raster import Raster
from terrain3d.surface import membrane
from terrain3d.surface.coarse import resampled
from terrain3d.surface.ortho import (
    ORTHO_MARGIN,
    SEAM_MARGIN,
    OrthoView,
    RankedView,
    first_seen,
    middle_value,
    ortho,
    rank_views,
)

OVERVIEW_CELLS = 1_000_000
VALUES = 65536
NONE = "none"  # where a view would be named
MIDDLE = 10_000.0  # median of the grey values of images of real numbers


@dataclass(frozen=True)
class Ranking:
    """Views as they were given, and from the most vertical on, balanced; surface: the overview that this rests on."""

    views: list[OrthoView]
    ranked: list[RankedView]
    surface: Raster

    @property
    def bands(self) -> int:
        """Largest number of bands of a view."""
        return max((v.bands for v in self.views), default=1)


@dataclass(frozen=True)
class Grey:
    """values: of a picture, uint16 with 0 for no value, and how often each occurs."""

    values: StoredRaster
    counts: Counts


@dataclass(frozen=True)
class Picture:
    """bands: of the ortho, in the type that ``ortho_type`` gives, 0 or NaN for no value. seen: number of cells of the
    surface that come from each view, and, last, that no view sees."""

    bands: tuple[StoredRaster, ...]
    seen: tuple[int, ...]


def ortho_type(views: list[OrthoView]) -> np.dtype[Any]:
    """Type of the ortho's values: that of the images if they are all bytes or all unsigned shorts, else float32."""
    kinds = {v.dtype for v in views}
    return np.dtype(kinds.pop() if len(kinds) == 1 and kinds <= {"uint8", "uint16"} else np.float32)


def ranking(surface: StoredRaster, views: list[OrthoView], name: str, workers: Workers) -> Ranking:
    """Views ranked and balanced over a surface. name: of their light, where it is kept from before."""
    small = overview(surface, overview_step(surface.grid, OVERVIEW_CELLS))
    return Ranking(views, kept_ranking(name, rank_views(small, views), workers), small)


def draw_grey(
    dsm: StoredRaster, extent: Extent, views: Ranking, folder: Place, workers: Workers, reporter: Reporter
) -> Grey:
    """Grey picture without seams on a surface whose large voids are still open: a guess closes them here, because water
    often is one."""
    grid = dsm.grid
    step = learned("cells of overviews", overview_step(grid, OVERVIEW_CELLS), workers)
    small = with_rim(overview(dsm, step), OVERVIEW_RIM)
    guess = Raster(membrane.membrane(small.values), small.grid)
    surface = Raster(np.where(extent.hull_on(small.grid, step), guess.values, np.float32(np.nan)), small.grid)
    guess = learned("guess of voids", guess, workers, laid_over)
    ranked = views.ranked
    plain = ortho_type(views.views).kind == "u"
    scale = 1.0 if plain else learned("grey of water", MIDDLE / middle_value(surface, ranked), workers)
    grey = new_raster(folder / "grey.raw", grid, np.uint16)
    cells = ceil(SEAM_MARGIN / grid.resolution)

    def work(block: Block) -> Tally:
        closed = _closed(Raster(block.read(dsm), block.grid), extent.hull(block), guess, block.origin)
        inner = block.part(*block.around_core(cells))
        values = first_seen(closed, ranked, block.around_core(cells)) * np.float32(scale)
        shades = as_type(values, np.dtype(np.uint16))
        inner.write(grey, shades)
        return tally(shades[inner.core][shades[inner.core] > 0], VALUES, VALUES)

    counts = Counts(VALUES, VALUES)
    for found in for_blocks(work, cut(grid, ORTHO_MARGIN), workers, reporter):
        counts.put(found)
    return Grey(grey, counts)


def draw(dsm: StoredRaster, views: Ranking, folder: Place, workers: Workers, reporter: Reporter) -> Picture:
    """Ortho of a surface, in all bands of the views; nothing where it has no height."""
    grid, ranked = dsm.grid, views.ranked
    kind = ortho_type(views.views)
    bands = tuple(new_raster(folder / f"ortho_{i}.raw", grid, kind) for i in range(1, views.bands + 1))
    cells = ceil(SEAM_MARGIN / grid.resolution)

    def work(block: Block) -> dict[str, int]:
        z = block.read(dsm)
        inner = block.part(*block.around_core(cells))
        drawn = ortho(Raster(z, block.grid), ranked, block.around_core(cells))
        for raster, values in zip(bands, drawn.values, strict=True):
            inner.write(raster, as_type(values, kind))
        known = np.isfinite(z[block.core])
        sources = np.bincount(drawn.source[inner.core][known], minlength=len(ranked) + 1)
        drawn_from = {r.view.name: int(n) for r, n in zip(ranked, sources[1:], strict=True) if n}
        return drawn_from | {NONE: int(sources[0])}

    blocks = cut(grid, ORTHO_MARGIN)
    reporter.stage("ortho image", len(blocks))
    seen = dict[str, int]()
    for sources in for_blocks(work, blocks, workers, reporter):
        seen = {name: seen.get(name, 0) + sources.get(name, 0) for name in seen | sources}
    return Picture(bands, tuple(seen.get(name, 0) for name in (*(v.name for v in views.views), NONE)))


def as_type(values: NDArray[np.float32], kind: np.dtype[Any]) -> NDArray[Any]:
    """Values of an ortho in its type: 0 for none, and nothing else 0; real numbers as they are."""
    if kind.kind == "f":
        return values
    whole = np.clip(np.rint(np.nan_to_num(values)), 1, np.iinfo(kind).max)
    return np.where(np.isfinite(values), whole, 0).astype(kind)


def _closed(dsm: Raster, hull: NDArray[np.bool_], guess: Raster, origin: tuple[int, int]) -> Raster:
    """Surface with its voids inside the hull closed by the guess, bent to meet their boundaries."""
    known = np.isfinite(dsm.values)
    void = hull & ~known
    if not void.any():
        return dsm
    ring = cv2.dilate(void.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & known
    base = resampled(guess, dsm.grid)
    state = np.where(void, membrane.UNKNOWN, np.where(ring, membrane.FIXED, membrane.OUTSIDE)).astype(np.uint8)
    rest = membrane.solve(np.where(ring, dsm.values - base, np.float32(0)), state, origin)
    return Raster(np.where(void, base + np.nan_to_num(rest), dsm.values).astype(np.float32), dsm.grid)
