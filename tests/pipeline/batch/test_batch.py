"""A batch end to end: its tiles are the run, whatever stops it on the way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import laspy
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from pyogrio import list_layers
from pystac import STACObjectType
from pystac.validation import RegisteredValidator
from rasterio.windows import Window
from rio_cogeo.cogeo import cog_validate

from terrain3d.cli import main
from terrain3d.io.vectors import read_layer
from terrain3d.simulate.scene import SceneFiles, write_scene

pytestmark = pytest.mark.slow
LAYERS = ("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm", "ortho", "ortho_super", "mask")


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """Two views over 150 m with lidar, and an area file with tiles of 100 m."""
    made = write_scene(tmp_path_factory.mktemp("area"), "town", 150, seed=3, views=2)
    content = yaml.safe_load(made.config.read_text(encoding="utf-8"))
    content["output"]["super_resolution"] = True
    made.config.write_text(yaml.safe_dump(content), encoding="utf-8")
    (made.folder / "area.yaml").write_text(yaml.safe_dump(content | {"tiles": {"utm": 100}}), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def done(scene: SceneFiles) -> Path:
    """The finished batch."""
    out = scene.folder / "out"
    assert call("batch", scene.folder / "area.yaml", "--out", out, "--workers", 2, "--quiet") == 0
    return out


def products(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted((out / "tiles").rglob("*")) if p.is_file()}


def test_batch__tiles_are_the_run(scene: SceneFiles, done: Path, tmp_path: Path) -> None:
    assert call("run", scene.config, "--out", tmp_path / "run", "--workers", 2, "--quiet") == 0
    for layer in LAYERS:
        with rasterio.open(tmp_path / "run" / f"{layer}.tif") as file:
            whole, west, north = file.read(1).astype(float), file.bounds.left, file.bounds.top
        with rasterio.open(done / f"{layer}.vrt") as file:
            place = (round((west - file.bounds.left) / file.res[0]), round((file.bounds.top - north) / file.res[0]))
            window = Window(*place, whole.shape[1], whole.shape[0])
            parts = file.read(1, window=window, boundless=True, fill_value=file.nodata).astype(float)
            rest = (file.read(1) != file.nodata).sum()
            assert rest == (whole != file.nodata).sum(), layer  # nothing lies outside
        assert (np.abs(whole - parts) < 1e-3).mean() >= 0.9999, layer
    tiles = json.loads((done / "plan.json").read_text(encoding="utf-8"))["tiles"]
    assert len(tiles) == len(list((done / "tiles").iterdir())) == 4


def test_batch__trees_and_waters_of_tiles_are_those_of_the_area(done: Path) -> None:
    whole = read_layer(done / "trees.gpkg", "tops")
    files = sorted((done / "tiles").rglob("*_trees.gpkg"))
    tops = [read_layer(p, "tops").geometries for p in files]
    every = shapely.get_coordinates(np.concatenate(tops))
    assert len(whole.geometries) == len(every) > 20  # each in one tile
    assert {*map(tuple, every)} == {*map(tuple, shapely.get_coordinates(whole.geometries))}
    for name in ("stands", "water"):
        area = read_layer(done / ("trees.gpkg" if name == "stands" else "water.gpkg"), name)
        size = dict(zip(area.columns["id"], shapely.area(area.geometries), strict=True))
        parts = [read_layer(p, name) for p in sorted((done / "tiles").rglob("*.gpkg")) if name in list_layers(p)[:, 0]]
        for layer in parts:
            for number, shape in zip(layer.columns["id"], layer.geometries, strict=True):
                size[number] -= shape.area
        assert np.allclose(list(size.values()), 0, atol=0.01), name


def test_batch__products_are_what_they_are_said_to_be(
    done: Path, faults_of: Callable[[dict[str, Any]], list[str]]
) -> None:
    for path in sorted((done / "tiles").rglob("*.tif")):
        assert cog_validate(path, strict=True) == (True, [], []), path
    validator = RegisteredValidator.get_validator()
    collection = json.loads((done / "collection.json").read_text(encoding="utf-8"))
    validator.validate_core(collection, STACObjectType.COLLECTION, "1.1.0")
    assert faults_of(collection) == [] and None not in collection["extent"]["temporal"]["interval"][0]
    links = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    sums = dict(line.split("  ")[::-1] for line in (done / "SHA256SUMS").read_text().splitlines())
    assert len(links) == 4
    for href in links:
        item = json.loads((done / href).read_text(encoding="utf-8"))
        validator.validate_core(item, STACObjectType.ITEM, "1.1.0")
        assert faults_of(item) == []
        assert item["collection"] == collection["id"] and item["properties"]["proj:code"] == "EPSG:32632"
        for asset in item["assets"].values():
            path = (done / href).parent / asset["href"]
            own = hashlib.sha256(path.read_bytes()).hexdigest()
            assert asset["file:checksum"] == "1220" + own == "1220" + sums[str(path.relative_to(done))]
        metadata = ElementTree.parse((done / href).parent / item["assets"]["xml"]["href"]).getroot()
        text = " ".join(metadata.itertext())
        assert (
            "view_1.tif" in text
            and "ATL08_20240501.h5" in text
            and "EPSG:32632" in text
            and "adjustment_rms_px" in text
        )
    clouds = [laspy.read(p) for p in sorted((done / "tiles").rglob("*.laz"))]
    assert sum(len(c) for c in clouds) > 50_000
    for cloud, path in zip(clouds, sorted((done / "tiles").rglob("*_dsm.tif")), strict=True):
        with rasterio.open(path) as file:
            west, south, east, north = file.bounds
        assert west <= cloud.x.min() and cloud.x.max() <= east and south <= cloud.y.min() and cloud.y.max() <= north


def test_batch__started_again_does_nothing(scene: SceneFiles, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = products(done)
    assert call("batch", scene.folder / "area.yaml", "--out", done, "--workers", 1) == 0
    assert "(0 items of work done now)" in capsys.readouterr().out
    assert products(done) == before


def test_batch__damaged_files_are_made_anew(
    scene: SceneFiles, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    before = products(done)
    product = next((out / "tiles").rglob("*_dtm.tif"))
    data = bytearray(product.read_bytes())
    data[len(data) // 2] ^= 1
    product.write_bytes(bytes(data))
    largest = max((out / "work" / "objects").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    os.truncate(largest, 100)
    assert call("batch", scene.folder / "area.yaml", "--out", out, "--workers", 1) == 0
    assert "(2 items of work done now)" in capsys.readouterr().out
    assert products(out) == before


def test_batch__a_changed_option_redoes_what_depends_on_it(
    scene: SceneFiles, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "copy"
    shutil.copytree(done, out)
    content = yaml.safe_load((scene.folder / "area.yaml").read_text(encoding="utf-8"))
    content["output"]["vertical"] = "egm96"
    (scene.folder / "geoid.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert call("batch", scene.folder / "geoid.yaml", "--out", out, "--workers", 1) == 0
    assert "(4 items of work done now)" in capsys.readouterr().out  # the tiles
    sums = dict(line.split("  ")[::-1] for line in (out / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in products(out).items()}


def test_batch__a_bad_image_is_left_out(
    scene: SceneFiles, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, bad = tmp_path / "copy", tmp_path / "bad.tif"
    shutil.copytree(done, out)
    bad.write_bytes((scene.folder / "epoch1" / "view_1.tif").read_bytes()[:5000])
    content = yaml.safe_load((scene.folder / "area.yaml").read_text(encoding="utf-8"))
    content["images"].append(str(bad))
    (scene.folder / "bad.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert call("batch", scene.folder / "bad.yaml", "--out", out, "--workers", 1, "--quiet") == 3
    assert f"image {bad}: " in capsys.readouterr().out
    assert products(out) == products(done)
