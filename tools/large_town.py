"""Scenes of the simulator of any size in little memory: one town, mirrored again and again, under light of its own.

The town is made once, with its mirror images around it; that square repeats without a seam. Reflectance is changed by
a noise that does not repeat, so that no two places look alike. Images are rendered window by window, each from the part
of the world that it sees. Lidar comes from the same ground on coarse cells. There is no truth: this is for time and
memory.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
import yaml
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from terrain3d.camera.write import rpc_tags
from terrain3d.raster import Grid
from terrain3d.simulate import render as rendering
from terrain3d.simulate.granules import write_atl08
from terrain3d.simulate.scene import KINDS, draw_views
from terrain3d.simulate.sensor import PushbroomCamera, make_sensor
from terrain3d.simulate.shade import LitWorld, Sun, illuminate
from terrain3d.simulate.world import CELL, CENTRE, REFERENCE, World

MODULE_M = 300.0
PAD_M = 90.0  # the longest shadow
WINDOW = (512, 1024)  # lines, samples
HALO = 8  # pixels around a window that the blur looks at
LIDAR_CELL = 8  # cells of the world
VIEWS = 3


class Quilt:
    """A lit world that repeats: ``window`` gives any part of it."""

    def __init__(self, kind: str, seed: int, sun: Sun) -> None:
        module = KINDS[kind](seed, MODULE_M)
        self._seed, self._sun, self.buildings = seed, sun, module.buildings
        layers = {n: _mirrored(getattr(module, n)) for n in ("surface", "ground", "classes", "albedo", "building")}
        pad = int(PAD_M / CELL)
        around = {n: np.pad(a, pad, mode="wrap") for n, a in layers.items()}
        height, width = around["surface"].shape
        grid = Grid(REFERENCE, 0.0, 0.0, CELL, height, width)
        lit = illuminate(_world(grid, around, module.buildings), sun)
        inner = np.s_[pad:-pad, pad:-pad]
        self._layers = layers | {"radiance": lit.radiance[inner].copy(), "shadow": lit.shadow[inner].copy()}
        self.size = layers["surface"].shape[0]
        self.heights = float(layers["ground"].min()), float(layers["surface"].max())

    def window(self, grid: Grid) -> LitWorld:
        """The part of the world on a grid of its cells."""
        row, column = round(-grid.north / CELL), round(grid.west / CELL)
        rows = (row + np.arange(grid.height)) % self.size
        columns = (column + np.arange(grid.width)) % self.size
        part = {n: np.ascontiguousarray(a[np.ix_(rows, columns)]) for n, a in self._layers.items()}
        part["radiance"] *= self._noise(row, column, grid.height, grid.width)
        return LitWorld(_world(grid, part, self.buildings), self._sun, part["radiance"], part["shadow"])

    def coarse(self, grid: Grid) -> World:
        """Heights and classes on cells ``LIDAR_CELL`` times as large."""
        step = LIDAR_CELL
        rows = (round(-grid.north / CELL) + step // 2 + step * np.arange(grid.height)) % self.size
        columns = (round(grid.west / CELL) + step // 2 + step * np.arange(grid.width)) % self.size
        part = {n: np.ascontiguousarray(a[np.ix_(rows, columns)]) for n, a in self._layers.items()}
        return _world(grid, part, self.buildings)

    def _noise(self, row: int, column: int, height: int, width: int) -> NDArray[np.float32]:
        """Factor of the reflectance: noise on 1.5 and 12 m that is the same at a place whatever the window."""
        out = np.ones((height, width), np.float32)
        for level, (cells, amplitude) in enumerate(((6, 0.10), (48, 0.18))):
            r0, c0 = row // cells - 1, column // cells - 1
            shape = height // cells + 4, width // cells + 4
            i, j = np.mgrid[r0 : r0 + shape[0], c0 : c0 + shape[1]].astype(np.uint64)
            lattice = (_hash(i, j, self._seed + level) * 2 - 1).astype(np.float32)
            big = cv2.resize(lattice, (shape[1] * cells, shape[0] * cells), interpolation=cv2.INTER_LINEAR)
            top, left = row - r0 * cells, column - c0 * cells
            out *= 1 + np.float32(amplitude) * big[top : top + height, left : left + width]
        return out


def _mirrored(a: NDArray[Any]) -> NDArray[Any]:
    return np.block([[a, a[:, ::-1]], [a[::-1], a[::-1, ::-1]]])


def _hash(i: NDArray[np.uint64], j: NDArray[np.uint64], seed: int) -> NDArray[np.float64]:
    """Uniform numbers from 0 to 1 of lattice places."""
    h = (
        i * np.uint64(0x9E3779B97F4A7C15)
        ^ j * np.uint64(0xC2B2AE3D27D4EB4F)
        ^ np.uint64(seed * 0x165667B19E3779F9 % 2**64)
    )
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (h >> np.uint64(40)).astype(float) / 2**24


def _world(grid: Grid, layers: dict[str, NDArray[Any]], buildings: Any) -> World:
    nothing = np.zeros((1, 1), np.float32)
    return World(grid, layers["surface"], layers["ground"], layers["classes"], layers["albedo"], layers["building"],
                 nothing, buildings)  # fmt: skip


def write_large(folder: Path, size_m: float, kind: str = "town", seed: int = 1, gsd: float = 0.5) -> Path:
    """Three images and an ATL08 granule of a square of ``size_m``, and the ``area.yaml`` and ``scene.yaml`` for it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, 11))
    quilt = Quilt(kind, seed, Sun(azimuth_deg=150.0, elevation_deg=50.0))
    x, y = (round(c / 100) * 100.0 for c in CENTRE)
    half = size_m / 2
    ground = Grid.from_bounds(REFERENCE, x - half, y - half, x + half, y + half, CELL)
    names = []
    for i, view in enumerate(draw_views(VIEWS, rng)):
        sensor = make_sensor(ground, quilt.heights, view, gsd, rng)
        names.append(f"view_{i + 1}.tif")
        _write_image(folder / names[-1], quilt, sensor.camera, rpc_tags(sensor.rpc), (seed, i))
    step = CELL * LIDAR_CELL
    coarse = quilt.coarse(Grid.from_bounds(REFERENCE, *ground.bounds, step))
    granules = []
    for k, heading in enumerate((352.0, 188.0)):
        granules.append(f"ATL08_{k + 1}.h5")
        write_atl08(folder / granules[-1], coarse, seed + k, heading_deg=heading, time_s=2.0e8 + 4e6 * k)
    scene = {"name": f"{kind}-{size_m:.0f}", "images": names, "lidar": granules, "output": {"resolution": gsd}}
    (folder / "scene.yaml").write_text(yaml.safe_dump(scene, sort_keys=False), encoding="utf-8")
    area = folder / "area.yaml"
    area.write_text(yaml.safe_dump(scene | {"tiles": {"utm": 1000}}, sort_keys=False), encoding="utf-8")
    return area


