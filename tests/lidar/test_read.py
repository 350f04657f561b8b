from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from terrain3d.config import LidarFormat
from terrain3d.errors import ConfigError, InputFileError, LidarError
from terrain3d.lidar.granule import inside_bounds, row_range
from terrain3d.lidar.identity import release_of
from terrain3d.lidar.read import read_granule, read_lidar
from terrain3d.lidar.read_atl08 import ground_sigma, unround_longitude
from terrain3d.lidar.rules import ALL, STANDARD, STRICT, rule_set

FILL = np.float32(3.4028235e38)
LAT0, LON0 = 35.0, 138.0


def write_atl08(
    path: Path,
    n: int = 6,
    fine: bool = True,
    beams: tuple[str, ...] = ("gt1l", "gt1r"),
    short_name: bool = True,
    beam_type: bool = True,
    **changes: np.ndarray,
) -> Path:
    """A granule of n segments with the group and field names of release 006; heights are 100 + index of the part."""
    with h5py.File(path, "w") as file:
        if short_name:
            file.attrs["short_name"] = np.bytes_("ATL08")
        file["orbit_info/sc_orient"] = np.array([0], np.int8)
        for beam in beams:
            if beam_type:
                file.require_group(beam).attrs["atlas_beam_type"] = np.bytes_(
                    "weak" if beam.endswith("l") else "strong"
                )
            g = file.require_group(f"{beam}/land_segments")
            part = np.arange(5 * n).reshape(n, 5)
            fields = {
                "latitude": (LAT0 + part[:, 2] * 0.00018).astype(np.float32),
                "longitude": (LON0 + part[:, 2] * 0.00002).astype(np.float32),
                "delta_time": 2e8 + np.arange(n) * 0.0143,
                "sigma_h": np.full(n, 0.3, np.float32),
                "cloud_flag_atm": np.zeros(n, np.int8),
                "msw_flag": np.zeros(n, np.int8),
                "segment_watermask": np.zeros(n, np.int32),
                "segment_snowcover": np.ones(n, np.int32),
                "dem_h": np.full(n, 101.0, np.float32),
                "terrain/h_te_best_fit": (100.0 + part[:, 2]).astype(np.float32),
                "terrain/h_te_uncertainty": np.full(n, 2.0, np.float32),
                "terrain/n_te_photons": np.full(n, 100, np.int32),
                "canopy/h_canopy": np.full(n, FILL),
            }
            if fine:
                fields |= {
                    "latitude_20m": (LAT0 + part * 0.00018).astype(np.float32),
                    "longitude_20m": (LON0 + part * 0.00002).astype(np.float32),
                    "terrain/h_te_best_fit_20m": (100.0 + part).astype(np.float32),
                    "canopy/h_canopy_20m": np.full((n, 5), FILL),
                }
            for name, values in (fields | changes).items():
                g[name] = values
    return path


