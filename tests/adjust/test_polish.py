"""Patch matching: places to a few hundredths of a pixel, on slopes and in other light; ties that it moves or drops."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.bundle import intersect
from terrain3d.adjust.keypoints import find_keypoints
from terrain3d.adjust.network import build_network
from terrain3d.adjust.patches import MARGIN_PX, cut_patches, match_patches
from terrain3d.adjust.polish import polish_ties
from terrain3d.adjust.ties import Ties, tie_views
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.image.view import View
from terrain3d.io.images import open_image
from terrain3d.simulate.scene import SceneFiles, write_scene

UTM = "EPSG:32632"
LIMITS = (460.0, 660.0)
HALF = 7
S = HALF + MARGIN_PX + 1
EYE = np.eye(2)[None]
EAST = np.array([[0.0, 1.0]])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    return write_scene(tmp_path_factory.mktemp("polish"), "town", 220, seed=6, views=3)


@pytest.fixture(scope="module")
def views(scene: SceneFiles) -> list[View]:
    return [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in scene.epochs[0].images]


def waves(y: NDArray[np.float64], x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 500 + 60 * np.sin(0.6 * y + 0.3 * x) + 50 * np.cos(0.5 * x - 0.2 * y) + 30 * np.sin(0.9 * x + 0.4)


def patch(dy: float = 0.0, dx: float = 0.0, slope: tuple[float, float] = (0.0, 0.0)) -> NDArray[np.float32]:
    """A texture seen after a move and a shear of its columns."""
    y, x = np.mgrid[-S : S + 1, -S : S + 1].astype(float)
    y, x = y - dy, x - dx
    x = (x - slope[0] * y) / (1 + slope[1])
    return waves(y, x).astype(np.float32)[None]


@pytest.mark.parametrize("move", [(0.0, 0.0), (0.37, -0.81), (-1.4, 1.2)])
@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.15, -0.1), (-0.2, 0.2)])
def test_match__finds_move_and_slope(move: tuple[float, float], slope: tuple[float, float]) -> None:
    seen = 0.7 * patch(*move, slope) + 120  # other light
    start = np.array([[200.0, 300.0]])
    found = match_patches(patch(), np.array([[50.0, 60.0]]), seen, start, EYE, EAST, HALF)
    assert found.likeness[0] > 0.99
    np.testing.assert_allclose([found.line[0] - 200, found.sample[0] - 300], move, atol=0.02)


def test_match__counts_from_fractions_of_pixels() -> None:
    """Patches lie about the nearest pixels; places between pixels stay what they are."""
    found = match_patches(patch(), np.array([[50.3, 59.6]]), patch(), np.array([[200.0, 300.0]]), EYE, EAST, HALF)
    np.testing.assert_allclose([found.line[0], found.sample[0]], [200.3, 299.6], atol=0.01)


def test_match__nothing_where_there_is_nothing() -> None:
    at = np.array([[50.0, 60.0]])
    flat = np.full_like(patch(), 7.0)
    assert np.isnan(match_patches(flat, at, patch(), at, EYE, EAST, HALF).line[0])
    assert np.isnan(match_patches(patch(), at, flat, at, EYE, EAST, HALF).line[0])  # a saturated cloud
    hole = patch()
    hole[0, S, S] = np.nan
    assert np.isnan(match_patches(patch(), at, hole, at, EYE, EAST, HALF).line[0])
    far = match_patches(patch(), at, patch(0, 9), at, EYE, EAST, HALF)
    assert np.isnan(far.line[0]) or far.likeness[0] < 0.5


def test_cut_patches__are_the_image(views: list[View]) -> None:
    line, sample = np.array([3.2, 100.6, 250.0]), np.array([4.0, 80.4, 300.0])
    found = cut_patches(views[0], line, sample, 5)
    whole = cut_patches(views[0], np.array([200.0]), np.array([200.0]), 200)[0]  # rows and columns 0 to 400
    assert np.isnan(found[0, :2]).all() and np.isfinite(found[1:]).all()
    np.testing.assert_array_equal(found[1], whole[96:107, 75:86])
    np.testing.assert_array_equal(found[2], whole[245:256, 295:306])


def test_polish__ties_agree_and_wrong_ones_go(views: list[View]) -> None:
    keypoints = [find_keypoints(v) for v in views]
    ties = tie_views(views, keypoints, UTM, LIMITS)
    network = build_network(views, UTM, LIMITS)
    points = intersect([v.camera for v in network.views], ties, 540.0)
    wrong = np.flatnonzero(ties.view == 2)[::10]
    ties.line[wrong] += 4.0
    polished = polish_ties(network.views, ties, points, np.ones(len(ties.view), bool), UTM, 540.0)
    assert 0.5 * len(ties.view) < len(polished.view) < len(ties.view) - 0.8 * len(wrong)
    assert (np.bincount(polished.track) >= 2).all()
    cameras = [v.camera for v in network.views]
    misses = []
    for t in (ties, polished):
        p = intersect(cameras, t, 540.0)[t.track]
        seen = np.array([cameras[i].project(*q) for i, q in zip(t.view, p, strict=True)])
        misses.append(np.median(np.abs(seen - np.column_stack([t.line, t.sample]))))
    assert misses[1] < 0.5 * misses[0] and misses[1] < 0.05


def test_network__polished_ties_make_views_agree(views: list[View], scene: SceneFiles) -> None:
    network = build_network(views, UTM, LIMITS)
    assert max(network.adjustment.rms_after_px) < 0.1
    x, y = np.meshgrid(680_000 + np.linspace(-90, 90, 9), 5_230_000 + np.linspace(-90, 90, 9))
    places = [s.camera.project(x.ravel(), y.ravel(), 545.0) for s in scene.epochs[0].sensors]
    truth = np.concatenate([np.array(p) for p in places], axis=1)
    exact = Ties(np.repeat(np.arange(3), 81), np.tile(np.arange(81), 3), *truth)
    cameras = [v.camera for v in network.views]
    points = intersect(cameras, exact, 545.0)[exact.track]
    seen = np.array([cameras[i].project(*p) for i, p in zip(exact.view, points, strict=True)])
    assert np.sqrt(np.mean((seen - truth.T) ** 2)) < 0.05


def test_network__images_that_look_different_keep_their_key_points(
    views: list[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where patch matching confirms too few ties, those of the descriptors serve."""
    monkeypatch.setattr("terrain3d.adjust.polish.MIN_LIKENESS", 0.999)
    network = build_network(views, UTM, LIMITS)
    assert all(network.ties_of(i) >= 60 for i in range(3))
    assert min(network.adjustment.rms_after_px) > 0.08
