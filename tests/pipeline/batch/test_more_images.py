"""A batch that gets another image: what that does not show stays, for cameras and what all of it says stay."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.windows import Window

from terrain3d.pipeline import model, terrain
from terrain3d.pipeline.batch.area import load_area
from terrain3d.pipeline.batch.driver import BatchOptions, run_batch
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.progress import Silent
from terrain3d.simulate.scene import write_scene

pytestmark = pytest.mark.slow
SIZE, LONG = 360, 800


@pytest.fixture(autouse=True)
def smaller_models(small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of points of 64 m."""
    monkeypatch.setattr(model, "POINT_BLOCK_CELLS", 64)


def cut_out(source: Path, target: Path, columns: tuple[float, float], lines: tuple[float, float] = (0.0, 1.0)) -> None:
    """A part of an image, given in shares of it, with its own RPC."""
    with rasterio.open(source) as file:
        column, line = int(columns[0] * file.width), int(lines[0] * file.height)
        width, height = int((columns[1] - columns[0]) * file.width), int((lines[1] - lines[0]) * file.height)
        values, rpcs = file.read(window=Window(column, line, width, height)), file.rpcs
        profile = {k: file.profile[k] for k in ("driver", "dtype", "count", "nodata")}
    rpcs.samp_off -= column
    rpcs.line_off -= line
    with rasterio.open(target, "w", width=width, height=height, rpcs=rpcs, **profile) as file:
        file.write(values)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views with a metre of pixel and lidar in area.yaml; in more.yaml a third one, of the east, before them."""
    made = write_scene(tmp_path_factory.mktemp("area"), "town", SIZE, seed=5, views=3, gsd=1.0, resolution=1.0)
    content = yaml.safe_load(made.config.read_text(encoding="utf-8")) | {"tiles": {"utm": 100}}
    first, second, third = (made.folder / "epoch1" / f"view_{k}.tif" for k in (1, 2, 3))
    cut_out(third, made.folder / "east.tif", (0.75, 1.0))
    for name, more in (("area", []), ("more", ["east.tif"])):
        own = content | {"images": [*more, str(first), str(second)]}
        (made.folder / f"{name}.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    return made.folder


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A strip: one view of all of it and one of the west in area.yaml; in more.yaml a third one, of the east."""
    made = write_scene(tmp_path_factory.mktemp("strip"), "town", LONG, seed=5, views=3, gsd=1.0, resolution=1.0)
    content = yaml.safe_load(made.config.read_text(encoding="utf-8")) | {"tiles": {"utm": 100}, "lidar": []}
    names = ["all.tif", "west.tif", "east.tif"]
    for k, (name, columns) in enumerate(zip(names, ((0.0, 1.0), (0.0, 0.72), (0.7, 1.0)), strict=True), 1):
        cut_out(made.folder / "epoch1" / f"view_{k}.tif", made.folder / name, columns, (0.44, 0.55))
    for name, images in (("area", names[:2]), ("more", names)):
        (made.folder / f"{name}.yaml").write_text(yaml.safe_dump(content | {"images": images}), encoding="utf-8")
    return made.folder


def batch(area: Path, out: Path, executor: Executor) -> int:
    """Run it; items of work that were done."""
    result = run_batch(load_area(area), out, Silent(), executor, BatchOptions())
    assert result.complete
    return result.worked


def products(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "tiles").rglob("*.*"))}


def keys(out: Path, stage: str) -> set[str]:
    with sqlite3.connect(out / "manifest.sqlite") as manifest:
        return {k for (k,) in manifest.execute("SELECT key FROM work WHERE stage = ?", (stage,))}


def heights(out: Path, layer: str) -> np.ndarray:
    with rasterio.open(out / f"{layer}.vrt") as file:
        return np.asarray(file.read(1, masked=True).filled(np.nan), float)


def test_batch__another_image_redoes_what_it_shows(folder: Path, tmp_path: Path, here: Executor) -> None:
    out, anew = tmp_path / "out", tmp_path / "anew"
    batch(folder / "area.yaml", out, here)
    before = {layer: heights(out, layer) for layer in ("dsm", "dtm", "dsm_sigma")}
    stages = ("matching._matcher", "model.surface_model", "settling.settled_heights.by_matches")
    known = {stage: keys(out, stage) for stage in stages}
    batch(folder / "more.yaml", out, here)
    log = (out / "batch.log").read_text(encoding="utf-8")
    assert "adjustment kept, east tied to it: " in log and "anew" not in log
    assert known[stages[0]] < keys(out, stages[0])  # no pair of before is matched again
    for stage, kept in zip(stages[1:], (len(known[stages[1]]) / 5, 1), strict=True):  # the last has wide margins
        assert len(known[stage] & keys(out, stage)) >= kept, stage
    for layer, old in before.items():
        new = heights(out, layer)
        assert new.shape == old.shape
        moved = np.abs(new - old) > 1e-3
        assert not moved[:, : SIZE // 4].any(), layer
        assert layer == "dtm" or moved[:, -SIZE // 5 :].mean() > 0.2, layer

    assert from_nothing(folder / "more.yaml", out, anew, here) == products(out)


def test_batch__an_image_that_reaches_farther_leaves_the_ground_of_before(
    strip: Path, tmp_path: Path, here: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terrain, "BLOCK_CELLS", 128)
    monkeypatch.setattr(terrain, "GROUND_MARGIN", 128.0)
    out, anew = tmp_path / "out", tmp_path / "anew"
    batch(strip / "area.yaml", out, here)
    before, ground = products(out), bounds(out)
    stages = ("matching._matcher", "model.surface_model", "settling.settled_heights.by_matches", "tile.tile_writer")
    known = {stage: keys(out, stage) for stage in stages}
    batch(strip / "more.yaml", out, here)
    log = (out / "batch.log").read_text(encoding="utf-8")
    assert "images reach beyond the ground of before" in log and "anew" not in log
    now = products(out)
    assert bounds(out).right >= ground.right + 100
    assert known[stages[0]] < keys(out, stages[0])
    for stage, share in zip(stages[1:], (0.6, 0.2, 0.1), strict=True):
        assert len(known[stage] & keys(out, stage)) >= share * len(known[stage]), stage
    plan = json.loads((out / "plan.json").read_text(encoding="utf-8"))["tiles"]
    codes = {t["code"]: t for t in plan}
    shown = {c for c, t in codes.items() if "east" in t["images"]}
    redone = {name.split("/")[1] for name, content in now.items() if before.get(name) != content}
    stayed = {name.split("/")[1] for name in before} - redone
    assert redone >= {c for c in shown if any(n.split("/")[1] == c for n in now)}
    assert len(stayed) >= 2 and not stayed & shown  # to the bit, metadata included
    assert from_nothing(strip / "more.yaml", out, anew, here) == now


def from_nothing(area: Path, out: Path, anew: Path, executor: Executor) -> dict[str, bytes]:
    """Products of all work done again with what is held: no seam between what was redone and what was not."""
    shutil.copytree(out, anew)
    shutil.rmtree(anew / "tiles")
    with sqlite3.connect(anew / "manifest.sqlite") as manifest:
        manifest.execute("DELETE FROM work")
    batch(area, anew, executor)
    return products(anew)


def bounds(out: Path) -> Any:
    with rasterio.open(out / "dsm.vrt") as file:
        return file.bounds
