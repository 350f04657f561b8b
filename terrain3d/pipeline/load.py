"""Inputs of a scene, opened and checked before any work starts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import counts_in_doubt, reach_beyond, read_rpc
from terrain3d.camera.tile import is_tile, product_of
from terrain3d.config import ColourEntry, OutputConfig, Scene
from terrain3d.crs import ELLIPSOID, LONLAT, vertical_from_name
from terrain3d.errors import ConfigError, FrameError, ImageError, OverlapError
from terrain3d.image.colour import Colour, laid_on
from terrain3d.image.view import View, footprint
from terrain3d.io.acquired import read_acquired
from terrain3d.io.images import ImageFile, glance, open_image
from terrain3d.io.saturation import find_saturation
from terrain3d.lidar.frames import TargetFrame, crs_of_frame
from terrain3d.lidar.read import LidarSet, read_lidar
from terrain3d.lidar.rules import rule_set
from terrain3d.pipeline.height_files import HeightFile, open_heights, over
from terrain3d.pipeline.output_crs import AUTO
from terrain3d.pipeline.polygons import read_polygons
from terrain3d.pipeline.surfaces import SurfaceOptions
from terrain3d.pipeline.water_bodies import CODES, GivenWater

SEARCH_MARGIN_DEG = 0.002  # lidar beside the images still serves their margins


def load_views(scene: Scene) -> list[View]:
    """Images with their cameras, in the order of the configuration. Raises what a user can mend, image by image."""
    views: list[View] = []
    for entry in scene.images:
        path = Path(entry.path)
        image = open_image(path, mask=None if entry.mask is None else Path(entry.mask))
        rpc = read_rpc(path, None if entry.rpc is None else Path(entry.rpc))
        seen = glance(image)
        if not np.isfinite(seen).any():
            raise ImageError("has no pixel with a value (all nodata)", where=path, fix="leave it out or replace it")
        camera = Camera(rpc if not views else rpc.turned_to(views[0].camera.rpc.lon_off_deg))
        colour = None if entry.colour is None else _colour(entry.colour, image, camera)
        image = replace(image, saturation=find_saturation(seen))
        views.append(View(path.stem, image, camera, read_acquired(path), colour))
    return with_unique_names(views)


def crop_warnings(scene: Scene) -> list[str]:
    """A line on images whose RPC may count other pixels than it is taken to, if there are any."""
    lines = []
    names = [Path(e.path).name for e in scene.images if e.rpc is None and counts_in_doubt(Path(e.path))]
    if names:
        lines.append(
            f"{_first(names)}: a crop by its geotransform, and nothing tells whether the RPC in its tags is that of "
            "the full image; taken for its own. If it is not, give it as images: {path: crop, rpc: full image}"
        )
    given = [(Path(e.path), None if e.rpc is None else Path(e.rpc)) for e in scene.images]
    far = {path.name: reach for path, rpc in given if (reach := reach_beyond(path, rpc))}
    if far:
        lines.append(
            f"{_first(list(far))}: the RPC begins with it and reaches {100 * max(far.values()):.0f} % beyond its "
            "end; if this is a crop that was not cut at the first corner, it is still that of the larger image, and "
            "the model lies as far off as was cut away (gdal_translate -srcwin moves the RPC with the crop)"
        )
    return lines


def _first(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def tile_warnings(scene: Scene) -> list[str]:
    """A line on images that are given as several tiles each, if there are any."""
    paths = [Path(e.path) for e in scene.images]
    whole = Counter((p.parent, product_of(p.stem)) for p in paths if is_tile(p.stem))
    several = [p.stem for p in paths if whole[p.parent, product_of(p.stem)] > 1]
    if not several:
        return []
    images = sum(n > 1 for n in whole.values())
    return [
        f"{several[0]} and {len(several) - 1} more are tiles of {images} images and are placed one by one; name each "
        "image as a whole: its DIM_*.XML or .TIL file, or a VRT of its tiles (gdalbuildvrt) with its RPC file"
    ]


def collar_warnings(views: list[View]) -> list[str]:
    """A line on each image around which a value stands that its file does not declare."""
    return [
        f"{v.name}: {v.image.collar:g} fills it from a corner on; taken for no data, which the file does not declare "
        f"(to silence this: gdal_edit.py -a_nodata {v.image.collar:g} {v.image.path.name}; -a_nodata 0 if it is light)"
        for v in views
        if v.image.collar is not None
    ]


def saturation_warnings(views: list[View]) -> list[str]:
    """A line on the images of which a considerable part is cut off at an upper limit, if there are any."""
    cut = [(v.name, s) for v in views if (s := v.image.saturation) is not None]
    if not cut:
        return []
    shares = ", ".join(f"{name} ({100 * s.share:.0f} % at {s.value:g})" for name, s in cut)
    return [
        f"{shares}: pixels saturated at the highest value, as snow and cloud are; without texture nothing is matched "
        "there, heights are missing or drawn between what is around (use originals that are not clipped, or images "
        "with less exposure)"
    ]


def _colour(given: str | ColourEntry, image: ImageFile, camera: Camera) -> Colour:
    """Multispectral image of a file, laid on the image that it is the colour of. The RPCs may be valid for different
    heights; any that both are valid for will do."""
    entry = ColourEntry(path=given) if isinstance(given, str) else given
    path = Path(entry.path)
    coarse, rpc = open_image(path), read_rpc(path, None if entry.rpc is None else Path(entry.rpc))
    low, high = (max(r.height_range[0] for r in (rpc, camera.rpc)), min(r.height_range[1] for r in (rpc, camera.rpc)))
    return laid_on(image, camera, coarse, Camera(rpc), (low + high) / 2)


def with_unique_names(views: list[View]) -> list[View]:
    """Views named by their files, with the folder before where two files have one name."""
    names = [v.name for v in views]
    if len(set(names)) == len(names):
        return views
    return [replace(v, name=f"{v.image.path.parent.name}/{v.name}") for v in views]


def height_limits(views: list[View]) -> tuple[float, float]:
    """Heights that all RPCs are valid for. Raises OverlapError if there are none."""
    low = max(v.camera.rpc.height_range[0] for v in views)
    high = min(v.camera.rpc.height_range[1] for v in views)
    if low >= high:
        raise OverlapError(
            "the RPCs of the images are valid for different heights", fix="check that they show one place"
        )
    return low, high


def check_overlap(views: list[View], heights: tuple[float, float]) -> None:
    """Raises OverlapError, naming the image, if one shares no ground with any other at any of the heights, or has the
    camera of another: the same image twice, or an RPC that is not its own.

    Where images meet depends on the height: small crops may miss each other at the middle of the RPCs' range and
    still show the same slope.
    """
    owners: dict[bytes, View] = {}
    for view in views:
        owner = owners.setdefault(view.camera.rpc.packed.tobytes(), view)
        if owner is not view:
            raise OverlapError(
                f"image has the very RPC of {owner.image.path}: no two images are taken from one place",
                where=view.image.path,
                fix="leave one out if they are the same image, else give this one its own RPC",
            )
    levels = [[footprint(v, LONLAT, h) for v in views] for h in np.linspace(*heights, 9)]
    for i, view in enumerate(views):
        if not any(prints[i].intersects(p) for prints in levels for j, p in enumerate(prints) if j != i):
            raise OverlapError(
                "image shares no ground with any other image of the scene",
                where=view.image.path,
                fix="check that all images show the same place",
            )


def load_lidar(scene: Scene, views: list[View], height: float) -> LidarSet | None:
    """Usable ground returns over the images, in the frame of the output; None if the scene names no lidar.

    Raises LidarError, InputFileError, ConfigError (rules, columns of tables), FrameError.
    """
    rules, target = rule_set(scene.config.lidar_rules), target_frame(scene.config.output)
    if not scene.lidar:
        if target is not None:
            raise FrameError(f"output frame {target.name} needs lidar: images alone are tied to WGS 84 within metres",
                             fix="leave output.frame out")  # fmt: skip
        return None
    bounds = np.array([footprint(v, LONLAT, height).bounds for v in views])
    west, south = bounds[:, :2].min(axis=0) - SEARCH_MARGIN_DEG
    east, north = bounds[:, 2:].max(axis=0) + SEARCH_MARGIN_DEG
    return read_lidar(scene.lidar, (west, south, east, north), rules, scene.lidar_formats, target)


def load_water(scene: Scene, crs: str) -> GivenWater:
    """Waters of the configuration in the CRS of the run. Raises InputFileError, FrameError, ConfigError."""
    flatten = scene.config.water.flatten
    if scene.water_polygons is None:
        return GivenWater(flatten=flatten)
    found = read_polygons(scene.water_polygons, crs)
    column = found.columns.get("kind", np.full(len(found.shapes), ""))
    kinds = tuple("" if k is None or k != k else str(k).strip().lower() for k in column)
    unknown = sorted(set(kinds) - set(CODES))
    if unknown:
        known = ", ".join(k for k in CODES if k)
        raise ConfigError(f"water of kind '{unknown[0]}'", where=scene.water_polygons, fix=f"one of: {known}; or none")
    return GivenWater(tuple(found.shapes), kinds, flatten)


def load_reference(scene: Scene) -> HeightFile | None:
    """Reference DEM of the configuration, its heights read over the ellipsoid.

    Raises InputFileError, and FrameError where its vertical reference is not known, or is not what the file declares.
    """
    given = scene.reference_dem
    if given is None:
        return None
    file = open_heights(Path(given.path), metres=False)
    if given.vertical is not None:
        stated = vertical_from_name(given.vertical, scene.folder)
        if file.vertical.is_declared and file.vertical.name != stated.name:
            raise FrameError(f"declares heights over {file.vertical.name}, reference_dem.vertical is {stated.name}",
                             where=file.path, fix="leave reference_dem.vertical out or correct it")  # fmt: skip
        file = file.over_stated(stated)
    if not file.vertical.is_declared:
        raise FrameError("declares no vertical reference", where=file.path,
                         fix="state it: reference_dem: {path:, vertical: egm96}")  # fmt: skip
    return over(file, ELLIPSOID)[0]


def load_options(scene: Scene, crs: str) -> SurfaceOptions:
    """What the configuration says of the surfaces. Raises as ``load_water`` and ``load_reference`` do."""
    output = scene.config.output
    envelope = output.surface == "envelope"
    return SurfaceOptions(load_water(scene, crs), load_reference(scene), output.super_resolution, envelope)


def target_frame(output: OutputConfig) -> TargetFrame | None:
    """Terrestrial frame that the configuration asks for; None for that of the lidar. Raises FrameError."""
    if output.frame == AUTO:
        if output.epoch is not None or output.plate is not None:
            raise FrameError("output epoch and plate need a frame", fix="such as frame: ITRF2020")
        return None
    crs_of_frame(output.frame)
    return TargetFrame(output.frame, output.epoch, output.plate)


def mean_height(views: list[View], lidar: LidarSet | None = None) -> float:
    """A first guess of the scene's height: the lidar's median, else the middle of what the RPCs are valid for."""
    if lidar is not None and len(lidar.returns):
        return float(np.median(lidar.returns.height))
    low, high = height_limits(views)
    return (low + high) / 2
