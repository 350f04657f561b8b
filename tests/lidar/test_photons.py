"""ATL03 photons to ground returns, alone and with the classes of ATL08."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from terrain3d.errors import InputFileError, LidarError
from terrain3d.lidar.granule import Granule
from terrain3d.lidar.passes import Pair, pair_photons
from terrain3d.lidar.photons import NO_GROUND, fit_grounds, quantiles
from terrain3d.lidar.read import read_granule, read_lidar
from terrain3d.lidar.rules import ALL, STRICT, rule_set

LAT0, LON0 = 35.0, 138.0
PER_SEGMENT = 50
SEGMENTS = 12
DEGREE = 111_200.0


def ground(along: np.ndarray) -> np.ndarray:
    return 400.0 + 0.3 * along


def write_pass(
    folder: Path, beams: tuple[str, ...] = ("gt1l", "gt1r"), canopy: bool = False, release: str = "006"
) -> tuple[Path, Path]:
    """ATL03 with 30 ground photons, 12 of canopy if asked for and 8 of background a segment, and ATL08 of the pass."""
    name = f"20240501101112_07152306_{release}_01.h5"
    paths = folder / f"ATL03_{name}", folder / f"ATL08_{name}"
    rng = np.random.default_rng(5)
    n = SEGMENTS * PER_SEGMENT
    owner = np.repeat(np.arange(SEGMENTS), PER_SEGMENT)
    kind = np.tile(np.repeat([1, 2, 0], [30, 12, 8]), SEGMENTS)
    if not canopy:
        kind[kind == 2] = 1
    inner = rng.uniform(0, 20, n)
    along = 20.0 * owner + inner
    height = ground(along) + rng.normal(0, 0.1, n)
    height[kind == 2] += rng.uniform(5, 15, n)[kind == 2]
    height[kind == 0] += rng.uniform(20, 90, n)[kind == 0]
    confidence = np.full((n, 5), -1, np.int8)
    confidence[:, 0] = np.where(kind == 0, 0, 4)
    middle = 20.0 * np.arange(SEGMENTS) + 10.0
    with h5py.File(paths[0], "w") as light, h5py.File(paths[1], "w") as land:
        for file, product in ((light, "ATL03"), (land, "ATL08")):
            file.attrs["short_name"] = np.bytes_(product)
        for beam in beams:
            for field, values in {
                "heights/h_ph": height.astype(np.float32),
                "heights/lat_ph": LAT0 + along / DEGREE,
                "heights/lon_ph": LON0 + 0.1 * along / DEGREE,
                "heights/dist_ph_along": inner.astype(np.float32),
                "heights/signal_conf_ph": confidence,
                "heights/quality_ph": np.zeros(n, np.int8),
                "geolocation/segment_id": 1000 + np.arange(SEGMENTS, dtype=np.int32),
                "geolocation/ph_index_beg": 1 + PER_SEGMENT * np.arange(SEGMENTS, dtype=np.int64),
                "geolocation/segment_ph_cnt": np.full(SEGMENTS, PER_SEGMENT, np.int32),
                "geolocation/reference_photon_lat": LAT0 + middle / DEGREE,
                "geolocation/reference_photon_lon": LON0 + 0.1 * middle / DEGREE,
                "geolocation/segment_length": np.full(SEGMENTS, 20.0),
                "geolocation/delta_time": 2e8 + middle / 7000,
                "geolocation/sigma_h": np.full(SEGMENTS, 0.15, np.float32),
                "geolocation/podppd_flag": np.zeros(SEGMENTS, np.int8),
                "geolocation/solar_elevation": np.full(SEGMENTS, 10.0, np.float32),
            }.items():
                light[f"{beam}/{field}"] = values
            light[beam].attrs["atlas_beam_type"] = np.bytes_("strong")
            g = land.create_group(f"{beam}/signal_photons")
            g["ph_segment_id"] = (1000 + owner)[kind > 0].astype(np.int32)
            g["classed_pc_indx"] = (np.tile(np.arange(PER_SEGMENT), SEGMENTS) + 1)[kind > 0].astype(np.int32)
            g["classed_pc_flag"] = kind[kind > 0].astype(np.int8)
            g = land.create_group(f"{beam}/land_segments")
            g["segment_id_beg"] = np.array([1000, 1005, 1010], np.int32)
            g["cloud_flag_atm"] = np.array([0, 4, 127], np.int8)
    return paths


def change(path: Path, field: str, values: np.ndarray) -> None:
    with h5py.File(path, "a") as file:
        del file[field]
        file[field] = values


def counts(granule: Granule) -> dict[str, int]:
    return {rule: n for rule, n in granule.rejected if n}


def truth(granule: Granule) -> np.ndarray:
    return ground((granule.returns.lat_deg - LAT0) * DEGREE)


def test_atl03__alone_a_return_a_segment_on_a_slope(tmp_path: Path) -> None:
    granule = read_granule(write_pass(tmp_path)[0])
    returns = granule.returns
    assert granule.product == "ATL03" and granule.n_read == len(returns) == 2 * SEGMENTS
    assert np.abs(returns.height - truth(granule)).max() < 0.1  # on a slope of 30 %, so place and height fit
    assert returns.length == pytest.approx(20.0) and returns.width == pytest.approx(11.0)
    assert returns.sigma == pytest.approx(0.2)  # 0.1 m over the root of 42, and 0.15 m geolocation: the floor
    assert np.isnan(returns.canopy).all() and set(returns.product) == {"ATL03"}
    assert np.all(np.diff(returns.time_s[returns.track == 0]) > 0)


def test_atl03__returns_do_not_depend_on_what_else_is_read(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path)
    whole = read_granule(path).returns
    south = LAT0 + 70.0 / DEGREE  # all but the first segments
    some = read_granule(path, (LON0 - 1, south, LON0 + 1, LAT0 + 1)).returns
    here = np.isin(whole.time_s, some.time_s)
    assert 0 < len(some) < len(whole) and here.sum() == len(some)
    for name in ("lon_deg", "lat_deg", "height", "sigma", "length", "time_s"):
        assert np.array_equal(getattr(some, name), getattr(whole, name)[here]), name


def test_atl03__canopy_without_classes_is_more_than_one_surface(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1l",), canopy=True)
    granule = read_granule(path)
    assert counts(granule) == {"more than one surface": SEGMENTS - len(granule.returns)} and len(granule.returns) <= 2
    assert len(read_granule(path, rules=ALL).returns) == SEGMENTS


def test_atl03__classes_of_atl08_find_the_ground_and_the_canopy(tmp_path: Path) -> None:
    photons, land = write_pass(tmp_path, ("gt1l",), canopy=True)
    granule = read_granule(photons, joined=Pair(land, frozenset({"gt1l"})))
    assert counts(granule) == {"cloud": 5}  # of the second 100 m; 127 is not computed
    assert len(granule.returns) == SEGMENTS - 5
    assert np.abs(granule.returns.height - truth(granule)).max() < 0.1
    assert np.all((granule.returns.canopy > 9) & (granule.returns.canopy < 18))


def test_read_lidar__a_pair_is_one_source(tmp_path: Path) -> None:
    photons, land = write_pass(tmp_path, ("gt1l",), canopy=True)
    assert pair_photons([land, photons]) == {photons: Pair(land, frozenset({"gt1l"}))}
    lidar = read_lidar([land, photons])
    assert [g.product for g in lidar.granules] == ["ATL03"] and len(lidar.returns) == SEGMENTS - 5
    assert all(n.endswith("gt1l") for n in lidar.returns.track_names)
    other = photons.rename(tmp_path / "ATL03_20240502101112_07162306_006_01.h5")
    assert pair_photons([land, other]) == {}


def test_read_lidar__beams_that_only_atl08_has(tmp_path: Path) -> None:
    photons, land = write_pass(tmp_path)
    with h5py.File(photons, "a") as file:
        del file["gt1l"]
    with h5py.File(land, "a") as file:
        for beam in ("gt1l", "gt1r"):
            g = file[f"{beam}/land_segments"]
            g["latitude"], g["longitude"] = LAT0 + np.arange(3) * 0.0009, np.full(3, LON0)
            g["delta_time"], g["terrain/h_te_best_fit"] = np.arange(3.0), np.full(3, 400, np.float32)
    lidar = read_lidar([photons, land], rules=ALL)
    assert [g.product for g in lidar.granules] == ["ATL03", "ATL08"]
    assert [n.split("_", 1)[0] + n[-5:] for n in lidar.returns.track_names] == ["ATL03/gt1r", "ATL08/gt1l"]


def test_read_lidar__atl08_without_classes_is_no_pair(tmp_path: Path) -> None:
    photons, land = write_pass(tmp_path, ("gt1l",))
    with h5py.File(land, "a") as file:
        del file["gt1l/signal_photons"]
    assert pair_photons([photons, land]) == {}


def test_atl03__only_segments_inside_are_read(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1r",))
    south, north = LAT0 + 60 / DEGREE, LAT0 + 140 / DEGREE
    granule = read_granule(path, (LON0 - 1, south, LON0 + 1, north))
    assert len(granule.returns) == 4 and counts(granule) == {"outside the area": 8} and granule.distance == 0
    away = read_granule(path, (LON0 - 1, LAT0 + 1, LON0 + 1, LAT0 + 2))
    assert not len(away.returns) and away.distance == pytest.approx(111_320 - 230, rel=1e-2)


def test_atl03__gaps_between_wanted_segments(tmp_path: Path) -> None:
    """Segments without photons, and ones outside, lie between those that are read."""
    path, _ = write_pass(tmp_path, ("gt1r",))
    begin = 1 + PER_SEGMENT * np.arange(SEGMENTS, dtype=np.int64)
    count = np.full(SEGMENTS, PER_SEGMENT, np.int32)
    begin[3], count[3] = 0, 0
    change(path, "gt1r/geolocation/ph_index_beg", begin)
    change(path, "gt1r/geolocation/segment_ph_cnt", count)
    lat = LAT0 + (20.0 * np.arange(SEGMENTS) + 10.0) / DEGREE
    lat[7] = LAT0 + 5
    change(path, "gt1r/geolocation/reference_photon_lat", lat)
    granule = read_granule(path, (LON0 - 1, LAT0 - 1, LON0 + 1, LAT0 + 1))
    assert granule.n_read == SEGMENTS - 1 and len(granule.returns) == SEGMENTS - 2
    assert np.abs(granule.returns.height - truth(granule)).max() < 0.1


def test_atl03__index_that_does_not_fit(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1r",))
    change(path, "gt1r/geolocation/segment_ph_cnt", np.full(SEGMENTS, PER_SEGMENT + 1, np.int32))
    with pytest.raises(InputFileError, match="index of photons does not fit"):
        read_granule(path)


def test_atl03__rules_of_photons(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1r",))
    confidence = np.full((SEGMENTS * PER_SEGMENT, 5), -1, np.int8)
    confidence[:, 0] = np.where(np.arange(SEGMENTS * PER_SEGMENT) < 6 * PER_SEGMENT, 3, 1)
    change(path, "gt1r/heights/signal_conf_ph", confidence)
    # background has the confidence of the rest now, so the fits differ; a third of the segments is left at least
    assert counts(read_granule(path, rules=rule_set({"max_photon_spread": None})))[NO_GROUND] == 6
    assert counts(read_granule(path, rules=STRICT))[NO_GROUND] == SEGMENTS
    change(path, "gt1r/heights/quality_ph", np.full(SEGMENTS * PER_SEGMENT, 1, np.int8))
    assert counts(read_granule(path))[NO_GROUND] == SEGMENTS
    assert counts(read_granule(path, rules=ALL))[NO_GROUND] == 6
    change(path, "gt1r/heights/quality_ph", np.full(SEGMENTS * PER_SEGMENT, 3, np.int8))
    assert counts(read_granule(path, rules=ALL))[NO_GROUND] == SEGMENTS


def test_atl03__night_and_pointing(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1r",))
    assert counts(read_granule(path, rules=rule_set({"require_night": True}))) == {"daylight": SEGMENTS}
    change(path, "gt1r/geolocation/podppd_flag", np.r_[np.ones(2, np.int8), np.zeros(SEGMENTS - 2, np.int8)])
    assert counts(read_granule(path)) == {"degraded pointing": 2}


def test_atl03__without_land_photons(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path)
    for beam in ("gt1l", "gt1r"):
        change(path, f"{beam}/heights/signal_conf_ph", np.full((SEGMENTS * PER_SEGMENT, 5), -1, np.int8))
    with pytest.raises(LidarError, match=r"no usable returns: .* \(24 no ground photons\).* ATL08 granule"):
        read_lidar([path])


def test_atl03__missing_fields_are_named(tmp_path: Path) -> None:
    path, _ = write_pass(tmp_path, ("gt1r",))
    with h5py.File(path, "a") as file:
        del file["gt1r/geolocation/ph_index_beg"]
    with pytest.raises(LidarError, match="geolocation/ph_index_beg"):
        read_granule(path)


def test_frame__of_the_release(tmp_path: Path) -> None:
    assert read_granule(write_pass(tmp_path)[0]).frame.text == "ITRF2014 at the time of each return, tide-free"
    assert read_granule(write_pass(tmp_path, release="007")[0]).frame.name == "ITRF2020"
    unnamed = write_pass(tmp_path)[0].rename(tmp_path / "photons.h5")
    assert "not stated" in read_granule(unnamed).frame.text


def test_fit_grounds__clips_what_is_off_the_line() -> None:
    rng = np.random.default_rng(2)
    along = np.tile(np.linspace(0, 20, 40), 3)
    height = 10 + 0.5 * along + rng.normal(0, 0.1, 120)
    height[40:52] += 8.0
    fit = fit_grounds(along, height, np.array([0, 40, 80]), np.array([40, 80, 82]))
    assert fit.height[:2] == pytest.approx(10 + 0.5 * fit.along[:2], abs=0.06)
    assert fit.used[1] <= 28 and fit.share[1] == pytest.approx(fit.used[1] / 40)
    assert np.isnan(fit.height[2]) and fit.used[2] == 0  # two photons are none
    assert fit.sigma[0] == pytest.approx(0.1 / np.sqrt(40), rel=0.3)


def test_quantiles__of_runs() -> None:
    values = np.arange(10.0)
    assert np.array_equal(quantiles(values, np.array([0, 5, 5]), np.array([5, 5, 10]), 0.5), [2, np.nan, 7], True)
