"""The matcher on what satellite pairs are hard for: one scene a difficulty, exact truth, bounds that hold today.

Each scene goes through the steps of ``match_tile``. Completeness counts left pixels that the right image sees and
whose disparity is found within one pixel; the rest of the figures are about what was found.
"""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from terrain3d.stereo import match
from terrain3d.stereo.census import census
from terrain3d.stereo.match import match_images, penalties, trusted
from terrain3d.stereo.sgm import match_census

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
HEIGHT, WIDTH, MARGIN, DISPARITIES = 240, 280, 40, 64
LEVEL, CONTRAST = 0.3, 0.25  # radiance of the ground, and deviation of its texture against it


def _load() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "rectified_pair.py"
    spec = importlib.util.spec_from_file_location("rectified_pair", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


scene = _load()


@dataclass(frozen=True)
class Score:
    """Of the pixels of a region that both images see. complete: found within 1 px, share of all; wrong: off by more,
    share of those found; median, bias: absolute and signed median error, px; sigma: median of the stated one."""

    complete: float
    wrong: float
    median: float
    bias: float
    sigma: float


@dataclass(frozen=True)
class Result:
    pair: Any
    disparity: Singles
    sigma: Singles

    def score(self, region: Bools | None = None) -> Score:
        chosen = self.pair.visible if region is None else self.pair.visible & region
        assert chosen.sum() > 300
        error = (self.disparity - self.pair.disparity)[chosen]
        found = np.isfinite(error)
        size = np.abs(error[found])
        return Score(
            float((size < 1).sum() / chosen.sum()), float((size > 1).mean()), float(np.median(size)),
            float(np.median(error[found])), float(np.median(self.sigma[chosen][found])),
        )  # fmt: skip

    def hidden_kept(self) -> float:
        """Share of the pixels that only the left image sees, and that were given a disparity all the same."""
        return float(np.isfinite(self.disparity[~self.pair.visible]).mean())


def matched(pair: Any, left: Singles, right: Singles) -> Result:
    found = match_images(left, right, DISPARITIES)
    return Result(pair, found.disparity, found.sigma_px)


def ground(rng: np.random.Generator, low: float = 14.0, high: float = 26.0) -> Singles:
    field = low + (high - low) * scene.smooth_field(rng, HEIGHT, WIDTH + 2 * MARGIN, 70.0)
    return np.asarray(field, np.float32)


def texture(rng: np.random.Generator, contrast: float = CONTRAST) -> Singles:
    """Relative texture, zero mean."""
    return np.asarray(contrast * scene.texture(rng, HEIGHT, WIDTH + 2 * MARGIN), np.float32)


def middle_column() -> NDArray[np.float64]:
    """Column of the fine columns in the middle view."""
    return (np.arange((WIDTH + 2 * MARGIN) * scene.FINE) + 0.5) / scene.FINE - 0.5 - MARGIN


PATCH = (50, 60, 190, 220)  # top, left, bottom, right in the middle view


def patch() -> Bools:
    """The patch on the ground, on fine columns."""
    top, left, bottom, right = PATCH
    rows, x = np.arange(HEIGHT)[:, None], middle_column()
    return np.asarray((rows >= top) & (rows < bottom) & (x >= left) & (x < right))


def seen_patch(pair: Any, inset: float = 3.0) -> Bools:
    """Left pixels that show the patch, without its border."""
    top, left, bottom, right = PATCH
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x = columns - 0.5 * pair.disparity
    return np.asarray(
        (rows >= top + inset) & (rows < bottom - inset) & (x >= left + inset) & (x < right - inset)
    )  # fmt: skip


def tops(pair: Any, boxes: list[Any], inset: float = 0.0) -> Bools:
    """Left pixels that show the top of a box, without its border."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    out = np.zeros((HEIGHT, WIDTH), bool)
    for b in boxes:
        x = columns - 0.5 * pair.disparity
        d = b.disparity + b.slope_y * (rows - (b.top + b.bottom) / 2) + b.slope_x * (x - (b.left + b.right) / 2)
        inside = (rows >= b.top + inset) & (rows < b.bottom - inset) & (x >= b.left + inset) & (x < b.right - inset)
        out |= inside & (np.abs(pair.disparity - d) < 0.1)
    return out


def patched(rng: np.random.Generator, inside: Any, outside: Any, **right: float) -> tuple[Result, Bools, Any]:
    """Smooth ground with one radiance inside the patch and another outside."""
    pair = scene.render(ground(rng), np.where(patch(), inside, outside).astype(np.float32), MARGIN)
    left_dn = scene.expose(pair.left, rng)
    result = matched(pair, left_dn, scene.expose(pair.right, rng, **{"gain": 2450.0, "offset": 130.0, **right}))
    return result, seen_patch(pair), left_dn


def test_scene__plain_ground_is_complete_and_exact() -> None:
    """The yardstick of the other scenes: nothing is hard here."""
    rng = np.random.default_rng(1)
    t = LEVEL * (1 + texture(rng))
    s = patched(rng, t, t)[0].score()
    assert s.complete > 0.99 and s.wrong < 0.001
    assert s.median < 0.022 and abs(s.bias) < 0.008


def test_scene__depth_edges_are_sharp_and_hidden_ground_stays_empty() -> None:
    rng = np.random.default_rng(2)
    boxes = [
        scene.Box(30, 40, 90, 110, 44, brightness=0.42), scene.Box(40, 170, 110, 215, 50, brightness=0.25),
        scene.Box(140, 60, 200, 150, 38, brightness=0.33), scene.Box(130, 190, 220, 240, 30, brightness=0.5),
    ]  # fmt: skip
    pair = scene.render(ground(rng, 12, 24), LEVEL * (1 + texture(rng)), MARGIN, boxes, texture(rng))
    result = matched(pair, scene.expose(pair.left, rng), scene.expose(pair.right, rng, gain=2450.0, offset=130.0))
    around = np.ones((9, 9))
    edge = cv2.dilate(pair.disparity, around) - cv2.erode(pair.disparity, around) > 3
    near, away = result.score(edge), result.score(~edge)
    assert near.complete > 0.87 and near.wrong < 0.035 and near.median < 0.06
    assert away.complete > 0.99 and away.wrong < 0.002 and away.median < 0.022
    assert result.hidden_kept() < 0.10


def test_scene__rims_of_two_images_do_not_match_each_other() -> None:
    """Comparisons with nothing are the same in both images, and must not count as texture."""
    rng = np.random.default_rng(12)
    pair = scene.render(ground(rng), LEVEL * (1 + texture(rng)), MARGIN)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = columns > 60 + rows / 3  # in both images, so that the right one lacks what the left one shows at the rim
    left, right = (np.where(inside, scene.expose(im, rng), np.float32(np.nan)) for im in (pair.left, pair.right))
    result = matched(pair, left, right)
    rim = inside & (columns < 85 + rows / 3)
    error = np.abs(result.disparity - pair.disparity)[rim & np.isfinite(result.disparity)]
    assert error.size > 1400 and (error > 1).sum() < 0.002 * rim.sum()


def test_scene__slanted_surfaces_have_no_steps() -> None:
    """Roofs of 0.25 and 0.4 px a column, both ways, and across rows: between whole disparities nothing pulls."""
    rng = np.random.default_rng(3)
    boxes = [
        scene.Box(20, 20, 110, 120, 30, 0.25, 0.0, 0.4), scene.Box(20, 150, 110, 250, 32, -0.4, 0.0, 0.35),
        scene.Box(130, 20, 220, 120, 32, 0.0, 0.3, 0.25), scene.Box(130, 150, 220, 250, 33, 0.35, -0.2, 0.45),
    ]  # fmt: skip
    pair = scene.render(ground(rng, 4, 8), LEVEL * (1 + texture(rng)), MARGIN, boxes, texture(rng))
    result = matched(pair, scene.expose(pair.left, rng), scene.expose(pair.right, rng, gain=2450.0, offset=130.0))
    roof = tops(pair, boxes, 5)
    s = result.score(roof)
    assert s.complete > 0.985 and s.wrong < 0.005
    assert s.median < 0.035 and abs(s.bias) < 0.01
    fraction = pair.disparity - np.rint(pair.disparity)
    error = np.where(pair.visible & roof, result.disparity - pair.disparity, np.nan)
    pull = [float(np.nanmedian(error[(fraction > a) & (fraction <= a + 0.2)])) for a in (-0.5, -0.3, 0.1, 0.3)]
    assert max(np.abs(pull)) < 0.03


@dataclass(frozen=True)
class Walls:
    """Walls of 3 to 6 px across the search (beside one of 2 px) and of 5 px along it, 20 px above the ground."""

    walls: list[tuple[int, Any]]
    bars: list[Any]
    pair: Any
    left: Singles
    right: Singles


def thin_structures() -> Walls:
    rng = np.random.default_rng(4)
    walls = [
        (width, scene.Box(10, x, 230, x + width, 42, brightness=b))
        for x, width, b in ((40, 2, 0.5), (70, 3, 0.15), (105, 3, 0.45), (140, 4, 0.45), (175, 4, 0.15), (215, 6, 0.2))
    ]
    bars = [scene.Box(60, 10, 65, 270, 40, brightness=0.5), scene.Box(150, 10, 155, 270, 40, brightness=0.12)]
    boxes = [b for _, b in walls] + bars
    pair = scene.render(ground(rng, 16, 22), LEVEL * (1 + texture(rng)), MARGIN, boxes, texture(rng))
    left, right = scene.expose(pair.left, rng), scene.expose(pair.right, rng, gain=2450.0, offset=130.0)
    return Walls(walls, bars, pair, left, right)


def test_scene__thin_structures() -> None:
    given = thin_structures()
    pair, result = given.pair, matched(given.pair, given.left, given.right)
    for width, complete, wrong in ((3, 0.38, 0.19), (4, 0.66, 0.06), (6, 0.78, 0.04)):
        s = result.score(tops(pair, [b for w, b in given.walls if w == width]))
        assert s.complete > complete and s.wrong < wrong, width
    s = result.score(tops(pair, given.bars))
    assert s.complete > 0.72 and s.wrong < 0.07 and s.median < 0.09
    between = result.score(pair.disparity < 30)
    assert between.complete > 0.90 and between.wrong < 0.025


def test_scene__penalties_give_way_at_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the image has an edge the surface may have one: against equal penalties everywhere walls of four pixels are
    found more completely, and less of the ground around them, seen and hidden, is taken for wall."""
    given = thin_structures()
    p1, p2 = penalties(given.left)
    gradient = np.abs(cv2.Sobel(given.left, cv2.CV_32F, 1, 0)) + np.abs(cv2.Sobel(given.left, cv2.CV_32F, 0, 1))
    edge, flat = gradient > np.percentile(gradient, 95), gradient < np.percentile(gradient, 50)
    assert p1[edge].mean() < 0.9 * p1[flat].mean() and p2[edge].mean() < 0.8 * p2[flat].mean()
    result = matched(given.pair, given.left, given.right)
    equal = np.full(given.left.shape, 5, np.uint8), np.full(given.left.shape, 16, np.uint8)
    monkeypatch.setattr(match, "penalties", lambda image: equal)
    stiff = matched(given.pair, given.left, given.right)
    wall = tops(given.pair, [b for w, b in given.walls if w == 4])
    assert result.score(wall).complete > stiff.score(wall).complete
    assert result.score().wrong < 0.95 * stiff.score().wrong
    assert result.hidden_kept() < 0.95 * stiff.hidden_kept()


def test_scene__confidence_tells_wrong_matches() -> None:
    """Of a wrong and a right match, both handed on, the right one has the higher confidence in 8 of 10 cases, and the
    wrong one the larger sigma in as many."""
    given = thin_structures()
    found = match_images(given.left, given.right, DISPARITIES)
    known = np.isfinite(found.disparity)
    wrong = np.abs(found.disparity - given.pair.disparity)[known] > 1
    assert 500 < wrong.sum() < 0.03 * wrong.size
    for sign in (found.confidence[known], -found.sigma_px[known]):
        assert 1 - mannwhitneyu(sign[wrong], sign[~wrong]).statistic / wrong.sum() / (~wrong).sum() > 0.8
    sure = found.confidence[known] > 0.8
    assert wrong[sure].mean() < 0.1 * wrong[~sure].mean() and sure.mean() > 0.7


@pytest.mark.parametrize("period", [6, 9, 14])
def test_scene__repetitive_texture(period: int) -> None:
    """A grid that repeats within the search, with little of its own to tell one period from the next."""
    rng = np.random.default_rng(period)
    x, y = middle_column(), np.arange(HEIGHT)[:, None]
    grid = np.sign(np.sin(2 * np.pi * x / period)) * (0.6 + 0.4 * np.sign(np.sin(2 * np.pi * y / 11)))
    result, region, _ = patched(rng, LEVEL * (1 + 0.5 * grid + texture(rng, 0.04)), LEVEL * (1 + texture(rng)))
    on, off = result.score(region), result.score(~region)
    assert on.complete > (0.65 if period == 6 else 0.99)
    assert on.wrong < (0.015 if period == 6 else 0.002)  # what cannot be told apart is left out, not guessed
    assert on.median < 0.03
    assert off.complete > 0.99 and off.wrong < 0.001


@pytest.mark.parametrize(
    ("contrast", "complete", "wrong", "median"), [(0.04, 0.99, 0.001, 0.075), (0.02, 0.99, 0.001, 0.14)]
)
def test_scene__low_texture(contrast: float, complete: float, wrong: float, median: float) -> None:
    """Texture of 4 and of 2 %, which is 3 and 1.5 times the noise."""
    rng = np.random.default_rng(6)
    result, region, _ = patched(rng, LEVEL * (1 + texture(rng, contrast)), LEVEL * (1 + texture(rng)))
    on, off = result.score(region), result.score(~region)
    assert on.complete > complete and on.wrong < wrong and on.median < median
    assert on.sigma >= off.sigma and on.median < 0.9 * on.sigma  # what is handed on has a floor of 0.1 px
    assert off.complete > 0.99 and off.wrong < 0.001


def test_scene__texture_below_the_noise_is_mostly_right_or_left_out() -> None:
    rng = np.random.default_rng(7)
    result, region, _ = patched(rng, LEVEL * (1 + texture(rng, 0.01)), LEVEL * (1 + texture(rng)))
    on, off = result.score(region), result.score(~region)
    assert on.complete > 0.94 and on.wrong < 0.025
    assert on.sigma > 2.4 * off.sigma and on.median < 1.2 * on.sigma
    assert off.complete > 0.99 and off.wrong < 0.001


def test_scene__shadow_that_lies_still() -> None:
    """A shadow of 12 % of the light: its texture is there, weak, and its border is an edge of the image only."""
    rng = np.random.default_rng(8)
    t = LEVEL * (1 + texture(rng))
    result, region, _ = patched(rng, 0.12 * t, t)
    on, off = result.score(region), result.score(~region)
    assert on.complete > 0.99 and on.wrong < 0.001 and on.median < 0.08
    assert off.complete > 0.99 and off.wrong < 0.001


def test_scene__shadow_that_has_moved() -> None:
    """Between dates the sun moves: the border of the shadow lies 10 px from where the surface would have it."""
    rng = np.random.default_rng(9)
    pair = scene.render(ground(rng), LEVEL * (1 + texture(rng)), MARGIN)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    shade = [
        np.where((rows > 50) & (rows < 190) & (columns > west) & (columns < west + 80), np.float32(0.2), np.float32(1))
        for west in (100, 90)
    ]
    left = scene.expose(pair.left * shade[0], rng)
    result = matched(pair, left, scene.expose(pair.right * shade[1], rng, gain=2450.0, offset=130.0))
    s = result.score()
    assert s.complete > 0.99 and s.wrong < 0.004 and s.median < 0.03
    border = cv2.morphologyEx(shade[0], cv2.MORPH_GRADIENT, np.ones((25, 25))) > 0
    assert result.score(border).complete > 0.98


def test_scene__saturated() -> None:
    """Half of the pixels of a bright place are at the limit of the sensor and equal."""
    rng = np.random.default_rng(10)
    t = LEVEL * (1 + texture(rng))
    result, region, left = patched(rng, 5.2 * t, t)
    assert 0.4 < (left[region] >= 4095).mean() < 0.65
    on, off = result.score(region), result.score(~region)
    assert on.complete > 0.985 and on.wrong < 0.002 and on.median < 0.055
    assert off.complete > 0.99 and off.wrong < 0.001


def test_scene__dark() -> None:
    """2 % of the light: a signal of four digital numbers under noise of four."""
    rng = np.random.default_rng(11)
    t = LEVEL * (1 + texture(rng))
    result, region, left = patched(rng, 0.02 * t, t)
    assert left[region].mean() < 150
    on, off = result.score(region), result.score(~region)
    assert on.complete > 0.94 and on.wrong < 0.025
    assert on.sigma > 2.4 * off.sigma and on.median < 1.2 * on.sigma
    assert off.complete > 0.99 and off.wrong < 0.001


@pytest.mark.parametrize(
    ("exposure", "changed", "median"),
    [
        ({"gain": 1000.0, "offset": 600.0}, 0.0, 0.045),
        ({"gain": 1500.0, "gamma": 0.5}, 0.0, 0.035),
        ({"gain": 6000.0, "gamma": 2.2}, 0.0, 0.03),
        ({"noise": 4.0}, 0.0, 0.06),
        ({"gain": 1600.0, "offset": 400.0, "gamma": 0.7, "noise": 2.0}, 0.35, 0.12),
    ],
    ids=["gain and offset", "bright gamma", "dark gamma", "noise", "another date"],
)
def test_scene__radiometric_difference(exposure: dict[str, float], changed: float, median: float) -> None:
    """Dates differ in gain, offset, gamma and noise; with ``changed``, texture of that share is another one."""
    rng = np.random.default_rng(12)
    boxes = [scene.Box(30, 40, 90, 110, 44, brightness=0.42), scene.Box(140, 60, 200, 150, 38, brightness=0.33)]
    pair = scene.render(ground(rng, 12, 24), LEVEL * (1 + texture(rng)), MARGIN, boxes, texture(rng))
    other = scene.texture(rng, HEIGHT, WIDTH)[:, scene.FINE // 2 :: scene.FINE]
    right = pair.right * (1 + changed * CONTRAST * other)
    result = matched(pair, scene.expose(pair.left, rng), scene.expose(right.astype(np.float32), rng, **exposure))
    s = result.score()
    assert s.complete > 0.98 and s.wrong < 0.005
    assert s.median < median and abs(s.bias) < 0.012


def confirmed_and_trusted(pair: Any, rng: np.random.Generator, noise: float) -> tuple[Result, Result]:
    """What left and right agree upon, and what is trusted."""
    left = scene.expose(pair.left, rng, noise=noise)
    right = scene.expose(pair.right, rng, gain=2450.0, offset=130.0, noise=noise)
    found = match_census(census(left), census(right), DISPARITIES, p1=5, p2=16)
    confirmed = np.where(found.integer >= 0, found.disparity, np.float32(np.nan))
    kept = trusted(found.integer, found.disparity, left, right)
    return Result(pair, confirmed, confirmed), Result(pair, kept, confirmed)


def test_trusted__what_is_around_confirms_where_a_slope_shares_right_pixels() -> None:
    rng = np.random.default_rng(16)
    wave = np.tile((32 + 7 * np.sin(2 * np.pi * middle_column() / 90)).astype(np.float32), (HEIGHT, 1))
    pair = scene.render(wave, LEVEL * (1 + texture(rng)), MARGIN)
    alone, kept = (r.score() for r in confirmed_and_trusted(pair, rng, 2.0))
    assert 1 - kept.complete < 0.6 * (1 - alone.complete) and kept.wrong < 1.05 * alone.wrong


def test_trusted__what_is_around_confirms_where_a_slope_shears_windows() -> None:
    rng = np.random.default_rng(17)
    across = (32 + 7 * np.sin(2 * np.pi * np.arange(HEIGHT) / 60))[:, None] + 0 * middle_column()
    pair = scene.render(across.astype(np.float32), LEVEL * (1 + texture(rng)), MARGIN)
    alone, kept = (r.score() for r in confirmed_and_trusted(pair, rng, 2.0))
    assert 1 - kept.complete < 0.85 * (1 - alone.complete) and kept.wrong < 1.05 * alone.wrong


def test_trusted__ground_hidden_in_the_other_image_stays_out() -> None:
    rng = np.random.default_rng(18)
    boxes = [
        scene.Box(30, 40, 90, 110, 44, brightness=0.42), scene.Box(40, 170, 110, 215, 50, brightness=0.25),
        scene.Box(140, 60, 200, 150, 38, brightness=0.33), scene.Box(130, 190, 220, 240, 30, brightness=0.5),
    ]  # fmt: skip
    pair = scene.render(ground(rng, 12, 24), LEVEL * (1 + texture(rng)), MARGIN, boxes, texture(rng))
    alone, kept = confirmed_and_trusted(pair, rng, 2.0)
    assert kept.hidden_kept() < 0.06 < alone.hidden_kept()
