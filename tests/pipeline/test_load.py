"""The terrestrial frame that a configuration asks for, and the CRS that goes with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrain3d.config import OutputConfig, load_scene
from terrain3d.crs import parse_crs
from terrain3d.errors import ConfigError, FrameError
from terrain3d.lidar.frames import TargetFrame, zone_crs
from terrain3d.pipeline.load import check_frame, load_lidar, target_frame


def test_target_frame__from_the_configuration() -> None:
    assert target_frame(OutputConfig()) is None
    assert target_frame(OutputConfig(frame="ETRS89")) == TargetFrame("ETRS89")
    moved = OutputConfig(frame="ITRF2020", epoch=2025.0, plate="NOAM")
    assert target_frame(moved) == TargetFrame("ITRF2020", 2025.0, "NOAM")
    with pytest.raises(FrameError, match="unknown frame 'GPS'"):
        target_frame(OutputConfig(frame="GPS"))
    with pytest.raises(FrameError, match="need a frame"):
        target_frame(OutputConfig(epoch=2020.0))


def test_zone_crs__of_frames_that_move_with_a_plate() -> None:
    assert zone_crs("ETRS89", 5.0, 45.0) == "EPSG:25831"
    assert zone_crs("NAD83(2011)", -105.0, 40.0) == "EPSG:6342"
    assert parse_crs(zone_crs("GDA2020", 135.0, -25.0)).name == "GDA2020 / MGA zone 53"
    with pytest.raises(FrameError, match="no UTM zone is known in ETRS89"):
        zone_crs("ETRS89", -60.0, -10.0)


def testcheck_frame__wgs84_is_not_etrs89() -> None:
    check_frame(OutputConfig(frame="ETRS89", crs="EPSG:2154"), parse_crs("EPSG:2154"))
    check_frame(OutputConfig(frame="ITRF2014", crs="EPSG:32631"), parse_crs("EPSG:32631"))
    with pytest.raises(FrameError, match=r"'EPSG:32631' is on WGS 84, output frame is ETRS89"):
        check_frame(OutputConfig(frame="ETRS89", crs="EPSG:32631"), parse_crs("EPSG:32631"))


def test_load_lidar__rules_and_frame_are_checked_before_files_are_read(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "l.h5"):
        (tmp_path / name).write_bytes(b"x")
    scene = tmp_path / "scene.yaml"
    scene.write_text("name: x\nimages: [a.tif, b.tif]\nlidar: l.h5\nlidar_rules: {max_clouds: 1}\n")
    with pytest.raises(ConfigError, match=r"unknown key 'lidar_rules\.max_clouds'"):
        load_lidar(load_scene(scene), [], 0.0)
    scene.write_text("name: x\nimages: [a.tif, b.tif]\noutput: {frame: ETRS89}\n")
    with pytest.raises(FrameError, match="output frame ETRS89 needs lidar"):
        load_lidar(load_scene(scene), [], 0.0)
