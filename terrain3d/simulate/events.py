"""A second epoch: buildings built and pulled down, a landslide, a felled wood, and the truth about each."""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, pi, sin

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.simulate.buildings import Building, distance, draw_building, place, raise_building
from terrain3d.simulate.layers import BUILDING, GROUND, TREE, Layers, Window
from terrain3d.simulate.noise import fractal, smoothstep
from terrain3d.simulate.world import World, world_of

Polygon = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Event:
    """What changed at one place.

    kind: new_building, demolished_building, landslide_source, landslide_deposit, felled; and those of ``further``.
    outline: polygons (x, y) in the world's CRS that hold the change; wings of a building overlap.
    area_m2: cells whose surface or class changed. mean_dz, volume_m3: of the surface (DSM) over that area, after minus
    before. ground_volume_m3: the same of the bare earth (DTM).
    """

    kind: str
    outline: tuple[Polygon, ...]
    area_m2: float
    mean_dz: float
    volume_m3: float
    ground_volume_m3: float


def evolve(world: World, seed: int) -> tuple[World, list[Event]]:
    """The world some months later, and what happened; what the place has no room for (slope, wood) is left out."""
    rng = np.random.default_rng((seed, 2))
    layers = world.layers()
    buildings = list(world.buildings)
    events: list[Event] = []
    area_ha = world.grid.width * world.grid.height * world.grid.resolution**2 / 1e4
    _grow_fields(layers, rng)
    count = max(3, round(area_ha / 7))
    _demolish(layers, world, buildings, min(count, len(buildings) // 4), rng, events)
    _build(layers, world, buildings, count, rng, events)
    _slide(layers, world, rng, events)
    _fell(layers, world, rng, events)
    return world_of(layers, tuple(buildings)), events


def event_of(
    kind: str, outline: tuple[Polygon, ...], layers: Layers, world: World, window: Window, mask: NDArray[np.bool_]
) -> Event:
    """The event of a kind from ``world`` to what the layers hold, over the cells of ``mask`` in a window."""
    dz = (layers.surface[window] - world.surface[window])[mask].astype(np.float64)
    ground = (layers.ground[window] - world.ground[window])[mask].astype(np.float64)
    cell = world.grid.resolution**2
    area = float(mask.sum()) * cell
    return Event(kind, outline, area, float(dz.mean()), float(dz.sum()) * cell, float(ground.sum()) * cell)


def _grow_fields(layers: Layers, rng: np.random.Generator) -> None:
    """Season: open land changes its brightness in broad patches, a little everywhere."""
    patches = fractal(rng, layers.grid.shape, layers.grid.resolution, 90.0, 10.0, 3.0)
    season = np.where(layers.classes == GROUND, (1.0 - layers.road) * 0.10 * patches, 0.03 * patches)
    layers.albedo *= np.clip(1.0 + season, 0.6, 1.5).astype(np.float32)


def bare(layers: Layers, window: Window, mask: NDArray[np.bool_], tone: float, rng: np.random.Generator) -> None:
    """Open soil where something was removed."""
    shape = mask.shape
    grain = 0.14 * fractal(rng, shape, layers.grid.resolution, 6.0, 0.3, 1.8) + 0.05 * rng.standard_normal(shape)
    layers.albedo[window][mask] = np.clip(tone * (1.0 + grain[mask]), 0.03, 0.8)
    layers.classes[window][mask] = GROUND


def _demolish(
    layers: Layers, world: World, buildings: list[Building], count: int, rng: np.random.Generator, events: list[Event]
) -> None:
    for index in rng.permutation(len(buildings))[:count]:
        house = buildings[int(index)]
        x, y, radius = house.reach
        window = layers.window(x, y, radius + 1.0)
        if window is None:
            continue
        mask = layers.building[window] == int(index) + 1
        layers.surface[window][mask] = layers.ground[window][mask]
        layers.building[window][mask] = 0
        bare(layers, window, mask, 0.2, rng)
        events.append(event_of("demolished_building", house.outline(), layers, world, window, mask))


def _build(
    layers: Layers, world: World, buildings: list[Building], count: int, rng: np.random.Generator, events: list[Event]
) -> None:
    """New buildings on free ground, half of them near others and turned as they are, while there is room."""
    west, south, east, north = world.grid.bounds
    built = 0
    for _ in range(400 * count):
        if built == count:
            return
        if world.buildings and rng.random() < 0.5:
            near = world.buildings[int(rng.integers(len(world.buildings)))]
            x, y = near.reach[0] + float(rng.normal(0, 45)), near.reach[1] + float(rng.normal(0, 45))
            axis = near.axis_rad
        else:
            x, y, axis = float(rng.uniform(west, east)), float(rng.uniform(south, north)), float(rng.uniform(0, pi))
        house = draw_building(x, y, axis, (float(rng.uniform(14, 30)), float(rng.uniform(14, 24))), rng)
        radius = house.reach[2]
        window = layers.window(x, y, radius + 9.0)
        # a site that was built on in the first epoch would be a change of two kinds
        if window is None or (world.classes[window] == BUILDING)[distance(layers, house, window) < 3.0].any():
            continue
        placed = place(layers, house)
        if placed is None:
            continue
        buildings.append(placed)
        raise_building(layers, placed, len(buildings), rng)
        mask = layers.building[window] == len(buildings)
        around = (np.abs(layers.ground[window] - world.ground[window]) > 0.02) & ~mask
        bare(layers, window, around & (layers.classes[window] == GROUND), 0.24, rng)
        events.append(event_of("new_building", placed.outline(), layers, world, window, mask))
        built += 1


def ellipse(x: float, y: float, angle: float, long: float, short: float) -> Polygon:
    """Ellipse about (x, y), its long half axis turned by ``angle`` from east."""
    t = np.linspace(0, 2 * pi, 48, endpoint=False)
    px = x + long * np.cos(t) * cos(angle) - short * np.sin(t) * sin(angle)
    py = y + long * np.cos(t) * sin(angle) + short * np.sin(t) * cos(angle)
    return tuple((float(a), float(b)) for a, b in zip(px, py, strict=True))


def _slide(layers: Layers, world: World, rng: np.random.Generator, events: list[Event]) -> None:
    """A landslide on the steepest open or wooded slope: a scar, and below it a tongue of the same volume."""
    size = min(world.grid.width, world.grid.height) * world.grid.resolution
    length = float(np.clip(0.075 * size, 16.0, 60.0))
    step = 16
    coarse = cv2.GaussianBlur(layers.ground, (0, 0), 5.0 / world.grid.resolution)[::step, ::step]
    gy, gx = np.gradient(coarse, step * world.grid.resolution)
    busy = ((layers.classes == BUILDING) | (layers.road > 0.1) | (layers.classes > BUILDING)).astype(np.uint8)
    reach = 2 * int(1.5 * length / (step * world.grid.resolution)) + 1
    clear = cv2.dilate(busy[::step, ::step], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))) == 0
    rim = reach // 2 + 1
    clear[:rim], clear[-rim:], clear[:, :rim], clear[:, -rim:] = False, False, False, False
    # open slopes first: there the volume of the surface is that of the ground
    wooded = cv2.blur((layers.classes == TREE).astype(np.float32)[::step, ::step], (reach, reach))
    slope = np.where(clear, np.minimum(np.hypot(gx, gy), 0.6) * (1.0 - 0.8 * wooded), 0.0)
    if slope.max() < 0.02:
        return
    row, column = np.unravel_index(int(slope.argmax()), slope.shape)
    x = world.grid.west + (column * step + 0.5) * world.grid.resolution
    y = world.grid.north - (row * step + 0.5) * world.grid.resolution
    down = atan2(gy[row, column], -gx[row, column])
    window = layers.window(x, y, 1.5 * length)
    if window is None:
        return
    depth = 2.5 + 0.03 * length
    rough = fractal(rng, layers.ground[window].shape, world.grid.resolution, 12.0, 0.6, 2.6)
    change = np.zeros_like(rough)
    parts = (("landslide_source", -0.62, 0.62, 0.42, -depth), ("landslide_deposit", 0.72, 0.72, 0.55, depth))
    bodies = []
    for kind, offset, long, short, peak in parts:
        cx, cy = x + offset * length * cos(down), y + offset * length * sin(down)
        px, py = layers.coordinates(window)
        a = ((px - cx) * cos(down) + (py - cy) * sin(down)) / (long * length)
        b = (-(px - cx) * sin(down) + (py - cy) * cos(down)) / (short * length)
        body = np.clip(1.0 - a * a - b * b, 0.0, None).astype(np.float32) ** 0.7 * (1.0 + 0.10 * rough)
        body *= peak
        bodies.append((kind, body, ellipse(cx, cy, down, long * length, short * length)))
    balance = -float(bodies[0][1].sum()) / float(bodies[1][1].sum())
    for kind, body, _ in bodies:
        change += body * (balance if kind == "landslide_deposit" else 1.0)
    moved = np.abs(change) > 0.05
    layers.ground[window][moved] += change[moved]
    layers.surface[window][moved] = layers.ground[window][moved]
    bare(layers, window, moved, 0.27, rng)
    for kind, body, outline in bodies:
        events.append(event_of(kind, (outline,), layers, world, window, moved & (np.abs(body) > 0)))


