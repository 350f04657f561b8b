"""Rasters in files: Cloud Optimized GeoTIFF out, any north-up georeferenced raster in.

The vertical reference is in the file's CRS: a three-dimensional CRS for ellipsoidal heights, a compound one for a
geoid, a horizontal one for values that are no heights. A file that declares none is read as ``UNDECLARED``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from numpy.typing import DTypeLike, NDArray
from pyproj import CRS
from pyproj.crs import CompoundCRS
from pyproj.exceptions import CRSError
from rasterio.crs import CRS as RasterioCRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import Resampling
from rasterio.windows import Window

from terrain3d.crs import (
    EGM96_HEIGHT_EPSG,
    ELLIPSOID,
    UNDECLARED,
    Reference,
    Vertical,
    metres_per_unit,
    vertical_from_name,
    vertical_of_crs,
)
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.atomic import atomic_path, output_error
from terrain3d.io.geokeys import replace_vertical_key
from terrain3d.io.quiet import hush_libtiff
from terrain3d.raster import Grid, Raster

# Masks and images in sensor geometry have no place on the ground. Once and for all: files are opened in many threads,
# where filters that come and go would meet.
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

HEIGHT_NODATA = -9999.0
MOST_VALUE = 32000.0  # no height of the Earth, in metres or feet, reaches it; what is beyond stands for no value
BLOCK = 512  # largest block, pixels a side
LEAST_BLOCK = 128  # of what GDAL writes
PICTURE_BANDS = 3
MOST_BANDS = 1024  # more than any sensor has; a damaged header may say thousands
CACHE_BYTES = 128 * 2**20
HELD_BYTES = 64 * 2**20  # raster up to which no file is needed on the way to its own
FEET = dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048) | dict.fromkeys(
    ("us ft", "ftus", "us foot", "us feet", "us survey foot", "us survey feet", "foot us"), 1200 / 3937
)  # metres, by the names that bands give to their unit
Overviews = Literal["average", "nearest"]
# rasterio cannot decode a message that quotes a damaged header
GDAL_ERRORS = (RasterioError, rasterio._err.CPLE_BaseError, UnicodeDecodeError)


def write_raster(
    path: str | Path,
    raster: Raster,
    *,
    nodata: float | None,
    band_names: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    heights: bool = True,
    overviews: Overviews | None = None,
) -> None:
    """Write a Cloud Optimized GeoTIFF: blocks of up to 512 px, DEFLATE, predictor, overviews, area pixels; atomic.

    raster: (height, width) or (bands, height, width); NaN becomes ``nodata`` (HEIGHT_NODATA for heights).
    heights: the values are heights in the grid's vertical reference, which the file's CRS then declares; pass False
        for differences, sigmas, images and masks, whose CRS is horizontal only.
    overviews: 'average' for continuous values (default of floats), 'nearest' for classes (default of integers).
    Raises OutputError if it cannot be written.
    """
    values = raster.values if raster.values.ndim == 3 else raster.values[None]
    write_strips(
        path, raster.grid, [(0, values)], values.dtype, nodata=nodata, band_names=band_names, tags=tags,
        heights=heights, overviews=overviews, bands=values.shape[0],
    )  # fmt: skip


def write_strips(
    path: str | Path,
    grid: Grid,
    strips: Iterable[tuple[int, NDArray[Any]]],
    dtype: DTypeLike,
    *,
    nodata: float | None,
    band_names: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    heights: bool = True,
    overviews: Overviews | None = None,
    bands: int = 1,
    level: int | None = None,
) -> None:
    """Write a raster as ``write_raster`` does, from strips that are never in memory together.

    strips: first row, and values (height, width) or (bands, height, width) as wide as the grid, NaN for no value.
    level: of the compression, 1 (fast) to 9; 6 by default.
    """
    path = Path(path)
    hush_libtiff()
    continuous = np.issubdtype(np.dtype(dtype), np.floating)
    kind = np.dtype(np.float32) if continuous else np.dtype(dtype)
    wkt, ellipsoid_code = _file_crs(grid.reference, heights)
    profile: dict[str, Any] = {
        "driver": "MEM", "dtype": kind.name, "count": bands, "nodata": nodata, "height": grid.height,
        "width": grid.width, "crs": RasterioCRS.from_wkt(wkt), "transform": Affine(*grid.transform),
    }  # fmt: skip
    cog = {
        "driver": "COG", "blocksize": block_side(grid.shape), "compress": "deflate", "predictor": "yes",
        "bigtiff": "if_safer", "overview_resampling": overviews or ("average" if continuous else "nearest"),
    } | ({} if level is None else {"level": level})  # fmt: skip
    held = grid.height * grid.width * bands * kind.itemsize <= HELD_BYTES
    if not held:
        profile |= {"driver": "GTiff", "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "sparse_ok": True,
                    "bigtiff": "if_safer"}  # fmt: skip
    with atomic_path(path) as part:
        cells = part.with_name(f"{part.name}.cells.tif")
        try:
            with rasterio.Env(GDAL_PAM_ENABLED="NO"):
                with rasterio.open("" if held else cells, "w", **profile) as file:
                    for row, values in strips:
                        known = values if values.ndim == 3 else values[None]
                        if continuous and nodata is not None:
                            known = np.where(np.isfinite(known), known, np.float32(nodata))
                        place = Window(0, row, known.shape[2], known.shape[1])
                        file.write(known.astype(kind, copy=False), window=place)
                    for band, name in enumerate(band_names, 1):
                        file.set_band_description(band, name)
                    file.update_tags(AREA_OR_POINT="Area", **(tags or {}))
                    if held:
                        rasterio.shutil.copy(file, part, **cog)
                if not held:
                    rasterio.shutil.copy(cells, part, **cog)
        except GDAL_ERRORS as error:
            raise output_error(path, error) from error
        if ellipsoid_code is not None:
            replace_vertical_key(part, EGM96_HEIGHT_EPSG, ellipsoid_code)


def block_side(shape: tuple[int, int]) -> int:
    """Side of square blocks of at most BLOCK pixels that hang over the longer side of a raster as little as can be: all
    of them are compressed in full. A multiple of 16, as TIFF asks for."""
    longest = max(*shape, LEAST_BLOCK)
    return 16 * -(-longest // (16 * -(-longest // BLOCK)))


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Blocks of files that GDAL keeps in memory take a fixed size, not a share of the machine's."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        yield


@lru_cache(maxsize=64)
def _file_crs(reference: Reference, heights: bool) -> tuple[str, int | None]:
    """CRS for GDAL as WKT, and the code of the geographic 3D CRS to put in place of its vertical part, if any."""
    horizontal = reference.crs
    if not heights or not reference.vertical.is_declared:
        return horizontal.to_wkt(), None
    if not reference.vertical.is_ellipsoid or horizontal.is_geographic:
        return reference.compound().to_wkt(), None
    base = horizontal.to_3d().geodetic_crs
    code = None if base is None else base.to_epsg()
    if base is None or code is None:
        return ellipsoid_compound(horizontal).to_wkt(), None
    stand_in = CRS.from_epsg(EGM96_HEIGHT_EPSG)
    name = f"{horizontal.name} + {base.name} ellipsoidal height"
    return CompoundCRS(name, [horizontal, stand_in]).to_wkt(), code


def ellipsoid_compound(horizontal: CRS) -> CRS:
    """Ellipsoidal heights as the vertical part of a compound CRS, for formats that know no three-dimensional one."""
    height = CRS.from_wkt(
        'VERTCRS["Ellipsoid (metre)",VDATUM["Ellipsoid"],CS[vertical,1],'
        'AXIS["ellipsoidal height (h)",up],LENGTHUNIT["metre",1]]'
    )
    return CompoundCRS(f"{horizontal.name} + {height.name}", [horizontal, height])


@contextmanager
def open_raster(path: str | Path) -> Any:
    """Dataset of rasterio, with InputFileError for whatever is wrong with the file, also while it is read."""
    path = Path(path)
    if not path.is_file():
        raise InputFileError("no such file" if not path.exists() else "is not a file", where=path)
    try:
        with rasterio.open(path) as file:
            if file.count > MOST_BANDS:  # their blocks would take gigabytes
                raise InputFileError(f"has {file.count} bands, {MOST_BANDS} at most are read", where=path)
            yield file
    except GDAL_ERRORS as error:
        detail = str(error.__cause__ or error).splitlines()[0]
        if path.suffix.lower() in (".tif", ".tiff"):
            reason, fix = "is truncated or damaged", "copy or download the file again"
        else:
            reason, fix = "is not a readable raster", "give a GeoTIFF, or copy the file again if it is one"
        raise InputFileError(f"{reason} ({detail[:120]})", where=path, fix=fix) from error


@contextmanager
def _open_square(path: str | Path, resampling: Resampling = Resampling.bilinear) -> Any:
    """As ``open_raster``; a geographic raster whose cells are not as wide as high (global models beyond 50 degrees of
    latitude) is seen in square ones of the smaller side."""
    with open_raster(path) as file:
        t, geographic = file.transform, file.crs is not None and file.crs.is_geographic
        cell = min(t.a, -t.e)
        if not geographic or t.b or t.d or cell <= 0 or abs(t.a + t.e) <= 1e-6 * t.a:
            yield file
            return
        size = {"width": int(file.width * t.a / cell + 1e-6), "height": int(file.height * -t.e / cell + 1e-6)}
        place = Affine(cell, 0, t.c, 0, -cell, t.f)
        with WarpedVRT(file, crs=file.crs, transform=place, resampling=resampling, **size) as square:
            yield square


def read_grid(path: str | Path) -> Grid:
    """Grid of a raster file with its horizontal and declared vertical reference.

    Raises InputFileError, or FrameError if the file has no CRS or is not a north-up grid of square cells.
    """
    with _open_square(path) as file:
        return _grid(file, Path(path))


def read_raster(path: str | Path, band: int = 1, *, window: tuple[int, int, int, int] | None = None) -> Raster:
    """One band as float32, NaN where the file has no value; scale and offset of the band applied, feet of height in
    metres. What stands for no value in files that do not say so (-9999, -32768, the least float) is none here either.

    window: (row, column, height, width), inside the raster; all of it by default.
    The reference's vertical part is ELLIPSOID, egm96, a Vertical with only a name, or UNDECLARED.
    Raises InputFileError (missing, truncated, no raster, no such band) and FrameError (no CRS, not north-up).
    """
    with _open_square(path) as file:
        grid = _grid(file, Path(path))
        values = _floats(file, Path(path), band, window)
    return Raster(values, grid if window is None else grid.window(*window))


def read_classes(path: str | Path, band: int = 1, *, window: tuple[int, int, int, int] | None = None) -> Raster:
    """One band in the file's own integer type (classes, masks). Raises as ``read_raster`` does, and for floats."""
    with _open_square(path, Resampling.nearest) as file:
        grid = _grid(file, Path(path))
        values = _integers(file, Path(path), band, window)
    return Raster(values, grid if window is None else grid.window(*window))


