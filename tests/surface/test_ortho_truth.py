"""The true ortho against a vertical image of the same simulated town."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.simulate.render import Radiometry, render
from terrain3d.simulate.scene import draw_views
from terrain3d.simulate.sensor import PushbroomCamera, camera_over
from terrain3d.simulate.sensor import View as Direction
from terrain3d.simulate.shade import Sun, illuminate
from terrain3d.simulate.world import town
from terrain3d.surface.ortho import OrthoView, ortho, rank_views

Array = np.ndarray
CRS = "EPSG:32632"
WINDOW = 48  # px


class Exact:
    """The simulator's camera as a function of longitude, latitude and height."""

    def __init__(self, camera: PushbroomCamera) -> None:
        self.camera = camera

    def project(self, lon: Array, lat: Array, height: Array) -> tuple[Array, Array]:
        return self.camera.project(*from_lonlat(CRS, lon, lat), height)

    def locate(self, line: Array, sample: Array, height: Array) -> tuple[Array, Array]:
        return to_lonlat(CRS, *self.camera.locate(line, sample, height))


def view_of(image: Array, camera: PushbroomCamera) -> OrthoView:
    values = np.where(image > 0, image, np.nan).astype(np.float32)[None]
    return OrthoView(Exact(camera), lambda r, c, h, w: values[:, r : r + h, c : c + w], image.shape)  # type: ignore[arg-type]


def shifts(got: Array, truth: Array) -> Array:
    """Displacements (px) of windows with texture, by phase correlation."""
    found = []
    taper = cv2.createHanningWindow((WINDOW, WINDOW), cv2.CV_32F)
    for row in range(0, got.shape[0] - WINDOW, WINDOW // 2):
        for column in range(0, got.shape[1] - WINDOW, WINDOW // 2):
            a, b = (v[row : row + WINDOW, column : column + WINDOW] for v in (got, truth))
            known = np.isfinite(a) & np.isfinite(b)
            if known.mean() < 0.95 or b[known].std() < 30:
                continue
            a, b = np.where(known, a, b[known].mean()), np.where(known, b, b[known].mean())
            move, peak = cv2.phaseCorrelate((b - b.mean()).astype(np.float32), (a - a.mean()).astype(np.float32), taper)
            if peak > 0.15:
                found.append(move)
    return np.hypot(*np.array(found).T)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [4, 9])
def test_ortho__is_the_vertical_view(seed: int) -> None:
    """Two views 26 degrees apart, neither of them vertical: facades, and what they hide, are all over both."""
    world, rng = town(seed, 180), np.random.default_rng(seed)
    lit = illuminate(world, Sun())
    dsm, _, classes = world.truth(0.5)
    middle = sum(world.height_range) / 2
    views = []
    for direction in draw_views(2, rng):
        camera = camera_over(world.grid, middle, direction, 0.5)
        views.append(view_of(render(lit, camera, rng), camera))
    vertical = camera_over(world.grid, middle, Direction(0.0, 0.0, 180.0), 0.5)
    nadir = view_of(render(lit, vertical, rng, Radiometry(shot=0.0, read=0.0)), vertical)
    truth = ortho(dsm, rank_views(dsm, [nadir])).values[0]
    ranked = rank_views(dsm, views)
    found = ortho(dsm, ranked)
    got = found.values[0]
    line, sample = ranked[0].view.camera.project(*to_lonlat(CRS, *np.meshgrid(*dsm.grid.centres())), dsm.values)
    image = ranked[0].view.read(0, 0, *ranked[0].view.shape)[0]
    smeared = cv2.remap(image, sample.astype(np.float32), line.astype(np.float32), cv2.INTER_CUBIC)
    known = np.isfinite(got) & np.isfinite(truth)
    gain, offset = np.polyfit(got[known], truth[known], 1)
    error, naive = (np.abs(gain * v + offset - truth) for v in (got, smeared))
    objects = cv2.dilate(np.isin(classes.values, (5, 6)).astype(np.uint8), np.ones((13, 13))) > 0
    hidden = (found.source == 0) & np.isfinite(truth)
    assert shifts(gain * got + offset, truth).mean() < 0.3
    assert np.nanmean(error[objects & known]) < 0.65 * np.nanmean(naive[objects & known])
    assert 0.005 < hidden.mean() < 0.08 and (hidden & objects).sum() > 0.9 * hidden.sum()
    assert np.nanmean(naive[hidden]) > 2 * np.nanmean(error[known])  # marked is what a facade stands before
    share = np.bincount(found.source.ravel(), minlength=3) / found.source.size
    assert share[1] > share[2] > 0.05
