"""Two epochs to the products of change: difference raster, polygons, figures, report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.change.detect import ChangeOptions, ChangeResult, detect
from terrain3d.change.epoch import load_epoch
from terrain3d.export.figures import difference, shrink
from terrain3d.export.report import Block, Figure, ReportData, Section, Table, Text, write_report
from terrain3d.io.atomic import write_json
from terrain3d.io.rasters import HEIGHT_NODATA, write_raster
from terrain3d.io.vectors import write_layer
from terrain3d.pipeline.progress import Reporter
from terrain3d.pipeline.run_report import PICTURE_PX, relief_figure
from terrain3d.raster import Raster

COLUMNS = ("kind", "area_m2", "mean_dz_m", "volume_m3", "volume_sigma_m3", "confidence")
LISTED = 200


def run_change(before: Path, after: Path, out: Path, options: ChangeOptions, reporter: Reporter) -> ChangeResult:
    """Detect change between two run folders or DSMs and write all products to ``out``. Raises Terrain3dError."""
    reporter.stage("reading")
    first, second = load_epoch(before), load_epoch(after)
    reporter.stage("change")
    result = detect(first, second, options)
    for note in result.notes:
        reporter.note(note)
    reporter.stage("writing", 4)
    bands = np.stack([result.difference.values, result.sigma.values, result.significant.values.astype(np.float32)])
    write_raster(
        out / "change.tif", Raster(bands.astype(np.float32), result.difference.grid), nodata=HEIGHT_NODATA,
        band_names=("height difference after - before, m", "1-sigma, m", "significant"), heights=False,
    )  # fmt: skip
    reporter.step()
    write_layer(
        out / "change.gpkg", "changes", [r.polygon for r in result.regions], _columns(result),
        result.difference.grid.reference.horizontal,
    )  # fmt: skip
    reporter.step()
    write_json(out / "quality.json", {"before": str(before), "after": str(after), **result.quality()})
    reporter.step()
    write_report(out / "report.html", _report(result, first.dsm, second.dsm, first.name, second.name))
    reporter.step()
    return result


def _columns(result: ChangeResult) -> dict[str, NDArray[np.generic]]:
    rows = [r.attributes() for r in result.regions]
    return {c: np.array([r[c] for r in rows], dtype=str if c == "kind" else float) for c in COLUMNS}


def _report(result: ChangeResult, before: Raster, after: Raster, first: str, second: str) -> ReportData:
    small, _ = shrink(result.difference.values, PICTURE_PX)
    marked, _ = shrink(
        np.where(result.significant.values > 0, result.difference.values, np.nan).astype(np.float32), PICTURE_PX
    )
    rows = [
        (
            str(r.kind), f"{r.measures.area:.0f}", f"{r.measures.mean_dz:+.2f}", f"{r.measures.volume:+.0f}",
            f"{r.measures.volume_sigma:.0f}", f"{r.confidence:.2f}",
        )
        for r in sorted(result.regions, key=lambda r: -abs(r.measures.volume))[:LISTED]
    ]  # fmt: skip
    a = result.alignment
    blocks: list[Block] = [
        relief_figure(before, f"Before: {first}"),
        relief_figure(after, f"After: {second}"),
        Figure(difference(small), "Height difference, after - before"),
        Figure(difference(marked), "The part of it that is significant"),
    ]
    return ReportData(
        f"terrain3d change: {first} to {second}",
        f"{len(result.regions)} changes",
        (
            Section("Pictures", blocks),
            Section(
                "Changes",
                [Table(("kind", "area m2", "mean dz m", "volume m3", "volume sigma m3", "confidence"), rows)],
            ),
            Section(
                "Co-registration",
                [
                    Text(
                        f"After lay {a.east:.2f} m east, {a.north:.2f} m north and {a.up:.2f} m up of before on stable "
                        f"ground ({a.n_cells} cells, NMAD {a.nmad:.2f} m); this was taken out."
                    )
                ],
            ),
            Section("Notes", [Text(n) for n in result.notes]),
        ),
    )
