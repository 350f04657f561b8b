"""A few of the damaged files of ``tools/fuzz_readers.py``: read, or refused in one line."""

from __future__ import annotations

import importlib.util
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import shapely

from terrain3d.camera.rpc import RpcModel
from terrain3d.camera.write import rpc_tags, write_image
from terrain3d.crs import Reference
from terrain3d.errors import Terrain3dError
from terrain3d.io.clouds import write_cloud
from terrain3d.io.vectors import NamedLayer, write_layers
from terrain3d.points import PointCloud
from tests.lidar.test_atl06 import write_atl06

CASES = 40
MADE = datetime(2024, 5, 1, tzinfo=UTC)  # else the same draws damage other bytes every day


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "tools" / "fuzz_readers.py"
    spec = importlib.util.spec_from_file_location("fuzz_readers", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_readers"] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))  # its own modules
        spec.loader.exec_module(module)
    return module


def rpc() -> RpcModel:
    line, samp, one = np.zeros(20), np.zeros(20), np.eye(20)[0]
    line[2], samp[1], samp[3] = -1.0, 1.0, 0.02
    return RpcModel(tuple(line), tuple(one), tuple(samp), tuple(one), 20.0, 20.0, 20.0, 20.0, 11.0, 0.01, 47.0, 0.01,
                    500.0, 100.0)  # fmt: skip


def seeds(fuzz: ModuleType, kind: str, folder: Path) -> list[Path]:
    tags, made = rpc_tags(rpc()), sys.modules["fuzz_seeds"]
    if kind == "rpc":
        texts = {"a.RPB": made.rpb(tags), "a.XML": made.dimap(tags), "a_RPC.TXT": "\n".join(made.text_lines(tags))}
        for name, text in texts.items():
            (folder / name).write_text(text)
        return [folder / name for name in texts]
    if kind == "image":
        return [write_image(folder / "a.tif", np.full((64, 64), 300, np.uint16), rpc())]
    if kind == "lidar":
        return [write_atl06(folder / "a.h5", n=40)]
    if kind == "table":
        (folder / "a.csv").write_text("lon,lat,h,track\n" + "".join(f"11.{i},47,{i},a\n" for i in range(50)))
        return [folder / "a.csv"]
    if kind == "vector":
        codes = {"code": np.array(["a", "b"])}
        sheets = NamedLayer("sheets", [shapely.box(0, 0, 1, 1)] * 2, codes)
        write_layers(folder / "a.gpkg", [sheets], "EPSG:32632", changed=MADE)
        return [folder / "a.gpkg"]
    ones = np.ones(200, np.float32)
    xyz = np.random.default_rng(1).uniform(0, 50, (200, 3))
    for name in ("a.las", "a.laz"):
        write_cloud(folder / name, PointCloud(Reference("EPSG:32632"), xyz, ones, ones, ones.astype(np.uint8),
                                              ones.astype(np.uint16)), created=MADE.date())  # fmt: skip
    return [folder / "a.las", folder / "a.laz"]


@pytest.mark.parametrize("kind", ["rpc", "image", "lidar", "table", "vector", "cloud"])
def test_readers__read_or_refuse_damaged_files(fuzz: ModuleType, kind: str, tmp_path: Path) -> None:
    sources, draw = seeds(fuzz, kind, tmp_path), random.Random(kind)
    read, outcomes = fuzz.reader(kind), set()
    for source in sources:
        read(source)
    for i in range(CASES):
        source = draw.choice(sources)
        path = tmp_path / f"{i}{source.suffix}"
        path.write_bytes(
            fuzz.mutated(
                source.read_bytes(), source.suffix.lower() in fuzz.TEXT, draw, draw.choice(sources).read_bytes()
            )
        )
        try:
            read(path)
            outcomes.add("read")
        except Terrain3dError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert "refused" in outcomes
