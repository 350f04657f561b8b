"""Image pairs of any size over endless hills, made line by line in little memory: for benchmarks of whole runs.

The ground is a formula: hills, hummocks and reflectance are sums of value noise, whose lattice values are hashes of
their position. Each pixel's ray meets the ground by fixed point iteration; nothing hides anything else, for the
slopes are far gentler than the rays.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from numba import njit
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from terrain3d.camera.write import rpc_tags
from terrain3d.raster import Grid
from terrain3d.simulate.sensor import PushbroomCamera, View, camera_over, draw_pointing, fit_rpc
from terrain3d.simulate.world import CENTRE, REFERENCE

BASE, HALF_RELIEF = 500.0, 75.0
# spacing of the lattice and amplitude, metres: hills, spurs, hummocks, copses
HILLS = ((1300.0, 40.0), (420.0, 16.0), (110.0, 4.0), (28.0, 2.2), (11.0, 1.2))
# spacing (m) and share of the mean reflectance: fields, patches, bushes, stones
TEXTURE = ((70.0, 0.12), (19.0, 0.12), (6.0, 0.12), (2.1, 0.14), (0.9, 0.14))
STRIP_LINES = 256
ALONG_DEG = (11.0, -10.0)
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": True}


def write_pair(folder: Path, size_px: int, seed: int = 1, gsd: float = 0.5) -> Path:
    """Two images of ``size_px`` lines and samples with RPC and pointing errors, and their ``scene.yaml``."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i, along in enumerate(ALONG_DEG):
        rng = np.random.default_rng((seed, i))
        camera = _camera(View(along, float(rng.normal(0, 1.0)), 191.0), size_px, gsd)
        rpc = fit_rpc(
            camera, draw_pointing(rng, size_px), REFERENCE.horizontal, (BASE - HALF_RELIEF, BASE + HALF_RELIEF)
        )
        names.append(f"view_{i + 1}.tif")
        _write(folder / names[-1], camera, rpc_tags(rpc), rng)
    config = {
        "name": f"open-{size_px}", "images": names,
        "output": {"resolution": gsd, "crs": REFERENCE.horizontal, "vertical": "ellipsoid"},
    }  # fmt: skip
    path = folder / "scene.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def _camera(view: View, size_px: int, gsd: float) -> PushbroomCamera:
    """Camera of a square image centred on the ground's centre."""
    x, y = CENTRE
    small = camera_over(Grid.from_bounds(REFERENCE, x - 1, y - 1, x + 1, y + 1, 1.0), BASE, view, gsd)
    line, sample = small.project(x, y, BASE)
    first = round(float(line) - size_px / 2)
    return PushbroomCamera(
        small.origin + first * small.advance, small.advance, small.axis, small.pitch,
        small.centre - round(float(sample) - size_px / 2), size_px, size_px,
    )  # fmt: skip


def _write(path: Path, camera: PushbroomCamera, tags: dict[str, str], rng: np.random.Generator) -> None:
    hills, texture = _octaves(HILLS), _octaves(TEXTURE)
    numbers = np.array([*camera.origin, *camera.advance, *camera.axis, *camera.pitch, camera.centre])
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "height": camera.lines, "width": camera.samples, "nodata": 0,
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2, "zlevel": 1,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.update_tags(ns="RPC", **tags)
            for start in range(0, camera.lines, STRIP_LINES):
                count = min(STRIP_LINES, camera.lines - start)
                light = np.empty((count, camera.samples), np.float32)
                _strip(numbers, start, hills, texture, light)
                dn = 2600 * light + 110
                dn += rng.standard_normal(dn.shape, dtype=np.float32) * np.sqrt(0.06 * dn + 2.5**2)
                image = np.clip(np.rint(dn), 1, 4095).astype(np.uint16)
                file.write(image, 1, window=Window(0, start, camera.samples, count))


def _octaves(spacing_amplitude: tuple[tuple[float, float], ...]) -> NDArray[np.float64]:
    """Rows of x and y to lattice units (cosine and sine over spacing) and amplitude.

    Each octave is turned against the one before, so that their lattices do not line up.
    """
    turn = 0.7 * np.arange(len(spacing_amplitude))
    spacing, amplitude = np.array(spacing_amplitude).T
    return np.column_stack([np.cos(turn) / spacing, np.sin(turn) / spacing, amplitude])


@njit(inline="always")
def _hash(i: int, j: int, seed: int) -> float:
    """Uniform number from -1 to 1 of a lattice place."""
    h = np.uint64(i) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(j) * np.uint64(0xC2B2AE3D27D4EB4F)
    h = (h ^ np.uint64(seed) * np.uint64(0x165667B19E3779F9)) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    return float(h >> np.uint64(40)) * (2.0 / 16777216.0) - 1.0


@njit(**_JIT)
def _noise(x: float, y: float, octaves: Any, first: int) -> float:
    """Sum of smooth value noise over the octaves."""
    total = 0.0
    for k in range(octaves.shape[0]):
        c, s = octaves[k, 0], octaves[k, 1]
        u, v = c * x + s * y, c * y - s * x
        i, j = int(np.floor(u)), int(np.floor(v))
        u, v = u - i, v - j
        u, v = u * u * u * (u * (6 * u - 15) + 10), v * v * v * (v * (6 * v - 15) + 10)
        low = _hash(i, j, first + k) * (1 - u) + _hash(i + 1, j, first + k) * u
        high = _hash(i, j + 1, first + k) * (1 - u) + _hash(i + 1, j + 1, first + k) * u
        total += octaves[k, 2] * (low * (1 - v) + high * v)
    return total


@njit(**_JIT)
def _strip(p: Any, start: int, hills: Any, texture: Any, out: Any) -> None:
    """Radiance of lines from ``start`` on."""
    for row in range(out.shape[0]):
        line = start + row
        sx, sy, sz = p[0] + line * p[3], p[1] + line * p[4], p[2] + line * p[5]
        h = BASE
        for column in range(out.shape[1]):
            t = column - p[12]
            dx, dy, dz = p[6] + t * p[9], p[7] + t * p[10], p[8] + t * p[11]
            x = y = 0.0
            for _ in range(2):  # from the neighbour's height on
                x, y = sx + (h - sz) * dx / dz, sy + (h - sz) * dy / dz
                h = BASE + _noise(x, y, hills, 0)
            out[row, column] = 0.25 * (1 + _noise(x, y, texture, 100))
