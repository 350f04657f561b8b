"""Does the stated sigma hold? Share of errors within 1, 1.645 and 1.96 sigma over several runs in one go.

    python tools/sigma_table.py RUN TRUTH [RUN TRUTH ...] [--where CLASS]

RUN is an output folder of ``terrain3d run``; TRUTH a folder with ``dsm.tif`` and ``class.tif`` in the same references.
For each run there is a line of all ground, then the lines of measured and filled cells by the sigma that they state,
with the 68 and 95 % quantiles of the errors: where these are not the sigma and its double, it says too much or too
little. ``terrain3d assess`` has the table by class, slope and number of views. Of a normal distribution 68.3, 90 and
95 % are within.
"""

from __future__ import annotations

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.assess import BORDER, CLASSES, COVERAGE
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.io.warp import resample
from terrain3d.surface.mask import MaskCode

Singles = NDArray[np.float32]
SIGMAS = (0.0, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 1e3)
FEWEST = 300
KINDS = (("measured", MaskCode.MEASURED), ("filled", MaskCode.FILLED))


def line(name: str, whole: int, error: Singles, sigma: Singles) -> str:
    """Share of all cells, coverage, and quantiles of some errors against their sigma."""
    size = np.abs(error)
    shares = "".join(f"{100 * float((size <= k * sigma).mean()):7.1f}" for _, k in COVERAGE)
    q68, q95 = np.quantile(size, (0.683, 0.95))
    return f"  {name:24s}{100 * error.size / max(whole, 1):6.1f} %{shares}   {q68:8.2f}{q95:8.2f}"


def table(run: Path, truth: Path, code: int) -> None:
    """Lines of one run, printed."""
    reference = read_raster(truth / "dsm.tif")
    error = resample(read_raster(run / "dsm.tif"), reference.grid).values - reference.values
    sigma = resample(read_raster(run / "dsm_sigma.tif"), reference.grid).values
    mask = resample(read_classes(run / "mask.tif"), reference.grid, nearest=True).values
    use = np.zeros(reference.grid.shape, bool)
    use[BORDER:-BORDER, BORDER:-BORDER] = True
    use &= np.isfinite(error) & np.isfinite(sigma) & (read_classes(truth / "class.tif").values == code)
    whole = int(use.sum())
    print(f"{run}\n  {'':24s}{'share':>8s}" + "".join(f"{f'{p:g} %':>7s}" for p, _ in COVERAGE) + "     68 %    95 %")
    if whole:
        print(line("all", whole, error[use], sigma[use]))
    for name, kind in KINDS:
        for low, high in pairwise(SIGMAS):
            cells = use & (mask == kind) & (sigma >= low) & (sigma < high)
            if cells.sum() >= FEWEST:
                print(line(f"{name}, {low:g} to {high:g} m", whole, error[cells], sigma[cells]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, nargs="+", metavar="RUN TRUTH")
    parser.add_argument("--where", choices=[name for name, _ in CLASSES], default="ground")
    args = parser.parse_args()
    if len(args.pairs) % 2:
        parser.error("a folder of truth is wanted for every run")
    for run, truth in zip(args.pairs[::2], args.pairs[1::2], strict=True):
        table(run, truth, dict(CLASSES)[args.where])
    return 0


if __name__ == "__main__":
    sys.exit(main())
