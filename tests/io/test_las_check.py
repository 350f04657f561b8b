"""Sizes that a LAS file states and does not hold are refused before anything is allocated for them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from terrain3d.crs import Reference
from terrain3d.errors import InputFileError
from terrain3d.io.clouds import read_cloud, write_cloud
from terrain3d.points import PointCloud


def cloud(path: Path, n: int = 300) -> Path:
    xyz = np.random.default_rng(1).uniform(0, 50, (n, 3)) + [680_000, 5_230_000, 500]
    ones = np.ones(n, np.float32)
    write_cloud(path, PointCloud(Reference("EPSG:32632"), xyz, ones, ones, np.ones(n, np.uint8), np.ones(n, np.uint16)))
    return path


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_read_cloud__whole_files_pass(tmp_path: Path, suffix: str) -> None:
    assert len(read_cloud(cloud(tmp_path / f"c{suffix}"))) == 300
    assert len(read_cloud(cloud(tmp_path / f"none{suffix}", 0))) == 0


@pytest.mark.parametrize(
    ("suffix", "place", "number", "said"),
    [
        (".las", 247, struct.pack("<Q", 2**60), "points do not fit"),
        (".las", 96, struct.pack("<I", 2**31), "begin outside"),
        (".las", 100, struct.pack("<I", 2**31), "records do not fit"),
        (".las", 235, struct.pack("<QI", 2**50, 3), "lie outside"),
        (".las", 105, struct.pack("<H", 0), "points do not fit"),
        (".laz", 100, struct.pack("<I", 0), "without a LASzip record"),
        (".laz", 105, struct.pack("<H", 9), "does not fit the points"),
    ],
)
def test_read_cloud__absurd_sizes(tmp_path: Path, suffix: str, place: int, number: bytes, said: str) -> None:
    path = cloud(tmp_path / f"c{suffix}")
    data = bytearray(path.read_bytes())
    data[place : place + len(number)] = number
    path.write_bytes(bytes(data))
    with pytest.raises(InputFileError, match=said):
        read_cloud(path)


def test_read_cloud__absurd_table_of_chunks(tmp_path: Path) -> None:
    path = cloud(tmp_path / "c.laz")
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", data, 96)[0]
    table = struct.unpack_from("<q", data, start)[0]
    data[table + 4 : table + 8] = struct.pack("<I", 2**32 - 1)
    path.write_bytes(bytes(data))
    with pytest.raises(InputFileError, match="chunks do not fit"):
        read_cloud(path)
