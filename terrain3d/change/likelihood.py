"""How likely what came or went is a building, vegetation or earth: a weighing of what is seen of it.

Each cover has a score, the sum of ``Features`` times ``WEIGHTS``, which is the logarithm of its odds against earth;
the probabilities follow from the scores (multinomial logistic model). The weights are those of greatest likelihood,
with a weak ridge, on 277 changes of eleven simulated scenes, rounded. What they say is physics:

- **wall**, **fall**: earth does not stand steeper than its angle of repose, some 40 degrees; a wall does, though a
  matched one is smeared, and falls by most of its height within two metres.
- **texture**, **contrast**: crowns are rough and mottled with light and shade; roofs and bare earth are neither.
- **share_above**, **above_ground**: a pit is dug into the ground, a house or a tree stands on it.
- **solidity**, **relief**: buildings are compact and level; a heap is a cone, a stand is ragged.

What was not measured takes a value between those of the covers; without images texture and outline have to tell crowns,
and other weights hold.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np

from terrain3d.change.evidence import Evidence

WATER_SHARE = 0.15  # of the rim of a bank: a quarter of a square one, less where water was not found
BESIDE_WATER = 1.0  # logarithm of how much likelier a moved bank is there than anything else
REPOSE = 1.05  # metres a metre: between the steepest earth (0.9, in a matched surface) and a low wall


@dataclass(frozen=True)
class Features:
    """wall: logarithm of ``Evidence.wall`` over REPOSE. fall: share of the height. texture: logarithm of that over the
    limit of a smooth surface. contrast: of the image. share_above: height above the ground of that epoch over the
    height change. above_ground: metres. solidity, relief: as of ``Evidence``. All clipped to where they tell more."""

    wall: float
    fall: float
    texture: float
    contrast: float
    share_above: float
    above_ground: float
    solidity: float
    relief: float


MIDDLE = Features(0.0, 0.7, -1.1, 0.08, 0.7, 3.0, 0.85, 0.3)  # of what is not known
LOWEST = Features(-1.0, 0.3, -2.0, 0.03, 0.0, 0.0, 0.5, 0.0)
HIGHEST = Features(1.0, 1.0, 0.2, 0.16, 1.0, 8.0, 0.95, 0.8)
# Of building and of vegetation over earth: columns as in Features, and a constant.
WEIGHTS = np.array([[1.9, 5.3, 0.0, 0.0, 2.1, 0.3, 3.3, -0.6, -9.1], [1.3, 6.0, 1.3, 67.7, 1.2, 0.3, -12.5, 2.8, -2.2]])
WITHOUT_IMAGE = np.array(
    [[1.6, 3.3, 0.0, 0.0, 2.4, 0.4, 0.9, -1.9, -6.0], [1.6, 8.4, 2.7, 0.0, -0.2, 0.5, -11.3, 6.4, 2.7]]
)


@dataclass(frozen=True)
class Cover:
    """Probabilities, which sum to 1."""

    building: float
    vegetation: float
    earth: float

    @property
    def likeliest(self) -> str:
        """Name of the most probable one."""
        return max(("building", "vegetation", "earth"), key=lambda name: float(getattr(self, name)))


def features(seen: Evidence, smooth_limit: float) -> Features:
    """What the weighing looks at."""
    place = seen.object
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = np.array([
            np.log(max(seen.wall, 1e-3) / REPOSE) if np.isfinite(seen.wall) else np.nan, seen.fall,
            np.log(max(place.texture, 1e-3) / smooth_limit), place.contrast,
            place.above_ground / max(seen.height, 0.1), place.above_ground, seen.solidity, seen.relief,
        ])  # fmt: skip
    known = np.where(np.isfinite(raw), raw, astuple(MIDDLE))
    return Features(*np.clip(known, astuple(LOWEST), astuple(HIGHEST)).tolist())


def weigh(seen: Evidence, smooth_limit: float) -> Cover:
    """Probabilities of what the object is or was; smooth_limit as of ``evidence.Scene``."""
    weights = WEIGHTS if np.isfinite(seen.object.contrast) else WITHOUT_IMAGE
    score = weights @ np.array([*astuple(features(seen, smooth_limit)), 1.0])
    if seen.water_share >= WATER_SHARE:
        score -= BESIDE_WATER
    if seen.wall <= 0:
        score[0] = -np.inf  # what does not fall across its rim is no building
    odds = np.exp(np.append(score, 0.0) - max(score.max(), 0.0))
    return Cover(*(odds / odds.sum()).tolist())
