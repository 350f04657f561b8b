"""Pictures of rasters as uint8 RGB arrays (height, width, 3), and PNG of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
NO_VALUE: Colour = (236, 236, 240)
INK: Colour = (40, 44, 52)
DISC_PX = 4  # radius of a marked place
TICKS = 5  # numbers beside a colour bar
# Anchors of the palettes, evenly spaced from low to high.
RELIEF = (
    (35, 99, 74),
    (108, 153, 88),
    (190, 195, 118),
    (222, 197, 130),
    (191, 146, 97),
    (143, 103, 82),
    (240, 240, 240),
)
DIVERGING = (
    (33, 74, 140),
    (84, 139, 193),
    (170, 204, 227),
    (247, 247, 247),
    (244, 182, 151),
    (209, 96, 81),
    (140, 20, 40),
)
SEQUENTIAL = ((248, 248, 238), (199, 226, 182), (120, 192, 144), (52, 146, 130), (30, 96, 110), (28, 46, 82))
# Azimuths and weights of light of the multidirectional hillshade (Mark 1992, USGS OFR 92-422, without its aspect term)
LIGHTS = ((315.0, 0.4), (270.0, 0.25), (360.0, 0.2), (225.0, 0.15))
ALTITUDE_DEG = 45.0  # of that light


def shaded(heights: NDArray[Any], resolution: float, *, azimuth_deg: float | None = None) -> Picture:
    """Shaded relief of a north-up height raster, NaN pale. Light from ``azimuth_deg``, or from four sides if None."""
    z = np.asarray(heights, np.float32)
    slope_row, slope_column = (_slope(z, axis) * np.float32(1 / resolution) for axis in (0, 1))
    lights = LIGHTS if azimuth_deg is None else ((azimuth_deg, 1.0),)
    length = np.sqrt(1 + slope_row**2 + slope_column**2)
    up = np.sin(np.radians(ALTITUDE_DEG))
    shade = np.zeros(z.shape, np.float32)
    for azimuth, weight in lights:
        east = np.cos(np.radians(ALTITUDE_DEG)) * np.sin(np.radians(azimuth))
        north = np.cos(np.radians(ALTITUDE_DEG)) * np.cos(np.radians(azimuth))
        # the normal is (-dz/dx, -dz/dy, 1); rows run south, so dz/dy = -slope_row
        shade += np.float32(weight) * np.clip((-slope_column * east + slope_row * north + up) / length, 0, 1)
    return _grey_to_picture(np.where(np.isfinite(z), shade, np.nan))


def _slope(z: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Mean of the differences to the neighbours before and after, of those that have a value; 0 where none has."""
    step = np.diff(z, axis=axis)
    ends = [(0, 0), (0, 0)]
    before, after = list(ends), list(ends)
    before[axis], after[axis] = (1, 0), (0, 1)
    both = np.stack([np.pad(step, before, constant_values=np.nan), np.pad(step, after, constant_values=np.nan)])
    known = np.isfinite(both)
    total = np.where(known, both, 0).sum(axis=0, dtype=np.float32)
    return np.asarray(total / np.maximum(known.sum(axis=0), 1), np.float32)


def _grey_to_picture(values: NDArray[Any]) -> Picture:
    grey = np.nan_to_num(np.clip(values, 0, 1) * 255).astype(np.uint8)
    out = np.repeat(grey[:, :, None], 3, axis=2)
    out[~np.isfinite(values)] = NO_VALUE
    return out


def colour(values: NDArray[Any], low: float, high: float, palette: tuple[Colour, ...] = SEQUENTIAL) -> Picture:
    """Values to the colours of a palette, clipped to low..high, NaN pale."""
    v = np.asarray(values, np.float32)
    position = np.clip((v - low) / max(high - low, 1e-9), 0, 1)
    index = np.nan_to_num(position * 255).astype(np.uint8)
    anchors = np.array(palette, float)
    places = np.linspace(0, 255, len(palette))
    table = np.stack([np.interp(np.arange(256), places, anchors[:, c]) for c in range(3)], axis=1)
    out = np.rint(table).astype(np.uint8)[index]
    out[~np.isfinite(v)] = NO_VALUE
    return out


def relief(heights: NDArray[Any], resolution: float) -> Picture:
    """Heights in colour, from the 1st to the 99th percentile, under a multidirectional hillshade."""
    low, high = limits(heights)
    tint = colour(heights, low, high, RELIEF).astype(np.float32)
    shade = shaded(heights, resolution).astype(np.float32) / 255
    out = np.clip(tint * (0.35 + 0.85 * shade), 0, 255).astype(np.uint8)
    out[~np.isfinite(heights)] = NO_VALUE
    return out


