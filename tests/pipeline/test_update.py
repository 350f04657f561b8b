from __future__ import annotations

import numpy as np
import pytest
import shapely

from terrain3d.change.blend import Provenance, blended, provenance, weights
from terrain3d.change.result import ChangeOptions
from terrain3d.crs import ELLIPSOID, Reference
from terrain3d.errors import ConfigError, InputFileError, OutputError
from terrain3d.io.rasters import read_classes, read_raster, write_strips
from terrain3d.pipeline import update
from terrain3d.pipeline.change import run_change
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.update import run_update
from terrain3d.raster import Grid

GRID = Grid(Reference("EPSG:32654", ELLIPSOID), 500_000.0, 3_900_000.0, 0.5, 240, 240)


def test_update__house_is_taken_over_and_the_rest_stays(tmp_path, model):
    old, new = model(tmp_path / "old", 1), model(tmp_path / "new", 2, house=6.0, shift=(1.0, -0.5, 2.0))
    result = run_change(old, new, tmp_path / "change", ChangeOptions(), Silent())
    assert [str(r.kind) for r in result.regions] == ["new_building"]
    done = run_update(old, new, tmp_path / "change", tmp_path / "out", Silent())
    first, now = read_raster(old / "dsm.tif"), read_raster(tmp_path / "out" / "dsm.tif")
    codes = read_classes(tmp_path / "out" / "provenance.tif").values
    assert now.grid == first.grid
    assert np.array_equal(now.values[codes == Provenance.OLD], first.values[codes == Provenance.OLD])
    rise = (now.values - first.values)[codes == Provenance.NEW]
    assert np.median(rise) == pytest.approx(6.0, abs=0.2)  # the shift of 2 m is not in it
    assert done.changes == 1 and done.new == pytest.approx(320, rel=0.1) and 100 < done.blended < 400
    columns = np.nonzero(codes == Provenance.BLENDED)[1]
    assert 2 * np.ptp(columns) == pytest.approx(2 * (40 + 12), abs=8)  # three metres around the house
    ground = read_raster(tmp_path / "out" / "dtm.tif").values - read_raster(old / "dtm.tif").values
    assert np.abs(ground).max() < 0.6
    assert not (tmp_path / "out" / "dtm_sigma.tif").exists()


def test_update__least_confidence_leaves_changes_out(tmp_path, model):
    old, new = model(tmp_path / "old", 1), model(tmp_path / "new", 2, house=6.0)
    run_change(old, new, tmp_path / "change", ChangeOptions(), Silent())
    done = run_update(old, new, tmp_path / "change", tmp_path / "out", Silent(), least_confidence=1.01)
    assert done.changes == 0 and done.new == 0
    with pytest.raises(InputFileError, match="no quality"):
        run_update(old, new, tmp_path / "old", tmp_path / "out2", Silent())
    for given in (old, new, tmp_path / "change"):
        with pytest.raises(ConfigError, match=f"would overwrite what was given, {given}"):
            run_update(old, new, tmp_path / "change", given, Silent())


def test_update__that_breaks_off_leaves_what_was_there(tmp_path, model, monkeypatch):
    old, new, out = model(tmp_path / "old", 1), model(tmp_path / "new", 2, house=6.0), tmp_path / "out"
    run_change(old, new, tmp_path / "change", ChangeOptions(), Silent())
    out.mkdir()
    (out / "dsm.tif").write_text("of before")

    def fails(path, *given, **named):
        if path.name == "dtm.tif":
            raise OutputError("cannot be written (No space left on device)", where=path)
        write_strips(path, *given, **named)

    monkeypatch.setattr(update, "write_strips", fails)
    with pytest.raises(OutputError):
        run_update(old, new, tmp_path / "change", out, Silent())
    assert [p.name for p in out.iterdir()] == ["dsm.tif"] and (out / "dsm.tif").read_text() == "of before"


def test_weights__cosine_over_the_seam():
    w = weights([shapely.box(500_040, 3_899_920, 500_060, 3_899_960)], GRID, 3.0)
    row = w[GRID.height // 2]
    assert row[90] == 1 and row[0] == 0
    inside = int(np.flatnonzero(row >= 1)[-1])
    assert row[inside + 3] == pytest.approx(0.5, abs=0.01) and row[inside + 7] == 0


def test_blended__voids():
    old, new = np.array([1, np.nan, np.nan, 4], np.float32), np.array([np.nan, 2, 3, 8], np.float32)
    weight = np.array([1, 1, 0, 0.5], np.float32)
    assert np.array_equal(blended(old, new, weight), np.array([1, 2, np.nan, 6], np.float32), equal_nan=True)
    assert provenance(old, new, weight).tolist() == [1, 2, 0, 3]
