"""What a file is: images with their cameras, RPC files, rasters, lidar granules, clouds, layers, scenes, folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pyproj import Geod

from terrain3d.config import read_yaml
from terrain3d.crs import Vertical, parse_crs
from terrain3d.errors import CameraError, FrameError, InputFileError, LidarError
from terrain3d.io.clouds import cloud_reference, open_cloud
from terrain3d.io.images import has_data, open_image
from terrain3d.io.rasters import open_raster, read_grid
from terrain3d.io.vectors import layer_names, read_layer

Fact = tuple[str, str]
MOST_TRACKS = 12  # that are named
WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Info:
    """Kind of a file and facts about it as (what, value) in text."""

    path: Path
    kind: str
    facts: tuple[Fact, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {"path": str(self.path), "kind": self.kind, **dict(self.facts)}


def describe(path: str | Path) -> Info:
    """Describe a file by its content. Raises InputFileError if it is missing or of no kind that is known."""
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputFileError("no such file", where=path, fix="check the path")
    rpc_text = path.name.lower().endswith(("_rpc.txt", "_rpc_org.txt"))
    reader = _rpc if rpc_text else READERS.get(path.suffix.lower())
    return reader(path) if reader else _raster_or_image(path)


@dataclass(frozen=True)
class View:
    """Viewing geometry of an image's centre at its RPC's middle height.

    gsd: metres a pixel along line and sample direction. incidence_deg: between the vertical and the ray to the sensor.
    azimuth_deg: of the sensor as seen from the ground, clockwise from north.
    """

    lon_deg: float
    lat_deg: float
    gsd: tuple[float, float]
    incidence_deg: float
    azimuth_deg: float


def view_of(path: Path) -> tuple[View, tuple[float, float]]:
    """View of an image and the height range of its RPC. Raises CameraError if it has none, InputFileError."""
    from terrain3d.camera.read import read_rpc
    from terrain3d.camera.rpc import locate

    image = open_image(path)
    rpc = read_rpc(path)
    low, high = rpc.height_range
    middle = (low + high) / 2
    line, sample = (image.height - 1) / 2, (image.width - 1) / 2
    lon, lat = locate(rpc, [line, line + 1, line, line, line], [sample, sample, sample + 1, sample, sample],
                      [middle, middle, middle, low, high])  # fmt: skip
    _, _, along = WGS84.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, across = WGS84.inv(lon[0], lat[0], lon[2], lat[2])
    azimuth, _, shift = WGS84.inv(lon[3], lat[3], lon[4], lat[4])
    incidence = float(np.degrees(np.arctan2(shift, high - low)))
    return View(float(lon[0]), float(lat[0]), (along, across), incidence, azimuth % 360), (low, high)


def _raster_or_image(path: Path) -> Info:
    with open_raster(path) as file:
        mapped = file.crs is not None
        has_rpc = bool(file.tags(ns="RPC"))
    return _raster(path) if mapped and not has_rpc else _image(path)


def _image(path: Path) -> Info:
    image = open_image(path)
    alpha = "" if image.alpha is None else " and alpha"
    facts = [
        ("size", f"{image.height} x {image.width} px, {len(image.bands)} band(s){alpha}, {image.dtype}"),
        ("nodata", "none" if image.nodata is None else f"{image.nodata:g}"),
        ("pixels", "with data" if has_data(image) else "all nodata"),
    ]
    try:
        view, (low, high) = view_of(path)
    except CameraError as error:
        return Info(path, "image", (*facts, ("RPC", error.what)))
    facts += [
        ("RPC", f"heights {low:.0f} to {high:.0f} m"),
        ("centre", f"longitude {view.lon_deg:.6f}, latitude {view.lat_deg:.6f}"),
        ("ground sampling", f"{view.gsd[0]:.2f} m along lines, {view.gsd[1]:.2f} m along samples"),
        ("view", f"incidence {view.incidence_deg:.1f} deg, sensor at azimuth {view.azimuth_deg:.0f} deg"),
    ]
    return Info(path, "image with RPC", tuple(facts))


def _raster(path: Path) -> Info:
    with open_raster(path) as file:
        size = f"{file.height} x {file.width} cells, {file.count} band(s), {file.dtypes[0]}"
        nodata = file.nodata
        step = max(file.height, file.width) / 1024
        shape = (file.height, file.width) if step <= 1 else (int(file.height / step) or 1, int(file.width / step) or 1)
        values = file.read([1], out_shape=(1, *shape), masked=True)[0].astype(float)
    known = np.ma.filled(values, np.nan)
    known = known[np.isfinite(known)]
    facts: list[Fact] = [("size", size), ("nodata", "none" if nodata is None else f"{nodata:g}")]
    try:
        grid = read_grid(path)
    except FrameError as error:
        facts.append(("grid", error.what))
    else:
        west, south, east, north = grid.bounds
        facts += [
            ("CRS", _crs_text(grid.reference.horizontal)),
            ("vertical reference", _vertical_text(grid.reference.vertical)),
            ("resolution", f"{grid.resolution:g} {'m' if grid.reference.crs.is_projected else 'deg'}"),
            ("bounds", f"{west:.10g} {south:.10g} {east:.10g} {north:.10g}"),
        ]
    share = 100 * known.size / values.size
    facts.append(("values", f"{known.min():g} to {known.max():g}, {share:.1f} % valid" if known.size else "none"))
    return Info(path, "raster", tuple(facts))


def _granule(path: Path) -> Info:
    from terrain3d.lidar.read import read_granule

    try:
        granule = read_granule(path)
    except LidarError as error:
        return Info(path, "lidar granule", (("returns", error.what),))
    returns = granule.returns
    facts: list[Fact] = [
        ("product", granule.product),
        ("frame", granule.frame.text),
        ("returns", f"{granule.n_read} in the file, {len(returns)} pass the standard rules"),
        *((f"rejected: {rule}", str(count)) for rule, count in granule.rejected if count),
        *((("not asked", f"{', '.join(granule.unasked)} (the file lacks the fields)"),) if granule.unasked else ()),
        *(("warning", text) for text in granule.warnings),
        (
            "tracks",
            _tracks_text([returns.track_names[t].split("/")[-1] for t in np.unique(returns.track)]),
        ),
    ]
    if len(returns):
        lon, lat, h = returns.lon_deg, returns.lat_deg, returns.height
        facts += [
            ("extent", f"longitude {lon.min():.5f} to {lon.max():.5f}, latitude {lat.min():.5f} to {lat.max():.5f}"),
            ("heights", f"{h.min():.1f} to {h.max():.1f} m over the ellipsoid"),
        ]
    return Info(path, "lidar granule", tuple(facts))


def _tracks_text(names: list[str]) -> str:
    shown = ", ".join(names[:MOST_TRACKS]) + (", ..." if len(names) > MOST_TRACKS else "")
    return f"{len(names)} with returns" + (f": {shown}" if names else "")


def _table(path: Path) -> Info:
    from terrain3d.lidar.read_columns import PARQUET, read_head
    from terrain3d.lidar.read_sliderule import reader_of

    if path.suffix.lower() in PARQUET and reader_of(path):
        return _granule(path)
    head = read_head(path)
    crs = "none" if head.crs is None else head.crs.name
    return Info(path, "table", (("columns", ", ".join(head.columns)), ("CRS", crs)))


def _cloud(path: Path) -> Info:
    with open_cloud(path) as file:
        header = file.header
        low, high = header.mins, header.maxs
        facts: list[Fact] = [
            ("points", f"{header.point_count}, LAS {header.version}, format {header.point_format.id}"),
            ("bounds", " x ".join(f"{a:.2f} to {b:.2f}" for a, b in zip(low, high, strict=True))),
            ("extra dimensions", ", ".join(header.point_format.extra_dimension_names) or "none"),
        ]
        try:
            reference = cloud_reference(header, path)
            facts += [
                ("CRS", _crs_text(reference.horizontal)),
                ("vertical reference", _vertical_text(reference.vertical)),
            ]
        except FrameError as error:
            facts.append(("CRS", error.what))
    return Info(path, "point cloud", tuple(facts))


def _layer(path: Path) -> Info:
    facts: list[Fact] = []
    names = layer_names(path)
    for name in names:
        layer = read_layer(path, name)
        columns = ", ".join(layer.columns) or "none"
        facts += [("layer", name)] * (len(names) > 1)
        facts += [("features", str(len(layer.geometries))), ("CRS", _crs_text(layer.crs)), ("columns", columns)]
    return Info(path, "vector layer" if len(names) == 1 else f"{len(names)} vector layers", tuple(facts))


def _rpc(path: Path) -> Info:
    from terrain3d.camera.read import read_rpc_file

    model = read_rpc_file(path)
    low, high = model.height_range
    facts = (
        ("heights", f"{low:.0f} to {high:.0f} m"),
        ("lines", f"{model.line_off:.1f} +- {abs(model.line_scale):.1f}"),
        ("samples", f"{model.samp_off:.1f} +- {abs(model.samp_scale):.1f}"),
        ("longitude", f"{model.lon_off_deg:.6f} +- {abs(model.lon_scale_deg):.6f}"),
        ("latitude", f"{model.lat_off_deg:.6f} +- {abs(model.lat_scale_deg):.6f}"),
    )
    return Info(path, "RPC file", facts)


def _scene(path: Path) -> Info:
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise InputFileError("is not a scene (no keys)", where=path)
    facts = [
        (str(k), f"{len(v)}: {', '.join(map(str, v))}" if isinstance(v, list) else str(v)) for k, v in value.items()
    ]
    return Info(path, "scene", tuple(facts))


def _folder(path: Path) -> Info:
    """Folder of results: the size of each file and what the DSM is."""
    dsm, change = path / "dsm.tif", path / "change.tif"
    main = next((p for p in (dsm, change) if p.is_file()), None)
    if main is None:
        raise InputFileError(
            "is a folder without dsm.tif or change.tif", where=path, fix="give a file or a run's folder"
        )
    facts = [(f"{main.stem} {what}", value) for what, value in _raster(main).facts]
    quality = path / "quality.json"
    if quality.is_file():
        try:
            keys = json.loads(quality.read_text(encoding="utf-8"))
        except ValueError:
            keys = {}
        facts += [
            (k, f"{v:g}" if isinstance(v, float) else str(v))
            for k, v in keys.items()
            if isinstance(v, (str, float, int))
        ]
    files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    facts += [("file", f"{p.name}, {p.stat().st_size / 1e6:.2f} MB") for p in files]
    return Info(path, "run folder" if main == dsm else "change folder", tuple(facts))


def _crs_text(crs: str) -> str:
    parsed = parse_crs(crs)
    return f"{crs} ({parsed.name})" if crs.startswith("EPSG") else parsed.name


def _vertical_text(vertical: Vertical) -> str:
    if not vertical.is_declared:
        return "not declared"
    return "WGS 84 ellipsoid" if vertical.is_ellipsoid else vertical.name


READERS: dict[str, Callable[[Path], Info]] = {
    **dict.fromkeys((".h5", ".hdf5", ".he5"), _granule),
    **dict.fromkeys((".csv", ".txt", ".parquet", ".geoparquet"), _table),
    **dict.fromkeys((".las", ".laz"), _cloud),
    **dict.fromkeys((".gpkg", ".geojson", ".shp", ".fgb"), _layer),
    **dict.fromkeys((".yaml", ".yml"), _scene),
    **dict.fromkeys((".rpb", ".rpc", ".geom", ".xml"), _rpc),
}
