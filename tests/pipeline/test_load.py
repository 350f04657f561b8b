"""The terrestrial frame that a configuration asks for, and the CRS that goes with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import yaml

from terrain3d.config import ImageEntry, OutputConfig, Scene, load_scene
from terrain3d.crs import parse_crs, transform_xy
from terrain3d.errors import ConfigError, FrameError, InputFileError, OverlapError
from terrain3d.io.saturation import Saturation
from terrain3d.io.vectors import write_layer
from terrain3d.lidar.frames import TargetFrame, zone_crs
from terrain3d.pipeline.load import (
    check_overlap,
    height_limits,
    load_lidar,
    load_views,
    load_water,
    saturation_warnings,
    target_frame,
    tile_warnings,
)
from terrain3d.pipeline.output_crs import check_frame
from terrain3d.simulate.scene import SceneFiles


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


def test_load_water__polygons_in_the_crs_of_the_run(hamlet: SceneFiles, tmp_path: Path) -> None:
    square = shapely.box(680_000, 5_230_000, 680_050, 5_230_030)
    corners = shapely.get_coordinates(square)
    lonlat = shapely.Polygon(np.column_stack(transform_xy("EPSG:32632", "EPSG:4326", *corners.T)))
    for name, kind in (("good", "River"), ("bad", "swamp")):
        write_layer(tmp_path / f"{name}.gpkg", "w", [lonlat], {"Kind": [kind]}, "EPSG:4326")
    content = yaml.safe_load(hamlet.config.read_text()) | {"lidar": []}

    def load(water: dict[str, object]) -> Scene:
        path = hamlet.folder / "water.yaml"
        path.write_text(yaml.safe_dump({**content, "water": water}))
        return load_scene(path)

    scene = load({"polygons": str(tmp_path / "good.gpkg"), "flatten": False})
    assert scene.completed()["water"] == {"polygons": str(tmp_path / "good.gpkg"), "flatten": False}
    given = load_water(scene, "EPSG:32632")
    assert given.kinds == ("river",) and not given.flatten
    assert given.shapes[0].symmetric_difference(square).area < 0.1
    with pytest.raises(ConfigError, match="water of kind 'swamp'"):
        load_water(load({"polygons": str(tmp_path / "bad.gpkg")}), "EPSG:32632")
    with pytest.raises(InputFileError, match="no such file"):
        load({"polygons": "none.gpkg"})
    with pytest.raises(ConfigError, match="known keys here: polygons, flatten"):
        load({"polygon": "good.gpkg"})


def test_check_overlap__two_images_with_one_rpc(hamlet: SceneFiles) -> None:
    scene = load_scene(hamlet.config)
    views = load_views(scene)
    check_overlap(views, height_limits(views))
    twice = [*views, replace(views[0], image=views[-1].image)]
    with pytest.raises(OverlapError, match=r"has the very RPC of .*view_1\.tif.*leave one out"):
        check_overlap(twice, height_limits(twice))


def test_saturation_warnings__one_line_on_all_images_that_are_cut_off(hamlet: SceneFiles) -> None:
    views = load_views(load_scene(hamlet.config))
    assert saturation_warnings(views) == []
    cut = [replace(v, image=replace(v.image, saturation=Saturation(2047.0, 0.934))) for v in views[:2]]
    (line,) = saturation_warnings([*cut, *views[2:]])
    assert line.startswith("view_1 (93 % at 2047), view_2 (93 % at 2047): pixels saturated") and "view_3" not in line


def test_tile_warnings__images_in_several_tiles(hamlet: SceneFiles) -> None:
    scene = load_scene(hamlet.config)

    def of(*names: str) -> list[str]:
        return tile_warnings(scene.model_copy(update={"images": tuple(ImageEntry(path=f"/a/{n}.TIF") for n in names)}))

    assert of("IMG_A_R1C1", "IMG_B_R1C1") == of("town_R", "town") == []
    (line,) = of("IMG_A_R1C1", "IMG_A_R1C2", "IMG_B_R1C1", "IMG_B_R1C2")
    assert line.startswith("IMG_A_R1C1 and 3 more are tiles of 2 images")
