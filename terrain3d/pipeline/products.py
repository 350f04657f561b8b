"""Files of a finished run: the contract of its output folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import shapely
import yaml
from shapely.geometry.base import BaseGeometry

from terrain3d import __version__
from terrain3d.crs import ELLIPSOID, Reference, to_lonlat
from terrain3d.export.report import write_report
from terrain3d.export.stac import Asset, stac_item
from terrain3d.io.atomic import write_json, write_text
from terrain3d.io.clouds import write_cloud
from terrain3d.io.geoid import convert_heights, to_vertical
from terrain3d.io.rasters import HEIGHT_NODATA, write_strips
from terrain3d.io.scratch import StoredRaster
from terrain3d.io.vectors import NamedLayer, place_ids, write_layers
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.quality import quality
from terrain3d.pipeline.resolutions import folder_name
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.run_report import run_report
from terrain3d.pipeline.spool import Spool
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.pipeline.threads import for_each
from terrain3d.pipeline.trees import tree_layers
from terrain3d.pipeline.waters import WaterBody, shorelines
from terrain3d.points import PointCloud
from terrain3d.raster import Floats, Raster
from terrain3d.surface.mask import MaskCode

Writer = Callable[[], object]  # writes a file, or files that belong together
STRIP_ROWS = 512
RASTERS = 7  # of ``raster_writers``
RUN_FILES = RASTERS + 6
SUPER = "ortho_super.tif"
OF_COARSER = re.compile(r"[0-9][0-9.e+]*m/(dsm|dtm|dsm_sigma|dtm_sigma|chm|ortho|mask)\.tif")


def write_products(result: RunResult, spool: Spool, out: Path, workers: int, reporter: Reporter) -> None:
    """Write all files of the contract, each whole or not at all, several at once. Raises OutputError."""
    reference, surfaces = result.reference, result.surfaces
    move = None if result.registration is None else result.registration.move
    clouds = (to_output(c, reference) for c in spool.clouds(move))
    figures = quality(result)
    writers: list[Writer] = [
        lambda: write_cloud(out / "cloud.laz", clouds),  # takes longest
        *raster_writers(surfaces, reference, out),
        lambda: write_report(out / "report.html", run_report(result, figures)),
        lambda: _write_layers(result, out),
        lambda: write_text(
            out / "config.yaml", yaml.safe_dump(result.scene.completed(), sort_keys=False, allow_unicode=True)
        ),
        lambda: write_json(out / "quality.json", figures),
    ]
    for level in result.coarser:
        writers += raster_writers(level, reference, out / folder_name(level.dsm.grid.resolution))
    for_each(lambda write: write(), writers, workers, reporter)
    write_json(out / "item.json", _item(result, out))
    reporter.step()


def _write_layers(result: RunResult, out: Path) -> None:
    """Water and trees, one after the other: GDAL's settings for vectors are those of the process."""
    crs = result.reference.horizontal
    write_layers(out / "water.gpkg", water_layers(result.surfaces.waters, result.reference), crs)
    write_layers(out / "trees.gpkg", tree_layers(result.surfaces), crs)


def optional_files(out: Path) -> list[Path]:
    """Files, relative to ``out``, that by its STAC item a run left there and another need not write: the super-resolved
    ortho, and rasters of coarser cells."""
    try:
        assets = json.loads((out / "item.json").read_text(encoding="utf-8"))["assets"].values()
        named = [PurePosixPath(a["href"]) for a in assets]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    inside = [Path(*n.parts) for n in named if n == PurePosixPath(SUPER) or OF_COARSER.fullmatch(str(n))]
    return [f for f in inside if (out / f).is_file() and not (out / f).parent.is_symlink()]


def raster_writers(s: Surfaces, reference: Reference, out: Path, prefix: str = "") -> list[Writer]:
    """What writes the rasters, heights over the vertical reference, one a file. prefix: of the names of the files. They
    raise OutputError."""

    def heights(name: str, raster: StoredRaster) -> None:
        grid = replace(raster.grid, reference=reference)
        strips = ((top, to_vertical(strip, reference.vertical).values) for top, strip in _strips(raster))
        write_strips(
            out / f"{prefix}{name}.tif", grid, strips, np.float32, nodata=HEIGHT_NODATA, band_names=("height",)
        )

    def lengths(name: str, raster: StoredRaster, band: str) -> None:
        _write(out / f"{prefix}{name}.tif", raster, nodata=HEIGHT_NODATA, band_names=(band,))

    def ortho() -> None:
        _write_ortho(out / f"{prefix}ortho.tif", s.ortho)
        if s.finer:
            _write_ortho(out / f"{prefix}{SUPER}", s.finer)

    codes = ", ".join(f"{c.value} {c.name.lower()}" for c in MaskCode)
    return [
        partial(heights, "dsm", s.dsm),
        partial(heights, "dtm", s.dtm),
        partial(lengths, "dsm_sigma", s.dsm_sigma, "1-sigma of dsm, m"),
        partial(lengths, "dtm_sigma", s.dtm_sigma, "1-sigma of dtm, m"),
        partial(lengths, "chm", s.chm, "height above ground, m"),
        ortho,
        partial(_write, out / f"{prefix}mask.tif", s.mask, nodata=int(MaskCode.NODATA), tags={"CODES": codes}),
    ]


