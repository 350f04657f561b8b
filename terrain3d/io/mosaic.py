"""Mosaics of raster files: a GDAL VRT with relative paths, and overviews beside it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
import rasterio
from rasterio.coords import BoundingBox
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window

from terrain3d.errors import FrameError
from terrain3d.io.atomic import output_error, write_bytes
from terrain3d.io.quiet import hush_libtiff
from terrain3d.io.rasters import GDAL_ERRORS, open_raster

GDAL_TYPES = {"uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
              "float32": "Float32", "float64": "Float64"}  # fmt: skip
BLOCK = 256
OVERVIEW_PX = 256  # the smallest overview is no longer than twice this


def write_mosaic(path: Path, files: Sequence[Path]) -> None:
    """Write a VRT over raster files of one layer: same CRS, cell size, lattice, type, bands and nodata. Later files lie
    on top. Overviews go to ``path``.ovr. Raises FrameError if the files do not fit, OutputError."""
    root = Element("VRTDataset")
    placed: list[tuple[Path, BoundingBox, int, int]] = []
    own: list[int] = []  # how many of its cells are one in the coarsest overview of each file
    first = None
    for file in files:
        with open_raster(file) as raster:
            form = (raster.crs, raster.res, raster.dtypes, raster.nodatavals, raster.descriptions)
            if first is None:
                first, colours, shape = form, raster.count, raster.block_shapes[0]
            if form != first:
                raise FrameError("does not fit the other files of the mosaic", where=file)
            placed.append((file, raster.bounds, raster.width, raster.height))
            own.append(max(raster.overviews(1), default=1))
    if first is None:
        return
    boxes = np.array([b for _, b, _, _ in placed])
    (west, south), (east, north) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    crs, (cell, _), types, nodata, names = first
    root.set("rasterXSize", str(round((east - west) / cell)))
    root.set("rasterYSize", str(round((north - south) / cell)))
    SubElement(root, "SRS").text = crs.to_wkt(version="WKT2_2019")
    SubElement(root, "GeoTransform").text = f"{west:.10g}, {cell:.17g}, 0, {north:.10g}, 0, {-cell:.17g}"
    for band in range(1, colours + 1):
        element = SubElement(root, "VRTRasterBand", dataType=GDAL_TYPES[types[band - 1]], band=str(band))
        if names[band - 1]:
            SubElement(element, "Description").text = names[band - 1]
        if nodata[band - 1] is not None:
            SubElement(element, "NoDataValue").text = f"{nodata[band - 1]:.17g}"
        for file, b, width, height in placed:
            source = SubElement(element, "ComplexSource")
            relative = file.relative_to(path.parent).as_posix()
            SubElement(source, "SourceFilename", relativeToVRT="1").text = relative
            SubElement(source, "SourceBand").text = str(band)
            SubElement(
                source, "SourceProperties", RasterXSize=str(width), RasterYSize=str(height),
                DataType=GDAL_TYPES[types[band - 1]], BlockXSize=str(shape[1]), BlockYSize=str(shape[0]),
            )  # fmt: skip
            column, row = round((b.left - west) / cell), round((north - b.top) / cell)
            for rect, x, y in (("SrcRect", 0, 0), ("DstRect", column, row)):
                SubElement(source, rect, xOff=str(x), yOff=str(y), xSize=str(width), ySize=str(height))
            if nodata[band - 1] is not None:
                SubElement(source, "NODATA").text = f"{nodata[band - 1]:.17g}"
    indent(root)
    overviews = path.with_name(path.name + ".ovr")
    overviews.unlink(missing_ok=True)
    write_bytes(path, tostring(root, encoding="utf-8"))
    _add_overviews(path, 2 * min(own), types[0].startswith("float"))


def _add_overviews(path: Path, step: int, continuous: bool) -> None:
    """Overviews from a step on, coarser than those in the files themselves, so that a whole area is drawn at once."""
    with rasterio.open(path) as mosaic:
        longest = max(mosaic.width, mosaic.height)
    steps = []
    while longest / step > OVERVIEW_PX:
        steps.append(step)
        step *= 2
    if not steps:
        return
    overviews = path.with_name(path.name + ".ovr")
    hush_libtiff()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # the mosaic says where they lie
            _write_reduced(path, overviews, steps[0], continuous)
            if len(steps) > 1:
                with rasterio.open(overviews, "r+") as file:
                    file.build_overviews([s // steps[0] for s in steps[1:]], _method(continuous))
    except GDAL_ERRORS as error:
        overviews.unlink(missing_ok=True)
        raise output_error(path, error) from error


def _write_reduced(path: Path, out: Path, step: int, continuous: bool) -> None:
    """The mosaic on cells ``step`` times as large. GDAL takes them from the files' own overviews, strip by strip."""
    with rasterio.open(path) as mosaic:
        width = -(-mosaic.width // step)
        profile = {
            "driver": "GTiff", "dtype": mosaic.dtypes[0], "count": mosaic.count, "nodata": mosaic.nodata,
            "height": -(-mosaic.height // step), "width": width, "tiled": True, "blockxsize": BLOCK,
            "blockysize": BLOCK, "compress": "deflate", "sparse_ok": True, "bigtiff": "if_safer",
        }  # fmt: skip
        with rasterio.open(out, "w", **profile) as file:
            for row in range(0, file.height, BLOCK):
                n = min(BLOCK, file.height - row)
                strip = Window(0, row * step, mosaic.width, min(n * step, mosaic.height - row * step))
                cells = mosaic.read(window=strip, out_shape=(mosaic.count, n, width), resampling=_method(continuous))
                file.write(cells, window=Window(0, row, width, n))


def _method(continuous: bool) -> Resampling:
    return Resampling.average if continuous else Resampling.nearest
