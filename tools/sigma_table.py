"""Does the stated sigma hold? Share of a run's errors within 1, 1.645 and 1.96 sigma, by class, slope and views.

    python tools/sigma_table.py RUN TRUTH_DSM TRUTH_CLASSES

RUN is an output folder of ``terrain3d run``; the truth is in the same vertical reference. ``views`` is the number of
images that see a cell past everything that stands around it in the true surface; cells that fewer than two see were
filled. A normal distribution has 68.3, 90 and 95 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.assess import BORDER, CLASSES, COVERAGE
from terrain3d.config import load_scene
from terrain3d.image.view import lean
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.io.warp import resample
from terrain3d.pipeline.load import load_views
from terrain3d.raster import Raster
from terrain3d.surface.visibility import visible

Bools = NDArray[np.bool_]
SLOPES_DEG = (0, 5, 15, 30, 90)
SLOPE_WINDOW_CELLS = 9


def views_of(run: Path, truth: Raster) -> NDArray[np.int64]:
    """Number of images that see each cell of the true surface, (h, w)."""
    x, y = (float(np.mean(a)) for a in truth.grid.centres())
    middle = float(np.nanmedian(truth.values))
    crs = truth.grid.reference.horizontal
    count = np.zeros(truth.grid.shape, np.int64)
    for view in load_views(load_scene(run / "config.yaml")):
        line, sample = view.project(crs, x, y, middle)
        away = tuple(float(v) for v in np.ravel(lean(view, crs, middle, line, sample))[:2])
        count += visible(truth.values.astype(np.float32), truth.grid.resolution, (away[0], away[1]))
    return count


def slope_deg(truth: Raster) -> NDArray[np.float64]:
    """Slope of the true surface over some cells, degrees."""
    kernel = np.ones(SLOPE_WINDOW_CELLS) / SLOPE_WINDOW_CELLS
    smooth = np.apply_along_axis(np.convolve, 0, truth.values.astype(float), kernel, "same")
    smooth = np.apply_along_axis(np.convolve, 1, smooth, kernel, "same")
    return np.degrees(np.arctan(np.hypot(*np.gradient(smooth, truth.grid.resolution))))


def groups(
    codes: NDArray[np.uint8], slope: NDArray[np.float64], views: NDArray[np.int64]
) -> Iterator[tuple[str, Bools]]:
    """Names and cells of the rows of the table."""
    for name, code in CLASSES:
        yield name, codes == code
    ground = codes == dict(CLASSES)["ground"]
    for low, high in pairwise(SLOPES_DEG):
        yield f"ground, {low} to {high} deg", ground & (slope >= low) & (slope < high)
    for n in range(int(views.max()) + 1):
        yield f"ground, {n} views", ground & (views == n)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("truth", type=Path)
    parser.add_argument("classes", type=Path)
    args = parser.parse_args()
    truth = read_raster(args.truth)
    error = resample(read_raster(args.run / "dsm.tif"), truth.grid).values - truth.values
    sigma = resample(read_raster(args.run / "dsm_sigma.tif"), truth.grid).values
    inner = np.zeros(truth.grid.shape, bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    ok = inner & np.isfinite(error) & np.isfinite(sigma)
    print(f"{'':24s}{'cells':>9s}{'median sigma':>14s}" + "".join(f"{f'{p:g} %':>9s}" for p, _ in COVERAGE))
    codes = read_classes(args.classes).values
    for name, cells in groups(codes, slope_deg(truth), views_of(args.run, truth)):
        use = ok & cells
        if use.sum() < 100:
            continue
        size = np.abs(error[use]) / sigma[use]
        shares = "".join(f"{100 * float((size <= k).mean()):9.1f}" for _, k in COVERAGE)
        print(f"{name:24s}{int(use.sum()):9d}{float(np.median(sigma[use])):14.2f}{shares}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
