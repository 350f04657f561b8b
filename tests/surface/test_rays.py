from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest

from terrain3d.crs import Reference, from_lonlat
from terrain3d.raster import Grid, Raster
from terrain3d.surface import rays
from terrain3d.surface.ortho import OrthoView, RankedView
from terrain3d.surface.rays import box, even_cells, refined, shares, stiffness

NORTH, WEST, SIZE = 3.9e6, 3.0e5, 200
GRID = Grid(Reference("EPSG:32654"), WEST, NORTH, 0.5, SIZE, SIZE)
ONE = np.ones(1, np.float32)
LEANS = ((0.25, 0.05), (0.0, 0.0), (-0.25, -0.05))


@dataclass(frozen=True)
class Oblique:
    """Camera over the grid, 0.5 m pixels, whose relief leans by the given metres per metre."""

    east: float
    north: float

    def project(self, lon: Any, lat: Any, height: Any) -> tuple[np.ndarray, np.ndarray]:
        x, y = from_lonlat("EPSG:32654", lon, lat)
        column, row = GRID.column_row(x + self.east * height, y + self.north * height)
        return row, column


def field(power: float, seed: int, size: int = SIZE) -> np.ndarray:
    """Chance field whose amplitudes fall with that power of the wavenumber, deviation 1."""
    rng = np.random.default_rng(seed)
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    k[0, 0] = np.inf
    out = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * k**-power).real
    return out / out.std()


def views_of(z: np.ndarray, noise: float, leans: tuple[tuple[float, float], ...] = LEANS) -> list[RankedView]:
    """Images of a surface with blurred texture: what each ray meets is found by a fixed point."""
    texture = cv2.GaussianBlur(np.random.default_rng(5).normal(0, 300, (4 * SIZE, 4 * SIZE)), (0, 0), 3.0)
    rng, out = np.random.default_rng(6), []
    line, sample = np.mgrid[0:SIZE, 0:SIZE].astype(float)
    for lean in leans:
        camera: Any = Oblique(*lean)
        at = [line + 0.0, sample + 0.0]
        for _ in range(12):  # cells of the surface that the pixels see
            height = cv2.remap(z, at[1].astype(np.float32), at[0].astype(np.float32), cv2.INTER_LINEAR)
            at = [line + lean[1] * height / 0.5, sample - lean[0] * height / 0.5]
            at = [np.clip(a, 0, SIZE - 1) for a in at]
        image = cv2.remap(texture, (4 * at[1]).astype(np.float32), (4 * at[0]).astype(np.float32), cv2.INTER_LINEAR)
        image = (500 + image + rng.normal(0, noise, image.shape)).astype(np.float32)
        out.append(RankedView(_view(image, camera), lean, 0.5, ONE, ONE, ONE))
    return out


def _view(image: np.ndarray, camera: Any) -> OrthoView:
    return OrthoView(camera, lambda r, c, h, w: image[None, r : r + h, c : c + w], image.shape)


def rms(a: np.ndarray) -> float:
    inner = a[40:-40, 40:-40]
    return float(np.sqrt(np.mean((inner - np.median(inner)) ** 2)))


@pytest.mark.parametrize("views", [2, 3])
def test_refined__rock_gets_its_steps_back(views: int) -> None:
    truth = (2 * field(2.0, 1)).astype(np.float32)
    blurred = cv2.blur(truth, (9, 9))
    found = refined(Raster(blurred, GRID), views_of(truth, 2.0, LEANS[:: 3 - views] if views < 3 else LEANS))
    assert rms(found - truth) < 0.7 * rms(blurred - truth)


def test_refined__noise_on_even_ground_falls() -> None:
    truth = np.full((SIZE, SIZE), 4, np.float32)
    noisy = (truth + cv2.GaussianBlur(1.0 * field(0.0, 2), (0, 0), 2.0)).astype(np.float32)
    assert rms(refined(Raster(noisy, GRID), views_of(truth, 5.0)) - truth) < 0.55 * rms(noisy - truth)


def test_refined__on_a_narrow_base_a_cell_takes_its_height_from_farther_around() -> None:
    truth = np.full((SIZE, SIZE), 4, np.float32)
    noisy = (truth + cv2.GaussianBlur(3.0 * field(0.0, 2), (0, 0), 4.0)).astype(np.float32)
    narrow = ((0.05, 0.01), (-0.05, -0.01))  # base to height 0.1
    assert rms(refined(Raster(noisy, GRID), views_of(truth, 5.0, narrow)) - truth) < 0.6 * rms(noisy - truth)


def test_refined__a_slope_has_no_bias() -> None:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    truth = (-20 + 0.3 * x + 0.1 * y).astype(np.float32)  # 31 degrees
    moved = (truth + 0.2).astype(np.float32)
    error = (refined(Raster(moved, GRID), views_of(truth, 2.0)) - truth)[60:-60, 60:-60]
    assert abs(float(np.median(error))) < 0.05


def test_refined__nothing_moves_beside_edges_and_voids_or_where_one_view_sees() -> None:
    z = np.full((SIZE, SIZE), 4, np.float32)
    z[90:110, 90:110] = 10.0
    z[50:53, 50:53] = np.nan
    views = views_of(np.nan_to_num(z, nan=4.0), 5.0)
    found = refined(Raster(z, GRID), views)
    still = ~even_cells(z.astype(float) / 0.5)
    np.testing.assert_array_equal(found[still], z[still])
    assert (found[~still] != z[~still]).mean() > 0.5
    np.testing.assert_array_equal(refined(Raster(z, GRID), views[:1]), z)


