"""Which images are matched with which, and why."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from shapely.geometry import Polygon

from terrain3d.errors import OverlapError
from terrain3d.image.view import View, footprint, lean

MIN_BASE_TO_HEIGHT = 0.04
MAX_BASE_TO_HEIGHT = 1.2
BEST_BASE_TO_HEIGHT = 0.35  # small enough to look alike, large enough to measure
MIN_OVERLAP = 0.05
MAX_PAIRS_PER_VIEW = 3


@dataclass(frozen=True)
class Pair:
    """A pair of views by index. overlap: common ground as a share of the smaller footprint; convergence: angle between
    the rays; chosen and reason: the decision."""

    left: int
    right: int
    base_to_height: float
    convergence_deg: float
    overlap: float
    area: Polygon
    chosen: bool
    reason: str


def choose_pairs(views: list[View], crs: str, height: float) -> list[Pair]:
    """All pairs with the decision on each; chosen ones first, the best first.

    Up to three views, every pair with usable geometry is matched. With more, each view keeps its best
    MAX_PAIRS_PER_VIEW partners. Raises OverlapError with every pair's reason when none is usable.
    """
    prints = [footprint(v, crs, height) for v in views]
    leans = [lean(v, crs, height) for v in views]
    candidates = [_judge(i, j, prints, leans) for i, j in combinations(range(len(views)), 2)]
    usable = sorted((p for p in candidates if p.chosen), key=_score, reverse=True)
    if not usable:
        reasons = "; ".join(f"{views[p.left].name} + {views[p.right].name}: {p.reason}" for p in candidates)
        raise OverlapError(
            f"no pair of images can be matched ({reasons})", fix="check that the images show the same place"
        )
    kept, dropped = _limit(usable, len(views))
    return kept + dropped + [p for p in candidates if not p.chosen]


def _judge(i: int, j: int, prints: list[Polygon], leans: list[np.ndarray]) -> Pair:
    area = prints[i].intersection(prints[j])
    overlap = area.area / max(min(prints[i].area, prints[j].area), 1e-9)
    base = float(np.hypot(*(leans[i] - leans[j])))
    rays = [np.array([*t, -1.0]) / np.sqrt(1 + t @ t) for t in leans]
    angle = float(np.degrees(np.arccos(np.clip(rays[i] @ rays[j], -1, 1))))
    if overlap < MIN_OVERLAP:
        chosen, reason = False, f"overlap {overlap:.0%} is below {MIN_OVERLAP:.0%}"
    elif base < MIN_BASE_TO_HEIGHT:
        chosen, reason = False, f"base to height {base:.3f} is too small to measure heights"
    elif base > MAX_BASE_TO_HEIGHT:
        chosen, reason = False, f"base to height {base:.2f} is too large to match"
    else:
        chosen, reason = True, f"convergence {angle:.1f} deg, base to height {base:.2f}, overlap {overlap:.0%}"
    return Pair(i, j, base, angle, overlap, area, chosen, reason)


def _score(pair: Pair) -> float:
    return pair.overlap * float(np.exp(-abs(np.log(pair.base_to_height / BEST_BASE_TO_HEIGHT))))


def _limit(usable: list[Pair], n_views: int) -> tuple[list[Pair], list[Pair]]:
    if n_views <= 3:
        return usable, []
    used = np.zeros(n_views, int)
    kept, dropped = [], []
    for pair in usable:
        if min(used[pair.left], used[pair.right]) < MAX_PAIRS_PER_VIEW - 1:
            used[[pair.left, pair.right]] += 1
            kept.append(pair)
        else:
            reason = f"both images have better partners ({pair.reason})"
            dropped.append(Pair(**{**pair.__dict__, "chosen": False, "reason": reason}))
    return kept, dropped
