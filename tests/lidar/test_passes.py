"""Granules of one pass: which ATL08 has the classes of which photons, and shots that several granules hold."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from terrain3d.lidar.identity import pass_of
from terrain3d.lidar.passes import REPEATED, Pair, pair_photons
from terrain3d.lidar.read import read_lidar
from terrain3d.lidar.rules import ALL
from tests.lidar.test_atl06 import write_atl06
from tests.lidar.test_photons import SEGMENTS, change, write_pass
from tests.lidar.test_read import write_atl08, write_gedi
from tests.lidar.test_table import sliderule

BEAM = frozenset({"gt1l"})


def cut(path: Path, new: Path, first: int, last: int) -> Path:
    """The photons or classes of the segments from the first on to before the last, as a service cuts them out."""
    with h5py.File(path) as file, h5py.File(new, "w") as out:
        out.attrs.update(file.attrs)
        beam = file["gt1l"]
        if "heights" in beam:
            segment = np.repeat(beam["geolocation/segment_id"][:], beam["geolocation/segment_ph_cnt"][:])
        else:
            segment = beam["signal_photons/ph_segment_id"][:]
        inside = (segment >= first) & (segment < last)

        def copy(name: str, data: object) -> None:
            if not isinstance(data, h5py.Dataset):
                return
            values = data[:]
            if len(values) == len(segment):
                values = values[inside]
            elif len(values) == SEGMENTS:
                rows = slice(first - 1000, last - 1000)
                values = values[rows] - (50 * (first - 1000) if name.endswith("ph_index_beg") else 0)
            out[f"gt1l/{name}"] = values

        beam.visititems(copy)
    return new


def test_pairs__parts_of_a_pass_find_their_classes(tmp_path: Path) -> None:
    light, land = write_pass(tmp_path, ("gt1l",), canopy=True)
    parts = [cut(light, tmp_path / f"{i}_{light.name}", 1000 + 6 * i, 1006 + 6 * i) for i in range(2)]
    classes = [cut(land, tmp_path / f"{i}_{land.name}", 1000 + 6 * i, 1006 + 6 * i) for i in range(2)]
    pairs = pair_photons([*parts, *reversed(classes)])
    assert pairs == {part: Pair(found, BEAM) for part, found in zip(parts, classes, strict=True)}
    whole, cloudless = read_lidar([light, land], rules=ALL), read_lidar([*parts, *classes], rules=ALL)
    assert np.allclose(whole.returns.height, cloudless.returns.height) and len(whole.returns) == SEGMENTS
    assert np.allclose(whole.returns.canopy, cloudless.returns.canopy)


def test_pairs__photons_beyond_the_classes_are_no_ground(tmp_path: Path) -> None:
    light, land = write_pass(tmp_path, ("gt1l",), canopy=True)
    part = cut(land, tmp_path / f"part_{land.name}", 1004, 1030)
    lidar = read_lidar([light, part], rules=ALL)
    assert len(lidar.returns) == SEGMENTS - 4 and dict(lidar.rejected)["no ground photons"] == 4


def test_pass__region_of_the_name_where_the_file_is_silent(tmp_path: Path) -> None:
    light, _ = write_pass(tmp_path, ("gt1l",))
    with h5py.File(light, "a") as file:
        assert pass_of(file, light) == (715, 23, 6)
        file["orbit_info/rgt"], file["orbit_info/cycle_number"] = np.array([715]), np.array([23])
        assert pass_of(file, light) == (715, 23, 6)
        file["ancillary_data/start_region"] = np.array([7])
        assert pass_of(file, light) == (715, 23, 7)
    light, land = write_pass(tmp_path, ("gt1l",))
    with h5py.File(land, "a") as file:
        file["orbit_info/rgt"], file["orbit_info/cycle_number"] = np.array([715]), np.array([23])
    renamed = land.rename(tmp_path / "classes.h5")
    assert pair_photons([light, renamed]) == {light: Pair(renamed, BEAM)}


@pytest.mark.parametrize("write", [write_atl08, write_gedi])
def test_repeats__a_granule_given_twice_counts_once(tmp_path: Path, write: object) -> None:
    first, second = write(tmp_path / "a.h5"), write(tmp_path / "b.h5")  # type: ignore[operator]
    once, twice = read_lidar([first]), read_lidar([first, second])
    assert np.array_equal(once.returns.height, twice.returns.height) and twice.n_read == 2 * once.n_read
    assert twice.warnings == (f"{len(once.returns)} returns of b.h5 are left out: a.h5 has returns of the same shots",)
    assert dict(twice.rejected)[REPEATED] == len(once.returns)


def test_repeats__beams_at_one_moment_in_two_places_stay(tmp_path: Path) -> None:
    first = write_gedi(tmp_path / "a.h5")
    second = write_gedi(tmp_path / "b.h5", lat_lowestmode=-35.0 + np.arange(8) * 0.0004)
    assert len(read_lidar([first, second]).returns) == 32


def test_repeats__of_two_products_the_finer_is_used(tmp_path: Path) -> None:
    land = write_atl08(tmp_path / "land.h5", beams=("gt2l",), n=4)  # 20 parts, 2.86 ms apart
    lat, time = 35.0 + np.arange(8) * 0.00036, 2e8 - 0.0057 + np.arange(8) * 0.0057
    ice = write_atl06(tmp_path / "ice.h5", latitude=lat, longitude=np.full(8, 138.0), delta_time=time)
    lidar = read_lidar([ice, land], rules=ALL)
    assert [g.product for g in lidar.granules] == ["ATL06", "ATL08"]
    assert [len(g.returns) for g in lidar.granules] == [8, 20]  # the other beam of ATL06
    assert {lidar.returns.track_names[t] for t in lidar.returns.track} == {"ice.h5/gt2r", "land.h5/gt2l"}


def test_repeats__a_beam_of_sliderule_is_that_of_the_granule(tmp_path: Path) -> None:
    ice = write_atl06(tmp_path / "ice.h5", latitude=45 + np.arange(8) * 2e-4, longitude=np.full(8, 5.0),
                      delta_time=63_072_000 + np.arange(8) * 0.0029)  # fmt: skip
    times = np.datetime64("2020-01-01", "ns") + (np.arange(4) * 2_900_000).astype("timedelta64[ns]")
    table = sliderule(tmp_path / "a.parquet", "", gt=[30, 30, 30, 40], longitude=[5.0] * 4, time=times,
                      latitude=[45.0, 45.0002, 45.0004, 45.0006])  # fmt: skip
    lidar = read_lidar([ice, table], rules=ALL)
    assert [len(g.returns) for g in lidar.granules] == [6, 4]  # 3 of 8 of each beam are further off


def test_pairs__classes_that_begin_later_do_not_shift(tmp_path: Path) -> None:
    """Numbers of photons count from each segment, so photons missing from ATL08 move nothing."""
    light, land = write_pass(tmp_path, ("gt1l",))
    with h5py.File(land) as file:
        label = file["gt1l/signal_photons/classed_pc_flag"][:]
    label[::3] = 0
    change(land, "gt1l/signal_photons/classed_pc_flag", label)
    lidar = read_lidar([light, land], rules=ALL)
    assert len(lidar.returns) == SEGMENTS and np.all(np.diff(lidar.returns.height) > 3)
