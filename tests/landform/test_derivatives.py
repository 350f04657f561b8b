from __future__ import annotations

import numpy as np
import pytest

from terrain3d.landform.derivatives import aspect_deg, hillshade, horn_gradient, slope_deg


def plane(east: float, north: float, n: int = 21, resolution: float = 0.5) -> np.ndarray:
    y, x = np.mgrid[0:n, 0:n] * resolution
    return (50 + east * x - north * y).astype(np.float32)


@pytest.mark.parametrize(
    ("east", "north", "aspect"), [(0.5, 0.0, 270.0), (-0.5, 0.0, 90.0), (0.0, 0.3, 180.0), (-0.4, -0.4, 45.0)]
)
def test_slope_and_aspect__of_a_plane(east: float, north: float, aspect: float) -> None:
    gradient = horn_gradient(plane(east, north), 0.5)
    assert np.allclose(slope_deg(*gradient), np.degrees(np.arctan(np.hypot(east, north))), atol=1e-3)
    assert np.allclose(aspect_deg(*gradient), aspect, atol=1e-2)


def test_horn_gradient__weights_of_the_three_rows() -> None:
    z = np.random.default_rng(0).normal(size=(3, 3)).astype(np.float32)
    east, north = (float(g[1, 1]) for g in horn_gradient(z, 2.0))
    assert east == pytest.approx(((z[:, 2] - z[:, 0]) @ [1, 2, 1]) / 16, abs=1e-6)
    assert north == pytest.approx(((z[0] - z[2]) @ [1, 2, 1]) / 16, abs=1e-6)


def test_horn_gradient__beside_a_void_leans_on_the_other_side() -> None:
    z = plane(0.5, 0.2)
    z[10, 10] = np.nan
    slope = slope_deg(*horn_gradient(z, 0.5))
    assert np.isnan(slope[10, 10]) and np.isfinite(slope).sum() == slope.size - 1
    assert np.nanmax(np.abs(slope - slope[0, 0])) < 1e-3


def test_aspect__level_ground_has_none() -> None:
    assert np.isnan(aspect_deg(*horn_gradient(np.full((5, 5), 7, np.float32), 1.0))).all()


def test_hillshade__is_the_cosine_to_the_sun() -> None:
    flat = hillshade(*horn_gradient(plane(0, 0), 0.5), 315, 30)
    assert np.unique(flat).tolist() == [round(1 + 254 * 0.5)]
    towards = hillshade(*horn_gradient(plane(1 / np.sqrt(2), -1 / np.sqrt(2)), 0.5), 315, 45)
    assert np.unique(towards).tolist() == [255]  # a slope of 45 degrees that faces the sun at 45 degrees
    away = plane(-1 / np.sqrt(2), 1 / np.sqrt(2))
    away[0, 0] = np.nan
    away_shade = hillshade(*horn_gradient(away, 0.5), 315, 45)
    assert away_shade[0, 0] == 0 and away_shade[5, 5] == 1
