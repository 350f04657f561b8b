"""Images of a lit world as a pushbroom camera takes them: ray casting, optics, noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

from terrain3d.simulate.layers import BUILDING, TREE, WATER
from terrain3d.simulate.noise import fractal
from terrain3d.simulate.sensor import PushbroomCamera
from terrain3d.simulate.shade import SKY, LitWorld

Singles = NDArray[np.float32]
TILE = 16
OVERSAMPLING = 2
BLOCK_LINES = 256
MAX_DN = 4095
_JIT: dict[str, Any] = {"cache": True, "nogil": True}


@dataclass(frozen=True)
class Radiometry:
    """From radiance to digital numbers: ``gain`` * radiance + ``offset``; noise variance ``shot`` * DN + ``read``**2.

    blur_px: deviation of the optics' point spread, before the pixel's own square.
    """

    gain: float = 2600.0
    offset: float = 110.0
    shot: float = 0.06
    read: float = 2.5
    blur_px: float = 0.42


def draw_radiometry(rng: np.random.Generator) -> Radiometry:
    """Radiometry of one view: gain within some per cent, path radiance of its own."""
    return Radiometry(gain=2600.0 * float(rng.normal(1.0, 0.04)), offset=float(rng.uniform(90.0, 135.0)))


def render(
    lit: LitWorld, camera: PushbroomCamera, rng: np.random.Generator, radiometry: Radiometry | None = None
) -> NDArray[np.uint16]:
    """Image (lines, samples), uint16 up to 4095; 0 where a pixel does not see the world completely."""
    radiometry = radiometry or draw_radiometry(rng)
    caster = _Caster(lit, camera, rng)
    image = np.zeros((camera.lines, camera.samples), np.uint16)
    for start in range(0, camera.lines, BLOCK_LINES):
        stop = min(start + BLOCK_LINES, camera.lines)
        radiance = caster.block(start, stop, radiometry.blur_px)
        dn = radiometry.gain * radiance + radiometry.offset
        noise = rng.standard_normal(dn.shape, dtype=np.float32)
        with np.errstate(invalid="ignore"):
            dn += noise * np.sqrt(radiometry.shot * dn + radiometry.read**2)
        image[start:stop] = np.where(np.isnan(dn), 0, np.clip(np.rint(np.nan_to_num(dn)), 1, MAX_DN))
    return image


class _Caster:
    """The arrays that the kernel needs, prepared once an image."""

    def __init__(self, lit: LitWorld, camera: PushbroomCamera, rng: np.random.Generator) -> None:
        world = lit.world
        self.lit, self.camera = lit, camera
        self.upper = _upper(world.surface)
        # Waves differ from view to view, so that nothing on water can be matched.
        waves = fractal(rng, (512, 512), world.grid.resolution, 12.0, 0.5, 2.0)
        self.water = (0.028 + 0.006 * waves).astype(np.float32)
        self.houses = np.array([(b.facade, b.axis_rad, b.base) for b in world.buildings] or [(0.0, 0.0, 0.0)])
        low, high = world.height_range
        self.numbers = np.array(
            [
                *camera.origin, *camera.advance, *camera.axis, *camera.pitch, camera.centre,
                world.grid.west, world.grid.north, world.grid.resolution, *lit.sun.direction, low - 0.01, high + 0.01,
            ]
        )  # fmt: skip

    def block(self, start: int, stop: int, blur_px: float) -> Singles:
        """Radiance of lines ``start`` to ``stop``, NaN where the world ends; blocks join without a seam."""
        n = OVERSAMPLING
        halo = int(np.ceil(4 * blur_px * n))
        fine = np.empty(((stop - start) * n + 2 * halo, self.camera.samples * n), np.float32)
        world = self.lit.world
        _cast(
            world.surface, self.upper, self.lit.radiance, self.lit.shadow, world.classes, world.building,
            self.houses, self.water, self.numbers, start * n - halo, n, fine,
        )  # fmt: skip
        valid = (~np.isnan(fine)).astype(np.float32)
        size = (2 * halo + 1, 2 * halo + 1)
        weight = cv2.GaussianBlur(valid, size, blur_px * n)
        fine = (cv2.GaussianBlur(np.nan_to_num(fine), size, blur_px * n) / np.maximum(weight, 1e-6)).astype(np.float32)
        rows = slice(halo, halo + (stop - start) * n)
        shape = (stop - start, n, self.camera.samples, n)
        mean = fine[rows].reshape(shape).mean((1, 3))
        mean[valid[rows].reshape(shape).min((1, 3)) == 0] = np.nan
        return mean


def _upper(surface: Singles) -> Singles:
    """Highest surface of each tile and its neighbours: above it, a ray may move one tile without a test."""
    rows, columns = (-(-n // TILE) for n in surface.shape)
    padded = np.full((rows * TILE, columns * TILE), -np.inf, np.float32)
    padded[: surface.shape[0], : surface.shape[1]] = surface
    return np.ascontiguousarray(maximum_filter(padded.reshape(rows, TILE, columns, TILE).max((1, 3)), size=3))


@njit(inline="always", **_JIT)
def _height(z: Singles, c: float, r: float) -> float:
    """Bilinear height at a column and row inside the field."""
    c0, r0 = int(c), int(r)
    u, v = c - c0, r - r0
    return (z[r0, c0] * (1 - u) + z[r0, c0 + 1] * u) * (1 - v) + (z[r0 + 1, c0] * (1 - u) + z[r0 + 1, c0 + 1] * u) * v


@njit(**_JIT)
def _facade(
    z: Singles, shadow: Singles, house: NDArray[np.float64], sun: NDArray[np.float64], c: float, r: float,
    h: float, x: float, y: float,
) -> float:  # fmt: skip
    """Radiance of a wall: its direction is that of the building's four that falls off most, windows on each floor."""
    ci, ri = int(c + 0.5), int(r + 0.5)
    gx, gy = 0.0, 0.0
    for k in range(-4, 5):
        rr = min(max(ri + k, 0), z.shape[0] - 1)
        for m in range(-4, 5):
            if z[rr, min(max(ci + m, 0), z.shape[1] - 1)] > h:
                gx -= m
                gy += k
    tone, axis, base = house
    best, nx, ny = -1e30, 1.0, 0.0
    for quarter in range(4):
        a = axis + quarter * np.pi / 2
        if gx * np.cos(a) + gy * np.sin(a) > best:
            best = gx * np.cos(a) + gy * np.sin(a)
            nx, ny = np.cos(a), np.sin(a)
    lambert = max(nx * sun[0] + ny * sun[1], 0.0)
    cs = int(min(max(c + 2.5 * nx, 0.0), z.shape[1] - 1.0))
    rs = int(min(max(r - 2.5 * ny, 0.0), z.shape[0] - 1.0))
    lit = 1.0 if h > shadow[rs, cs] else 0.0
    along, up = -ny * x + nx * y, h - base
    if up > 0.8 and 0.9 < up % 3.0 < 2.3 and (along % 2.9) < 1.3:
        tone *= 0.35
    elif up % 3.0 < 0.18:
        tone *= 0.8
    return tone * (lit * lambert + 0.65 * SKY)


