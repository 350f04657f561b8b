"""Bare land: relief with a river, slopes and terraces, streets, parcels of fields, and how the ground looks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.raster import Grid
from terrain3d.simulate.layers import GROUND, WATER, Layers
from terrain3d.simulate.noise import fractal, hashed, smoothstep

Singles = NDArray[np.float32]
STREET_WIDTH = 6.0
BLOCK = (62.0, 54.0)


@dataclass(frozen=True)
class Recipe:
    """What a kind of world is like.

    base: height of the river. relief: of the hills, relative to the side. forest, town, terraces: shares of the area.
    """

    base: float
    relief: float
    forest: float
    town: float
    terraces: float
    river_width: float


@dataclass(frozen=True)
class Plan:
    """Where things are, before anything stands there: fields of the grid, float32.

    u, v: street coordinates, metres along and across (the street grid is turned against north).
    river: distance from the water's edge, negative on water. town, forest: 0 to 1.
    """

    turn: float
    u: Singles
    v: Singles
    river: Singles
    town: Singles
    forest: Singles


def lay_out(recipe: Recipe, grid: Grid, rng: np.random.Generator) -> Plan:
    """River course, street grid, and where town and forest are."""
    size = grid.width * grid.resolution
    x = ((np.arange(grid.width) + 0.5) * grid.resolution).astype(np.float32)[None, :]
    y = ((grid.height - np.arange(grid.height) - 0.5) * grid.resolution).astype(np.float32)[:, None]
    turn = float(rng.uniform(0.12, 0.35)) * rng.choice([-1, 1])
    u = (x * np.cos(turn) + y * np.sin(turn)).astype(np.float32)
    v = (-x * np.sin(turn) + y * np.cos(turn)).astype(np.float32)

    phase = rng.uniform(0, 2 * np.pi, 2)
    bend = min(size, 600.0)
    course = (
        size * rng.uniform(0.66, 0.76)
        + rng.uniform(-0.12, 0.12) * (x - size / 2)
        + 0.045 * bend * np.sin(2 * np.pi * x / (0.9 * bend) + phase[0])
        + 0.012 * bend * np.sin(2 * np.pi * x / (0.31 * bend) + phase[1])
    )
    slope = np.gradient(course[0], grid.resolution)[None, :]
    river = (np.abs(y - course) / np.sqrt(1 + slope**2) - recipe.river_width / 2).astype(np.float32)
    south = (course - y).astype(np.float32)

    wild = fractal(rng, grid.shape, grid.resolution, max(size / 2.5, 120.0), 8.0, 3.4)
    # The town lies south of the river and leaves a belt along it; its share is reached from the middle outwards.
    middle = min(0.74 - float(np.sqrt(recipe.town / np.pi)), 0.5)
    reach = np.hypot((x - 0.52 * size) / size, (y - middle * size) / size).astype(np.float32) + 0.035 * wild
    radius = float(np.quantile(reach[::8, ::8], recipe.town))
    town = smoothstep(-reach, -radius - 0.02, -radius + 0.02) * smoothstep(south, 24.0, 32.0)
    woods = wild + 0.6 * smoothstep(-south, -10.0, 40.0) - 3.0 * town - 2.0 * smoothstep(-river, -9.0, -2.0)
    forest = (woods > np.quantile(woods[::8, ::8], 1.0 - recipe.forest)).astype(np.float32)
    return Plan(turn, u, v, river, town, forest)


def make_layers(recipe: Recipe, plan: Plan, grid: Grid, rng: np.random.Generator) -> Layers:
    """Bare ground with level water and graded streets; nothing painted yet."""
    size, cell = grid.width * grid.resolution, grid.resolution
    amplitude = recipe.relief * min(size, 2000.0) ** 0.9 * 2.0
    hills = fractal(rng, grid.shape, cell, size / 1.5, 15.0, 4.4)
    hills = (hills - hills.min()) / float(np.ptp(hills))
    valley = smoothstep(plan.river, 0.0, 0.33 * size)
    height = amplitude * (0.25 * hills + 0.75 * hills * valley + 0.45 * valley) / 1.4
    height += min(0.0025 * amplitude, 0.4) * fractal(rng, grid.shape, cell, 40.0, 3.0, 3.2) * (1.0 - 0.7 * plan.town)
    # A settlement stands where the land is gentle.
    settled = cv2.resize(plan.town, (max(grid.width // 16, 1), max(grid.height // 16, 1)), interpolation=cv2.INTER_AREA)
    settled = cv2.resize(cv2.GaussianBlur(settled, (0, 0), 30.0 / (16 * cell)), plan.town.shape[::-1])
    height *= 1.0 - settled * (1.0 - min(1.0, 25.0 / amplitude))

    step = 1.6 + 0.012 * amplitude
    risers = height / step + 0.15 * fractal(rng, grid.shape, cell, 60.0, 8.0, 3.5)
    terraced = step * (np.floor(risers) + smoothstep(risers - np.floor(risers), 0.72, 0.98))
    where = fractal(rng, grid.shape, cell, size / 3, 12.0, 3.6) - 4.0 * plan.town - 4.0 * plan.forest
    share = smoothstep(where, *np.quantile(where[::8, ::8], (1.0 - recipe.terraces, 1.0 - 0.8 * recipe.terraces)))
    height += cv2.GaussianBlur(share, (0, 0), 3.0 / cell) * (terraced - height)
    height += 0.04 * fractal(rng, grid.shape, cell, 6.0, 0.5, 2.6) * (1.0 - 0.5 * plan.town)

    bank = 0.9 * smoothstep(plan.river, -0.3, 3.0) + 0.02 * np.minimum(plan.river, 60.0)
    height = np.where(plan.river > 0, np.maximum(height, 0.0) * smoothstep(plan.river, 0.0, 12.0) + bank, 0.0)
    road = _streets(plan)
    bed = cv2.GaussianBlur(height.astype(np.float32), (0, 0), 5.0 / cell)
    height += cv2.GaussianBlur(np.minimum(road * 1.2, 1.0), (0, 0), 0.8 / cell) * (bed - height)
    water = plan.river <= 0
    height[water] = 0.0
    ground = (recipe.base + height).astype(np.float32)
    classes = np.where(water, WATER, GROUND).astype(np.uint8)
    return Layers(
        grid, ground.copy(), ground, classes, np.full(grid.shape, 0.2, np.float32),
        np.zeros(grid.shape, np.int32), road,
    )  # fmt: skip


def _streets(plan: Plan) -> Singles:
    """Share of street in each cell: a grid of streets in town, one country road beyond it, none in the water."""
    across = np.abs((plan.u + BLOCK[0] / 2) % BLOCK[0] - BLOCK[0] / 2)
    along = np.abs((plan.v + BLOCK[1] / 2) % BLOCK[1] - BLOCK[1] / 2)
    streets = (plan.town > 0.5) & (np.minimum(across, along) < STREET_WIDTH / 2)
    middle = round(float(plan.v.mean()) / BLOCK[1] - 0.5) * BLOCK[1]
    country = np.abs(plan.v - middle - 6.0 * np.sin(plan.u / 70.0) * (1.0 - plan.town)) < STREET_WIDTH / 2
    road = ((streets | country) & (plan.river > 6.0)).astype(np.float32)
    return cv2.GaussianBlur(road, (0, 0), 0.8)


def paint(layers: Layers, plan: Plan, rng: np.random.Generator) -> None:
    """Reflectance of the ground: parcels of their own brightness and grain, crop rows, streets, water, forest floor."""
    shape, cell = layers.grid.shape, layers.grid.resolution
    seed = int(rng.integers(1 << 30))
    broad = fractal(rng, shape, cell, 60.0, 1.0, 2.4)
    fine = fractal(rng, shape, cell, 8.0, 0.3, 1.7)
    grain = rng.standard_normal(shape, dtype=np.float32)

    u, v = plan.u + 1.5 * broad, plan.v + 1.5 * cv2.flip(broad, 0)
    in_town = plan.town > 0.5
    width = np.where(in_town, BLOCK[0] / 3, 58.0).astype(np.float32)
    depth = np.where(in_town, BLOCK[1] / 2, 41.0).astype(np.float32)
    row = np.floor(v / depth).astype(np.int64)
    column = np.floor(u / width + hashed(row, seed=seed) * (1 - in_town)).astype(np.int64)
    kind = hashed(row, column, seed=seed + 1)
    tone = 0.10 + 0.19 * hashed(row, column, seed=seed + 2) ** 1.3
    contrast = np.where(kind < 0.15, 0.45, 0.7 + 0.6 * hashed(row, column, seed=seed + 3)).astype(np.float32)
    texture = 0.12 * broad + 0.11 * fine + 0.05 * grain
    period = 1.4 + 2.0 * hashed(row, column, seed=seed + 4)
    lines = np.where(hashed(row, column, seed=seed + 5) < 0.5, plan.u, plan.v)
    rows = np.where((kind > 0.8) & ~in_town, 0.13, 0.0) * np.sin(2 * np.pi * lines / period)
    albedo = tone * (1.0 + contrast * texture + rows)

    edge = np.minimum(np.abs(u / width - np.round(u / width)) * width, np.abs(v / depth - np.round(v / depth)) * depth)
    albedo *= np.where(in_town & (edge < 0.35), 0.75, 1.0)
    albedo += plan.forest * (0.085 * (1.0 + 0.35 * fine + 0.1 * grain) - albedo)
    banks = smoothstep(-plan.river, -5.0, -1.0)
    albedo += banks * (0.21 * (1.0 + 0.2 * fine + 0.14 * grain) - albedo)
    asphalt = 0.105 * (1.0 + 0.05 * broad + 0.035 * fine + 0.02 * grain)
    albedo += layers.road * (asphalt - albedo)
    dash = (np.abs((plan.v + BLOCK[1] / 2) % BLOCK[1] - BLOCK[1] / 2) < 0.14) & (plan.u % 6.0 < 3.0)
    albedo[dash & in_town & (layers.road > 0.9)] = 0.3
    albedo[layers.classes == WATER] = 0.03
    layers.albedo[:] = np.clip(albedo, 0.015, 0.9)
