"""The scene file: what a run is made of. Unknown keys and impossible values are errors with one clear line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from glob import escape, glob
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from terrain3d.errors import ConfigError, InputFileError

PRODUCT_SUFFIXES = (".h5", ".hdf5", ".he5", ".parquet", ".geoparquet")  # say themselves what they hold
TABLE_SUFFIXES = (".csv", ".txt", ".parquet", ".geoparquet", ".gpkg", ".geojson", ".fgb", ".shp", ".las", ".laz")
# names of the alternatives of a value, which pydantic puts between its keys
NOT_KEYS = (
    "str",
    "ImageEntry",
    "ColourEntry",
    "ReferenceDem",
    "LidarEntry",
    "float",
    "constrained-float",
    "list[constrained-float]",
    "int",
    "dict[str,any]",
    "literal['strict','standard','all']",
)
MAX_CONFIG_BYTES = 5_000_000
SLASHES = "; folders are parted by /"
MOST_VALUES = 200_000  # of a file, all its aliases written out


CellSize = Annotated[float, Field(gt=0.01, le=100)]  # metres


def folds(finest: float, coarser: Sequence[float]) -> tuple[int, ...]:
    """Cells a side that make one of each coarser size. Raises ConfigError for what is no multiple of the finest."""
    found = tuple(round(c / finest) for c in coarser)
    for fold, cell in zip(found, coarser, strict=True):
        if fold < 2 or abs(fold * finest - cell) > 1e-6 * cell:
            raise ConfigError(
                f"resolution {cell:g} m is no multiple of the finest, {finest:g} m",
                fix="give cell sizes that hold whole cells of the finest",
            )
    return found


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColourEntry(_Strict):
    """A multispectral image with an RPC file of its own."""

    path: str
    rpc: str | None = None


class ImageEntry(_Strict):
    """An image with an RPC file of its own, or a mask: raster of the image's size, 0 where a pixel must not be used.
    colour: coarser multispectral image of the same acquisition, for the ortho; a path if its RPC is in it or beside
    it."""

    path: str
    rpc: str | None = None
    mask: str | None = None
    colour: str | ColourEntry | None = None


class TableColumns(_Strict):
    """Names of the columns of a table of ground heights. x and y, and the height, may be left out where the file has
    points of its own (GeoPackage, GeoParquet, LAS). time: dates (of LAS, its gps_time where that is standard GPS time),
    or seconds, which only order the returns of a track unless time_origin says what they count from. Case is not told
    apart where only one column fits."""

    x: str | None = None
    y: str | None = None
    height: str | None = None
    sigma: str | None = None
    footprint: str | None = None
    canopy: str | None = None
    track: str | None = None
    time: str | None = None
    horizontal_sigma: str | None = None


class LidarFormat(_Strict):
    """What a lidar file does not say itself.

    algorithm: of GEDI L2A, 1 to 6 instead of the one that the product selected.
    The rest is for tables. columns: their names. crs: horizontal CRS, if the file declares none. vertical: ellipsoid,
    egm96 or the path of a geoid grid, if the file declares none. footprint: diameter, metres, where no column has it.
    sigma: of the height, metres, where no column has it. horizontal_sigma: of the place, metres, likewise; 2 m if it
    is not stated. product: what to call it. frame: terrestrial frame such as
    ITRF2014 or ETRS89, and epoch: decimal year of the coordinates, for output.frame. only: rows to keep, by column the
    value or values, such as {classification: 2}. layer: of a file of several. decimal: the mark of a text table's
    numbers. time_origin: date from which the numbers of the time column count seconds. Heights are in the unit of the
    vertical CRS, else in that of the horizontal one, else in metres.
    """

    algorithm: Annotated[int, Field(ge=1, le=6)] | None = None
    columns: TableColumns | None = None
    crs: str | None = None
    vertical: str | None = None
    footprint: Annotated[float, Field(gt=0, le=1000)] | None = None
    sigma: Annotated[float, Field(gt=0, le=100)] | None = None
    horizontal_sigma: Annotated[float, Field(gt=0, le=100)] | None = None
    product: Annotated[str, Field(min_length=1, max_length=40)] = "TABLE"
    frame: str | None = None
    epoch: Annotated[float, Field(ge=1950, le=2200)] | None = None
    only: dict[str, Any] = {}
    layer: str | None = None
    decimal: Literal[".", ","] = "."
    time_origin: datetime | None = None


class LidarEntry(LidarFormat):
    """A lidar file, or a pattern of files, with what it does not say itself."""

    path: str


class OutputConfig(_Strict):
    """resolution: metres, or auto for the ground sample distance; several, all multiples of the finest, for results on
    coarser cells besides. crs: auto for the UTM zone, or a projected CRS in
    metres. vertical: ellipsoid, egm96, or the path of a geoid grid. frame: terrestrial frame that the lidar is brought
    to, auto for its own; epoch, a decimal year, and plate: for a realization of the ITRF, the motion to apply.
    super_resolution: an ortho of half the cell size besides. surface: as_seen, or envelope for the highest that a cell
    was matched to, rims of crowns and roofs included."""

    resolution: CellSize | Annotated[list[CellSize], Field(min_length=1)] | Literal["auto"] = "auto"
    crs: str = "auto"
    vertical: str = "ellipsoid"
    frame: str = "auto"
    epoch: Annotated[float, Field(ge=1950, le=2200)] | None = None
    plate: str | None = None
    super_resolution: bool = False
    surface: Literal["as_seen", "envelope"] = "as_seen"

    @field_validator("resolution")
    @classmethod
    def _from_the_finest_on(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        sizes = sorted(set(value))
        folds(sizes[0], sizes[1:])
        return sizes if len(sizes) > 1 else sizes[0]

    @property
    def coarser(self) -> tuple[float, ...]:
        """Cell sizes of further results, coarser than those of the finest one."""
        return tuple(self.resolution[1:]) if isinstance(self.resolution, list) else ()


class WaterConfig(_Strict):
    """polygons: vector file of waters, joined with what the images show; a column 'kind' may say lake, river, sea, or
    land where there is none. flatten: waters get their level in dsm.tif and dtm.tif."""

    polygons: str | None = None
    flatten: bool = True


class ReferenceDem(_Strict):
    """DEM that fills large voids. vertical: ellipsoid, egm96 or the path of a geoid grid, if the file declares none."""

    path: str
    vertical: str | None = None


class SceneConfig(_Strict):
    """Content of scene.yaml. Paths are relative to the file, globs allowed. lidar_rules: a rule set by name, or the
    limits in which it differs from its ``base``; the rules themselves know which there are."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.\- ]+$")]
    images: Annotated[list[str | ImageEntry], Field(min_length=1)]
    lidar: list[str | LidarEntry] = []
    lidar_rules: Literal["strict", "standard", "all"] | dict[str, Any] = "standard"
    water: WaterConfig = WaterConfig()
    reference_dem: str | ReferenceDem | None = None
    output: OutputConfig = OutputConfig()

    @model_validator(mode="before")
    @classmethod
    def _empty_is_left_out(cls, data: Any) -> Any:
        """A key without a value, as remains where all below it is commented out, is as if it were not there."""
        return {k: v for k, v in data.items() if v is not None} if isinstance(data, dict) else data

    @field_validator("name", mode="before")
    @classmethod
    def _number_is_a_name(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("images", "lidar", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


C = TypeVar("C", bound=SceneConfig)


class Scene(_Strict):
    """A scene whose files have been found: absolute paths, globs expanded, in the order given."""

    config: SceneConfig
    folder: Path
    images: tuple[ImageEntry, ...]
    lidar: tuple[Path, ...]
    lidar_formats: dict[Path, LidarFormat] = {}
    water_polygons: Path | None = None
    reference_dem: ReferenceDem | None = None

    def completed(self) -> dict[str, Any]:
        """The configuration as it was used: every key, every file; itself a valid scene file."""
        out = self.config.model_dump(mode="json")
        out["images"] = [
            e.model_dump(exclude_none=True) if e.rpc or e.mask or e.colour else e.path for e in self.images
        ]
        out["lidar"] = [self._lidar_entry(p) for p in self.lidar]
        if self.water_polygons is not None:
            out["water"]["polygons"] = str(self.water_polygons)
        if self.reference_dem is not None:
            out["reference_dem"] = self.reference_dem.model_dump(exclude_none=True)
        grid = self.folder / self.config.output.vertical
        if is_file(grid):
            out["output"]["vertical"] = str(grid)
        return out

    def _lidar_entry(self, path: Path) -> str | dict[str, Any]:
        form = self.lidar_formats.get(path)
        stated = {} if form is None else form.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
        return {"path": str(path), **stated} if stated else str(path)


def load_scene(path: Path) -> Scene:
    """Read and check a scene file. Raises InputFileError and ConfigError."""
    return scene_of(load_config(path, SceneConfig), path)


def load_config(path: Path, model: type[C]) -> C:
    """Content of a configuration file. Raises InputFileError and ConfigError."""
    return _parse(read_yaml(path), path, model)


def scene_of(config: SceneConfig, path: Path) -> Scene:
    """The scene of a configuration that was read from ``path``, its files found. Raises InputFileError, ConfigError."""
    folder = path.resolve().parent
    images: list[ImageEntry] = []
    for entry in config.images:
        e = ImageEntry(path=entry) if isinstance(entry, str) else entry
        rpc, mask = (None if p is None else str(_one(p, folder, path)) for p in (e.rpc, e.mask))
        colour = _colour_entry(e.colour, folder, path)
        files = expand(e.path, folder, "image", f"check the path in {path}")
        if colour is not None and len(files) > 1:
            raise ConfigError(f"one colour image for {len(files)} images", where=path, fix="list each with its own")
        images += [ImageEntry(path=str(p), rpc=rpc, mask=mask, colour=colour) for p in files]
    lidar = _lidar_files(config.lidar, folder, path)
    names = [e.path for e in images]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"image is listed twice: {twice[0]}", where=path)
    if len(images) < 2:
        raise ConfigError(f"stereo needs at least two images, the scene has {len(images)}", where=path)
    formats = {p: form for p, form in lidar.items() if form is not None}
    polygons = None if config.water.polygons is None else _one(config.water.polygons, folder, path)
    return Scene(
        config=config, folder=folder, images=tuple(images), lidar=tuple(lidar), lidar_formats=formats,
        water_polygons=polygons, reference_dem=_reference(config.reference_dem, folder, path),
    )  # fmt: skip


def _colour_entry(given: str | ColourEntry | None, folder: Path, source: Path) -> str | ColourEntry | None:
    if given is None or isinstance(given, str):
        return None if given is None else str(_one(given, folder, source))
    rpc = None if given.rpc is None else str(_one(given.rpc, folder, source))
    return ColourEntry(path=str(_one(given.path, folder, source)), rpc=rpc)


def _reference(given: str | ReferenceDem | None, folder: Path, source: Path) -> ReferenceDem | None:
    if given is None:
        return None
    entry = ReferenceDem(path=given) if isinstance(given, str) else given
    grid = folder / (entry.vertical or "")
    vertical = str(grid.resolve()) if entry.vertical and is_file(grid) else entry.vertical
    return ReferenceDem(path=str(_one(entry.path, folder, source)), vertical=vertical)


def _lidar_files(entries: list[str | LidarEntry], folder: Path, source: Path) -> dict[Path, LidarFormat | None]:
    """Files in the order of the configuration, each with what it says about it; the first mention of a file counts."""
    found: dict[Path, LidarFormat | None] = {}
    for entry in entries:
        form = None
        if isinstance(entry, LidarEntry):
            grid = folder / (entry.vertical or "")
            vertical = str(grid.resolve()) if entry.vertical and is_file(grid) else entry.vertical
            stated = {k: getattr(entry, k) for k in LidarFormat.model_fields}
            form = LidarFormat(**{**stated, "vertical": vertical})
        given = entry if isinstance(entry, str) else entry.path
        for p in expand(given, folder, "lidar file", f"check the path in {source}"):
            _check_lidar_type(p, form)
            found.setdefault(p, form)
    return found


def _check_lidar_type(path: Path, form: LidarFormat | None) -> None:
    suffix, mapped = path.suffix.lower(), form is not None and form.columns is not None
    if suffix not in (*PRODUCT_SUFFIXES, *TABLE_SUFFIXES):
        raise ConfigError(f"lidar file of type '{path.suffix}'", where=path,
                          fix="give HDF5 granules, SlideRule Parquet, or a table with 'columns'")  # fmt: skip
    if form is not None and not mapped:
        needless = sorted(form.model_dump(exclude_defaults=True).keys() - {"algorithm"})
        if needless:
            raise ConfigError(f"'{needless[0]}' is for tables, whose columns are named", where=path,
                              fix=f"give columns, or leave '{needless[0]}' out")  # fmt: skip
    if suffix not in (TABLE_SUFFIXES if mapped else PRODUCT_SUFFIXES):
        fix = "leave 'columns' out" if mapped else "give it as {path:, columns: {x:, y:, height:, ...}}"
        raise ConfigError(
            f"a file of type '{path.suffix}' is {'no table' if mapped else 'a table'}", where=path, fix=fix
        )


def read_yaml(path: Path) -> Any:
    """Content of a YAML file. Raises InputFileError, and ConfigError for what is no YAML or far too large."""
    if not is_file(path):
        raise InputFileError("scene file not found", where=path, fix="give the path of a scene.yaml")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError("too large for a scene file", where=path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:  # ValueError: of impossible dates
        raise ConfigError(f"is not readable YAML ({' '.join(str(error).split())[:160]})", where=path) from error
    _check_expanded(data, path)
    return data


def _check_expanded(data: Any, path: Path) -> None:
    """Raises ConfigError where references to parts of the file expand to more values than a scene can have."""
    waiting, count = [data], 0
    while waiting:
        value = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise ConfigError(f"expands to more than {MOST_VALUES} values", where=path,
                              fix="write out what its aliases (*) refer to")  # fmt: skip
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _parse(data: Any, path: Path, model: type[C]) -> C:
    if not isinstance(data, dict):
        raise ConfigError("a scene file holds keys such as name, images, lidar, output", where=path)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        # what is a mapping or a list was meant as one: that it is no path and no number either is no news
        meant = [e for e in error.errors() if not (e["loc"][-1] in NOT_KEYS and isinstance(e["input"], dict | list))]
        first = (meant or error.errors())[0]
        key = ".".join(str(k) for k in first["loc"] if str(k) not in NOT_KEYS)
        if first["loc"] == ("name",) and first["type"] == "string_pattern_mismatch":
            raise ConfigError(f"name '{first['input']}' has other characters than letters, digits, space, . - and _",
                              where=path, fix="leave them out") from error  # fmt: skip
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(first["loc"], model))
            raise ConfigError(f"unknown key '{key}'", where=path, fix=f"known keys here: {known}") from error
        raise ConfigError(f"{key}: {first['msg'].removeprefix('Value error, ')}", where=path) from error


def _known_keys(location: tuple[Any, ...], whole: type[BaseModel]) -> list[str]:
    """Keys of the mapping that a wrong key stands in."""
    model = whole
    for key in location[:-1]:
        if isinstance(key, str) and key in model.model_fields:
            model = next(_models_in(model.model_fields[key].annotation), model)
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Models that a value of a field may be."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


def _one(name: str, folder: Path, source: Path) -> Path:
    found = (folder / name).resolve()
    if not is_file(found):
        raise InputFileError("no such file", where=found, fix=f"check the path in {source}" + SLASHES * ("\\" in name))
    return found


def is_file(path: Path) -> bool:
    """Whether there is a file; False also for what can be no path."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _matches(pattern: str) -> list[str]:
    try:
        return glob(pattern, recursive=True)
    except (OSError, ValueError, re.error):
        return []


def expand(pattern: str, folder: Path, what: str, fix: str) -> list[Path]:
    """Files that a path or a pattern names, absolute and in order. Raises InputFileError if there is none."""
    direct = folder / pattern
    if is_file(direct):
        return [direct.resolve()]
    whole = pattern if Path(pattern).is_absolute() else str(Path(escape(str(folder))) / pattern)
    found = sorted(Path(p).resolve() for p in _matches(whole) if is_file(Path(p)))
    if not found:
        raise InputFileError(f"no {what} found", where=direct, fix=fix + SLASHES * ("\\" in pattern))
    return found
