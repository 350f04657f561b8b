"""Bends of a model that run with the lines of its images, strip by strip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box

from terrain3d.camera.adjusted import Camera
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile
from terrain3d.raster import Grid
from terrain3d.register.lines import Lines, Strip, line_direction
from terrain3d.register.smooth import candidates, estimate
from terrain3d.simulate.sensor import Pointing, camera_over, fit_rpc
from terrain3d.simulate.sensor import View as Sight
from terrain3d.simulate.world import CENTRE, REFERENCE
from tests.register.test_smooth import NORTH, along_tracks, folds

CRS = REFERENCE.horizontal
X, Y = CENTRE
WEST, EAST = box(-400, -400, 50, 400), box(-50, -400, 400, 400)
TWO = Lines(NORTH.along, (Strip(NORTH.along, WEST), Strip(NORTH.along, EAST)))


def image(east: float, incidence_deg: float) -> View:
    """An image of 600 m, that far east of the middle."""
    grid = Grid.from_bounds(REFERENCE, X + east - 300, Y - 300, X + east + 300, Y + 300, 1.0)
    exact = camera_over(grid, 540.0, Sight(incidence_deg, 3.0), 0.5)
    rpc = fit_rpc(exact, Pointing((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 1.0), CRS, (500.0, 600.0))
    return View(
        "v", ImageFile(Path("v.tif"), exact.lines, exact.samples, 0.0, "uint16", 1),
        Camera(rpc.normalized(exact.lines, exact.samples)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def here() -> View:
    return image(0.0, 12.0)


def test_line_direction__is_that_of_flight_whichever_way_round(here: View) -> None:
    east, north = line_direction([here, here], CRS, 540.0)
    assert np.hypot(east, north) == pytest.approx(1.0)
    last, middle = here.image.height, np.array([here.image.width / 2])
    ends = [here.locate(CRS, np.array([n]), middle, 540.0) for n in (0, last)]
    chord = np.array([ends[1][0][0] - ends[0][0][0], ends[1][1][0] - ends[0][1][0]])
    assert abs(chord @ (east, north)) == pytest.approx(np.hypot(*chord), rel=1e-4)


def test_lines__images_of_the_same_ground_are_a_strip(here: View) -> None:
    again, beside = image(40.0, -8.0), image(450.0, 5.0)
    assert Lines.of([here, again], CRS, 540.0).strips == ()
    lines = Lines.of([here, beside, again], CRS, 540.0).about((X, Y))
    first, second = lines.strips
    assert first.outline.contains(box(-280, -280, 300, 280)) and not first.outline.contains(box(0, 0, 400, 10))
    assert second.outline.contains(box(200, -280, 700, 280))
    assert np.abs(np.array(first.along) @ lines.along) == pytest.approx(1.0, abs=1e-3)


def test_correlation__one_bend_a_strip_and_the_mean_where_they_overlap() -> None:
    west, both, east = (np.array([(x, 100.0)]) for x in (-300.0, 0.0, 300.0))
    places = np.vstack([west, both, east, east + (0.0, 80.0), east + (300.0, 0.0)])
    found = TWO.correlation(places, places, 80.0)
    beyond = np.exp(-0.5)
    expected = np.array([
        [1, 0.5, 0, 0, 0], [0.5, 0.5, 0.5, 0.5 * beyond, 0.5], [0, 0.5, 1, beyond, 1],
        [0, 0.5 * beyond, beyond, 1, beyond], [0, 0.5, 1, beyond, 1],
    ])  # fmt: skip
    assert found == pytest.approx(expected) and TWO.variance(places) == pytest.approx(np.diag(found))
    assert NORTH.correlation(west, east, 80.0) == pytest.approx(1.0)
    rng = np.random.default_rng(0)
    many = rng.uniform(-500, 500, (60, 2))
    assert np.linalg.eigvalsh(TWO.correlation(many, many, 150.0))[0] > -1e-9


def test_estimate__strips_that_bend_each_for_itself() -> None:
    """Of two strips with bends of their own, held-out tracks are met better than as one."""
    rng = np.random.default_rng(7)
    errors: dict[str, list[float]] = {"one": [], "two": []}
    for _ in range(2):
        observed = along_tracks(rng, 1.0)
        phases = rng.uniform(0, 6, 2)
        bend = 0.3 * np.where(observed.east < 0, *(np.sin(observed.north / 70 + p) for p in phases))
        bent = replace(observed, height=observed.height + bend)
        at = np.column_stack([observed.east, observed.north])
        for name, lines in (("one", NORTH), ("two", TWO)):
            out = folds(bent)
            for rows in out[::2]:
                kept = replace(bent, **{n: getattr(bent, n)[~rows] for n in bent.__dataclass_fields__})
                models = candidates(kept, [kept.track == t for t in np.unique(kept.track)], 700.0, lines)
                errors[name].append(float(np.mean((bend + 1.0 - estimate(kept, models, at).total)[rows] ** 2)))
    one, two = (np.sqrt(np.mean(errors[n])) for n in ("one", "two"))
    assert two < 0.1 and two < 0.8 * one
