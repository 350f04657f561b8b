from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import laspy
import numpy as np
import pytest

from terrain3d.crs import ELLIPSOID, UNDECLARED, Reference, Vertical, vertical_from_name
from terrain3d.errors import FrameError, InputFileError, OutputError
from terrain3d.io.clouds import read_cloud, read_cloud_parts, write_cloud
from terrain3d.points import PointCloud


def make(n: int, vertical: Vertical = ELLIPSOID, seed: int = 0) -> PointCloud:
    rng = np.random.default_rng(seed)
    return PointCloud(
        Reference("EPSG:32654", vertical),
        np.column_stack([rng.uniform(293402, 294102, n), rng.uniform(3914983, 3915683, n), rng.uniform(-5, 900, n)]),
        rng.uniform(0.1, 5, n).astype(np.float32),
        rng.uniform(0, 1, n).astype(np.float32),
        rng.integers(0, 200, n).astype(np.uint8),
        rng.integers(0, 65535, n).astype(np.uint16),
    )


def assert_close(back: PointCloud, cloud: PointCloud) -> None:
    np.testing.assert_allclose(back.xyz, cloud.xyz, rtol=0, atol=5.1e-4)
    np.testing.assert_allclose(back.sigma, cloud.sigma, atol=5.1e-4)
    np.testing.assert_allclose(back.confidence, cloud.confidence, atol=2.1e-3)
    np.testing.assert_array_equal(back.pair, cloud.pair)
    np.testing.assert_array_equal(back.intensity, cloud.intensity)


@pytest.mark.parametrize("vertical", [ELLIPSOID, vertical_from_name("egm96"), UNDECLARED])
def test_write_cloud__round_trip(tmp_path: Path, vertical: Vertical) -> None:
    cloud = make(5000, vertical)
    assert write_cloud(tmp_path / "c.laz", cloud) == 5000
    back = read_cloud(tmp_path / "c.laz")
    assert back.reference == cloud.reference
    assert_close(back, cloud)
    with laspy.open(tmp_path / "c.laz") as file:
        assert (str(file.header.version), file.header.point_format.id) == (
            "1.4",
            6,
        ) and file.header.are_points_compressed
        assert len(file.header.parse_crs().axis_info) == (2 if vertical == UNDECLARED else 3)


def test_write_cloud__parts_come_one_at_a_time(tmp_path: Path) -> None:
    parts = [make(1000, seed=1), make(0), make(700, seed=2)]
    assert write_cloud(tmp_path / "c.laz", iter(parts)) == 1700
    back = list(read_cloud_parts(tmp_path / "c.laz", 600))
    assert [len(p) for p in back] == [600, 600, 500]
    np.testing.assert_allclose(read_cloud(tmp_path / "c.laz").xyz[1000:], parts[2].xyz, atol=5.1e-4)


def test_write_cloud__empty_and_nan(tmp_path: Path) -> None:
    write_cloud(tmp_path / "c.laz", make(0))
    assert len(read_cloud(tmp_path / "c.laz")) == 0
    one = make(1)
    one.sigma[0] = np.nan
    write_cloud(tmp_path / "c.laz", one)
    assert read_cloud(tmp_path / "c.laz").sigma[0] == np.float32(65.535)
    with pytest.raises(ValueError, match="no part"):
        write_cloud(tmp_path / "d.laz", [])


def test_write_cloud__failure_leaves_nothing(tmp_path: Path) -> None:
    def parts() -> Iterator[PointCloud]:
        yield make(10)
        raise InputFileError("a tile is gone")

    with pytest.raises(InputFileError, match="a tile is gone"):
        write_cloud(tmp_path / "c.laz", parts())
    with pytest.raises(ValueError, match="differ in reference"):
        write_cloud(tmp_path / "c.laz", [make(10), make(10, UNDECLARED)])
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_cloud(tmp_path / "file" / "c.laz", make(10))


def test_read_cloud__bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        read_cloud(tmp_path / "c.laz")
    write_cloud(tmp_path / "c.laz", make(20000))
    data = (tmp_path / "c.laz").read_bytes()
    for size in (0, 100, 300, len(data) // 2, len(data) - 100):
        (tmp_path / "t.laz").write_bytes(data[:size])
        with pytest.raises(InputFileError, match=r"t\.laz"):
            read_cloud(tmp_path / "t.laz")


def test_read_cloud__foreign_without_extra_dimensions(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.2", point_format=1)
    header.scales = np.full(3, 0.01)
    las = laspy.LasData(header)
    las.x, las.y, las.z = np.array([1.0, 2.0]), np.array([3.0, 4.0]), np.array([5.0, 6.5])
    las.write(tmp_path / "f.las")
    with pytest.raises(FrameError, match="no CRS"):
        read_cloud(tmp_path / "f.las")
    import pyproj

    las.header.add_crs(pyproj.CRS.from_epsg(32654))
    las.write(tmp_path / "f.las")
    cloud = read_cloud(tmp_path / "f.las")
    assert cloud.reference == Reference("EPSG:32654", UNDECLARED) and np.isnan(cloud.sigma).all()
    np.testing.assert_allclose(cloud.xyz, [[1, 3, 5], [2, 4, 6.5]])
