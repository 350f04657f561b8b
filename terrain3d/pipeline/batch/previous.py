"""What changed in an area since previous models: over the whole area, so without seams, and cut into its tiles."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from shapely.geometry.base import BaseGeometry

from terrain3d import __version__
from terrain3d.change.epoch import Epoch, load_epoch
from terrain3d.change.result import ChangeOptions, ChangeResult
from terrain3d.errors import OutputError, Terrain3dError
from terrain3d.export.stac import Asset, in_collection, stac_item
from terrain3d.io.atomic import output_error, write_json
from terrain3d.io.mosaic import write_mosaic
from terrain3d.io.objects import Desk, DeskShelf, sha256_of
from terrain3d.io.scratch import StoredRaster, padded
from terrain3d.pipeline.batch.area import Previous
from terrain3d.pipeline.batch.catalog import CHANGE, ChangeSet
from terrain3d.pipeline.batch.engine import BatchEngine, BlocksFailed
from terrain3d.pipeline.batch.inputs import PREVIOUS
from terrain3d.pipeline.batch.manifest import Manifest, Problem
from terrain3d.pipeline.batch.sheets import Sheet
from terrain3d.pipeline.change import write_change_raster, write_findings
from terrain3d.pipeline.change_tiles import rank_tiles
from terrain3d.pipeline.detect import detect_stored
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.scratch_folder import scratch_folder
from terrain3d.raster import Bounds, Grid
from terrain3d.tiles import Tile, reproject

LAYERS = ("dsm", "dsm_sigma", "mask", "dtm", "dtm_sigma", "ortho")  # that change detection looks at
SUMS = "SHA256SUMS"


def changes_since(
    model: Previous, sheets: Sequence[Sheet], sums: dict[str, str], crs: str, end: datetime, desk: Desk,
    engine: BatchEngine, manifest: Manifest, collection: str, reporter: Reporter,
) -> ChangeSet | None:  # fmt: skip
    """Products of the change from a previous model to the mosaics of a batch, in ``out/change/NAME``.

    They are known from before if model, tiles and version are the same and all files are whole. sheets: tiles that have
    data. sums: SHA-256 of their products. end: time of the newest image. collection: its name. None, and a line in the
    manifest, where the models cannot be compared. Raises OutputError (full disk).
    """
    out = desk.out
    try:
        before = load_epoch(model.path)
        told = ChangeOptions(vertical_before=model.vertical)
        seen = sorted(v for k, v in sums.items() if k.endswith(tuple(f"_{layer}.tif" for layer in LAYERS)))
        key = engine.mark((before, told, _sums_beside(model.path), seen, [s.outline for s in sheets]))
        known = manifest.noted(f"{CHANGE} {model.name}")
        if known is not None and known["key"] == key and _whole(out / CHANGE / model.name, known["files"]):
            return ChangeSet(model.name, known["files"])
        with engine.resting_on(key):
            files = _compared(model, before, told, sheets, crs, end, desk, engine, collection, reporter)
    except OutputError:
        raise
    except (Terrain3dError, BlocksFailed) as error:
        manifest.add_problem(Problem(PREVIOUS, str(model.path), str(error)))
        reporter.note(f"left out: {error}")
        return None
    manifest.note(f"{CHANGE} {model.name}", {"key": key, "files": files})
    return ChangeSet(model.name, files)


def _compared(
    model: Previous, before: Epoch, told: ChangeOptions, sheets: Sequence[Sheet], crs: str, end: datetime,
    desk: Desk, engine: BatchEngine, collection: str, reporter: Reporter,
) -> dict[str, str]:  # fmt: skip
    """Detect the changes and write their products; names and SHA-256. The folder is there whole or not at all."""
    out = desk.out
    after = load_epoch(out)
    with scratch_folder(out / CHANGE) as scratch:
        ready = scratch / "products"
        ready.mkdir()
        result = detect_stored(before, after, told, DeskShelf(desk, f"{CHANGE} {model.name}"), engine, reporter)
        for note in result.notes:
            reporter.note(f"{model.name}: {note}")
        ranked = rank_tiles(result, [Tile(s.code, s.outline, crs) for s in sheets])
        reporter.stage(f"change since {model.name}", 4 + len(sheets))
        named = {"before": str(model.path), "after": str(out), "vertical_told": [told.vertical_before, None]}
        write_findings(result, before, after, ranked, named, ready, reporter, changed=end)
        own = result.difference.grid
        outlines = [reproject(s.outline, crs, own.reference.horizontal) for s in sheets]
        items = [_ChangeTile(s.code, _cells_of(o, own)) for s, o in zip(sheets, outlines, strict=True)]
        write = _tile_writer(result, _times(before, end), ready, model.name, collection)
        made: list[str | None] = [*engine.each(write, items, reporter)]
        failed = [i.code for i, name in zip(items, made, strict=True) if name is None]
        if failed:
            raise Terrain3dError(f"tiles {', '.join(failed)} of the change failed", fix="see --status")
        write_mosaic(ready / f"{CHANGE}.vrt", [ready / name for name in made if name])
        folder = out / CHANGE / model.name
        try:
            shutil.rmtree(folder, ignore_errors=True)
            ready.rename(folder)
        except OSError as error:
            raise output_error(folder, error) from error
    return {p.relative_to(out).as_posix(): str(sha256_of(p)) for p in sorted(folder.iterdir()) if _is_kept(p)}


def _is_kept(path: Path) -> bool:
    """Overviews of the mosaic are no product of their own."""
    return path.suffix != ".ovr"


@dataclass(frozen=True)
class _ChangeTile:
    """A tile of the change on the cells of the comparison."""

    code: str
    grid: Grid

    @property
    def bounds(self) -> Bounds:
        return self.grid.bounds


def _tile_writer(
    result: ChangeResult[StoredRaster], times: tuple[datetime, datetime], out: Path, name: str, collection: str
) -> Callable[[_ChangeTile], str]:
    """Work that writes raster and STAC item of a tile; it gives the raster's name, empty if nothing was compared."""
    rasters = result.difference, result.sigma, result.significant

    def work(tile: _ChangeTile) -> str:
        difference, sigma, significant = (padded(r, tile.grid) for r in rasters)
        if not any(np.isfinite(values).any() for _, values in difference.strips(512)):
            return ""
        path = out / f"{tile.code}_{CHANGE}.tif"
        write_change_raster(path, (difference, sigma, significant))
        assets = [Asset(CHANGE, path, "Height difference, its 1-sigma, significant 0 / 1", unit="m")]
        described = stac_item(f"{tile.code}_{CHANGE}_{name}", tile.grid, assets, folder=out, start=times[0],
                              end=times[1], lineage=f"terrain3d {__version__}: change since {name}")  # fmt: skip
        write_json(out / f"{tile.code}_{CHANGE}.json", in_collection(described, collection))
        return path.name

    return work


