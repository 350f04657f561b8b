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
HALF_HIGH_SHARE = 0.3  # of a patch at least
STANDING = 0.7  # of the height of a change, that an object stands over the ground
WALL_INSIDE, WALL_OUTSIDE = (0.5, 1.5), (0.5, 2.0)  # metres from the line of half the height; as many cells at least
WALL_CELLS = 8  # on either side at least
RELIEF_DEPTH = 1.5  # metres from the rim
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
class EpochSurfaces:
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

    def surfaces(self, where: Window) -> EpochSurfaces:
        """Both epochs on a window."""


@dataclass(frozen=True)
class Standing:
    """The place in one epoch. wall: median fall of its surface across its rim, metres a metre; NaN where that was not
    measured. texture: robust spread about the local mean, metres. above_ground: median height above that epoch's
    ground, metres; NaN without one. level: range of the middle 80 % of heights, metres. contrast: robust spread of
    the image's brightness about its local mean, over its median; NaN without an image."""

    wall: float
    texture: float
    above_ground: float
    level: float
    contrast: float = float("nan")


@dataclass(frozen=True)
class Evidence:
    """Measures of one patch.

    object: the place in the epoch in which the object stands, after a rise and before a fall; other: in the other
    one. height: median change of height, metres. wall: median fall across the line of half that height, metres a
    metre, of the change, or of the object's own surface if that is less and the object does not stand on the ground;
    earth hardly stands steeper than 0.85. fall: that of the change, as a share of the height. relief: range of the
    middle 80 % of the change well inside, over the height: little on a flat roof, half on a cone. solidity: area over
    that of the convex hull. wooded: most of its surroundings are rough. water_share: of the strip around it
    (``_water_share``). tone: brightness after over before, that of the surroundings taken out; NaN without images.
    ground_change: median rise of the ground, metres; NaN where it is not known. ground: median height of the other
    epoch's surface, metres. area: m2. row, column: centroid.
    """

    object: Standing
    other: Standing
    height: float
    wall: float
    fall: float
    relief: float
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
    change = patch.sign * (seen.after - seen.before)
    height = _median(change[core])
    residuals = [NMAD_FACTOR * np.abs(z - box_mean(z, window)) for z, _ in epochs]
    half = _half_high(cells, change, height)
    inside = _inwards(half) * r
    wall, fall = (
        _wall(inside, np.where(change < -0.5 * height, np.nan, change), r) if r <= BUILDING_CELL else (0.0, 0.0)
    )
    places = [
        Standing(
            wall=_wall(inside, z, r)[0] if r <= BUILDING_CELL else 0.0,
            texture=_median(residual[core]),
            above_ground=float("nan") if dtm is None else _median((z - dtm)[core]),
            level=_range(z[core]),
            contrast=_contrast(image, core, window),
        )
        for (z, dtm), residual, image in zip(epochs, residuals, (seen.ortho_before, seen.ortho_after), strict=True)
    ]
    standing, other = (1, 0) if patch.sign > 0 else (0, 1)
    moved = seen.ground_change(r)
    rows, columns = np.nonzero(cells)
    return Evidence(
        object=places[standing],
        other=places[other],
        height=height,
        wall=wall if _stands(places[standing], height) else float(np.fmin(wall, places[standing].wall)),
        fall=fall / height if height > 0 else 0.0,
        relief=_range(change[inside > RELIEF_DEPTH]) / height if height > 0 else float("nan"),
        solidity=solidity(half),
        wooded=bool(_median(residuals[standing][around]) > scene.smooth_limit),
        water_share=_water_share(seen, cells, patch.sign, r),
        tone=tone(seen, cells, around),
        ground_change=float("nan") if moved is None else _median(moved[cells]),
        area=rows.size * r * r,
        ground=_median(epochs[other][0][cells]),
        row=float(rows.mean()) + where[0].start,
        column=float(columns.mean()) + where[1].start,
    )


def _stands(place: Standing, height: float) -> bool:
    """Whether what rose or fell stood on the ground of its epoch. A pit has a wall, but what was there had none, which
    its own surface shows; a house amid trees has none there either."""
    return bool(place.above_ground > STANDING * height)


def _half_high(cells: NDArray[np.bool_], change: Array, height: float) -> NDArray[np.bool_]:
    """Largest part of a patch that changed by half its height, or was not measured; all of it where that is little."""
    with np.errstate(invalid="ignore"):
        labels, n = ndimage.label(ndimage.binary_fill_holes(cells & ~(change < 0.5 * height)))
    sizes = np.bincount(labels.ravel(), minlength=2)[1:]
    if n == 0 or sizes.max() < HALF_HIGH_SHARE * np.count_nonzero(cells):
        return cells
    return np.asarray(labels == np.argmax(sizes) + 1)


def _inwards(cells: NDArray[np.bool_]) -> Array:
    """Distance from the rim to the middle of each cell, in cells: positive inside, negative outside."""
    inner = cv2.distanceTransform(np.pad(cells, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    outer = cv2.distanceTransform((~cells).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.where(cells, inner - 0.5, 0.5 - outer), np.float32)


def _wall(inside: Array, change: Array, resolution: float) -> tuple[float, float]:
    """Median fall of a change or surface across a rim, between cells beside it and the nearest within: metres a metre,
    and metres. NaN where too little was measured.

    A matched wall is smeared over a metre or two, and the line of half the height runs through the middle of it.
    """
    least, deep = (max(v, k * resolution) for v, k in zip(WALL_INSIDE, (0.5, 2.0), strict=True))
    near, far = (max(v, k * resolution) for v, k in zip(WALL_OUTSIDE, (0.5, 2.5), strict=True))
    known = np.isfinite(change)
    within = known & (inside >= least) & (inside <= deep)
    beside = known & (inside <= -near) & (inside >= -far)
    if np.count_nonzero(within) < WALL_CELLS or np.count_nonzero(beside) < WALL_CELLS:
        return float("nan"), float("nan")
    away, nearest = ndimage.distance_transform_edt(~within, return_indices=True)
    fall = change[nearest[0][beside], nearest[1][beside]] - change[beside]
    return float(np.median(fall / (away[beside] * resolution))), float(np.median(fall))


def _contrast(image: Array | None, core: NDArray[np.bool_], window: int) -> float:
    if image is None:
        return float("nan")
    light = np.where(image > 0, image, np.float32(np.nan))
    level = _median(light[core])
    return NMAD_FACTOR * _median(np.abs(light - box_mean(light, window))[core]) / level if level > 0 else float("nan")


def tone(seen: EpochSurfaces, cells: NDArray[np.bool_], around: NDArray[np.bool_]) -> float:
    """Brightness of cells after over before, against that of the cells around them; NaN without images."""
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


def _water_share(seen: EpochSurfaces, cells: NDArray[np.bool_], sign: int, resolution: float) -> float:
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
