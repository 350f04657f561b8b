"""The report of a run: pictures first, then the figures that matter."""

from __future__ import annotations

from typing import Any

import numpy as np

from terrain3d.export.figures import SEQUENTIAL, Picture, classes, colour, grey, limits, relief, shrink, with_bar
from terrain3d.export.report import Block, Figure, ReportData, Section, Table, Text
from terrain3d.io.scratch import StoredRaster
from terrain3d.pipeline.canopy_check import CanopyCheck
from terrain3d.pipeline.lidar_report import Shown, lidar_blocks
from terrain3d.pipeline.placement import placement
from terrain3d.pipeline.result import RunResult
from terrain3d.pipeline.running import overview, step_for_side
from terrain3d.raster import Raster
from terrain3d.surface.mask import MaskCode

PICTURE_PX = 900
MASK_COLOURS = {
    MaskCode.NODATA: (235, 235, 235),
    MaskCode.MEASURED: (120, 170, 110),
    MaskCode.FILLED: (232, 178, 80),
    MaskCode.WATER: (80, 140, 200),
    MaskCode.REFERENCE: (170, 130, 180),
}


def run_report(result: RunResult, figures: dict[str, Any]) -> ReportData:
    """Sections of ``report.html``; ``figures`` are those of ``quality.quality``."""
    cells = figures["cells"]
    lead = (
        f"{len(result.views)} images, {sum(p.chosen for p in result.pairs)} pairs, {result.points:,} points; "
        f"{cells['width']} x {cells['height']} cells of {cells['resolution_m']:g} m; {result.reference.horizontal}, "
        f"heights: {result.reference.vertical.name}"
    )
    return ReportData(
        f"terrain3d: {result.scene.config.name}",
        lead,
        (
            Section("Surfaces", _pictures(result)),
            Section("Cells", [_cell_table(cells)]),
            Section("Lidar", _lidar(result)),
            Section("Under trees", _canopy_blocks(result.surfaces.canopy)),
            Section("Images and adjustment", [_image_table(figures)]),
            Section("Pairs", [_pair_table(figures)]),
            Section("Notes", [Text(w) for w in result.warnings]),
            Section("Time", [_time_table(figures)]),
        ),
    )


def relief_figure(raster: Raster, caption: str) -> Figure:
    """Coloured hillshade of a height raster, small enough for a page."""
    small, step = shrink(raster.values, PICTURE_PX)
    return Figure(relief(small, raster.grid.resolution * step), caption)


def _scaled(raster: Raster, caption: str, unit: str, low: float | None = None) -> Figure:
    a, b = limits(raster.values)
    a = a if low is None else low
    return Figure(with_bar(colour(raster.values, a, b), SEQUENTIAL, a, b, unit=unit), caption)


def _mask_picture(mask: StoredRaster) -> Picture:
    step = step_for_side(mask.grid, PICTURE_PX)
    rows = [mask.read(row, 0, 1, mask.grid.width)[0, ::step] for row in range(0, mask.grid.height, step)]
    return classes(np.stack(rows), {int(c): rgb for c, rgb in MASK_COLOURS.items()})


def _pictures(result: RunResult) -> list[Block]:
    s = result.surfaces
    dsm, dtm, chm, sigma = (overview(r, step_for_side(r.grid, PICTURE_PX)) for r in (s.dsm, s.dtm, s.chm, s.dsm_sigma))
    legend = [(c.name.lower(), MASK_COLOURS[c]) for c in MaskCode]
    return [
        relief_figure(dsm, "Surface (dsm.tif)"),
        relief_figure(dtm, "Terrain (dtm.tif)"),
        _ortho_figure(s.ortho),
        _scaled(chm, "Height above ground (chm.tif)", "m", 0.0),
        _scaled(sigma, "1-sigma of the surface (dsm_sigma.tif)", "m", 0.0),
        Figure(_mask_picture(s.mask), "Why a cell is what it is (mask.tif)", legend),
    ]


