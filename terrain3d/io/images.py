"""Satellite images in files: what they are, and windows of them as float32 with NaN where there is no value."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Interleaving, Resampling
from rasterio.windows import Window

from terrain3d.errors import InputFileError
from terrain3d.io.collar import find_collar
from terrain3d.io.rasters import open_raster
from terrain3d.io.saturation import Saturation

Singles = NDArray[np.float32]
ALPHA_SIDE, GAIN_SIDE, GLANCE_SIDE = 256, 512, 512  # px of an overview
MIDDLE = 1000.0  # counts


@dataclass(frozen=True)
class Obscured:
    """Squares of ``size`` pixels of an image, (rows, columns) from its first pixel on, in which cloud or the like hides
    the ground."""

    squares: NDArray[np.bool_]
    size: int

    @property
    def share(self) -> float:
        """Of the image, 0 to 1."""
        return float(self.squares.mean())

    def window(self, row: int, column: int, height: int, width: int) -> NDArray[np.bool_]:
        """The pixels (height, width) of a window of the image that lie in them."""
        rows, columns = np.arange(row, row + height) // self.size, np.arange(column, column + width) // self.size
        return self.squares[np.ix_(rows, columns)]


@dataclass(frozen=True)
class ImageFile:
    """An image that has been found whole. ``nodata``: value of pixels without data, None where all have one.

    Where an image of integers declares no nodata value, 0 is taken: providers fill the surroundings of a scene with 0,
    and a detector that sees ground never returns it in all bands. bands: numbers of those that hold light, from 1;
    alpha: number of the band that is 0 where a pixel has no data, if the file has one. gain: power of two that brings
    the panchromatic pixels of an image of real numbers (reflectance) to counts as detectors give them. collar: a value
    that fills its surroundings undeclared (``terrain3d.io.collar``), no data either. saturation: where it was looked
    for and found. obscured: what of it is not to be used, where that is known.
    """

    path: Path
    height: int
    width: int
    nodata: float | None
    dtype: str
    bands: tuple[int, ...]
    mask: Path | None = None
    alpha: int | None = None
    gain: float = 1.0
    collar: float | None = None
    saturation: Saturation | None = None
    obscured: Obscured | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    def holds(self, line: NDArray[np.float64], sample: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which places (px) lie between the centres of its outermost pixels."""
        return (line >= 0) & (sample >= 0) & (line <= self.height - 1) & (sample <= self.width - 1)


def open_image(path: str | Path, mask: Path | None = None) -> ImageFile:
    """Describe an image and its mask. Raises InputFileError if one is missing, no raster, complex-valued, truncated,
    or if their sizes differ."""
    path = Path(path)
    with open_raster(path) as file:
        dtype = np.dtype(file.dtypes[0]) if file.count else np.dtype("V")
        if dtype.kind not in "uif" or len(set(file.dtypes)) > 1:
            raise InputFileError(f"has no bands of real numbers of one type (type {file.dtypes[:4]})", where=path)
        _check_whole(file, path)
        nodata = file.nodata
        if nodata is None:
            nodata = 0.0  # of real numbers too: no light measured is exactly none, and collars are
        alpha = _alpha(file)
        bands = tuple(i for i in range(1, file.count + 1) if i != alpha)
        collar = find_collar(file, bands) if file.nodata is None and alpha is None else None
        image = ImageFile(path, file.height, file.width, nodata, dtype.name, bands, mask, alpha, collar=collar)
    if dtype.kind == "f":
        image = replace(image, gain=_gain(image))
    if mask is not None and (found := open_image(mask)).shape != image.shape:
        raise InputFileError(
            f"mask of {found.width} x {found.height} px does not fit its image of {image.width} x {image.height} px",
            where=mask,
        )
    return image


def _alpha(file: Any) -> int | None:
    """Number of the band that says where there is data: declared, or the last of two or four. GDAL calls the fourth of
    four 8-bit bands so by default, which may be infrared: only a band of nothing but the highest value and 0 counts."""
    named = [i for i, c in enumerate(file.colorinterp, 1) if c == ColorInterp.alpha and i > 1]
    if not named and file.count in (2, 4):
        named = [file.count]
    if not named or np.dtype(file.dtypes[0]).kind != "u":
        return None
    shape = 1, min(file.height, ALPHA_SIDE), min(file.width, ALPHA_SIDE)
    values = set(np.unique(file.read(named[:1], out_shape=shape, resampling=Resampling.nearest)).tolist())
    most = np.iinfo(file.dtypes[0]).max
    return named[0] if most in values and values <= {0, most} else None


