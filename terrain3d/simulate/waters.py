"""Waters of a world besides its level river: a fall of the river, lakes, streams, a sea; and bridges over the river."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.simulate.landscape import Plan
from terrain3d.simulate.layers import BRIDGE, WATER, Layers
from terrain3d.simulate.noise import fractal, smoothstep

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]

_STEEPEST = 0.03  # m/m of a stream
_BANK, _BLEND = 0.5, 16.0  # m that banks stand over the water, m in which they join the land
_DECK_WIDTH, _CLEARANCE, _BACK, _RAMP = 8.0, 3.0, 3.0, 30.0  # m


@dataclass(frozen=True)
class Waters:
    """fall: of the river, and of the land with it, from west to east, m/m. lakes, streams, bridges: how many. sea:
    share of the world's width, in the west, at the height of the river."""

    fall: float = 0.0
    lakes: int = 0
    streams: int = 0
    bridges: int = 0
    sea: float = 0.0


def add_waters(layers: Layers, plan: Plan, waters: Waters, rng: np.random.Generator) -> Plan:
    """Put the waters into bare land. The plan has the distance from the nearest of them afterwards."""
    cell, away = layers.grid.resolution, plan.river
    x = ((np.arange(layers.grid.width) + 0.5) * cell).astype(np.float32)
    layers.ground -= np.float32(waters.fall) * x[None, :]
    if waters.sea > 0:
        away = np.minimum(away, _sea(layers, waters.sea, away, rng))
    for _ in range(waters.lakes):
        away = np.minimum(away, _lake(layers, away, rng))
    for _ in range(waters.streams):
        away = np.minimum(away, _stream(layers, plan.river, away, rng))
    wet = away <= 0
    layers.classes[wet] = WATER
    layers.road *= (away > 2.0).astype(np.float32)
    layers.surface[:] = layers.ground
    for k in range(waters.bridges):
        _bridge(layers, plan.river, (k + 0.5 + float(rng.uniform(-0.2, 0.2))) / waters.bridges)
    return replace(plan, river=away.astype(np.float32), town=plan.town * smoothstep(away.astype(np.float32), 6.0, 12.0))


def _shores(layers: Layers, wet: Bools, level: Singles | np.float32, others: Bools) -> Singles:
    """Lay the water and its banks into the ground, but for where there are other waters; distance (m) from its edge,
    negative on it. level: (h, w) or one."""
    cell = layers.grid.resolution
    outside, inside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5) * cell for m in (~wet, wet))
    away = np.where(wet, -inside, outside).astype(np.float32)
    bank = level + _BANK * smoothstep(away, 0.0, 2.0)
    blended = bank + (np.maximum(layers.ground, bank) - bank) * smoothstep(away, 1.0, _BLEND)
    laid = np.where(wet, level, np.where(away < _BLEND, blended, layers.ground))
    layers.ground[:] = np.where(others, layers.ground, laid)
    return away


def _lake(layers: Layers, away: Singles, rng: np.random.Generator) -> Singles:
    """A lake on even ground, some 20 to 40 m in radius."""
    grid, cell = layers.grid, layers.grid.resolution
    size = grid.width * cell
    best, found = np.inf, (0.5, 0.5)
    for _ in range(300):
        at = rng.uniform(0.18, 0.82, 2)
        row, column = (at * (grid.height, grid.width)).astype(int)
        near = np.s_[max(row - 200, 0) : row + 200 : 8, max(column - 200, 0) : column + 200 : 8]
        if away[near].min() > 8.0 and np.ptp(layers.ground[near]) < best:
            best, found = float(np.ptp(layers.ground[near])), (float(at[0]), float(at[1]))
    y, x = np.mgrid[0 : grid.height, 0 : grid.width].astype(np.float32) * np.float32(cell)
    radius = float(rng.uniform(0.055, 0.085)) * min(size, 480.0)
    rho = np.hypot(y - found[0] * size, (x - found[1] * size) / float(rng.uniform(1.0, 1.6))) / radius
    wet = rho + 0.12 * fractal(rng, grid.shape, cell, 40.0, 6.0, 3.5) < 1.0
    _, label, stats, _ = cv2.connectedComponentsWithStats(wet.astype(np.uint8))
    wet = label == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    rim = cv2.dilate(wet.astype(np.uint8), np.ones((9, 9))) > 0
    return _shores(layers, wet, np.float32(layers.ground[rim].min() - _BANK), away <= 0)


