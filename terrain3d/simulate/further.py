"""Further changes of a world than ``events.evolve`` makes: storeys added and taken off, planting, pits, heaps,
construction sites, banks that are cut or silted up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import pi

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.simulate.buildings import Building
from terrain3d.simulate.events import Event, bare, ellipse, event_of
from terrain3d.simulate.layers import GROUND, TREE, WATER, Layers, Window
from terrain3d.simulate.noise import smoothstep
from terrain3d.simulate.trees import grow
from terrain3d.simulate.world import World, world_of

TRIES = 4000
APART = 38.0  # metres between the middles of these changes and all others
STEEPEST = 0.25  # slope of ground that is dug or filled
Singles = NDArray[np.float32]


def evolve_further(
    world: World, base: World, taken: list[Event], seed: int, each: int = 2
) -> tuple[World, list[Event]]:
    """``each`` changes of every further kind in a world that may have changed from ``base`` by the events ``taken``.

    What the place has no room for is left out.
    """
    rng = np.random.default_rng((seed, 3))
    layers = world.layers()
    busy = [_middle(e) for e in taken]
    events: list[Event] = []
    _storeys(layers, base, world.buildings, each, rng, busy, events)
    works = (_planting, _pit, _heap, _site)
    for work in works:
        for _ in range(each):
            _somewhere(layers, base, work, rng, busy, events)
    for kind in ("land_to_water", "water_to_land"):
        _shore(layers, base, kind, rng, busy, events)
    for kind in ("erosion", "accretion"):
        for _ in range(each):
            _bank(layers, base, kind, rng, busy, events)
    return world_of(layers, world.buildings), events


def _middle(event: Event) -> tuple[float, float]:
    x, y = np.concatenate([np.asarray(ring) for ring in event.outline]).mean(axis=0)
    return float(x), float(y)


def _apart(x: float, y: float, busy: list[tuple[float, float]]) -> bool:
    return all(np.hypot(x - a, y - b) > APART for a, b in busy)


def _storeys(
    layers: Layers,
    base: World,
    buildings: tuple[Building, ...],
    each: int,
    rng: np.random.Generator,
    busy: list[tuple[float, float]],
    events: list[Event],
) -> None:
    """Buildings of the first epoch that become higher, and higher ones that become lower."""
    made = {"raised_building": 0, "lowered_building": 0}
    for index in rng.permutation(len(base.buildings)):
        house = buildings[int(index)]
        x, y, radius = house.reach
        window = layers.window(x, y, radius + 1.0)
        eaves = house.wings[0].eaves
        kind = "lowered_building" if eaves > 7.0 and made["lowered_building"] < each else "raised_building"
        if window is None or made[kind] >= each or not _apart(x, y, busy):
            continue
        mask = layers.building[window] == int(index) + 1
        if mask.sum() * layers.grid.resolution**2 < 60:
            continue
        step = float(rng.uniform(3.0, 6.5)) if kind == "raised_building" else -float(rng.uniform(3.0, eaves - 3.5))
        layers.surface[window][mask] += np.float32(step)
        made[kind] += 1
        busy.append((x, y))
        events.append(event_of(kind, house.outline(), layers, base, window, mask))


Work = Callable[[Layers, World, Window, float, float, float, np.random.Generator], tuple[str, NDArray[np.bool_]]]


def _somewhere(
    layers: Layers,
    base: World,
    work: Work,
    rng: np.random.Generator,
    busy: list[tuple[float, float]],
    events: list[Event],
) -> None:
    """One change on open, fairly even ground, while a place for it is found."""
    west, south, east, north = layers.grid.bounds
    for _ in range(TRIES):
        radius = float(rng.uniform(9.0, 15.0))
        x, y = float(rng.uniform(west + 40, east - 40)), float(rng.uniform(south + 40, north - 40))
        window = layers.window(x, y, 1.4 * radius)
        if window is None or not _apart(x, y, busy):
            continue
        free = (layers.classes[window] == GROUND) & (layers.road[window] < 0.1) & (base.classes[window] == GROUND)
        inside = np.hypot(*_fields(layers, window, x, y)) < 1.15 * radius
        if free[inside].mean() < 0.97 or np.ptp(layers.ground[window][inside]) > STEEPEST * 2.3 * radius:
            continue
        kind, mask = work(layers, base, window, x, y, radius, rng)
        busy.append((x, y))
        events.append(event_of(kind, (ellipse(x, y, 0.0, radius, radius),), layers, base, window, mask))
        return


def _fields(layers: Layers, window: Window, x: float, y: float) -> tuple[Singles, Singles]:
    px, py = layers.coordinates(window)
    shape = layers.ground[window].shape
    return np.broadcast_to(px - x, shape).astype(np.float32), np.broadcast_to(py - y, shape).astype(np.float32)


def _dig(layers: Layers, window: Window, change: Singles, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Move the ground, and leave it bare."""
    mask = np.abs(change) > 0.05
    layers.ground[window][mask] += change[mask]
    layers.surface[window][mask] = layers.ground[window][mask]
    bare(layers, window, mask, 0.25, rng)
    return mask


