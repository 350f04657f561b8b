from __future__ import annotations

import numpy as np

from terrain3d.surface.seams import parted


def test_parted__the_seam_follows_where_both_agree() -> None:
    keep, take = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    keep[:, :5], take[:, 55:] = True, True
    row, column = np.mgrid[0:60, 0:60]
    valley = 30 + 12 * np.sin(row / 9)
    found = parted(keep, take, ~keep & ~take, np.clip(np.abs(column - valley) / 10, 0.1, 1))
    border = 60 - found.sum(axis=1)
    assert np.abs(border - valley[:, 0]).max() <= 1.5


def test_parted__where_all_agree_it_runs_in_the_middle() -> None:
    keep, take = np.zeros((20, 41), bool), np.zeros((20, 41), bool)
    keep[:, 0], take[:, 40] = True, True
    assert np.abs(parted(keep, take, ~keep & ~take, np.zeros((20, 41))).sum(axis=1) - 20.5).max() <= 1


def test_parted__nothing_is_taken_beyond_the_strip() -> None:
    take, between = np.zeros((30, 30), bool), np.zeros((30, 30), bool)
    take[10:14, 10:14], between[8:16, 8:16] = True, True
    between &= ~take
    found = parted(np.zeros_like(take), take, between, np.zeros(take.shape))
    assert np.array_equal(found, take | between)  # no other side to reach it
    outside = np.ones_like(take)
    outside[8:16, 8:16] = False
    assert (parted(outside, take, between, np.zeros(take.shape)) & outside).sum() == 0
