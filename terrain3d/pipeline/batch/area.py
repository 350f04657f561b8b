"""The area file: a scene of any size, and the tiles that its results are cut into."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from terrain3d.config import Scene, SceneConfig, is_file, load_config, scene_of
from terrain3d.errors import ConfigError, InputFileError

SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,79}$")  # what can be the name of a file or folder anywhere


class TileConfig(BaseModel):
    """utm: side of squares in the UTM of the results, metres. jis: level of JIS X 0410 meshes, 3 for those of 1 km.
    sheets: a vector file with an index of sheets; layer: its layer, the first by default; code: its column of codes.
    Exactly one of the three."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    utm: Annotated[float, Field(ge=50, le=100_000)] | None = None
    jis: Annotated[int, Field(ge=1, le=6)] | None = None
    sheets: str | None = None
    layer: str | None = None
    code: str | None = None

    @model_validator(mode="after")
    def _one_scheme(self) -> TileConfig:
        if sum(v is not None for v in (self.utm, self.jis, self.sheets)) != 1:
            raise ValueError("give exactly one of utm (metres), jis (level) and sheets (file)")
        if (self.sheets is None) != (self.code is None):
            raise ValueError("sheets need code, the column that holds the codes, and code needs sheets")
        return self


class PreviousModel(BaseModel):
    """An earlier model: the folder of a run or a batch, or a DSM in a file. vertical: what its heights are over, if it
    does not say so. name: what results are called by; that of its folder or file if it is not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    path: str
    vertical: str | None = None
    name: Annotated[str, Field(pattern=SAFE.pattern)] | None = None


class AreaConfig(SceneConfig):
    """Content of area.yaml: that of scene.yaml, the tiles, and earlier models that the results are compared with."""

    tiles: TileConfig = TileConfig(utm=1000)
    previous: list[str | PreviousModel] = Field(default_factory=list)

    @field_validator("previous", mode="before")
    @classmethod
    def _previous_are_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


@dataclass(frozen=True)
class Previous:
    """An earlier model that has been found. name: unique, and fit for a folder."""

    name: str
    path: Path
    vertical: str | None = None


class Area(BaseModel):
    """An area whose files have been found. sheets: absolute path of the index, if there is one. previous: their names
    are unique."""

    model_config = ConfigDict(frozen=True)
    scene: Scene
    tiles: TileConfig
    sheets: Path | None
    previous: tuple[Previous, ...] = ()


def load_area(path: Path) -> Area:
    """Read and check an area file. Raises InputFileError and ConfigError."""
    config = load_config(path, AreaConfig)
    if config.output.coarser:
        raise ConfigError("output.resolution: a batch makes tiles of one cell size", where=path,
                          fix="give one number; several are for terrain3d run")  # fmt: skip
    sheets = None
    if config.tiles.sheets is not None:
        sheets = (path.resolve().parent / config.tiles.sheets).resolve()
        if not is_file(sheets):
            raise InputFileError("no such index of sheets", where=sheets, fix=f"check the path in {path}")
    previous = tuple(_previous(entry, path) for entry in config.previous)
    names = [p.name for p in previous]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise ConfigError(f"two previous models are called '{twice}'", where=path, fix="give one of them a name")
    return Area(scene=scene_of(config, path), tiles=config.tiles, sheets=sheets, previous=previous)


def _previous(given: str | PreviousModel, source: Path) -> Previous:
    entry = PreviousModel(path=given) if isinstance(given, str) else given
    folder = source.resolve().parent
    path = (folder / entry.path).resolve()
    if not path.exists():
        raise InputFileError("no such previous model", where=path, fix=f"check the path in {source}")
    grid = folder / (entry.vertical or "")
    vertical = str(grid.resolve()) if entry.vertical and is_file(grid) else entry.vertical
    name = re.sub(r"[^A-Za-z0-9._\-]", "_", path.name if path.is_dir() else path.stem).lstrip("._-")
    return Previous(entry.name or name[:80] or "previous", path, vertical)
