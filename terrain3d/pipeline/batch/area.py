"""The area file: a scene of any size, and the tiles that its results are cut into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from terrain3d.config import Scene, SceneConfig, is_file, load_config, scene_of
from terrain3d.errors import InputFileError


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


class AreaConfig(SceneConfig):
    """Content of area.yaml: that of scene.yaml, and the tiles."""

    tiles: TileConfig = TileConfig(utm=1000)


class Area(BaseModel):
    """An area whose files have been found. sheets: absolute path of the index, if there is one."""

    model_config = ConfigDict(frozen=True)
    scene: Scene
    tiles: TileConfig
    sheets: Path | None


def load_area(path: Path) -> Area:
    """Read and check an area file. Raises InputFileError and ConfigError."""
    config = load_config(path, AreaConfig)
    sheets = None
    if config.tiles.sheets is not None:
        sheets = (path.resolve().parent / config.tiles.sheets).resolve()
        if not is_file(sheets):
            raise InputFileError("no such index of sheets", where=sheets, fix=f"check the path in {path}")
    return Area(scene=scene_of(config, path), tiles=config.tiles, sheets=sheets)
