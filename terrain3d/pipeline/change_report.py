"""The report of a change: pictures of the scene and of the largest changes, tables, statistics of stable ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from terrain3d.change.epoch import Epoch, Source
from terrain3d.change.resample import on_grid
from terrain3d.change.result import ChangeResult, Region
from terrain3d.export.figures import Picture, difference, relief
from terrain3d.export.report import Block, Figure, ReportData, Section, Table, Text
from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.change_tiles import RankedTile
from terrain3d.pipeline.run_report import PICTURE_PX
from terrain3d.pipeline.running import step_for_side
from terrain3d.raster import Grid

LISTED = 200
SHOWN = 12  # largest changes with pictures of their own
SURROUNDINGS = 0.6  # of a change's size, around it in its pictures
LEAST_SIDE = 40.0  # metres
CLOSE_PX = 320


def change_report(
    result: ChangeResult[StoredRaster], before: Epoch, after: Epoch, tiles: Sequence[RankedTile]
) -> ReportData:
    """Sections of ``report.html``."""
    largest = sorted(result.regions, key=lambda r: -abs(r.measures.volume))
    return ReportData(
        f"terrain3d change: {_name(before)} to {_name(after)}",
        f"{len(result.regions)} changes",
        (
            Section("Pictures", _pictures(result, before, after)),
            Section("Changes", [_change_table(largest[:LISTED])]),
            Section("The largest changes", _largest(result, before, after, largest[:SHOWN])),
            Section("Tiles to update", [_tile_table(tiles[:LISTED])] if tiles else []),
            Section("Co-registration and stable ground", _stable_blocks(result)),
            Section("Notes", [Text(n) for n in result.notes]),
        ),
    )


def _name(epoch: Epoch) -> str:
    return f"{epoch.name} ({epoch.date})" if epoch.date else epoch.name


def _coarse(grid: Grid, px: int) -> Grid:
    """The area in cells so large that no side has more than ``px``."""
    step = step_for_side(grid, px)
    rows, columns = -(-grid.height // step), -(-grid.width // step)
    return replace(grid, resolution=grid.resolution * step, height=rows, width=columns)


def _pictures(result: ChangeResult[StoredRaster], before: Epoch, after: Epoch) -> list[Block]:
    grid = _coarse(result.difference.grid, PICTURE_PX)
    step = round(grid.resolution / result.difference.grid.resolution)
    d, mark, least = (_thinned(r, step) for r in (result.difference, result.significant, result.detectable))
    changed = np.where(mark > 0, d, np.float32(np.nan))
    a = result.alignment
    return [
        Figure(_relief(before.dsm, grid), f"Before: {_name(before)}"),
        Figure(_relief(after.dsm, grid, a.east, a.north), f"After: {_name(after)}"),
        Figure(difference(d), "Height difference, after - before"),
        Figure(difference(changed), "The part of it that is significant"),
        Figure(difference(least, 5.0), "Smallest change that would have been seen (detectable.tif)"),
    ]


def _thinned(raster: StoredRaster, step: int) -> np.ndarray:  # type: ignore[type-arg]
    """Every ``step``-th cell: a mean would make change of what is none."""
    rows = [raster.read(row, 0, 1, raster.grid.width)[0, ::step] for row in range(0, raster.grid.height, step)]
    return np.stack(rows).astype(np.float32)


def _relief(source: Source, grid: Grid, east: float = 0.0, north: float = 0.0) -> Picture:
    return relief(on_grid(source, grid, east, north), grid.resolution)


def _largest(result: ChangeResult[StoredRaster], before: Epoch, after: Epoch, regions: Sequence[Region]) -> list[Block]:
    """Before, after and difference of single changes."""
    blocks: list[Block] = []
    whole, a = result.difference.grid, result.alignment
    for number, region in enumerate(regions, 1):
        window = _around(region, whole)
        part = whole.window(*window)
        grid = _coarse(part, CLOSE_PX)
        step = round(grid.resolution / whole.resolution)
        d = result.difference.read(*window)[::step, ::step]
        m = region.measures
        text = (
            f"{number}. {region.kind}{' ' + region.part if region.part else ''}: {m.area:.0f} m2, {m.mean_dz:+.1f} m, "
            f"{m.volume:+.0f} +- {1.96 * m.volume_sigma:.0f} m3 (95 %), confidence {region.confidence:.2f}"
        )
        blocks += [
            Text(text),
            Figure(_relief(before.dsm, grid), "before"),
            Figure(_relief(after.dsm, grid, a.east, a.north), "after"),
            Figure(difference(d), "difference"),
        ]
    return blocks


def _around(region: Region, grid: Grid) -> tuple[int, int, int, int]:
    """Row, column, height and width of a window around a change, inside the grid."""
    west, south, east, north = region.polygon.bounds
    x, y = (west + east) / 2, (south + north) / 2
    half = max(east - west, north - south, LEAST_SIDE / (1 + SURROUNDINGS)) * (1 + SURROUNDINGS) / 2
    column, row = grid.column_row(np.array([x - half, x + half]), np.array([y + half, y - half]))
    top, left = max(int(row[0]), 0), max(int(column[0]), 0)
    return (
        top,
        left,
        max(min(int(row[1]) + 1, grid.height) - top, 1),
        max(min(int(column[1]) + 1, grid.width) - left, 1),
    )


def _change_table(regions: Sequence[Region]) -> Table:
    rows = [
        (
            " ".join([str(r.kind), r.part, f"#{r.event}" if r.event else ""]).strip(), f"{m.area:.0f}",
            f"{m.mean_dz:+.2f}", f"{m.extreme_dz:+.2f}", f"{m.volume:+.0f}", f"{1.96 * m.volume_sigma:.0f}",
            f"{m.ground_volume:+.0f} +- {1.96 * m.ground_volume_sigma:.0f}" if np.isfinite(m.ground_volume) else "-",
            f"{r.cover_before} to {r.cover_after}", f"{r.confidence:.2f}",
        )
        for r in regions
        for m in [r.measures]
    ]  # fmt: skip
    header = ("kind", "area m2", "mean dz m", "extreme dz m", "volume m3", "+- 95 %", "of the ground m3", "cover",
              "confidence")  # fmt: skip
    return Table(header, rows)


def _tile_table(tiles: Sequence[RankedTile]) -> Table:
    rows = [(t.tile.code, str(t.changes), f"{t.area:.0f}", f"{t.volume:.0f}") for t in tiles]
    return Table(("tile", "changes", "changed area m2", "changed volume m3"), rows)


def _stable_blocks(result: ChangeResult[StoredRaster]) -> list[Block]:
    a, s = result.alignment, result.stable
    tilt = (
        f", tilted {1000 * a.tilt_east:+.3f} m/km towards east and {1000 * a.tilt_north:+.3f} m/km towards north"
        if a.tilted
        else ""
    )
    parts = ", ".join(f"{p.share:.0%} within {p.range:.1f} m" for p in s.structures)
    return [
        Text(
            f"After lay {a.east:.2f} m east, {a.north:.2f} m north and {a.up:.2f} m up of before on stable ground"
            f"{tilt} ({a.n_cells} cells, NMAD {a.nmad:.2f} m); this was taken out."
        ),
        Text(
            f"Differences of stable cells: NMAD {s.nmad:.3f} m; of the medians of 50 m blocks {s.registration:.3f} m, "
            f"which counts in full in every volume. Their correlation: {parts}."
        ),
        Table(
            ("lag m", "semivariance m2"),
            [(f"{h:g}", f"{g:.5f}") for h, g in zip(s.lags, s.variogram, strict=True)],
            "variogram of the differences on stable ground",
        ),
    ]
