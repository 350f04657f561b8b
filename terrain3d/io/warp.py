"""Values of one raster on the grid of another. Heights are never shifted here: that is ``geoid.to_vertical``."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from affine import Affine
from rasterio.crs import CRS as RasterioCRS
from rasterio.warp import Resampling, reproject

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster


def resample(raster: Raster, grid: Grid, *, nearest: bool = False) -> Raster:
    """Single-band raster on the cells of ``grid``, in its own vertical reference; NaN (floats) or 0 for no value.

    Bilinear, weights of neighbours without value shared among the others; nearest neighbour for classes.
    """
    source = raster.grid
    target = replace(grid, reference=Reference(grid.reference.horizontal, source.reference.vertical))
    if source == target:
        return raster
    is_float = np.issubdtype(raster.values.dtype, np.floating)
    fill = np.nan if is_float else 0
    out = np.full(grid.shape, fill, raster.values.dtype)
    reproject(
        raster.values,
        out,
        src_transform=Affine(*source.transform),
        src_crs=RasterioCRS.from_wkt(source.reference.crs.to_wkt()),
        src_nodata=fill,
        dst_transform=Affine(*grid.transform),
        dst_crs=RasterioCRS.from_wkt(grid.reference.crs.to_wkt()),
        dst_nodata=fill,
        resampling=Resampling.nearest if nearest else Resampling.bilinear,
    )
    return Raster(out, target)
