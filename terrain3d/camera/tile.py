"""Tiles of images: providers deliver large ones in several files, with one RPC for all of them.

The name of a tile tells its row and column, ``_R2C1`` (Pleiades and SPOT at its end, Maxar before the number of the
order); where its pixels lie in the image, a file beside them: DIM_x.XML (regular tiles) or x.TIL (corners of each).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from terrain3d.camera.read_bytes import read_bytes
from terrain3d.camera.read_xml import parse_xml, tile_origin
from terrain3d.errors import CameraError

_TILE = re.compile(r"_R(\d{1,4})C(\d{1,4})(?=[-_.]|$)", re.IGNORECASE)
_GROUP = re.compile(r"BEGIN_GROUP\s*=\s*TILE_\d+(.*?)END_GROUP", re.DOTALL | re.IGNORECASE)
_STATEMENT = re.compile(r'(\w+)\s*=\s*"?([^";\n]*)"?\s*;')


def product_of(stem: str) -> str:
    """Name of the image that a file is a tile of: its own without row and column."""
    return _TILE.sub("", stem)


def is_tile(stem: str) -> bool:
    """Whether a name has the row and column of a tile."""
    return _TILE.search(stem) is not None


def tile_place(image: Path, rpc: Path) -> tuple[float, float]:
    """First line and sample of an image in what an RPC file of another name describes: (0, 0) if it is no tile, or the
    first one. An RPC file that has row and column in its own name is that of the tile.

    Raises CameraError where no file tells the place, InputFileError for one that cannot be read.
    """
    match = _TILE.search(image.stem)
    if match is None or match.groups() == ("1", "1") or _TILE.search(rpc.stem):
        return 0.0, 0.0
    for place in _places(image, rpc, *map(int, match.groups())):
        return place
    raise CameraError(
        "tile's place in its product is not known",
        where=image,
        fix=f"put the product's {_dim(rpc).name if rpc.suffix.lower() == '.xml' else '.TIL'} beside its RPC file",
    )


def _places(image: Path, rpc: Path, row: int, column: int) -> Iterator[tuple[float, float]]:
    dim = _dim(rpc)
    if dim.is_file():
        origin = tile_origin(parse_xml(read_bytes(dim), dim), row, column)
        if origin is not None:
            yield origin
    names = {f"{product_of(p.stem)}.til".lower() for p in (image, rpc)}
    folders = {image.parent, rpc.parent}
    for til in sorted(p for folder in folders for p in folder.iterdir() if p.name.lower() in names):
        for group in _GROUP.findall(read_bytes(til).decode(errors="replace")):
            said = {key.lower(): value.strip() for key, value in _STATEMENT.findall(group)}
            if said.get("filename", "").lower() == image.name.lower():
                with suppress(KeyError, ValueError):  # of a damaged one
                    yield float(said["ulrowoffset"]), float(said["ulcoloffset"])


def _dim(rpc: Path) -> Path:
    return rpc.with_name("DIM_" + rpc.name[4:])
