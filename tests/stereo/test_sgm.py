"""The vector kernel equals its plain twin; disparities have the documented sign; planes come out exactly."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from terrain3d.stereo.census import INVALID, census
from terrain3d.stereo.sgm import MAX_P2, SgmBuffers, SgmResult, match_census, padded_disparities
from terrain3d.stereo.sgm_plain import match_census_plain


@pytest.mark.parametrize("disparities", [64, 128])
def test_sgm__bit_equal_to_plain_twin(disparities: int) -> None:
    rng = np.random.default_rng(disparities)
    left = rng.integers(0, 2**32, (23, 150), dtype=np.uint32)
    right = np.roll(left, -17, axis=1) ^ (rng.random(left.shape) < 0.2).astype(np.uint32) * np.uint32(0xF0F0)
    right[5:9, 20:40] = INVALID
    p1, p2 = rng.integers(3, 12, left.shape), rng.integers(14, MAX_P2 + 1, left.shape)
    fast = match_census(left, right, disparities, p1=p1, p2=p2)
    slow = match_census_plain(left, right, disparities, p1=p1, p2=p2)
    for name in ("integer", "disparity", "best", "second"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)


def test_sgm__disparity_sign_is_left_minus_right() -> None:
    rng = np.random.default_rng(1)
    scene = rng.standard_normal((40, 200)).astype(np.float32)
    shift = 11
    left, right = scene[:, :-shift], scene[:, shift:]  # the point at left x is at right x - 11
    result = match_census(census(left), census(right), 64, p1=8, p2=32)
    inner = result.integer[:, 64:]
    assert (inner == shift).mean() > 0.995
    assert np.abs(result.disparity[:, 64:][inner == shift] - shift).max() < 0.25


def test_sgm__buffers_are_reused_without_effect() -> None:
    rng = np.random.default_rng(2)
    left = rng.integers(0, 2**32, (12, 90), dtype=np.uint32)
    buffers = SgmBuffers()
    match_census(
        rng.integers(0, 2**32, (30, 120), dtype=np.uint32),
        np.zeros((30, 120), np.uint32),
        64,
        p1=7,
        p2=41,
        buffers=buffers,
    )
    again = match_census(left, left, 64, p1=7, p2=41, buffers=buffers)
    fresh = match_census(left, left, 64, p1=7, p2=41)
    np.testing.assert_array_equal(again.best, fresh.best)


def test_sgm__two_tiles_on_two_threads_do_not_touch_each_other() -> None:
    """Each thread keeps its buffers from tile to tile; the kernel lets the other one run."""
    rng = np.random.default_rng(6)
    tiles = [rng.integers(0, 2**32, (2, 40 + 9 * k, 200 - 11 * k), dtype=np.uint32) for k in range(8)]
    alone = [match_census(*t, 64, p1=5, p2=16) for t in tiles]
    own = threading.local()

    def work(tile: NDArray[np.uint32]) -> SgmResult:
        if not hasattr(own, "buffers"):
            own.buffers = SgmBuffers()
        return match_census(*tile, 64, p1=5, p2=16, buffers=own.buffers)

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(work, tiles * 3))
    for k, found in enumerate(together):
        for name in ("integer", "disparity", "best", "second"):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone[k % 8], name))


def test_sgm__penalties_that_overflow_are_refused() -> None:
    words = np.zeros((4, 70), np.uint32)
    with pytest.raises(ValueError, match="p2"):
        match_census(words, words, 64, p1=8, p2=MAX_P2 + 1)


def test_padded_disparities__next_multiple() -> None:
    assert [padded_disparities(n) for n in (1, 64, 65, 128)] == [64, 64, 128, 128]


def test_census__blind_to_gain_and_offset() -> None:
    image = np.random.default_rng(3).random((20, 30)).astype(np.float32)
    np.testing.assert_array_equal(census(image), census(image * 3 + 100))


def test_census__nan_is_invalid() -> None:
    image = np.random.default_rng(4).random((9, 9)).astype(np.float32)
    image[4, 4] = np.nan
    assert census(image)[4, 4] == INVALID
