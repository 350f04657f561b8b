"""Inputs of an area, opened and checked. A bad file is left out with a line that says so, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import shapely
from shapely.geometry.base import BaseGeometry

from terrain3d.change.epoch import load_epoch
from terrain3d.config import Scene
from terrain3d.crs import Reference
from terrain3d.errors import ConfigError, OverlapError, Terrain3dError
from terrain3d.image.view import View
from terrain3d.lidar.read import LidarSet
from terrain3d.pipeline.batch.area import Area
from terrain3d.pipeline.batch.manifest import Problem
from terrain3d.pipeline.load import (
    check_overlap,
    height_limits,
    load_lidar,
    load_views,
    mean_height,
    with_unique_names,
)
from terrain3d.pipeline.output_crs import output_reference

IMAGE, LIDAR, PREVIOUS = "image", "lidar file", "previous model"


@dataclass(frozen=True)
class Inputs:
    """What an area is made from. scene: without the files that were left out; problems: a line for each of those, and
    for previous models that cannot be read. previous: extent of the others by name, with its CRS."""

    scene: Scene
    views: list[View]
    limits: tuple[float, float]
    lidar: LidarSet | None
    reference: Reference
    problems: tuple[Problem, ...]
    previous: dict[str, tuple[BaseGeometry, str]]

    @property
    def height(self) -> float:
        """First guess of the height of the ground, to ten metres, so that a new granule hardly moves it."""
        return round(mean_height(self.views, self.lidar), -1)


def open_inputs(area: Area, known: list[Problem], step: Callable[[], None]) -> Inputs:
    """Open the images, the lidar and the previous models. known: files that are to be left out from the start.

    Raises ConfigError or OverlapError if fewer than two images remain, and what no single file is to blame for.
    """
    scene = area.scene
    problems = [p for p in known if p.what in (IMAGE, LIDAR)]
    for problem in problems:
        scene = without_file(scene, Path(problem.place))
    views = []
    for entry in scene.images:
        try:
            views += load_views(scene.model_copy(update={"images": (entry,)}))
        except Terrain3dError as error:
            problems.append(Problem(IMAGE, entry.path, str(error)))
            scene = without_file(scene, Path(entry.path))
        step()
    if len(views) < 2:
        reason = f" ({problems[-1].message})" if problems else ""
        raise ConfigError(f"stereo needs at least two images, {len(views)} can be used{reason}")
    views = with_unique_names(views)
    limits = height_limits(views)
    while True:
        try:
            check_overlap(views, limits)
            break
        except OverlapError as error:
            view = next((v for v in views if str(v.image.path) == error.where), None)
            if view is None or len(views) < 3:
                raise
            problems.append(Problem(IMAGE, str(view.image.path), str(error)))
            views = [v for v in views if v is not view]
            scene = without_file(scene, view.image.path)
    while True:
        try:
            lidar = load_lidar(scene, views, mean_height(views))
            break
        except Terrain3dError as error:
            bad = blamed(error, scene)
            if bad is None or bad[0] != LIDAR:
                raise
            problems.append(Problem(*bad, str(error)))
            scene = without_file(scene, Path(bad[1]))
    reference = output_reference(scene.config.output, views, mean_height(views, lidar), scene.folder)
    previous = {}
    for model in area.previous:
        try:
            grid = load_epoch(model.path).dsm.grid
            previous[model.name] = shapely.box(*grid.bounds), grid.reference.horizontal
        except Terrain3dError as error:
            problems.append(Problem(PREVIOUS, str(model.path), str(error)))
    return Inputs(scene, views, limits, lidar, reference, tuple(problems), previous)


def blamed(error: Terrain3dError, scene: Scene) -> tuple[str, str] | None:
    """What kind of file of the scene an error is about, and which; None if it is about none."""
    if error.where is None:
        return None
    if any(e.path == error.where for e in scene.images):
        return IMAGE, error.where
    return (LIDAR, error.where) if any(str(p) == error.where for p in scene.lidar) else None


def without_file(scene: Scene, path: Path) -> Scene:
    """The scene without an image or a lidar file."""
    images = tuple(e for e in scene.images if Path(e.path) != path)
    return scene.model_copy(update={"images": images, "lidar": tuple(p for p in scene.lidar if p != path)})
