"""Points between matching and surfaces, on disk: a file per tile, read back by area, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.io.scratch import Place, save_array
from terrain3d.points import PointCloud
from terrain3d.raster import Grid
from terrain3d.register.move import Move

_RECORD = np.dtype([("xyz", "<f8", 3), ("sigma", "<f4"), ("confidence", "<f4"), ("pair", "u1"), ("intensity", "<u2")])
_NONE = np.empty(0, _RECORD)
TOGETHER = 2**18  # points that are handed over at once, where it can be


@dataclass(frozen=True)
class Part:
    """A file of points with its bounds: west, south, east, north; and lowest and highest point."""

    path: Path
    count: int
    bounds: tuple[float, float, float, float]


@dataclass(frozen=True)
class Spool:
    """All points of a run, in the reference that they were matched in."""

    reference: Reference
    parts: tuple[Part, ...]

    @property
    def count(self) -> int:
        return sum(p.count for p in self.parts)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of all points."""
        b = np.array([p.bounds for p in self.parts])
        return float(b[:, 0].min()), float(b[:, 1].min()), float(b[:, 2].max()), float(b[:, 3].max())

    def within(self, grid: Grid, margin: float, move: Move | None = None) -> PointCloud:
        """Points over a grid and a margin around it, moved."""
        return _cloud(self.reference, np.concatenate([_NONE, *self._near(grid, margin, move)]), move)

    def clouds_within(self, grid: Grid, margin: float, move: Move | None = None) -> Iterator[PointCloud]:
        """The same, part by part, small ones together; at least one, perhaps empty."""
        held: list[NDArray[np.void]] = []
        some = False
        for records in self._near(grid, margin, move):
            held.append(records)
            if sum(map(len, held)) >= TOGETHER:
                yield _cloud(self.reference, np.concatenate(held), move)
                held, some = [], True
        if held or not some:
            yield _cloud(self.reference, np.concatenate([_NONE, *held]), move)

    def _near(self, grid: Grid, margin: float, move: Move | None) -> Iterator[NDArray[np.void]]:
        west, south, east, north = grid.bounds
        reach = margin if move is None else margin + float(np.hypot(move.dx, move.dy))
        for part in self.parts:
            w, s, e, n = part.bounds
            if w > east + reach or e < west - reach or s > north + reach or n < south - reach:
                continue
            records = np.load(part.path, mmap_mode="r")
            if w > west - reach and e < east + reach and s > south - reach and n < north + reach:
                yield np.asarray(records)
                continue
            x, y = records["xyz"][:, 0], records["xyz"][:, 1]
            inside = (x > west - reach) & (x < east + reach) & (y > south - reach) & (y < north + reach)
            if inside.any():
                yield records[inside]

    def clouds(self, move: Move | None = None) -> Iterator[PointCloud]:
        """All points, part by part, moved."""
        for part in self.parts:
            yield _cloud(self.reference, np.load(part.path), move)


def _cloud(reference: Reference, records: NDArray[np.void], move: Move | None) -> PointCloud:
    xyz = np.ascontiguousarray(records["xyz"])
    return PointCloud(
        reference,
        xyz if move is None else move.apply(xyz),
        np.ascontiguousarray(records["sigma"]),
        np.ascontiguousarray(records["confidence"]),
        np.ascontiguousarray(records["pair"]),
        np.ascontiguousarray(records["intensity"]),
    )


def save_part(path: Place, cloud: PointCloud) -> Part | None:
    """Write points to a file; None if there are none. Raises OutputError (full disk)."""
    if len(cloud) == 0:
        return None
    records = np.empty(len(cloud), _RECORD)
    records["xyz"], records["sigma"], records["confidence"] = cloud.xyz, cloud.sigma, cloud.confidence
    records["pair"], records["intensity"] = cloud.pair, cloud.intensity
    low, high = cloud.xyz.min(axis=0), cloud.xyz.max(axis=0)
    return Part(save_array(path, records), len(cloud), (float(low[0]), float(low[1]), float(high[0]), float(high[1])))
