"""Rapid mode: a new pair against the last model, coarse first, for the days after a disaster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.camera.write import write_image
from terrain3d.change.filters import coarsen
from terrain3d.config import ImageEntry, Scene
from terrain3d.image.view import View
from terrain3d.io.images import ImageFile, read_window
from terrain3d.pipeline.load import height_limits, load_views, mean_height
from terrain3d.pipeline.output_crs import output_reference
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.run import resolution_of, run_scene
from terrain3d.pipeline.scratch_folder import scratch_folder
from terrain3d.stereo.pairs import choose_pairs

FACTOR = 2  # the pixels of the images are made so many times as large
ROWS = 1024


@dataclass(frozen=True)
class QuickModel:
    """folder: of the coarse run. given_up: what a full run would have done besides, one line each."""

    folder: Path
    given_up: tuple[str, ...]


def quick_model(scene: Scene, folder: Path, reporter: Reporter, workers: int | None) -> QuickModel:
    """Run the best pair of a scene from images of half the resolution, without lidar: the last model, to which it will
    be co-registered, has the position. Raises Terrain3dError."""
    reporter.stage("coarse images")
    views = load_views(scene)
    limits = height_limits(views)
    height = mean_height(views)
    crs = output_reference(scene.config.output, views, height, scene.folder).horizontal
    pairs = [p for p in choose_pairs(views, crs, sum(limits) / 2) if p.chosen]
    best = max(pairs, key=lambda p: p.score)
    chosen = [views[best.left], views[best.right]]
    resolution = FACTOR * resolution_of(scene, chosen, crs, height)
    output = scene.config.output.model_copy(update={"resolution": resolution})
    with scratch_folder(folder) as scratch:
        paths = [reduced(view, scratch / f"{view.image.path.stem}_{k}.tif") for k, view in enumerate(chosen)]
        images, name = [str(p) for p in paths], f"{scene.config.name} rapid"
        config = scene.config.model_copy(update={"images": images, "lidar": [], "output": output, "name": name})
        coarse = Scene(
            config=config, folder=scene.folder, images=tuple(ImageEntry(path=p) for p in images), lidar=(),
            water_polygons=scene.water_polygons,
        )  # fmt: skip
        run_scene(coarse, folder / "model", reporter, workers=workers)
    return QuickModel(folder / "model", _given_up(scene, views, len(pairs), resolution))


def _given_up(scene: Scene, views: list[View], pairs: int, resolution: float) -> tuple[str, ...]:
    lines = [
        f"rapid mode: images at 1/{FACTOR} of their resolution, cells of {resolution:g} m: changes smaller than some "
        f"{(10 * resolution) ** 2:.0f} m2 may be missed"
    ]
    if pairs > 1:
        lines.append(f"rapid mode: the best of {pairs} pairs of {len(views)} images was matched")
    if scene.lidar:
        lines.append("rapid mode: lidar was not used; position and height are those of the earlier model")
    return tuple(lines)


def reduced(view: View, path: Path) -> Path:
    """The view's image with pixels FACTOR times as large (means), and its RPC to match."""
    image = view.image
    strips = []
    low, high = _range(image)
    for row in range(0, image.height - FACTOR + 1, ROWS):
        rows = min(ROWS, image.height - row)
        strips.append(coarsen(read_window(image, row, 0, rows, image.width), FACTOR))
    mean = np.concatenate(strips)
    middle = (FACTOR - 1) / 2  # of the first of the large pixels
    values = np.clip(np.rint((mean - low) * 65_534 / (high - low) + 1), 1, 65_535)
    rpc = view.camera.rpc.resampled(middle, middle, FACTOR, FACTOR)
    write_image(path, np.where(np.isfinite(mean), values, 0).astype(np.uint16), rpc)
    return path


def _range(image: ImageFile) -> tuple[float, float]:
    """Values that become the ends of 16 bits: those of the type where they fit, else of the image itself."""
    kind = np.dtype(image.dtype)
    if kind.kind == "u" and kind.itemsize <= 2:
        return 0.0, float(np.iinfo(kind).max)
    ends: list[NDArray[np.float32]] = []
    for row in range(0, image.height, ROWS):
        values = read_window(image, row, 0, min(ROWS, image.height - row), image.width)
        values = values[np.isfinite(values)]
        if values.size:
            ends.append(np.array([values.min(), values.max()], np.float32))
    low, high = float(np.min(ends)), float(np.max(ends))
    return low, max(high, low + 1e-6)
