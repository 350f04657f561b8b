"""Accuracy of a height raster against a reference raster, after ASPRS (2024) and Hoehle & Hoehle (2009)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Vertical
from terrain3d.errors import FrameError, InputFileError, OverlapError
from terrain3d.io.atomic import plain
from terrain3d.io.geoid import to_vertical
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.io.warp import resample
from terrain3d.landform.derivatives import slope_deg
from terrain3d.raster import Raster, odd_cells
from terrain3d.stats import summarize

Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]
Counts = NDArray[np.int64]
WATER = 9
CLASSES = (("ground", 2), ("building", 6), ("tree", 5))  # ASPRS codes
BORDER = 30  # cells at the edge of the reference that are left out
SLOPES_DEG = (0, 5, 15, 30, 90)  # ends of the groups of slopes
SLOPE_WINDOW_M = 4.5
FEWEST = 100  # cells that are worth a row
COVERAGE = ((68.3, 1.0), (90.0, 1.645), (95.0, 1.96))  # percent of a normal distribution within this many sigma


@dataclass(frozen=True)
class ClassAccuracy:
    """Errors (estimate - reference) over the reference's cells of one class; metres, and shares of 0 to 1.

    valid: cells with an estimate. complete_1m: cells whose error is under 1 m, over all cells, with or without value;
    complete_1m_unbiased: the same once the median error is taken off. bias: the median. coverage: share of the errors
    within 1, 1.645 and 1.96 of the estimate's own sigma; None where it states none.
    """

    name: str
    cells: int
    valid: float
    complete_1m: float
    complete_1m_unbiased: float
    bias: float
    mae: float
    rmse: float
    nmad: float
    le90: float
    coverage: tuple[float, float, float] | None


@dataclass(frozen=True)
class SigmaShare:
    """Errors against the estimate's own sigma over a group of cells. median: of the sigma, metres; coverage as in
    ``ClassAccuracy``."""

    name: str
    cells: int
    median: float
    coverage: tuple[float, float, float]


@dataclass(frozen=True)
class Offset:
    """Metres east, north and up by which the estimate lies away from the reference, from ``cells`` cells."""

    east: float
    north: float
    up: float
    cells: int


@dataclass(frozen=True)
class Assessment:
    """Accuracy by class ('all' first), remaining offset, and what was done about the vertical references.

    sigma: how the stated sigma holds by class, slope and number of views that see a cell; empty where none is stated.
    """

    estimate: str
    reference: str
    classes: tuple[ClassAccuracy, ...]
    offset: Offset | None
    notes: tuple[str, ...]
    sigma: tuple[SigmaShare, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out: dict[str, Any] = plain(asdict(self))
        return out

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of text, one row a class."""
        head = ["class", "cells", "valid", "within 1 m", "unbiased", "bias", "MAE", "RMSE", "NMAD", "LE90"]
        with_sigma = any(c.coverage for c in self.classes)
        head += [f"{p:g} % sigma" for p, _ in COVERAGE] if with_sigma else []
        rows = []
        for c in self.classes:
            shares = [c.valid, c.complete_1m, c.complete_1m_unbiased]
            row = [c.name, str(c.cells), *(f"{s:.3f}" for s in shares)]
            row += [f"{v:.3f}" for v in (c.bias, c.mae, c.rmse, c.nmad, c.le90)]
            if with_sigma:
                row += [f"{100 * s:.1f} %" for s in c.coverage] if c.coverage else ["-"] * len(COVERAGE)
            rows.append(row)
        return head, rows

    def sigma_table(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of text of ``sigma``."""
        rows = [
            [s.name, str(s.cells), f"{s.median:.2f}", *(f"{100 * share:.1f} %" for share in s.coverage)]
            for s in self.sigma
        ]
        return ["stated sigma", "cells", "median sigma", *(f"{p:g} %" for p, _ in COVERAGE)], rows


def assess(
    estimate: Path, reference: Path, classes: Path | None = None, seen: Callable[[Raster], Counts] | None = None
) -> Assessment:
    """Compare a height raster, or the ``dsm.tif`` of a run's folder, with a reference on its grid, likewise.

    classes: raster of ASPRS codes; water is left out, ground, buildings and trees are also reported by themselves.
    Heights in different declared vertical references are converted; where one is undeclared they are compared as
    they are, and a note says so. A run's folder also gives the share of errors within its own sigma. seen: number of
    views that see each cell (h, w) of the reference's surface, for figures by it.
    Raises InputFileError, FrameError, and OverlapError if there is no common cell.
    """
    path, sigma_path = _files(Path(estimate))
    reference = _files(Path(reference))[0]
    truth, found = read_raster(reference), read_raster(path)
    aligned = resample(found, truth.grid)
    aligned, notes = _same_vertical(aligned, truth.grid.reference.vertical)
    codes = None if classes is None else resample(read_classes(classes), truth.grid, nearest=True).values
    sigma = None if sigma_path is None else resample(read_raster(sigma_path), truth.grid).values
    error = (aligned.values - truth.values).astype(np.float32)
    inside = _inside(truth, codes)
    if not np.isfinite(error[inside]).any():
        raise OverlapError("estimate and reference have no cell in common", where=path, fix="check the areas and CRS")
    figures = [_accuracy("all", error, inside, sigma)]
    for name, code in CLASSES if codes is not None else ():
        chosen = inside & (codes == code)
        if chosen.any():
            figures.append(_accuracy(name, error, chosen, sigma))
    solid = np.ones(error.shape, bool) if codes is None else np.isin(codes, (2, 6))
    offset = remaining_offset(aligned.values, truth.values, truth.grid.resolution, solid)
    shares: list[SigmaShare] = []
    if sigma is not None:
        groups = _groups(truth, codes, None if seen is None else seen(truth))
        shares = [s for name, cells in groups if (s := _sigma_share(name, error, inside & cells, sigma)) is not None]
    return Assessment(str(path), str(reference), tuple(figures), offset, notes, tuple(shares))


def _groups(truth: Raster, codes: NDArray[Any] | None, views: Counts | None) -> Iterator[tuple[str, Bools]]:
    """Names and cells of the groups that a sigma is judged by: classes, and of the ground (without classes, of all)
    slope and number of views."""
    of, cells = "all", np.ones(truth.grid.shape, bool)
    if codes is not None:
        yield from ((name, codes == code) for name, code in CLASSES)
        of, cells = "ground", codes == dict(CLASSES)["ground"]
    slope = smooth_slope_deg(truth)
    for low, high in pairwise(SLOPES_DEG):
        yield f"{of}, {low} to {high} deg", cells & (slope >= low) & (slope < high)
    for n in range(0 if views is None else int(views.max()) + 1):
        yield f"{of}, seen by {n} view{'' if n == 1 else 's'}", cells & (views == n)


def smooth_slope_deg(surface: Raster) -> Singles:
    """Slope of a surface over some metres (h, w), degrees; NaN beside voids."""
    size = odd_cells(SLOPE_WINDOW_M, surface.grid.resolution)
    smooth = cv2.blur(surface.values.astype(np.float32), (size, size))
    return slope_deg(*np.gradient(smooth, surface.grid.resolution))


def _sigma_share(name: str, error: Singles, chosen: Bools, sigma: Singles) -> SigmaShare | None:
    use = chosen & np.isfinite(error) & np.isfinite(sigma)
    cells = int(use.sum())
    if cells < FEWEST:
        return None
    return SigmaShare(name, cells, float(np.median(sigma[use])), _coverage(error[use], sigma[use]))


def _coverage(error: Singles, sigma: Singles) -> tuple[float, float, float]:
    ratio = np.abs(error.astype(float)) / np.maximum(sigma, 1e-6)
    one, two, three = (float((ratio <= k).mean()) for _, k in COVERAGE)
    return one, two, three


def _files(estimate: Path) -> tuple[Path, Path | None]:
    """Height raster of the argument, and the sigma raster that belongs to it."""
    if not estimate.is_dir():
        return estimate, None
    height, sigma = estimate / "dsm.tif", estimate / "dsm_sigma.tif"
    if not height.is_file():
        raise InputFileError(
            "folder has no dsm.tif", where=estimate, fix="give the folder of a finished run, or a raster"
        )
    return height, sigma if sigma.is_file() else None


def _same_vertical(estimate: Raster, target: Vertical) -> tuple[Raster, tuple[str, ...]]:
    source = estimate.grid.reference.vertical
    if source == target:
        return estimate, () if source.is_declared else ("neither file declares its vertical reference",)
    if not source.is_declared or not target.is_declared:
        which, other = ("reference", source) if source.is_declared else ("estimate", target)
        note = f"the {which} declares no vertical reference; taken to be the other's ({other.name})"
        return estimate, (note,)
    try:
        return to_vertical(estimate, target), (f"estimate converted from {source.name} to {target.name} heights",)
    except FrameError as error:
        raise FrameError(
            f"estimate ({source.name}) and reference ({target.name}) heights cannot be compared: {error.what}",
            where=error.where,
            fix=error.fix,
        ) from error


def _inside(truth: Raster, codes: NDArray[Any] | None) -> Bools:
    """Cells that count: with a reference height, away from the edge, no water."""
    rows, columns = truth.grid.shape
    border = min(BORDER, min(rows, columns) // 10)
    inside = np.zeros(truth.grid.shape, bool)
    inside[border : rows - border, border : columns - border] = True
    inside &= np.isfinite(truth.values)
    if codes is not None:
        inside &= codes != WATER
    return inside


def _accuracy(name: str, error: Singles, chosen: Bools, sigma: Singles | None) -> ClassAccuracy:
    cells = int(chosen.sum())
    e = error[chosen]
    known = np.isfinite(e)
    figures = summarize(e)
    coverage = None
    if sigma is not None:
        s = sigma[chosen][known]
        stated = np.isfinite(s)
        if stated.any():
            coverage = _coverage(e[known][stated], s[stated])
    e = e[known].astype(float)
    return ClassAccuracy(
        name=name,
        cells=cells,
        valid=float(known.mean()),
        complete_1m=float((np.abs(e) < 1).sum() / cells),
        complete_1m_unbiased=float((np.abs(e - figures.bias) < 1).sum() / cells),
        bias=figures.bias,
        mae=figures.mae,
        rmse=figures.rmse,
        nmad=figures.nmad,
        le90=figures.le90,
        coverage=coverage,
    )


def remaining_offset(estimate: Singles, reference: Singles, resolution: float, solid: Bools) -> Offset | None:
    """Horizontal and vertical offset of the estimate by one step of Nuth & Kaab (2011), as a linear least squares.

    Used are ``solid`` cells with a slope of 0.05 to 1 and an error within 3 m of the median; None if under 100.
    """
    slope_row = np.asarray(np.gradient(reference, resolution, axis=0))
    slope_column = np.asarray(np.gradient(reference, resolution, axis=1))
    error = estimate - reference
    if not np.isfinite(error).any():
        return None
    median = float(np.nanmedian(error))
    centred = error - np.float32(median)
    slope = np.hypot(slope_row, slope_column)
    with np.errstate(invalid="ignore"):
        use = solid & np.isfinite(centred) & (np.abs(centred) < 3) & (slope > 0.05) & (slope < 1)
    if use.sum() < 100:
        return None
    # h(x - dx) - h(x) = -dx . grad h; rows run south, so the slope northward is minus the slope along rows
    design = np.column_stack([-slope_column[use], slope_row[use], np.ones(int(use.sum()))]).astype(float)
    east, north, up = np.linalg.lstsq(design, centred[use].astype(float), rcond=None)[0]
    return Offset(float(east), float(north), float(up) + median, int(use.sum()))
