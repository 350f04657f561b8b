"""Keys: what changes a result changes its key, what lies out of sight does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.io.objects import Desk, DeskShelf, Objects
from terrain3d.pipeline.batch.keys import Keys
from terrain3d.pipeline.blocks import Block, aligned, cut
from terrain3d.raster import Grid, Raster

GRID = aligned(Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 1.0, 320, 320))
BLOCKS = cut(GRID, 8.0, 80)


def shift(raster: Raster, by: float) -> Callable[[Block], float]:
    def work(block: Block) -> float:
        return float(raster.values[block.row, block.column]) + by

    return work


def test_key__is_the_same_for_the_same_and_differs_for_anything_else() -> None:
    cells = np.zeros(GRID.shape, np.float32)
    one, keys = Raster(cells, GRID), Keys()
    first = keys.key(shift(one, 1.0), BLOCKS[0])
    assert first == Keys().key(shift(Raster(cells.copy(), GRID), 1.0), BLOCKS[0])
    others = [
        keys.key(shift(one, 1.5), BLOCKS[0]),
        keys.key(shift(one, 1.0), BLOCKS[1]),
        keys.key(shift(Raster(cells, replace(GRID, west=GRID.west + 8)), 1.0), BLOCKS[0]),
        keys.key(shift(Raster(cells + np.float32(1e-3), GRID), 1.0), BLOCKS[0]),
    ]
    assert len({first, *others}) == 5


def test_key__of_a_raster_counts_only_what_a_block_sees() -> None:
    cells = np.zeros(GRID.shape, np.float32)
    changed = cells.copy()
    changed[300, 300] = 1
    keys = Keys()
    same = [keys.key(shift(Raster(cells, GRID), 0), b) == keys.key(shift(Raster(changed, GRID), 0), b) for b in BLOCKS]
    sees = [b.row + b.grid.height > 296 and b.column + b.grid.width > 296 for b in BLOCKS]
    assert same == [not s for s in sees] and sum(sees) == 1


def test_key__of_pieces_on_a_desk(tmp_path: Path) -> None:
    desk = Desk(Objects(tmp_path))
    raster = (DeskShelf(desk) / "a").new_raster(GRID, np.float32)
    for block in BLOCKS:
        block.write(raster, np.zeros(block.grid.shape, np.float32))
    desk.take_own()

    def work(block: Block) -> float:
        return float(block.read(raster).sum())

    before = [Keys().key(work, b) for b in BLOCKS]
    BLOCKS[0].write(raster, np.ones(BLOCKS[0].grid.shape, np.float32))
    desk.take_own()
    after = [Keys().key(work, b) for b in BLOCKS]
    changed = {i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b}
    assert changed == {0, 1, 4, 5}  # of 4 x 4: itself, and those whose margins reach into it


def test_key__of_a_file_follows_size_and_time_or_content(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(b"a")

    def work(item: int) -> Path:
        return path

    def both() -> tuple[str, str]:
        return Keys().key(work, 0), Keys(by_content=True).key(work, 0)

    first = both()
    path.touch()
    import os

    os.utime(path, ns=(1, 1))
    touched = both()
    assert touched[0] != first[0] and touched[1] == first[1]
    path.write_bytes(b"b")
    assert both()[1] != first[1]


def test_key__of_a_value_of_unknown_kind_is_refused() -> None:
    thing = object()

    def work(item: int) -> object:
        return thing

    with pytest.raises(TypeError, match="no key can be made of a object"):
        Keys().key(work, 0)