def _cells_of(outline: BaseGeometry, like: Grid) -> Grid:
    """The cells of a grid, continued beyond it, that an outline touches."""
    r = like.resolution
    west, south, east, north = outline.bounds
    left, top = (int(np.floor(v / r + 1e-6)) for v in (west - like.west, like.north - north))
    right, bottom = (int(np.ceil(v / r - 1e-6)) for v in (east - like.west, like.north - south))
    return Grid(like.reference, like.west + left * r, like.north - top * r, r, bottom - top, right - left)


def _times(before: Epoch, end: datetime) -> tuple[datetime, datetime]:
    """From the earlier epoch, where its date is known, to the later one."""
    return (datetime.fromisoformat(before.date).replace(tzinfo=UTC) if before.date else end), end


def _sums_beside(path: Path) -> str:
    """What a previous batch says of its tiles, which its mosaics do not show."""
    file = (path if path.is_dir() else path.parent) / SUMS
    return file.read_text(encoding="utf-8") if file.is_file() else ""


def _whole(folder: Path, files: dict[str, str]) -> bool:
    """Whether products are in the folder, and nowhere else, as they were."""
    places = [folder.parent.parent / name for name in files]
    return all(p.parent == folder and sha256_of(p) == total for p, total in zip(places, files.values(), strict=True))
