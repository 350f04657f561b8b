"""The true ortho against a vertical image of the same simulated town."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.raster import Raster
from terrain3d.simulate.render import Radiometry, render
from terrain3d.simulate.scene import draw_views
from terrain3d.simulate.sensor import PushbroomCamera, camera_over
from terrain3d.simulate.sensor import View as Direction
from terrain3d.simulate.shade import Sun, illuminate
from terrain3d.simulate.world import town
from terrain3d.surface.ortho import OrthoView, ortho, rank_views
from terrain3d.surface.super_resolution import super_resolved

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


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 8])
def test_super_resolved__is_sharper_than_bicubic_and_nearer_to_the_truth(seed: int) -> None:
    """Three views of 0.5 m against a vertical one of 0.25 m: more of the fine contrast, less error."""
    world, rng = town(seed, 110), np.random.default_rng(seed)
    lit = illuminate(world, Sun())
    dsm, _, _ = world.truth(0.5)
    middle = sum(world.height_range) / 2
    views = []
    for direction in draw_views(3, rng):
        camera = camera_over(world.grid, middle, direction, 0.5)
        views.append(view_of(render(lit, camera, rng), camera))
    ranked = rank_views(dsm, views)
    got = super_resolved(dsm, ranked, (slice(None), slice(None)))[0]
    size = (dsm.grid.width * 2, dsm.grid.height * 2)
    fine = Raster(cv2.resize(dsm.values, size), replace(dsm.grid, resolution=0.25, height=size[1], width=size[0]))
    bicubic = ortho(fine, ranked).values[0]
    vertical = camera_over(world.grid, middle, Direction(0.0, 0.0, 180.0), 0.25)
    nadir = view_of(render(lit, vertical, rng, Radiometry(shot=0.0, read=0.0, blur_px=0.35)), vertical)
    truth = ortho(fine, rank_views(fine, [nadir])).values[0]
    inner = np.zeros(truth.shape, bool)
    inner[8:-8, 8:-8] = True
    known = inner & np.isfinite(got) & np.isfinite(bicubic) & np.isfinite(truth)
    figures = {}
    for name, picture in (("bicubic", bicubic), ("super", got)):
        gain, offset = np.polyfit(picture[known], truth[known], 1)
        placed = np.where(known, gain * picture + offset, 0.0)
        steps = [np.hypot(*np.gradient(np.where(known, p, 0.0)))[known] for p in (placed, truth)]
        fine_part = [p - cv2.GaussianBlur(p, (0, 0), 2.0) for p in (placed, np.where(known, truth, 0.0))]
        response = float((fine_part[0] * fine_part[1])[known].sum() / (fine_part[1][known] ** 2).sum())
        rms = float(np.sqrt(np.mean((placed - truth)[known] ** 2)))
        figures[name] = rms, steps[0].mean() / steps[1].mean(), np.corrcoef(*steps)[0, 1], response
    (rms, energy, alike, response), (rms_super, energy_super, alike_super, response_super) = (
        figures["bicubic"], figures["super"]
    )  # fmt: skip
    assert 20 * np.log10(rms / rms_super) > 1.0, figures  # dB
    assert energy < 0.82 and 0.84 < energy_super < 1.05, figures
    assert alike_super > alike + 0.015, figures
    assert response_super > response + 0.1, figures


def test_super_resolved__keeps_what_no_view_sees_empty_and_the_brightness() -> None:
    world, rng = town(5, 100), np.random.default_rng(5)
    lit = illuminate(world, Sun())
    dsm, _, _ = world.truth(0.5)
    dsm.values[:, :30] = np.nan
    camera = camera_over(world.grid, sum(world.height_range) / 2, Direction(10.0, 3.0), 0.5)
    ranked = rank_views(dsm, [view_of(render(lit, camera, rng), camera)])
    part = np.s_[20:120, 10:140]
    got, coarse = super_resolved(dsm, ranked, part)[0], ortho(dsm, ranked, part).values[0]
    assert got.shape == (200, 260) and np.isnan(got[:, :40]).all()
    means = got.reshape(100, 2, 130, 2).mean(axis=(1, 3))
    known = np.isfinite(means) & np.isfinite(coarse)
    assert known.mean() > 0.7 and abs((means - coarse)[known].mean()) < 2
