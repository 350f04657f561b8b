"""Where the sun stood: from time and place, so that no provider's tag is needed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


def sun_direction(time: datetime, lon_deg: float, lat_deg: float) -> Floats:
    """Unit vector (east, north, up) to the sun, good to 0.02 degrees between 1950 and 2050; no refraction.

    Source: The Astronomical Almanac, low-precision formulas for the sun (section C), and its mean sidereal time.
    """
    days = (time - _J2000).total_seconds() / 86_400
    mean_longitude = 280.460 + 0.9856474 * days
    anomaly = np.radians(357.528 + 0.9856003 * days)
    ecliptic = np.radians(mean_longitude + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly))
    tilt = np.radians(23.439 - 4e-7 * days)
    ascension = np.arctan2(np.cos(tilt) * np.sin(ecliptic), np.cos(ecliptic))
    declination = np.arcsin(np.sin(tilt) * np.sin(ecliptic))
    sidereal = np.radians(280.46062 + 360.98564737 * days + lon_deg)
    hour, lat = sidereal - ascension, np.radians(lat_deg)
    return np.array(
        [
            -np.cos(declination) * np.sin(hour),
            np.sin(declination) * np.cos(lat) - np.cos(declination) * np.cos(hour) * np.sin(lat),
            np.sin(declination) * np.sin(lat) + np.cos(declination) * np.cos(hour) * np.cos(lat),
        ]
    )
