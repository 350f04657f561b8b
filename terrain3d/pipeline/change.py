"""Two epochs to the products of change: rasters, polygons, tiles to update, figures, report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terrain3d.change.epoch import Epoch, load_epoch
from terrain3d.change.result import ChangeOptions, ChangeResult, Region
from terrain3d.config import load_scene
from terrain3d.crs import LONLAT
from terrain3d.export.report import write_report
from terrain3d.io.atomic import write_json
from terrain3d.io.rasters import HEIGHT_NODATA, bounded_cache, write_strips
from terrain3d.io.scratch import StoredRaster
from terrain3d.io.vectors import NamedLayer, write_layers
from terrain3d.pipeline.change_report import change_report
from terrain3d.pipeline.change_tiles import RankedTile, TileScheme, check_scheme, rank_tiles, tile_layer, tiles_of
from terrain3d.pipeline.detect import detect_stored
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.quick import quick_model
from terrain3d.pipeline.scratch_folder import all_or_none, check_apart, scratch_folder
from terrain3d.stats import nmad
from terrain3d.tiles import on_earth, reproject

STRIP_ROWS = 512
SQUARE = 100.0  # metres, of the layer that tells what could be detected
STABLE_SQUARE = 200.0  # metres, of the layer of stable ground
LEAST_CELLS = 20  # of a square
STABLE_CELLS = 20_000  # of a square, plenty for its median and spread
COLUMNS: dict[str, type] = {
    "kind": str, "area_m2": float, "mean_dz_m": float, "volume_m3": float, "volume_sigma_m3": float,
    "confidence": float, "extreme_dz_m": float, "ground_volume_m3": float, "ground_volume_sigma_m3": float, "part": str,
    "event": int, "cover_before": str, "cover_after": str, "tone": float, "date_before": str, "date_after": str,
}  # fmt: skip


def run_change(
    before: Path,
    after: Path,
    out: Path,
    options: ChangeOptions,
    reporter: Reporter,
    *,
    tiles: TileScheme | None = None,
    workers: int = 1,
    notes: Sequence[str] = (),
) -> ChangeResult[StoredRaster]:
    """Detect change between two run folders or DSMs and write all products to ``out``. Raises Terrain3dError.

    The rasters of the result are gone when this returns; what it says of the regions and the scene stays.
    """
    check_apart(out, [before, after])
    reporter.stage("reading")
    first, second = load_epoch(before), load_epoch(after)
    scheme = tiles or TileScheme()
    check_scheme(scheme)
    with bounded_cache(), scratch_folder(out) as folder:
        result = detect_stored(first, second, options, folder, workers, reporter)
        result = replace(result, notes=(*notes, *result.notes))
        for note in result.notes:
            reporter.note(note)
        grid = result.difference.grid
        ranked = rank_tiles(result, tiles_of(scheme, grid))
        reporter.stage("writing", 6)
        with all_or_none(folder, out) as ready:
            write_change_raster(ready / "change.tif", (result.difference, result.sigma, result.significant))
            reporter.step()
            write_strips(
                ready / "detectable.tif", grid, _rounded(result.detectable), np.float32, level=1, nodata=HEIGHT_NODATA,
                band_names=("smallest height change that would have been seen, m",), heights=False,
            )  # fmt: skip
            reporter.step()
            told = (options.vertical_before, options.vertical_after)
            named = {"before": str(before), "after": str(after), "vertical_told": list(told)}
            write_findings(result, first, second, ranked, named, ready, reporter)
    return result


def write_findings(
    result: ChangeResult[StoredRaster], first: Epoch, second: Epoch, ranked: Sequence[RankedTile],
    named: dict[str, Any], out: Path, reporter: Reporter, *, changed: datetime | None = None,
) -> None:  # fmt: skip
    """Write ``change.gpkg``, ``change.geojson``, ``quality.json`` and ``report.html``.

    named: what ``quality.json`` says of the epochs. changed: as of ``write_layers``. Raises OutputError.
    """
    grid = result.difference.grid
    columns = change_columns(result.regions, first.date, second.date)
    polygons = [r.polygon for r in result.regions]
    layers = [NamedLayer("changes", polygons, columns), *_squares(result), tile_layer(ranked, grid)]
    write_layers(out / "change.gpkg", layers, grid.reference.horizontal, changed=changed)
    reporter.step()
    write_json(out / "change.geojson", _geojson(polygons, columns, grid.reference.horizontal))
    reporter.step()
    figures = {"dates": [first.date, second.date], "tiles": _tile_figures(ranked)}
    write_json(out / "quality.json", {**named, **result.quality(), **figures})
    reporter.step()
    write_report(out / "report.html", change_report(result, first, second, ranked))
    reporter.step()


def write_change_raster(path: Path, rasters: tuple[StoredRaster, StoredRaster, StoredRaster]) -> None:
    """Write difference, its sigma and what is significant as the bands of one file. Raises OutputError."""
    write_strips(
        path, rasters[0].grid, _bands(rasters), np.float32, nodata=HEIGHT_NODATA, bands=3, heights=False, level=1,
        band_names=("height difference after - before, m", "1-sigma, m", "significant"),
    )  # fmt: skip


def run_quick_change(
    before: Path,
    scene: Path,
    out: Path,
    options: ChangeOptions,
    reporter: Reporter,
    *,
    tiles: TileScheme | None = None,
    workers: int = 1,
) -> ChangeResult[StoredRaster]:
    """Change from the last model to a coarse one of a scene's best pair, which stays in ``out/rapid/model``.

    What was given up for the time is in the notes of the result. Raises Terrain3dError.
    """
    check_apart(out, [before])
    load_epoch(before)  # what is wrong with it shows before the work
    with scratch_folder(out):  # for ``out`` to be gone if nothing comes of it
        model = quick_model(load_scene(scene), out / "rapid", reporter, workers)
    return run_change(before, model.folder, out, options, reporter, tiles=tiles, workers=workers, notes=model.given_up)


def _rounded(raster: StoredRaster) -> Iterator[tuple[int, NDArray[Any]]]:
    """Strips to about a millimetre: binary digits far below any sigma take most of the time of compression."""
    for row, values in raster.strips(STRIP_ROWS):
        yield row, (np.round(values * np.float32(1024)) / np.float32(1024) if values.dtype.kind == "f" else values)


def _bands(rasters: Sequence[StoredRaster]) -> Iterator[tuple[int, NDArray[Any]]]:
    for parts in zip(*(_rounded(r) for r in rasters), strict=True):
        yield parts[0][0], np.stack([values.astype(np.float32) for _, values in parts])


def change_columns(regions: Sequence[Region], date_before: str, date_after: str) -> dict[str, NDArray[Any]]:
    """Columns of the layer ``changes``, one row a region."""
    dates = {"date_before": date_before, "date_after": date_after}
    rows: list[dict[str, Any]] = [r.attributes() | dates for r in regions]
    return {name: np.array([r[name] for r in rows], dtype=kind) for name, kind in COLUMNS.items()}


def _squares(result: ChangeResult[StoredRaster]) -> list[NamedLayer]:
    """Squares of the scene: what could have been detected there, and what stable ground says of the differences."""
    detect: list[tuple[Any, float, float]] = []
    stable: list[tuple[Any, float, float, int]] = []
    for (values,), box in _windows((result.detectable,), SQUARE):
        known = values[np.isfinite(values)]
        if known.size >= LEAST_CELLS:
            detect.append((box, float(np.median(known)), known.size / values.size))
    for (d, s, changed), box in _windows((result.difference, result.sigma, result.significant), STABLE_SQUARE):
        with np.errstate(invalid="ignore"):
            quiet = d[(changed == 0) & (np.abs(d) < 4 * s)]
        if quiet.size >= LEAST_CELLS:
            some = quiet[:: 1 + quiet.size // STABLE_CELLS]
            stable.append((box, float(np.median(some)), nmad(some), int(quiet.size)))
    names = ("median_dz_m", "nmad_m", "cells")
    return [
        NamedLayer("detectability", [d[0] for d in detect], {
            "smallest_change_m": np.array([d[1] for d in detect], float),
            "compared_share": np.array([d[2] for d in detect], float),
        }),
        NamedLayer("stable", [s[0] for s in stable], {
            n: np.array([s[k] for s in stable], int if n == "cells" else float) for k, n in enumerate(names, 1)
        }),
    ]  # fmt: skip


def _windows(rasters: Sequence[StoredRaster], size: float) -> Iterator[tuple[list[NDArray[Any]], shapely.Polygon]]:
    """Values of the rasters in each square of ``size`` metres, and the square; read in strips as wide as the grid."""
    grid = rasters[0].grid
    step = max(round(size / grid.resolution), 1)
    for strips in zip(*(r.strips(step) for r in rasters), strict=True):
        row, first = strips[0]
        for column in range(0, grid.width, step):
            part = grid.window(row, column, first.shape[0], min(step, grid.width - column))
            yield [v[:, column : column + step] for _, v in strips], shapely.box(*part.bounds)


def _geojson(polygons: list[Any], columns: dict[str, NDArray[Any]], crs: str) -> dict[str, Any]:
    """The changes as GeoJSON (RFC 7946: WGS 84 longitude and latitude)."""
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(
                shapely.set_precision(on_earth(reproject(polygon, crs, LONLAT)), 1e-8)
            ),
            "properties": {name: values[k] for name, values in columns.items()},
        }
        for k, polygon in enumerate(polygons)
    ]
    return {"type": "FeatureCollection", "features": features}


def _tile_figures(ranked: Sequence[RankedTile]) -> list[dict[str, Any]]:
    return [{"code": t.tile.code, "changes": t.changes, "changed_area_m2": t.area} for t in ranked]