def difference(values: NDArray[Any], limit: float | None = None) -> Picture:
    """Differences in metres in blue (negative), white (none) and red (positive), symmetric about 0, with a colour bar.

    limit: value of the strongest colours; the 98th percentile of the absolute values if None.
    """
    if limit is None:
        known = np.abs(values[np.isfinite(values)])
        limit = max(float(np.percentile(known, 98)), 0.1) if known.size else 1.0
    return with_bar(colour(values, -limit, limit, DIVERGING), DIVERGING, -limit, limit)


def marked(picture: Picture, column: NDArray[Any], row: NDArray[Any], colours: Picture) -> Picture:
    """Picture with discs at places (in its pixels), each in its colour of ``colours`` (N, 1, 3)."""
    out = np.ascontiguousarray(picture).copy()
    for c, r, rgb in zip(column, row, colours.reshape(-1, 3).tolist(), strict=True):
        at = round(float(c)), round(float(r))
        cv2.circle(out, at, DISC_PX + 1, INK, -1, cv2.LINE_AA)
        cv2.circle(out, at, DISC_PX, rgb, -1, cv2.LINE_AA)
    return out


def limits(values: NDArray[Any], low_percent: float = 1.0, high_percent: float = 99.0) -> tuple[float, float]:
    """Percentiles of the finite values, (0, 1) if there are none."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = np.percentile(known, (low_percent, high_percent))
    return float(low), float(max(high, low + 1e-6))


def grey(values: NDArray[Any]) -> Picture:
    """An image stretched between its 2nd and 98th percentile; NaN pale. (h, w), or (3, h, w) for colour."""
    if values.ndim == 3:
        return np.stack([grey(band)[:, :, 0] for band in values[:3]], axis=2)
    low, high = limits(values, 2.0, 98.0)
    return _grey_to_picture((values.astype(np.float32) - low) / (high - low))


def classes(values: NDArray[Any], colours: Mapping[int, Colour]) -> Picture:
    """Class codes in the given colours; codes that are not given are pale."""
    out = np.full((*values.shape, 3), NO_VALUE, np.uint8)
    for code, rgb in colours.items():
        out[values == code] = rgb
    return out


def with_bar(picture: Picture, palette: tuple[Colour, ...], low: float, high: float, *, unit: str = "m") -> Picture:
    """Picture with a colour bar and its numbers at the right."""
    height = max(picture.shape[0], 120)
    scale = np.clip(height / 600, 0.8, 3.0)
    bar_width, text_width, pad = round(16 * scale), round(66 * scale), round(8 * scale)
    out = np.full((height, picture.shape[1] + 2 * pad + bar_width + text_width, 3), 255, np.uint8)
    out[: picture.shape[0], : picture.shape[1]] = picture
    top, bottom, left = pad + 6, height - pad - 7, picture.shape[1] + pad
    ramp = np.repeat(np.linspace(high, low, bottom - top + 1)[:, None], bar_width, axis=1)
    out[top : bottom + 1, left : left + bar_width] = colour(ramp, low, high, palette)
    digits = int(np.clip(2 - np.floor(np.log10(max(high - low, 1e-9))), 0, 3))
    for value, y in zip(np.linspace(high, low, TICKS), np.linspace(top, bottom, TICKS), strict=True):
        text, at = f"{value:.{digits}f} {unit}", (left + bar_width + pad // 2, round(y + 4 * scale))
        cv2.putText(out, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * scale, INK, max(round(scale * 0.9), 1), cv2.LINE_AA)
    return out


def shrink(values: NDArray[Any], size: int) -> tuple[NDArray[np.float32], int]:
    """Mean of blocks of a (height, width) raster so that no side is over ``size``, and the step; NaN left out."""
    step = max(-(-max(values.shape) // size), 1)
    v = np.asarray(values, np.float32)
    if step == 1:
        return v, 1
    rows, columns = v.shape[0] // step or 1, v.shape[1] // step or 1
    blocks = v[: rows * step, : columns * step].reshape(rows, min(step, v.shape[0]), columns, min(step, v.shape[1]))
    known = np.isfinite(blocks)
    count = known.sum(axis=(1, 3))
    total = np.where(known, blocks, 0).sum(axis=(1, 3))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32), step


def png(picture: Picture) -> bytes:
    """PNG file of a picture."""
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_PNG_COMPRESSION, 4])
    if not done:
        raise ValueError(f"no PNG of an array {picture.shape}")
    return bytes(data)