def test_refined__beside_walls_noise_falls_too() -> None:
    truth = np.full((SIZE, SIZE), 4, np.float32)
    for row in range(20, SIZE - 20, 40):
        for column in range(20, SIZE - 20, 40):
            truth[row : row + 16, column : column + 16] = 9.0
    noisy = (truth + cv2.GaussianBlur(0.5 * field(0.0, 2), (0, 0), 2.0)).astype(np.float32)
    beside = even_cells(noisy.astype(float) / 0.5) & ~even_cells(noisy.astype(float) / 0.5, rays.CALM_CELLS)
    found = refined(Raster(noisy, GRID), views_of(truth, 20.0))
    before, after = (np.where(beside, z - truth, 0)[40:-40, 40:-40] for z in (noisy, found))
    assert np.linalg.norm(after) < 0.83 * np.linalg.norm(before)  # 0.88 where edges are held no more than the rest


def test_refined__cells_much_larger_than_pixels_keep_what_all_of_them_said() -> None:
    grid = Grid(GRID.reference, WEST, NORTH, 1.0, 100, 100)
    z = (40 + 0.1 * field(0.0, 3, 100)).astype(np.float32)
    np.testing.assert_array_equal(refined(Raster(z, grid), views_of(np.full((SIZE, SIZE), 4, np.float32), 5.0)), z)


def test_refined__rock_without_texture_does_not_follow_the_noise_of_the_images() -> None:
    truth = (2 * field(2.0, 1)).astype(np.float32)
    rng = np.random.default_rng(7)
    blank = []
    for lean in LEANS:
        camera: Any = Oblique(*lean)
        image = (500 + rng.normal(0, 5, (SIZE, SIZE))).astype(np.float32)
        blank.append(RankedView(_view(image, camera), lean, 0.5, ONE, ONE, ONE))
    assert rms(refined(Raster(truth, GRID), blank) - truth) < 0.1  # 0.19 where what noise tells is believed


def test_refined__a_window_has_the_values_of_the_whole_to_the_bit() -> None:
    truth = (127.9 + 0.5 * field(2.0, 1)).astype(np.float32)  # on both sides of a level
    start = (truth + 0.05 * field(1.0, 4)).astype(np.float32)
    views = views_of(truth, 2.0)
    whole = refined(Raster(start, GRID), views)
    top, left = 23, 37
    part = refined(Raster(start[top:, left:], GRID.window(top, left, SIZE - top, SIZE - left)), views)
    m = rays.MARGIN_CELLS
    np.testing.assert_array_equal(part[m:-m, m:-m], whole[top + m : -m, left + m : -m])


def test_stiffness__is_one_over_the_level_of_the_spectrum() -> None:
    rng = np.random.default_rng(8)
    k = 2 * np.pi * np.hypot(*np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512)))
    k[0, 0] = np.inf
    z = np.fft.ifft2(np.fft.fft2(rng.normal(size=(512, 512))) * np.sqrt(0.02) / k**2).real  # spectrum 0.02 / k^4
    found = stiffness(z, even_cells(z, rays.CALM_CELLS))[40:-40, 40:-40]
    assert np.median(found) == pytest.approx(50, rel=0.2)


def test_box__is_the_mean_of_the_square() -> None:
    values = np.random.default_rng(1).normal(size=(30, 20))
    expected = cv2.blur(values, (5, 5), borderType=cv2.BORDER_CONSTANT)
    np.testing.assert_allclose(box(values, 5), expected, atol=1e-12)


def test_shares__are_those_of_the_noise_of_each_view() -> None:
    rng = np.random.default_rng(9)
    deviation = np.array([0.2, 0.2, 0.6, 0.2])[:, None, None]
    values = (rng.normal(0, 1, (80, 80)) + deviation * rng.normal(0, 1, (4, 80, 80))).astype(np.float32)
    values[0, :30] = np.nan
    found = shares(values)
    assert found[:, 40:, :].mean(axis=0) == pytest.approx(1, abs=1e-4)
    own = deviation[:, 0, 0] ** 2
    expected = 1 / (own + rays.ALIKE * own.mean())
    np.testing.assert_allclose(np.median(found[:, 45:], axis=(1, 2)), expected / expected.mean(), rtol=0.1)
    assert found[2, :20].max() < 0.7 < np.median(found[1, :20])
    assert (shares(values[:2]) == 1).all()  # of two nothing tells which is worse


def test_refined__a_view_in_haze_does_little_harm() -> None:
    """All views alike, it made the error of the three others 2.5 times as large."""
    truth = (2 * field(2.0, 1)).astype(np.float32)
    blurred = cv2.blur(truth, (9, 9))
    good, (hazy,) = views_of(truth, 2.0), views_of(truth, 300.0, ((0.1, 0.1),))
    three, four = (rms(refined(Raster(blurred, GRID), v) - truth) for v in (good, [*good, hazy]))
    assert four < 1.25 * three < 0.7 * rms(blurred - truth)
