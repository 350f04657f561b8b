"""What a change is: decision rules on shape and on the surfaces and grounds of both epochs.

The object is looked at in the epoch in which it stands: after a rise, before a fall.

1. A **building** (told only in cells of at most 2.5 m) is compact, stands above its surroundings on most of its rim (a
   step of at least 1.5 m within 2.5 m), and its surface is smooth, as roofs are, more clearly than it is rough as
   crowns are: risen ``new_building``, fallen ``demolished_building``. A little less of each will do where the ground
   of both epochs is known and stayed as it was: what came or went there is no earth. Where what stood or stands there
   in the other epoch is smooth, steps down to its surroundings and is more than 2 m above the ground too, it was
   ``raised_building`` or ``lowered_building``.
2. **Vegetation** is rough where it stands, rougher than open ground and roofs, or stands high above the DTM without
   being a building: fallen ``felling``, risen ``vegetation_growth``. A tall object that is neither smooth nor rough is
   vegetation where the image is as mottled as crowns are.
3. What remains is **earth**: risen ``fill``, fallen ``excavation``; with water along at least a seventh of its rim
   risen ``accretion``, fallen ``erosion``.
4. A **landslide** is earth that came down: risen earth, and close to it and above it a loss of earth. Earth is what
   rule 3 says, and where the grounds of both epochs are known also a loss of trees whose ground rose or sank
   (``regions.split_by_ground``), half as much being enough right beside the rest of the slide. All its parts,
   ``source`` and ``deposit``, take the kind ``landslide``.
5. A **construction site** is earth fallen to a level floor, and beside it earth risen, or something small that is no
   clear building or stand of trees. It is looked for before landslides, whose parts are not level afterwards.
6. **Land turned to water** and **water turned to land** are told from the masks of both epochs (``shore``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.evidence import BUILDING_CELL, Evidence, Scene, Standing, observe
from terrain3d.change.regions import Patch, gaps_closed, groups, merged, within

STEP_SHARE = 0.5  # of the rim
SOLIDITY = 0.65  # of a building at least; 0.75 is an L of equal wings
HIGH_VEGETATION = 2.5  # metres above the DTM
LOW_BUILDING = 2.0  # metres above the DTM
SMOOTHEST_VEGETATION = 0.4  # texture of tall vegetation at least, as a share of the limit
WATER_SHARE = 0.15  # of the rim of a bank: a quarter of a square one, less where water was not found
BAR = 0.2  # of the limit of texture, by which trees beside water must be the rougher
DOUBT = 0.3  # short of a building, where the ground says that it is no earth
UNMOVED = 0.1  # of an object's height: change of the ground below at most
COARSE_MARGIN = 0.4
CANOPY_BIAS = 0.1  # 1-sigma of heights of crowns as a share of them: matched surfaces bridge the gaps, more or less
CROWN_CONTRAST = 0.14  # of an image over crowns at least; roofs have less
CROWN_GAP = 4.0  # metres, radius of gaps between crowns that are part of a stand
STAND_DISTANCE = 5.0  # metres between parts of one stand of trees
LINK_DISTANCE = 22.0  # metres between parts of a landslide: where it is thin it is not seen
SITE_DISTANCE = 12.0  # metres between parts of a construction site
DEPOSIT_AREA = 80.0  # m2 of risen earth at least
SLIDE_AREA = 300.0  # m2 of all parts
SLIDE_FALL = 0.05  # fall of the ground from the losses to the deposit, over their distance
STAND_MOVED = 0.5  # metres that the ground of a stand beside a landslide rose or sank, if it is part of it
SITE_AREA = 60.0  # m2 of the levelled floor at least
SITE_LEVEL = 0.6  # metres: range of heights on a levelled floor
HEAPS_MOST = 3.0  # times the area of the floor
HEAP_AREA = 150.0  # m2 of what may be a heap at most
HEAP_MARGIN = 0.5


class Kind(StrEnum):
    """Values of the attribute ``kind``."""

    NEW_BUILDING = "new_building"
    DEMOLISHED_BUILDING = "demolished_building"
    RAISED_BUILDING = "raised_building"
    LOWERED_BUILDING = "lowered_building"
    FELLING = "felling"
    VEGETATION_GROWTH = "vegetation_growth"
    LANDSLIDE = "landslide"
    EXCAVATION = "excavation"
    FILL = "fill"
    EROSION = "erosion"
    ACCRETION = "accretion"
    CONSTRUCTION_SITE = "construction_site"
    LAND_TO_WATER = "land_to_water"
    WATER_TO_LAND = "water_to_land"


WOODED = (Kind.FELLING, Kind.VEGETATION_GROWTH)
BUILDINGS = (Kind.NEW_BUILDING, Kind.DEMOLISHED_BUILDING, Kind.RAISED_BUILDING, Kind.LOWERED_BUILDING)
EARTH = (Kind.FILL, Kind.EXCAVATION)
LINKED = (Kind.LANDSLIDE, Kind.CONSTRUCTION_SITE)


@dataclass(frozen=True)
class Verdict:
    """``margin``: 0.3 at a border between kinds to 1 far from any. part: 'source' or 'deposit' of a landslide."""

    kind: Kind
    margin: float
    part: str = ""


@dataclass(frozen=True)
class Classified:
    """A patch, its kind, what was seen of it, whether it is vegetation or lies amid it, and the number of the landslide
    or construction site that it is part of, 0 for none."""

    patch: Patch
    verdict: Verdict
    evidence: Evidence
    wooded: bool
    event: int = 0

    def canopy(self, smooth_limit: float) -> bool:
        """Whether the surface of the object was that of crowns."""
        e = self.evidence.object
        return e.above_ground > HIGH_VEGETATION and _smooth(e.texture, smooth_limit) < 1 - SMOOTHEST_VEGETATION

    def covers(self, smooth_limit: float) -> tuple[str, str]:
        """Land cover before and after: built, vegetated, bare, or water where a bank moved."""
        e, kind = self.evidence, self.verdict.kind
        before, after = (e.other, e.object) if self.patch.sign > 0 else (e.object, e.other)
        out = [cover(place, e, smooth_limit) for place in (before, after)]
        if kind is Kind.EROSION:
            out[1] = "water"
        if kind is Kind.ACCRETION:
            out[0] = "water"
        return out[0], out[1]


def cover(place: Standing, seen: Evidence, smooth_limit: float) -> str:
    """Land cover of a place in one epoch, from its surface alone."""
    smooth = _smooth(place.texture, smooth_limit)
    if _building(place.step_share, place.texture, seen.solidity, smooth_limit) >= 0:
        return "built"
    return "vegetated" if smooth < 0 or place.above_ground > HIGH_VEGETATION else "bare"


def classify(found: list[Patch], scene: Scene) -> list[Classified]:
    """Patches with their kinds; parts of one stand, and of one landslide's source or deposit, are made one patch."""
    evidence = [observe(patch, scene) for patch in found]
    seen = [
        Classified(patch, verdict, e, verdict.kind in WOODED or e.wooded)
        for patch, e in zip(found, evidence, strict=True)
        for verdict in [_doubted(decide(patch.sign, e, scene.smooth_limit), scene.resolution)]
    ]
    seen = link_sites(seen, scene.resolution)
    seen = link_landslides(seen, scene.resolution)
    return join_parts(seen, scene.resolution)