def read_values(path: str | Path, band: int, window: tuple[int, int, int, int], *, codes: bool) -> NDArray[Any]:
    """Values of a window as ``read_raster``, or with ``codes`` as ``read_classes`` gives them, where the grid is known
    already: a CRS takes longer to read than many a window."""
    with _open_square(path, Resampling.nearest if codes else Resampling.bilinear) as file:
        return (_integers if codes else _floats)(file, Path(path), band, window)


def _floats(file: Any, path: Path, band: int, window: tuple[int, int, int, int] | None) -> NDArray[np.float32]:
    if file.count >= PICTURE_BANDS and set(file.dtypes) == {"uint8"}:
        raise InputFileError(f"is a picture of {file.count} bands of 8 bits, not heights", where=path)
    values = _read(file, path, band, window, masked=True)
    scale, offset = file.scales[band - 1], file.offsets[band - 1]
    out: NDArray[np.float32] = np.ma.filled(values.astype(np.float32), np.nan)
    if np.issubdtype(values.dtype, np.signedinteger):
        out[values == np.iinfo(values.dtype).min] = np.nan
    if (scale, offset) != (1.0, 0.0):
        out = (out * scale + offset).astype(np.float32)
    out[~(np.abs(out) <= MOST_VALUE) | (out == HEIGHT_NODATA)] = np.nan
    unit = _height_unit(file.crs.to_wkt(version="WKT2_2019"), file.units[band - 1])
    return out if unit == 1.0 else (out * unit).astype(np.float32)


