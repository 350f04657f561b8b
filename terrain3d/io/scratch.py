"""Rasters on disk while a run works on them: raw cells row by row, read and written by windows, nothing resident."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from terrain3d.io.atomic import output_error
from terrain3d.raster import Grid

WIDE = 8  # rows this many times as long as a window, or this short, are read whole: a call for each takes longer
SHORT_BYTES = 16 * 2**10
CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True)
class StoredRaster:
    """Cells of one type on a grid, in a file; several threads may read and write different windows at once.

    row, column: first cell of ``grid`` in the file, whose rows are ``stride`` cells long.
    """

    path: Path
    grid: Grid
    dtype: np.dtype[Any]
    stride: int
    row: int = 0
    column: int = 0

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        """Copy of a window that lies inside the grid, (height, width)."""
        self._check(row, column, height, width)
        out = np.empty((height, width), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            if width < self.stride <= max(WIDE * width, SHORT_BYTES // self.dtype.itemsize):
                self._read_rows(file, row, column, out)
                return out
            for i, cells in enumerate(self._runs(out)):
                file.seek(self._offset(row + i, column))
                _fill(file, cells.data)
        return out

    def _read_rows(self, file: FileIO, row: int, column: int, out: NDArray[Any]) -> None:
        """Fill ``out`` from whole rows of the file, many at once."""
        several = max(CHUNK_BYTES // (self.stride * self.dtype.itemsize), 1)
        for top in range(0, out.shape[0], several):
            part = out[top : top + several]
            whole = np.empty((part.shape[0], self.stride), self.dtype)
            file.seek(self._offset(row + top, -self.column))
            _fill(file, whole.reshape(-1).view(np.uint8).data)
            part[:] = whole[:, self.column + column : self.column + column + part.shape[1]]

    def write(self, row: int, column: int, values: NDArray[Any]) -> None:
        """Put values (height, width) at a place inside the grid. Raises OutputError (full disk)."""
        self._check(row, column, *values.shape)
        rows = np.ascontiguousarray(values, self.dtype)
        try:
            with self.path.open("r+b", buffering=0) as file:
                number, first, step = file.fileno(), self._offset(row, column), self.stride * self.dtype.itemsize
                for i, cells in enumerate(self._runs(rows)):
                    _put(number, cells.data, first + i * step)
        except OSError as error:
            raise output_error(self.path, error) from error

    def window(self, row: int, column: int, height: int, width: int) -> StoredRaster:
        """The same cells as a raster on a part of the grid."""
        self._check(row, column, height, width)
        grid = self.grid.window(row, column, height, width)
        return replace(self, grid=grid, row=self.row + row, column=self.column + column)

    def strips(self, rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """First row and values of strips of that many rows, from the north."""
        for top in range(0, self.grid.height, rows):
            yield top, self.read(top, 0, min(rows, self.grid.height - top), self.grid.width)

    def mapped(self) -> NDArray[Any]:
        """All cells of a whole file as an array that can be written to, for work that goes anywhere; the system holds
        as much of it in memory as there is room for. Raises OutputError (full disk)."""
        size = self.grid.height * self.stride * self.dtype.itemsize
        try:
            with self.path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)  # a mapped file has no way to say that the disk is full
            return np.asarray(np.memmap(self.path, self.dtype, "r+", shape=(self.grid.height, self.stride)))
        except OSError as error:
            raise output_error(self.path, error) from error

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)

    def _runs(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Bytes of what lies together in the file: of each row, or of all of them as one."""
        return (values.reshape(1, values.size) if values.shape[1] == self.stride else values).view(np.uint8)

    def _offset(self, row: int, column: int) -> int:
        return ((self.row + row) * self.stride + self.column + column) * self.dtype.itemsize

    def _check(self, row: int, column: int, height: int, width: int) -> None:
        if min(row, column) < 0 or row + height > self.grid.height or column + width > self.grid.width:
            raise ValueError(f"window {(row, column, height, width)} is not inside {self.grid.shape}")


@dataclass(frozen=True)
class PaddedRaster(StoredRaster):
    """A stored raster seen on a grid that may reach beyond it, where cells are NaN, or 0 for integers; read only.

    inner: the raster. row, column: of the first cell of ``grid`` in it, perhaps negative.
    """

    inner: StoredRaster | None = None

    def read(self, row: int, column: int, height: int, width: int) -> NDArray[Any]:
        self._check(row, column, height, width)
        assert self.inner is not None
        out = np.full((height, width), np.nan if self.dtype.kind == "f" else 0, self.dtype)
        top, left = self.row + row, self.column + column
        r0, r1 = max(top, 0), min(top + height, self.inner.grid.height)
        c0, c1 = max(left, 0), min(left + width, self.inner.grid.width)
        if r0 < r1 and c0 < c1:
            out[r0 - top : r1 - top, c0 - left : c1 - left] = self.inner.read(r0, c0, r1 - r0, c1 - c0)
        return out


def padded(raster: StoredRaster, grid: Grid) -> StoredRaster:
    """The raster on another grid of the same cells, which may reach beyond it."""
    own = raster.grid
    row, column = round((own.north - grid.north) / own.resolution), round((grid.west - own.west) / own.resolution)
    return PaddedRaster(raster.path, grid, raster.dtype, grid.width, row, column, raster)


def _fill(file: FileIO, data: memoryview) -> None:
    """Read until ``data`` is full or the file ends; one call reads 2 GiB at most."""
    while len(data):
        n = file.readinto(data)
        if not n:
            return
        data = data[n:]


def _put(file: int, data: memoryview, at: int) -> None:
    """Write all of ``data`` from a byte of an open file on; one call writes 2 GiB at most."""
    while (done := os.pwrite(file, data, at)) < len(data):
        data, at = data[done:], at + done


class Shelf(Protocol):
    """A place for rasters and arrays that keeps them in a way of its own, such as for several processes."""

    def __truediv__(self, name: str) -> Shelf:
        """The place of that name in it."""

    def new_raster(self, grid: Grid, dtype: DTypeLike) -> StoredRaster:
        """Raster of zeros here."""

    def save_array(self, values: NDArray[Any]) -> Path:
        """File of the array, as numpy reads it."""


Place = Path | Shelf


def save_array(path: Place, values: NDArray[Any]) -> Path:
    """Save an array for ``numpy.load``, and say where. Raises OutputError."""
    if not isinstance(path, Path):
        return path.save_array(values)
    try:
        np.save(path, values)
    except OSError as error:
        raise output_error(path, error) from error
    return path


def new_raster(path: Place, grid: Grid, dtype: DTypeLike) -> StoredRaster:
    """Raster of zeros in a new file. Raises OutputError."""
    if not isinstance(path, Path):
        return path.new_raster(grid, dtype)
    kind = np.dtype(dtype)
    try:
        with path.open("wb") as file:
            file.truncate(grid.height * grid.width * kind.itemsize)
    except OSError as error:
        raise output_error(path, error) from error
    return StoredRaster(path, grid, kind, grid.width)
