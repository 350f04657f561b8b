"""Buildings: rectangles and L shapes with flat or gabled roofs, where they stand and how they are raised."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, hypot, radians, sin
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.simulate.landscape import BLOCK, Plan
from terrain3d.simulate.layers import BUILDING, GROUND, Layers
from terrain3d.simulate.noise import smoothstep


@dataclass(frozen=True)
class Wing:
    """A rectangular part of a building. ``x``, ``y``: centre; ``length`` along the axis; ``eaves`` above the base.

    rise: height of the ridge over the eaves, 0 for a flat roof.
    """

    x: float
    y: float
    length: float
    width: float
    eaves: float
    rise: float


@dataclass(frozen=True)
class Building:
    """A building. ``axis_rad``: direction of its axis, counter-clockwise from east. ``base``: ground height under it.

    roof, facade: reflectance.
    """

    axis_rad: float
    wings: tuple[Wing, ...]
    base: float
    roof: float
    facade: float

    @property
    def reach(self) -> tuple[float, float, float]:
        """x, y and radius of a circle around it."""
        x = sum(w.x for w in self.wings) / len(self.wings)
        y = sum(w.y for w in self.wings) / len(self.wings)
        return x, y, max(hypot(w.x - x, w.y - y) + hypot(w.length, w.width) / 2 for w in self.wings)

    def outline(self) -> tuple[tuple[tuple[float, float], ...], ...]:
        """Corners of each wing, (x, y), counter-clockwise."""
        c, s = cos(self.axis_rad), sin(self.axis_rad)
        return tuple(
            tuple(
                (w.x + a * w.length / 2 * c - b * w.width / 2 * s, w.y + a * w.length / 2 * s + b * w.width / 2 * c)
                for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))
            )
            for w in self.wings
        )


def draw_building(x: float, y: float, axis_rad: float, room: tuple[float, float], rng: np.random.Generator) -> Building:
    """A random building that fits into ``room`` (along and across the axis, m) around a place; base not yet known."""
    big = room[0] > 34
    if big:
        length, width = rng.uniform(0.6, 0.95) * room[0], rng.uniform(0.4, 0.75) * room[1]
        eaves, gabled = float(rng.uniform(9, 25)), rng.random() < 0.15
    else:
        length, width = rng.uniform(0.6, 0.95) * room[0], rng.uniform(0.5, 0.85) * room[1]
        eaves = float(rng.uniform(3.6, 7.5) if rng.random() < 0.75 else rng.uniform(7.0, 13.0))
        gabled = rng.random() < 0.68
    width = min(width, 17.0 if gabled else 30.0)
    c, s = cos(axis_rad), sin(axis_rad)
    rise = float(rng.uniform(0.22, 0.45) * width) if gabled else 0.0
    wings = [Wing(x, y, float(length), float(width), eaves, rise)]
    if rng.random() < 0.3 and width < 0.7 * room[1]:
        # an L: the second wing stands at one end, across the first
        end = float(rng.choice([-1, 1])) * (length - 0.42 * length) / 2
        off = (room[1] - width) / 2
        centre = (x + end * c - off * s * 0.5, y + end * s + off * c * 0.5)
        storeys = float(rng.choice([1.0, 0.7]))
        wings.append(Wing(*centre, float(0.42 * length), float(width + off), eaves * storeys, 0.0))
    tones = [rng.uniform(0.09, 0.2), rng.uniform(0.2, 0.34), rng.uniform(0.34, 0.5)]
    roof = float(rng.choice(tones, p=[0.45, 0.35, 0.2]))
    return Building(axis_rad, tuple(wings), 0.0, roof, float(rng.uniform(0.12, 0.36)))


def settle(layers: Layers, plan: Plan, rng: np.random.Generator) -> list[Building]:
    """Buildings on the lots between the streets of the town, each on ground levelled for it."""
    grid = layers.grid
    houses = []
    for room, u, v in _lots(plan, rng):
        x = grid.west + u * cos(plan.turn) - v * sin(plan.turn)
        y = grid.bounds[1] + u * sin(plan.turn) + v * cos(plan.turn)
        axis = plan.turn + radians(float(rng.normal(0, 1.5)))
        if rng.random() < 0.4 and room[0] < 34:
            axis, room = axis + np.pi / 2, (room[1], room[0])
        house = place(layers, draw_building(x, y, axis, room, rng), plan)
        if house is not None:
            houses.append(house)
    return houses


def _lots(plan: Plan, rng: np.random.Generator) -> list[tuple[tuple[float, float], float, float]]:
    """Room, u and v of the lots: two rows of three in most blocks, one large lot in some."""
    lots: list[tuple[tuple[float, float], float, float]] = []
    first = [int(np.floor(a.min() / b)) for a, b in ((plan.u, BLOCK[0]), (plan.v, BLOCK[1]))]
    last = [int(np.ceil(a.max() / b)) for a, b in ((plan.u, BLOCK[0]), (plan.v, BLOCK[1]))]
    for i in range(first[0], last[0] + 1):
        for j in range(first[1], last[1] + 1):
            u0, v0 = i * BLOCK[0], j * BLOCK[1]
            if rng.random() < 0.2:
                lots.append(((46.0, 36.0), u0 + BLOCK[0] / 2, v0 + BLOCK[1] / 2))
                continue
            for a in range(3):
                for b in range(2):
                    if rng.random() < 0.85:
                        u = u0 + BLOCK[0] / 2 + (a - 1) * 18.0 + float(rng.uniform(-0.8, 0.8))
                        v = v0 + BLOCK[1] / 2 + (b - 0.5) * 22.0 + float(rng.uniform(-1.2, 1.2))
                        lots.append(((15.5, 16.0), u, v))
    return lots


def place(layers: Layers, house: Building, plan: Plan | None = None) -> Building | None:
    """The building on ground that is levelled under and around it, or None where it cannot stand.

    With a plan it must stand in town; always on free, fairly even ground off the streets and away from the rim.
    """
    x, y, radius = house.reach
    window = layers.window(x, y, radius + 8.0)
    if window is None:
        return None
    gap = distance(layers, house, window)
    inside, around = gap <= 0, gap <= 2.0
    free = (layers.classes[window] == GROUND) & (layers.road[window] < 0.1)
    heights = layers.ground[window][inside]
    if not free[around].all() or np.ptp(heights) > 4.5:
        return None
    if plan is not None and plan.town[window][inside].min() < 0.5:
        return None
    base = float(np.median(heights))
    pad = 1.0 - smoothstep(gap, 0.8, 5.0)
    pad *= 1.0 - np.minimum(layers.road[window] * 1.5, 1.0)
    level = layers.ground[window]
    change = np.where(layers.classes[window] == GROUND, pad * (base - level), 0.0).astype(np.float32)
    layers.ground[window] = level + change
    layers.surface[window] += change
    return Building(house.axis_rad, house.wings, base, house.roof, house.facade)


def raise_building(layers: Layers, house: Building, index: int, rng: np.random.Generator) -> None:
    """Roof heights, class, reflectance and index of a building that stands on its base."""
    x, y, radius = house.reach
    window = layers.window(x, y, radius + 1.0)
    if window is None:
        raise ValueError("a building must stand wholly on the grid")
    for wing in house.wings:
        a, b = _wing_coordinates(layers, house, wing, window)
        inside = (np.abs(a) <= wing.length / 2) & (np.abs(b) <= wing.width / 2)
        fall = 1.0 - np.abs(b) / (wing.width / 2)
        roof = house.base + wing.eaves + wing.rise * fall
        paint = house.roof * np.ones_like(a)
        if wing.rise > 0:
            tiles = 0.07 * np.sin(2 * np.pi * b / 0.9) + 0.05 * np.sin(2 * np.pi * a / 2.6)
            paint *= 1.0 + tiles - 0.25 * (np.abs(b) < 0.15)
        else:
            rim = (np.abs(a) > wing.length / 2 - 0.5) | (np.abs(b) > wing.width / 2 - 0.5)
            roof = roof + 0.5 * rim
            paint *= np.where(rim, 1.25, 1.0 - 0.12 * (np.abs(a % 4.0 - 2.0) < 0.12))
            for _ in range(int(rng.integers(0, 2 + int(wing.length * wing.width / 60)))):
                ca = float(rng.uniform(-0.35, 0.35)) * wing.length
                cb = float(rng.uniform(-0.35, 0.35)) * wing.width
                box = (np.abs(a - ca) < rng.uniform(0.6, 1.6)) & (np.abs(b - cb) < rng.uniform(0.6, 1.3))
                roof = roof + box * float(rng.uniform(0.8, 2.2))
                paint = np.where(box, float(rng.uniform(0.15, 0.5)), paint)
        paint *= 1.0 + 0.06 * rng.standard_normal(a.shape) + 0.10 * _mottle(rng, a.shape)
        top = inside & (roof > layers.surface[window])
        layers.surface[window][top] = roof[top]
        layers.albedo[window][top] = np.clip(paint[top], 0.02, 0.8)
        layers.classes[window][inside] = BUILDING
        layers.building[window][inside] = index


def _mottle(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Blotches of 1 to 2 m, as weather leaves on roofs."""
    coarse = rng.standard_normal((shape[0] // 6 + 2, shape[1] // 6 + 2))
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)


def _wing_coordinates(
    layers: Layers, house: Building, wing: Wing, window: tuple[slice, slice]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres along and across a wing from its centre."""
    x, y = layers.coordinates(window)
    c, s = cos(house.axis_rad), sin(house.axis_rad)
    return (x - wing.x) * c + (y - wing.y) * s, -(x - wing.x) * s + (y - wing.y) * c


def distance(layers: Layers, house: Building, window: tuple[slice, slice]) -> NDArray[np.float32]:
    """Distance from the building in metres, 0 or less inside."""
    gaps = []
    for wing in house.wings:
        a, b = _wing_coordinates(layers, house, wing, window)
        da, db = np.abs(a) - wing.length / 2, np.abs(b) - wing.width / 2
        gaps.append(np.where((da > 0) & (db > 0), np.hypot(da, db), np.maximum(da, db)))
    return np.minimum.reduce(gaps).astype(np.float32)
