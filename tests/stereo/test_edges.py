from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.stereo.edges import Alike, bring_alike, doubt, settle

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
SIZE, GROUND, ROOF, NOISE = 120, 6, 14, 4.0


@dataclass(frozen=True)
class Case:
    """A roof over ground. true: disparity of the left pixels. carried: the same with the roof 2 px too wide."""

    left: Singles
    right: Singles
    true: Singles
    carried: Singles

    @property
    def wrong(self) -> Bools:
        return np.asarray(self.carried != self.true)


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(4)
    ground, roof = (
        cv2.GaussianBlur(rng.normal(0, 60, (SIZE, SIZE)).astype(np.float32), (0, 0), 0.8) + level
        for level in (500, 560)
    )
    top = np.zeros((SIZE, SIZE), bool)
    top[40:80, 50:90] = True
    true = np.where(top, np.float32(ROOF), np.float32(GROUND))
    left = np.where(top, roof, ground)
    right = np.roll(ground, -GROUND, 1)
    moved = np.roll(top, -ROOF, 1)
    right = np.where(moved, np.roll(roof, -ROOF, 1), right)
    left, right = (a + rng.normal(0, NOISE / 2**0.5, a.shape) for a in (left, 0.8 * right + 90))
    wide = cv2.dilate(top.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    carried = np.where(wide, np.float32(ROOF), true)
    return Case(left.astype(np.float32), right.astype(np.float32), true, carried)


def test_bring_alike__finds_gain_offset_and_noise(case: Case) -> None:
    alike = bring_alike(case.left, case.right, case.true)
    assert alike is not None
    expected = (case.right - 90) / 0.8
    assert np.abs(alike.right - expected).max() < 8
    assert alike.noise == pytest.approx(np.hypot(1, 1 / 0.8) * NOISE / 2**0.5, rel=0.2)


def test_bring_alike__needs_matches(case: Case) -> None:
    assert bring_alike(case.left, case.right, np.full_like(case.true, np.nan)) is None


def test_settle__gives_the_ground_back_and_leaves_the_roof(case: Case) -> None:
    alike = bring_alike(case.left, case.right, case.carried)
    assert alike is not None
    out, given = settle(case.left, alike, case.carried, case.carried)
    hidden = np.zeros_like(case.wrong)
    hidden[:, 50 - (ROOF - GROUND) : 50] = True  # ground that the right image does not see
    seen = case.wrong & ~hidden
    assert (np.abs(out - GROUND)[seen] < 0.5).mean() > 0.85
    assert given[seen].mean() > 0.85
    roof = case.true == ROOF
    assert (out[roof] == ROOF).mean() > 0.97
    assert (out[case.wrong & hidden] == ROOF).mean() < 0.35


def test_settle__fills_what_was_left_open(case: Case) -> None:
    alike = bring_alike(case.left, case.right, case.true)
    assert alike is not None
    open_rim = np.where(case.wrong, np.float32(np.nan), case.true)
    out, given = settle(case.left, alike, open_rim, open_rim)
    below = np.zeros_like(given)
    below[80:82, 50:88] = True
    assert (np.abs(out - GROUND)[below] < 0.5).mean() > 0.85
    assert given[below].mean() > 0.85


def test_settle__a_slope_is_no_edge(case: Case) -> None:
    columns = np.arange(SIZE, dtype=np.float32)[None, :]
    for slope in (0.25, 0.4):
        stairs = np.rint(slope * columns + np.zeros((SIZE, 1), np.float32)).astype(np.float32)
        out, given = settle(case.left, Alike(case.right, NOISE), stairs, stairs)
        assert not given[8:-8, 8:-8].any()
        assert (out == stairs)[8:-8, 8:-8].all()


def test_doubt__is_high_where_the_roof_was_carried_over(case: Case) -> None:
    alike = bring_alike(case.left, case.right, case.carried)
    assert alike is not None
    p = doubt(case.left, alike, case.carried, np.full_like(case.true, 0.6))
    rim = (case.true == ROOF) & (cv2.erode((case.true == ROOF).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)
    assert np.median(p[case.wrong]) > 0.3 > 0.2 > np.median(p[rim])
    assert (p[:30] == 0).all() and (p[55:65, 65:75] == 0).all()
    ground = case.carried == GROUND
    assert (p[ground] == 0).all()  # the lower side of a step is never doubted


def test_edges__nan_images_do_no_harm(case: Case) -> None:
    left = case.left.copy()
    left[60:64] = np.nan
    alike = bring_alike(left, case.right, case.carried)
    assert alike is not None
    out, given = settle(left, alike, case.carried, case.carried)
    assert not given[60:64].any() and (out[60:64] == case.carried[60:64]).all()
    assert np.isfinite(doubt(left, alike, case.carried, np.full_like(case.true, 0.6))).all()