def _integers(file: Any, path: Path, band: int, window: tuple[int, int, int, int] | None) -> NDArray[Any]:
    values = _read(file, path, band, window, masked=False)
    if not np.issubdtype(values.dtype, np.integer):
        raise InputFileError(f"holds {values.dtype} values, not classes", where=path, fix="give a raster of integers")
    return values


def _read(file: Any, path: Path, band: int, window: tuple[int, int, int, int] | None, masked: bool) -> NDArray[Any]:
    if not 1 <= band <= file.count:
        raise InputFileError(f"has {file.count} band(s), not a band {band}", where=path)
    part = None
    if window is not None:
        row, column, height, width = window
        if min(row, column) < 0 or min(height, width) < 1 or row + height > file.height or column + width > file.width:
            raise ValueError(f"window {window} is not inside {file.height} x {file.width}")
        part = Window(column, row, width, height)
    values: NDArray[Any] = file.read([band], window=part, masked=masked)[0]  # one by its number: numpy 2.5 complains
    return values


def _grid(file: Any, path: Path) -> Grid:
    if file.crs is None:
        raise FrameError("raster has no CRS", where=path, fix="declare one, e.g. gdal_edit.py -a_srs EPSG:32654")
    t = file.transform
    if t.b or t.d or t.a <= 0 or abs(t.a + t.e) > 1e-6 * t.a:
        raise FrameError("raster is not a north-up grid of square cells", where=path, fix="warp it first (gdalwarp)")
    return Grid(reference_of(file.crs, path), t.c, t.f, t.a, file.height, file.width)


