"""The scene file: what a run is made of. Unknown keys and impossible values are errors with one clear line."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from terrain3d.errors import ConfigError, InputFileError

LIDAR_SUFFIXES = (".h5", ".hdf5")
MAX_CONFIG_BYTES = 5_000_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageEntry(_Strict):
    """An image with an RPC file of its own, or a mask: raster of the image's size, 0 where a pixel must not be used."""

    path: str
    rpc: str | None = None
    mask: str | None = None


class OutputConfig(_Strict):
    """resolution: metres, or auto for the ground sample distance. crs: auto for the UTM zone, or a projected CRS in
    metres. vertical: ellipsoid, egm96, or the path of a geoid grid."""

    resolution: Annotated[float, Field(gt=0.01, le=100)] | Literal["auto"] = "auto"
    crs: str = "auto"
    vertical: str = "ellipsoid"


class SceneConfig(_Strict):
    """Content of scene.yaml. Paths are relative to the file, globs allowed."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w.\- ]+$")]
    images: Annotated[list[str | ImageEntry], Field(min_length=1)]
    lidar: list[str] = []
    lidar_rules: Literal["strict", "standard", "all"] = "standard"
    output: OutputConfig = OutputConfig()

    @field_validator("images", "lidar", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


class Scene(_Strict):
    """A scene whose files have been found: absolute paths, globs expanded, in the order given."""

    config: SceneConfig
    folder: Path
    images: tuple[ImageEntry, ...]
    lidar: tuple[Path, ...]

    def completed(self) -> dict[str, Any]:
        """The configuration as it was used: every key, every file; itself a valid scene file."""
        out = self.config.model_dump(mode="json")
        out["images"] = [e.model_dump(exclude_none=True) if e.rpc or e.mask else e.path for e in self.images]
        out["lidar"] = [str(p) for p in self.lidar]
        grid = self.folder / self.config.output.vertical
        if grid.is_file():
            out["output"]["vertical"] = str(grid)
        return out


def load_scene(path: Path) -> Scene:
    """Read and check a scene file. Raises InputFileError and ConfigError."""
    folder = path.resolve().parent
    config = _parse(_read(path), path)
    images: list[ImageEntry] = []
    for entry in config.images:
        e = ImageEntry(path=entry) if isinstance(entry, str) else entry
        rpc, mask = (None if p is None else str(_one(p, folder, path)) for p in (e.rpc, e.mask))
        images += [ImageEntry(path=str(p), rpc=rpc, mask=mask) for p in _expand(e.path, folder, path, "image")]
    lidar = [p for pattern in config.lidar for p in _expand(pattern, folder, path, "lidar file")]
    for p in lidar:
        if p.suffix.lower() not in LIDAR_SUFFIXES:
            raise ConfigError(
                f"lidar file of type '{p.suffix}'", where=p, fix="give ATL08 or GEDI L2A granules in HDF5"
            )
    names = [e.path for e in images]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ConfigError(f"image is listed twice: {twice[0]}", where=path)
    if len(images) < 2:
        raise ConfigError(f"stereo needs at least two images, the scene has {len(images)}", where=path)
    return Scene(config=config, folder=folder, images=tuple(images), lidar=tuple(dict.fromkeys(lidar)))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise InputFileError("scene file not found", where=path, fix="give the path of a scene.yaml")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError("too large for a scene file", where=path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"is not readable YAML ({' '.join(str(error).split())[:160]})", where=path) from error


def _parse(data: Any, path: Path) -> SceneConfig:
    if not isinstance(data, dict):
        raise ConfigError("a scene file holds keys such as name, images, lidar, output", where=path)
    try:
        return SceneConfig.model_validate(data)
    except ValidationError as error:
        # an image that is a mapping was meant as one: that it is no path either is no news
        mapping = [e for e in error.errors() if not (e["loc"][-1] == "str" and isinstance(e["input"], dict))]
        first = mapping[0]
        key = ".".join(str(k) for k in first["loc"] if str(k) not in ("str", "ImageEntry", "float"))
        if first["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(first["loc"]))
            raise ConfigError(f"unknown key '{key}'", where=path, fix=f"known keys here: {known}") from error
        raise ConfigError(f"{key}: {first['msg']}", where=path) from error


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    models: dict[str, type[BaseModel]] = {"output": OutputConfig, "images": ImageEntry}
    model = SceneConfig if len(location) == 1 else models.get(str(location[0]), SceneConfig)
    return list(model.model_fields)


def _one(name: str, folder: Path, source: Path) -> Path:
    found = (folder / name).resolve()
    if not found.is_file():
        raise InputFileError("no such file", where=found, fix=f"check the path in {source}")
    return found


def _expand(pattern: str, folder: Path, source: Path, what: str) -> list[Path]:
    direct = folder / pattern
    if direct.is_file():
        return [direct.resolve()]
    found = sorted(Path(p).resolve() for p in glob(str(direct), recursive=True) if Path(p).is_file())
    if not found:
        raise InputFileError(f"no {what} found", where=direct, fix=f"check the path in {source}")
    return found
