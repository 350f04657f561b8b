"""What is seen of one change: its shape, its surface in both epochs, the ground, water around it, the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.filters import Array, box_mean
from terrain3d.change.regions import Patch, inner_part, ring, solidity
from terrain3d.raster import odd_cells
from terrain3d.stats import NMAD_FACTOR

BUILDING_CELL = 2.5  # metres; in larger cells a wall cannot be told from a slope
STEP = (1.5, 2.5)  # metres: at least, and more at most where an object is higher
STEP_PART = 0.6  # of an object's height falls within the reach of a wall; earth at its angle of repose falls less
SHARP_CELL = 0.75  # metres; in larger ones a wall is smeared so far that it stands at half of its height, not its foot
STEP_REACH = 2.5  # metres outside the rim
STEP_CELLS = 4.0  # and cells: a wall is smeared over some
HALF_HIGH_SHARE = 0.3  # of a patch at least
SURROUNDINGS = (2.0, 8.0)  # metres from the rim
BANK = 4.0  # metres from the rim within which water is looked for
SHORE = 3.0  # metres from the water, whose lowest tenth stands for its level
FLAT = 12.0  # metres from the water within which ground may be its shore
LOW = 1.0  # metres over the water: what lies lower is under it now and then
BED = (0.7, 2.0)  # metres under and over the level, where ground lies that the water took
TEXTURE_WINDOW = 2.5  # metres
GROUND_WINDOW = 10.0  # metres over which the change of the ground is averaged

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Surfaces:
    """Both epochs on a window of the grid, metres: surfaces, ground where known, water, images.

    closed: difference of the surfaces with the cells that were filled, a guess. ground_sigma: of the difference of the
    grounds. wet: 1 where there is water before, 2 where after, 3 in both.
    """

    before: Array
    after: Array
    closed: Array | None = None
    dtm_before: Array | None = None
    dtm_after: Array | None = None
    ground_sigma: Array | None = None
    wet: NDArray[np.uint8] | None = None
    ortho_before: Array | None = None
    ortho_after: Array | None = None

    @property
    def water(self) -> NDArray[np.bool_] | None:
        """Water in either epoch; None where it is not known."""
        return None if self.wet is None else self.wet > 0

    def ground_change(self, resolution: float) -> Array | None:
        """Rise of the ground, averaged over GROUND_WINDOW; None where a ground is not known."""
        if self.dtm_before is None or self.dtm_after is None:
            return None
        return box_mean(self.dtm_after - self.dtm_before, odd_cells(GROUND_WINDOW, resolution))

    @property
    def ground_rise(self) -> Array | None:
        """Rise of the ground, cell by cell; None where a ground is not known."""
        if self.dtm_before is None or self.dtm_after is None:
            return None
        return np.asarray(self.dtm_after - self.dtm_before)


class Scene(Protocol):
    """What the decision looks at. smooth_limit: texture up to which a surface is ground or roof, metres."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def resolution(self) -> float: ...

    @property
    def smooth_limit(self) -> float: ...

    def surfaces(self, where: Window) -> Surfaces:
        """Both epochs on a window."""


@dataclass(frozen=True)
class Standing:
    """The place in one epoch. step_share: of the rim, over which it stands by a wall. texture: robust spread about the
    local mean, metres. above_ground: median height above that epoch's ground, metres; NaN without one. level: range of
    the middle 80 % of heights, metres. contrast: robust spread of the image's brightness about its local mean, over its
    median; NaN without an image."""

    step_share: float
    texture: float
    above_ground: float
    level: float
    contrast: float = float("nan")


@dataclass(frozen=True)
class Evidence:
    """Measures of one patch.

    object: the place in the epoch in which the object stands, after a rise and before a fall; other: in the other one.
    solidity: area over that of the convex hull. wooded: most of its surroundings are rough. water_share: of the strip
    around it (``_water_share``). tone: brightness after over before, that of the surroundings taken out; NaN without
    images. ground_change: median rise of the ground, metres; NaN where it is not known. ground: median height of the
    other epoch's surface, metres. area: m2. row, column: centroid.
    """

    object: Standing
    other: Standing
    solidity: float
    wooded: bool
    water_share: float
    tone: float
    ground_change: float
    area: float
    ground: float
    row: float
    column: float


