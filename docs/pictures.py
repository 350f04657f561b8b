"""The README's pictures from the results of the demo: ``python docs/pictures.py demo_out docs``."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from terrain3d.export.figures import (
    SEQUENTIAL,
    Picture,
    colour,
    difference,
    grey,
    relief,
    shaded,
    shrink,
    with_bar,
)
from terrain3d.io.rasters import read_raster

SIZE_PX = 400
QUALITY = 82
HIGHEST = 25.0  # metres of canopy height and of change in full colour
WORST = 1.0  # metres of sigma


def small(path: Path, band: int = 1) -> tuple[np.ndarray, float]:
    """A raster's band, reduced to the size of the pictures, and its cell size then."""
    raster = read_raster(path, band=band)
    values, step = shrink(raster.values, SIZE_PX)
    return values, raster.grid.resolution * step


def pictures(demo: Path) -> dict[str, Picture]:
    """Pictures of the first epoch and of the change, by name."""
    before, after, change = demo / "before", demo / "after", demo / "change"
    dsm, cell = small(before / "dsm.tif")
    dtm, _ = small(before / "dtm.tif")
    chm, _ = small(before / "chm.tif")
    sigma, _ = small(before / "dsm_sigma.tif")
    ortho, _ = small(before / "ortho.tif")
    dz, cell_of_change = small(change / "change.tif", 1)
    marked, _ = small(change / "change.tif", 3)
    return {
        "ortho": grey(ortho),
        "dsm": relief(dsm, cell),
        "dtm": relief(dtm, cell),
        "chm": with_bar(colour(chm, 0, HIGHEST), SEQUENTIAL, 0, HIGHEST),
        "sigma": with_bar(colour(sigma, 0, WORST), SEQUENTIAL, 0, WORST),
        "change": _change(dz, marked > 0.5, small(after / "dsm.tif")[0], cell_of_change),
    }


def _change(dz: np.ndarray, marked: np.ndarray, after: np.ndarray, cell: float) -> Picture:
    """Significant differences in colour over the shaded relief of the later epoch."""
    picture = difference(np.where(marked, dz, np.nan), HIGHEST)
    rows, columns = dz.shape
    shade = shaded(after, cell)[:rows, :columns]
    plain = ~marked[: shade.shape[0], : shade.shape[1]]
    picture[: shade.shape[0], : shade.shape[1]][plain] = shade[plain]
    return picture


def main(demo: Path, out: Path) -> None:
    for name, picture in pictures(demo).items():
        cv2.imwrite(str(out / f"{name}.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
