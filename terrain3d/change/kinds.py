"""What a change is: decision rules on shape and on the surfaces of both epochs.

The object is looked at in the epoch in which it stands: after a rise, before a fall.

1. A **building** (told only in cells of at most 2.5 m) is compact, stands above its surroundings on most of its rim (a
   step of at least 1.5 m within 2.5 m), and its surface is smooth, as roofs are, more clearly than it is rough as
   crowns are: risen ``new_building``, fallen
   ``demolished_building``.
2. **Vegetation** is rough where it stands, rougher than open ground and roofs, or stands high above the DTM without
   being a building: fallen ``felling``, risen ``vegetation_growth``.
3. What remains is **earth**: risen ``fill``, fallen ``excavation``.
4. A **landslide** is earth that came down: risen earth, and close to it and above it a loss of earth or of the
   trees that stood on it. All parts, source and deposit, take the kind ``landslide``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.change.filters import Array, box_mean
from terrain3d.change.regions import Patch, groups, inner_part, merged, ring, solidity
from terrain3d.raster import odd_cells
from terrain3d.stats import NMAD_FACTOR

BUILDING_CELL = 2.5  # metres; in larger cells a wall cannot be told from a slope
STEP = 1.5  # metres
STEP_SHARE = 0.5  # of the rim
STEP_REACH = 2.5  # metres outside the rim
SOLIDITY = 0.65  # of a building at least; 0.75 is an L of equal wings
SURROUNDINGS = (2.0, 8.0)  # metres from the rim
TEXTURE_WINDOW = 2.5  # metres
HIGH_VEGETATION = 2.5  # metres above the DTM
SMOOTHEST_VEGETATION = 0.4  # texture of tall vegetation at least, as a share of the limit
STAND_DISTANCE = 5.0  # metres between parts of one stand of trees
LINK_DISTANCE = 15.0  # metres between parts of a landslide
DEPOSIT_AREA = 80.0  # m2 of risen earth at least
SLIDE_AREA = 300.0  # m2 of all parts
SLIDE_FALL = 0.05  # fall of the ground from the losses to the deposit, over their distance


class Kind(StrEnum):
    """Values of the attribute ``kind``."""

    NEW_BUILDING = "new_building"
    DEMOLISHED_BUILDING = "demolished_building"
    FELLING = "felling"
    VEGETATION_GROWTH = "vegetation_growth"
    LANDSLIDE = "landslide"
    EXCAVATION = "excavation"
    FILL = "fill"


WOODED = (Kind.FELLING, Kind.VEGETATION_GROWTH)


@dataclass(frozen=True)
class Scene:
    """What the decision looks at, all on one grid: heights of surfaces and, where known, ground, metres.

    smooth_limit: texture up to which a surface is ground or roof, metres (``stable.smooth_limit``).
    """

    before: Array
    after: Array
    dtm_before: Array | None
    dtm_after: Array | None
    smooth_limit: float
    resolution: float


@dataclass(frozen=True)
class Evidence:
    """Measures of one patch.

    step_share: of the rim, in the epoch in which the object stands. texture: robust spread about the local mean
    there (m). solidity: area over that of the convex hull. above_ground: median height above that epoch's DTM (m),
    NaN without one. wooded: most of its surroundings are rough. area: m2. ground: median height of the other
    epoch's surface, metres. row, column: centroid.
    """

    step_share: float
    texture: float
    solidity: float
    above_ground: float
    wooded: bool
    area: float
    ground: float
    row: float
    column: float


@dataclass(frozen=True)
class Verdict:
    """``margin``: 0.3 at a border between kinds to 1 far from any."""

    kind: Kind
    margin: float


@dataclass(frozen=True)
class Classified:
    """A patch, its kind, and whether it is vegetation or lies amid it."""

    patch: Patch
    verdict: Verdict
    wooded: bool


def classify(found: list[Patch], scene: Scene) -> list[Classified]:
    """Patches with their kinds; parts of one stand, and of one landslide's source or deposit, are made one patch."""
    evidence = [observe(patch, scene) for patch in found]
    verdicts = [decide(patch.sign, seen, scene.smooth_limit) for patch, seen in zip(found, evidence, strict=True)]
    verdicts = link_landslides(found, evidence, verdicts, scene.resolution)
    wooded = [v.kind in WOODED or e.wooded for v, e in zip(verdicts, evidence, strict=True)]
    return join_parts(found, verdicts, wooded, scene.resolution)


def join_parts(found: list[Patch], verdicts: list[Verdict], wooded: list[bool], resolution: float) -> list[Classified]:
    """Parts of the same sign and kind that lie close by as one patch; verdict and ``wooded`` of the largest part."""
    out = []
    for kind in Kind:
        distance = LINK_DISTANCE if kind is Kind.LANDSLIDE else STAND_DISTANCE if kind in WOODED else 0.0
        for sign in (1, -1):
            parts = [k for k, v in enumerate(verdicts) if v.kind is kind and found[k].sign == sign]
            for group in groups([found[k] for k in parts], distance, resolution):
                members = [parts[k] for k in group]
                largest = max(members, key=lambda k: int(np.count_nonzero(found[k].cells)))
                out.append(Classified(merged([found[k] for k in members]), verdicts[largest], wooded[largest]))
    return sorted(out, key=lambda c: (c.patch.row, c.patch.column, c.patch.sign))


