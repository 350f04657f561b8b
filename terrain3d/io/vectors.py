"""Vector layers in GeoPackage files, and layers of any vector format that GDAL reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from pyproj import CRS
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import parse_crs
from terrain3d.errors import FrameError, InputFileError
from terrain3d.io.atomic import atomic_path, output_error
from terrain3d.io.rasters import reference_from_crs

PYOGRIO_ERRORS = (DataSourceError, DataLayerError, pyogrio.errors.FeatureError, pyogrio.errors.GeometryError)


@dataclass(frozen=True)
class Layer:
    """Geometries (N,) of shapely, columns by name (N,) each, and the horizontal CRS."""

    geometries: NDArray[Any]
    columns: dict[str, NDArray[Any]]
    crs: str


@dataclass(frozen=True)
class NamedLayer:
    """A layer to be written: its name, geometries and columns as ``write_layer`` takes them."""

    name: str
    geometries: Sequence[BaseGeometry] | NDArray[Any]
    columns: Mapping[str, Any]
    geometry_type: str = "Polygon"


def write_layer(
    path: str | Path,
    layer: str,
    geometries: Sequence[BaseGeometry] | NDArray[Any],
    columns: Mapping[str, Any],
    crs: str,
    *,
    geometry_type: str = "Polygon",
) -> None:
    """Write one layer to a new GeoPackage, atomically. NaN becomes NULL; no geometries make a valid empty layer.

    columns: name to (N,) array of numbers, strings or booleans; an empty layer keeps their types.
    geometry_type: of an empty layer; otherwise it is taken from the geometries, 'Multi...' if some are.
    Raises OutputError, FrameError (unknown CRS), ValueError (columns of unequal length).
    """
    write_layers(path, [NamedLayer(layer, geometries, columns, geometry_type)], crs)


def write_layers(
    path: str | Path, layers: Sequence[NamedLayer], crs: str, *, changed: datetime | None = None
) -> None:  # fmt: skip
    """Write layers of one CRS to a new GeoPackage, as ``write_layer`` does. changed: time of the last change that the
    file states, which else is now; with it the same layers give the same bytes."""
    path = Path(path)
    stamp = None if changed is None else f"{changed.astimezone(UTC):%Y-%m-%dT%H:%M:%S.000Z}"
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": stamp})
    code = parse_crs(crs).to_epsg()
    with atomic_path(path) as part:
        for layer in layers:
            try:
                _write(part, layer, f"EPSG:{code}" if code else parse_crs(crs).to_wkt())
            except PYOGRIO_ERRORS as error:
                raise output_error(path, error) from error


def _write(path: Path, layer: NamedLayer, crs: str) -> None:
    shapes = np.asarray(layer.geometries, dtype=object)
    fields = {name: np.asarray(values) for name, values in layer.columns.items()}
    if any(len(values) != len(shapes) for values in fields.values()):
        raise ValueError(f"columns { ({k: len(v) for k, v in fields.items()}) } do not fit {len(shapes)} geometries")
    fields = {k: v.astype(object) if v.dtype.kind in "US" else v for k, v in fields.items()}
    kinds = sorted({g.geom_type for g in shapes}) or [layer.geometry_type]
    multi = len(kinds) > 1 and len({k.removeprefix("Multi") for k in kinds}) == 1
    kind = f"Multi{kinds[0].removeprefix('Multi')}" if multi else kinds[0] if len(kinds) == 1 else "Unknown"
    if len(shapes) and shapely.has_z(shapes).any():
        kind += " Z"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(shapes) if len(shapes) else np.empty(0, dtype=object),
        list(fields.values()),
        list(fields),
        layer=layer.name,
        driver="GPKG",
        geometry_type=kind,
        crs=crs,
        promote_to_multi=multi,
    )


def read_layer(path: str | Path, layer: str | None = None) -> Layer:
    """A layer (the first by default) with its CRS as 'EPSG:n' where possible.

    Raises InputFileError (missing, not a vector file, no such layer) and FrameError (no CRS).
    """
    path = Path(path)
    if not path.is_file():
        raise InputFileError("no such file", where=path)
    try:
        meta, _, geometry, data = pyogrio.raw.read(path, layer=layer or layer_names(path)[0])
    except PYOGRIO_ERRORS as error:
        raise _unreadable(path, error) from error
    if not meta["crs"]:
        raise FrameError("layer has no CRS", where=path, fix="declare one, e.g. ogr2ogr -a_srs EPSG:32654")
    shapes = shapely.from_wkb(geometry) if geometry is not None else np.empty(0, dtype=object)
    columns = {str(name): values for name, values in zip(meta["fields"], data, strict=True)}
    return Layer(
        np.asarray(shapes, dtype=object), columns, reference_from_crs(CRS.from_user_input(meta["crs"])).horizontal
    )


def layer_names(path: Path) -> list[str]:
    """Names of the layers of a file, in its order. Raises InputFileError if it is no vector file or has none."""
    try:
        names = [str(name) for name in pyogrio.list_layers(path)[:, 0]]
    except PYOGRIO_ERRORS as error:
        raise _unreadable(path, error) from error
    if not names:
        raise InputFileError("has no layer", where=path)
    return names


def _unreadable(path: Path, error: BaseException) -> InputFileError:
    detail = str(error).splitlines()[0][:120]
    return InputFileError(f"layer cannot be read ({detail})", where=path, fix="check the file and layer")


def cut_layer(layer: NamedLayer, outline: BaseGeometry) -> NamedLayer:
    """What of a layer lies inside an outline: polygons and lines cut there, columns as they were, in the same order."""
    shapes = np.asarray(layer.geometries, dtype=object)
    near = np.sort(shapely.STRtree(shapes).query(outline, "intersects"))
    kind = layer.geometry_type
    parts = [_of_kind(shapely.intersection(shapes[k], outline), kind) for k in near]
    some = [k for k, part in zip(near, parts, strict=True) if not part.is_empty]
    columns = {name: np.asarray(values)[some] for name, values in layer.columns.items()}
    return NamedLayer(layer.name, tuple(p for p in parts if not p.is_empty), columns, kind)


def place_ids(shapes: Sequence[BaseGeometry]) -> NDArray[np.int64]:
    """Numbers of shapes by where they lie, (n,), so that others coming or going leave them as they are: easting, with
    eight digits of northing, of a point inside, whole metres. What has the same takes the next free ones."""
    x, y = shapely.get_coordinates(shapely.point_on_surface(np.asarray(shapes, dtype=object))).T
    ids = (np.floor(x).astype(np.int64) % 50_000_000) * 100_000_000 + np.floor(y).astype(np.int64) % 100_000_000
    taken: set[int] = set()
    for k, number in enumerate(ids.tolist()):
        while number in taken:
            number += 1
        taken.add(number)
        ids[k] = number
    return ids


def _of_kind(shape: BaseGeometry, kind: str) -> BaseGeometry:
    """The parts of a geometry that are of a kind; what only touches leaves points and lines behind."""
    single = [p for p in shapely.get_parts(shape) if p.geom_type == kind]
    if len(single) == 1:
        return single[0]
    return shapely.MultiLineString(single) if kind == "LineString" else shapely.MultiPolygon(single)
