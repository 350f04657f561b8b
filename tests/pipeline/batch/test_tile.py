"""The cloud of a tile, part by part."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import shapely

from terrain3d.crs import Reference
from terrain3d.export.lineage import Lineage
from terrain3d.io.clouds import read_cloud, write_cloud
from terrain3d.io.vectors import NamedLayer
from terrain3d.pipeline.batch.features import Features
from terrain3d.pipeline.batch.sheets import Sheet
from terrain3d.pipeline.batch.tile import TileItem, _clouds, tile_grid
from terrain3d.pipeline.spool import Spool, save_part
from terrain3d.points import PointCloud
from terrain3d.raster import Grid

REFERENCE = Reference("EPSG:32632")
LIKE = Grid(REFERENCE, 680_000.0, 5_230_000.0, 0.5, 10, 10)
LINEAGE = Lineage("x", (), {}, {}, (), datetime(2024, 1, 1, tzinfo=UTC))


def spool(folder: Path, xy: np.ndarray) -> Spool:
    ones = np.ones(len(xy), np.float32)
    cloud = PointCloud(REFERENCE, np.column_stack([xy, 500 * ones]), ones, ones, np.ones(len(xy), np.uint8),
                       np.ones(len(xy), np.uint16))  # fmt: skip
    part = save_part(folder / "part.npy", cloud)
    assert part is not None
    return Spool(REFERENCE, (part,))


def item(outline: shapely.Polygon) -> TileItem:
    sheet = Sheet("t", outline)
    return TileItem(sheet, tile_grid(sheet, LIKE), LINEAGE, Features(None, NamedLayer("stands", (), {}), ()))


def test_clouds__every_point_is_in_one_tile_also_where_the_first_strip_has_none(tmp_path: Path) -> None:
    south = np.random.default_rng(1).uniform([680_000, 5_229_000], [682_000, 5_229_400], (5000, 2))
    edge = np.column_stack([np.arange(680_000.0, 682_000, 250), np.full(8, 5_229_200.0)])
    points = spool(tmp_path, np.concatenate([south, edge]))
    total = 0
    for west in (680_000, 681_000):
        for low, high in ((5_229_000, 5_229_200), (5_229_200, 5_230_000)):
            path = tmp_path / f"{west}_{low}.laz"
            write_cloud(path, _clouds(points, item(shapely.box(west, low, west + 1000, high)), None))
            cloud = read_cloud(path)
            assert len(cloud) > 900 and cloud.xyz[:, 0].min() >= west and cloud.xyz[:, 1].max() <= high
            assert abs(cloud.xyz[:, 1].min() - low) < 5
            total += len(cloud)
    assert total == 5008


def test_clouds__a_tile_without_points_has_an_empty_file(tmp_path: Path) -> None:
    points = spool(tmp_path, np.array([[680_000.0, 5_229_000.0]]))
    write_cloud(tmp_path / "c.laz", _clouds(points, item(shapely.box(690_000, 5_229_000, 690_100, 5_229_100)), None))
    assert len(read_cloud(tmp_path / "c.laz")) == 0


def test_clouds__an_outline_that_is_no_rectangle_cuts(tmp_path: Path) -> None:
    xy = np.random.default_rng(2).uniform([680_000, 5_229_000], [680_100, 5_229_100], (4000, 2))
    half = shapely.Polygon([(680_000, 5_229_000), (680_100, 5_229_000), (680_000, 5_229_100)])
    parts = list(_clouds(spool(tmp_path, xy), item(half), None))
    assert sum(len(p) for p in parts) == pytest.approx(2000, abs=150)
