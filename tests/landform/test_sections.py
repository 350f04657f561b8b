from __future__ import annotations

import numpy as np
import pytest
import shapely

from terrain3d.errors import ConfigError
from terrain3d.landform.sections import sections


def test_sections__stations_and_vertices() -> None:
    line = shapely.LineString([(0, 0), (10, 0), (10, 5.3)])
    long, *crosses = sections(line, 1.0, 4.0, 6.0)
    assert long.station[0] == 0 and long.station[-1] == pytest.approx(15.3)
    assert np.diff(long.station).max() <= 1.0 + 1e-9 and 10.0 in long.station
    assert [c.station[0] for c in crosses] == [0, 4, 8, 12]
    assert crosses[1].offset.tolist() == [-3, -2, -1, 0, 1, 2, 3]


def test_sections__offset_is_to_the_right() -> None:
    _, north, *_ = sections(shapely.LineString([(0, 0), (0, 10)]), 1.0, 20.0, 4.0)
    assert north.x.tolist() == [-2, -1, 0, 1, 2] and np.allclose(north.y, 0)


def test_sections__too_many_points_are_refused() -> None:
    with pytest.raises(ConfigError, match="5000000 points"):
        sections(shapely.LineString([(0, 0), (1e6, 0)]), 0.01, None, 1.0)
