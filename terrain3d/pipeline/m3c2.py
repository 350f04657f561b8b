"""Two clouds to distances along normals: units and references, co-registration, core points, the file of results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terrain3d.change.align import Alignment
from terrain3d.change.m3c2 import (
    M3C2Distances,
    M3C2Options,
    core_points,
    default_options,
    joined,
    m3c2,
    point_spacing,
)
from terrain3d.crs import Reference, transform_xy
from terrain3d.errors import ConfigError, FrameError, OverlapError
from terrain3d.io.atomic import write_text
from terrain3d.io.positions import CloudFile, Positions, cloud_file, read_positions
from terrain3d.io.vectors import write_layer
from terrain3d.pipeline.change_folder import read_change_folder
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import scratch_folder
from terrain3d.pipeline.tiled_points import TiledPoints, spread

Floats = NDArray[np.float64]
SQUARE_POINTS = 400_000  # of the first cloud in a square, about
SIGMAS = 1_000_000  # that tell the median of all


@dataclass(frozen=True)
class M3C2Request:
    """What to measure. Lengths in metres, or in the file's own units if ``file_units``.

    core: file of core points; one point of the first cloud a cylinder radius if None. change: folder of
    ``terrain3d change``, whose shift, tilt and registration sigma are then used. normal_radius and so on: None for
    values that fit the spacing of the points.
    """

    before: Path
    after: Path
    out: Path
    core: Path | None = None
    change: Path | None = None
    normal_radius: float | None = None
    cylinder_radius: float | None = None
    half_length: float | None = None
    registration: float | None = None
    file_units: bool = False


@dataclass(frozen=True)
class M3C2Outcome:
    """core: (N, 3) in the units of the first file; distances and options in metres, or in file units if so asked."""

    core: Floats
    distances: M3C2Distances
    options: M3C2Options


def run_m3c2(request: M3C2Request, reporter: Reporter) -> M3C2Outcome:
    """Distances of two clouds, written to a GeoPackage (.gpkg) or table (.csv). Raises Terrain3dError.

    The clouds are spread over squares on disk beside the result and measured square by square, so that memory does not
    grow with them; what is in memory of the whole are the core points and their distances.
    """
    if request.out.suffix.lower() not in (".gpkg", ".csv"):
        raise ConfigError("results are written as .gpkg or .csv", where=request.out)
    reporter.stage("reading")
    first, second = cloud_file(request.before), cloud_file(request.after)
    scale = np.ones(3) if request.file_units else np.array([first.units[0], first.units[0], first.units[1]])
    folder = None if request.change is None else read_change_folder(request.change)
    _check_vertical(second.reference, first.reference, request.after)
    known = None if request.core is None else _given_core(request.core, first) * scale
    sigmas: list[NDArray[np.float32]] = []

    def before() -> Iterator[Floats]:
        for xyz, sigma in first.parts():
            sigmas.append(sigma[:: 1 + first.count // SIGMAS])
            yield xyz * scale

    def after() -> Iterator[Floats]:
        for xyz, _ in second.parts():
            moved = _in_frame(xyz, second, first) * scale
            yield moved if folder is None else _moved_back(moved, folder.alignment)

    with scratch_folder(request.out.parent) as scratch:
        side = _side(first, scale[0])
        clouds = spread(before(), scratch / "before", side), spread(after(), scratch / "after", side)
        own = np.concatenate(sigmas) if sigmas else np.zeros(0, np.float32)
        options = _options(request, clouds[0], float(np.median(own)) * scale[2] if own.size else 0.0)
        if folder is not None and request.registration is None:
            options = replace(options, registration=folder.registration)
        core, distances = _measured(clouds, known, options, reporter)
    if not np.isfinite(distances.distance).any():
        raise OverlapError(
            "no core point has points of both clouds near it", where=request.after,
            fix="check that the clouds lie in one place, or give a longer half length",
        )  # fmt: skip
    reporter.stage("writing")
    outcome = M3C2Outcome(core / scale, distances, options)
    columns = columns_of(outcome)
    if request.out.suffix.lower() == ".csv":
        write_text(request.out, _csv(outcome.core, columns))
    else:
        crs = first.reference.horizontal
        write_layer(request.out, "m3c2", shapely.points(outcome.core), columns, crs, geometry_type="Point Z")
    return outcome


def _side(cloud: CloudFile, scale: float) -> float:
    """Side of the squares, in scaled units, that hold about SQUARE_POINTS points each."""
    extent = np.maximum(np.ptp(cloud.extent, axis=0) * scale, 1e-3)
    return float(np.sqrt(extent[0] * extent[1] * min(1.0, SQUARE_POINTS / max(cloud.count, 1)))) + 1e-3


def _options(request: M3C2Request, before: TiledPoints, sigma: float) -> M3C2Options:
    found = default_options(point_spacing(before, before.low, before.high, before.count), sigma)
    return M3C2Options(
        normal_radius=request.normal_radius or found.normal_radius,
        cylinder_radius=request.cylinder_radius or found.cylinder_radius,
        half_length=request.half_length or found.half_length,
        registration=request.registration or 0.0,
    )


def _measured(
    clouds: tuple[TiledPoints, TiledPoints], known: Floats | None, options: M3C2Options, reporter: Reporter
) -> tuple[Floats, M3C2Distances]:
    """Core points and their distances, square by square. known: given core points, whose order is kept."""
    margin = max(options.normal_radius, float(np.hypot(options.cylinder_radius, options.half_length)))
    # Squares hold whole cubes of ``core_points``, so that each cube's point is what it would be of the whole cloud.
    per_side = max(1, int(clouds[0].side / options.cylinder_radius))
    side = per_side * options.cylinder_radius

    def square_of(points: Floats) -> NDArray[np.int64]:
        return np.asarray(np.floor(points[:, :2] / options.cylinder_radius).astype(np.int64) // per_side)

    if known is None:
        low, high = square_of(np.stack([clouds[0].low, clouds[0].high]))
        squares = [(i, j) for i in range(low[0], high[0] + 1) for j in range(low[1], high[1] + 1)]
    else:
        owner = square_of(known)
        squares = sorted({(int(i), int(j)) for i, j in owner})
    reporter.stage("m3c2", len(squares))
    cores, found, places = [np.zeros((0, 3))], [m3c2(*(np.zeros((0, 3)),) * 3, options)], [np.zeros(0, np.int64)]
    for square in squares:
        west_south = np.array(square) * side
        if known is None:
            points = clouds[0].within(west_south, west_south + side)
            points = points[(square_of(points) == square).all(axis=1)]
            here = core_points(points, options.cylinder_radius) if len(points) else points
        else:
            places.append(np.flatnonzero((owner == square).all(axis=1)))
            here = known[places[-1]]
        if len(here):
            near = [c.within(here.min(axis=0) - margin, here.max(axis=0) + margin) for c in clouds]
            cores.append(here)
            found.append(m3c2(near[0], near[1], here, options))
        reporter.step()
    core, distances = np.concatenate(cores), joined(found)
    if known is None:
        return core, distances
    order = np.argsort(np.concatenate(places))
    return core[order], M3C2Distances(**{n: v[order] for n, v in vars(distances).items()})


def _given_core(path: Path, frame: CloudFile) -> Floats:
    """Given core points in the units and CRS of ``frame``."""
    known = read_positions(path)
    if known.reference is None:
        return known.xyz
    _check_vertical(known.reference, frame.reference, path)
    return _in_frame(known.xyz, known, frame)


def _check_vertical(own: Reference, other: Reference, path: Path) -> None:
    """Raises FrameError if heights are declared to be over different references."""
    if own.vertical.name != other.vertical.name and own.vertical.is_declared and other.vertical.is_declared:
        raise FrameError(
            f"heights are in '{own.vertical.name}', those of the first cloud in '{other.vertical.name}'", where=path,
            fix="bring both clouds into one vertical reference",
        )  # fmt: skip


def _in_frame(xyz: Floats, own: CloudFile | Positions, frame: CloudFile) -> Floats:
    """Positions in the horizontal CRS and the units of ``frame``."""
    assert own.reference is not None
    x, y = transform_xy(own.reference.horizontal, frame.reference.horizontal, xyz[:, 0], xyz[:, 1])
    return np.column_stack([x, y, xyz[:, 2] * own.units[1] / frame.units[1]])


def _moved_back(xyz: Floats, a: Alignment) -> Floats:
    """Points of the later cloud moved onto the earlier one."""
    moved = xyz - [a.east, a.north, 0.0]
    moved[:, 2] -= a.height_at(moved[:, 0], moved[:, 1])
    return np.asarray(moved)


def columns_of(outcome: M3C2Outcome) -> dict[str, NDArray[Any]]:
    """Columns of the results, one row a core point."""
    d = outcome.distances
    return {
        "distance": d.distance, "limit": d.limit, "significant": d.significant.astype(np.int32),
        "spread_before": d.spread_before, "spread_after": d.spread_after,
        "n_before": d.n_before, "n_after": d.n_after,
        "normal_east": d.normals[:, 0], "normal_north": d.normals[:, 1], "normal_up": d.normals[:, 2],
    }  # fmt: skip


def _csv(core: Floats, columns: dict[str, NDArray[Any]]) -> str:
    whole = {"x": core[:, 0], "y": core[:, 1], "z": core[:, 2], **columns}
    lines = [",".join(whole)]
    lines += [
        ",".join("" if not np.isfinite(v) else f"{v:.10g}" for v in row) for row in zip(*whole.values(), strict=True)
    ]
    return "\n".join(lines) + "\n"
