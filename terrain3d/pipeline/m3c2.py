"""Two clouds to distances along normals: units and references, co-registration, core points, the file of results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terrain3d.change.align import Alignment
from terrain3d.change.m3c2 import M3C2Distances, M3C2Options, core_points, default_options, m3c2
from terrain3d.crs import transform_xy
from terrain3d.errors import ConfigError, FrameError, OverlapError
from terrain3d.io.atomic import write_text
from terrain3d.io.positions import Positions, read_cloud_positions, read_positions
from terrain3d.io.vectors import write_layer
from terrain3d.pipeline.change_folder import read_change_folder
from terrain3d.pipeline.progress import Reporter

Floats = NDArray[np.float64]


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
    """Distances of two clouds, written to a GeoPackage (.gpkg) or table (.csv). Raises Terrain3dError."""
    if request.out.suffix.lower() not in (".gpkg", ".csv"):
        raise ConfigError("results are written as .gpkg or .csv", where=request.out)
    reporter.stage("reading")
    first, second = read_cloud_positions(request.before), read_cloud_positions(request.after)
    scale = np.ones(3) if request.file_units else np.array([first.units[0], first.units[0], first.units[1]])
    before = first.xyz * scale
    after = _in_frame(second, first, request.after) * scale
    registration = 0.0
    if request.change is not None:
        folder = read_change_folder(request.change)
        after, registration = _moved_back(after, folder.alignment), folder.registration
    reporter.stage("m3c2")
    options = default_options(before, float(np.nan_to_num(first.sigma)) * scale[2])
    options = replace(
        options,
        normal_radius=request.normal_radius or options.normal_radius,
        cylinder_radius=request.cylinder_radius or options.cylinder_radius,
        half_length=request.half_length or options.half_length,
        registration=registration if request.registration is None else request.registration,
    )
    if request.core is None:
        core = core_points(before, options.cylinder_radius)
    else:
        known = read_positions(request.core)
        core = (_in_frame(known, first, request.core) if known.reference else known.xyz) * scale
    distances = m3c2(before, after, core, options)
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
        assert first.reference is not None
        crs = first.reference.horizontal
        write_layer(request.out, "m3c2", shapely.points(outcome.core), columns, crs, geometry_type="Point Z")
    return outcome


def _in_frame(points: Positions, frame: Positions, path: Path) -> Floats:
    """Positions in the CRS and vertical reference of ``frame``, and in its units. Raises FrameError."""
    own, other = points.reference, frame.reference
    assert own is not None and other is not None
    if own.vertical.name != other.vertical.name and own.vertical.is_declared and other.vertical.is_declared:
        raise FrameError(
            f"heights are in '{own.vertical.name}', those of the first cloud in '{other.vertical.name}'", where=path,
            fix="bring both clouds into one vertical reference",
        )  # fmt: skip
    x, y = transform_xy(own.horizontal, other.horizontal, points.xyz[:, 0], points.xyz[:, 1])
    return np.column_stack([x, y, points.xyz[:, 2] * points.units[1] / frame.units[1]])


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
