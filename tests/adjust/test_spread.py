"""Spread of ties: figures, and what the network makes of ties that lie badly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from shapely.geometry import Polygon, box

from terrain3d.adjust.network import DRIFT_REACH, MAX_REACH, build_network
from terrain3d.adjust.spread import grid_share, inside, reach
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.camera.write import write_image
from terrain3d.errors import AdjustmentError
from terrain3d.image.view import View
from terrain3d.io.images import open_image, read_window
from terrain3d.simulate.scene import write_scene
from terrain3d.stereo.pairs import choose_pairs

UTM = "EPSG:32632"
LIMITS = (460.0, 660.0)
RNG = np.random.default_rng(0)
EVERYWHERE = RNG.uniform(-1, 1, (2000, 2))


@pytest.mark.parametrize(
    ("ties", "low", "high"),
    [
        (EVERYWHERE, 1.8, 2.6),
        (EVERYWHERE * 0.5 + [-0.5, 0.5], 4.0, 9.0),  # a quarter
        (EVERYWHERE * 0.1 + 0.9, DRIFT_REACH, MAX_REACH),  # a corner
        (EVERYWHERE * [1.0, 0.01], MAX_REACH, 1e9),  # a line
        (EVERYWHERE * 0.01 + 0.9, MAX_REACH, 1e9),  # a spot
        (EVERYWHERE[:2], np.inf, np.inf),
    ],
)
def test_reach__grows_as_ties_draw_together(ties: NDArray[np.float64], low: float, high: float) -> None:
    assert low <= reach(ties, RNG.uniform(-1, 1, (3000, 2))) <= high


def test_reach__does_not_depend_on_the_units() -> None:
    turn = np.array([[300.0, 200.0], [-100.0, 700.0]])
    places = EVERYWHERE[:500] * 0.7
    assert reach(EVERYWHERE @ turn, places @ turn) == pytest.approx(reach(EVERYWHERE, places), rel=1e-6)
    assert reach(EVERYWHERE, np.empty((0, 2))) == 0


def test_grid_share__counts_cells_of_the_area() -> None:
    square = box(0, 0, 400, 400)
    assert grid_share(np.array([50.0, 60.0, 350.0]), np.array([50.0, 60.0, 350.0]), square) == 2 / 16
    triangle = Polygon([(0, 0), (400, 0), (0, 400)])  # 6 cells inside, 4 cut in half
    assert grid_share(np.array([50.0]), np.array([50.0]), triangle) == 1 / 10
    assert inside(Polygon(), np.zeros(3), np.zeros(3)).sum() == 0


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> list[View]:
    scene = write_scene(tmp_path_factory.mktemp("spread"), "town", 260, seed=4, views=2)
    return [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in scene.epochs[0].images]


def clouded(view: View, path: Path, lines: float, samples: float) -> View:
    """The view with clouds, which have texture, over all but a corner of those shares of the sides."""
    height, width = view.image.shape
    image = read_window(view.image, 0, 0, height, width)
    cloud = np.random.default_rng(3).normal(3000, 300, image.shape)
    corner = np.s_[int((1 - lines) * height) :, int((1 - samples) * width) :]
    cloud[corner] = image[corner]
    write_image(path, np.clip(np.nan_to_num(cloud), 1, 65535).astype(np.uint16), view.camera.rpc)
    return replace(view, name=path.stem, image=open_image(path))


def test_network__well_spread_ties_are_no_news(views: list[View]) -> None:
    network = build_network(views, UTM, LIMITS)
    assert network.warnings == () and max(network.reach) < 3
    (pair,) = choose_pairs(network.views, UTM, 540.0)
    count, share = network.pair_ties(0, 1, pair.area, UTM)
    assert count >= 60 and share > 0.8


def test_network__ties_in_a_strip_leave_the_drift_alone(views: list[View], tmp_path: Path) -> None:
    network = build_network([views[0], clouded(views[1], tmp_path / "cloudy.tif", 1.0, 0.2)], UTM, LIMITS)
    assert any("drift is not estimated" in w for w in network.warnings)
    held = [i for i in range(2) if network.reach[i] > DRIFT_REACH]
    assert held
    for i in held:
        c = network.views[i].camera.correction
        assert np.abs([c.line[1:], c.sample[1:]]).max() < 0.01


def test_network__hardly_anything_in_common_is_refused(views: list[View], tmp_path: Path) -> None:
    with pytest.raises(AdjustmentError, match=r"tif: (only \d+ tie points|its \d+ tie points lie in one corner)"):
        build_network([views[0], clouded(views[1], tmp_path / "cloudy.tif", 0.1, 0.1)], UTM, LIMITS)


def test_grid_share__no_common_ground() -> None:
    assert grid_share(np.zeros(0), np.zeros(0), Polygon()) == 0.0
