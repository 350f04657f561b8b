"""Scenes on disk: images, lidar granules in their real layouts, truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from terrain3d.camera.read import read_rpc
from terrain3d.camera.rpc import project
from terrain3d.crs import from_lonlat, to_lonlat
from terrain3d.errors import ConfigError
from terrain3d.io.rasters import read_raster
from terrain3d.simulate.granules import ATL08_BEAMS, FILL, GEDI_BEAMS, Faults, write_atl08, write_gedi_l2a
from terrain3d.simulate.scene import SceneFiles, write_scene
from terrain3d.simulate.world import TOWN, World, make_world, mountain, town

PERFECT = Faults(cloud=0.0, roof=0.0, blocked=0.0, noise=0.1, geolocation=0.0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    return write_scene(tmp_path_factory.mktemp("scene"), size_m=120, seed=2, views=2, epochs=2)


@pytest.fixture(scope="module")
def place() -> World:
    """Open country without a house or a wood."""
    return make_world(replace(TOWN, forest=0.0, town=0.0, terraces=0.0), 6, 300)


def test_write_scene__lists_what_it_wrote(scene: SceneFiles) -> None:
    config = yaml.safe_load(scene.config.read_text())
    assert config["output"] == {"resolution": 0.5, "crs": "auto", "vertical": "ellipsoid"}
    assert all((scene.folder / p).is_file() for p in config["images"] + config["lidar"])
    assert len(scene.epochs) == 2 and scene.events_file is not None and scene.events_file.is_file()


def test_write_scene__repeats_byte_by_byte(scene: SceneFiles, tmp_path: Path) -> None:
    again = write_scene(tmp_path, size_m=120, seed=2, views=2, epochs=2)
    files = sorted(p.relative_to(scene.folder) for p in scene.folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file())
    assert all((scene.folder / f).read_bytes() == (again.folder / f).read_bytes() for f in files)


def test_write_scene__rpc_is_read_back_from_the_image(scene: SceneFiles) -> None:
    image, sensor = scene.epochs[0].images[0], scene.epochs[0].sensors[0]
    x, y = sensor.camera.locate([10.0, 200.0], [30.0, 150.0], [545.0, 560.0])
    lon, lat = to_lonlat("EPSG:32632", x, y)
    expected = np.array(sensor.camera.project(x, y, [545.0, 560.0])) + sensor.pointing.error([10.0, 200.0])
    np.testing.assert_allclose(project(read_rpc(image), lon, lat, [545.0, 560.0]), expected, atol=1e-4)


def test_write_scene__truth_is_the_world(scene: SceneFiles) -> None:
    surface, ground, classes = town(2, 120).truth(0.5)
    for name, expected in (("dsm", surface), ("dtm", ground), ("class", classes)):
        found = read_raster(scene.epochs[0].truth[name])
        assert np.array_equal(found.values, expected.values)
        assert found.grid.bounds == expected.grid.bounds
    assert read_raster(scene.epochs[0].truth["dsm"]).grid.reference == surface.grid.reference


def test_write_scene__refuses_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="town, mountain"):
        write_scene(tmp_path, kind="moon")


def _ground_at(world: World, lon: np.ndarray, lat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ground height, and whether all is bare and even within 15 m."""
    x, y = from_lonlat("EPSG:32632", lon, lat)
    column, row = (np.rint(a).astype(int) for a in world.grid.column_row(x, y))
    even = []
    for r, c in zip(row, column, strict=True):
        around = slice(max(r - 60, 0), r + 61), slice(max(c - 60, 0), c + 61)
        even.append(bool((world.classes[around] == 2).all() and np.ptp(world.ground[around]) < 6))
    return world.ground[row, column], np.array(even)


def test_atl08__open_ground_is_the_truth_within_noise(place: World, tmp_path: Path) -> None:
    write_atl08(tmp_path / "ATL08.h5", place, 1, faults=PERFECT)
    differences = []
    with h5py.File(tmp_path / "ATL08.h5") as file:
        for beam in ATL08_BEAMS:
            land = file[beam]["land_segments"]
            lon, lat = (land[k][:].ravel().astype(float) for k in ("longitude_20m", "latitude_20m"))
            height = land["terrain/h_te_best_fit_20m"][:].ravel()
            truth, even = _ground_at(place, lon, lat)
            differences.append((height - truth)[even & (height < FILL)])
    found = np.concatenate(differences)
    assert found.size >= 30
    assert abs(found.mean()) < 0.15 and found.std() < 0.45