def _write_image(
    path: Path, quilt: Quilt, camera: PushbroomCamera, tags: dict[str, str], seed: tuple[int, int]
) -> None:
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "height": camera.lines, "width": camera.samples, "nodata": 0,
        "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2, "zlevel": 1,
    }  # fmt: skip
    radiometry = rendering.draw_radiometry(np.random.default_rng((*seed, 20)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile) as file:
            file.update_tags(ns="RPC", **tags)
            for line in range(0, camera.lines, WINDOW[0]):
                for sample in range(0, camera.samples, WINDOW[1]):
                    lines, samples = min(WINDOW[0], camera.lines - line), min(WINDOW[1], camera.samples - sample)
                    part = _part(camera, line - HALO, sample - HALO, lines + 2 * HALO, samples + 2 * HALO)
                    lit = quilt.window(_seen(part, quilt.heights))
                    rng = np.random.default_rng((*seed, line, sample))
                    image = rendering.render(lit, part, rng, radiometry)
                    place = Window(sample, line, samples, lines)
                    file.write(image[HALO : HALO + lines, HALO : HALO + samples], 1, window=place)


def _part(camera: PushbroomCamera, line: int, sample: int, lines: int, samples: int) -> PushbroomCamera:
    """Camera of a window of the image."""
    origin = camera.origin + line * camera.advance
    return replace(camera, origin=origin, centre=camera.centre - sample, lines=lines, samples=samples)


def _seen(camera: PushbroomCamera, heights: tuple[float, float]) -> Grid:
    """Ground that an image may see, with a few cells to spare."""
    line, sample, height = (
        a.ravel() for a in np.meshgrid([0, camera.lines - 1], [0, camera.samples - 1], heights, indexing="ij")
    )
    x, y = camera.locate(line, sample, height)
    spare = 8 * CELL
    return Grid.from_bounds(REFERENCE, x.min() - spare, y.min() - spare, x.max() + spare, y.max() + spare, CELL)


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--size", type=float, default=1000.0, help="side of the square, metres")
    options.add_argument("--kind", choices=tuple(KINDS), default="town")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    print(write_large(given.folder, given.size, given.kind, given.seed))


if __name__ == "__main__":
    main()
