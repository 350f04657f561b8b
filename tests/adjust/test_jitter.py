"""Jitter along the track, from images of a shaking sensor to cameras and heights without it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.adjust.bundle import adjust, intersect
from terrain3d.adjust.network import build_network
from terrain3d.adjust.sigma import height_sigma
from terrain3d.adjust.ties import Ties
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.camera.write import write_image
from terrain3d.image.view import View
from terrain3d.io.images import open_image, read_window
from terrain3d.simulate.scene import SceneFiles, write_scene

UTM = "EPSG:32632"
LIMITS = (460.0, 660.0)
SWING_PX, PERIOD = 0.4, 260.0


def swing(view: int, line: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the sensor of a view looks ahead and aside when it takes a line, (2, ...) px."""
    phase = np.random.default_rng(view).uniform(0, 6, 2)
    return np.stack([SWING_PX * np.sin(2 * np.pi * line / PERIOD + p) for p in phase])


def shaken(path: Path, number: int, folder: Path) -> View:
    """A steady image as a shaking sensor would have taken it."""
    image, rpc = open_image(path), read_rpc(path)
    pixels = np.nan_to_num(read_window(image, 0, 0, *image.shape))
    line, sample = np.mgrid[: image.height, : image.width].astype(float)
    ahead, aside = swing(number, line)
    moved = cv2.remap(
        pixels, (sample + aside).astype(np.float32), (line + ahead).astype(np.float32), cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    out = folder / path.name
    write_image(out, np.clip(np.rint(moved), 1, 65535).astype(np.uint16), rpc)
    return View(path.stem, open_image(out), Camera(rpc))


def seen(scene: SceneFiles, points: NDArray[np.float64]) -> Ties:
    """Where the shaking sensors have ground points (N, 3), without error."""
    places = []
    for i, sensor in enumerate(scene.epochs[0].sensors):
        exact = np.array(sensor.camera.project(*points.T))
        place = exact
        for _ in range(5):
            place = exact - swing(i, place[0])
        places.append(place)
    n, views = len(points), len(places)
    return Ties(np.repeat(np.arange(views), n), np.tile(np.arange(n), views), *np.concatenate(places, axis=1))


def misses(cameras: tuple[Camera, ...], ties: Ties) -> tuple[float, NDArray[np.float64]]:
    """RMS by which rays of points miss each other, px, and the heights where they meet."""
    points = intersect(list(cameras), ties, 545.0)
    at = np.array([cameras[i].project(*points[t]) for i, t in zip(ties.view, ties.track, strict=True)])
    return float(np.sqrt(np.mean((at - np.column_stack([ties.line, ties.sample])) ** 2))), points[:, 2]


@pytest.mark.slow
def test_network__images_of_shaking_sensors(tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene", "town", 300, seed=4, views=3)
    (tmp_path / "shaken").mkdir()
    views = [shaken(p, i, tmp_path / "shaken") for i, p in enumerate(scene.epochs[0].images)]
    network = build_network(views, UTM, LIMITS)
    assert network.adjustment.along >= 6
    stiff = adjust([v.camera for v in views], network.ties, sum(network.heights) / 2)
    rng = np.random.default_rng(5)
    x, y = (c + rng.uniform(-120, 120, 400) for c in (680_000.0, 5_230_000.0))
    exact = seen(scene, np.column_stack([x, y, np.full(400, 545.0)]))
    plane = np.column_stack([np.ones(400), x - x.mean(), y - y.mean()])
    (rough, waves), (fine, even) = (misses(a.cameras, exact) for a in (stiff, network.adjustment))
    waves, even = (z - plane @ np.linalg.lstsq(plane, z, rcond=None)[0] for z in (waves, even))
    assert rough > 0.15 and fine < 0.2 * rough
    assert max(network.adjustment.rms_after_px) < 0.7 * min(stiff.rms_after_px)
    # what all sensors do along their common base looks like relief: ties leave it, and the sigma of the heights tells
    assert even.std() < 1.02 * waves.std()
    sigma = height_sigma(network.adjustment, (0, 1, 2), UTM, x, y, 545.0).relative
    assert 0.4 < np.median(sigma) / even.std() < 2.5  # of one draw of phases
