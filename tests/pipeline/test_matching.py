from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.pipeline.matching import median_heights
from terrain3d.raster import Grid


def test_median_heights__of_cells_with_three_points_or_more() -> None:
    grid = Grid(Reference("EPSG:32654"), 3e5, 4e6, 4.0, 3, 2)
    x = 3e5 + np.array([1.0, 2, 3, 1, 5, 6, 7, 7.5, 1, 2, -1])
    y = 4e6 - np.array([1.0, 2, 3, 1, 1, 2, 3, 1, 9, 9, 1])
    z = np.array([1.0, 9, 2, 3, 5, 5, 5, 90, 7, 7, 100])
    found = median_heights(np.column_stack([x, y, z]), grid)
    assert found.shape == (3, 2)
    assert found[0].tolist() == [3.0, 5.0]
    assert np.isnan(found[1:]).all()
    assert np.isnan(median_heights(np.empty((0, 3)), grid)).all()
