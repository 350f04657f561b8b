from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from terrain3d.adjust.pointing import USUAL
from terrain3d.camera.adjusted import Camera, Correction
from terrain3d.config import load_scene
from terrain3d.pipeline.doubts import geoid_doubt, placement_doubts, pointing_doubts, unplaced_doubt
from terrain3d.pipeline.load import load_views
from terrain3d.register.move import Move
from terrain3d.simulate.scene import SceneFiles

ALPS = (680_000.0, 5_230_000.0)  # in UTM 32 N; the geoid is 48.6 m above the ellipsoid


def _move(dx: float = 0.0, dz: float = 0.0, tilt: float = 0.0) -> Move:
    return Move(dx, 0.0, dz, tilt, 0.0, ALPS, np.eye(5), None, True)


def test_placement_doubts__usual_moves_raise_none() -> None:
    # the largest that scenes with pointing errors of 3 px and base to height of 0.46 and 0.08 had
    assert placement_doubts(_move(3.0, -10.4, 0.0025), "EPSG:32632", 0.46) == []
    assert placement_doubts(_move(0.0, 35.9, 0.0238), "EPSG:32632", 0.08) == []
    assert placement_doubts(replace(_move(dz=-90.0), applied=False), "EPSG:32632", 0.46) == []


def test_placement_doubts__lidar_over_the_geoid_said_to_be_over_the_ellipsoid() -> None:
    (line,) = placement_doubts(_move(dz=-45.7), "EPSG:32632", 0.46)
    assert "lidar lies 45.7 m below the surface, and the geoid 48.6 m above" in line and "vertical: egm96" in line
    (line,) = placement_doubts(_move(dz=-90.0), "EPSG:32632", 0.46)
    assert "moved by 0 m sideways and -90 m in height" in line


def test_placement_doubts__exchanged_rpcs_tilt_the_model() -> None:
    (line,) = placement_doubts(_move(dz=-9.5, tilt=0.058), "EPSG:32632", 0.46)
    assert "tilted by 58 m per km" in line and "exchanged" in line


def test_unplaced_doubt__only_where_lidar_was_given_and_moved_nothing() -> None:
    assert unplaced_doubt(None, USUAL) is None and unplaced_doubt(_move(dz=3.0), USUAL) is None
    line = unplaced_doubt(replace(_move(), applied=False), USUAL)
    assert line is not None and "may lie off by 15 m in height" in line and "sigma of the cells does not count" in line


@pytest.mark.parametrize("dz, said", [(48.0, True), (-50.5, True), (44.0, False), (3.0, False)])
def test_geoid_doubt__of_a_surface_from_anywhere(dz: float, said: bool) -> None:
    assert (geoid_doubt(_move(dz=dz), "EPSG:32632") is not None) == said


def test_pointing_doubts__names_the_image_that_was_moved_far(hamlet: SceneFiles) -> None:
    views = load_views(load_scene(hamlet.config))
    rpc = views[0].camera.rpc
    cameras = [Camera(rpc, Correction(line=(n, 0.0, 0.0), sample=(0.0, 0.0, 0.0))) for n in (-8.0, 68.0, 4.0)]
    network: Any = SimpleNamespace(
        views=views[:3], heights=(500.0, 600.0), adjustment=SimpleNamespace(cameras=cameras[: len(views)])
    )
    (line,) = pointing_doubts(network, "EPSG:32632")
    assert line.startswith(f"{views[1].name}: its RPC was corrected by 68 px (3")
