"""Key points and ties: places to a fraction of a pixel, gates, tracks, and errors that name the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.keypoints import Keypoints, find_keypoints, to_bytes
from terrain3d.adjust.network import MIN_TIES_PER_VIEW, build_network
from terrain3d.adjust.ties import _join, match_pair
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.camera.rpc import RpcModel
from terrain3d.camera.write import write_image
from terrain3d.errors import AdjustmentError
from terrain3d.image.view import View, lean
from terrain3d.io.images import open_image
from terrain3d.io.rasters import read_raster
from terrain3d.simulate.scene import SceneFiles, write_scene

UTM = "EPSG:32632"
LIMITS = (460.0, 660.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    return write_scene(tmp_path_factory.mktemp("ties"), "town", 200, seed=4, views=3)


@pytest.fixture(scope="module")
def views(scene: SceneFiles) -> list[View]:
    return [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in scene.epochs[0].images]


def saved(path: Path, image: NDArray[np.float64], rpc: RpcModel) -> View:
    write_image(path, np.clip(np.rint(image), 1, 65535).astype(np.uint16), rpc)
    return View(path.stem, open_image(path), Camera(rpc))


def blobs(
    shape: tuple[int, int], line: float = 0.0, sample: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image of Gaussian blobs at known places, all moved by (line, sample), and their places."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    image, places = np.full(shape, 500.0), []
    for r in range(40, shape[0] - 40, 50):
        for c in range(40, shape[1] - 40, 50):
            place = r + rng.uniform(-10, 10) + line, c + rng.uniform(-10, 10) + sample
            size = rng.uniform(3, 8)
            image += rng.uniform(400, 1500) * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 2 / size**2)
            places.append(place)
    return image, np.array(places)


def test_keypoints__lie_where_the_blobs_are(views: list[View], tmp_path: Path) -> None:
    """The centre of pixel (0, 0) is (0, 0), also through the halved image that key points are found in."""
    image, places = blobs((420, 470))
    found = find_keypoints(saved(tmp_path / "blobs.tif", image, views[0].camera.rpc))
    away = np.column_stack([found.line, found.sample])[:, None] - places
    nearest = np.hypot(*np.moveaxis(away, -1, 0)).argmin(axis=0)
    miss = away[nearest, np.arange(len(places))]
    miss = miss[np.hypot(*miss.T) < 1.5]
    assert len(miss) > 0.7 * len(places)
    np.testing.assert_allclose(np.median(miss, axis=0), 0.0, atol=0.03)
    assert miss.std(axis=0).max() < 0.15


@pytest.mark.parametrize("shift", [(0.5, -0.25), (3.3, 1.8), (-7.0, 4.6)])
def test_keypoints__follow_a_shift_of_the_image(views: list[View], tmp_path: Path, shift: tuple[float, float]) -> None:
    a = find_keypoints(saved(tmp_path / "a.tif", blobs((420, 470))[0], views[0].camera.rpc))
    b = find_keypoints(saved(tmp_path / "b.tif", blobs((420, 470), *shift)[0], views[0].camera.rpc))
    likeness = a.descriptor @ b.descriptor.T
    best = likeness.argmax(axis=1)
    mutual = likeness.argmax(axis=0)[best] == np.arange(len(a))
    moved = np.column_stack([b.line[best] - a.line, b.sample[best] - a.sample])[mutual]
    assert len(moved) > 40
    np.testing.assert_allclose(np.median(moved, axis=0), shift, atol=0.05)


def test_keypoints__none_near_nodata_or_in_flat_images(views: list[View], tmp_path: Path) -> None:
    image = blobs((420, 470))[0]
    image[:, :200] = 0
    path = tmp_path / "half.tif"
    write_image(path, image.astype(np.uint16), views[0].camera.rpc)
    found = find_keypoints(View("half", open_image(path), views[0].camera))
    assert len(found) > 20 and found.sample.min() > 203
    assert len(find_keypoints(saved(tmp_path / "flat.tif", np.full((300, 300), 700.0), views[0].camera.rpc))) == 0


def test_keypoints__descriptors_have_unit_length(views: list[View]) -> None:
    found = find_keypoints(views[0])
    np.testing.assert_allclose(np.linalg.norm(found.descriptor, axis=1), 1.0, atol=1e-3)


def test_to_bytes__stretches_and_keeps_nan_dark() -> None:
    image = np.linspace(100, 900, 10_000, dtype=np.float32).reshape(100, 100)
    image[0, 0] = np.nan
    out = to_bytes(image)
    assert out[0, 0] == 0 and out.max() == 255 and abs(int(out[50, 0]) - 127) < 3
    assert not to_bytes(np.full((4, 4), np.nan, np.float32)).any()


def test_match_pair__ties_show_the_same_ground(views: list[View], scene: SceneFiles) -> None:
    """By the exact cameras: rays of a tie meet, up to the noise of key points."""
    keypoints = [find_keypoints(v) for v in views[:2]]
    found = match_pair(views[0], views[1], keypoints[0], keypoints[1], UTM, LIMITS, 40.0)
    assert len(found) >= 30
    exact = [s.camera for s in scene.epochs[0].sensors[:2]]
    line, sample = keypoints[0].line[found[:, 0]], keypoints[0].sample[found[:, 0]]
    misses = []
    for h in np.arange(500.0, 640.0, 0.25):
        other = exact[1].project(*exact[0].locate(line, sample, h), h)
        misses.append(np.hypot(other[0] - keypoints[1].line[found[:, 1]], other[1] - keypoints[1].sample[found[:, 1]]))
    miss = np.min(misses, axis=0)
    assert np.median(miss) < 0.4 and (miss < 2).mean() > 0.9


def test_match_pair__nothing_to_match(views: list[View]) -> None:
    empty = Keypoints(np.empty(0), np.empty(0), np.empty((0, 128), np.float32))
    assert match_pair(views[0], views[1], empty, find_keypoints(views[1]), UTM, LIMITS, 40.0).shape == (0, 2)


def test_join__tracks_over_three_views_and_drops_contradictions() -> None:
    keypoints = [Keypoints(10.0 * i + np.arange(3.0), np.arange(3.0), np.zeros((3, 128), np.float32)) for i in range(3)]
    matches = {
        (0, 1): np.array([[0, 0], [1, 1]]),
        (1, 2): np.array([[0, 0], [1, 1]]),
        (0, 2): np.array([[2, 1]]),  # point 1 of view 2 already belongs to point 1 of view 0
    }
    ties = _join(keypoints, matches)
    assert ties.n_tracks == 1
    assert sorted(zip(ties.view.tolist(), ties.line.tolist(), strict=True)) == [(0, 0.0), (1, 10.0), (2, 20.0)]
    assert _join(keypoints, {(0, 1): np.empty((0, 2), np.int64)}).n_tracks == 0


def test_network__images_to_cameras_that_agree(views: list[View], scene: SceneFiles) -> None:
    network = build_network(views, UTM, LIMITS)
    assert all(network.ties_of(i) >= 60 for i in range(3))
    assert max(network.adjustment.rms_after_px) < 0.3 < min(network.adjustment.rms_before_px)
    low, high = network.heights
    truth = read_raster(scene.epochs[0].truth["dsm"]).values
    assert truth.min() - 40 < low < high < truth.max() + 40  # pointing errors lift and sink the model
    # rays of the corrected cameras through exact image places of ground points meet
    x, y = np.meshgrid(680_000 + np.linspace(-80, 80, 9), 5_230_000 + np.linspace(-80, 80, 9))
    seen = [s.camera.project(x, y, 545.0) for s in scene.epochs[0].sensors]
    on_plane = [v.locate(UTM, *p, 545.0) for v, p in zip(network.views, seen, strict=True)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        along = lean(network.views[i], UTM, 545.0) - lean(network.views[j], UTM, 545.0)
        miss = np.array(on_plane[i]) - np.array(on_plane[j])
        across = (miss[0] * along[1] - miss[1] * along[0]) / np.hypot(*along)
        assert np.abs(across).max() < 0.1  # metres, a fifth of a pixel; along the base it is height


def test_network__too_few_ties_names_the_image(views: list[View], tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = saved(tmp_path / "noise.tif", rng.uniform(1, 4000, views[2].image.shape), views[2].camera.rpc)
    with pytest.raises(AdjustmentError, match=rf"noise\.tif: only \d+ tie points .*\({MIN_TIES_PER_VIEW} are needed\)"):
        build_network([views[0], views[1], noise], UTM, LIMITS)


@pytest.mark.slow
def test_network__tracks_over_five_views(tmp_path: Path) -> None:
    scene = write_scene(tmp_path, "town", 180, seed=5, views=5)
    network = build_network(
        [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in scene.epochs[0].images], UTM, LIMITS
    )
    seen = np.bincount(network.ties.track[network.adjustment.used])
    assert seen.max() == 5 and (seen >= 4).sum() > 20
    # a track has one observation a view at most
    assert len(np.unique(np.column_stack([network.ties.track, network.ties.view]), axis=0)) == len(network.ties.view)
    assert max(network.adjustment.rms_after_px) < 0.12
