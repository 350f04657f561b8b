"""SIFT key points of an image, tile by tile, spread evenly and bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.image.view import View
from terrain3d.io.images import read_window

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

TILE_PX = 1024  # of the image; detection works at half of its resolution, where SIFT is quick and as repeatable
CELL_PX = 32  # of the halved image
PER_CELL = 8
MAX_TILES = 16
_OVERLAP_PX = 32


@dataclass(frozen=True)
class Keypoints:
    """line, sample: (N,) px. descriptor: (N, 128) float32 root-SIFT (Arandjelovic & Zisserman 2012), unit length."""

    line: Floats
    sample: Floats
    descriptor: Singles

    def __len__(self) -> int:
        return len(self.line)


def find_keypoints(view: View, threads: int = 1) -> Keypoints:
    """Key points on at most MAX_TILES evenly spread tiles; within a tile the strongest of every cell."""
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda tile: _tile_keypoints(view, *tile), _tiles(*view.image.shape)))
    return Keypoints(
        np.concatenate([p.line for p in parts]),
        np.concatenate([p.sample for p in parts]),
        np.concatenate([p.descriptor for p in parts]),
    )


def _tiles(height: int, width: int) -> list[tuple[int, int]]:
    rows, columns = -(-height // TILE_PX), -(-width // TILE_PX)
    keep = min(1.0, (MAX_TILES / (rows * columns)) ** 0.5)
    return [(r, c) for r in _places(height, rows * keep) for c in _places(width, columns * keep)]


def _places(size: int, n: float) -> list[int]:
    return [int(p) for p in np.linspace(0, max(size - TILE_PX, 0), max(1, round(n)))]


def to_bytes(image: Singles) -> NDArray[np.uint8]:
    """Stretch between the 0.5 and 99.5 percentiles to 8 bits; NaN becomes 0."""
    valid = image[np.isfinite(image)]
    if valid.size == 0:
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(valid[:: max(1, valid.size // 100_000)], [0.5, 99.5])
    scaled = (np.nan_to_num(image, nan=low) - low) * (255 / max(high - low, 1e-6))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _tile_keypoints(view: View, row: int, column: int) -> Keypoints:
    row, column = row - _OVERLAP_PX, column - _OVERLAP_PX
    full = read_window(view.image, row, column, TILE_PX + 2 * _OVERLAP_PX, TILE_PX + 2 * _OVERLAP_PX)
    image = 0.25 * (full[::2, ::2] + full[1::2, ::2] + full[::2, 1::2] + full[1::2, 1::2])
    usable = cv2.erode(np.isfinite(image).astype(np.uint8), np.ones((9, 9), np.uint8))
    pixels = to_bytes(image)
    # without the precise upscale every key point lies a quarter of a (halved) pixel off
    detector = cv2.SIFT_create(contrastThreshold=0.012, edgeThreshold=12, enable_precise_upscale=True)
    found = detector.detect(pixels, usable)
    chosen = _strongest(found)
    if len(chosen) == 0:
        return Keypoints(np.empty(0), np.empty(0), np.empty((0, 128), np.float32))
    kept, descriptor = detector.compute(pixels, [found[i] for i in chosen])
    place = np.array([k.pt for k in kept], float)
    descriptor = np.sqrt(descriptor / np.maximum(descriptor.sum(axis=1, keepdims=True), 1e-6))
    # centre of halved pixel p is 2 p + 0.5 of the full one
    return Keypoints(2 * place[:, 1] + 0.5 + row, 2 * place[:, 0] + 0.5 + column, descriptor.astype(np.float32))


def _strongest(found: Sequence[cv2.KeyPoint]) -> NDArray[np.int64]:
    """Indices of the PER_CELL strongest key points of every cell inside the tile proper."""
    place = np.array([k.pt for k in found], float).reshape(-1, 2) - _OVERLAP_PX / 2
    inner = np.all((place >= 0) & (place < TILE_PX / 2), axis=1)
    cell = (place[:, 1] // CELL_PX).astype(int) * 1000 + (place[:, 0] // CELL_PX).astype(int)
    order = np.lexsort((-np.array([k.response for k in found]), cell))
    order = order[inner[order]]
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return np.asarray(order[rank < PER_CELL])
