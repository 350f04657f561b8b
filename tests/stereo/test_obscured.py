"""What cloud and the like hide of images is found where the others agree, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from terrain3d.camera.write import write_image
from terrain3d.crs import Reference
from terrain3d.image.view import View
from terrain3d.io.images import open_image
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.noise import fractal
from terrain3d.simulate.world import REFERENCE
from terrain3d.stereo.obscured import cliffs, correlation, disagreeing, find_obscured, outshining
from terrain3d.stereo.pairs import PARTNERS, choose_pairs, with_clear_partners

CRS = REFERENCE.horizontal
SHAPE = (80, 90)
CLOUD = np.s_[20:60, 30:70]
INSIDE, CLEAR = np.s_[26:54, 36:64], np.s_[:, :24]
ALL = [(0, 1), (0, 2), (1, 2)]


def looks(n: int, noise: float = 0.1, seed: int = 3) -> np.ndarray:
    """One ground in n views of different gain."""
    rng = np.random.default_rng(seed)
    ground = fractal(rng, SHAPE, 1.0, 20.0, 2.0, 2.0)
    ground = ground / ground.std() + rng.standard_normal(SHAPE)
    own = [(300 + 40 * k) * (1 + 0.2 * (ground + noise * rng.standard_normal(SHAPE))) for k in range(n)]
    return np.array(own, np.float32)


def with_cloud(light: np.ndarray, view: int, seed: int = 8) -> np.ndarray:
    out = light.copy()
    rng = np.random.default_rng(seed)
    out[view][CLOUD] = 1500 + 50 * (fractal(rng, SHAPE, 1.0, 20.0, 2.0, 2.0) + rng.standard_normal(SHAPE))[CLOUD]
    return out


def test_correlation__is_that_of_numpy_in_every_window() -> None:
    a, b, _ = looks(3, noise=1.0)
    b[40:, 50:] = np.nan
    found = correlation(a, b)
    assert found[30, 30] == pytest.approx(np.corrcoef(a[26:35, 26:35].ravel(), b[26:35, 26:35].ravel())[0, 1], abs=1e-4)
    own = np.s_[36:45, 42:50]  # what both have of a window across the border of one
    assert found[40, 46] == pytest.approx(
        np.corrcoef(a[36:45, 42:51].ravel()[(ok := np.isfinite(b[36:45, 42:51].ravel()))],
                    b[36:45, 42:51].ravel()[ok])[0, 1], abs=1e-4)  # fmt: skip
    assert np.isnan(found[70, 80]) and np.isfinite(found[own]).all()
    assert np.isnan(correlation(a, np.full_like(b, np.nan))).all()  # beside a view


@pytest.mark.parametrize("n", [3, 6])
def test_disagreeing__is_the_view_with_the_cloud(n: int) -> None:
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    assert not disagreeing(looks(n), pairs).any()
    apart = disagreeing(with_cloud(looks(n), 1), pairs)
    assert apart[1][INSIDE].mean() > 0.97 and not apart[1][CLEAR].any()
    assert not np.delete(apart, 1, axis=0).any()


def test_disagreeing__two_clouded_of_five() -> None:
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    apart = disagreeing(with_cloud(with_cloud(looks(5), 0), 3, seed=9), pairs)
    assert apart[[0, 3]][(slice(None), *INSIDE)].mean() > 0.95 and not apart[[1, 2, 4]].any()


def test_disagreeing__nothing_is_said_by_two_views_or_by_pairs_without_a_base() -> None:
    light = with_cloud(looks(3), 1)
    assert not disagreeing(light[:2], [(0, 1)]).any()
    assert not disagreeing(light, [(0, 1), (1, 2)]).any()  # 0 and 2 measure no heights without the third


def test_disagreeing__ground_that_no_views_agree_on_is_left() -> None:
    """Open water, and woods whose heights are wrong."""
    assert not disagreeing(looks(4, noise=4.0), [(i, j) for i in range(4) for j in range(i + 1, 4)]).any()


def test_disagreeing__thin_haze_and_shadow_are_seen_through() -> None:
    light = looks(3)
    light[1][CLOUD] = 0.4 * light[1][CLOUD] + 400
    light[2][:, 60:] *= 0.3
    assert disagreeing(light, ALL).mean() < 0.04  # their rims


def test_outshining__cloud_over_water_and_not_glint_of_two() -> None:
    light = looks(4)
    light[(slice(None), *CLOUD)] = 120 + 5 * np.random.default_rng(1).standard_normal((4, 40, 40))
    nothing = np.zeros(light.shape, np.bool_)
    assert not outshining(light, nothing).any()
    light[2][CLOUD] += 900
    bright = outshining(light, nothing)
    assert bright[2][CLOUD].all() and not np.delete(bright, 2, axis=0).any()
    light[0][CLOUD] += 800
    assert not outshining(light, nothing).any()  # two of a kind


def test_cliffs__walls_and_not_slopes() -> None:
    z = np.tile(0.8 * 4 * np.arange(60, dtype=np.float32), (50, 1))
    z[:, 40:] += 60
    found = cliffs(Raster(z, Grid(REFERENCE, 0.0, 0.0, 4.0, *z.shape)))
    assert found[:, 36:44].all() and not found[:, :35].any() and not found[:, 45:].any()


def scene(views: list[View], folder: Path, clouded: int) -> list[View]:
    """The views with images of one flat ground at 520 m, a third of one of them under cloud."""
    rng = np.random.default_rng(5)
    grid = Grid.from_bounds(Reference(CRS), *around(views[0]), 0.5)
    ground = 400 + 80 * fractal(rng, grid.shape, 0.5, 30.0, 1.0, 1.8)
    out = []
    for k, view in enumerate(views):
        line, sample = np.mgrid[0 : view.image.height, 0 : view.image.width].astype(float)
        column, row = grid.column_row(*view.locate(CRS, line, sample, 520.0))
        pixels = cv2.remap(
            ground.astype(np.float32), column.astype(np.float32), row.astype(np.float32), cv2.INTER_CUBIC
        )
        pixels += rng.normal(0, 4, pixels.shape)
        if k == clouded:
            pixels[:120] = 2500 + 200 * fractal(rng, pixels.shape, 0.5, 40.0, 2.0, 2.5)[:120]
        path = write_image(folder / f"v{k}.tif", np.clip(pixels, 1, 4095).astype(np.uint16), view.camera.rpc)
        out.append(replace(view, name=f"v{k}", image=open_image(path)))
    return out


def around(view: View) -> tuple[float, float, float, float]:
    line, sample = np.array([0, 0, 1, 1]) * view.image.height, np.array([0, 1, 0, 1]) * view.image.width
    x, y = view.locate(CRS, line, sample, 520.0)
    return float(x.min()) - 60, float(y.min()) - 60, float(x.max()) + 60, float(y.max()) + 60


def test_find_obscured__squares_of_the_clouded_image(
    view_of: Callable[..., View], area: Callable[..., Grid], tmp_path: Path
) -> None:
    views = [view_of(area(180), a) for a in (12.0, 0.0, -12.0)]
    seen = scene(views, tmp_path, clouded=1)
    flat = Grid.from_bounds(Reference(CRS), *around(views[1]), 4.0)
    heights = Raster(np.full(flat.shape, 520.0, np.float32), flat)
    whole = slice(0, flat.height), slice(0, flat.width)
    found = find_obscured(seen, ALL, heights, whole, (8, 8, 8))
    assert len(found[0]) == len(found[2]) == 0
    squares = np.zeros([-(-n // 8) for n in seen[1].image.shape], np.bool_)
    squares[tuple(found[1].T)] = True
    assert squares[3:12, 3:-3].mean() > 0.95 and squares[22:].mean() < 0.02
    north = find_obscured(seen, ALL, heights, (slice(0, flat.height // 4), whole[1]), (8, 8, 8))
    assert {tuple(p) for p in north[1]} < {tuple(p) for p in found[1]}


def test_with_clear_partners__makes_up_for_clouded_images(
    view_of: Callable[..., View], area: Callable[..., Grid]
) -> None:
    views = [view_of(area(300), a) for a in (15.0, 9.0, 3.0, -3.0, -9.0, -15.0)]
    decided = choose_pairs(views, CRS, 520.0)
    chosen = [p for p in decided if p.chosen]
    assert with_clear_partners(decided, [1.0] * 6) == decided
    clear = [1.0, 0.0, 1.0, 1.0, 0.1, 1.0]
    more = with_clear_partners(decided, clear)
    assert [p for p in more if p.chosen][: len(chosen)] == chosen and len(more) == len(decided)
    good = [p for p in more if p.chosen and min(clear[p.left], clear[p.right]) == 1]
    partners = np.bincount([k for p in good for k in (p.left, p.right)], minlength=6)
    assert partners[[0, 2, 3, 5]].min() >= PARTNERS
