"""The scenes of the benchmarks are what they claim to be, and the benchmarks run and print their tables."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from terrain3d.config import load_scene
from terrain3d.pipeline.load import load_views
from terrain3d.simulate.world import CENTRE

TOOLS = Path(__file__).parents[2] / "tools"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=TOOLS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_bench_lidar__reads_what_it_made(tmp_path: Path) -> None:
    out = run("bench_lidar.py", "--photons", "0.1", "--folder", str(tmp_path))
    lines = out.splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == [
        "whole granule", "whole granule, classes of ATL08", "scene of 20 km, classes of ATL08"
    ]  # fmt: skip
    assert "segments 1.11e+03, returns 11" in lines[2]  # all segments but the ones without three ground photons


def test_rectified_pair__left_and_right_meet_at_the_disparity() -> None:
    made, rng = load("rectified_pair"), np.random.default_rng(1)
    height, width, margin = 120, 200, 24
    disparity = (8 + 10 * made.smooth_field(rng, height, width + 2 * margin, 60.0)).astype(np.float32)
    light = (0.3 * (1 + 0.2 * made.texture(rng, height, width + 2 * margin))).astype(np.float32)
    roofs = 0.2 * made.texture(rng, height, width + 2 * margin)
    pair = made.render(disparity, light, margin, [made.Box(30, 60, 80, 120, 32, 0.1, 0.05, 0.4)], roofs)
    rows, columns = np.mgrid[:height, :width]
    seen = map_coordinates(pair.right, [rows, columns - pair.disparity], order=3)
    jump = np.hypot(*np.gradient(pair.disparity)) > 0.5
    inner = pair.visible & ~jump & ~np.roll(jump, 2, 1) & ~np.roll(jump, -2, 1)
    assert inner.mean() > 0.75
    assert np.abs(seen - pair.left)[inner].mean() < 0.05 * pair.left.std()
    # both edges of the box hide ground from one image each; the left image loses sight of what is left of the box
    hidden = ~pair.visible[35:75, 40:].mean(axis=0).astype(bool)
    assert 10 < hidden.sum() < 30


def test_open_country__both_views_see_the_same_ground(tmp_path: Path) -> None:
    """Through RPCs freed of their pointing error, the texture of both images agrees only at the right height."""
    made = load("open_country")
    scene = load_scene(made.write_pair(tmp_path, 300))
    views = load_views(scene)
    assert [v.image.shape for v in views] == [(300, 300)] * 2
    images = [np.asarray(made.rasterio.open(v.image.path).read(1), float) for v in views]
    x, y = np.meshgrid(CENTRE[0] + np.arange(-30, 30, 0.5), CENTRE[1] + np.arange(-30, 30, 0.5))
    hills = made._octaves(made.HILLS)
    z = np.array([[made.BASE + made._noise(a, b, hills, 0) for a, b in zip(*ab, strict=True)]
                  for ab in zip(x, y, strict=True)])  # fmt: skip
    values = []
    for i, (view, image) in enumerate(zip(views, images, strict=True)):
        rng = np.random.default_rng((1, i))
        rng.normal(0, 1.0)
        pointing = made.draw_pointing(rng, 300)
        line, sample = view.project(scene.config.output.crs, x, y, z)
        for _ in range(3):
            d_line, d_sample = pointing.error(line - pointing.line[0])
        values.append(map_coordinates(image, [line - d_line, sample - d_sample], order=3).ravel())
    assert np.corrcoef(values)[0, 1] > 0.95


def test_bench_match__prints_a_row_for_every_matcher() -> None:
    table = run("bench_match.py", "--size", "150", "--disparities", "64", "--noise", "1", "--repeats", "1")
    rows = [line for line in table.splitlines() if line.startswith(("terrain3d", "  +", "OpenCV"))]
    assert len(rows) == 6
    assert "two threads" in table and "pandora was not measured" in table


@pytest.mark.slow
def test_bench_run__prints_every_stage_and_the_growth() -> None:
    table = run("bench_run.py", "0.1", "0.2", "--workers", "1")
    for stage in ("tie points and adjustment", "matching", "terrain model", "writing"):
        assert table.count(stage) >= 2
    assert "against images of 0.10 megapixels" in table
