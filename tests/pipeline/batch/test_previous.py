"""Change of an area since previous models: that of the whole, cut into its tiles."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rio_cogeo.cogeo import cog_validate

from terrain3d.change.result import ChangeOptions
from terrain3d.errors import ConfigError, InputFileError
from terrain3d.io.objects import Desk, Objects
from terrain3d.io.rasters import read_raster
from terrain3d.io.vectors import read_layer
from terrain3d.pipeline import blocks
from terrain3d.pipeline.batch.area import Previous, load_area
from terrain3d.pipeline.batch.engine import BatchEngine
from terrain3d.pipeline.batch.executors import Executor
from terrain3d.pipeline.batch.keys import Keys
from terrain3d.pipeline.batch.manifest import Manifest, open_manifest
from terrain3d.pipeline.batch.previous import ChangeSet, changes_since
from terrain3d.pipeline.batch.sheets import Sheet
from terrain3d.pipeline.change import run_change
from terrain3d.pipeline.progress import Silent

CRS = "EPSG:32654"
SHEETS = [
    Sheet(f"{c}{r}", shapely.box(500_000 + 60 * c, 3_899_880 + 60 * r, 500_060 + 60 * c, 3_899_940 + 60 * r))
    for r in (0, 1, 2) for c in (0, 1)
]  # fmt: skip  # the last two lie beside the models
END = datetime(2024, 5, 1, tzinfo=UTC)


@pytest.fixture
def manifest(tmp_path: Path) -> Iterator[Manifest]:
    with open_manifest(tmp_path / "manifest.sqlite") as found:
        yield found


def since(path: Path, out: Path, manifest: Manifest, executor: Executor) -> ChangeSet | None:
    sums = {"tiles/00/00_dsm.tif": str((out / "dsm.tif").stat().st_mtime_ns)}
    desk = Desk(Objects(out / "work" / "objects"), at_once=True)
    engine = BatchEngine(desk, manifest, executor, Keys(own=out), out)
    made = changes_since(Previous("old", path), SHEETS, sums, CRS, END, desk, engine, manifest, "town", Silent())
    assert not engine.seen  # nothing of it is kept
    return made


def test_changes_since__tiles_are_the_whole(
    model: Any, tmp_path: Path, manifest: Manifest, here: Executor, monkeypatch: pytest.MonkeyPatch,
    faults_of: Callable[[dict[str, Any]], list[str]],
) -> None:  # fmt: skip
    monkeypatch.setattr(blocks, "BLOCK_CELLS", 96)
    old, out = model(tmp_path / "old", 1), model(tmp_path / "new", 2, house=6.0)  # a house that stands in four tiles
    run_change(old, out, tmp_path / "whole", ChangeOptions(), Silent())
    made = since(old, out, manifest, here)
    assert made is not None and len(made.items) == 4
    stages = {r.stage for r in manifest.records()}
    assert {"detect.detect_stored", "components.label", "previous._tile_writer"} <= stages  # done by the workers
    whole = read_layer(tmp_path / "whole" / "change.gpkg", "changes")
    joined = read_layer(out / "change" / "old" / "change.gpkg", "changes")
    assert len(joined.geometries) == 1 and joined.geometries[0].equals(whole.geometries[0])
    assert joined.columns["volume_m3"] == whole.columns["volume_m3"]
    ranked = read_layer(out / "change" / "old" / "change.gpkg", "tiles")
    assert sorted(ranked.columns["code"]) == ["00", "01", "10", "11"]
    with rasterio.open(out / "change" / "old" / "change.vrt") as file:
        parts, west, north = file.read(), file.bounds.left, file.bounds.top
    values = np.stack([read_raster(tmp_path / "whole" / "change.tif", band).values for band in (1, 2, 3)])
    row, column = round((north - 3_900_000) / 0.5), round((500_000 - west) / 0.5)
    part = parts[:, row : row + 240, column : column + 240]
    assert np.array_equal(np.where(part == -9999, np.nan, part), values, equal_nan=True)
    for name in made.items:
        item = json.loads((out / name).read_text(encoding="utf-8"))
        assert faults_of(item) == [] and item["collection"] == "town"
        assert cog_validate(out / name.replace(".json", ".tif"), strict=True)[0]

    folder = out / "change" / "old"
    stamp = folder.stat().st_mtime_ns
    assert since(old, out, manifest, here) == made and folder.stat().st_mtime_ns == stamp  # known
    (folder / "10_change.tif").write_bytes(b"damaged")
    assert since(old, out, manifest, here) == made  # made anew, to the same bytes
    assert not list((out / "change").glob(".*")) and not manifest.problems()
    secret = hashlib.sha256((old / "dsm.tif").read_bytes()).hexdigest()
    noted = manifest.noted("change old")
    manifest.note("change old", noted | {"files": noted["files"] | {"change/old/../../../old/dsm.tif": secret}})
    assert since(old, out, manifest, here) == made  # what a manipulated manifest calls a product is none


def test_changes_since__what_cannot_be_compared_is_a_line(
    model: Any, tmp_path: Path, manifest: Manifest, here: Executor
) -> None:
    out = model(tmp_path / "new", 2)
    (tmp_path / "bad.tif").write_bytes(b"II*\0")
    assert since(tmp_path / "bad.tif", out, manifest, here) is None
    (problem,) = manifest.problems()
    assert problem.what == "previous model" and problem.place == str(tmp_path / "bad.tif")
    assert not (out / "change").exists()


def test_load_area__previous_models(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif", "2019.tif"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "old models").mkdir()
    content = {"name": "x", "images": ["a.tif", "b.tif"]}

    def previous(*entries: Any) -> list[tuple[str, Path, str | None]]:
        (tmp_path / "area.yaml").write_text(yaml.safe_dump(content | {"previous": list(entries)}), encoding="utf-8")
        return [(p.name, p.path, p.vertical) for p in load_area(tmp_path / "area.yaml").previous]

    told = {"path": "2019.tif", "vertical": "egm96", "name": "last"}
    assert previous("old models", told) == [
        ("old_models", tmp_path / "old models", None), ("last", tmp_path / "2019.tif", "egm96"),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="two previous models are called '2019'"):
        previous("2019.tif", {"path": "2019.tif"})
    with pytest.raises(InputFileError, match="no such previous model"):
        previous("2018.tif")
    with pytest.raises(ConfigError, match="previous"):
        previous({"path": "2019.tif", "name": "../x"})
    with pytest.raises(ConfigError, match="known keys here: path, vertical, name"):
        previous({"path": "2019.tif", "year": 3})