def _planting(
    layers: Layers, base: World, window: Window, x: float, y: float, radius: float, rng: np.random.Generator
) -> tuple[str, NDArray[np.bool_]]:
    """A grove of young trees, 5 to 10 m high."""
    cell = layers.grid.resolution
    spots = np.arange(-radius, radius, 3.6)
    u, v = (g.ravel() + rng.uniform(-0.8, 0.8, spots.size**2) for g in np.meshgrid(spots, spots))
    inside = np.hypot(u, v) < radius - 2.0
    column, row = layers.grid.column_row(x + u[inside], y + v[inside])
    n = int(inside.sum())
    crown = rng.uniform(1.6, 2.6, n)
    trees = np.stack(
        [row, column, crown, 3.0 + 2.4 * crown + rng.normal(0, 0.7, n), rng.uniform(0.08, 0.13, n),
         rng.uniform(0, 2 * pi, n)], axis=1,
    )  # fmt: skip
    ragged = rng.standard_normal(layers.surface.shape).astype(np.float32)
    grow(trees, cv2.GaussianBlur(ragged, (0, 0), 1.5) * 2, layers.surface, layers.ground, layers.classes,
         layers.albedo, layers.road, cell)  # fmt: skip
    return "vegetation_growth", layers.surface[window] > base.surface[window] + 0.5


def _pit(
    layers: Layers, base: World, window: Window, x: float, y: float, radius: float, rng: np.random.Generator
) -> tuple[str, NDArray[np.bool_]]:
    u, v = _fields(layers, window, x, y)
    depth = float(rng.uniform(3.0, 6.0))
    bowl = smoothstep(-np.hypot(u, v * 1.2), -radius, -0.45 * radius)
    return "excavation", _dig(layers, window, (-depth * bowl).astype(np.float32), rng)


def _heap(
    layers: Layers, base: World, window: Window, x: float, y: float, radius: float, rng: np.random.Generator
) -> tuple[str, NDArray[np.bool_]]:
    u, v = _fields(layers, window, x, y)
    height = float(rng.uniform(3.0, 6.0))
    cone = np.clip(1 - np.hypot(u, v * 1.3) / radius, 0, None) ** 0.9
    return "fill", _dig(layers, window, (1.4 * height * cone).astype(np.float32), rng)


def _site(
    layers: Layers, base: World, window: Window, x: float, y: float, radius: float, rng: np.random.Generator
) -> tuple[str, NDArray[np.bool_]]:
    """A level pit with steep sides, and the earth from it in a heap beside."""
    u, v = _fields(layers, window, x, y)
    turn = float(rng.uniform(0, pi))
    a, b = u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)
    away = np.maximum(np.abs(a + 0.45 * radius) - 0.5 * radius, np.abs(b) - 0.6 * radius)
    inside = 1.0 - smoothstep(away, 0.0, 2.0)
    floor = float(layers.ground[window][away < 0].mean()) - float(rng.uniform(3.0, 5.0))
    heap = np.clip(1 - np.hypot((a - 0.65 * radius) / 0.5, b / 0.85) / radius, 0, None) ** 0.8 * 0.33 * radius
    change = inside * (floor - layers.ground[window]) + heap
    return "construction_site", _dig(layers, window, change.astype(np.float32), rng)


