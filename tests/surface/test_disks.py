from __future__ import annotations

import numpy as np

from terrain3d.surface.disks import disk, full_disk


def test_disk__cells_within_the_radius() -> None:
    assert disk(2.4).tolist() == [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    assert disk(0.1).sum() == full_disk(0.1).sum() == 5  # at least one cell


def test_full_disk__rows_end_at_the_nearest_cell() -> None:
    for radius in (2, 5, 12, 40):
        q = np.arange(-radius, radius + 1)
        expected = np.abs(q)[None, :] <= np.rint(np.sqrt(radius**2 - q**2))[:, None]
        np.testing.assert_array_equal(full_disk(radius), expected)
        assert (full_disk(radius) >= disk(radius)).all()
