"""The synthetic town, its truth made as noisy as matching makes it: eighteen events, known to the square metre."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from terrain3d.change.epoch import Epoch
from terrain3d.change.kinds import Kind
from terrain3d.change.result import ChangeOptions
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.pipeline.detect import detect
from terrain3d.raster import Raster

pytestmark = pytest.mark.slow


def as_matched(folder: Path, seed: int) -> Epoch:
    """Truth with edges bent by 0.6 pixels, crowns smeared and misjudged, voids and correlated noise."""
    dsm, classes = read_raster(folder / "dsm.tif"), read_classes(folder / "class.tif").values
    rng = np.random.default_rng(seed)

    def field(length: float) -> np.ndarray:
        smooth = cv2.GaussianBlur(rng.standard_normal(dsm.values.shape).astype(np.float32), (0, 0), length)
        return smooth / smooth.std()

    rows, columns = np.indices(dsm.values.shape, np.float32)
    z = cv2.remap(dsm.values, columns + 0.6 * field(8), rows + 0.6 * field(8), cv2.INTER_LINEAR)
    trees = cv2.dilate((classes == 5).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    crowns = cv2.medianBlur(cv2.morphologyEx(z, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8)), 5)
    z = np.where(trees, crowns + 1.5 * field(3) + 1.2 * field(1.5), z) + 0.22 * field(1.7)
    z[(field(6) > 2.6) | (trees & (field(4) > 1.3)) | (classes == 9)] = np.nan
    return Epoch(folder.name, Raster(z.astype(np.float32), dsm.grid))


@pytest.fixture(scope="module")
def result(shared_data):
    town = shared_data / "scenes" / "town"
    told = ChangeOptions(vertical_before="same", vertical_after="same")
    return detect(as_matched(town / "truth1", 1), as_matched(town / "truth2", 2), told)


def test_town__buildings_and_events(result, shared_data):
    events = json.loads((shared_data / "scenes" / "town" / "events.json").read_text())
    kinds = [r.kind for r in result.regions]
    for kind, name in ((Kind.NEW_BUILDING, "new"), (Kind.DEMOLISHED_BUILDING, "demolished")):
        areas = sorted(e["area"] for e in events if e["kind"] == name)
        found = sorted(r.measures.area for r in result.regions if r.kind is kind)
        assert len(found) == len(areas) == 8
        assert np.allclose(found, areas, rtol=0.2, atol=10)
    assert kinds.count(Kind.FELLING) == 1
    assert kinds.count(Kind.LANDSLIDE) == 2
    assert len(kinds) <= 20


def test_town__coregistration(result):
    a = result.alignment
    assert max(abs(a.east), abs(a.north), abs(a.up)) < 0.1
    assert max(abs(a.tilt_east), abs(a.tilt_north)) < 2e-4