def _check_whole(file: Any, path: Path) -> None:
    """Every block must end inside the file. GDAL opens a truncated TIFF and fails only where blocks are missing."""
    rows, columns = file.block_shapes[0]
    down, across = -(-file.height // rows), -(-file.width // columns)
    if file.driver not in ("GTiff", "COG"):
        file.read(window=Window((across - 1) * columns, (down - 1) * rows, 1, 1))
        return
    size, planes = path.stat().st_size, file.count if file.interleaving == Interleaving.band else 1
    for band, j in product(range(1, planes + 1), range(down)):
        for i in range(across):
            offset = file.get_tag_item(f"BLOCK_OFFSET_{i}_{j}", "TIFF", bidx=band)
            length = file.get_tag_item(f"BLOCK_SIZE_{i}_{j}", "TIFF", bidx=band)
            if offset and length and int(offset) + int(length) > size:
                raise InputFileError(
                    f"is truncated: data is missing from row {j * rows} on ({size} bytes are there)",
                    where=path,
                    fix="copy or download the file again",
                )


def read_window(image: ImageFile, row: int, column: int, height: int, width: int) -> Singles:
    """Panchromatic pixels of a window, (height, width) float32: the mean of all bands by the image's ``gain``; see
    ``read_bands``."""
    bands = read_bands(image, row, column, height, width)
    values = bands[0] if len(bands) == 1 else bands.mean(axis=0)
    return np.asarray(values if image.gain == 1 else values * np.float32(image.gain), np.float32)


def read_bands(image: ImageFile, row: int, column: int, height: int, width: int) -> Singles:
    """Pixels of a window, (bands, height, width) float32; NaN in all bands for nodata, values that are not finite,
    where the mask says so, and outside the image.

    row, column: first line and sample, may be negative; the window may stick out on any side. The file is opened
    anew in every call, so calls from several threads do not meet. Raises InputFileError.
    """
    shape = len(image.bands), height, width
    r0, r1 = max(row, 0), min(row + height, image.height)
    c0, c1 = max(column, 0), min(column + width, image.width)
    if r0 >= r1 or c0 >= c1:
        return np.full(shape, np.nan, np.float32)
    window = Window(c0, r0, c1 - c0, r1 - r0)
    found = _pixels(image, window=window)
    if image.mask is not None:
        with open_raster(image.mask) as file:
            found[:, file.read([1], window=window)[0] == 0] = np.nan
    if image.obscured is not None:
        found[:, image.obscured.window(r0, c0, r1 - r0, c1 - c0)] = np.nan
    if found.shape == shape:
        return found
    out = np.full(shape, np.nan, np.float32)
    out[:, r0 - row : r1 - row, c0 - column : c1 - column] = found
    return out


def has_data(image: ImageFile) -> bool:
    """False if no pixel has a value, judged on ``glance``."""
    return bool(np.isfinite(glance(image)).any())


def glance(image: ImageFile) -> Singles:
    """Pixels (bands, h, w) of an image decimated to at most ``GLANCE_SIDE`` a side, NaN for no value."""
    return _decimated(image, GLANCE_SIDE)


def _gain(image: ImageFile) -> float:
    """Power of two that brings the median of what is not 0 near ``MIDDLE``; 1 for an image without values."""
    size = np.abs(_decimated(image, GAIN_SIDE).mean(axis=0))
    size = size[np.isfinite(size) & (size > 0)]
    return float(2.0 ** np.round(np.log2(MIDDLE / np.median(size)))) if size.size else 1.0


def _decimated(image: ImageFile, size: int) -> Singles:
    step = max(image.height, image.width) / size
    shape = (image.height, image.width) if step <= 1 else (int(image.height / step) or 1, int(image.width / step) or 1)
    return _pixels(image, out_shape=shape)


def _pixels(image: ImageFile, *, window: Window | None = None, out_shape: tuple[int, int] | None = None) -> Singles:
    """Values of all bands, NaN for no value."""
    wanted = [*image.bands, *(() if image.alpha is None else (image.alpha,))]
    shape = None if out_shape is None else (len(wanted), *out_shape)
    with open_raster(image.path) as file:
        values = file.read(wanted, window=window, out_shape=shape, resampling=Resampling.nearest)
    light = values[: len(image.bands)]
    out = light.astype(np.float32)
    missing = np.zeros(out.shape[1:], np.bool_)
    if light.dtype.kind == "f":
        missing = ~reduce(np.logical_and, np.isfinite(out))
    if image.nodata is not None and np.isfinite(image.nodata) and _fits(image.nodata, light.dtype):
        # a shadow may be 0 in one band; any other value is one that somebody chose to say nodata
        marked = light == light.dtype.type(image.nodata)
        missing |= reduce(np.logical_and if image.nodata == 0 else np.logical_or, marked)
    if image.collar is not None:
        missing |= reduce(np.logical_and, light == light.dtype.type(image.collar))
    if image.alpha is not None:
        missing |= values[-1] == 0
    np.copyto(out, np.nan, where=missing)
    return out


def _fits(nodata: float, dtype: np.dtype[Any]) -> bool:
    """A declared nodata value may lie outside the pixel type (-9999 in an image of uint16): then it marks nothing."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return limits.min <= nodata <= limits.max and float(nodata).is_integer()
