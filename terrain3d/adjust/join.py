"""Images that join a network: its cameras stay as they are, while what all ties say agrees with them.

Every match rests on the cameras, and each new image moves them all by a small part of their sigma. To take that move
would redo everything and mean nothing; so they stay until an adjustment of all images together contradicts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.bundle import Adjustment, intersect, tied_to
from terrain3d.adjust.network import DRIFT_REACH, Network, with_adjustment
from terrain3d.adjust.sigma import height_sigma
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.crs import from_lonlat

Floats = NDArray[np.float64]
AGREES = 2.0  # 1-sigmas by which heights of earlier images may differ from those of all images adjusted together
LOOSER, LOOSER_PX = 1.2, 0.02  # factor and px by which residuals may be larger than if all cameras were free
TIES_KEPT = 0.8  # share of the ties of a view that must fit then, too
PLACES = 400  # of the model, at which heights are compared


@dataclass(frozen=True)
class Begun:
    """A network that may grow. marks: what tells each view from all others. begun: marks of the views that were
    adjusted together; the others joined them later."""

    network: Network
    marks: tuple[str, ...]
    begun: tuple[str, ...]

    @property
    def grown(self) -> bool:
        """Whether views joined it."""
        return len(self.marks) > len(self.begun)


def joined(
    old: Begun, new: Begun, pairs: Sequence[tuple[str, str]], crs: str, tell: Callable[[str], None]
) -> Begun | None:  # fmt: skip
    """``old`` with the views of ``new`` that it lacks tied to its own, which stay; None where it holds no more.

    new: all views, adjusted together. pairs: names of the views whose heights count. tell: is told why.
    """
    if old.marks == new.marks:
        return old if old.grown else new
    places = [new.marks.index(m) for m in old.marks if m in new.marks]
    if len(places) < len(old.marks) or places != sorted(places):
        tell("adjustment anew: images that it came from have changed, are gone, or come in another order")
        return None
    network = _with_fixed(old.network, new.network, places)
    names = ", ".join(v.name for i, v in enumerate(network.views) if i not in places)
    free, held = new.network.adjustment, network.adjustment
    for i, view in enumerate(network.views):
        of_view = new.network.ties.view == i
        few = (held.used & of_view).sum() < TIES_KEPT * (free.used & of_view).sum()
        if few or held.rms_after_px[i] > LOOSER * free.rms_after_px[i] + LOOSER_PX:
            tell(f"adjustment anew: {names} does not fit, {view.name} has residuals of {held.rms_after_px[i]:.2f} px, "
                 f"{free.rms_after_px[i]:.2f} px if all images move")  # fmt: skip
            return None
    metres, share = _moved(old.network, [free.cameras[i] for i in places], pairs, crs)
    what = f"with {names} heights would move by up to {metres:.3f} m ({share:.2f} of their sigma)"
    if share > AGREES:
        tell(f"adjustment anew: {what}")
        return None
    tell(f"adjustment kept, {names} tied to it: {what}")
    rms = [old.network.adjustment.rms_after_px[places.index(i)] if i in places else r
           for i, r in enumerate(held.rms_after_px)]  # fmt: skip
    network = replace(network, heights=old.network.heights, joined_heights=network.heights,
                      adjustment=replace(held, rms_after_px=tuple(rms)))  # fmt: skip
    return Begun(network, new.marks, old.begun)


def _with_fixed(old: Network, new: Network, places: list[int]) -> Network:
    """The new network with the cameras of the old one. places: of the old views among the new ones."""
    fixed = dict(zip(places, old.adjustment.cameras, strict=True))
    drift = [r <= DRIFT_REACH for r in new.reach]
    adjustment = tied_to(fixed, new.adjustment, new.ties, old.adjustment.along, drift)
    return with_adjustment(new, adjustment)


def _moved(old: Network, cameras: list[Camera], pairs: Sequence[tuple[str, str]], crs: str) -> tuple[float, float]:
    """How far the heights of pairs lie from where other cameras put them, but for the plane of the whole model, which
    ties do not tell: largest in metres, and as a share of its 1-sigma."""
    points = old.adjustment.points[:: -(-len(old.adjustment.points) // PLACES)]
    x, y = from_lonlat(crs, points[:, 0], points[:, 1])
    design = np.column_stack([np.ones(len(x)), x - x.mean(), y - y.mean()])
    every = tuple(range(len(cameras)))
    seen = np.array(
        [v.image.holds(*c.project(*points.T)) for v, c in zip(old.views, old.adjustment.cameras, strict=True)]
    )
    known = seen.sum(axis=0) >= 2
    rise = _rise(old.adjustment, cameras, every, points)
    plane = design @ np.linalg.lstsq(design[known], rise[known], rcond=None)[0]
    index = {v.name: i for i, v in enumerate(old.views)}
    metres = share = 0.0
    for left, right in pairs:
        if left not in index or right not in index:
            continue
        pair = index[left], index[right]
        here = seen[pair[0]] & seen[pair[1]]
        if not here.any():
            continue
        apart = np.abs(_rise(old.adjustment, cameras, pair, points) - plane)[here]
        sigma = height_sigma(old.adjustment, pair, crs, x[here], y[here], points[here, 2]).relative
        metres, share = max(metres, float(apart.max())), max(share, float((apart / np.maximum(sigma, 1e-6)).max()))
    return metres, share


def _rise(adjustment: Adjustment, cameras: list[Camera], views: tuple[int, ...], points: Floats) -> Floats:
    """How much higher than ``points`` other cameras of some views see them."""
    n = len(points)
    positions = [adjustment.cameras[i].project(*points.T) for i in views]
    line, sample = (np.concatenate([p[k] for p in positions]) for k in (0, 1))
    ties = Ties(np.repeat(np.arange(len(views)), n), np.tile(np.arange(n), len(views)), line, sample)
    height = float(np.median(points[:, 2]))
    return np.asarray(intersect([cameras[i] for i in views], ties, height)[:, 2] - points[:, 2])
