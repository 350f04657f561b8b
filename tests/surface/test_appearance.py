"""Light of overhangs: learned where crowns are darker, and where they are brighter; silent where both look alike."""

from __future__ import annotations

import numpy as np
import pytest

from terrain3d.surface.appearance import LIMITS, NONE, codes_of, count, learn

N = 40_000


def scene(of_ground: float, of_top: float, spread: float = 0.1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether cells are ground, odds of other signs that are right in 3 of 4 cases, and three views of the cells."""
    rng = np.random.default_rng(4)
    ground = rng.random(N) < 0.3
    odds = rng.normal(np.where(ground, 0.2, -1.6), 1.3).astype(np.float32)
    values = np.where(ground, of_ground, of_top) + rng.normal(0, spread, (3, N))
    return ground, odds, values.astype(np.float32)


def decided(odds: np.ndarray, values: np.ndarray) -> np.ndarray:
    codes = codes_of(values, np.quantile(values, LIMITS))
    return np.asarray(odds + learn(count(odds, codes))[codes])


@pytest.mark.parametrize(("of_ground", "of_top"), [(0.8, 0.5), (0.5, 0.8)])
def test_learn__whichever_is_brighter(of_ground: float, of_top: float) -> None:
    ground, odds, values = scene(of_ground, of_top)
    before, after = ((o > 0) == ground for o in (odds, decided(odds, values)))
    assert before.mean() < 0.85 and after.mean() > 0.95


def test_learn__says_nothing_where_both_look_alike() -> None:
    _, odds, values = scene(0.6, 0.6)
    assert np.abs(decided(odds, values) - odds).max() < 0.5
    assert np.abs(decided(odds, values) - odds).std() < 0.1


def test_learn__nothing_from_nothing() -> None:
    none = np.empty(0, np.float32)
    assert (learn(count(none, codes_of(np.empty((3, 0), np.float32), np.array(LIMITS)))) == 0).all()
    _, odds, _ = scene(0.8, 0.5)
    assert (learn(count(odds, np.full(N, NONE, np.uint16))) == 0).all()


def test_codes_of__darkest_and_brightest_of_the_views_that_see_a_cell() -> None:
    limits = np.array(LIMITS) * 16  # value v in level v
    nan = np.nan
    values = np.array([[3.5, nan, nan], [7.5, 5.5, nan], [2.5, 9.5, nan]], np.float32)
    assert codes_of(values, limits).tolist() == [2 * 16 + 7, 5 * 16 + 9, NONE]
    # of more than four views one at either end may be mistaken
    assert codes_of(np.arange(6, dtype=np.float32)[:, None] + 0.5, limits).tolist() == [1 * 16 + 4]
