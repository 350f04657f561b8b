"""Clouds and lidar returns as values."""

from __future__ import annotations

import numpy as np

from terrain3d.crs import Reference
from terrain3d.points import LidarReturns, PointCloud, join_returns


def returns(heights: list[float], track: list[int], names: tuple[str, ...], product: str) -> LidarReturns:
    n = len(heights)
    one = np.ones(n)
    return LidarReturns(
        11.0 * one, 47.0 * one, np.array(heights), 0.5 * one, 14 * one, 12 * one, np.nan * one,
        np.arange(n, dtype=float), np.array(track, np.int32), names, (product,) * len(names),
    )  # fmt: skip


def test_join_returns__tracks_are_numbered_through() -> None:
    a = returns([1.0, 2.0, 3.0], [0, 1, 1], ("a/gt1l", "a/gt1r"), "ATL08")
    empty = returns([], [], (), "GEDI_L2A")
    b = returns([4.0, 5.0], [2, 0], ("b/0", "b/1", "b/2"), "GEDI_L2A")
    joined = join_returns([a, empty, b])
    assert joined.track.tolist() == [0, 1, 1, 4, 2] and joined.track.dtype == np.int32
    assert joined.track_names == ("a/gt1l", "a/gt1r", "b/0", "b/1", "b/2")
    assert joined.product == ("ATL08", "ATL08", "GEDI_L2A", "GEDI_L2A", "GEDI_L2A")
    assert joined.height.tolist() == [1, 2, 3, 4, 5] and len(joined) == 5
    assert [joined.track_names[t] for t in joined.track] == ["a/gt1l", "a/gt1r", "a/gt1r", "b/2", "b/0"]


def test_select__rows_go_and_the_list_of_tracks_stays() -> None:
    a = returns([1.0, 2.0, 3.0], [0, 1, 1], ("a/gt1l", "a/gt1r"), "ATL08")
    kept = a.select(a.height > 1.5)
    assert kept.height.tolist() == [2, 3] and kept.track.tolist() == [1, 1] and len(kept.time_s) == 2
    assert kept.track_names == a.track_names
    assert a.select(np.array([2, 0])).height.tolist() == [3, 1]


def test_cloud_select__every_column() -> None:
    n = 4
    cloud = PointCloud(
        Reference("EPSG:32632"), np.arange(12.0).reshape(n, 3), np.arange(n, dtype=np.float32),
        np.linspace(0, 1, n, dtype=np.float32), np.arange(n, dtype=np.uint8), np.arange(n, dtype=np.uint16),
    )  # fmt: skip
    kept = cloud.select(np.array([True, False, False, True]))
    assert len(kept) == 2 and kept.reference == cloud.reference
    assert kept.xyz[:, 0].tolist() == [0, 9] and kept.sigma.tolist() == [0, 3]
    assert kept.confidence.tolist() == [0, 1] and kept.pair.tolist() == [0, 3] and kept.intensity.tolist() == [0, 3]
