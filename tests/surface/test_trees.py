from __future__ import annotations

import numpy as np
import pytest

from terrain3d.surface.trees import STAND_CELL, stand_labels, stand_statistics, tree_tops


def crowns(places: list[tuple[float, float, float]], size: int = 200, cell: float = 0.5) -> np.ndarray:
    """Height model of half ellipsoids; places: x, y and height, metres."""
    y, x = np.mgrid[0:size, 0:size] * cell
    z = np.zeros((size, size))
    for east, north, height in places:
        r = np.hypot(x - east, y - north) / 2.5
        z = np.maximum(z, np.where(r < 1, height - 3 * (1 - np.sqrt(np.maximum(1 - r**2, 0))), 0))
    return z.astype(np.float32)


def test_tree_tops__one_a_crown_and_none_on_roofs() -> None:
    rng = np.random.default_rng(1)
    grid = [(10 + 6.5 * i + rng.uniform(-1, 1), 10 + 6.5 * j + rng.uniform(-1, 1)) for i in range(12) for j in range(6)]
    z = crowns([(x, y, float(rng.uniform(8, 22))) for x, y in grid])
    z[120:160, 20:70] = 9.0  # a flat roof
    y = np.mgrid[0:40, 0:60][0]
    z[120:160, 100:160] = 12 - 0.25 * np.abs(y - 20)  # a gable
    z += rng.normal(0, 0.05, z.shape).astype(np.float32)
    tops = tree_tops(z, 0.5)
    assert not tops[115:165, 15:165].any()
    row, column = np.nonzero(tops)
    near = [np.min(np.hypot(column * 0.5 - x, row * 0.5 - y)) for x, y in grid]
    assert np.mean(np.array(near) < 1.5) > 0.9
    assert len(row) == pytest.approx(len(grid), abs=8)


def test_tree_tops__nothing_tall_and_voids() -> None:
    z = np.full((60, 60), 1.5, np.float32)
    z[20:, :] = np.nan
    assert not tree_tops(z, 0.5).any()


def test_stand_labels__classes_of_height_are_stands() -> None:
    cover = np.zeros((40, 60), np.float32)
    cover[5:35, 5:55] = 0.9
    tallest = np.where(cover > 0, 13.0, np.nan).astype(np.float32)
    tallest[5:35, 30:55] = 28.0
    tops = (cover > 0).astype(np.int64) * 3
    labels = stand_labels(cover, tallest, tops, STAND_CELL)
    left, right = labels[20, 12], labels[20, 45]
    assert left > 0 and right > 0 and left != right
    assert labels[0, 0] == 0
    assert (labels == left).sum() == pytest.approx(25 * 30, rel=0.3)


def test_stand_statistics__top_height_and_sigma() -> None:
    tops = np.linspace(5, 25, 401).astype(np.float32)
    stand = stand_statistics(10_000.0, 8_000.0, 8_000.0 * 14, tops, 1.0, 1.5, 40.0)
    assert stand.mean_height == 14 and stand.cover == 0.8 and stand.trees == 401
    assert stand.top_height == pytest.approx(np.sort(tops)[-100:].mean())
    assert stand.mean_height_sigma == pytest.approx(1.5 / np.sqrt(10_000 / (np.pi * 1600)))
    assert stand.top_height_sigma == pytest.approx(np.sqrt(stand.mean_height_sigma**2 + 0.1**2 + 0.5**2))
