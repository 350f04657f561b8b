"""Trees: ragged crowns of many sizes in forest, along streets and in gardens."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from terrain3d.simulate.landscape import Plan
from terrain3d.simulate.layers import GROUND, TREE, Layers
from terrain3d.simulate.noise import fractal

Floats = NDArray[np.float64]
SPACING = 4.0


def plant(layers: Layers, plan: Plan, rng: np.random.Generator) -> None:
    """Forest as a jittered grid of crowns, and single trees on free ground in and around the town."""
    grid = layers.grid
    rows, columns = (int(n * grid.resolution / SPACING) for n in grid.shape)
    shape = (rows, columns)
    row = ((np.arange(rows)[:, None] + rng.uniform(0.0, 1.0, shape)) * SPACING / grid.resolution).ravel()
    column = ((np.arange(columns)[None, :] + rng.uniform(0.0, 1.0, shape)) * SPACING / grid.resolution).ravel()
    near = np.minimum(row.astype(int), grid.height - 1), np.minimum(column.astype(int), grid.width - 1)
    forest = plan.forest[near] > 0.5
    radius = np.where(forest, rng.lognormal(np.log(2.4), 0.28, row.size), rng.uniform(1.2, 3.2, row.size))
    age = fractal(rng, (rows, columns), SPACING, 150.0, 10.0, 3.0).ravel()
    height = np.where(forest, 4.0 + 5.2 * radius + 2.5 * age, 2.5 + 3.0 * radius) + rng.normal(0, 1.2, row.size)
    lone = rng.random(row.size) < np.where(plan.town[near] > 0.5, 0.07, 0.004)
    keep = np.where(forest, rng.random(row.size) < 0.93, lone)
    keep &= (layers.classes[near] == GROUND) & (layers.road[near] < 0.1) & (plan.river[near] > 1.0)
    tone = 0.105 * rng.lognormal(0, 0.22, row.size)
    phase = rng.uniform(0, 2 * np.pi, row.size)
    trees = np.stack([row, column, radius, np.clip(height, 3.0, 34.0), tone, phase], 1)[keep]
    ragged = fractal(rng, grid.shape, grid.resolution, 2.5, 0.3, 1.8)
    grow(trees, ragged, layers.surface, layers.ground, layers.classes, layers.albedo, layers.road, grid.resolution)


@njit(cache=True, nogil=True)
def grow(
    trees: Floats,
    ragged: NDArray[np.float32],
    surface: NDArray[np.float32],
    ground: NDArray[np.float32],
    classes: NDArray[np.uint8],
    albedo: NDArray[np.float32],
    road: NDArray[np.float32],
    cell: float,
) -> None:
    """Crowns of (row, column, radius, height, tone, phase): half ellipsoids with lobes and a rough skin."""
    rows, columns = surface.shape
    for k in range(trees.shape[0]):
        row, column, radius, height, tone, phase = trees[k]
        foot = ground[int(row), int(column)]
        reach = int(1.3 * radius / cell) + 1
        for r in range(max(0, int(row) - reach), min(rows, int(row) + reach + 1)):
            for c in range(max(0, int(column) - reach), min(columns, int(column) + reach + 1)):
                if classes[r, c] != GROUND and classes[r, c] != TREE:
                    continue
                dx, dy = (c - column) * cell, (row - r) * cell
                angle = np.arctan2(dy, dx)
                lobes = 1.0 + 0.10 * np.sin(3.0 * angle + phase) + 0.07 * np.sin(7.0 * angle + 2.0 * phase)
                rho = np.sqrt(dx * dx + dy * dy) / (radius * lobes) + 0.07 * ragged[r, c]
                if rho >= 1.0:
                    continue
                depth = min(1.15 * radius, 0.7 * height)
                z = foot + height - depth * (1.0 - np.sqrt(1.0 - max(rho, 0.0) ** 2)) + 0.22 * ragged[r, c]
                if z > surface[r, c] and z > ground[r, c] + 1.5:
                    surface[r, c] = z
                    classes[r, c] = TREE
                    albedo[r, c] = max(tone * (1.0 + 0.22 * ragged[r, c] - 0.25 * max(rho, 0.0) ** 2), 0.02)
