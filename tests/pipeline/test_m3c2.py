from __future__ import annotations

import numpy as np
import pytest

from terrain3d.crs import ELLIPSOID, Reference, Vertical, vertical_from_name
from terrain3d.errors import ConfigError, FrameError, InputFileError, OverlapError
from terrain3d.io.atomic import write_json
from terrain3d.io.clouds import write_cloud
from terrain3d.io.positions import read_positions
from terrain3d.io.vectors import read_layer
from terrain3d.pipeline.m3c2 import M3C2Request, run_m3c2
from terrain3d.pipeline.progress import Silent
from terrain3d.points import PointCloud


def cloud(path, seed, shift=(0.0, 0.0, 0.0), vertical: Vertical = ELLIPSOID):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 30, (2, 4000))
    xyz = np.column_stack([500_000 + x, 3_900_000 + y, 10 + 0.2 * x + 0.05 * rng.standard_normal(4000)]) + shift
    n = len(xyz)
    sigma = np.full(n, 0.05, np.float32)
    write_cloud(
        path,
        PointCloud(Reference("EPSG:32654", vertical), xyz, sigma, sigma, np.zeros(n, np.uint8), np.zeros(n, np.uint16)),
    )
    return path


def test_run__layer_of_distances_with_the_shift_of_a_change_taken_out(tmp_path):
    before, after = cloud(tmp_path / "a.laz", 1), cloud(tmp_path / "b.laz", 2, shift=(2.0, 1.0, 0.7))
    alignment = {"east": 2.0, "north": 1.0, "up": 0.5, "tilt_east": 0.0, "tilt_north": 0.0, "x0": 0.0, "y0": 0.0,
                 "tilted": False, "converged": True, "n_cells": 9, "nmad": 0.1}  # fmt: skip
    write_json(tmp_path / "change" / "quality.json", {"alignment": alignment, "stable": {"registration": 0.01}})
    run_m3c2(M3C2Request(before, after, tmp_path / "d.gpkg", change=tmp_path / "change"), Silent())
    layer = read_layer(tmp_path / "d.gpkg")
    assert layer.crs == "EPSG:32654" and layer.geometries[0].has_z
    assert np.nanmedian(layer.columns["distance"]) == pytest.approx(0.2 / np.hypot(0.2, 1), abs=0.02)
    assert np.nanmean(layer.columns["significant"]) > 0.9
    points = read_positions(tmp_path / "d.gpkg").xyz
    assert len(points) == len(layer.geometries) and points[:, 2].min() > 9


def test_run__table_and_given_core_points(tmp_path):
    before, after = cloud(tmp_path / "a.laz", 1), cloud(tmp_path / "b.laz", 2, shift=(0, 0, 1.0))
    (tmp_path / "core.csv").write_text("id,X,Y,Z\n1,500010,3900010,12\n2,500020,3900020,14\n")
    run_m3c2(M3C2Request(before, after, tmp_path / "d.csv", core=tmp_path / "core.csv", half_length=3.0), Silent())
    rows = np.genfromtxt(tmp_path / "d.csv", delimiter=",", names=True)
    assert rows["x"].tolist() == [500010, 500020] and rows["distance"] == pytest.approx([0.98, 0.98], abs=0.05)


@pytest.mark.parametrize("given", [False, True])
def test_run__square_by_square_as_in_one_piece(tmp_path, monkeypatch, given):
    before, after = cloud(tmp_path / "a.laz", 1), cloud(tmp_path / "b.laz", 2, shift=(0, 0, 1.0))
    core = None
    if given:
        core = tmp_path / "core.csv"
        places = np.random.default_rng(3).uniform(2, 28, (60, 2))
        core.write_text("x,y,z\n" + "".join(f"{500000 + x},{3900000 + y},{10 + 0.2 * x}\n" for x, y in places))
    found = {}
    for squares, name in ((1e9, "whole"), (150, "squares")):
        monkeypatch.setattr("terrain3d.pipeline.m3c2.SQUARE_POINTS", squares)
        outcome = run_m3c2(M3C2Request(before, after, tmp_path / f"{name}.csv", core=core), Silent())
        order = np.arange(len(outcome.core)) if given else np.lexsort(outcome.core.T)
        found[name] = outcome.core[order], outcome.distances.distance[order], outcome.distances.n_after[order]
    assert len(found["whole"][0]) >= 60
    for whole, parts in zip(found["whole"], found["squares"], strict=True):
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-9)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix not in (".laz", ".csv")) == []


def test_run__bad_input(tmp_path):
    a, b = cloud(tmp_path / "a.laz", 1), cloud(tmp_path / "far.laz", 2, shift=(9000, 0, 0))
    with pytest.raises(OverlapError, match="no core point"):
        run_m3c2(M3C2Request(a, b, tmp_path / "d.csv"), Silent())
    with pytest.raises(FrameError, match="one vertical reference"):
        geoid = cloud(tmp_path / "g.laz", 2, vertical=vertical_from_name("egm96"))
        run_m3c2(M3C2Request(a, geoid, tmp_path / "d.csv"), Silent())
    with pytest.raises(ConfigError, match=r"\.gpkg or \.csv"):
        run_m3c2(M3C2Request(a, a, tmp_path / "d.las"), Silent())
    (tmp_path / "core.csv").write_text("east;north\n1;2\n")
    with pytest.raises(InputFileError, match="names no x, y and z"):
        run_m3c2(M3C2Request(a, a, tmp_path / "d.csv", core=tmp_path / "core.csv"), Silent())
    with pytest.raises(InputFileError, match=r"no quality\.json"):
        run_m3c2(M3C2Request(a, a, tmp_path / "d.csv", change=tmp_path), Silent())
    assert not (tmp_path / "d.csv").exists()
