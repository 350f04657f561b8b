"""Rasters and arrays that several processes work on: objects that never change, named by their content.

A raster is a list of pieces, each a window and the object that holds its cells, or the one value that all of them have.
Windows are counted from the origin of the reference, so a raster may come to reach farther and its pieces stay. Work
reads the pieces that it was given and writes new ones; nothing that another reads can change under it, and an object
whose content does not fit its name is damaged.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import header_data_from_array_1_0, write_array_header_1_0
from numpy.typing import DTypeLike, NDArray

from terrain3d.crs import Reference
from terrain3d.errors import OutputError
from terrain3d.io.atomic import output_error
from terrain3d.io.scratch import StoredRaster
from terrain3d.raster import Grid

NAME = re.compile(r"[0-9a-f]{40}(\.npy)?")
Window = tuple[int, int, int, int]  # row, column, height, width
EVEN = "all "  # before the value of a piece without an object
VOID = (f"{EVEN}nan", f"{EVEN}0")
NEARLY = 1e-6  # of a cell: bounds this near to its edge lie on it


class Objects:
    """A folder of files named by the SHA-256 (its first half) of their content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Place of an object. Raises ValueError for what is no name of one, so that none lies outside the folder."""
        if not NAME.fullmatch(name):
            raise ValueError(f"'{name[:60]}' is no name of an object")
        return self.folder / name[:2] / name

    def put(self, *parts: Any, suffix: str = "") -> str:
        """Keep bytes, the parts one after the other, and give their name. Raises OutputError (full disk)."""
        name = digest(*parts) + suffix
        path = self.path(name)
        if path.exists() and path.stat().st_size == sum(memoryview(p).nbytes for p in parts):
            return name
        part = path.with_name(f".{name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.writelines(parts)
            part.replace(path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise output_error(path, error) from error
        return name

    def get(self, name: str) -> bytes:
        """Content of an object. Raises OutputError if it is gone."""
        try:
            return self.path(name).read_bytes()
        except OSError as error:
            raise output_error(self.path(name), error) from error

    def whole(self, name: str) -> bool:
        """Whether an object is there and its content fits its name; a damaged one is deleted."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                fits = hashlib.file_digest(file, "sha256").hexdigest()[:40] == name[:40]
        except FileNotFoundError:
            return False
        except OSError:
            fits = False
        if not fits:
            path.unlink(missing_ok=True)
        return fits

    def clear(self, keep: set[str]) -> int:
        """Delete all other objects, and what was never finished; number of bytes that came free."""
        freed = 0
        for path in self.folder.glob("??/*"):
            if path.name not in keep:
                freed += path.stat().st_size
                path.unlink(missing_ok=True)
        return freed


def digest(*parts: Any) -> str:
    """Name of bytes, given in parts: the first half of their SHA-256."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()[:40]


def sha256_of(path: Path) -> str | None:
    """SHA-256 of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


@dataclass(frozen=True)
class Piece:
    """Cells of a raster in an object, or, where all are alike, their value after EVEN in its stead."""

    window: Window
    name: str

    @property
    def even(self) -> float | None:
        """The value that all cells have, if there is no object."""
        return float(self.name[len(EVEN) :]) if self.name.startswith(EVEN) else None

    @property
    def void(self) -> bool:
        """Whether all cells are what is read where a raster does not reach: NaN, or 0 of whole numbers."""
        return self.name in VOID


