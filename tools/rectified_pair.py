"""Synthetic rectified pairs whose disparity is known exactly: smooth ground, boxes on it, and what a sensor adds.

Ground and boxes are laid out in a middle view that lies half a disparity from both images, so neither image is a
resampled copy of the other, both have their own occlusions, and the nearer surface hides the farther one in both.

Disparity d: left column x and right column x - d show the same point.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Singles = NDArray[np.float32]
Floats = NDArray[np.float64]
FINE = 3  # columns of the scene to a pixel; odd, so that one lies at its centre
BLUR_PX = 0.45  # deviation of the optics' point spread
SAME_SURFACE_PX = 0.6


@dataclass(frozen=True)
class Box:
    """A flat or tilted top over a rectangle of the middle view: first and last row and column (px, exclusive).

    disparity: at its centre. slope_x, slope_y: change of disparity per px. brightness: mean radiance of its texture.
    """

    top: float
    left: float
    bottom: float
    right: float
    disparity: float
    slope_x: float = 0.0
    slope_y: float = 0.0
    brightness: float = 0.3


@dataclass(frozen=True)
class Pair:
    """left, right: (h, w) radiance. disparity: (h, w) of the left pixels' centres. visible: in both images."""

    left: Singles
    right: Singles
    disparity: Singles
    visible: NDArray[np.bool_]


def texture(rng: np.random.Generator, height: int, width: int, *, roughness: float = 1.0) -> Singles:
    """Zero mean, unit deviation, on fine columns (height, width * FINE): details from a pixel to some tens.

    roughness: power of the finest details against the coarse ones.
    """
    out = np.zeros((height, width * FINE), np.float32)
    for sigma, weight in ((0.6, roughness), (1.3, roughness), (3.0, 0.8), (8.0, 0.8)):
        noise = rng.standard_normal(out.shape, dtype=np.float32)
        part = cv2.GaussianBlur(noise, (0, 0), sigmaX=sigma * FINE, sigmaY=sigma)
        out += weight * part / part.std()
    return np.asarray((out - out.mean()) / out.std(), np.float32)


def smooth_field(rng: np.random.Generator, height: int, width: int, sigma_px: float) -> Singles:
    """Smooth random field from 0 to 1 on fine columns (height, width * FINE)."""
    small = max(1, int(sigma_px / 4))
    noise = rng.standard_normal((height // small + 8, width // small + 8)).astype(np.float32)
    field = cv2.GaussianBlur(noise, (0, 0), sigma_px / small)
    field = cv2.resize(field, (width * FINE, height), interpolation=cv2.INTER_LINEAR)
    field = cv2.GaussianBlur(field, (0, 0), sigmaX=small * FINE, sigmaY=small)
    return np.asarray((field - field.min()) / np.ptp(field), np.float32)


def render(
    disparity: Singles, ground: Singles, margin: int, boxes: list[Box] | None = None, roofs: Singles | None = None
) -> Pair:
    """Both images (h, w) of a scene.

    disparity, ground: (h, (w + 2 margin) FINE) disparity and radiance of the ground in the middle view. margin: px, at
    least half of the largest disparity. roofs: texture of the boxes relative to their brightness, of the same shape.
    The ground may not hide itself: its disparity changes by less than 2 a px.
    """
    width = disparity.shape[1] // FINE - 2 * margin
    left, d_left = _view(0.5, disparity, ground, boxes or [], roofs, margin, width)
    right, d_right = _view(-0.5, disparity, ground, boxes or [], roofs, margin, width)
    centre = d_left[:, FINE // 2 :: FINE]
    at = np.rint((np.arange(width) - centre + 0.5) * FINE - 0.5).astype(np.int64)
    inside = (at >= FINE) & (at < (width - 1) * FINE)
    seen = np.take_along_axis(d_right, np.clip(at, 0, width * FINE - 1), axis=1)
    return Pair(_pixels(left), _pixels(right), centre.copy(), inside & (np.abs(seen - centre) < SAME_SURFACE_PX))


def expose(
    radiance: Singles, rng: np.random.Generator, *, gain: float = 2600.0, offset: float = 110.0, gamma: float = 1.0,
    noise: float = 1.0,
) -> Singles:  # fmt: skip
    """Digital numbers up to 4095: shot and read noise of a satellite sensor, times ``noise``."""
    dn = gain * np.maximum(radiance, 0) ** gamma + offset
    dn = dn + noise * rng.standard_normal(dn.shape, dtype=np.float32) * np.sqrt(0.06 * dn + 2.5**2)
    return np.clip(np.rint(dn), 1, 4095).astype(np.float32)


def _view(
    side: float, disparity: Singles, ground: Singles, boxes: list[Box], roofs: Singles | None, margin: int, width: int
) -> tuple[Singles, Singles]:
    """Radiance and disparity (h, width * FINE) seen from ``side`` disparities off the middle view."""
    height = disparity.shape[0]
    every = np.arange(height)[:, None]
    x = (np.arange(width * FINE) + 0.5) / FINE - 0.5
    middle = np.broadcast_to(x, (height, len(x)))
    for _ in range(12):  # x = middle + side * d(middle), a contraction for ground that hides nothing
        middle = x - side * _linear(disparity, every, middle + margin)
    depth = _linear(disparity, every, middle + margin)
    image = _cubic(ground, every, middle + margin)
    for box in boxes:
        rows = np.arange(max(int(np.ceil(box.top)), 0), min(int(np.ceil(box.bottom)), height))[:, None]
        rise = box.disparity + box.slope_y * (rows - (box.top + box.bottom) / 2)
        centre = (box.left + box.right) / 2
        m = (x - side * (rise - box.slope_x * centre)) / (1 + side * box.slope_x)
        d = rise + box.slope_x * (m - centre)
        r, c = np.nonzero((m >= box.left) & (m < box.right) & (d > depth[rows[:, 0]]))
        line = rows[r, 0]
        depth[line, c] = d[r, c]
        image[line, c] = box.brightness * (1 + (0 if roofs is None else _cubic(roofs, line, m[r, c] + margin)))
    return image.astype(np.float32), depth.astype(np.float32)


def _place(values: Singles, column: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Fine column left of a position in px, and the fraction beyond it; positions are held inside."""
    place = np.clip((column + 0.5) * FINE - 0.5, 1, values.shape[1] - 2.001)
    whole = place.astype(np.int64)
    return whole, place - whole


def _linear(values: Singles, row: NDArray[np.int64], column: Floats) -> Floats:
    i, t = _place(values, column)
    return np.asarray(values[row, i] * (1 - t) + values[row, i + 1] * t)


def _cubic(values: Singles, row: NDArray[np.int64], column: Floats) -> Floats:
    """Cubic convolution along rows (Keys 1981)."""
    i, t = _place(values, column)
    out = values[row, i - 1] * (t * (-0.5 + t * (1 - 0.5 * t)))
    out += values[row, i] * (1 + t * t * (1.5 * t - 2.5))
    out += values[row, i + 1] * (t * (0.5 + t * (2 - 1.5 * t)))
    return np.asarray(out + values[row, i + 2] * (t * t * (0.5 * t - 0.5)))


def _pixels(fine: Singles) -> Singles:
    """What the sensor's pixels collect of fine columns, through its optics."""
    blurred = cv2.GaussianBlur(fine, (0, 0), sigmaX=BLUR_PX * FINE, sigmaY=BLUR_PX)
    return blurred.reshape(fine.shape[0], -1, FINE).mean(axis=2)
