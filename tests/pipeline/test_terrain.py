from __future__ import annotations

import numpy as np
import pytest

from terrain3d.pipeline.terrain import cells_seen
from terrain3d.surface.canopy import Seen
from terrain3d.surface.filled import Overhangs


@pytest.mark.parametrize(("most", "few"), [(3, 1), (200, 90)])
def test_cells_seen__by_how_many_pairs_beside_those_around(most: int, few: int) -> None:
    pairs = np.full((4, 100), most, np.uint8)
    pairs[:, 60:] = 1  # nothing around was seen by more than one pair
    pairs[0, 5], filled = few, np.zeros(pairs.shape, bool)
    heights, odds = np.full(pairs.shape, 10.0, np.float32), np.full(pairs.shape, -30.0, np.float32)
    filled[1:3, 5] = True
    odds[1, 5], heights[2, 5], pairs[2, 5] = 1.5, np.nan, 0
    seen = cells_seen(Overhangs(heights, odds), filled, pairs, 0.5)
    assert list(seen[:, 5]) == [Seen.PARTLY, Seen.HANGING, Seen.NOT, Seen.WELL]
    assert (seen[:, 90:] == Seen.WELL).all() and (seen[:, 62] == Seen.PARTLY).all()