def _stream(layers: Layers, river: Singles, away: Singles, rng: np.random.Generator) -> Singles:
    """A stream of 3 to 9 m from the northern rim down to the river, falling all the way."""
    grid, cell = layers.grid, layers.grid.resolution
    rows = np.arange(grid.height)
    size = grid.width * cell
    spots = rng.uniform(0.15, 0.85, 40)
    start = max(spots, key=lambda s: float(away[: grid.height // 4, int(s * grid.width)].min()))
    phase, along = rng.uniform(0, 2 * np.pi), rows * cell
    course = start * size + 0.03 * size * np.sin(along / 38.0 + phase) + 0.012 * size * np.sin(along / 15.0)
    column = np.clip((course / cell).astype(int), 0, grid.width - 1)
    end = int(np.argmax(river[rows, column] <= 0))  # the river's edge
    bed = layers.ground[rows[:end], column[:end]] - np.float32(_BANK)
    mouth = layers.ground[rows[end], column[end]]
    steps = np.hypot(np.diff(course[: end + 1]), cell)  # upstream from the mouth
    up = np.cumsum(steps[::-1])[::-1]
    level = np.minimum(np.minimum.accumulate(bed), mouth + _STEEPEST * up.astype(np.float32))
    level = np.maximum(level, mouth)
    line = np.ones(grid.shape, np.uint8)
    line[rows[:end], column[:end]] = 0
    distance, label = cv2.distanceTransformWithLabels(line, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    levels = np.zeros(int(label.max()) + 1, np.float32)
    levels[label[rows[:end], column[:end]]] = level
    half = float(rng.uniform(1.5, 4.5))
    wet = (distance * cell < half) & (away > 0)
    return _shores(layers, wet, levels[label], away <= 0)


def _sea(layers: Layers, share: float, away: Singles, rng: np.random.Generator) -> Singles:
    """A coast with bays; the sea is as high as the lowest land."""
    grid, cell = layers.grid, layers.grid.resolution
    size = grid.width * cell
    y, x = np.mgrid[0 : grid.height, 0 : grid.width].astype(np.float32) * np.float32(cell)
    coast = share * size + 0.05 * size * np.sin(y / (0.13 * size) + float(rng.uniform(0, 6)))
    wet = x < coast + 4.0 * fractal(rng, grid.shape, cell, 60.0, 4.0, 3.2)
    return _shores(layers, wet, np.float32(layers.ground.min()), away <= 0)


def _bridge(layers: Layers, river: Singles, where: float) -> None:
    """A level deck from bank to bank, on ramps of earth that end some metres before the water."""
    cell = layers.grid.resolution
    middle, half = int(where * layers.grid.width), int(_DECK_WIDTH / 2 / cell)
    columns = slice(max(middle - half, 0), middle + half)
    wet = np.flatnonzero(river[:, middle] <= 0)
    if wet.size == 0:
        return
    deck = float(layers.ground[wet, middle].max()) + _CLEARANCE
    rows = np.arange(layers.grid.height)
    off = np.maximum(wet[0] - rows, rows - wet[-1]) * cell  # from the water, along the road
    span = off < _BACK
    ramp = np.asarray(~span & (off < _RAMP))
    rise = smoothstep(-off.astype(np.float32), -_RAMP, -_BACK - 6.0)[:, None]
    ground = layers.ground[:, columns]
    ground[ramp] += (np.maximum(np.float32(deck) - ground, 0) * rise)[ramp]
    layers.surface[:, columns] = np.where(span[:, None], np.float32(deck), ground)
    layers.classes[span, columns] = BRIDGE
    layers.road[off < _RAMP, columns] = 1.0
