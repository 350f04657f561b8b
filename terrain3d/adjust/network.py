"""The image network of a scene: ties in two passes, adjustment, and what it says about the heights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terrain3d.adjust.bundle import Adjustment, adjust
from terrain3d.adjust.keypoints import Keypoints, find_keypoints
from terrain3d.adjust.ties import Ties, tie_views
from terrain3d.errors import AdjustmentError
from terrain3d.image.view import View

MIN_TIES_PER_VIEW = 12
REFINED_POINTING_PX = 3.0
REFINED_MARGIN_M = 40.0


@dataclass(frozen=True)
class Network:
    """views: with corrected cameras. heights: lowest and highest ellipsoidal height of the tie points (robust)."""

    views: list[View]
    ties: Ties
    adjustment: Adjustment
    heights: tuple[float, float]

    def ties_of(self, view: int) -> int:
        """Number of observations that the adjustment kept in a view."""
        return int((self.adjustment.used & (self.ties.view == view)).sum())


def build_network(views: list[View], crs: str, limits: tuple[float, float]) -> Network:
    """Tie and adjust the views. ``limits``: heights that the scene can have at most.

    The first pass knows neither heights nor pointing; the second searches with both nearly known, which finds more
    ties and fewer wrong ones. Raises AdjustmentError, naming the view, where ties are too few.
    """
    keypoints = [find_keypoints(v) for v in views]
    rough = _solve(views, keypoints, crs, limits, None)
    low, high = rough.heights
    near = (max(low - REFINED_MARGIN_M, limits[0]), min(high + REFINED_MARGIN_M, limits[1]))
    refined = _solve(rough.views, keypoints, crs, near, REFINED_POINTING_PX)
    return refined if len(refined.ties.view) > len(rough.ties.view) // 2 else rough


def _solve(
    views: list[View], keypoints: list[Keypoints], crs: str, heights: tuple[float, float], pointing_px: float | None
) -> Network:
    ties = tie_views(views, keypoints, crs, heights) if pointing_px is None else tie_views(
        views, keypoints, crs, heights, pointing_px=pointing_px
    )  # fmt: skip
    _check(views, ties)
    adjustment = adjust([v.camera for v in views], ties, sum(heights) / 2)
    kept = np.zeros(ties.n_tracks, int)
    np.add.at(kept, ties.track[adjustment.used], 1)
    z = adjustment.points[kept >= 2, 2]
    if len(z) < MIN_TIES_PER_VIEW:
        raise AdjustmentError(f"only {len(z)} tie points agree with the cameras", fix=_FIX)
    low, high = np.percentile(z, [1, 99])
    return Network(
        [v.with_camera(c) for v, c in zip(views, adjustment.cameras, strict=True)], ties, adjustment,
        (float(low), float(high)),
    )  # fmt: skip


_FIX = "check that the images show the same place, are free of cloud, and have the right RPC"


def _check(views: list[View], ties: Ties) -> None:
    for i, view in enumerate(views):
        mine = ties.view == i
        if mine.sum() < MIN_TIES_PER_VIEW:
            raise AdjustmentError(
                f"only {int(mine.sum())} tie points with the other images ({MIN_TIES_PER_VIEW} are needed)",
                where=view.image.path,
                fix=_FIX,
            )
