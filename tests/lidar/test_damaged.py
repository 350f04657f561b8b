"""Granules of which a part is damaged or missing: the rest is used, and what is left out is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from terrain3d.errors import InputFileError, LidarError
from terrain3d.info import describe
from terrain3d.lidar import probe
from terrain3d.lidar.granule import DAMAGED
from terrain3d.lidar.read import read_granule, read_lidar
from terrain3d.lidar.rules import ALL, rule_set
from tests.lidar.test_atl06 import write_atl06
from tests.lidar.test_photons import write_pass
from tests.lidar.test_read import write_atl08, write_gedi


def atl03(folder: Path) -> Path:
    return write_pass(folder)[0]


# what makes a granule of two beams, the beams, a field of theirs, and the returns of one
GRANULES: dict[str, tuple[Callable[[Path], Path], tuple[str, str], str, int]] = {
    "ATL03": (atl03, ("gt1l", "gt1r"), "heights/h_ph", 12),
    "ATL06": (lambda f: write_atl06(f / "a.h5"), ("gt2l", "gt2r"), "land_ice_segments/h_li", 8),
    "ATL08": (
        lambda f: write_atl08(f / "a.h5", fine=False),
        ("gt1l", "gt1r"),
        "land_segments/terrain/h_te_best_fit",
        6,
    ),
    "GEDI_L2A": (lambda f: write_gedi(f / "a.h5"), ("BEAM0000", "BEAM1011"), "elev_lowestmode", 8),
}


def text(file: h5py.File, field: str) -> None:
    n = len(file[field])
    del file[field]
    file[field] = np.full(n, b"high")


def absurd(file: h5py.File, field: str) -> None:
    del file[field]
    file.create_dataset(field, (2**36,), "f4", chunks=(2**16,))


def scalar(file: h5py.File, field: str) -> None:
    del file[field]
    file[field] = np.float32(1.0)


def absent(file: h5py.File, field: str) -> None:
    del file[field]


@pytest.mark.parametrize("product", GRANULES)
@pytest.mark.parametrize("damage", [text, absurd, scalar, absent])
def test_beam__a_damaged_one_is_left_out_and_said(
    tmp_path: Path, product: str, damage: Callable[[h5py.File, str], None]
) -> None:
    make, (first, second), field, n = GRANULES[product]
    path = make(tmp_path)
    with h5py.File(path, "a") as file:
        damage(file, f"{first}/{field}")
    granule = read_granule(path, rules=ALL)
    assert granule.product == product and len(granule.returns) == n
    assert {granule.returns.track_names[t] for t in granule.returns.track} == {f"{path.name}/{second}"}
    (warning,) = granule.warnings
    assert warning.startswith(f"{path.name}/{first} is left out (") and field.rpartition("/")[2] in warning
    assert granule.n_read == len(granule.returns) + dict(granule.rejected)[DAMAGED]
    assert read_lidar([path], rules=ALL).warnings == granule.warnings
    assert ("warning", warning) in describe(path).facts
    with h5py.File(path, "a") as file:
        damage(file, f"{second}/{field}")
    with pytest.raises(LidarError if damage is absent else InputFileError, match=field.rpartition("/")[2]) as error:
        read_granule(path, rules=ALL)
    assert error.value.where == str(path) and "\n" not in str(error.value)


def test_atl08__fields_of_20_m_are_enough(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for beam in ("gt1l", "gt1r"):
            for field in ("latitude", "longitude", "terrain/h_te_best_fit", "canopy/h_canopy"):
                del file[f"{beam}/land_segments/{field}"]
    assert len(read_granule(path).returns) == 60


def test_beam__the_returns_of_a_damaged_one_are_counted(tmp_path: Path) -> None:
    path = write_gedi(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        text(file, "BEAM0000/quality_flag")
    granule = read_granule(path)
    assert dict(granule.rejected)[DAMAGED] == 8 and granule.n_read == 16 and len(granule.returns) == 8


def test_beam__whose_header_is_overwritten(tmp_path: Path) -> None:
    path = write_atl08(tmp_path / "a.h5")
    with h5py.File(path) as file:
        place = h5py.h5o.get_info(file["gt1r"].id).addr
    damaged = bytearray(path.read_bytes())
    damaged[place : place + 16] = bytes(16)
    path.write_bytes(damaged)
    granule = read_granule(path)
    assert len(granule.returns) == 30 and granule.warnings[0].startswith("a.h5/gt1r is left out (")


@pytest.mark.slow
def test_texts__a_damaged_heap_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free space of size 0 in the heap: libhdf5 2.0 looks for the text without end."""
    path = write_gedi(tmp_path / "a.h5", 1)  # its short_name is of variable length
    assert len(read_granule(path).returns) == 16
    whole = path.read_bytes()
    heap = whole.index(b"GCOL")
    text = whole.index(b"GEDI_L2A", heap)
    path.write_bytes(whole[: text - 16] + bytes(16) + whole[text:])
    monkeypatch.setattr(probe, "LIMIT_S", 0.3)
    for read in (read_granule, lambda p: read_lidar([p])):
        with pytest.raises(InputFileError, match=r"texts are damaged.*download the file again"):
            read(path)


