"""A whole scene on disk: images with RPC, lidar granules, truth, events and the ``scene.yaml`` that runs it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml

from terrain3d.camera.write import write_image
from terrain3d.errors import ConfigError
from terrain3d.io.rasters import HEIGHT_NODATA, write_raster
from terrain3d.simulate import world as worlds
from terrain3d.simulate.events import Event, evolve
from terrain3d.simulate.further import evolve_further
from terrain3d.simulate.granules import write_atl08, write_gedi_l2a
from terrain3d.simulate.render import render
from terrain3d.simulate.sensor import Sensor, View, make_sensor
from terrain3d.simulate.shade import Sun, illuminate
from terrain3d.simulate.world import World

KINDS = {"town": worlds.town, "mountain": worlds.mountain, "waterland": worlds.waterland, "coast": worlds.coast}
CHANGES = ("usual", "every", "none")


@dataclass(frozen=True)
class Epoch:
    """Files of one epoch: ``images``, ``truth`` (dsm, dtm, class), ``config`` to run it, and the true ``sensors``."""

    images: tuple[Path, ...]
    truth: dict[str, Path]
    config: Path
    sensors: tuple[Sensor, ...]


@dataclass(frozen=True)
class SceneFiles:
    """What ``write_scene`` wrote. ``events``: between the epochs, empty with one; ``events_file`` None then."""

    folder: Path
    epochs: tuple[Epoch, ...]
    lidar: tuple[Path, ...]
    events: tuple[Event, ...]
    events_file: Path | None

    @property
    def config(self) -> Path:
        """Configuration of the first epoch."""
        return self.epochs[0].config


def write_scene(
    folder: Path,
    kind: str = "town",
    size_m: float = 400.0,
    seed: int = 1,
    views: int = 3,
    gsd: float = 0.5,
    epochs: int = 1,
    resolution: float = 0.5,
    changes: str = "usual",
) -> SceneFiles:
    """Simulate a scene into ``folder`` (made if need be); the same arguments give the same files.

    kind: one of ``KINDS``. size_m: side of the square world. views: images an epoch, at least 2, from forward to
    backward. gsd: pixel size (m). epochs: 1 or 2. resolution: of the truth, a multiple of 0.25 m.
    changes: from the first epoch to the second: 'usual' (``events.evolve``), 'every' (those of ``further`` as well) or
    'none' (other images of the same place).
    Lidar is flown over the first epoch. The second epoch's configuration is ``scene2.yaml``.
    """
    if kind not in KINDS:
        raise ConfigError(f"no world of kind '{kind}'", fix=f"use one of: {', '.join(KINDS)}")
    if size_m < 100 or views < 2 or epochs not in (1, 2):
        raise ConfigError("a scene needs 100 m, two views, and one or two epochs", fix="raise size, views or epochs")
    folder = Path(folder)
    world = KINDS[kind](seed, size_m)
    lidar = _write_lidar(folder / "lidar", world, seed)
    written = [_write_epoch(folder, kind, world, 1, seed, views, gsd, resolution, lidar)]
    events: list[Event] = []
    events_file = None
    if epochs == 2:
        if changes not in CHANGES:
            raise ConfigError(f"no changes '{changes}'", fix=f"use one of: {', '.join(CHANGES)}")
        first = world
        if changes != "none":
            world, events = evolve(first, seed)
        if changes == "every":
            world, more = evolve_further(world, first, events, seed)
            events = [*events, *more]
        written.append(_write_epoch(folder, kind, world, 2, seed, views, gsd, resolution, lidar))
        events_file = folder / "events.json"
        events_file.write_text(json.dumps([asdict(e) for e in events], indent=1) + "\n", encoding="utf-8")
    return SceneFiles(folder, tuple(written), lidar, tuple(events), events_file)


def draw_views(count: int, rng: np.random.Generator) -> list[View]:
    """Views of one pass, from +12 degrees ahead to -14 degrees back, each with a slight roll and its own heading."""
    heading = float(rng.uniform(188.0, 193.0))
    return [
        View(float(along), float(rng.normal(0.0, 2.0)), heading + float(rng.normal(0.0, 0.4)))
        for along in np.linspace(12.0, -14.0, count)
    ]


def _write_lidar(folder: Path, world: World, seed: int) -> tuple[Path, ...]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / n for n in ("ATL08_20240501.h5", "ATL08_20240617.h5", "GEDI02_A_20240502.h5"))
    write_atl08(paths[0], world, seed, heading_deg=352.0, time_s=2.00e8)
    write_atl08(paths[1], world, seed + 1, heading_deg=188.0, time_s=2.04e8)
    write_gedi_l2a(paths[2], world, seed)
    return paths


def _write_epoch(
    folder: Path,
    kind: str,
    world: World,
    number: int,
    seed: int,
    views: int,
    gsd: float,
    resolution: float,
    lidar: tuple[Path, ...],
) -> Epoch:
    rng = np.random.default_rng((seed, 10 + number))
    images_folder, truth_folder = folder / f"epoch{number}", folder / f"truth{number}"
    images_folder.mkdir(parents=True, exist_ok=True)
    truth_folder.mkdir(parents=True, exist_ok=True)
    sun = Sun(azimuth_deg=float(rng.uniform(140.0, 165.0)), elevation_deg=float(rng.uniform(45.0, 58.0)))
    lit = illuminate(world, sun)
    sensors, images = [], []
    for i, view in enumerate(draw_views(views, rng)):
        sensor = make_sensor(world.grid, world.height_range, view, gsd, rng)
        image = render(lit, sensor.camera, np.random.default_rng((seed, 20 + number, i)))
        images.append(write_image(images_folder / f"view_{i + 1}.tif", image, sensor.rpc))
        sensors.append(sensor)
    truth = write_truth(truth_folder, world, resolution)
    config = folder / ("scene.yaml" if number == 1 else f"scene{number}.yaml")
    content = {
        "name": kind if number == 1 else f"{kind}-{number}",
        "images": [p.relative_to(folder).as_posix() for p in images],
        "lidar": [p.relative_to(folder).as_posix() for p in lidar],
        "output": {"resolution": resolution, "crs": "auto", "vertical": "ellipsoid"},
    }
    config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return Epoch(tuple(images), truth, config, tuple(sensors))


def write_truth(folder: Path, world: World, resolution: float) -> dict[str, Path]:
    """``dsm.tif``, ``dtm.tif`` and ``class.tif`` (ASPRS 2, 5, 6, 9; 0 nodata) of a world."""
    surface, ground, classes = world.truth(resolution)
    paths = {name: folder / f"{name}.tif" for name in ("dsm", "dtm", "class")}
    write_raster(paths["dsm"], surface, nodata=HEIGHT_NODATA)
    write_raster(paths["dtm"], ground, nodata=HEIGHT_NODATA)
    write_raster(paths["class"], classes, nodata=0, heights=False)
    return paths
