"""Epipolar frames and triangulation: rows meet, disparity has the documented sign and size, and all of it inverts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.image.view import View, lean
from terrain3d.raster import Grid
from terrain3d.simulate.world import CENTRE
from terrain3d.stereo.epipolar import EpipolarTile, epipolar_frame
from terrain3d.stereo.triangulate import triangulate

CRS = "EPSG:32632"
H0 = 520.0
Floats = NDArray[np.float64]
Make = Callable[..., View]
Area = Callable[..., Grid]


@pytest.fixture
def pair(view_of: Make, area: Area) -> tuple[View, View]:
    return view_of(area(600), 12.0, 2.0), view_of(area(600), -9.0, -3.0)


def tile_of(left: View, right: View, size: int = 500) -> EpipolarTile:
    frame = epipolar_frame(left, right, CRS, H0, 0.5)
    x, y = frame.from_ground(np.array(CENTRE[0]), np.array(CENTRE[1]))
    return EpipolarTile(frame, int(x) - size // 2, int(y) - size // 2, size, size, H0)


def on_plane(view: View, tile: EpipolarTile, points: Floats) -> tuple[Floats, Floats]:
    """Absolute rectified column and row where a view sees ground points (N, 3)."""
    line, sample = view.project(CRS, *points.T)
    return tile.frame.from_ground(*view.locate(CRS, line, sample, tile.height0))


def ground(tile: EpipolarTile, heights: tuple[float, float], n: int = 300) -> Floats:
    """Points over the inner part of a tile."""
    rng = np.random.default_rng(3)
    x, y = rng.uniform(100, tile.width - 100, n), rng.uniform(100, tile.height - 100, n)
    east, north = tile.frame.to_ground(x + tile.column, y + tile.row)
    return np.column_stack([east, north, rng.uniform(*heights, n)])


@pytest.mark.parametrize("swapped", [False, True])
def test_frame__rows_meet_and_disparity_is_height(pair: tuple[View, View], swapped: bool) -> None:
    left, right = pair[::-1] if swapped else pair
    tile = tile_of(left, right)
    points = ground(tile, (500.0, 560.0))
    (xl, yl), (xr, yr) = on_plane(left, tile, points), on_plane(right, tile, points)
    assert np.abs(yl - yr).max() < 0.1
    expected = tile.frame.px_per_metre() * (points[:, 2] - H0)
    assert tile.frame.px_per_metre() > 0.5
    np.testing.assert_allclose(xl - xr, expected, atol=0.1)  # grows with height, whichever is the left one
    assert np.corrcoef(xl - xr, points[:, 2])[0, 1] > 0.999


def test_frame__base_is_that_of_the_angles(pair: tuple[View, View]) -> None:
    left, right = pair
    frame = epipolar_frame(left, right, CRS, H0, 0.5)
    t = np.tan(np.radians([[12.0, 2.0], [-9.0, -3.0]]))
    assert frame.base_to_height == pytest.approx(np.hypot(*(t[0] - t[1])), rel=1e-3)
    assert np.hypot(*frame.along) == pytest.approx(1.0)
    assert np.dot(frame.along, frame.down) == pytest.approx(0.0)
    other = epipolar_frame(right, left, CRS, H0, 0.5)
    np.testing.assert_allclose(other.along, -np.array(frame.along))


def test_frame__is_not_mirrored_and_inverts(pair: tuple[View, View]) -> None:
    frame = epipolar_frame(*pair, CRS, H0, 0.5)
    (a, b), (c, d) = frame.along, frame.down
    assert a * d - b * c == pytest.approx(-1.0)  # rows go down where columns go right, as in a north-up picture
    x, y = np.array([10.5, -3e6]), np.array([0.0, 9e6])
    np.testing.assert_allclose(frame.from_ground(*frame.to_ground(x, y)), [x, y], rtol=0, atol=1e-6)


def test_lean__points_away_from_the_satellite(view_of: Make, area: Area) -> None:
    """Looking ahead of a flight to 191 degrees, the satellite stands in the north; tall points lean to the south."""
    east, north = lean(view_of(area(300), 12.0), CRS, H0)
    assert np.hypot(east, north) == pytest.approx(np.tan(np.radians(12.0)), rel=1e-3)
    assert np.degrees(np.arctan2(east, north)) % 360 == pytest.approx(191.0, abs=0.2)


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("heights", [(510.0, 530.0), (480.0, 600.0)])
def test_triangulate__inverts_projection_to_a_centimetre(
    pair: tuple[View, View], swapped: bool, heights: tuple[float, float]
) -> None:
    left, right = pair[::-1] if swapped else pair
    tile = tile_of(left, right)
    lattice = tile.lattice(left, right, max(abs(h - H0) for h in heights))
    points = ground(tile, heights)
    (xl, yl), (xr, _) = on_plane(left, tile, points), on_plane(right, tile, points)
    found = triangulate(tile, lattice, (xl - xr).astype(np.float64), xl - tile.column, yl - tile.row)
    assert np.abs(found - points).max() < 0.01


@pytest.mark.parametrize("corner", [(-3.0, 3.0), (3.0, 2.5)])
def test_lattice__rows_meet_at_the_ends_of_images_that_cross(view_of: Make, area: Area, corner: Floats) -> None:
    """Eight kilometres of images from north to south and from east to west: rows of the frame come apart by a pixel and
    more per 100 m of relief, as the lattice says they do."""
    along, across = view_of(area(8000), 12.0), view_of(area(8000), 0.0, 12.0, heading_deg=101.0)
    frame = epipolar_frame(along, across, CRS, H0, 0.5)
    x, y = frame.from_ground(*(np.array(c + 1000 * d) for c, d in zip(CENTRE, corner, strict=True)))
    tile = EpipolarTile(frame, int(x) - 250, int(y) - 250, 500, 500, H0)
    points = ground(tile, (H0 - 60, H0 + 60))
    (_, first), (_, second) = on_plane(along, tile, points), on_plane(across, tile, points)
    per_metre = tile.lattice(along, across, 60.0).parallax_of.mean()
    assert abs(per_metre) > 0.005
    np.testing.assert_allclose(second - first, per_metre * (points[:, 2] - H0), atol=0.05)


def test_lattice__agrees_with_the_cameras(pair: tuple[View, View]) -> None:
    tile = tile_of(*pair)
    lattice = tile.lattice(*pair, 30.0)
    x, y = tile.frame.to_ground(np.array(tile.column + 64.0), np.array(tile.row + 96.0))
    for view, image in zip(pair, (lattice.left_image, lattice.right_image), strict=True):
        np.testing.assert_allclose(image[3, 2], view.project(CRS, x, y, H0), atol=1e-6)
    assert np.abs(lattice.parallax_of).max() * 30 < 0.05
