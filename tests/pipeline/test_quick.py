from __future__ import annotations

import numpy as np
import pytest
from shapely import Polygon, unary_union

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.change.result import ChangeOptions
from terrain3d.config import load_scene
from terrain3d.crs import ELLIPSOID, Reference
from terrain3d.errors import InputFileError
from terrain3d.io.images import open_image, read_window
from terrain3d.io.rasters import write_raster
from terrain3d.pipeline.change import run_quick_change
from terrain3d.pipeline.load import load_views
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.quick import FACTOR, reduced
from terrain3d.pipeline.run import run_scene
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.scene import write_scene


def test_reduced__pixels_are_means_and_the_camera_follows(hamlet, tmp_path):
    view = load_views(load_scene(hamlet.config))[0]
    path = reduced(view, tmp_path / "half.tif")
    whole, half = view.image, open_image(path)
    assert half.shape == (whole.height // FACTOR, whole.width // FACTOR)
    one = read_window(whole, 40, 60, 2, 2).mean()
    assert read_window(half, 20, 30, 1, 1)[0, 0] == pytest.approx(one, rel=1e-3, abs=1.0)
    rpc = read_rpc(path, None)
    place = rpc.lon_off_deg, rpc.lat_off_deg, rpc.height_off
    pixel, small = (np.array(Camera(r).project(*place)).ravel() for r in (view.camera.rpc, rpc))
    # The centre of a large pixel lies between the centres of the pixels that it is made of.
    assert small == pytest.approx((pixel - 0.5) / 2, abs=1e-6)


def test_quick__a_wrong_model_shows_before_the_work_and_leaves_nothing(hamlet, tmp_path):
    with pytest.raises(InputFileError, match="missing"):
        run_quick_change(tmp_path / "missing", hamlet.config, tmp_path / "out", ChangeOptions(), Silent())
    broken = tmp_path / "scene.yaml"
    broken.write_text(f"name: a\nimages: [{hamlet.epochs[0].images[0]}, {tmp_path}/none.tif]\n", encoding="utf-8")
    before = tmp_path / "dsm.tif"
    grid = Grid(Reference("EPSG:32632", ELLIPSOID), 680_000.0, 5_230_000.0, 1.0, 9, 9)
    write_raster(before, Raster(np.zeros(grid.shape, np.float32), grid), nodata=-9999)
    with pytest.raises(InputFileError, match=r"none\.tif"):
        run_quick_change(before, broken, tmp_path / "out", ChangeOptions(), Silent())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_quick__finds_what_the_full_run_finds_large(tmp_path):
    scene = write_scene(tmp_path / "scene", "town", 300, seed=5, epochs=2)
    run_scene(load_scene(scene.config), tmp_path / "before", Silent())
    result = run_quick_change(
        tmp_path / "before", scene.epochs[1].config, tmp_path / "rapid", ChangeOptions(), Silent(), workers=2
    )
    assert any("rapid mode" in note and "lidar" in note for note in result.notes)
    assert (tmp_path / "rapid" / "rapid" / "model" / "dsm.tif").is_file()
    large = [e for e in scene.events if e.area_m2 > 150 and abs(e.mean_dz) > 4]
    reported = unary_union([r.polygon for r in result.regions])
    found = sum(
        unary_union([Polygon(o) for o in e.outline]).intersection(reported).area > 0.5 * e.area_m2 for e in large
    )
    assert found >= 0.8 * len(large) > 0