def observe(patch: Patch, scene: Scene) -> Evidence:
    """Evidence of one patch."""
    r = scene.resolution
    window = odd_cells(TEXTURE_WINDOW, r)
    where, cells = patch.window(window + round((BANK + FLAT) / r), scene.shape)
    seen = scene.surfaces(where)
    core = inner_part(cells, 1.5 / r)
    around = ring(cells, SURROUNDINGS[0] / r, SURROUNDINGS[1] / r)
    epochs = [(seen.before, seen.dtm_before), (seen.after, seen.dtm_after)]
    least_step = float(np.clip(STEP_PART * abs(_median((seen.after - seen.before)[core])), *STEP))
    residuals = [NMAD_FACTOR * np.abs(z - box_mean(z, window)) for z, _ in epochs]
    edge = cells if r <= SHARP_CELL else _half_high(cells, seen.after - seen.before, core)
    places = [
        Standing(
            step_share=_step_share(edge, z, least_step, r) if r <= BUILDING_CELL else 0.0,
            texture=_median(residual[core]),
            above_ground=float("nan") if dtm is None else _median((z - dtm)[core]),
            level=_range(z[core]),
            contrast=float("nan") if image is None else _contrast(image, core, window),
        )
        for (z, dtm), residual, image in zip(epochs, residuals, (seen.ortho_before, seen.ortho_after), strict=True)
    ]
    standing, other = (1, 0) if patch.sign > 0 else (0, 1)
    change = seen.ground_change(r)
    rows, columns = np.nonzero(cells)
    return Evidence(
        object=places[standing],
        other=places[other],
        solidity=solidity(edge),
        wooded=bool(_median(residuals[standing][around]) > scene.smooth_limit),
        water_share=_water_share(seen, cells, patch.sign, r),
        tone=tone(seen, cells, around),
        ground_change=float("nan") if change is None else _median(change[cells]),
        area=rows.size * r * r,
        ground=_median(epochs[other][0][cells]),
        row=float(rows.mean()) + where[0].start,
        column=float(columns.mean()) + where[1].start,
    )


def _half_high(cells: NDArray[np.bool_], difference: Array, core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The largest part of a patch that changed by half its height; all of it where that is little."""
    with np.errstate(invalid="ignore"):
        labels, n = ndimage.label(cells & (difference / _median(difference[core]) >= 0.5))
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    if n == 0 or sizes.max() < HALF_HIGH_SHARE * np.count_nonzero(cells):
        return cells
    return np.asarray(labels == np.argmax(sizes) + 1)


def _contrast(image: Array, core: NDArray[np.bool_], window: int) -> float:
    light = np.where(image > 0, image, np.float32(np.nan))
    level = _median(light[core])
    return NMAD_FACTOR * _median(np.abs(light - box_mean(light, window))[core]) / level if level > 0 else float("nan")


def tone(seen: Surfaces, cells: NDArray[np.bool_], around: NDArray[np.bool_]) -> float:
    if seen.ortho_before is None or seen.ortho_after is None:
        return float("nan")
    levels = [_median(o[part]) for o in (seen.ortho_before, seen.ortho_after) for part in (cells, around)]
    if not np.isfinite(levels).all() or min(levels) <= 0:
        return float("nan")
    return levels[2] / levels[0] / (levels[3] / levels[1])


def _median(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _range(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.subtract(*np.percentile(values, (90, 10)))) if values.size else float("nan")


def _step_share(cells: NDArray[np.bool_], heights: Array, least: float, resolution: float) -> float:
    """Share of the surroundings' cells that lie at least ``least`` metres below the nearest cells of the patch."""
    outside = ring(cells, 1.0 / resolution, max(STEP_CELLS, STEP_REACH / resolution)) & np.isfinite(heights)
    inside = inner_part(cells, 0.5 / resolution) & np.isfinite(heights)
    if not outside.any() or not inside.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    step = heights[nearest[0][outside], nearest[1][outside]] - heights[outside]
    return float(np.mean(step > least))


def _water_share(seen: Surfaces, cells: NDArray[np.bool_], sign: int, resolution: float) -> float:
    """Share of the strip around a patch that is water; around one that fell to about the level of the water, also
    ground beside the water that lies hardly above it: it is how far the bank moved, and water lies there no day."""
    bank = ring(cells, 0.5 / resolution, max(BANK / resolution, 1.5))
    wet = seen.water
    if wet is None or not wet.any() or not bank.any():
        return 0.0
    away = cv2.distanceTransform((~wet).astype(np.uint8), cv2.DIST_L2, 5) * resolution
    shore = seen.after[(away > 0) & (away <= SHORE) & np.isfinite(seen.after) & ~cells]
    if sign < 0 and shore.size:
        level = float(np.percentile(shore, 10))
        fallen = seen.after[cells & np.isfinite(seen.after)]
        bottom, middle = np.percentile(fallen, (10, 50)) - level if fallen.size else (np.nan, np.nan)
        if bottom > -BED[0] and middle < BED[1]:
            with np.errstate(invalid="ignore"):
                wet = wet | ((away <= FLAT) & (seen.after < level + LOW))
    return float(wet[bank].mean())
