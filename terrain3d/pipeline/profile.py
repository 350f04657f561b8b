"""Long and cross sections of height rasters along a line: CSV, GeoPackage, drawing."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import transform_xy
from terrain3d.errors import ConfigError, InputFileError, OverlapError
from terrain3d.export.plots import Series, profile
from terrain3d.io.atomic import write_text
from terrain3d.io.vectors import read_layer, write_layer
from terrain3d.landform.sections import Section, sections
from terrain3d.pipeline.height_files import HeightFile, check_numbers, open_heights, over
from terrain3d.pipeline.progress import Reporter

Floats = NDArray[np.float64]
DRAWN = 100  # cross sections at most that are drawn, from the start of the line


@dataclass(frozen=True)
class ProfileOptions:
    """line: file, or coordinates 'x,y x,y ...' in the CRS of the first raster. step: between points, metres; the cell
    size by default. spacing, width: of cross sections, metres; none without a spacing."""

    line: str
    step: float | None = None
    spacing: float | None = None
    width: float = 40.0


@dataclass(frozen=True)
class ProfileResult:
    """length: of the line, metres. heights: of each raster along the long section. notes: what had to be assumed."""

    length: float
    crosses: int
    names: list[str]
    heights: list[Floats]
    notes: list[str]


def run_profile(rasters: list[Path], out: Path, options: ProfileOptions, reporter: Reporter) -> ProfileResult:
    """Sections of rasters, or of the surface and terrain of run folders, written to the folder ``out``.

    Raises ConfigError, InputFileError, FrameError, OverlapError (no raster has a height on the line).
    """
    check_numbers(step=options.step, spacing=options.spacing, width=options.width)
    files = [open_heights(p, layer=n) for p in rasters for n in (("dsm", "dtm") if p.is_dir() else ("dsm",))]
    files, notes = _over_the_first(files)
    crs = files[0].grid.reference.horizontal
    line = _line(options.line, crs)
    step = options.step or files[0].grid.resolution
    parts = sections(line, step, options.spacing, options.width)
    names = _unique([f.name for f in files])
    reporter.stage("sections", len(files))
    x, y = (np.concatenate([getattr(p, n) for p in parts]) for n in ("x", "y"))
    values = []
    for file in files:
        values.append(file.sample(crs, x, y))
        reporter.step()
    if not any(np.isfinite(h).any() for h, _ in values):
        raise OverlapError("no raster has a height on the line", where=options.line, fix="check the line and its CRS")
    ends = np.cumsum([p.x.size for p in parts])[:-1]
    split = [tuple(np.split(v, ends) for v in pair) for pair in values]
    _write_table(out / "profile.csv", parts, names, split, files)
    for i, part in enumerate(parts):
        if i <= DRAWN:
            _draw(out / _drawing(part), part, names, [(h[i], s[i]) for h, s in split])
    _write_lines(out / "profile.gpkg", parts, names, split, crs)
    own = parts[0].station.size
    return ProfileResult(float(line.length), len(parts) - 1, names, [h[:own] for h, _ in values], notes)


def _over_the_first(files: list[HeightFile]) -> tuple[list[HeightFile], list[str]]:
    moved = [over(f, files[0].vertical) for f in files]
    return [f for f, _ in moved], [note for _, note in moved if note]


def _unique(names: list[str]) -> list[str]:
    return [n if names.count(n) == 1 else f"{n} {names[: i + 1].count(n)}" for i, n in enumerate(names)]


def _line(text: str, crs: str) -> shapely.LineString:
    """The line of a file, brought to a CRS, or of coordinates in it."""
    path = Path(text)
    if not path.is_file() and re.fullmatch(r"\s*[-\d.eE+]+\s*,\s*[-\d.eE+]+(\s+[-\d.eE+]+\s*,\s*[-\d.eE+]+)+\s*", text):
        try:
            points = [tuple(float(v) for v in p.split(",")) for p in re.sub(r"\s*,\s*", ",", text).split()]
        except ValueError as error:
            raise ConfigError(f"'{text}' is no line", where="--line", fix="give 'x,y x,y ...' or a file") from error
        line: BaseGeometry = shapely.LineString(points)
    else:
        layer = read_layer(path)
        shapes = [g for g in layer.geometries if g is not None and g.geom_type in ("LineString", "MultiLineString")]
        parts = shapely.get_parts(np.array(shapes, dtype=object))
        merged = parts[0] if len(parts) == 1 else shapely.line_merge(shapely.MultiLineString(list(parts)))
        if merged.geom_type != "LineString" or merged.is_empty:
            found = "more than one line" if len(parts) else "no line"
            raise InputFileError(f"holds {found}", where=path, fix="give a layer with one line")
        xy = shapely.get_coordinates(merged)
        start = shapely.get_coordinates(parts[0])[0]
        if len(parts) > 1 and np.array_equal(start, xy[-1]) and not np.array_equal(start, xy[0]):
            xy = xy[::-1]  # it begins where its first part does
        line = shapely.LineString(np.column_stack(transform_xy(layer.crs, crs, xy[:, 0], xy[:, 1])))
    if not np.isfinite(line.length) or line.length <= 0:
        raise ConfigError("the line has no length", where="--line")
    return line


def _drawing(part: Section) -> str:
    return "profile.svg" if part.number == 0 else f"cross_{part.number:02d}.svg"


def _draw(path: Path, part: Section, names: list[str], values: list[tuple[Floats, Floats]]) -> None:
    along = part.station if part.number == 0 else part.offset
    series = [Series(n, h, along) for n, (h, _) in zip(names, values, strict=True)]
    for n, (h, s) in zip(names, values, strict=True):
        if np.isfinite(s).any() and len(names) == 1:
            series += [Series(f"{n} + sigma", h + s, along), Series("- sigma", h - s, along)]
    label = "station, m" if part.number == 0 else f"offset to the right at station {part.station[0]:.1f} m, m"
    write_text(path, profile(series, x_label=label, y_label="height, m"))


def _write_table(
    path: Path, parts: list[Section], names: list[str], values: list[tuple[list[Floats], ...]], files: list[HeightFile]
) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    header = [c for n, f in zip(names, files, strict=True) for c in ((n, f"{n} sigma") if f.sigma else (n,))]
    table.writerow(["section", "station_m", "offset_m", "x", "y", *header])
    for i, part in enumerate(parts):
        columns = [c[i] for v, f in zip(values, files, strict=True) for c in (v if f.sigma else v[:1])]
        for k in range(part.station.size):
            numbers = ["" if not np.isfinite(c[k]) else f"{c[k]:.3f}" for c in columns]
            place = (f"{v[k]:.3f}" for v in (part.station, part.offset, part.x, part.y))
            table.writerow(["long" if part.number == 0 else part.number, *place, *numbers])
    write_text(path, text.getvalue())


def _write_lines(
    path: Path, parts: list[Section], names: list[str], values: list[tuple[list[Floats], ...]], crs: str
) -> None:
    """Lines of the sections with the heights of each raster, in pieces where it has none in between."""
    lines, section, station, raster = [], [], [], []
    for i, part in enumerate(parts):
        for name, (height, _) in zip(names, values, strict=True):
            known = np.flatnonzero(np.isfinite(height[i]))
            for piece in np.split(known, np.flatnonzero(np.diff(known) > 1) + 1):
                if piece.size < 2:
                    continue
                lines.append(shapely.LineString(np.column_stack([part.x, part.y, height[i]])[piece]))
                section.append("long" if part.number == 0 else str(part.number))
                station.append(float(part.station[piece[0]]))
                raster.append(name)
    columns = {"section": np.array(section, str), "station_m": np.array(station), "raster": np.array(raster, str)}
    write_layer(path, "sections", lines, columns, crs, geometry_type="LineString")
