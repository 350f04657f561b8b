"""Colour of a panchromatic image from a coarser multispectral one of the same acquisition: where it lies, and the two
as one image in all bands.

Both are taken from one place within moments, so what lies between them is a smooth map of one image onto the other,
whatever the terrain: that of the two RPCs, moved to where the images agree. The detail of the panchromatic image is
put in by high-pass modulation with a filter matched to the coarser sampling (Vivone et al. 2015, A critical comparison
among pansharpening algorithms, IEEE TGRS 53(5), MTF-GLP-HPM).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, pi, sqrt
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.adjusted import Camera
from terrain3d.errors import ImageError
from terrain3d.io.images import ImageFile, read_bands, read_window

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

_GAIN = 0.3  # of multispectral sensors at the Nyquist frequency of their sampling
_BLUR = sqrt(-2 * log(_GAIN)) / pi  # deviation of the Gaussian with that gain, coarse pixels
_RATIO = (1.5, 16.0)  # sides of a coarse pixel, in fine ones, that make sense
_DETAIL = (0.2, 5.0)  # limits of fine over blurred value
_WINDOWS = 6  # a side, where the images are compared
_SIDE = 64  # coarse pixels a window
_PEAK = 0.25  # response of phase correlation below which a window says nothing
_LEAST = 4  # windows that a shift is believed from
_TURNS = 2


@dataclass(frozen=True)
class Colour:
    """A multispectral image that lies on a panchromatic one. half: half the lines and samples of the latter. line,
    sample: in the multispectral image, coefficients of (1, u, v, u v, u u, v v), u and v being line and sample of the
    other, -1 to 1. ratio: fine pixels in the side of a coarse one. windows: how many the place rests on; 0 for the
    RPCs alone."""

    image: ImageFile
    half: tuple[float, float]
    line: tuple[float, ...]
    sample: tuple[float, ...]
    ratio: float
    windows: int = 0

    def place(self, line: Any, sample: Any) -> tuple[Floats, Floats]:
        """Line and sample in the multispectral image of places in the panchromatic one."""
        terms = _terms(line, sample, self.half)
        return sum(c * t for c, t in zip(self.line, terms, strict=True)), sum(  # type: ignore[return-value]
            c * t for c, t in zip(self.sample, terms, strict=True)
        )


def _terms(line: Any, sample: Any, half: tuple[float, float]) -> tuple[Floats, ...]:
    u = np.asarray(line, float) / half[0] - 1
    v = np.asarray(sample, float) / half[1] - 1
    u, v = np.broadcast_arrays(u, v)
    return np.ones_like(u), u, v, u * v, u * u, v * v


def laid_on(fine: ImageFile, camera: Camera, coarse: ImageFile, coarse_camera: Camera, height: float) -> Colour:
    """The multispectral image laid on the panchromatic one: by both RPCs at a height (m), then by what they show.

    Raises ImageError if the two do not show one place, or are not one coarser than the other.
    """
    half = (fine.height - 1) / 2, (fine.width - 1) / 2
    line, sample = (
        a.ravel() for a in np.meshgrid(np.linspace(0, 2 * half[0], 9), np.linspace(0, 2 * half[1], 9), indexing="ij")
    )
    there = coarse_camera.project(*camera.locate(line, sample, height), height)
    if not np.isfinite(there).all():
        raise ImageError(f"does not show what {fine.path.name} shows, by its RPC", where=coarse.path)
    terms = np.stack(_terms(line, sample, half), axis=1)
    rows, columns = (np.linalg.lstsq(terms, t, rcond=None)[0] for t in there)
    per_pixel = abs(rows[1] * columns[2] - rows[2] * columns[1]) / (half[0] * half[1])
    ratio = float(1 / sqrt(max(per_pixel, 1e-12)))
    if not _RATIO[0] <= ratio <= _RATIO[1]:
        raise ImageError(
            f"has pixels {ratio:.2f} times those of {fine.path.name}", where=coarse.path,
            fix="give as colour the coarser image of the same acquisition",
        )  # fmt: skip
    inside = (there[0] > 0) & (there[0] < coarse.height) & (there[1] > 0) & (there[1] < coarse.width)
    if not inside.any():
        raise ImageError(f"does not show what {fine.path.name} shows, by its RPC", where=coarse.path)
    found = Colour(coarse, half, tuple(rows.tolist()), tuple(columns.tolist()), ratio)
    for _ in range(_TURNS):
        found = _moved(found, fine)
    return found


def _moved(colour: Colour, fine: ImageFile) -> Colour:
    """Laid anew by windows of both images; a shift, or with enough windows an affine map of it."""
    side = ceil(_SIDE * colour.ratio)
    tops, lefts = (np.linspace(0, max(n - side, 0), _WINDOWS).astype(int) for n in fine.shape)
    places, shifts = [], []
    for top in np.unique(tops):
        for left in np.unique(lefts):
            move = _shift(colour, fine, int(top), int(left), side)
            if move is not None:
                places.append((top + side / 2, left + side / 2))
                shifts.append(move)
    if len(shifts) < _LEAST:
        return colour
    d, at = np.array(shifts), np.array(places)
    near = np.hypot(*(d - np.median(d, axis=0)).T) < 3 * max(float(np.median(np.abs(d - np.median(d, axis=0)))), 0.1)
    if near.sum() < _LEAST:
        return colour
    count = 3 if near.sum() >= 12 else 1
    terms = np.stack(_terms(at[near, 0], at[near, 1], colour.half)[:count], axis=1)
    rows, columns = (np.linalg.lstsq(terms, d[near, k], rcond=None)[0] for k in (0, 1))
    line, sample = np.array(colour.line), np.array(colour.sample)
    line[:count] += rows
    sample[:count] += columns
    return Colour(
        colour.image, colour.half, tuple(line.tolist()), tuple(sample.tolist()), colour.ratio, int(near.sum())
    )


def _shift(colour: Colour, fine: ImageFile, top: int, left: int, side: int) -> tuple[float, float] | None:
    """Coarse pixels, lines and samples, to add where a window of the fine image is looked for; None if unclear."""
    pan = read_window(fine, top, left, side, side)
    bands = _laid(colour, top, left, side, side, 0)
    grey = bands.mean(axis=0)
    known = np.isfinite(pan) & np.isfinite(grey)
    if known.mean() < 0.9:
        return None
    a, b = (np.where(known, v, v[known].mean()) for v in (pan, grey))
    size = round(side / colour.ratio)
    a, b = (
        cv2.resize(cv2.GaussianBlur(v, (0, 0), _BLUR * colour.ratio), (size, size), interpolation=cv2.INTER_LINEAR)
        for v in (a.astype(np.float32), b.astype(np.float32))
    )
    taper = cv2.createHanningWindow((size, size), cv2.CV_32F)
    (x, y), peak = cv2.phaseCorrelate(a - a.mean(), b - b.mean(), taper)
    return (y, x) if peak > _PEAK else None


def _laid(colour: Colour, row: int, column: int, height: int, width: int, margin: int) -> Singles:
    """Bands of the multispectral image on a window of the panchromatic one and a margin around it, bicubic."""
    lines = np.arange(row - margin, row + height + margin)[:, None]
    samples = np.arange(column - margin, column + width + margin)[None, :]
    a, b = colour.place(lines, samples)
    r0, c0 = int(np.floor(a.min())) - 2, int(np.floor(b.min())) - 2
    r1, c1 = int(np.ceil(a.max())) + 3, int(np.ceil(b.max())) + 3
    pixels = read_bands(colour.image, r0, c0, r1 - r0, c1 - c0)
    maps = (b - c0).astype(np.float32), (a - r0).astype(np.float32)
    return np.stack([cv2.remap(p, *maps, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE) for p in pixels])


def sharpened(fine: ImageFile, colour: Colour, row: int, column: int, height: int, width: int) -> Singles:
    """Bands of the multispectral image with the detail of the panchromatic one, on a window of the latter:
    (bands, height, width) float32, NaN where either has no value."""
    margin = ceil(4 * _BLUR * colour.ratio)
    wide = read_window(fine, row - margin, column - margin, height + 2 * margin, width + 2 * margin)
    bands = _laid(colour, row, column, height, width, 0)
    known = np.isfinite(wide)
    sigma = _BLUR * colour.ratio
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), sigma)
    total = cv2.GaussianBlur(np.where(known, wide, np.float32(0)), (0, 0), sigma)
    inner = np.s_[margin : margin + height, margin : margin + width]
    blurred = total[inner] / np.maximum(weight[inner], np.float32(1e-6))
    detail = np.clip(wide[inner] / np.where(blurred > 0, blurred, np.float32(np.nan)), *_DETAIL)
    out = bands * detail
    out[:, ~np.isfinite(out).all(axis=0)] = np.nan
    return np.asarray(out, np.float32)