def observe(patch: Patch, scene: Scene) -> Evidence:
    """Evidence of one patch."""
    r = scene.resolution
    window = odd_cells(TEXTURE_WINDOW, r)
    where, cells = patch.window(window + round(SURROUNDINGS[1] / r), scene.before.shape)
    standing = (scene.after if patch.sign > 0 else scene.before)[where]
    other = (scene.before if patch.sign > 0 else scene.after)[where]
    dtm = scene.dtm_after if patch.sign > 0 else scene.dtm_before
    core = inner_part(cells, 1.5 / r)
    residual = NMAD_FACTOR * np.abs(standing - box_mean(standing, window))
    around = ring(cells, SURROUNDINGS[0] / r, SURROUNDINGS[1] / r)
    rows, columns = np.nonzero(cells)
    return Evidence(
        step_share=_step_share(cells, standing, r) if r <= BUILDING_CELL else 0.0,
        texture=_median(residual[core]),
        solidity=solidity(cells),
        above_ground=float("nan") if dtm is None else _median((standing - dtm[where])[core]),
        wooded=bool(_median(residual[around]) > scene.smooth_limit),
        area=rows.size * r * r,
        ground=_median(other[cells]),
        row=float(rows.mean()) + where[0].start,
        column=float(columns.mean()) + where[1].start,
    )


def _median(values: Array) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _step_share(cells: NDArray[np.bool_], heights: Array, resolution: float) -> float:
    """Share of the surroundings' cells that lie at least STEP below the nearest cells of the patch."""
    outside = ring(cells, 1.0 / resolution, max(2.0, STEP_REACH / resolution)) & np.isfinite(heights)
    inside = inner_part(cells, 0.5 / resolution) & np.isfinite(heights)
    if not outside.any() or not inside.any():
        return 0.0
    nearest = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    step = heights[nearest[0][outside], nearest[1][outside]] - heights[outside]
    return float(np.mean(step > STEP))


def decide(sign: int, seen: Evidence, smooth_limit: float) -> Verdict:
    """Kind of one patch by rules 1 to 3, from its own evidence."""
    # Each is 0 at its limit and grows to 1 towards a building.
    stands = (seen.step_share - STEP_SHARE) / (1 - STEP_SHARE)
    smooth = 1 - seen.texture / smooth_limit if np.isfinite(seen.texture) else 0.0
    compact = (seen.solidity - SOLIDITY) / (1 - SOLIDITY)
    building = min(stands, smooth, compact)
    crowns = 1 - SMOOTHEST_VEGETATION - smooth  # how clearly a tall object has the texture of crowns
    tall = seen.above_ground > HIGH_VEGETATION and crowns > 0
    if building >= 0 and not (tall and crowns > building):
        kind = Kind.NEW_BUILDING if sign > 0 else Kind.DEMOLISHED_BUILDING
        return Verdict(kind, _margin(building))
    if tall or smooth < 0:
        kind = Kind.VEGETATION_GROWTH if sign > 0 else Kind.FELLING
        return Verdict(kind, _margin(max(-smooth, 0.5 if tall else 0.0)))
    return Verdict(Kind.FILL if sign > 0 else Kind.EXCAVATION, _margin(min(smooth, max(-stands, -compact))))


def _margin(distance: float) -> float:
    return float(np.clip(0.3 + 1.4 * distance, 0.3, 1.0))


def link_landslides(
    found: list[Patch], evidence: list[Evidence], verdicts: list[Verdict], resolution: float
) -> list[Verdict]:
    """Rule 4 on groups of earth risen, earth lost and trees lost, whose parts lie within LINK_DISTANCE of the next."""
    parts = [k for k, v in enumerate(verdicts) if v.kind in (Kind.FILL, Kind.EXCAVATION, Kind.FELLING)]
    out = list(verdicts)
    for group in groups([found[k] for k in parts], LINK_DISTANCE, resolution):
        members = [parts[k] for k in group]
        gains = [evidence[k] for k in members if found[k].sign > 0]
        losses = [evidence[k] for k in members if found[k].sign < 0]
        area = sum(e.area for e in gains)
        if not losses or area < DEPOSIT_AREA or area + sum(e.area for e in losses) < SLIDE_AREA:
            continue
        source, deposit = _centre(losses), _centre(gains)
        run = float(np.hypot(*(source[:2] - deposit[:2]))) * resolution
        fall = float(source[2] - deposit[2]) / max(run, resolution)
        if fall >= SLIDE_FALL:
            for k in members:
                out[k] = Verdict(Kind.LANDSLIDE, _margin((fall / SLIDE_FALL - 1) / 2))
    return out


def _centre(parts: list[Evidence]) -> NDArray[np.float64]:
    """Row, column and ground height of patches, weighted by area."""
    values = np.array([[e.row, e.column, e.ground] for e in parts])
    return np.asarray(np.average(values, axis=0, weights=[e.area for e in parts]))