def _doubted(verdict: Verdict, resolution: float) -> Verdict:
    """In cells too large for walls and crowns a kind is hardly more than a guess."""
    return replace(verdict, margin=min(verdict.margin, COARSE_MARGIN)) if resolution > BUILDING_CELL else verdict


def join_parts(found: list[Classified], resolution: float) -> list[Classified]:
    """Parts of the same kind that lie close by as one patch, with what is said of the largest part.

    Others are joined by sign; landslides by source and deposit, whose surface may have risen here and fallen there.
    """
    out = []
    keys = [
        (c.verdict.kind, c.verdict.part, c.event, *((0, 0) if c.verdict.part else (c.patch.sign, c.patch.ground)))
        for c in found
    ]
    for key in sorted(set(keys)):
        distance = LINK_DISTANCE if key[1] else STAND_DISTANCE if key[0] in WOODED else 0.0
        own = [c for c, k in zip(found, keys, strict=True) if k == key]
        for group in groups([c.patch for c in own], distance, resolution):
            members = [own[k] for k in group]
            largest = max(members, key=lambda c: c.evidence.area)
            out.append(replace(largest, patch=merged([c.patch for c in members])))
    out = sorted(out, key=lambda c: (c.patch.row, c.patch.column, c.patch.sign))
    # Single cells are tested, and where a stand was lost the gaps between its crowns are not significant. Without them
    # an area of crowns alone, which matching makes wider, would stand for the stand.
    patches = [c.patch for c in out]
    return [
        replace(c, patch=gaps_closed(k, patches, CROWN_GAP / resolution))
        if c.verdict.kind in (*WOODED, Kind.LANDSLIDE)
        else c
        for k, c in enumerate(out)
    ]


