"""Errors of the ground filter on the ISPRS samples, beside the published figures of two others.

    python tools/isprs_table.py FOLDER

FOLDER holds samples such as samp11.txt: lines of x, y, z, label (0 ground, 1 object); Sithole & Vosselman (2004).
SMRF: Pingel et al. (2013), parameters tuned to each sample; with one set for all its mean kappa is 85.4 %. Axelsson:
progressive densification of a TIN, as Sithole & Vosselman report it. This program: one set of parameters.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrain3d.surface.cloud_ground import ground_points

PUBLISHED = {  # total error, percent: SMRF tuned to the sample, Axelsson
    "11": (8.28, 10.76), "12": (2.92, 3.25), "22": (3.35, 3.63), "31": (0.91, 4.78), "42": (1.48, 1.62),
    "51": (1.43, 2.72), "53": (2.43, 8.91), "61": (0.86, 2.08),
}  # fmt: skip


def figures(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Type I (ground lost), type II (objects kept), total error and kappa, percent."""
    agree = float(np.mean(truth == found))
    chance = float(truth.mean() * found.mean() + (1 - truth.mean()) * (1 - found.mean()))
    one, two = float(np.mean(~found[truth])), float(np.mean(found[~truth]))
    return 100 * one, 100 * two, 100 * (1 - agree), 100 * (agree - chance) / (1 - chance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args().folder.glob("samp*.txt"))
    if not files:
        print("no samp*.txt there")
        return 2
    names = ("points", "type I", "type II", "total", "kappa", "SMRF", "Axelsson", "CPU s")
    print(f"{'sample':8s}" + "".join(f"{name:>9s}" for name in names))
    rows = []
    ground_points(np.random.default_rng(0).uniform(0, 60, (500, 3)))  # compile
    for file in files:
        points = np.loadtxt(file)
        start = time.process_time()
        found = ground_points(points[:, :3])
        seconds = time.process_time() - start
        row = figures(points[:, 3] == 0, found)
        rows.append(row)
        smrf, axelsson = (f"{v:.2f}" for v in PUBLISHED.get(file.stem[4:6], (np.nan, np.nan)))
        own = "".join(f"{v:9.2f}" for v in row)
        print(f"{file.stem:8s}{len(points):9d}{own}{smrf:>9s}{axelsson:>9s}{seconds:9.2f}")
    print(f"{'mean':17s}" + "".join(f"{v:9.2f}" for v in np.mean(rows, axis=0)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