@njit(**_JIT)
def _fall_to(place: float, n: int, per_metre: float) -> float:
    """Metres that a ray falls until its column or row is over the world; 0 where it is, infinite if it never is."""
    if 0 <= place < n - 1:
        return 0.0
    return max(0.0, (place - (n - 1.001) if place > 0 else place - 0.001) / per_metre) if per_metre != 0 else np.inf


@njit(**_JIT)
def _met(
    z: Singles, below: float, above: float, low: float, c_low: float, r_low: float, mc: float, mr: float
) -> float:  # fmt: skip
    """Height at which a ray meets the surface, between one below and one above it, by bisection."""
    rows, columns = z.shape
    for _ in range(9):
        h = 0.5 * (below + above)
        c, r = c_low + (h - low) * mc, r_low + (h - low) * mr
        if c < 0 or r < 0 or c >= columns - 1 or r >= rows - 1 or h > _height(z, c, r):
            above = h
        else:
            below = h
    return below


@njit(**_JIT)
def _cast(
    z: Singles, upper: Singles, radiance: Singles, shadow: Singles, classes: NDArray[np.uint8],
    building: NDArray[np.int32], houses: NDArray[np.float64], water: Singles, p: NDArray[np.float64],
    first: int, n: int, out: Singles,
) -> None:  # fmt: skip
    """Radiance of fine pixels: row i is line (first + i + 0.5) / n - 0.5, columns likewise; NaN where a ray leaves."""
    west, north, cell, low, high = p[13], p[14], p[15], p[19], p[20]
    rows, columns = z.shape
    for i in range(out.shape[0]):
        line = (first + i + 0.5) / n - 0.5
        sx, sy, sz = p[0] + line * p[3], p[1] + line * p[4], p[2] + line * p[5]
        for j in range(out.shape[1]):
            s = (j + 0.5) / n - 0.5 - p[12]
            dz = p[8] + s * p[11]
            mx, my = (p[6] + s * p[9]) / dz, (p[7] + s * p[10]) / dz
            # column and row as linear functions of the height above ``low``
            mc, mr = mx / cell, -my / cell
            c_low = (sx + (low - sz) * mx - west) / cell - 0.5
            r_low = (north - sy - (low - sz) * my) / cell - 0.5
            tilt = max(np.sqrt(mc * mc + mr * mr), 0.02)
            jump, step = 0.95 * TILE / tilt, 1.0 / tilt
            h = high
            above = np.inf
            value = np.nan
            while True:
                c, r = c_low + (h - low) * mc, r_low + (h - low) * mr
                if c < 0 or r < 0 or c >= columns - 1 or r >= rows - 1:
                    # outside: down to where the ray comes over the world, if it ever does
                    fall = max(_fall_to(c, columns, mc), _fall_to(r, rows, mr))
                    above = np.inf
                    if fall <= 0 or h - fall <= low:
                        break
                    h -= fall
                    continue
                top = upper[int(r) // TILE, int(c) // TILE]
                if h > top + 1e-3:
                    above = h
                    h = max(top, h - jump)
                    continue
                if h > _height(z, c, r):
                    above = h
                    if h <= low:
                        break
                    h = max(h - step, low)
                    continue
                if above == np.inf and h < high:
                    break  # came in through the side of the world
                h = _met(z, h, min(above, high), low, c_low, r_low, mc, mr)
                c, r = c_low + (h - low) * mc, r_low + (h - low) * mr
                value = _seen(z, radiance, shadow, classes, building, houses, water, p, c, r, h)
                break
            out[i, j] = value


@njit(**_JIT)
def _seen(
    z: Singles, radiance: Singles, shadow: Singles, classes: NDArray[np.uint8], building: NDArray[np.int32],
    houses: NDArray[np.float64], water: Singles, p: NDArray[np.float64], c: float, r: float, h: float,
) -> float:  # fmt: skip
    """Radiance of the point of the surface at column c, row r and height h."""
    c0, r0 = int(c), int(r)
    u, v = c - c0, r - r0
    ct, rt, cn, rn = c0, r0, c0, r0
    top, bottom, near = -np.inf, np.inf, np.inf
    same = True
    total = 0.0
    for k in range(2):
        for m in range(2):
            rr, cc = r0 + k, c0 + m
            same &= classes[rr, cc] == classes[r0, c0]
            total += radiance[rr, cc] * (u if m else 1 - u) * (v if k else 1 - v)
            if z[rr, cc] > top:
                top, ct, rt = z[rr, cc], cc, rr
            bottom = min(bottom, z[rr, cc])
            if abs(z[rr, cc] - h) < near:
                near, cn, rn = abs(z[rr, cc] - h), cc, rr
    if top - bottom > 1.0 and h < top - 0.35:
        if classes[rt, ct] == BUILDING:
            x, y = p[13] + (c + 0.5) * p[15], p[14] - (r + 0.5) * p[15]
            return _facade(z, shadow, houses[building[rt, ct] - 1], p[16:19], c, r, h, x, y)
        if classes[rt, ct] == TREE:
            # the side of a crown: darker the deeper
            return radiance[rt, ct] * max(0.25, 0.85 - 0.12 * (top - h))
    if classes[rn, cn] == WATER:
        return water[rn % water.shape[0], cn % water.shape[1]]
    return total if same and top - bottom < 1.0 else radiance[rn, cn]