def write_gedi(path: Path, version: int = 2, n: int = 8, **changes: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["short_name"] = (
            np.array(["GEDI_L2A"], dtype=h5py.string_dtype()) if version == 1 else np.bytes_("GEDI_L2A")
        )
        for beam in ("BEAM0000", "BEAM1011"):
            g = file.create_group(beam)
            fields = {
                "lat_lowestmode": LAT0 + np.arange(n) * 0.0004,
                "lon_lowestmode": LON0 + np.arange(n) * 0.0003,
                "elev_lowestmode": (200.0 + np.arange(n)).astype(np.float32),
                "digital_elevation_model": np.full(n, 205.0, np.float32),
                "quality_flag": np.ones(n, np.uint8),
                "degrade_flag": np.zeros(n, np.uint8),
                "surface_flag": np.ones(n, np.uint8),
                "sensitivity": np.full(n, 0.95, np.float32),
                "delta_time": 4e7 + np.arange(n) * 0.00827,
                "rh": np.tile(np.arange(101) / 10.0, (n, 1)).astype(np.float64 if version == 1 else np.float32),
            }
            if version == 1:
                fields["elevation_bin0_error"] = np.full(n, 0.7, np.float32)
            for name, values in (fields | changes).items():
                g[name] = values
    return path


def count(granule: object, rule: str) -> int:
    return dict(granule.rejected)[rule]  # type: ignore[attr-defined]


def test_atl08__reads_20m_parts(tmp_path: Path) -> None:
    granule = read_granule(write_atl08(tmp_path / "any_name.h5"))
    returns = granule.returns
    assert granule.product == "ATL08" and granule.n_read == len(returns) == 60
    assert returns.track_names == ("any_name.h5/gt1l", "any_name.h5/gt1r") and returns.product == ("ATL08", "ATL08")
    first = returns.select(returns.track == 0)
    assert np.array_equal(first.height, 100.0 + np.arange(30))
    assert np.allclose(first.lat_deg, LAT0 + np.arange(30) * 0.00018, atol=3e-6)
    assert np.all(first.length == 20) and np.all(first.width == 11)
    assert np.isnan(first.canopy).all()
    assert np.all(np.diff(first.time_s) > 0)
    assert np.allclose(first.sigma, np.hypot(0.3, 2.0 / np.sqrt(100)))


def test_atl08__old_release_gives_100m_segments(tmp_path: Path) -> None:
    returns = read_granule(write_atl08(tmp_path / "a.h5", fine=False)).returns
    assert len(returns) == 12 and np.all(returns.length == 100)
    assert np.array_equal(returns.height[:6], 102.0 + 5 * np.arange(6))


def test_atl08__found_by_content_without_short_name(tmp_path: Path) -> None:
    assert read_granule(write_atl08(tmp_path / "GEDI.h5", short_name=False)).product == "ATL08"


def test_atl08__fill_values_are_counted_and_left_out(tmp_path: Path) -> None:
    heights = (100.0 + np.arange(30).reshape(6, 5)).astype(np.float32)
    heights[2, 1:4] = FILL
    granule = read_granule(write_atl08(tmp_path / "a.h5", **{"terrain/h_te_best_fit_20m": heights}))
    assert count(granule, "no ground height") == 6 and len(granule.returns) == 54
    assert granule.returns.height.max() < 200


def test_atl08__canopy_height_per_part(tmp_path: Path) -> None:
    canopy = np.full((6, 5), FILL)
    canopy[1, 2] = 18.5
    returns = read_granule(write_atl08(tmp_path / "a.h5", beams=("gt2r",), **{"canopy/h_canopy_20m": canopy})).returns
    assert returns.canopy[7] == 18.5 and np.isfinite(returns.canopy).sum() == 1


@pytest.mark.parametrize(
    ("field", "values", "rule"),
    [
        ("cloud_flag_atm", np.array([0, 3, 0, 1, 0, 0], np.int8), "cloud"),
        ("msw_flag", np.array([-1, 5, 0, 1, 0, 0], np.int8), "blowing snow"),
        ("segment_watermask", np.array([0, 1, 0, 0, 0, 0], np.int32), "water"),
        ("terrain/n_te_photons", np.array([99, 3, 99, 10, 50, 50], np.int32), "few ground photons"),
        ("dem_h", np.array([100, 400, FILL, 90, 90, 90], np.float32), "far from reference DEM"),
    ],
)
def test_atl08__each_rule_rejects_its_segment(tmp_path: Path, field: str, values: np.ndarray, rule: str) -> None:
    path = write_atl08(tmp_path / "a.h5", beams=("gt1r",), **{field: values})
    granule = read_granule(path)
    assert count(granule, rule) == 5 and len(granule.returns) == 25
    assert len(read_granule(path, rules=ALL).returns) == 30


def test_atl08__strict_drops_weak_beams_by_attribute_or_orientation(tmp_path: Path) -> None:
    for beam_type, strong in ((True, "gt1r"), (False, "gt1l")):  # sc_orient 0: the left beams are strong
        granule = read_granule(write_atl08(tmp_path / f"{beam_type}.h5", beam_type=beam_type), rules=STRICT)
        assert count(granule, "weak beam") == 30
        assert {granule.returns.track_names[t][-4:] for t in granule.returns.track} == {strong}


def test_atl08__missing_terrain_names_the_fields(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for beam in ("gt1l", "gt1r"):
            for field in ("h_te_best_fit", "h_te_best_fit_20m"):
                del file[f"{beam}/land_segments/terrain/{field}"]
    with pytest.raises(LidarError, match="h_te_best_fit"):
        read_granule(path)


def test_window__only_rows_inside_are_kept_and_counted(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5", beams=("gt1r",))
    granule = read_granule(path, (137.9, LAT0 + 0.0009, 138.1, LAT0 + 0.0020))
    assert np.array_equal(granule.returns.height, 100.0 + np.arange(5, 12))
    assert granule.n_read == 30 and count(granule, "outside the area") == 23 and granule.distance == 0


def test_window__across_the_180th_meridian() -> None:
    lon, lat = np.array([179.9, -179.9, 170.0]), np.zeros(3)
    inside, distance = inside_bounds(lon, lat, (179.5, -1.0, -179.5, 1.0))
    assert inside.tolist() == [True, True, False] and distance == 0
    _, away = inside_bounds(lon[2:], lat[2:], (171.0, -1.0, 172.0, 1.0))
    assert away == pytest.approx(111_320, rel=1e-3)
    assert row_range(np.zeros((4, 5), bool)) == slice(0, 0)


def test_unround_longitude__halves_the_rounding_error() -> None:
    lat = 36.0 + np.arange(400) * 0.00018
    lon = 137.6 + 0.14 * (lat - 36) + 0.02 * (lat - 36) ** 2
    stored = lon.astype(np.float32).astype(float)
    found = unround_longitude(stored, lat)
    assert np.array_equal(found.astype(np.float32), stored.astype(np.float32)) or np.abs(found - stored).max() < 8e-6
    assert np.sqrt(np.mean((found - lon) ** 2)) < 0.2 * np.sqrt(np.mean((stored - lon) ** 2))


def test_unround_longitude__is_the_same_for_any_window_and_beside_gaps() -> None:
    lat = 36.0 + np.arange(2000) * 0.00018
    lat = np.concatenate([lat[:700], lat[780:], lat[::-1] + 20])  # water without returns; back again elsewhere
    lon = 137.6 + 0.14 * (lat - 36) + 0.02 * (lat - 36) ** 2
    stored = lon.astype(np.float32).astype(float)
    whole = unround_longitude(stored, lat)
    assert np.sqrt(np.mean((whole - lon) ** 2)) < 0.2 * np.sqrt(np.mean((stored - lon) ** 2))
    for rows in (slice(0, 5), slice(650, 760), slice(1911, 1930)):
        assert np.array_equal(unround_longitude(stored, lat, rows)[rows], whole[rows])


def test_ground_sigma__floor_and_unknown() -> None:
    n = np.array([100.0, 100.0, np.nan])
    sigma = ground_sigma(3, np.array([0.01, 0.4, np.nan]), np.array([0.1, 3.0, np.nan]), n)
    assert sigma == pytest.approx([0.2, 0.5, 0.5])


@pytest.mark.parametrize(("version", "sigma"), [(1, 0.7), (2, 0.5)])
def test_gedi__both_versions(tmp_path: Path, version: int, sigma: float) -> None:
    granule = read_granule(write_gedi(tmp_path / "a.h5", version))
    returns = granule.returns
    assert granule.product == "GEDI_L2A" and len(returns) == 16
    assert np.array_equal(returns.height[:8], 200.0 + np.arange(8))
    assert np.all(returns.length == 25) and np.all(returns.width == 25)
    assert returns.canopy == pytest.approx(9.8)
    assert returns.sigma == pytest.approx(sigma)


def test_gedi__rules_count_in_order(tmp_path: Path) -> None:
    quality = np.ones(8, np.uint8)
    quality[:2] = 0
    degrade = np.zeros(8, np.uint8)
    degrade[1:3] = 8
    sensitivity = np.full(8, 0.95, np.float32)
    sensitivity[4] = 0.8
    dem = np.array([205, 205, 205, 205, 205, 600, -9999, -999999], np.float32)
    path = write_gedi(
        tmp_path / "a.h5",
        quality_flag=quality,
        degrade_flag=degrade,
        sensitivity=sensitivity,
        digital_elevation_model=dem,
    )
    granule = read_granule(path)
    assert {rule: n for rule, n in granule.rejected if n} == {
        "quality flag": 4, "degraded pointing": 2, "low sensitivity": 2, "far from reference DEM": 2
    }  # fmt: skip
    assert len(granule.returns) == 6
    assert len(read_granule(path, rules=ALL).returns) == 16


def test_read_lidar__joins_granules(tmp_path: Path) -> None:
    paths = [write_atl08(tmp_path / "a.h5"), write_gedi(tmp_path / "b.h5")]
    lidar = read_lidar(paths, (137.0, 34.0, 139.0, 36.0))
    assert len(lidar.returns) == 76 and lidar.n_read == 76 and lidar.rules == "standard"
    assert lidar.returns.track.max() == 3 and lidar.returns.product[2:] == ("GEDI_L2A", "GEDI_L2A")


def test_read_lidar__from_elsewhere_says_how_far(tmp_path: Path) -> None:
    with pytest.raises(LidarError, match=r"no usable returns: the nearest of 60 returns is \d+\.\d km away"):
        read_lidar([write_atl08(tmp_path / "a.h5")], (139.0, 35.0, 139.1, 35.1))


def test_read_lidar__all_rejected_says_why(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5", segment_watermask=np.ones(6, np.int32))
    with pytest.raises(LidarError, match="60 water"):
        read_lidar([path])
    with pytest.raises(LidarError, match="no lidar granule"):
        read_lidar([])


def test_files__missing_truncated_and_foreign(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="not found"):
        read_granule(tmp_path / "none.h5")
    whole = write_atl08(tmp_path / "a.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputFileError):
        read_granule(tmp_path / "cut.h5")
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(InputFileError):
        read_granule(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(LidarError, match="none of ATL03, ATL06, ATL08 and GEDI"):
        read_granule(tmp_path / "other.h5")


def add_algorithms(path: Path, heights: dict[int, float], n: int = 8) -> Path:
    """The group of all algorithms, each with its own ground elevation."""
    with h5py.File(path, "a") as file:
        for beam in ("BEAM0000", "BEAM1011"):
            g = file[beam].create_group("geolocation")
            for k, height in heights.items():
                g[f"elev_lowestmode_a{k}"] = np.full(n, height, np.float32)
                for field in ("lat_lowestmode", "lon_lowestmode"):
                    g[f"{field}_a{k}"] = file[beam][field][:]
                g[f"quality_flag_a{k}"] = np.full(n, k != 3, np.uint8)
                g[f"rh_a{k}"] = np.tile((np.arange(101) * 10).astype(np.int32), (n, 1))
    return path


def test_gedi__algorithm_of_choice(tmp_path: Path) -> None:
    path = add_algorithms(write_gedi(tmp_path / "a.h5"), {1: 201.0, 2: 202.0, 3: 203.0})
    returns = read_granule(path, rules=ALL, form=LidarFormat(algorithm=2)).returns
    assert np.all(returns.height == 202) and returns.canopy == pytest.approx(9.8)  # centimetres there
    assert count(read_granule(path, form=LidarFormat(algorithm=3)), "quality flag") == 16
    with pytest.raises(LidarError, match="geolocation/elev_lowestmode_a5"):
        read_granule(path, form=LidarFormat(algorithm=5))
    with pytest.raises(LidarError, match="for GEDI L2A only"):
        read_granule(write_atl08(tmp_path / "b.h5"), form=LidarFormat(algorithm=1))


def test_gedi__algorithms_that_disagree(tmp_path: Path) -> None:
    heights = np.full(8, 200.0, np.float32)
    heights[3:5] = 206.0
    agreeing = dict.fromkeys(range(1, 7), 200.0) | {5: 190.0, 6: 190.0}  # two of six are outvoted
    path = add_algorithms(write_gedi(tmp_path / "a.h5", elev_lowestmode=heights), agreeing)
    assert {r: n for r, n in read_granule(path).rejected if n} == {"ambiguous ground mode": 4}


def test_gedi__strict_keeps_power_beams_at_night(tmp_path: Path) -> None:
    sun, sure = np.array([-5, -5, -5, -5, 5, 5, -5, -5], np.float32), np.full(8, 0.98, np.float32)
    granule = read_granule(write_gedi(tmp_path / "a.h5", solar_elevation=sun, sensitivity=sure), rules=STRICT)
    assert count(granule, "weak beam") == 8 and count(granule, "daylight") == 2 and len(granule.returns) == 6


def test_atl08__fill_of_an_integer_is_no_count_of_photons(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5", beams=("gt1r",))
    with h5py.File(path, "a") as file:
        data = file["gt1r/land_segments/terrain/n_te_photons"]
        data[2] = 2147483647
        data.attrs["_FillValue"] = np.int32(2147483647)
    assert count(read_granule(path), "few ground photons") == 5


def test_release__of_a_granule(tmp_path: Path) -> None:
    for release in ("005", "006", "007"):
        path = write_atl08(tmp_path / f"ATL08_20240501101112_07152306_{release}_01.h5")
        with h5py.File(path) as file:
            assert release_of(file, path) == int(release)
    path = write_atl08(tmp_path / "subset.h5")
    with h5py.File(path, "a") as file:
        assert release_of(file, path) is None
        file.attrs["identifier_product_doi"] = "10.5067/ATLAS/ATL08.006"
        assert release_of(file, path) == 6
        file.require_group("METADATA/DatasetIdentification").attrs["VersionID"] = np.bytes_("007")
        assert release_of(file, path) == 7


def test_rule_set__limits_of_ones_own(tmp_path: Path) -> None:
    rules = rule_set({"base": "strict", "max_cloud_layers": 3, "min_sensitivity": None, "require_night": False})
    assert (rules.max_cloud_layers, rules.min_sensitivity, rules.require_night) == (3, None, False)
    assert rules.max_blowing_snow == STRICT.max_blowing_snow and rules.name.startswith("strict with max_cloud_layers 3")
    path = write_atl08(tmp_path / "a.h5", beams=("gt1r",), cloud_flag_atm=np.array([0, 3, 0, 1, 0, 0], np.int8))
    assert len(read_granule(path, rules=rule_set({"max_cloud_layers": 3})).returns) == 30
    assert rule_set({}) == STANDARD


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_clouds": 1}, r"unknown key 'lidar_rules.max_clouds'; known keys here: base, require_night"),
        ({"max_cloud_layers": "few"}, "'few' is not a number"),
        ({"require_night": 1}, "'1' is not true or false"),
        ({"max_cloud_layers": True}, "'True' is not a number"),
        ({"base": "lax"}, "unknown lidar rule set 'lax'"),
    ],
)
def test_rule_set__wrong_limits(limits: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        rule_set(limits)
    assert "\n" not in str(error.value)


def test_rule_set__by_name() -> None:
    assert rule_set("standard") is STANDARD
    with pytest.raises(ConfigError, match="strict"):
        rule_set("lenient")


def test_real__polar_photons_and_gedi_without_elevations(shared_data: Path) -> None:
    with pytest.raises(LidarError, match=r"no usable returns: of 40 returns .* left none \(40 no ground photons\)"):
        read_lidar([shared_data / "real/atl03_polar/ATL03_gt1l.h5"])
    with pytest.raises(LidarError, match="no usable returns"):
        read_granule(shared_data / "real/atl03_polar/ATL03_indexbegin_start_end_FVs.h5")
    (cut,) = (shared_data / "real/gedi_no_elevation").glob("*.h5")
    with pytest.raises(LidarError, match="elev_lowestmode"):
        read_granule(cut)


def test_real__gedi_v001_against_its_own_dem(shared_data: Path, tmp_path: Path) -> None:
    (archive,) = (shared_data / "real/gedi").glob("*.zip")
    with zipfile.ZipFile(archive) as z:
        (name,) = (n for n in z.namelist() if n.endswith(".h5"))
        z.extract(name, tmp_path)
    assert count(read_granule(tmp_path / name), "ambiguous ground mode") == 10
    granule = read_granule(tmp_path / name, rules=ALL)
    assert granule.product == "GEDI_L2A" and len(granule.returns) == granule.n_read == 301
    with h5py.File(tmp_path / name) as file:
        dem = np.concatenate([file[b]["digital_elevation_model"][:] for b in sorted(file) if b.startswith("BEAM")])
    assert np.median(granule.returns.height - dem) == pytest.approx(-1.94, abs=0.01)
    assert 0 < np.median(granule.returns.canopy) < 30


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("elev_lowestmode", np.float32(200.0), "/BEAM0000/elev_lowestmode is no list of numbers"),
        ("lat_lowestmode", np.full(8, b"35"), "/BEAM0000/lat_lowestmode is no list of numbers"),
        ("quality_flag", np.ones(1, np.uint8), "8 heights, but 1 values for the rule 'quality flag'"),
    ],
)
def test_gedi__a_field_of_another_kind_or_length_is_named(
    tmp_path: Path, field: str, values: np.ndarray, message: str
) -> None:
    with pytest.raises(InputFileError, match=message):
        read_granule(write_gedi(tmp_path / "a.h5", **{field: values}))


def test_atl08__an_empty_fill_value_is_none(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        file["gt1l/land_segments/terrain/n_te_photons"].attrs["_FillValue"] = np.array([], np.int32)
    assert len(read_granule(path).returns) == 60
