"""Results on coarser cells: on their multiples whatever the grid, whatever the blocks, and in the files of a run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from terrain3d.commands.run import run_command
from terrain3d.crs import Reference
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.io.scratch import new_raster
from terrain3d.landform.volumes import ErrorModel
from terrain3d.pipeline import resolutions
from terrain3d.pipeline.filling import RAISED, Frame
from terrain3d.pipeline.resolutions import Layers, coarser
from terrain3d.raster import Grid, Raster
from terrain3d.register.heights import SmoothCorrection
from terrain3d.register.move import Move
from terrain3d.simulate.scene import SceneFiles


def test_coarser__of_a_grid_off_the_multiples_and_by_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = Grid(Reference("EPSG:32654"), 500_001.5, 4_000_003.0, 0.5, 37, 50)
    rng = np.random.default_rng(1)
    z = np.where(rng.random(grid.shape) < 0.3, 12.0, 5.0)

    def stored(name: str, values: np.ndarray, kind: type = np.float32):
        raster = new_raster(tmp_path / name, grid, kind)
        raster.write(0, 0, values.astype(kind))
        return raster

    fine = Layers(
        stored("z", z), stored("s", np.full(grid.shape, 0.2)), stored("m", np.ones(grid.shape), np.uint8),
        stored("t", np.full(grid.shape, 5.0)), stored("u", np.full(grid.shape, 0.3)), stored("h", z - 5),
        (stored("p", 100 * (z > 6), np.uint16),),
    )  # fmt: skip
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = [r.read(0, 0, *r.grid.shape) for r in coarser(fine, 4, tmp_path / "whole", 1).all()]
    monkeypatch.setattr(resolutions, "BLOCK_CELLS", 12)
    made = coarser(fine, 4, tmp_path / "parts", 2)
    for a, b in zip(whole, (r.read(0, 0, *r.grid.shape) for r in made.all()), strict=True):
        np.testing.assert_array_equal(a, b)
    assert made.dsm.grid.bounds == (500_000, 3_999_984, 500_028, 4_000_004) and made.dsm.grid.resolution == 2
    dsm, _, codes, dtm, sigma, chm, picture = whole
    assert (codes == 1).all()  # those that hold part of a cell have a value too
    assert np.isfinite(dsm).all() and dtm == pytest.approx(5)
    bare = (z[6:10, 5:9] < 6).mean()  # of the cell in row and column 2
    alike = ErrorModel().alike(4, 0.5)
    assert sigma[2, 2] == pytest.approx(0.3 * np.sqrt(bare * alike**2 + 1 - bare))
    assert chm == pytest.approx(dsm - dtm, abs=1e-5)
    assert set(np.unique(picture)) == {0, 100}  # means of what is seen


def test_coarser__what_the_frame_leaves_in_doubt_does_not_average_out(tmp_path: Path) -> None:
    grid = Grid(Reference("EPSG:32654"), 500_000.0, 4_000_000.0, 0.5, 40, 40)
    x, _ = grid.centres()
    slope = np.broadcast_to(0.5 * (x - x[0]), grid.shape)
    own, orientation, sideways, vertical = 0.2, 0.05, 0.1, 0.08

    def even(value: float) -> Raster:
        around = replace(grid, west=grid.west - 10, north=grid.north + 10, resolution=20.0, width=2, height=2)
        return Raster(np.full((2, 2), value, np.float32), around)

    covariance = np.diag([sideways**2, 0.01, 0, 0, 0])
    frame = Frame(
        Move(0, 0, 0, 0, 0, (0.0, 0.0), covariance, SmoothCorrection(None, even(vertical)), True), even(orientation)
    )
    layers = []
    for name, values, kind in (
        ("z", slope, np.float32),
        ("s", np.full(grid.shape, own), np.float32),
        ("m", 1, np.uint8),
    ):
        layers.append(new_raster(tmp_path / name, grid, kind))
        layers[-1].write(0, 0, np.broadcast_to(values, grid.shape).astype(kind))
    made = coarser(Layers(*layers), 10, tmp_path, 1, frame)
    alike = ErrorModel().alike(10, 0.5) ** 2
    common = orientation**2 + (RAISED * vertical) ** 2 + (0.5 * sideways) ** 2
    sigma = made.dsm_sigma.read(0, 0, *made.dsm_sigma.grid.shape)
    assert sigma == pytest.approx(np.sqrt(alike * own**2 + (1 - alike) * common), rel=1e-3)


@pytest.mark.slow
def test_run__several_resolutions(hamlet: SceneFiles, tmp_path: Path) -> None:
    scene = yaml.safe_load(hamlet.epochs[0].config.read_text(encoding="utf-8"))
    folder = hamlet.epochs[0].config.parent
    scene["output"] = {**scene.get("output", {}), "resolution": [1, 4]}
    (folder / "several.yaml").write_text(yaml.safe_dump(scene), encoding="utf-8")
    out = tmp_path / "out"
    run_command(folder / "several.yaml", out, workers=2, quiet=True)
    names = {"dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm", "ortho", "mask"}
    assert {p.stem for p in (out / "4m").iterdir()} == names
    fine, coarse, ground = (read_raster(out / n) for n in ("dsm.tif", "4m/dsm.tif", "4m/dtm.tif"))
    assert (fine.grid.resolution, coarse.grid.resolution) == (1, 4) and coarse.grid == ground.grid
    assert coarse.grid.reference == fine.grid.reference and coarse.grid.west % 4 == 0
    known = read_classes(out / "4m" / "mask.tif").values > 0
    assert np.array_equal(known, np.isfinite(coarse.values))
    assert np.percentile((ground.values - coarse.values)[known], 99) < 0.5
    assets = json.loads((out / "item.json").read_text(encoding="utf-8"))["assets"]
    assert assets["dsm_4m"]["href"] == "./4m/dsm.tif" and assets["dsm_4m"]["raster:spatial_resolution"] == 4
    assert {f"{n}_4m" for n in names} <= set(assets)
    assert yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))["output"]["resolution"] == [1.0, 4.0]
    cells = json.loads((out / "quality.json").read_text(encoding="utf-8"))["coarser_cells"]
    assert [c["resolution_m"] for c in cells] == [4]
