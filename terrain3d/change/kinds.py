"""What a change is: decision rules on shape and on the surfaces and grounds of both epochs.

The object is looked at in the epoch in which it stands: after a rise, before a fall.

1. What stood there is a **building**, **vegetation** or earth, whichever ``likelihood.weigh`` finds most probable;
   buildings are told only in cells of at most 2.5 m. A building is ``new_building`` or ``demolished_building``; where
   something stands by walls in the other epoch, too, and more than 2 m above the ground, it is ``raised_building`` or
   ``lowered_building``, as is anything that came or went evenly on top of that.
2. Vegetation fallen is ``felling``, risen ``vegetation_growth``. What might be trees and lies beside a larger stand
   that came or went with it is part of that.
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

from terrain3d.change.evidence import BUILDING_CELL, Evidence, Scene, observe
from terrain3d.change.likelihood import WATER_SHARE, weigh
from terrain3d.change.regions import Patch, gaps_closed, groups, merged, within

HIGH_VEGETATION = 2.5  # metres above the DTM
ROUGH_CROWNS = 0.4  # texture of crowns at least, as a share of the limit of smooth surfaces
STOOD_BEFORE = (2.0, 0.5)  # metres above the DTM, and of fall a metre across the rim, of what already stood there
STOREY_RELIEF = 0.15  # of the height at most, of what was put on evenly
SCRAP_ODDS = 0.05  # probability of vegetation at least, of a scrap beside a larger stand
COARSE_MARGIN = 0.4
CANOPY_BIAS = 0.1  # 1-sigma of heights of crowns as a share of them: matched surfaces bridge the gaps, more or less
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
HEAP_MARGIN = 0.5  # of what is part of a site or a slide by its place alone
DOUBTFUL = 0.8  # probability of a cover, below which it may be another one


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
    """``margin``: probability of the kind, of 0.3 to 1. part: 'source' or 'deposit' of a landslide."""

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
        return e.above_ground > HIGH_VEGETATION and e.texture > ROUGH_CROWNS * smooth_limit

    def covers(self, smooth_limit: float) -> tuple[str, str]:
        """Land cover before and after: built, vegetated, bare, or water where a bank moved."""
        e, kind = self.evidence, self.verdict.kind
        standing = {"building": "built", "vegetation": "vegetated", "earth": "bare"}[weigh(e, smooth_limit).likeliest]
        high = e.other.above_ground > HIGH_VEGETATION
        gone = "vegetated" if high or e.other.texture > smooth_limit else "bare"
        if stood_before(e):
            gone = "built"
        before, after = (gone, standing) if self.patch.sign > 0 else (standing, gone)
        return ("water" if kind is Kind.ACCRETION else before, "water" if kind is Kind.EROSION else after)


def classify(found: list[Patch], scene: Scene) -> list[Classified]:
    """Patches with their kinds; parts of one stand, and of one landslide's source or deposit, are made one patch."""
    evidence = [observe(patch, scene) for patch in found]
    seen = [
        Classified(patch, verdict, e, verdict.kind in WOODED or e.wooded)
        for patch, e in zip(found, evidence, strict=True)
        for verdict in [_doubted(decide(patch.sign, e, scene.smooth_limit), scene.resolution)]
    ]
    seen = join_scraps(seen, scene)
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
    cover = weigh(seen, smooth_limit)
    rose = sign > 0
    if stood_before(seen) and (cover.likeliest == "building" or seen.relief < STOREY_RELIEF):
        margin = max(cover.building, HEAP_MARGIN)
        return Verdict(Kind.RAISED_BUILDING if rose else Kind.LOWERED_BUILDING, margin)
    if cover.likeliest == "building":
        return Verdict(Kind.NEW_BUILDING if rose else Kind.DEMOLISHED_BUILDING, cover.building)
    if cover.likeliest == "vegetation":
        return Verdict(Kind.VEGETATION_GROWTH if rose else Kind.FELLING, cover.vegetation)
    if seen.water_share >= WATER_SHARE:
        return Verdict(Kind.ACCRETION if rose else Kind.EROSION, cover.earth)
    return Verdict(Kind.FILL if rose else Kind.EXCAVATION, cover.earth)


def stood_before(seen: Evidence) -> bool:
    """Whether something with walls stands in the other epoch, too."""
    height, wall = STOOD_BEFORE
    return seen.other.wall > wall and not seen.other.above_ground <= height


def join_scraps(found: list[Classified], scene: Scene) -> list[Classified]:
    """Doubtful buildings beside a larger stand of trees that came or went with them are part of it."""
    out = list(found)
    for k, c in enumerate(found):
        if c.verdict.kind not in BUILDINGS or weigh(c.evidence, scene.smooth_limit).vegetation < SCRAP_ODDS:
            continue
        for other in found:
            stand = other.verdict.kind in WOODED and other.patch.sign == c.patch.sign
            larger = stand and other.evidence.area > c.evidence.area
            if larger and within(c.patch, other.patch, STAND_DISTANCE / scene.resolution):
                out[k] = replace(c, verdict=replace(other.verdict, margin=HEAP_MARGIN), wooded=True)
                break
    return out


def _margin(distance: float) -> float:
    """0.3 at the border of a rule, growing to 1."""
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
    small = seen.evidence.area < HEAP_AREA
    doubtful = small and (seen.verdict.margin < DOUBTFUL or seen.verdict.kind is Kind.ACCRETION)
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
