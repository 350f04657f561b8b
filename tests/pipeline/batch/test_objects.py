"""Objects, rasters made of pieces, and values between processes."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.io.objects import Desk, DeskShelf, Objects
from terrain3d.pipeline.batch.parcel import pack_value, pack_work, unpack_value, unpack_work
from terrain3d.pipeline.spool import Part
from terrain3d.raster import Grid

GRID = Grid(Reference("EPSG:32654"), 1000.0, 2000.0, 1.0, 20, 30)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(Objects(tmp_path / "work" / "objects"))


def test_objects__are_named_by_content_and_a_damaged_one_is_found(desk: Desk) -> None:
    name = desk.objects.put(b"heights")
    assert desk.objects.put(b"heights") == name and desk.objects.whole(name)
    desk.objects.path(name).write_bytes(b"heighty")
    assert not desk.objects.whole(name) and not desk.objects.path(name).exists()
    assert not desk.objects.whole(name)


@pytest.mark.parametrize("name", ["../../etc/passwd", "ab/cd", "", "A" * 40, f"{'a' * 40}.npz", f"{'a' * 40}\n"])
def test_objects__no_name_leads_out_of_the_folder(desk: Desk, name: str) -> None:
    with pytest.raises(ValueError, match="no name of an object"):
        desk.objects.path(name)


def test_raster__reads_what_was_written_before_and_not_what_is_being_written(desk: Desk) -> None:
    raster = (DeskShelf(desk) / "a.raw").new_raster(GRID, np.float32)
    raster.write(0, 0, np.ones((20, 30), np.float32))
    desk.take_own()
    raster.write(5, 5, np.full((3, 4), 2, np.float32))
    assert raster.read(0, 0, 20, 30).max() == 1
    desk.take_own()
    cells = raster.read(4, 4, 5, 6)
    assert cells.sum() == 30 + 12 and cells[1, 1] == 2 and cells[0, 0] == 1
    raster.write(0, 0, np.zeros((20, 30), np.float32))
    desk.take_own()
    assert len(desk.layers["a.raw"]) == 1  # what is covered is gone


def test_raster__what_is_not_there_is_an_error_not_a_zero(desk: Desk) -> None:
    raster = (DeskShelf(desk) / "a.raw").new_raster(GRID, np.float32)
    raster.write(0, 0, np.ones((20, 15), np.float32))
    desk.take_own()
    assert raster.read(0, 0, 20, 15).all()
    with pytest.raises(ValueError, match=r"a\.raw was not handed over"):
        raster.read(0, 0, 20, 16)


def test_work__goes_to_another_desk_with_its_rasters(desk: Desk, tmp_path: Path) -> None:
    raster = (DeskShelf(desk) / "a.raw").new_raster(GRID, np.float32)
    raster.write(0, 0, np.arange(600, dtype=np.float32).reshape(20, 30))
    desk.take_own()
    offset = 3

    def work(row: int) -> float:
        return float(raster.read(row, 0, 1, 30).sum()) + offset

    there = Desk(Objects(desk.objects.folder), desk.layers)
    assert unpack_work(pack_work(work, desk), there)(1) == work(1) == sum(range(30, 60)) + 3
    blind = Desk(Objects(desk.objects.folder))
    with pytest.raises(ValueError, match="not handed over"):
        unpack_work(pack_work(work, desk), blind)(1)


def test_results__come_back_and_their_files_follow_the_folder(desk: Desk, tmp_path: Path) -> None:
    path = (DeskShelf(desk) / "p.npy").save_array(np.arange(4.0))
    value = {"part": Part(path, 4, (0.0, 1.0, 2.0, 3.0)), "cells": np.eye(2), "none": None, "n": np.int64(3)}
    data = pack_value(value, desk)
    moved = Desk(Objects(tmp_path / "elsewhere"))
    back = unpack_value(data, moved)
    assert back["part"].path == moved.objects.path(path.name) and (back["cells"] == np.eye(2)).all() and back["n"] == 3


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("true",)


@dataclass
class Stranger:
    """A class that is not the program's."""


@pytest.mark.parametrize(
    "value", [Evil(), Stranger(), os.system, eval, getattr, pickle.loads, np.load, np.fromfile, Path.unlink]
)
def test_results__that_are_more_than_values_are_refused(desk: Desk, value: object) -> None:
    with pytest.raises(pickle.UnpicklingError, match="no place among results"):
        unpack_value(pickle.dumps(value), desk)
