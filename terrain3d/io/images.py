"""Satellite images in files: what they are, and windows of them as float32 with NaN where there is no value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.windows import Window

from terrain3d.errors import InputFileError
from terrain3d.io.rasters import open_raster

Singles = NDArray[np.float32]


@dataclass(frozen=True)
class ImageFile:
    """An image that has been found whole. ``nodata``: value of pixels without data, None where all have one.

    Where an image of integers declares no nodata value, 0 is taken: providers fill the surroundings of a scene with 0,
    and a detector that sees ground never returns it.
    """

    path: Path
    height: int
    width: int
    nodata: float | None
    dtype: str
    bands: int
    mask: Path | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


def open_image(path: str | Path, mask: Path | None = None) -> ImageFile:
    """Describe an image and its mask. Raises InputFileError if one is missing, no raster, complex-valued, truncated,
    or if their sizes differ."""
    path = Path(path)
    with open_raster(path) as file:
        dtype = np.dtype(file.dtypes[0]) if file.count else np.dtype("V")
        if dtype.kind not in "uif":
            raise InputFileError(f"has no band of real numbers (type {file.dtypes[:1]})", where=path)
        _check_whole(file, path)
        nodata = file.nodata
        if nodata is None and dtype.kind in "ui":
            nodata = 0.0
        image = ImageFile(path, file.height, file.width, nodata, dtype.name, file.count, mask)
    if mask is not None and (found := open_image(mask)).shape != image.shape:
        raise InputFileError(
            f"mask of {found.width} x {found.height} px does not fit its image of {image.width} x {image.height} px",
            where=mask,
        )
    return image


def _check_whole(file: Any, path: Path) -> None:
    """Every block must end inside the file. GDAL opens a truncated TIFF and fails only where blocks are missing."""
    rows, columns = file.block_shapes[0]
    down, across = -(-file.height // rows), -(-file.width // columns)
    if file.driver not in ("GTiff", "COG"):
        file.read(1, window=Window((across - 1) * columns, (down - 1) * rows, 1, 1))
        return
    size = path.stat().st_size
    for j in range(down):
        for i in range(across):
            offset = file.get_tag_item(f"BLOCK_OFFSET_{i}_{j}", "TIFF", bidx=1)
            length = file.get_tag_item(f"BLOCK_SIZE_{i}_{j}", "TIFF", bidx=1)
            if offset and length and int(offset) + int(length) > size:
                raise InputFileError(
                    f"is truncated: data is missing from row {j * rows} on ({size} bytes are there)",
                    where=path,
                    fix="copy or download the file again",
                )


def read_window(image: ImageFile, row: int, column: int, height: int, width: int, *, band: int = 1) -> Singles:
    """Pixels of a window, (height, width) float32; NaN for nodata, non-finite values and outside the image.

    row, column: first line and sample, may be negative; the window may stick out on any side. The file is opened
    anew in every call, so calls from several threads do not meet. Raises InputFileError.
    """
    out = np.full((height, width), np.nan, np.float32)
    r0, r1 = max(row, 0), min(row + height, image.height)
    c0, c1 = max(column, 0), min(column + width, image.width)
    if r0 >= r1 or c0 >= c1:
        return out
    if not 1 <= band <= image.bands:
        raise InputFileError(f"has {image.bands} band(s), not a band {band}", where=image.path)
    with open_raster(image.path) as file:
        values = file.read(band, window=Window(c0, r0, c1 - c0, r1 - r0))
    found = _with_nan(values, image.nodata)
    if image.mask is not None:
        with open_raster(image.mask) as file:
            found[file.read(1, window=Window(c0, r0, c1 - c0, r1 - r0)) == 0] = np.nan
    out[r0 - row : r1 - row, c0 - column : c1 - column] = found
    return out


def has_data(image: ImageFile, *, size: int = 512) -> bool:
    """False if no pixel of the first band has a value, judged on an image decimated to at most ``size`` px a side."""
    step = max(image.height, image.width) / size
    shape = (image.height, image.width) if step <= 1 else (int(image.height / step) or 1, int(image.width / step) or 1)
    with open_raster(image.path) as file:
        values = file.read(1, out_shape=shape, resampling=Resampling.nearest)
    return bool(np.isfinite(_with_nan(values, image.nodata)).any())


def _with_nan(values: NDArray[Any], nodata: float | None) -> Singles:
    out = values.astype(np.float32)
    missing = ~np.isfinite(out)
    if nodata is not None and np.isfinite(nodata):
        missing |= values == values.dtype.type(nodata) if _fits(nodata, values.dtype) else False
    out[missing] = np.nan
    return out


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    """A declared nodata value may lie outside the pixel type (-9999 in an image of uint16): then it marks nothing."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return limits.min <= nodata <= limits.max and float(nodata).is_integer()
