"""The adjustment on whole scenes that another renderer made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from terrain3d.adjust.network import Network, build_network, with_lidar
from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.crs import from_lonlat
from terrain3d.image.view import View, footprint
from terrain3d.io.images import open_image
from terrain3d.io.rasters import read_raster
from terrain3d.lidar.read import read_lidar
from terrain3d.lidar.rules import STANDARD


def ground_errors(network: Network, truth: Path) -> NDArray[np.float64]:
    """Height errors of the tie points that lie well inside of open ground."""
    dsm, kind = (read_raster(truth / f"{n}.tif") for n in ("dsm", "class"))
    inside = ndimage.binary_erosion(kind.values == 2, iterations=8)
    lon, lat, height = network.adjustment.points.T
    x, y = from_lonlat(dsm.grid.reference.horizontal, lon, lat)
    column, row = (np.rint(a).astype(int) for a in dsm.grid.column_row(x, y))
    ok = (column >= 0) & (row >= 0) & (column < dsm.grid.width) & (row < dsm.grid.height)
    ok[ok] = inside[row[ok], column[ok]]
    return (height - dsm.sample(x, y))[ok]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "crs"), [("town", "EPSG:32654"), ("mountain", "EPSG:32653")])
def test_network__of_whole_scenes(shared_data: Path, name: str, crs: str) -> None:
    folder = shared_data / "scenes" / name
    images = sorted((folder / "epoch1").glob("*.tif"))
    views = [View(p.stem, open_image(p), Camera(read_rpc(p))) for p in images]
    low = max(v.camera.rpc.height_range[0] for v in views)
    high = min(v.camera.rpc.height_range[1] for v in views)
    west, south, east, north = footprint(views[0], "EPSG:4326", (low + high) / 2).bounds
    around = (west - 0.01, south - 0.01, east + 0.01, north + 0.01)
    returns = read_lidar(sorted((folder / "lidar").glob("*.h5")), around, STANDARD).returns
    network = with_lidar(build_network(views, crs, (low, high)), returns, crs)
    assert max(network.adjustment.rms_after_px) < 0.1 and min(network.adjustment.rms_before_px) > 1
    assert network.adjustment.used.mean() > 0.95 and network.ties.n_tracks > 1000
    found = network.height_ties
    assert found is not None and found.applied and found.used > 60
    assert found.nmad_after < found.nmad_before
    error = ground_errors(network, folder / "truth1")
    assert len(error) > 400 and abs(np.median(error)) < 0.1
