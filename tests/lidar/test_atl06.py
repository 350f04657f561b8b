"""ATL06 segments to ground returns."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from terrain3d.errors import LidarError
from terrain3d.lidar.read import read_granule
from terrain3d.lidar.rules import ALL, STRICT

FILL = np.float32(3.4028235e38)


def write_atl06(path: Path, n: int = 8, **changes: np.ndarray) -> Path:
    """One weak and one strong beam with the group and field names of release 006."""
    with h5py.File(path, "w") as file:
        file.attrs["short_name"] = np.bytes_("ATL06")
        file.attrs["identifier_product_doi"] = np.bytes_("10.5067/ATLAS/ATL06.007")
        for beam, kind in (("gt2l", "weak"), ("gt2r", "strong")):
            file.require_group(beam).attrs["atlas_beam_type"] = np.bytes_(kind)
            fields = {
                "latitude": -75.0 + np.arange(n) * 0.00018,
                "longitude": np.full(n, 100.0),
                "delta_time": 2e8 + np.arange(n) * 0.003,
                "h_li": (3000 + np.arange(n)).astype(np.float32),
                "h_li_sigma": np.full(n, 0.05, np.float32),
                "sigma_geo_h": np.full(n, 0.3, np.float32),
                "atl06_quality_summary": np.zeros(n, np.int8),
                "dem/dem_h": np.full(n, 3002.0, np.float32),
                "fit_statistics/n_fit_photons": np.full(n, 80, np.int32),
                "geophysical/cloud_flg_atm": np.zeros(n, np.int8),
                "geophysical/msw_flag": np.zeros(n, np.int8),
                "geophysical/solar_elevation": np.full(n, -5.0, np.float32),
            }
            for name, values in (fields | changes).items():
                file[f"{beam}/land_ice_segments/{name}"] = values
    return path


def test_atl06__segments_of_40_m(tmp_path: Path) -> None:
    granule = read_granule(write_atl06(tmp_path / "a.h5"))
    returns = granule.returns
    assert granule.product == "ATL06" and granule.n_read == len(returns) == 16 and granule.frame.name == "ITRF2020"
    assert np.array_equal(returns.height[:8], 3000.0 + np.arange(8)) and np.all(returns.length == 40)
    assert returns.sigma == pytest.approx(np.hypot(0.05, 0.3))
    assert len(read_granule(tmp_path / "a.h5", rules=STRICT).returns) == 8  # the strong beam


@pytest.mark.parametrize(
    ("field", "values", "rule"),
    [
        ("atl06_quality_summary", np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int8), "segment quality"),
        ("h_li", np.r_[np.full(1, FILL), np.full(7, 3000, np.float32)].astype(np.float32), "no ground height"),
        ("h_li_sigma", np.array([0.1, 0.1, 2, 0.1, 0.1, 0.1, 0.1, 0.1], np.float32), "height sigma"),
        ("fit_statistics/n_fit_photons", np.array([50, 5, 50, 50, 50, 50, 50, 50], np.int32), "few ground photons"),
        ("geophysical/cloud_flg_atm", np.array([0, 5, 0, 0, 1, 0, 127, 0], np.int8), "cloud"),
        ("geophysical/msw_flag", np.array([0, 5, 0, 0, 1, 0, 127, -1], np.int8), "blowing snow"),
        ("dem/dem_h", np.array([2000] + [FILL] * 7, np.float32), "far from reference DEM"),
    ],
)
def test_atl06__each_rule_rejects_its_segment(tmp_path: Path, field: str, values: np.ndarray, rule: str) -> None:
    path = write_atl06(tmp_path / "a.h5", **{field: values})
    assert {r: n for r, n in read_granule(path).rejected if n} == {rule: 2}
    assert len(read_granule(path, rules=ALL).returns) == (14 if rule == "no ground height" else 16)


def test_atl06__missing_heights_are_named(tmp_path: Path) -> None:
    path = write_atl06(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        for beam in ("gt2l", "gt2r"):
            del file[f"{beam}/land_ice_segments/h_li"]
    with pytest.raises(LidarError, match="h_li"):
        read_granule(path)
