"""Small simulated scenes that the tests of the pipeline share."""

from __future__ import annotations

from pathlib import Path

import pytest

from terrain3d.commands.run import run_command
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