def test_beam__photon_fields_of_another_length(tmp_path: Path) -> None:
    path = atl03(tmp_path)
    with h5py.File(path, "a") as file:
        values = file["gt1l/heights/lat_ph"][:-3]
        del file["gt1l/heights/lat_ph"]
        file["gt1l/heights/lat_ph"] = values
    assert "lat_ph has the shape (597,), of 600 photons" in read_granule(path).warnings[0]


def test_beam__classes_that_cannot_be_read(tmp_path: Path) -> None:
    photons, land = write_pass(tmp_path)
    with h5py.File(land, "a") as file:
        text(file, "gt1l/signal_photons/ph_segment_id")
    lidar = read_lidar([photons, land], rules=ALL)
    assert [lidar.returns.track_names[t][-4:] for t in np.unique(lidar.returns.track)] == ["gt1r"]
    assert len(lidar.warnings) == 1 and "gt1l" in lidar.warnings[0]


def test_beams__some_without_returns(tmp_path: Path) -> None:
    path = write_gedi(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for name in list(file["BEAM0000"]):
            shape = file[f"BEAM0000/{name}"].shape
            del file[f"BEAM0000/{name}"]
            file[f"BEAM0000/{name}"] = np.zeros((0, *shape[1:]), np.float32)
    granule = read_granule(path)
    assert len(granule.returns) == 8 and granule.n_read == 8 and not granule.warnings


@pytest.mark.parametrize("product", GRANULES)
def test_window__empty_for_every_product(tmp_path: Path, product: str) -> None:
    granule = read_granule(GRANULES[product][0](tmp_path), (0.0, 0.0, 0.1, 0.1))
    assert not len(granule.returns) and granule.n_read == 2 * GRANULES[product][3] and granule.distance > 1e6
    assert sum(n for _, n in granule.rejected) == granule.n_read


def test_atl03__across_the_180th_meridian_in_the_south(tmp_path: Path) -> None:
    path = atl03(tmp_path)
    with h5py.File(path, "a") as file:
        for beam in ("gt1l", "gt1r"):
            for field in ("heights/lat_ph", "geolocation/reference_photon_lat"):
                file[f"{beam}/{field}"][:] *= -1
            for field in ("heights/lon_ph", "geolocation/reference_photon_lon"):
                lon = file[f"{beam}/{field}"][:] - 138.0 + 180.0 - 0.000105  # 10 m before the meridian at first
                file[f"{beam}/{field}"][:] = (lon + 180.0) % 360.0 - 180.0
    returns = read_granule(path, (179.9, -36.0, -179.9, -34.0), rules=ALL).returns
    assert len(returns) == 24 and np.all(np.abs(returns.lon_deg) > 179.9) and np.all(returns.lat_deg < -34.9)
    east = returns.lon_deg % 360.0 - 180.0 + 0.000105
    assert np.abs(east - 0.1 * (-35.0 - returns.lat_deg)).max() < 2e-6  # on the track, also where a segment crosses
    assert np.any(returns.lon_deg > 0) and np.any(returns.lon_deg < 0)


def test_rules__that_cannot_be_asked_are_said(tmp_path: Path) -> None:
    path = write_gedi(tmp_path / "a.h5")
    full = read_granule(path, rules=rule_set({"require_night": True}))
    assert full.unasked == ("daylight", "ambiguous ground mode")
    with h5py.File(path, "a") as file:
        for beam in ("BEAM0000", "BEAM1011"):
            del file[f"{beam}/quality_flag"], file[f"{beam}/sensitivity"], file[f"{beam}/digital_elevation_model"]
    missing = ("quality flag", "low sensitivity", "ambiguous ground mode", "far from reference DEM")
    assert read_granule(path).unasked == missing and read_granule(path, rules=ALL).unasked == ()
    assert read_lidar([path]).unasked == {"GEDI_L2A": missing}
    assert ("not asked", f"{', '.join(missing)} (the file lacks the fields)") in describe(path).facts
    light, land = write_pass(tmp_path)
    assert read_granule(light).unasked == ("cloud", "blowing snow", "water", "far from reference DEM")
    assert read_lidar([light, land]).unasked == {"ATL03": ("blowing snow", "water", "far from reference DEM")}