def _fell(layers: Layers, world: World, rng: np.random.Generator, events: list[Event]) -> None:
    """A patch of the densest wood is cut: brush and stumps remain."""
    cell = world.grid.resolution
    size = min(world.grid.width, world.grid.height) * cell
    long, short = float(np.clip(0.08 * size, 14.0, 60.0)), float(np.clip(0.055 * size, 10.0, 42.0))
    step = 16
    wood = (layers.classes == TREE).astype(np.float32)[::step, ::step]
    cover = cv2.blur(wood, (2 * int(short / (step * cell)) + 1,) * 2)
    rim = int(1.1 * long / (step * cell)) + 1
    inner = cover[rim:-rim, rim:-rim]
    if inner.size == 0 or inner.max() < 0.5:
        return
    choices = np.argwhere(inner > 0.97 * inner.max())
    row, column = choices[int(rng.integers(len(choices)))] + rim
    x = world.grid.west + (column * step + 0.5) * cell
    y = world.grid.north - (row * step + 0.5) * cell
    window = layers.window(x, y, long)
    if window is None:
        return
    angle = float(rng.uniform(0, pi))
    px, py = layers.coordinates(window)
    a = ((px - x) * cos(angle) + (py - y) * sin(angle)) / long
    b = (-(px - x) * sin(angle) + (py - y) * cos(angle)) / short
    mask = (a * a + b * b < 1.0) & (layers.classes[window] == TREE)
    brush = smoothstep(fractal(rng, mask.shape, cell, 4.0, 0.5, 2.2), 0.5, 2.0) * np.float32(0.6)
    layers.surface[window][mask] = (layers.ground[window] + brush)[mask]
    bare(layers, window, mask, 0.16, rng)
    events.append(event_of("felled", (ellipse(x, y, angle, long, short),), layers, world, window, mask))
