"""Acquisition times from names and metadata."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from terrain3d.io.acquired import read_acquired, time_in_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("DS_PHR1B_201306290637144_FR1_PX_E055S22_0919_01724", datetime(2013, 6, 29, 6, 37, 14, 400_000, UTC)),
        ("IMG_PHR1B_P_201308051042194_SEN_690908101-001_R1C1.TIF", datetime(2013, 8, 5, 10, 42, 19, 400_000, UTC)),
        ("IMG_SPOT6_P_201305251018121_SEN_1.TIF", datetime(2013, 5, 25, 10, 18, 12, 100_000, UTC)),
        ("14MAY09014327-P1BS-500060446150_01_P001.NTF", datetime(2014, 5, 9, 1, 43, 27, tzinfo=UTC)),
        ("view_1.tif", None),
        ("scene_20130629.tif", None),
        ("PHR1B_201399290637144", None),  # month 99
    ],
)
def test_time_in_name(name: str, expected: datetime | None) -> None:
    assert time_in_name(name) == expected


def image(path: Path, tags: dict[str, str], domain: str | None = None) -> Path:
    with rasterio.open(path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8") as file:
        file.write(np.ones((1, 4, 4), np.uint8))
        file.update_tags(ns=domain, **tags)
    return path


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_read__metadata_first_then_names(tmp_path: Path) -> None:
    noon = datetime(2020, 5, 4, 12, 0, 1, tzinfo=UTC)
    stated = image(tmp_path / "PHR1B_201306290637144.tif", {"ACQUISITIONDATETIME": "2020-05-04 12:00:01"}, "IMAGERY")
    assert read_acquired(stated) == noon
    assert read_acquired(image(tmp_path / "n.tif", {"NITF_IDATIM": "20200504120001"})) == noon
    described = image(tmp_path / "d.tif", {"gml": "<name>DS_PHR1A_201304171036554_FR1</name>"})
    assert read_acquired(described) == datetime(2013, 4, 17, 10, 36, 55, 400_000, UTC)
    written = image(tmp_path / "w.tif", {"TIFFTAG_DATETIME": "2020:05:04 12:00:01"})  # when the file was written
    assert read_acquired(written) is None
