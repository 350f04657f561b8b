"""How the lines of the images run over the ground: what attitude bends in a model runs with them, strip by strip.

Ties see how the images of one strip bend against one another, but not what these have in common. Strips that lie side
by side bend each for itself, and where they overlap the model is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import Polygon

from terrain3d.image.view import View, footprint

Floats = NDArray[np.float64]

SAME_GROUND = 0.5  # of the smaller of two images, from which they are of one strip


@dataclass(frozen=True)
class Strip:
    """Images of the same ground. along: unit vector, east and north, in which their lines follow one another. outline:
    of the ground that they see, metres from the origin of the places that are asked for."""

    along: tuple[float, float]
    outline: Polygon


@dataclass(frozen=True)
class Lines:
    """Lines of all images. along: unit vector, east and north, in which they follow one another. strips: empty where
    all images see the same ground. tilt: (2, 2) covariance of the tilt east and north that ties leave of the model,
    None where they are not known."""

    along: tuple[float, float] = (0.0, 1.0)
    strips: tuple[Strip, ...] = ()
    tilt: Floats | None = None

    @classmethod
    def of(cls, views: Sequence[View], crs: str, height: float, tilt: Floats | None = None) -> Lines:
        """Of images on the ground at an ellipsoidal height, metres; outlines from the origin of the CRS."""
        along = line_direction(views, crs, height)
        outlines = [footprint(v, crs, height) for v in views]
        groups: list[list[int]] = []
        for i, outline in enumerate(outlines):
            near = [g for g in groups if any(_share(outline, outlines[k]) > SAME_GROUND for k in g)]
            groups = [g for g in groups if g not in near] + [sorted([i, *(k for g in near for k in g)])]
        if len(groups) < 2:
            return cls(along, tilt=tilt)
        strips = [
            Strip(line_direction([views[k] for k in g], crs, height), shapely.union_all([outlines[k] for k in g]))
            for g in sorted(groups)
        ]
        return cls(along, tuple(strips), tilt)

    def about(self, origin: tuple[float, float]) -> Lines:
        """With outlines from another origin, given in the coordinates of the present one."""
        moved = (replace(s, outline=translate(s.outline, -origin[0], -origin[1])) for s in self.strips)
        return replace(self, strips=tuple(moved))

    def correlation(self, a: Floats, b: Floats, length: float) -> Floats:
        """Of bends at places (N, 2) and (M, 2), to (N, M): squared exponential along the lines, one bend a strip."""
        if not self.strips:
            return _alike(a, b, self.along, length)
        parts = zip(self.strips, self._shares(a), self._shares(b), strict=True)
        return np.asarray(sum(np.outer(p, q) * _alike(a, b, s.along, length) for s, p, q in parts))

    def variance(self, places: Floats) -> Floats:
        """Of bends of variance 1 a strip, at places (N, 2)."""
        return np.asarray((self._shares(places) ** 2).sum(axis=0)) if self.strips else np.ones(len(places))

    def _shares(self, places: Floats) -> Floats:
        """Share of each strip in the model at places, (strips, N); beyond all strips that of the nearest."""
        points = shapely.points(places)
        away = np.array([shapely.distance(s.outline, points) for s in self.strips])
        seen = away <= away.min(axis=0)
        return np.asarray(seen / seen.sum(axis=0))


def line_direction(views: Sequence[View], crs: str, height: float) -> tuple[float, float]:
    """Unit vector, east and north, in which the lines of the images follow one another, whichever way round."""
    double = np.zeros(2)
    for view in views:
        sample = np.full(2, (view.image.width - 1) / 2)
        ends = view.locate(crs, np.array([0.0, view.image.height - 1.0]), sample, np.full(2, height))
        east, north = (float(np.diff(c)[0]) for c in ends)
        angle = 2 * np.arctan2(north, east)  # twice the angle, so that opposite directions agree
        double += np.cos(angle), np.sin(angle)
    angle = np.arctan2(double[1], double[0]) / 2
    return float(np.cos(angle)), float(np.sin(angle))


def _share(a: Polygon, b: Polygon) -> float:
    smaller = min(a.area, b.area)
    return float(a.intersection(b).area / smaller) if smaller > 0 else 0.0


def _alike(a: Floats, b: Floats, along: tuple[float, float], length: float) -> Floats:
    u, v = ((p[:, :1] - q[:, 0]) / length for p, q in zip((a, a[:, 1:]), (b, b[:, 1:]), strict=True))
    return np.asarray(np.exp(-0.5 * (u * along[0] + v * along[1]) ** 2))
