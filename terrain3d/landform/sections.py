"""Stations along a line, and the cross sections at right angles to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from terrain3d.errors import ConfigError

Floats = NDArray[np.float64]
MAX_POINTS = 5_000_000


@dataclass(frozen=True)
class Section:
    """Points (n,) of a section: station along the line and offset to its right, metres, and coordinates.

    A long section has offsets of 0, a cross section one station. number: of the cross section, 0 for the long one.
    """

    number: int
    station: Floats
    offset: Floats
    x: Floats
    y: Floats


def sections(line: shapely.LineString, step: float, spacing: float | None, width: float) -> list[Section]:
    """The long section of a line, points at most ``step`` metres apart and at its vertices; and, if ``spacing`` is
    given, cross sections ``width`` metres wide every so many metres. Raises ConfigError if they are too many points."""
    length = float(line.length)
    across = 0.0 if spacing is None else (length / spacing + 1) * width / step
    if length / step + across > MAX_POINTS:
        raise ConfigError(f"sections of more than {MAX_POINTS} points", fix="take a longer step or spacing")
    steps = np.hypot(*np.diff(shapely.get_coordinates(line), axis=0).T)
    vertices = np.cumsum(steps)[:-1]  # of a line that crosses itself, too
    even = np.linspace(0, length, max(int(np.ceil(length / step - 1e-9)), 1) + 1)
    station = np.unique(np.concatenate([even, vertices]))
    x, y = _points(line, station)
    out = [Section(0, station, np.zeros(station.size), x, y)]
    if spacing is None:
        return out
    n = max(int(np.ceil(width / 2 / step - 1e-9)), 1)
    offset = np.linspace(-width / 2, width / 2, 2 * n + 1)
    for number, at in enumerate(np.arange(0.0, length + 1e-9, spacing), 1):
        (x0, x1, x2), (y0, y1, y2) = _points(line, np.array([at, max(at - step, 0.0), min(at + step, length)]))
        ahead = np.array([x2 - x1, y2 - y1]) / max(np.hypot(x2 - x1, y2 - y1), 1e-12)
        out.append(Section(number, np.full(offset.size, at), offset, x0 + offset * ahead[1], y0 - offset * ahead[0]))
    return out


def _points(line: shapely.LineString, station: Floats) -> tuple[Floats, Floats]:
    found = shapely.get_coordinates(shapely.line_interpolate_point(line, station))
    return found[:, 0], found[:, 1]
