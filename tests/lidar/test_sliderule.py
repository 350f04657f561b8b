"""SlideRule's photons and GEDI footprints, and its files of several releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from terrain3d.errors import FrameError
from terrain3d.info import describe
from terrain3d.lidar.passes import Pair
from terrain3d.lidar.read import read_granule, read_lidar
from terrain3d.lidar.rules import ALL, STRICT, rule_set
from tests.lidar.test_photons import LAT0, SEGMENTS, counts, truth, write_pass
from tests.lidar.test_table import sliderule, write_parquet

START_NS = 1_714_521_600 * 10**9  # 2024-05-01
START_S = (np.datetime64("2024-05-01") - np.datetime64("2018-01-01")) / np.timedelta64(1, "s")


def photons(folder: Path, *without: str, canopy: bool = True, legacy: bool = False, **changes: Any) -> Path:
    """The photons of an ATL03 granule as ``atl03x`` gives them, or as ``atl03sp`` did, in no order."""
    with h5py.File(write_pass(folder, ("gt1l",), canopy=canopy)[0]) as file:
        beam = file["gt1l"]
        height, lat, lon, inner = (beam[f"heights/{n}"][:] for n in ("h_ph", "lat_ph", "lon_ph", "dist_ph_along"))
        confidence = beam["heights/signal_conf_ph"][:, 0]
    n = len(height)
    owner = np.repeat(np.arange(SEGMENTS), n // SEGMENTS)
    kind = np.tile(np.repeat([1, 2, 0], [30, 12, 8]), SEGMENTS) if canopy else np.where(confidence > 0, 1, 0)
    along = 1e6 + 20.0 * owner + inner
    columns: dict[str, Any] = {
        "time_ns": START_NS + np.arange(n) * 1000, "latitude": lat, "longitude": lon, "x_atc": along,
        "height": height, "atl03_cnf": confidence, "quality_ph": np.zeros(n, np.int8),
        "atl08_class": kind.astype(np.uint8), "solar_elevation": np.full(n, 5, np.float32),
        "spot": np.full(n, 2, np.uint8), "cycle": np.full(n, 23, np.uint8), "rgt": np.full(n, 715, np.uint16),
        "gt": np.full(n, 10, np.uint8),
    }  # fmt: skip
    if legacy:
        middle = 1e6 + 40.0 * (owner // 2) + 20.0
        del columns["gt"], columns["time_ns"]
        times = (START_NS + np.arange(n) * 1000).astype("datetime64[ns]")
        columns |= {"x_atc": along - middle, "segment_dist": middle, "time": times}
        columns |= {"track": np.ones(n, np.uint8), "pair": np.zeros(n, np.uint8)}
    mixed = np.random.default_rng(3).permutation(n)
    columns = {k: v[mixed] for k, v in (columns | changes).items() if k not in without}
    return write_parquet(folder / "photons.parquet", columns)


@pytest.mark.parametrize("legacy", [False, True])
def test_photons__give_what_the_granule_gives(tmp_path: Path, legacy: bool) -> None:
    granule = read_granule(photons(tmp_path, legacy=legacy))
    light, land = write_pass(tmp_path, ("gt1l",), canopy=True)
    other = read_granule(light, rules=ALL, joined=Pair(land, frozenset({"gt1l"})))
    assert granule.product == "ATL03" and granule.n_read == len(granule.returns) == SEGMENTS
    for name in ("lon_deg", "lat_deg", "height", "canopy", "length", "width"):
        assert np.allclose(getattr(granule.returns, name), getattr(other.returns, name), rtol=0, atol=1e-6), name
    assert np.abs(granule.returns.height - truth(granule)).max() < 0.1
    beam = "track1-pair0" if legacy else "gt10"
    assert granule.returns.track_names == (f"photons.parquet/rgt715-cycle23-{beam}",)
    assert np.all((granule.returns.time_s >= START_S) & (granule.returns.time_s < START_S + 1))
    assert granule.frame.text == "ITRF2014 at the time of each return, tide-free (not stated by the file)"


def test_photons__without_classes_are_those_of_confidence(tmp_path: Path) -> None:
    open_ground = read_granule(photons(tmp_path, "atl08_class", canopy=False))
    assert len(open_ground.returns) == SEGMENTS and np.isnan(open_ground.returns.canopy).all()
    trees = read_granule(photons(tmp_path, "atl08_class"))
    assert counts(trees) == {"more than one surface": SEGMENTS - len(trees.returns)} and len(trees.returns) <= 2


def test_photons__rules_and_window(tmp_path: Path) -> None:
    path = photons(tmp_path)
    assert counts(read_granule(path, rules=rule_set({"require_night": True}))) == {"daylight": SEGMENTS}
    assert counts(read_granule(path, rules=rule_set({"reject_weak_beams": True}))) == {"weak beam": SEGMENTS}
    half = read_granule(path, (137.9, LAT0 + 120.5 / 111_200, 138.1, 36.0))
    assert len(half.returns) == 6 and half.n_read in (12, 13) and half.distance == 0
    assert counts(half)["outside the area"] == half.n_read - 6
    away = read_granule(path, (0.0, 0.0, 1.0, 1.0))
    assert not len(away.returns) and away.distance > 1e6 and away.n_read == SEGMENTS
    assert ("product", "ATL03") in describe(path).facts


def gedi(path: Path, **changes: Any) -> Path:
    n = 6
    columns = {
        "latitude": 35 + np.arange(n) * 4e-4, "longitude": 138 + np.arange(n) * 3e-4,
        "elevation_lm": (200 + np.arange(n)).astype(np.float32),
        "elevation_hr": (212 + np.arange(n)).astype(np.float32), "sensitivity": np.full(n, 0.97, np.float32),
        "solar_elevation": np.array([-5, -5, -5, -5, 5, 5], np.float32),
        "flags": np.array([0x82, 0x82, 0x83, 0x80, 0x02, 0x82], np.uint8), "beam": np.array([0, 11] * 3, np.uint8),
        "orbit": np.full(n, 1964, np.uint32), "track": np.full(n, 5337, np.uint16),
        "time_ns": START_NS + np.arange(n) * 8_270_000,
    }  # fmt: skip
    return write_parquet(path, columns | changes)


def test_gedi__footprints_flags_and_beams(tmp_path: Path) -> None:
    granule = read_granule(gedi(tmp_path / "a.parquet"))
    assert granule.product == "GEDI_L2A" and granule.n_read == 6
    assert counts(granule) == {"quality flag": 1, "surface flag": 1, "degraded pointing": 1}
    assert granule.returns.height.tolist() == [200, 201, 205] and np.all(granule.returns.canopy == 12)
    assert np.all(granule.returns.length == 25) and np.all(granule.returns.sigma == 0.5)
    assert granule.returns.track_names == ("a.parquet/orbit1964-beam0", "a.parquet/orbit1964-beam11")
    assert granule.returns.time_s[0] == START_S and "not stated" in granule.frame.text
    strict = read_granule(gedi(tmp_path / "a.parquet", flags=np.full(6, 0x82, np.uint8)), rules=STRICT)
    assert counts(strict) == {"weak beam": 3, "daylight": 1}
    lidar = read_lidar([tmp_path / "a.parquet"], rules=ALL)
    assert len(lidar.returns) == 6 and set(lidar.returns.product) == {"GEDI_L2A"}


def test_gedi__fill_values_are_no_heights(tmp_path: Path) -> None:
    height = np.array([200, -9999, 3.4e38, np.nan, 204, 205], np.float32)
    granule = read_granule(gedi(tmp_path / "a.parquet", elevation_lm=height), rules=ALL)
    assert counts(granule) == {"no ground height": 3}


def test_segments__request_inside_the_metadata(tmp_path: Path) -> None:
    asked = {"server": {"version": "v5.4"}, "request": {"parms": {"len": 25.0, "atl08_class": ["atl08_ground"]}}}
    path = sliderule(tmp_path / "a.parquet", json.dumps(asked))
    assert np.all(read_granule(path, rules=ALL).returns.length == 25)


def test_segments__datum_of_the_request_is_heeded(tmp_path: Path) -> None:
    path = sliderule(tmp_path / "a.parquet", json.dumps({"parms": {"datum": "EGM08", "len": 40}}))
    with pytest.raises(FrameError, match="heights over EGM08"):
        read_granule(path)
    path = sliderule(tmp_path / "b.parquet", json.dumps({"parms": {"datum": "ITRF2014", "len": 40}}))
    assert len(read_granule(path, rules=ALL).returns) == 4


def test_segments__phoreal_of_the_older_endpoint(tmp_path: Path) -> None:
    columns = {"longitude": [5.0, 5.0], "latitude": [45.0, 45.001], "h_te_median": [10.0, 11.0],
               "gnd_ph_count": [40, 3], "veg_ph_count": [9, 9], "h_canopy": [5.0, 5.0], "snowcover": [1, 2],
               "gt": [10, 10], "rgt": [1, 1], "cycle": [2, 2]}  # fmt: skip
    granule = read_granule(write_parquet(tmp_path / "a.parquet", columns))
    assert granule.product == "ATL08-SR" and counts(granule) == {"few ground photons": 1}