class Desk:
    """The rasters of a batch: for its driver all of them, for a worker the pieces that its item may see.

    layers: pieces by raster; later ones lie on top. at_once: what is written is seen here, as the driver needs it.
    new: what was written, where it is to be told to the driver.
    """

    def __init__(
        self, objects: Objects, layers: Mapping[str, Iterable[Piece]] | None = None, *, at_once: bool = False
    ) -> None:
        self.objects, self._at_once = objects, at_once
        self.layers = {name: list(pieces) for name, pieces in (layers or {}).items()}
        self.new: list[tuple[str, Piece]] = []
        self.arrays: list[str] = []

    @property
    def out(self) -> Path:
        """Folder of the batch, which holds ``work/objects``."""
        return self.objects.folder.parent.parent

    def __reduce__(self) -> Any:
        raise TypeError("a desk is not sent to other processes; they have their own")

    def within(self, layer: str, window: Window) -> list[Piece]:
        """Pieces of a raster that touch a window."""
        return [p for p in self.layers.get(layer, []) if _common(p.window, window) is not None]

    def read(self, layer: str, window: Window, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Cells of a window. Raises ValueError if it is not all there: work looked beyond its item."""
        row, column, height, width = window
        out = np.zeros((height, width), dtype)
        seen = 0
        for piece in self.within(layer, window):
            common = _common(piece.window, window)
            assert common is not None
            top, left, h, w = common
            here = slice(top - row, top - row + h), slice(left - column, left - column + w)
            if piece.even is None:
                out[here] = self._stored(piece, dtype).read(top - piece.window[0], left - piece.window[1], h, w)
            else:
                out[here] = piece.even
            seen += h * w
        if seen < height * width:
            raise ValueError(f"window {window} of {layer} was not handed over, or is not made yet")
        return out

    def write(self, layer: str, row: int, column: int, values: NDArray[Any]) -> None:
        """Put cells at a place. Raises OutputError."""
        name = _even(values) or self.objects.put(np.ascontiguousarray(values).data.cast("B"))
        self.new.append((layer, Piece((row, column, *values.shape), name)))
        if self._at_once:
            self.take_own()

    def take(self, written: Iterable[tuple[str, Piece]]) -> None:
        """Lay new pieces, which do not overlap each other, on top; those below that are wholly covered go."""
        by_layer: dict[str, list[Piece]] = {}
        for layer, piece in written:
            by_layer.setdefault(layer, []).append(piece)
        for layer, pieces in by_layer.items():
            windows = np.array([p.window for p in pieces])
            old = [p for p in self.layers.get(layer, []) if not _covered(p.window, windows)]
            self.layers[layer] = old + pieces

    def take_own(self) -> None:
        """Make visible what was written here."""
        for item in self.new:
            self.take([item])
        self.new.clear()

    def _stored(self, piece: Piece, dtype: np.dtype[Any]) -> StoredRaster:
        height, width = piece.window[2:]
        return StoredRaster(self.objects.path(piece.name), _cells(height, width), dtype, width)


def _even(values: NDArray[Any]) -> str:
    """Name of a piece whose cells are all alike; empty if they are not."""
    first = values.flat[0]
    if first != first:
        return VOID[0] if np.isnan(values).all() else ""
    if values.flat[-1] != first or not (values == first).all() or (first == 0 and np.signbit(values).any()):
        return ""
    return f"{EVEN}{first!s}"


def _cells(height: int, width: int) -> Grid:
    return Grid(Reference("EPSG:32631"), 0.0, 0.0, 1.0, height, width)


def _common(a: Window, b: Window) -> Window | None:
    top, left = max(a[0], b[0]), max(a[1], b[1])
    bottom, right = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def _covered(window: Window, by: NDArray[np.int64]) -> bool:
    """Whether windows (n, 4) that do not overlap cover one."""
    row, column, height, width = window
    tall = np.minimum(by[:, 0] + by[:, 2], row + height) - np.maximum(by[:, 0], row)
    wide = np.minimum(by[:, 1] + by[:, 3], column + width) - np.maximum(by[:, 1], column)
    return int((np.maximum(tall, 0) * np.maximum(wide, 0)).sum()) == height * width


@dataclass(frozen=True)
class BlockRaster(StoredRaster):
    """Raster of a batch. ``path``: its name on the desk. row, column: of the first cell, counted from the origin of the
    reference."""

    desk: Desk | None = None

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        self._check(row, column, height, width)
        return self._desk.read(str(self.path), (self.row + row, self.column + column, height, width), self.dtype)

    def write(self, row: int, column: int, values: NDArray[Any]) -> None:
        self._check(row, column, *values.shape)
        cells = np.ascontiguousarray(values, self.dtype)
        self._desk.write(str(self.path), self.row + row, self.column + column, cells)

    def remove(self) -> None:
        """Its objects go when the batch is done, for what changed later may need them."""

    def telling(self, bounds: tuple[float, float, float, float]) -> list[Piece]:
        """The same without void pieces that hide nothing, for it makes no difference whether there are any."""
        out: list[Piece] = []
        for piece in self.pieces(bounds):
            if not piece.void or any(_common(piece.window, p.window) is not None for p in out):
                out.append(piece)
        return out

    def pieces(self, bounds: tuple[float, float, float, float]) -> list[Piece]:
        """What makes up the raster over an area: west, south, east, north."""
        g = self.grid
        west, south, east, north = bounds
        (left, right), (top, bottom) = g.column_row([west, east], [north, south])
        r0, r1 = max(floor(top + 0.5 + NEARLY), 0), min(ceil(bottom + 0.5 - NEARLY), g.height)
        c0, c1 = max(floor(left + 0.5 + NEARLY), 0), min(ceil(right + 0.5 - NEARLY), g.width)
        if r0 >= r1 or c0 >= c1:
            return []
        return self._desk.within(str(self.path), (self.row + r0, self.column + c0, r1 - r0, c1 - c0))

    @property
    def _desk(self) -> Desk:
        assert self.desk is not None
        return self.desk


@dataclass(frozen=True)
class DeskShelf:
    """Place for the rasters and arrays of a batch, in the stead of a folder."""

    desk: Desk
    name: str = ""

    def __truediv__(self, name: str) -> DeskShelf:
        return DeskShelf(self.desk, f"{self.name}/{name}" if self.name else name)

    def new_raster(self, grid: Grid, dtype: DTypeLike) -> StoredRaster:
        self.desk.layers[self.name] = []
        return BlockRaster(Path(self.name), grid, np.dtype(dtype), grid.width, *grid.origin, desk=self.desk)

    def save_array(self, values: NDArray[Any]) -> Path:
        rows, head = np.ascontiguousarray(values), BytesIO()
        write_array_header_1_0(head, header_data_from_array_1_0(rows))  # as numpy.save, without a copy of it all
        name = self.desk.objects.put(head.getvalue(), rows.reshape(-1).view(np.uint8).data, suffix=".npy")
        self.desk.arrays.append(name)
        return self.desk.objects.path(name)


def free_bytes(folder: Path) -> int:
    """Free space of the disk that a folder is on. Raises OutputError."""
    try:
        stat = os.statvfs(folder)
    except OSError as error:
        raise OutputError("cannot be read", where=folder, fix="check the folder") from error
    return stat.f_bavail * stat.f_frsize
