"""STAC 1.1.0 Item of a folder of results: projection 2.0, raster 2.0, file 2.1 and processing 1.2 extensions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon
from shapely.geometry import mapping

from terrain3d import __version__
from terrain3d.crs import to_lonlat, unbroken
from terrain3d.errors import InputFileError
from terrain3d.io.rasters import open_raster
from terrain3d.raster import Grid
from terrain3d.tiles import on_earth

EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("projection/v2.0.0", "raster/v2.0.0", "file/v2.1.0", "processing/v1.2.0")
)
MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".laz": "application/vnd.laszip",
    ".las": "application/vnd.las",
    ".gpkg": "application/geopackage+sqlite3",
    ".json": "application/json",
    ".html": "text/html",
    ".yaml": "application/yaml",
    ".log": "text/plain",
    ".vrt": "application/xml",
    ".xml": "application/xml",
    ".png": "image/png",
}


@dataclass(frozen=True)
class Asset:
    """A file of the item: its key, where it lies, title, roles ('data', 'metadata', 'overview') and pixel unit."""

    key: str
    path: Path
    title: str
    roles: tuple[str, ...] = ("data",)
    unit: str | None = None


def stac_item(
    name: str,
    grid: Grid,
    assets: Sequence[Asset],
    *,
    folder: Path,
    start: datetime | None = None,
    end: datetime | None = None,
    lineage: str = "",
) -> dict[str, Any]:
    """Item of results on ``grid``; assets with links relative to ``folder``, where the item is to be written.

    start, end: first and last image; one time if they are equal, the time of writing if neither is known.
    Checksums are SHA-256 multihashes. Raises InputFileError if a file of an asset is missing.
    """
    code = grid.reference.crs.to_epsg()
    west, south, east, north = grid.bounds
    properties: dict[str, Any] = {
        "title": name,
        **_times(start, end),
        "processing:software": {"terrain3d": __version__},
        "proj:code": f"EPSG:{code}" if code else None,
        "proj:bbox": [west, south, east, north],
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform),
        "vertical_reference": grid.reference.vertical.name,
    }
    if not code:
        properties["proj:wkt2"] = grid.reference.crs.to_wkt()
    if lineage:
        properties["processing:lineage"] = lineage
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": name,
        "bbox": bounds_lonlat(grid),
        "geometry": geometry(grid),
        "properties": properties,
        "links": [],
        "assets": {a.key: _asset(a, folder, grid) for a in assets},
    }


def in_collection(item: dict[str, Any], name: str, above: str = "../..") -> dict[str, Any]:
    """The item as one of a collection, whose file lies in the folder ``above`` it."""
    links = [
        {"rel": rel, "href": f"{above}/collection.json", "type": "application/json"}
        for rel in ("root", "parent", "collection")
    ]
    return item | {"collection": name, "links": links}


def stac_collection(
    name: str, items: Sequence[Path], assets: Sequence[tuple[Path, str]], *, folder: Path
) -> dict[str, Any]:  # fmt: skip
    """Collection of items that lie in files under ``folder``, where it is to be written.

    assets: files over all items with their titles. Raises InputFileError if an item or an asset is missing.
    """
    boxes, times = [], []
    for path in items:
        try:
            item = json.loads(path.read_text(encoding="utf-8"))
            boxes.append(item["bbox"])
            p = item["properties"]
            times += [t for t in (p["datetime"], p.get("start_datetime"), p.get("end_datetime")) if t is not None]
        except (OSError, ValueError, KeyError) as error:
            raise InputFileError("item of the collection cannot be read", where=path) from error
    b = np.array(boxes) if boxes else np.array([[-180.0, -90.0, 180.0, 90.0]])
    box = _box(unbroken(b[:, 0::2]) if boxes else b[:, 0::2], b[:, 1::2])
    links = [{"rel": "root", "href": "./collection.json", "type": "application/json"}]
    links += [
        {"rel": "item", "href": f"./{p.relative_to(folder).as_posix()}", "type": "application/geo+json"} for p in items
    ]
    return {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [e for e in EXTENSIONS if "/file/" in e],
        "id": name,
        "title": name,
        "description": f"Surface and terrain models of {name}, made with terrain3d {__version__}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [box]},
            "temporal": {"interval": [[min(times, default=None), max(times, default=None)]]},
        },
        "links": links,
        "assets": {
            p.relative_to(folder).as_posix().replace("/", "_").removesuffix(p.suffix): {
                "href": f"./{p.relative_to(folder).as_posix()}", "title": title,
                "type": MEDIA_TYPES.get(p.suffix, "application/octet-stream"), "roles": ["data"],
                "file:size": p.stat().st_size, "file:checksum": checksum(p),
            }
            for p, title in assets
        },
    }  # fmt: skip


def outline(grid: Grid, points: int = 8) -> list[list[float]]:
    """Closed counter-clockwise ring of longitude and latitude around the grid, ``points`` a side, from south-west."""
    west, south, east, north = grid.bounds
    t = np.arange(points) / points
    x = np.concatenate(
        [west + t * (east - west), np.full(points, east), east - t * (east - west), np.full(points, west)]
    )
    y = np.concatenate(
        [np.full(points, south), south + t * (north - south), np.full(points, north), north - t * (north - south)]
    )
    lon, lat = to_lonlat(grid.reference.horizontal, np.append(x, west), np.append(y, south))
    return [[round(float(a), 8), round(float(b), 8)] for a, b in zip(lon, lat, strict=True)]


def geometry(grid: Grid) -> dict[str, Any]:
    """Outline as GeoJSON: a polygon, of which there are two where the 180th meridian cuts it."""
    ring = outline(grid)
    lon = [p[0] for p in ring]
    if max(lon) <= 180.0:
        return {"type": "Polygon", "coordinates": [ring]}
    return dict(mapping(on_earth(Polygon(ring))))


def bounds_lonlat(grid: Grid) -> list[float]:
    """West, south, east, north in degrees; west is greater than east where the 180th meridian lies between (RFC 7946,
    section 5.2)."""
    lon, lat = np.array(outline(grid)).T
    return _box(lon, lat)


def _box(lon_deg: NDArray[np.float64], lat_deg: NDArray[np.float64]) -> list[float]:
    west, east = (round(v - 360.0, 8) if v > 180.0 else v for v in (float(lon_deg.min()), float(lon_deg.max())))
    return [west, float(lat_deg.min()), east, float(lat_deg.max())]


def checksum(path: Path) -> str:
    """SHA-256 of a file as a multihash: code 12, length 20 (hexadecimal), digest."""
    try:
        with path.open("rb") as file:
            return "1220" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputFileError("file of the item cannot be read", where=path) from error


def _times(start: datetime | None, end: datetime | None) -> dict[str, Any]:
    if start is None and end is None:
        return {"datetime": _iso(datetime.now(UTC))}
    first, last = start or end, end or start
    assert first is not None and last is not None
    if first == last:
        return {"datetime": _iso(first)}
    return {"datetime": None, "start_datetime": _iso(first), "end_datetime": _iso(last)}


def _iso(time: datetime) -> str:
    """RFC 3339 in UTC; a time without a zone is taken as UTC."""
    known = time if time.tzinfo else time.replace(tzinfo=UTC)
    return known.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _asset(asset: Asset, folder: Path, grid: Grid) -> dict[str, Any]:
    total = checksum(asset.path)
    out: dict[str, Any] = {
        "href": f"./{asset.path.relative_to(folder).as_posix()}"
        if asset.path.is_relative_to(folder)
        else str(asset.path),
        "title": asset.title,
        "type": MEDIA_TYPES.get(asset.path.suffix.lower(), "application/octet-stream"),
        "roles": list(asset.roles),
        "file:size": asset.path.stat().st_size,
        "file:checksum": total,
    }
    if asset.path.suffix.lower() == ".tif":
        with open_raster(asset.path) as file:
            shape, transform = file.shape, tuple(file.transform)[:6]
            if (shape, transform) != (grid.shape, grid.transform):
                out["proj:shape"], out["proj:transform"] = list(shape), list(transform)
            out["raster:spatial_resolution"] = transform[0]
            out["raster:sampling"] = "area"
            out["bands"] = _bands(file, asset)
    return out


def _bands(file: Any, asset: Asset) -> list[dict[str, Any]]:
    bands = []
    for i in range(file.count):
        band: dict[str, Any] = {"name": file.descriptions[i] or f"{asset.key}_{i + 1}", "data_type": file.dtypes[i]}
        if file.nodatavals[i] is not None:
            nodata = file.nodatavals[i]
            band["nodata"] = float(nodata) if np.isfinite(nodata) else "nan"
        if asset.unit:
            band["unit"] = asset.unit
        bands.append(band)
    return bands
