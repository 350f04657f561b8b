"""The sun against published positions."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from terrain3d.image.sun import sun_direction


def sun_angles(time: datetime, lon_deg: float, lat_deg: float) -> tuple[float, float]:
    """Elevation and azimuth (clockwise from north), degrees."""
    east, north, up = sun_direction(time, lon_deg, lat_deg)
    return float(np.degrees(np.arcsin(up))), float(np.degrees(np.arctan2(east, north)) % 360)


def test_sun__example_of_the_nrel_algorithm() -> None:
    """Reda & Andreas (2008), appendix A.5: zenith 50.1116 with refraction of 0.0157 degrees, azimuth 194.3402."""
    elevation, azimuth = sun_angles(datetime(2003, 10, 17, 19, 30, 30, tzinfo=UTC), -105.1786, 39.742476)
    assert elevation == pytest.approx(90 - 50.1116 - 0.0157, abs=0.01)
    assert azimuth == pytest.approx(194.3402, abs=0.01)


def test_sun__overhead_at_the_tropic_in_june() -> None:
    assert sun_angles(datetime(2024, 6, 20, 12, 2, tzinfo=UTC), 0.0, 23.44)[0] == pytest.approx(90, abs=0.3)
    assert sun_angles(datetime(2024, 6, 20, 0, 2, tzinfo=UTC), 0.0, 23.44)[0] < -40