def decide(sign: int, seen: Evidence, smooth_limit: float) -> Verdict:
    """Kind of one patch by rules 1 to 3, from its own evidence."""
    building = _building(seen.object.step_share, seen.object.texture, seen.solidity, smooth_limit)
    smooth = _smooth(seen.object.texture, smooth_limit)
    if _stands_on_ground(seen) and building > -DOUBT:
        building = max(building, 0.0)  # earth moves the ground; a wall may be hidden in part
    crowns = 1 - SMOOTHEST_VEGETATION - smooth  # how clearly a tall object has the texture of crowns
    if seen.water_share >= WATER_SHARE:
        crowns -= BAR  # the ground of a new bar is often not found, and the bar then stands as high as young trees
    if seen.object.contrast > CROWN_CONTRAST and smooth < 1 - SMOOTHEST_VEGETATION / 2:
        crowns = max(crowns, building + 0.1)  # light and shade in the image decide what the surface leaves open
    tall = seen.object.above_ground > HIGH_VEGETATION and crowns > 0
    if building >= 0 and not (tall and crowns > building):
        both = _building(seen.other.step_share, seen.other.texture, seen.solidity, smooth_limit)
        if both >= 0 and seen.other.above_ground > LOW_BUILDING:
            kind = Kind.RAISED_BUILDING if sign > 0 else Kind.LOWERED_BUILDING
            return Verdict(kind, _margin(min(building, both)))
        kind = Kind.NEW_BUILDING if sign > 0 else Kind.DEMOLISHED_BUILDING
        return Verdict(kind, _margin(building))
    if tall or smooth < 0:
        kind = Kind.VEGETATION_GROWTH if sign > 0 else Kind.FELLING
        return Verdict(kind, _margin(max(-smooth, min(2 * crowns, 0.5) if tall else 0.0)))
    margin = _margin(min(smooth, -building))
    if seen.water_share >= WATER_SHARE:
        return Verdict(Kind.ACCRETION if sign > 0 else Kind.EROSION, margin)
    return Verdict(Kind.FILL if sign > 0 else Kind.EXCAVATION, margin)


def _stands_on_ground(seen: Evidence) -> bool:
    """Whether an object came or went on ground that stayed as it was; False where the ground is not known."""
    return seen.object.above_ground > HIGH_VEGETATION and abs(seen.ground_change) < UNMOVED * seen.object.above_ground


def _building(step_share: float, texture: float, solidity: float, smooth_limit: float) -> float:
    """0 at the limits of rule 1, growing to 1 towards a building, negative for what is none."""
    stands = (step_share - STEP_SHARE) / (1 - STEP_SHARE)
    compact = (solidity - SOLIDITY) / (1 - SOLIDITY)
    return min(stands, _smooth(texture, smooth_limit), compact)


def _smooth(texture: float, smooth_limit: float) -> float:
    return 1 - texture / smooth_limit if np.isfinite(texture) else 0.0


def _margin(distance: float) -> float:
    return float(np.clip(0.3 + 1.4 * distance, 0.3, 1.0))


def _earth_sign(seen: Classified) -> int:
    """Whether earth rose (1) or fell (-1) here; 0 where it is no earth at all."""
    if seen.patch.ground and seen.verdict.kind in (*WOODED, *EARTH):
        return seen.patch.ground
    return seen.patch.sign if seen.verdict.kind in EARTH else 0


