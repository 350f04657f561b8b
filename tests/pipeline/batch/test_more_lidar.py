"""A batch that gets more lidar: the registration stays while it holds, and what new returns do not touch stays, too."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from terrain3d.pipeline.batch.area import load_area
from terrain3d.pipeline.batch.driver import BatchOptions, run_batch
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.progress import Silent
from terrain3d.simulate.scene import write_scene

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_parts")]
TREE = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views with a metre of pixel; area.yaml with the lidar of the scene, more.yaml with a table of three returns
    under trees in the west, too."""
    made = write_scene(tmp_path_factory.mktemp("area"), "town", 320, seed=5, views=2, gsd=1.0, resolution=1.0)
    content = yaml.safe_load(made.config.read_text(encoding="utf-8")) | {"tiles": {"utm": 100}}
    content["lidar"] = content["lidar"][:2]
    (made.folder / "area.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    with rasterio.open(made.epochs[0].truth["dtm"]) as file, rasterio.open(made.epochs[0].truth["class"]) as kinds:
        row, column = np.nonzero(kinds.read(1) == TREE)
        west = np.argsort(column, kind="stable")[:3]
        x, y = rasterio.transform.xy(file.transform, row[west], column[west])
        z, crs = file.read(1)[row[west], column[west]], file.crs.to_string()
    rows = "".join(f"{a},{b},{c},0.2\n" for a, b, c in zip(x, y, z, strict=True))
    (made.folder / "more.csv").write_text("x,y,z,sd\n" + rows, encoding="utf-8")
    columns = {"x": "x", "y": "y", "height": "z", "sigma": "sd"}
    more = {"path": "more.csv", "columns": columns, "crs": crs, "vertical": "ellipsoid", "footprint": 5}
    content["lidar"].append(more)
    (made.folder / "more.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return made.folder


def batch(area: Path, out: Path, executor: Executor, *, refresh: bool = False) -> int:
    """Run it; items of work that were done."""
    result = run_batch(load_area(area), out, Silent(), executor, BatchOptions(refresh=refresh))
    assert result.complete
    return result.worked


def tiles(out: Path) -> dict[str, str]:
    """Digest of all files of each tile that has any."""
    digests: dict[str, str] = {}
    for path in sorted((out / "tiles").rglob("*.*")):
        digests[path.parent.name] = digests.get(path.parent.name, "") + hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def lineage(out: Path, code: str) -> dict[str, object]:
    return dict(json.loads((out / "tiles" / code / f"{code}_lineage.json").read_text(encoding="utf-8")))


def test_batch__more_lidar_redoes_what_it_touches(folder: Path, tmp_path: Path, here: Executor) -> None:
    out, anew = tmp_path / "out", tmp_path / "anew"
    everything = batch(folder / "area.yaml", out, here)
    before = tiles(out)
    worked = batch(folder / "more.yaml", out, here)
    after = tiles(out)
    assert "registration kept: with all lidar of now it would move by" in (out / "batch.log").read_text()
    plan = {t["code"]: t for t in json.loads((out / "plan.json").read_text())["tiles"]}
    changed = {code for code in after if after[code] != before[code]}
    assert changed == {c for c in after if "more.csv" in plan[c]["lidar"]}
    assert worked < everything / 3 and set(before) == set(after) and 0 < len(changed) <= len(after) * 2 / 3
    some = lineage(out, sorted(changed)[0])
    assert some["registered_to"] == ["ATL08_20240501.h5", "ATL08_20240617.h5"]
    assert "more.csv" in [s["name"] for s in some["sources"]]  # type: ignore[attr-defined]

    # with the same registration, all from nothing: no seam between what was redone and what was not
    shutil.copytree(out, anew)
    shutil.rmtree(anew / "tiles")
    with sqlite3.connect(anew / "manifest.sqlite") as manifest:
        manifest.execute("DELETE FROM work")
    batch(folder / "more.yaml", anew, here)
    assert tiles(anew) == after

    batch(folder / "more.yaml", anew, here, refresh=True)
    assert lineage(anew, sorted(changed)[0])["registered_to"] == [*some["registered_to"], "more.csv"]  # type: ignore[misc]
    assert tiles(anew) != after
