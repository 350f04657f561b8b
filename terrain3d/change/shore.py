"""Land turned to water and water turned to land: changes of land cover, told from the masks of both epochs.

Where one epoch measured land and the other saw water, the heights cannot be compared as those of land. Four things keep
mistakes of the masks and other water levels from becoming changes:

1. The place is wide: what an opening of a few metres takes away is the ragged rim of a mask.
2. Most of it was measured as land, not filled: water that was missed in one epoch was hardly ever matched.
3. Where images are known, the place became darker or brighter against its surroundings, as water is dark.
4. Beside water that both epochs have, the land stands above both levels. What lies between two levels, or hardly above
   them, is a shore that was wet on the one day and dry on the other; it counts only where the level itself changed by
   as much as a change must have, a flood or a lake that was emptied.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.change.evidence import SURROUNDINGS, EpochSurfaces, Scene, tone
from terrain3d.change.filters import Array, box_mean, disc
from terrain3d.change.kinds import Kind, Verdict
from terrain3d.change.regions import Patch, ring
from terrain3d.raster import odd_cells
from terrain3d.stats import NMAD_FACTOR

BEFORE, AFTER, BOTH = 1, 2, 3  # codes of ``EpochSurfaces.wet``
WIDTH = 6.0  # metres at least
GAP = 2.0  # metres between cells of one place at most
MEASURED = 0.6  # of the place at least was measured as land
TONE = 1.3  # times brighter as land at least
CLEAR_TONE = 2.5  # times brighter, where nothing else is left to doubt
NEIGHBOUR = 12.0  # metres within which water of both epochs tells its levels
FREEBOARD = 0.5  # metres over the water, below which land is a shore
LEVEL_SIGMA = 0.5  # metres, of the height of the land over the water that took its place
NO_IMAGE_MARGIN = 0.5
TEXTURE_WINDOW = 2.5  # metres


@dataclass(frozen=True)
class Shore:
    """A place whose cover changed. rise: of the surface there, metres, (h, w) of the patch's window."""

    patch: Patch
    verdict: Verdict
    rise: Array
    tone: float
    cover_before: str
    cover_after: str


def cover_changes(before: Array, after: Array, wet: NDArray[np.uint8], resolution: float) -> NDArray[np.int8]:
    """1 where water became land and -1 where land became water, wide places only; 0 elsewhere.

    before, after: heights that were measured, NaN elsewhere. wet: codes as in ``EpochSurfaces``. Cells farther than
    three times WIDTH from the border do not depend on what lies beyond it.
    """
    out = np.zeros(wet.shape, np.int8)
    opening, closing = disc(WIDTH / 2 / resolution), disc(GAP / 2 / resolution)
    for sign, water, land in ((1, BEFORE, after), (-1, AFTER, before)):
        changed = (wet == water) & np.isfinite(land)
        if changed.any():
            mask = cv2.morphologyEx(changed.astype(np.uint8), cv2.MORPH_CLOSE, closing)
            out[(cv2.morphologyEx(mask, cv2.MORPH_OPEN, opening) > 0) & (wet == water)] = sign
    return out


def look_at_shore(patch: Patch, scene: Scene, least_flood: float) -> Shore | None:
    """What is seen of a place of ``cover_changes``; None where it is no change by the rules above.

    patch: sign 1 for land that was water. least_flood: metres by which a level must have changed for the shores that it
    covered or left to count.
    """
    r = scene.resolution
    where, cells = patch.window(round(NEIGHBOUR / r) + 2, scene.shape)
    seen = scene.surfaces(where)
    land, wet = (seen.after if patch.sign > 0 else seen.before), seen.wet
    if wet is None or seen.closed is None or np.isfinite(land[cells]).mean() < MEASURED:
        return None
    rise = seen.closed
    here = rise[cells & np.isfinite(rise)]
    if not here.size:
        return None
    near = (wet == BOTH) & (cells | ring(cells, 0.0, NEIGHBOUR / r))
    if np.count_nonzero(near & np.isfinite(rise)) * r * r > WIDTH * WIDTH:
        level_rise = float(np.nanmedian(rise[near]))
        over = patch.sign * float(np.median(here))  # of the land, over the water that is or was there
        if min(over, over - patch.sign * level_rise) < FREEBOARD and -patch.sign * level_rise < least_flood:
            return None
    light = tone(seen, cells, ring(cells, SURROUNDINGS[0] / r, SURROUNDINGS[1] / r) & (wet == 0))
    brighter = light**patch.sign if np.isfinite(light) and light > 0 else float("nan")
    if brighter < TONE:
        return None
    margin = NO_IMAGE_MARGIN
    if np.isfinite(brighter):
        margin = float(np.clip(0.4 + 0.6 * np.log(brighter / TONE) / np.log(CLEAR_TONE / TONE), 0.4, 1.0))
    kind = Kind.WATER_TO_LAND if patch.sign > 0 else Kind.LAND_TO_WATER
    cover = _cover(seen, land, cells, scene)
    covers = ("water", cover) if patch.sign > 0 else (cover, "water")
    row, column = patch.row - where[0].start, patch.column - where[1].start
    inner = rise[row : row + patch.cells.shape[0], column : column + patch.cells.shape[1]]
    return Shore(patch, Verdict(kind, margin), inner, light, *covers)


def _cover(seen: EpochSurfaces, land: Array, cells: NDArray[np.bool_], scene: Scene) -> str:
    residual = np.abs(land - box_mean(land, odd_cells(TEXTURE_WINDOW, scene.resolution)))[cells]
    texture = NMAD_FACTOR * float(np.nanmedian(residual))
    return "vegetated" if texture > scene.smooth_limit else "bare"