def reference_of(crs: RasterioCRS, path: Path) -> Reference:
    """Reference of a file's CRS: an EPSG code where it has one, else WKT, and the vertical part it declares."""
    try:
        whole = CRS.from_wkt(crs.to_wkt(version="WKT2_2019"))
    except (CRSError, RasterioError) as error:
        raise FrameError("CRS cannot be read", where=path, fix="declare an EPSG code") from error
    return reference_from_crs(whole)


def reference_from_crs(crs: CRS) -> Reference:
    """Reference with horizontal part as 'EPSG:n' where possible and the vertical part that ``crs`` declares."""
    flat = crs.sub_crs_list[0] if crs.is_compound else crs
    flat = flat.to_2d()
    epsg = flat.to_epsg()
    return Reference(f"EPSG:{epsg}" if epsg else flat.to_wkt(), _vertical(vertical_of_crs(crs)))


def _vertical(name: str | None) -> Vertical:
    if name is None:
        return UNDECLARED
    if name == "ellipsoid":
        return ELLIPSOID
    if name == "egm96":
        return vertical_from_name("egm96")
    for unit in (" (ftUS)", " (ft)"):  # heights are in metres once they are read
        name = name.replace(unit, "")
    return Vertical(name)


@lru_cache(maxsize=64)
def _height_unit(wkt: str, unit: str | None) -> float:
    """Metres of one unit of the values: as the vertical part of the CRS says, else the unit that the band names."""
    try:
        crs = CRS.from_wkt(wkt)
    except CRSError:
        return 1.0
    if crs.is_compound or len(crs.axis_info) == 3:
        return metres_per_unit(crs)[1]
    name = "" if unit is None else unit.strip().lower().replace("-", " ").replace("_", " ")
    return FEET.get(name, 1.0)