def _ortho_figure(bands: tuple[StoredRaster, ...]) -> Figure:
    """Grey, or the first three bands in colour."""
    step, nodata = step_for_side(bands[0].grid, PICTURE_PX), None if bands[0].dtype.kind == "f" else 0
    shown = [overview(b, step, nodata).values for b in (bands[:3] if len(bands) > 2 else bands[:1])]
    return Figure(grey(np.stack(shown) if len(shown) == 3 else shown[0]), "True ortho (ortho.tif)")


def _cell_table(cells: dict[str, float]) -> Table:
    shares = [(c.name.lower(), f"{100 * cells[f'{c.name.lower()}_share']:.1f} %") for c in MaskCode]
    extra = [("median sigma of measured cells", _metres(cells["median_sigma_m"]))]
    return Table(("", "share or value"), [*shares, *extra])


def _lidar(result: RunResult) -> list[Block]:
    place = Text(placement(result).text())
    if result.registration is None or result.lidar is None:
        return [Text("No lidar was given."), place]
    shown = Shown(result.surfaces.dsm, result.surfaces.dtm)
    return [place, *lidar_blocks(result.lidar, result.registration, shown, result.network.height_ties)]


def _canopy_blocks(check: CanopyCheck | None) -> list[Block]:
    """Errors of ground and canopy height on lidar tracks that were left out."""
    if check is None:
        return [Text("Too few lidar returns under trees to check the ground there and the height of the canopy.")]
    rows = [
        (name, str(e.n), *(f"{v:.2f}" for v in (e.bias, e.nmad, e.rmse, e.le90)))
        for name, e in (("ground under trees", check.ground), ("height of the canopy", check.canopy))
        if e is not None
    ]
    one, two, three = (f"{100 * share:.0f} %" for share in check.coverage)
    note = f", {check.gross} gross errors left out" if check.gross else ""
    return [
        Table(
            ("minus lidar", "n", "bias m", "NMAD m", "RMSE m", "LE90 m"), rows,
            f"Tracks held out in {check.folds} groups{note}; canopy: against h_canopy of ATL08 or RH98 of GEDI",
        ),
        Text(f"Within the sigma's bounds of 68, 90 and 95 %: {one}, {two}, {three} of the errors of the ground."),
    ]  # fmt: skip


def _image_table(figures: dict[str, list[dict[str, float]]]) -> Table:
    return Table(
        ("image", "acquired", "incidence deg", "azimuth deg", "ties", "reach", "RMS before px", "RMS after px"),
        [
            (
                str(i["name"]), str(i["acquired"] or "-")[:19], f"{i['incidence_deg']:.1f}",
                f"{i['azimuth_deg']:.0f}", f"{i['ties']}", f"{i['ties_reach']:.1f}",
                f"{i['rms_before_px']:.2f}", f"{i['rms_after_px']:.2f}",
            )
            for i in figures["images"]
        ],
        "reach: how far from its ties an image is used, in units of their spread",
    )  # fmt: skip


def _pair_table(figures: dict[str, list[dict[str, object]]]) -> Table:
    rows = []
    for p in figures["pairs"]:
        names = p["images"]
        assert isinstance(names, list)
        decision = "matched" if p["matched"] else "left out"
        share, base = p["ties_grid_share"], p["base_to_height"]
        assert isinstance(share, float) and isinstance(base, float)
        rows.append((" + ".join(names), f"{base:.2f}", decision, str(p["reason"]), str(p["ties"]), f"{share:.0%}"))
    return Table(("pair", "B/H", "decision", "reason", "ties", "cells of a 4 x 4 grid with ties"), rows)


def _time_table(figures: dict[str, dict[str, dict[str, float]]]) -> Table:
    rows = [(name, f"{t['wall']:.1f}", f"{t['cpu']:.1f}") for name, t in figures["seconds"].items()]
    return Table(("stage", "wall s", "CPU s"), rows, f"peak memory {figures['peak_memory_mb']:.0f} MB")


def _metres(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} m"
