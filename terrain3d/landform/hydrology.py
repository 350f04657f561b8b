"""Terrain from which all water runs off: depressions are breached where a short cut does it, else filled.

Breaching is along the way of least cost (Lindsay and Dhun 2015, Modelling surface drainage patterns in altered
landscapes using LiDAR, IJGIS 29(3)), filling by priority flood with a gradient (Barnes, Lehman and Mulla 2014,
Computers and Geosciences 62). Afterwards every cell has a neighbour below it, or is where water leaves: at the border
or beside a cell without value.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_DOWN = (-1, -1, -1, 0, 0, 1, 1, 1)
_RIGHT = (-1, 0, 1, -1, 1, -1, 0, 1)


@dataclass(frozen=True)
class Conditioned:
    """heights: (h, w), NaN as before. breached, filled: number of cells lowered and raised."""

    heights: Singles
    breached: int
    filled: int


def condition(heights: Singles, resolution: float, max_length: float = 50.0, max_depth: float = 5.0) -> Conditioned:
    """Heights (h, w) metres without depressions; see ``drain``."""
    before = np.asarray(heights, np.float32)
    z = np.array(before, order="C")
    drain(z, np.zeros(z.shape, np.bool_), resolution, max_length, max_depth)
    return Conditioned(z, int((z < before).sum()), int((z > before).sum()))


def drain(z: Singles, marks: Bools, resolution: float, max_length: float = 50.0, max_depth: float = 5.0) -> None:
    """Take the depressions from heights (h, w; metres), in place.

    marks: (h, w) False, to be written to; both may be mapped files, of which no more needs to be in memory than the
    system finds room for. max_length, max_depth: of a breach, metres: about the width of an embankment with a culvert,
    and its height.
    """
    pits = _pits(z, marks)
    levels = z.ravel()[pits]
    reach = max(round(max_length / resolution), 1)
    _breach(z, pits[np.argsort(-levels, kind="stable")], reach, np.float32(max_depth), np.float32(resolution))
    marks[:] = False
    _fill(z, marks)


@njit(**_JIT)
def _pits(z: Singles, seen: Bools) -> NDArray[np.int64]:
    """One cell of every flat (often a single cell) that has nothing lower beside it, nor a void or the border."""
    h, w = z.shape
    found = []
    for start in range(h * w):
        if seen[start // w, start % w] or np.isnan(z[start // w, start % w]):
            continue
        level, pit = z[start // w, start % w], True
        front = [start]
        seen[start // w, start % w] = True
        while len(front) > 0:  # ring by ring, so that of a wide flat only its rim is held
            ahead = [start]
            ahead.pop()
            for at in front:
                i, j = at // w, at % w
                for k in range(8):
                    y, x = i + _DOWN[k], j + _RIGHT[k]
                    if y < 0 or x < 0 or y >= h or x >= w or np.isnan(z[y, x]) or z[y, x] < level:
                        pit = False
                    elif z[y, x] == level and not seen[y, x]:
                        seen[y, x] = True
                        ahead.append(y * w + x)
            front = ahead
        if pit:
            found.append(start)
    return np.array(found, dtype=np.int64)


@njit(**_JIT)
def _breach(z: Singles, pits: NDArray[np.int64], reach: int, max_depth: np.float32, resolution: np.float32) -> None:
    """Cut from every pit, the highest first, to the nearest place below it that a cut within the limits leads to."""
    w = z.shape[1]
    side = 2 * reach + 1
    cost = np.full(side * side, np.float32(np.inf))
    parent = np.zeros(side * side, np.int32)
    stamp = np.zeros(side * side, np.int32)
    for n in range(pits.size):
        row, column = pits[n] // w, pits[n] % w
        if not _drained(z, row, column):
            end = _outlet(z, row, column, reach, max_depth, resolution, cost, parent, stamp, n + 1)
            if end >= 0:
                _cut(z, row, column, reach, parent, end)


@njit(**_JIT)
def _drained(z: Singles, row: int, column: int) -> bool:
    """Whether a pit, which is not on the border, is none any more, by an earlier cut."""
    lower = False
    for k in range(8):
        lower |= z[row + _DOWN[k], column + _RIGHT[k]] < z[row, column]
    return lower


@njit(**_JIT)
def _outlet(
    z: Singles, row: int, column: int, reach: int, max_depth: np.float32, resolution: np.float32,
    cost: Singles, parent: NDArray[np.int32], stamp: NDArray[np.int32], number: int,
) -> int:  # fmt: skip
    """End of the cheapest way out of a pit within the limits, by Dijkstra's search; -1 if there is none.

    Cells are counted in a square of 2 reach + 1 around the pit. cost, parent: of ways to them, where stamp is number.
    """
    h, w = z.shape
    side = 2 * reach + 1
    start = reach * side + reach
    floor = z[row, column]
    heap = [(np.float32(0.0), np.int32(start))]
    cost[start], stamp[start], parent[start] = 0.0, number, -1
    while len(heap) > 0:
        c, at = heappop(heap)
        if c > cost[at]:
            continue
        a, b = at // side, at % side
        i, j = row + a - reach, column + b - reach
        if z[i, j] < floor or ((i == 0 or j == 0 or i == h - 1 or j == w - 1) and z[i, j] <= floor + max_depth):
            return int(at)
        touches = False
        for k in range(8):
            p, q = a + _DOWN[k], b + _RIGHT[k]
            y, x = i + _DOWN[k], j + _RIGHT[k]
            if p < 0 or q < 0 or p >= side or q >= side or y < 0 or x < 0 or y >= h or x >= w:
                continue
            v = z[y, x]
            if np.isnan(v):
                touches = True
                continue
            if v > floor + max_depth:
                continue
            run = np.float32(1.41421356) if _DOWN[k] != 0 and _RIGHT[k] != 0 else np.float32(1.0)
            # what is dug, and a little for the way itself, so that flats are crossed straight
            total = c + run * resolution * (max(v - floor, np.float32(0)) + np.float32(0.001))
            to = p * side + q
            if stamp[to] != number or total < cost[to]:
                stamp[to], cost[to], parent[to] = number, total, at
                heappush(heap, (total, np.int32(to)))
        if touches and at != start:
            return int(at)
    return -1


@njit(**_JIT)
def _cut(z: Singles, row: int, column: int, reach: int, parent: NDArray[np.int32], end: int) -> None:
    """Lower the way from a pit to its outlet, so that it falls evenly."""
    side = 2 * reach + 1
    steps, node = 0, end
    while node >= 0:
        steps += 1
        node = parent[node]
    node, floor = end, z[row, column]
    bottom = min(z[row + end // side - reach, column + end % side - reach], floor)
    fall = (floor - bottom) / max(steps - 1, 1)
    k = 0
    while node >= 0:
        i, j = row + node // side - reach, column + node % side - reach
        z[i, j] = min(z[i, j], bottom + fall * k)
        k += 1
        node = parent[node]


@njit(**_JIT)
def _fill(z: Singles, done: Bools) -> None:
    """Raise cells so that each drains to the border: the least step of a float above the one it drains to."""
    h, w = z.shape
    heap = [(np.float32(0.0), np.int64(-1))]
    heap.pop()
    for i in range(h):
        for j in range(w):
            if np.isnan(z[i, j]):
                done[i, j] = True
                continue
            outlet = i == 0 or j == 0 or i == h - 1 or j == w - 1
            for k in range(8):
                if not outlet and np.isnan(z[i + _DOWN[k], j + _RIGHT[k]]):
                    outlet = True
            if outlet:
                done[i, j] = True
                heappush(heap, (z[i, j], np.int64(i * w + j)))
    while len(heap) > 0:
        level, at = heappop(heap)
        i, j = at // w, at % w
        least = np.nextafter(level, np.float32(np.inf))
        for k in range(8):
            y, x = i + _DOWN[k], j + _RIGHT[k]
            if y < 0 or x < 0 or y >= h or x >= w or done[y, x]:
                continue
            done[y, x] = True
            if z[y, x] < least:
                z[y, x] = least
            heappush(heap, (z[y, x], np.int64(y * w + x)))
