"""Keys of work: a digest of all that a result depends on, so that nothing is done twice and nothing old is taken.

What work captured is walked through value by value. Of large things only the part counts that the item can see: pieces
of rasters, points, heights around it. So a change far away leaves a key as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pydantic import BaseModel
from shapely.geometry.base import BaseGeometry

from terrain3d import __version__
from terrain3d.crs import from_lonlat
from terrain3d.image.view import View
from terrain3d.io.objects import NAME, BlockRaster, Desk, DeskShelf
from terrain3d.pipeline.blocks import Block
from terrain3d.pipeline.components import Labelled
from terrain3d.pipeline.growth import MOVED_M
from terrain3d.pipeline.model import Extent
from terrain3d.pipeline.spool import Spool
from terrain3d.raster import Bounds, Grid, Raster
from terrain3d.stereo.plan import MatchTask
from terrain3d.surface.ortho import OrthoView, RankedView
from terrain3d.surface.under_canopy import GroundReturns

TILE_REACH = (0.25, 250.0)  # of a tile to be matched, the surface around it that it may look at: share of it, metres
PRINT_MARGIN = 5.0  # metres around what an image shows, whose outline is not quite straight
PLAIN = (type(None), bool, int, float, str, complex, np.generic, np.dtype, Enum, datetime, slice)
SMALL = 4096  # bytes of arrays that are digested anew each time


@dataclass(frozen=True)
class Sight:
    """What an item can see: its bounds, and the block where it is one. Without bounds it sees everything."""

    bounds: Bounds | None = None
    block: Block | None = None


def sight_of(item: Any) -> Sight:
    """Part of the area that the work on an item may look at."""
    if isinstance(item, Block):
        return Sight(item.grid.bounds, item)
    if isinstance(item, MatchTask):
        return Sight(_tile_bounds(item))
    if isinstance(item, tuple):
        return next((s for s in map(sight_of, item) if s.bounds is not None), Sight())
    bounds = getattr(item, "bounds", None)
    return Sight(bounds if isinstance(bounds, tuple) else None)


def _tile_bounds(task: MatchTask) -> Bounds:
    tile = task.tile
    x = tile.column + np.array([0, tile.width, tile.width, 0], float)
    y = tile.row + np.array([0, 0, tile.height, tile.height], float)
    east, north = tile.frame.to_ground(x, y)
    reach = TILE_REACH[0] * float(max(np.ptp(east), np.ptp(north))) + TILE_REACH[1]
    return (
        float(east.min()) - reach, float(north.min()) - reach, float(east.max()) + reach, float(north.max()) + reach
    )  # fmt: skip


class Keys:
    """Digests for one engine. by_content: files count by content, else by size and time of last change. own: folder of
    products, which count by their names. basis: what all keys depend on besides, such as the content of these."""

    def __init__(self, *, by_content: bool = False, own: Path | None = None) -> None:
        self._by_content, self._own = by_content, own
        self.basis = ""
        self._files: dict[Path, bytes] = {}
        self._arrays: dict[int, tuple[Any, bytes]] = {}
        self._views: dict[int, tuple[View | OrthoView, bytes]] = {}
        self._prints: dict[int, tuple[OrthoView, BaseGeometry]] = {}

    def forget(self) -> None:
        """Arrays and views may have gone; their digests are no longer needed."""
        self._arrays.clear()
        self._views.clear()
        self._prints.clear()

    def key(self, work: Callable[..., Any], item: Any) -> str:
        """Key of the work on an item. Raises TypeError for a captured value of which no digest can be made."""
        total = hashlib.sha256()
        total.update(f"terrain3d {__version__} {self.basis}".encode())
        sight = sight_of(item)
        self._feed(total, work, sight)
        self._feed(total, item, sight)
        return total.hexdigest()[:40]

    def _feed(self, total: Any, value: Any, sight: Sight) -> None:
        total.update(f"<{type(value).__name__}>".encode())
        if isinstance(value, PLAIN):
            total.update(repr(value).encode())
        elif (data := self._whole(value)) is not None:
            total.update(data)
        elif (parts := self._parts(value, sight)) is not None:
            for part in parts:
                self._feed(total, part, sight)
        elif is_dataclass(value) and not isinstance(value, type):
            self._record(total, value, sight)
        elif callable(value):
            self._function(total, value, sight)
        else:
            raise TypeError(f"no key can be made of a {type(value).__qualname__}")
        total.update(b";")

    def _whole(self, value: Any) -> bytes | None:
        """What stands for a value that counts as a whole; None for any other."""
        if isinstance(value, bytes):
            return value
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, Path):
            return self._path(value)
        if isinstance(value, (Desk, DeskShelf)):
            return b""  # where things are kept changes no result
        if isinstance(value, BaseGeometry):
            return bytes(value.wkb)
        if isinstance(value, BaseModel):
            return value.model_dump_json().encode()
        return self._view(value) if isinstance(value, (View, OrthoView)) else None

    def _parts(self, value: Any, sight: Sight) -> Iterable[Any] | None:
        """The values of a collection that count, in an order of their own; None for what is none."""
        if isinstance(value, (list, tuple)):
            return (v for v in value if not (isinstance(v, RankedView) and self._unseen(v, sight)))
        if isinstance(value, dict):
            return chain.from_iterable((k, value[k]) for k in sorted(value, key=repr))
        if isinstance(value, (set, frozenset)):
            return (sorted(value, key=repr),)
        return ((value.func, value.args, value.keywords),) if isinstance(value, partial) else None

    def _record(self, total: Any, value: Any, sight: Sight) -> None:
        """A dataclass by its fields, or by the part of it that is seen."""
        seen: Any = None
        if isinstance(value, BlockRaster):
            # where there is no limit all counts, for what is done once may read anything
            pieces = value.telling(sight.bounds or value.grid.bounds)
            seen = (value.grid.reference, value.grid.resolution, value.dtype)
            seen += ([(p.window, p.name) for p in pieces],)
        elif isinstance(value, Grid):
            seen = (value.reference, value.west, value.north, value.resolution, value.shape)
        elif isinstance(value, Block):
            seen = (value.grid, value.core)  # where it lies in the whole changes no result
        elif isinstance(value, MatchTask):
            seen = (value.tile, value.core)  # the images themselves go with it
        elif sight.bounds is not None and isinstance(value, Raster):
            seen = _cropped(value, sight.bounds)
        elif sight.bounds is not None and isinstance(value, GroundReturns):
            seen = _within(value, sight.bounds)
        elif sight.bounds is not None and isinstance(value, Spool):
            seen = [(p.path, p.count) for p in value.parts if _near(p.bounds, sight.bounds, MOVED_M)]
        elif sight.block is not None and isinstance(value, Extent):
            seen = np.packbits(value.hull(sight.block)).tobytes()
        elif sight.block is not None and isinstance(value, Labelled):
            row, column = sight.block.row, sight.block.column
            near = [p for p in value.parts if _touch(p.window, (row, column, *sight.block.grid.shape))]
            windows = [(p.window[0] - row, p.window[1] - column, *p.window[2:]) for p in near]
            seen = (value.labels, windows, [p.values for p in near])
        if seen is not None:
            self._feed(total, seen, sight)
            return
        total.update(type(value).__qualname__.encode())
        for f in fields(value):
            total.update(f.name.encode())
            self._feed(total, getattr(value, f.name), sight)

    def _view(self, value: View | OrthoView) -> bytes:
        """Digest of a view, which is the same for all items."""
        known = self._views.get(id(value))
        if known is None:
            own = hashlib.sha256()
            self._record(own, value, Sight())
            known = self._views[id(value)] = value, own.digest()
        return known[1]

    def _unseen(self, view: RankedView, sight: Sight) -> bool:
        """Whether a block lies beside all that an image shows, so that it may come and go."""
        if sight.block is None:
            return False
        crs = sight.block.grid.reference.horizontal
        known = self._prints.get(id(view.view))
        if known is None:
            known = self._prints[id(view.view)] = view.view, _ground(view.view, crs)
        return not known[1].intersects(shapely.box(*sight.block.grid.bounds))

    def _function(self, total: Any, value: Any, sight: Sight) -> None:
        """A function by its name, its defaults and what it captured; a method by its object."""
        total.update(f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}".encode())
        self._feed(total, getattr(value, "__defaults__", None), sight)
        owner = getattr(value, "__self__", None)
        if owner is not None and not isinstance(owner, type):
            self._feed(total, owner, sight)
        code, cells = getattr(value, "__code__", None), getattr(value, "__closure__", None)
        if code is not None:
            total.update(code.co_code)
            for name, cell in zip(code.co_freevars, cells or (), strict=True):
                total.update(name.encode())
                self._feed(total, cell.cell_contents, sight)

    def _array(self, value: np.ndarray[Any, Any]) -> bytes:
        known = self._arrays.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        head = f"{value.dtype}{value.shape}".encode()
        found = hashlib.sha256(head + np.ascontiguousarray(value).tobytes()).digest()
        if value.nbytes > SMALL:
            self._arrays[id(value)] = (value, found)
        return found

    def _path(self, value: Path) -> bytes:
        """A file of the input by what it is, an object of the batch by its name, which is its content."""
        if NAME.fullmatch(value.name):
            return value.name.encode()
        if value not in self._files:
            self._files[value] = self._file(value)
        return self._files[value]

    def _file(self, path: Path) -> bytes:
        if self._own is not None and path.is_relative_to(self._own):
            return str(path.relative_to(self._own)).encode()
        if not path.is_file():
            return str(path).encode()
        if self._by_content:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        stat = path.stat()
        return f"{path}:{stat.st_size}:{stat.st_mtime_ns}".encode()


def captured(value: Any) -> Iterator[Any]:
    """All values that work captured, and what they are made of."""
    yield value
    if isinstance(value, (list, tuple, set, frozenset)):
        for v in value:
            yield from captured(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from captured(v)
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from captured(getattr(value, f.name))
    elif isinstance(value, partial):
        yield from captured((value.func, value.args, value.keywords))
    elif callable(value):
        for cell in getattr(value, "__closure__", None) or ():
            yield from captured(cell.cell_contents)


def _ground(view: OrthoView, crs: str) -> BaseGeometry:
    """All ground that an image can show at the heights that its camera is valid for."""
    lines, samples = view.shape
    line, sample = np.array([0, 0, lines, lines], float) - 0.5, np.array([0, samples, samples, 0], float) - 0.5
    places = [view.camera.locate(line, sample, height) for height in view.camera.rpc.height_range]
    x, y = from_lonlat(crs, *np.concatenate(places, axis=1))
    return shapely.MultiPoint(np.column_stack([x, y])).convex_hull.buffer(PRINT_MARGIN)


def _cropped(raster: Raster, bounds: Bounds) -> Any:
    """Cells over the bounds and two around them, and their place."""
    g = raster.grid
    west, south, east, north = bounds
    (left, right), (top, bottom) = g.column_row([west, east], [north, south])
    r0, r1 = (int(np.clip(v, 0, g.height)) for v in (np.floor(top) - 2, np.ceil(bottom) + 3))
    c0, c1 = (int(np.clip(v, 0, g.width)) for v in (np.floor(left) - 2, np.ceil(right) + 3))
    if r0 >= r1 or c0 >= c1:  # beyond the raster its nearest cells are taken
        return raster.values, g.bounds
    return raster.values[..., r0:r1, c0:c1].tobytes(), g.window(r0, c0, r1 - r0, c1 - c0).bounds, g.reference


def _within(returns: GroundReturns, bounds: Bounds) -> list[Any]:
    """Columns of the returns over the bounds."""
    west, south, east, north = bounds
    here = (returns.x >= west) & (returns.x <= east) & (returns.y >= south) & (returns.y <= north)
    return [getattr(returns, f.name)[here] for f in fields(returns)]


def _near(a: Bounds, b: Bounds, reach: float) -> bool:
    return a[0] <= b[2] + reach and a[2] >= b[0] - reach and a[1] <= b[3] + reach and a[3] >= b[1] - reach


def _touch(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