def _places(
    layers: Layers, cells: NDArray[np.int64], reach: float, rng: np.random.Generator, busy: list[tuple[float, float]]
) -> Iterator[tuple[float, float, Window]]:
    """Some of the cells (row, column) in random order, as x, y and the window around, that lie apart from what is."""
    for row, column in cells[rng.permutation(len(cells))[:TRIES]]:
        x = layers.grid.west + (column + 0.5) * layers.grid.resolution
        y = layers.grid.north - (row + 0.5) * layers.grid.resolution
        window = layers.window(x, y, reach)
        if window is not None and _apart(x, y, busy):
            yield x, y, window


def _bank(
    layers: Layers,
    base: World,
    kind: str,
    rng: np.random.Generator,
    busy: list[tuple[float, float]],
    events: list[Event],
) -> None:
    """A strip beside the water that sinks to just above it, where it is high enough, or rises as a bar."""
    cell = layers.grid.resolution
    water = base.classes == WATER
    if not water.any():
        return
    away = cv2.distanceTransform((~water).astype(np.uint8), cv2.DIST_L2, 5) * cell
    level = float(np.median(base.ground[water]))
    shore = np.argwhere((away > 1.0) & (away < 2.0))
    for x, y, window in _places(layers, shore, 26.0, rng, busy):
        u, v = _fields(layers, window, x, y)
        near = (away[window] > 0.3) & (away[window] < 11.0) & (np.hypot(u, v) < 24.0)
        free = near & (layers.classes[window] == GROUND) & (layers.road[window] < 0.1)
        above = layers.ground[window] - level
        if free.sum() < 0.9 * near.sum() or (kind == "erosion" and np.median(above[near]) < 2.6):
            continue
        fade = 1.0 - smoothstep(np.hypot(u, v), 18.0, 24.0)
        fade = fade * (1.0 - smoothstep(away[window], 8.0, 11.0)) * smoothstep(away[window], 0.0, 1.0)
        rise = -np.minimum(above - 0.3, 5.0) if kind == "erosion" else np.full_like(above, 3.0)
        mask = _dig(layers, window, np.where(free, fade * rise, 0.0).astype(np.float32), rng)
        busy.append((float(x), float(y)))
        events.append(event_of(kind, (ellipse(float(x), float(y), 0.0, 22.0, 22.0),), layers, base, window, mask))
        return


def _shore(
    layers: Layers,
    base: World,
    kind: str,
    rng: np.random.Generator,
    busy: list[tuple[float, float]],
    events: list[Event],
) -> None:
    """A bay dug into low land beside the water, or a stretch of the water that is filled."""
    cell = layers.grid.resolution
    water = base.classes == WATER
    if not water.any():
        return
    dig = kind == "land_to_water"
    away = cv2.distanceTransform((water != dig).astype(np.uint8), cv2.DIST_L2, 5) * cell  # from the shore, into it
    level = float(np.median(base.ground[water]))
    depth = 16.0 if dig else 5.0
    spots = np.argwhere((away > depth) & (away < depth + 1.0))
    long, short = (28.0, 20.0) if dig else (30.0, 16.0)
    for x, y, window in _places(layers, spots, long + 12.0, rng, busy):
        u, v = _fields(layers, window, x, y)
        # the long axis lies along the shore
        gy, gx = np.gradient(cv2.GaussianBlur(away[window], (0, 0), 4.0 / cell))
        middle = gx.shape[0] // 2, gx.shape[1] // 2
        turn = float(np.arctan2(-gy[middle], gx[middle])) + pi / 2
        a, b = u * np.cos(turn) + v * np.sin(turn), -u * np.sin(turn) + v * np.cos(turn)
        inside = (a / long) ** 2 + (b / short) ** 2 < 1.0
        here = inside & (water[window] != dig)
        allowed = (GROUND, TREE) if dig else (WATER,)
        free = np.isin(layers.classes[window], allowed) & (layers.road[window] < 0.1)
        if free[here].mean() < 0.95 or (dig and np.percentile(layers.ground[window][here], 90) > level + 6.0):
            continue
        height = level if dig else level + 1.5 + 0.2 * np.hypot(u, v)[here] / long
        layers.ground[window][here] = height
        layers.surface[window][here] = height
        bare(layers, window, here, 0.25, rng)
        layers.building[window][here] = 0
        if dig:
            layers.classes[window][here] = WATER
            layers.albedo[window][here] = 0.03
        busy.append((float(x), float(y)))
        events.append(event_of(kind, (ellipse(float(x), float(y), turn, long, short),), layers, base, window, here))
        return
