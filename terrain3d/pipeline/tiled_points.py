"""Points on disk by squares of the plane, so that those around a place are read without the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.io.atomic import output_error

Floats = NDArray[np.float64]
Square = tuple[int, int]


@dataclass(frozen=True)
class TiledPoints:
    """Points in files of ``folder``, one for each square of ``side``. squares: number of points in each. low, high: of
    all points, (3,)."""

    folder: Path
    side: float
    squares: dict[Square, int]
    low: Floats
    high: Floats

    @property
    def count(self) -> int:
        return sum(self.squares.values())

    def square(self, square: Square) -> Floats:
        """Points of one square, (N, 3)."""
        if square not in self.squares:
            return np.zeros((0, 3))
        return np.fromfile(_file(self.folder, square), np.float64).reshape(-1, 3)

    def within(self, low: Floats, high: Floats) -> Floats:
        """Points whose x and y lie from ``low`` to ``high``, (N, 3)."""
        (i0, j0), (i1, j1) = (np.floor(v[:2] / self.side).astype(int) for v in (low, high))
        parts = [np.zeros((0, 3))]
        for square in ((i, j) for i in range(i0, i1 + 1) for j in range(j0, j1 + 1)):
            points = self.square(square)
            parts.append(points[((points[:, :2] >= low[:2]) & (points[:, :2] <= high[:2])).all(axis=1)])
        return np.concatenate(parts)

    def __iter__(self) -> Iterator[Floats]:
        """Points of one square after the other."""
        return (self.square(s) for s in sorted(self.squares))


def spread(parts: Iterable[Floats], folder: Path, side: float) -> TiledPoints:
    """Points (N, 3) put into new files of ``folder``, made if need be. Raises OutputError (full disk)."""
    squares: dict[Square, int] = {}
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for xyz in parts:
            if not len(xyz):
                continue
            low, high = np.minimum(low, xyz.min(axis=0)), np.maximum(high, xyz.max(axis=0))
            key = np.floor(xyz[:, :2] / side).astype(np.int64)
            order = np.lexsort((key[:, 1], key[:, 0]))
            starts = np.flatnonzero(np.r_[True, np.any(np.diff(key[order], axis=0) != 0, axis=1)])
            for members in np.split(order, starts[1:]):
                square = int(key[members[0], 0]), int(key[members[0], 1])
                squares[square] = squares.get(square, 0) + len(members)
                with _file(folder, square).open("ab") as file:
                    file.write(np.ascontiguousarray(xyz[members], np.float64).tobytes())
    except OSError as error:
        raise output_error(folder, error) from error
    return TiledPoints(folder, side, squares, low, high)


def _file(folder: Path, square: Square) -> Path:
    return folder / f"{square[0]}_{square[1]}.xyz"