def link_sites(found: list[Classified], resolution: float) -> list[Classified]:
    """Rule 5: earth fallen to a level floor, and what rose within SITE_DISTANCE of it and is earth, or may be."""
    out, event = list(found), max((c.event for c in found), default=0)
    parts = [k for k, c in enumerate(found) if _floor(c) or _heap(c)]
    for group in groups([found[k].patch for k in parts], SITE_DISTANCE, resolution):
        members = [parts[k] for k in group]
        floors = [k for k in members if _floor(found[k])]
        heaps = [k for k in members if k not in floors]
        whole = {s: sum(found[k].evidence.area for k in part) for s, part in ((1, heaps), (-1, floors))}
        if whole[-1] < SITE_AREA or not heaps or whole[1] > HEAPS_MOST * whole[-1]:
            continue
        event += 1
        for k in members:
            margin = min(found[j].verdict.margin for j in floors) if k in floors else HEAP_MARGIN
            out[k] = replace(found[k], verdict=Verdict(Kind.CONSTRUCTION_SITE, margin), event=event)
    return out


def _floor(seen: Classified) -> bool:
    """Whether earth was taken away down to a level floor."""
    return seen.verdict.kind is Kind.EXCAVATION and seen.evidence.other.level < SITE_LEVEL


def _heap(seen: Classified) -> bool:
    """Whether earth was put here, or something small that is no clear building or stand of trees."""
    doubtful = seen.verdict.margin < HEAP_MARGIN and seen.evidence.area < HEAP_AREA
    return seen.patch.sign > 0 and (seen.verdict.kind is Kind.FILL or doubtful)


def link_landslides(found: list[Classified], resolution: float) -> list[Classified]:
    """Rule 4 on groups of earth risen and lost, whose parts lie within LINK_DISTANCE of the next."""
    signs = [_earth_sign(c) for c in found]
    # A stand felled right above risen earth is taken for its source where the ground below trees is not known.
    signs = [
        -1 if s == 0 and c.verdict.kind is Kind.FELLING and not np.isfinite(c.evidence.ground_change) else s
        for c, s in zip(found, signs, strict=True)
    ]
    out, event = list(found), max((c.event for c in found), default=0)
    parts = [k for k, s in enumerate(signs) if s]
    for group in groups([found[k].patch for k in parts], LINK_DISTANCE, resolution):
        members = [parts[k] for k in group]
        gains = [found[k].evidence for k in members if signs[k] > 0]
        losses = [found[k].evidence for k in members if signs[k] < 0]
        area = sum(e.area for e in gains)
        if not losses or area < DEPOSIT_AREA or area + sum(e.area for e in losses) < SLIDE_AREA:
            continue
        source, deposit = _centre(losses), _centre(gains)
        run = float(np.hypot(*(source[:2] - deposit[:2]))) * resolution
        fall = float(source[2] - deposit[2]) / max(run, resolution)
        if fall < SLIDE_FALL:
            continue
        event += 1
        margin = _margin((fall / SLIDE_FALL - 1) / 2)
        for k in members:
            verdict = Verdict(Kind.LANDSLIDE, margin, "deposit" if signs[k] > 0 else "source")
            out[k] = replace(found[k], verdict=verdict, event=event)
    return _with_stands(out, resolution)


def _with_stands(found: list[Classified], resolution: float) -> list[Classified]:
    """Landslides with the stands that they took beside them: there the ground moved, if less than proves a slide."""
    out = list(found)
    for k, c in enumerate(found):
        moved = c.evidence.ground_change
        if c.verdict.kind is not Kind.FELLING or not abs(moved) >= STAND_MOVED:
            continue
        part = "deposit" if moved > 0 else "source"
        for other in found:
            same = other.verdict.kind is Kind.LANDSLIDE and other.verdict.part == part
            if same and within(c.patch, other.patch, STAND_DISTANCE / resolution):
                out[k] = replace(c, verdict=replace(other.verdict, margin=HEAP_MARGIN), event=other.event)
                break
    return out


def _centre(parts: list[Evidence]) -> NDArray[np.float64]:
    """Row, column and ground height of patches, weighted by area."""
    values = np.array([[e.row, e.column, e.ground] for e in parts])
    return np.asarray(np.average(values, axis=0, weights=[e.area for e in parts]))