def _strips(raster: StoredRaster) -> Iterator[tuple[int, Raster]]:
    for top, values in raster.strips(STRIP_ROWS):
        yield top, Raster(values, raster.grid.window(top, 0, *values.shape))


def _write(path: Path, raster: StoredRaster, **options: Any) -> None:
    write_strips(path, raster.grid, raster.strips(STRIP_ROWS), raster.dtype, heights=False, **options)


def _write_ortho(path: Path, bands: tuple[StoredRaster, ...]) -> None:
    grid, kind = bands[0].grid, bands[0].dtype
    together = zip(*(b.strips(STRIP_ROWS) for b in bands), strict=True)
    strips = ((parts[0][0], np.stack([values for _, values in parts])) for parts in together)
    names = [f"band {i}" for i in range(1, len(bands) + 1)] if len(bands) > 1 else ()
    write_strips(path, grid, strips, kind, nodata=0 if kind.kind == "u" else HEIGHT_NODATA, heights=False,
                 overviews="average", bands=len(bands), band_names=names)  # fmt: skip


def water_layers(bodies: Sequence[WaterBody], reference: Reference) -> list[NamedLayer]:
    """Layers ``water``, bodies with their levels, and ``shorelines``, with the level at each vertex, over the vertical
    reference."""

    def over(shape: BaseGeometry, height: Floats) -> Floats:
        """Heights at the vertices of a shape."""
        lon, lat = to_lonlat(reference.horizontal, *shapely.get_coordinates(shape).T)
        return convert_heights(lon, lat, height, ELLIPSOID, reference.vertical)

    ids = place_ids([b.outline for b in bodies])
    ends = np.array(
        [
            [over(b.outline.representative_point(), np.array([h]))[0] for h in (b.level.low, b.level.high)]
            for b in bodies
        ],
        float,
    ).reshape(-1, 2)
    columns = {
        "id": ids,
        "kind": np.array([str(b.level.kind) for b in bodies], str),
        "level_m": ends.mean(axis=1),
        "sigma_m": np.array([b.sigma for b in bodies], float),
        "lowest_m": ends[:, 0],
        "highest_m": ends[:, 1],
        "area_m2": np.array([b.outline.area for b in bodies], float),
        "source": np.array(["polygons" if b.given else "images" for b in bodies], str),
    }
    shores, lines = shorelines(bodies), []
    for _, line in shores:
        xyz = shapely.get_coordinates(line, include_z=True)
        lines.append(shapely.LineString(np.column_stack([xyz[:, :2], over(line, xyz[:, 2])])))
    return [
        NamedLayer("water", [b.outline for b in bodies], columns),
        NamedLayer("shorelines", lines, {"water_id": ids[[n - 1 for n, _ in shores]]}, "LineString"),
    ]


def to_output(cloud: PointCloud, reference: Reference) -> PointCloud:
    """Cloud over the vertical reference of the output."""
    if reference.vertical.is_ellipsoid:
        return cloud
    lon, lat = to_lonlat(cloud.reference.horizontal, cloud.xyz[:, 0], cloud.xyz[:, 1])
    z = convert_heights(lon, lat, cloud.xyz[:, 2], cloud.reference.vertical, reference.vertical)
    xyz = np.column_stack([cloud.xyz[:, :2], z])
    return PointCloud(reference, xyz, cloud.sigma, cloud.confidence, cloud.pair, cloud.intensity)


def _item(result: RunResult, out: Path) -> dict[str, object]:
    assets = [
        Asset("dsm", out / "dsm.tif", "Digital surface model", unit="m"),
        Asset("dsm_sigma", out / "dsm_sigma.tif", "1-sigma of the surface model", unit="m"),
        Asset("dtm", out / "dtm.tif", "Digital terrain model", unit="m"),
        Asset("dtm_sigma", out / "dtm_sigma.tif", "1-sigma of the terrain model", unit="m"),
        Asset("chm", out / "chm.tif", "Height above ground", unit="m"),
        Asset("ortho", out / "ortho.tif", "True orthophoto"),
        Asset("mask", out / "mask.tif", "Why a cell is what it is", roles=("metadata",)),
        Asset("water", out / "water.gpkg", "Bodies of water and shorelines"),
        Asset("trees", out / "trees.gpkg", "Tree tops and stands"),
        Asset("cloud", out / "cloud.laz", "Point cloud"),
        Asset("quality", out / "quality.json", "Accuracy figures", roles=("metadata",)),
        Asset("report", out / "report.html", "Report", roles=("overview",)),
        Asset("config", out / "config.yaml", "Configuration as used", roles=("metadata",)),
    ]
    for cell in (level.dsm.grid.resolution for level in result.coarser):
        place = folder_name(cell)
        assets += [
            replace(a, key=f"{a.key}_{place}", path=out / place / a.path.name, title=f"{a.title}, cells of {cell:g} m")
            for a in assets[:RASTERS]
        ]
    if result.surfaces.finer:
        assets.append(Asset("ortho_super", out / SUPER, "True orthophoto, super-resolved"))
    times = sorted(v.acquired for v in result.views if v.acquired is not None)
    grid = replace(result.surfaces.dsm.grid, reference=result.reference)
    lineage = f"terrain3d {__version__}: stereo of {len(result.views)} images, {len(result.pairs)} pairs considered"
    return stac_item(
        result.scene.config.name, grid, assets, folder=out,
        start=times[0] if times else None, end=times[-1] if times else None, lineage=lineage,
    )  # fmt: skip
