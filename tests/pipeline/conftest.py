"""Small simulated scenes that the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from terrain3d.commands.run import run_command
from terrain3d.crs import ELLIPSOID, Reference
from terrain3d.io.rasters import write_raster
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.scene import SceneFiles, write_scene


@pytest.fixture(scope="session")
def hamlet(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """Two views and lidar over 150 m: enough to be a valid scene, quick to make."""
    return write_scene(tmp_path_factory.mktemp("hamlet"), "town", 150, seed=3, views=2)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """Three views over 250 m in two epochs, with lidar, truth and events."""
    return write_scene(tmp_path_factory.mktemp("town"), "town", 250, seed=1, views=3, epochs=2)


@pytest.fixture(scope="session")
def before(town: SceneFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the first epoch."""
    out = tmp_path_factory.mktemp("before") / "out"
    run_command(town.epochs[0].config, out, workers=2, quiet=True)
    return out


@pytest.fixture(scope="session")
def after(town: SceneFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the second epoch."""
    out = tmp_path_factory.mktemp("after") / "out"
    run_command(town.epochs[1].config, out, workers=2, quiet=True)
    return out


@pytest.fixture(scope="session")
def model():  # type: ignore[no-untyped-def]
    """Function that writes the model of one epoch into a new folder."""
    grid = Grid(Reference("EPSG:32654", ELLIPSOID), 500_000.0, 3_900_000.0, 0.5, 240, 240)

    def make(folder, seed, house=0.0, shift=(0.0, 0.0, 0.0)):  # type: ignore[no-untyped-def]
        """Rolling ground with a house (or none) in the middle, displaced."""
        x, y = grid.centres()
        x, y = np.meshgrid(x - 500_000 - shift[0], y - 3_899_880 - shift[1])
        z = 50 + 3 * np.sin(x / 9) * np.cos(y / 11) + 0.05 * np.random.default_rng(seed).standard_normal(grid.shape)
        z = z + shift[2]
        roof = z + house * ((np.abs(x - 60) < 10) & (np.abs(y - 60) < 8))
        folder.mkdir()
        write_raster(folder / "dsm.tif", Raster(roof.astype(np.float32), grid), nodata=-9999)
        write_raster(folder / "dtm.tif", Raster(z.astype(np.float32), grid), nodata=-9999)
        write_raster(
            folder / "dsm_sigma.tif", Raster(np.full(grid.shape, 0.1, np.float32), grid), nodata=-9999, heights=False
        )
        return folder

    return make
