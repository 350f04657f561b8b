from __future__ import annotations

import numpy as np
import shapely

from terrain3d.crs import Reference
from terrain3d.landform.contours import contours, smoothed, strip_windows
from terrain3d.raster import Grid, Raster

GRID = Grid(Reference("EPSG:32654"), 3e5, 4e6, 0.5, 240, 200)


def cone() -> Raster:
    x, y = np.meshgrid(*GRID.centres())
    return Raster((20 - 0.4 * np.hypot(x - 300050, y - 3999940)).astype(np.float32), GRID)


def test_contours__of_a_cone_are_circles_at_their_height() -> None:
    found = contours([cone()], 1.0)
    rings = dict(zip(found.height, found.lines, strict=True))
    for h in (5.0, 12.0, 19.0):
        radius = (20 - h) / 0.4
        points = shapely.get_coordinates(rings[h]) - [300050, 3999940]
        assert np.abs(np.hypot(*points.T) - radius).max() < 0.03
        assert rings[h].is_closed
    assert {float(h) for h in found.height[found.index]} == {h for h in set(found.height.tolist()) if h % 5 == 0}


def test_contours__strips_give_the_lines_of_the_whole() -> None:
    z, cells = cone(), 2.0
    z.values[150:, 120:] = np.nan
    z.values[:] += np.random.default_rng(1).normal(0, 0.1, z.values.shape).astype(np.float32)

    def strips(rows: int) -> list[Raster]:
        parts = []
        for row, height, first, count in strip_windows(GRID, rows, 8):
            part = smoothed(z.values[row : row + height], cells)[first : first + count]
            parts.append(Raster(part, GRID.window(row + first, 0, count, GRID.width)))
        return parts

    whole, parts = contours(strips(1000), 1.0), contours(strips(37), 1.0)
    assert len(whole.lines) == len(parts.lines)
    for h in np.unique(whole.height):
        a, b = (shapely.multilinestrings(list(c.lines[c.height == h])) for c in (whole, parts))
        assert abs(a.length - b.length) < 1e-2 and shapely.hausdorff_distance(a, b) < 0.01


def test_contours__level_water_at_a_contour_has_no_ring_around_every_cell() -> None:
    z = cone()
    z.values[:] = np.maximum(z.values, 10)
    found = contours([z], 1.0)
    assert (found.height == 10).sum() == 0


def test_contours__nothing_to_draw() -> None:
    empty = contours([Raster(np.full(GRID.shape, np.nan, np.float32), GRID)], 1.0)
    assert len(empty.lines) == len(empty.height) == 0