def test_gedi__open_ground_is_the_truth_within_noise(place: World, tmp_path: Path) -> None:
    write_gedi_l2a(tmp_path / "GEDI.h5", place, 1, faults=PERFECT)
    differences = []
    with h5py.File(tmp_path / "GEDI.h5") as file:
        for beam in GEDI_BEAMS:
            group = file[beam]
            truth, even = _ground_at(place, group["lon_lowestmode"][:], group["lat_lowestmode"][:])
            differences.append((group["elev_lowestmode"][:] - truth)[even])
    found = np.concatenate(differences)
    assert found.size >= 8
    assert abs(found.mean()) < 0.6


def test_granules__have_the_layout_of_the_products(place: World, tmp_path: Path) -> None:
    write_atl08(tmp_path / "ATL08.h5", place, 1)
    write_gedi_l2a(tmp_path / "GEDI.h5", place, 1)
    with h5py.File(tmp_path / "ATL08.h5") as file:
        assert file["ancillary_data/atlas_sdp_gps_epoch"][0] == 1_198_800_018.0
        for beam in ATL08_BEAMS:
            land = file[beam]["land_segments"]
            n = land["latitude"].size
            assert n >= 2 and land["latitude_20m"].shape == (n, 5) == land["terrain/h_te_best_fit_20m"].shape
            assert (np.diff(land["delta_time"][:]) > 0).all()
            assert file[beam].attrs["atlas_beam_type"] in (b"strong", b"weak")
            for name in ("segment_watermask", "cloud_flag_atm", "msw_flag", "night_flag", "urban_flag", "dem_h"):
                assert land[name].shape == (n,)
    with h5py.File(tmp_path / "GEDI.h5") as file:
        for beam in GEDI_BEAMS:
            group = file[beam]
            assert group["rh"].shape == (group["elev_lowestmode"].size, 101)
            assert (np.diff(group["rh"][:], axis=1) >= -1e-4).all()
            top = group["elev_highestreturn"][:] - group["elev_lowestmode"][:]
            np.testing.assert_allclose(group["rh"][:, 100], top, atol=0.01)
            assert set(np.unique(group["quality_flag"][:])) <= {0, 1}


def test_granules__faults_are_there_as_often_as_asked(tmp_path: Path) -> None:
    world = mountain(3, 300)
    write_atl08(tmp_path / "a.h5", world, 1, faults=Faults(cloud=0.5, cloud_flagged=0.5))
    with h5py.File(tmp_path / "a.h5") as file:
        gross = flagged = total = 0
        for beam in ATL08_BEAMS:
            land = file[beam]["land_segments"]
            height = land["terrain/h_te_best_fit_20m"][:]
            off = np.abs(height - land["dem_h"][:][:, None]) > 60
            gross += int((off & (height < FILL)).any(1).sum())
            flagged += int((land["cloud_flag_atm"][:] >= 2).sum())
            total += len(height)
    assert 0.25 < gross / total < 0.95
    assert flagged < gross


def test_gedi__stated_coordinates_are_off_by_the_geolocation_error(tmp_path: Path) -> None:
    world = mountain(3, 300)
    spread = []
    for geolocation in (0.0, 8.0):
        faults = Faults(cloud=0.0, roof=0.0, blocked=0.0, noise=0.05, geolocation=geolocation)
        write_gedi_l2a(tmp_path / "g.h5", world, 1, faults=faults)
        with h5py.File(tmp_path / "g.h5") as file:
            off = []
            for beam in file:
                if beam.startswith("BEAM"):
                    group = file[beam]
                    truth, _ = _ground_at(world, group["lon_lowestmode"][:], group["lat_lowestmode"][:])
                    off.append(group["elev_lowestmode"][:] - truth)
        spread.append(np.concatenate(off).std())
    assert spread[1] > 1.5 * spread[0]
