"""Views: what follows from an image and its camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from shapely import Polygon

from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.image.view import View, footprint, ground_sample_distance, lean, view_angles
from terrain3d.io.images import ImageFile
from terrain3d.raster import Grid
from terrain3d.simulate.sensor import Pointing, PushbroomCamera, camera_over, fit_rpc
from terrain3d.simulate.sensor import View as Sight
from terrain3d.simulate.world import CENTRE, REFERENCE

CRS = "EPSG:32632"
H = 540.0
NO_ERROR = Pointing((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0)


def make(
    along_deg: float, across_deg: float = 0.0, gsd: float = 0.5, heading_deg: float = 191.0
) -> tuple[View, PushbroomCamera]:
    x, y = CENTRE
    grid = Grid.from_bounds(REFERENCE, x - 200, y - 150, x + 200, y + 150, 0.5)
    exact = camera_over(grid, H, Sight(along_deg, across_deg, heading_deg), gsd)
    image = ImageFile(Path("view.tif"), exact.lines, exact.samples, 0.0, "uint16", 1)
    return View("view", image, Camera(fit_rpc(exact, NO_ERROR, CRS, (480.0, 600.0)))), exact


def test_view__projects_and_locates_in_the_crs() -> None:
    view, exact = make(12.0, 3.0)
    rng = np.random.default_rng(1)
    x, y = CENTRE[0] + rng.uniform(-150, 150, 50), CENTRE[1] + rng.uniform(-100, 100, 50)
    h = rng.uniform(500, 580, 50)
    line, sample = view.project(CRS, x, y, h)
    np.testing.assert_allclose((line, sample), exact.project(x, y, h), atol=5e-3)
    np.testing.assert_allclose(view.locate(CRS, line, sample, h), (x, y), atol=1e-6)


def test_footprint__is_the_outer_edge_of_the_pixels() -> None:
    view, exact = make(-8.0)
    corners = np.array(
        [(-0.5, -0.5), (-0.5, exact.samples - 0.5), (exact.lines - 0.5, exact.samples - 0.5), (exact.lines - 0.5, -0.5)]
    )
    x, y = exact.locate(corners[:, 0], corners[:, 1], H)
    expected = Polygon(np.column_stack([x, y]))
    found = footprint(view, CRS, H)
    assert found.symmetric_difference(expected).area < 1e-3 * expected.area
    assert found.area == pytest.approx(exact.lines * exact.samples * 0.5 * 0.5 / np.cos(np.radians(8)), rel=0.02)


def test_footprint__moves_with_the_height_by_the_lean() -> None:
    view, _ = make(12.0)
    low, high = (footprint(view, CRS, h).centroid for h in (H, H + 50))
    moved = np.array([high.x - low.x, high.y - low.y])
    np.testing.assert_allclose(moved, -50 * lean(view, CRS, H), atol=0.05)


def test_gsd__along_and_across() -> None:
    assert ground_sample_distance(make(0.0)[0], CRS, H) == pytest.approx(0.5, rel=2e-3)
    view, _ = make(0.0, gsd=0.3)
    assert ground_sample_distance(view, CRS, H) == pytest.approx(0.3, rel=2e-3)
    tilted = ground_sample_distance(make(0.0, 20.0)[0], CRS, H)
    assert tilted == pytest.approx(0.5 * np.cos(np.radians(20)) ** -0.5, rel=0.01)  # wider across, equal along


@pytest.mark.parametrize(
    ("along", "across", "heading", "incidence", "azimuth"),
    [
        (12.0, 0.0, 191.0, 12.0, 11.0),  # looks ahead, so stands behind: in the north of a flight to the south
        (-12.0, 0.0, 191.0, 12.0, 191.0),
        (0.0, 15.0, 180.0, 15.0, 270.0),  # looks to the east from the west
        (0.0, -15.0, 180.0, 15.0, 90.0),
        (20.0, 0.0, 90.0, 20.0, 270.0),
    ],
)
def test_view_angles__where_the_satellite_stands(
    along: float, across: float, heading: float, incidence: float, azimuth: float
) -> None:
    found = view_angles(make(along, across, heading_deg=heading)[0], CRS, H)
    np.testing.assert_allclose(found, (incidence, azimuth), atol=0.15)


def test_lean__at_a_place_and_at_the_centre() -> None:
    view, _ = make(12.0, 2.0)
    np.testing.assert_allclose(lean(view, CRS, H), lean(view, CRS, H, *view.centre()))
    line, sample = np.array([0.0, 100.0]), np.array([5.0, 50.0])
    assert lean(view, CRS, H, line, sample).shape == (2, 2)
    # a point 10 m up is seen where the plane lies 10 m * lean beyond it
    up = view.project(CRS, *CENTRE, H + 10)
    seen = np.array(view.locate(CRS, *up, H)) - CENTRE
    np.testing.assert_allclose(seen, 10 * lean(view, CRS, H, *up), atol=1e-3)


def test_with_camera__leaves_the_first_as_it_was() -> None:
    view, _ = make(0.0)
    moved = view.with_camera(view.camera.corrected(Correction((2.0, 0.0, 0.0), (-1.0, 0.0, 0.0))))
    assert view.camera.correction == Correction()
    before, after = (np.array(v.project(CRS, *CENTRE, H)) for v in (view, moved))
    np.testing.assert_allclose(after - before, (2.0, -1.0), atol=1e-9)
