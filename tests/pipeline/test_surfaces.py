"""A scene in many blocks is the scene in one: no seam, no height that depends on where the blocks are cut."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.rpc import RpcModel
from terrain3d.commands.run import run_command
from terrain3d.crs import Reference, to_lonlat
from terrain3d.io.rasters import read_raster
from terrain3d.io.scratch import StoredRaster, new_raster
from terrain3d.pipeline import blocks, terrain
from terrain3d.pipeline.blocks import aligned
from terrain3d.pipeline.filling import Frame
from terrain3d.pipeline.model import StoredModel
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.surfaces import derive
from terrain3d.points import LidarReturns
from terrain3d.raster import Grid, Raster
from terrain3d.simulate.scene import SceneFiles
from terrain3d.surface.mask import MaskCode
from terrain3d.surface.ortho import OrthoView, ortho, rank_views

HEIGHT, WIDTH = 672, 800
GRID = aligned(Grid(Reference("EPSG:32654"), 300_000.0, 4_000_000.0, 1.0, HEIGHT, WIDTH))
FRAME = Frame(
    None,
    Raster(np.full((3, 3), 0.02, np.float32), Grid(GRID.reference, GRID.west - 200, GRID.north + 200, 400.0, 3, 3)),
)
LAYERS = ("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm", "ortho", "mask")


def oblique(east: float, north: float) -> Camera:
    """Camera over the grid, pixels of 1 m, whose relief leans by the given metres per metre."""
    x, y = 300_000.0 + WIDTH / 2, 4_000_000.0 - HEIGHT / 2
    lon, lat = to_lonlat("EPSG:32654", np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    per_metre = np.array([[lon[1] - lon[0], lon[2] - lon[0]], [lat[1] - lat[0], lat[2] - lat[0]]])
    to_metres = np.linalg.inv(per_metre) * 0.01  # of a normalized hundredth of a degree
    line, samp, one = np.zeros(20), np.zeros(20), np.eye(20)[0]
    samp[1:4] = to_metres[0, 0], to_metres[0, 1], east
    line[1:4] = -to_metres[1, 0], -to_metres[1, 1], -north
    return Camera(
        RpcModel(
            tuple(line), tuple(one), tuple(samp), tuple(one), HEIGHT / 2, 1.0, WIDTH / 2, 1.0,
            float(lon[0]), 0.01, float(lat[0]), 0.01, 100.0, 1.0,
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Heights with voids, sigma of the matches, and the picture: hills, town, forest, a lake over several blocks."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    ground = 100 + 12 * np.sin(x / 130) + 9 * np.cos(y / 110) + 0.03 * x
    distance = np.hypot((x - 420) / 1.6, y - 300) - 70
    lake = distance < 0
    level = 98.0
    ground = np.where(distance < 60, level + (ground - level) * np.clip(distance / 60, 0, 1) ** 2, ground)
    z = ground.copy()
    for row, column in rng.integers(20, [HEIGHT - 60, 330], (120, 2)):
        here = np.s_[row : row + int(rng.integers(9, 30)), column : column + int(rng.integers(9, 30))]
        if not (distance[here] < 15).any():
            z[here] = ground[here].max() + rng.uniform(4, 15)
    forest = (x > 560) & (y > 330) & (distance > 20)
    crowns = 8 + 10 * cv2.GaussianBlur(rng.random((HEIGHT, WIDTH)), (0, 0), 2.0) + rng.uniform(0, 3, z.shape)
    gaps = cv2.GaussianBlur(rng.normal(size=z.shape), (0, 0), 4.0) > 0.09
    z = np.where(forest & ~gaps, ground + crowns, z)
    walls = np.hypot(*np.gradient(z)) > 2
    image = np.clip(600 + 2 * (z - ground) * 10 + rng.normal(0, 90, z.shape), 60, None)
    image[lake] = rng.normal(180, 8, lake.sum())
    z += rng.normal(0, 0.08, z.shape)
    deep = distance < -5
    z[deep] = np.where(rng.random(deep.sum()) < 0.7, np.nan, level + rng.normal(0, 4, deep.sum()))
    z[cv2.dilate(walls.astype(np.uint8), np.ones((1, 3))) > 0] = np.nan
    holes = cv2.GaussianBlur(rng.normal(size=z.shape), (0, 0), 5.0) > 0.15
    z[holes & ~lake] = np.nan
    z[y < 80 - 0.2 * x] = np.nan  # the scene is no rectangle
    z[rng.random(z.shape) < 1e-4] += 30  # spikes
    return z.astype(np.float32), rng.uniform(0.1, 0.4, z.shape).astype(np.float32), image.astype(np.float32)


def returns() -> LidarReturns:
    """Ground returns on a line through the forest."""
    n = 60
    x, y = np.full(n, 300_000.0 + 680), 4_000_000.0 - np.linspace(340, 660, n)
    lon, lat = to_lonlat("EPSG:32654", x, y)
    height = 100 + 12 * np.sin(680 / 130) + 9 * np.cos((4_000_000.0 - y) / 110) + 0.03 * 680 - 1.0
    one = np.ones(n)
    return LidarReturns(
        lon, lat, height, 0.3 * one, 20 * one, 11 * one, 10 * one, np.arange(n) * 1.0,
        np.zeros(n, np.int32), ("gt1r",), ("ATL08",),
    )  # fmt: skip


def views_of(image: np.ndarray) -> list[OrthoView]:
    return [
        OrthoView(oblique(*lean), lambda r, c, h, w: image[None, r : r + h, c : c + w], image.shape)
        for lean in ((0.05, 0.02), (-0.3, 0.1))
    ]


def derived(folder: Path, world: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    """All layers of the scene, and what the most vertical view shows of its final surface, NaN where it is not used."""
    z, sigma, image = world

    def stored(name: str, values: np.ndarray) -> StoredRaster:
        raster = new_raster(folder / name, GRID, values.dtype)
        raster.write(0, 0, values)
        return raster

    known = np.isfinite(z)
    model = StoredModel(
        stored("height.raw", z),
        stored("sigma.raw", np.where(known, sigma, np.float32(np.nan))),
        stored("pairs.raw", known.astype(np.uint8)),
        stored("confidence.raw", np.where(known, 0.5 + sigma, 0).astype(np.float16)),
        stored("below.raw", np.zeros(GRID.shape, np.float16)),
    )
    found = derive(model, views_of(image), FRAME, returns(), folder, 2, Silent())
    rasters = {name: getattr(found, name) for name in LAYERS if name != "ortho"} | {"ortho": found.ortho[0]}
    grid = found.dsm.grid
    drawn = ortho(Raster(found.dsm.read(0, 0, *grid.shape), grid), rank_views(Raster(z, GRID), views_of(image)))
    return {name: raster.read(0, 0, *grid.shape) for name, raster in rasters.items()} | {
        "first view": np.where(drawn.source == 1, drawn.values[0], np.float32(np.nan))
    }


@pytest.mark.slow
def test_derive__does_not_depend_on_the_blocks(
    world: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = derived(tmp_path, world)
    for module in (blocks, terrain):
        monkeypatch.setattr(module, "BLOCK_CELLS", 224)
    parts = derived(tmp_path, world)
    codes = np.bincount(whole["mask"].ravel(), minlength=4)
    assert (codes > 8000).all(), codes  # the scene has all kinds of cells
    assert (whole["mask"] != parts["mask"]).mean() < 1e-4
    for name in ("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm"):
        a, b = whole[name], parts[name]
        same = np.isclose(a, b, rtol=0, atol=1e-3, equal_nan=True)
        assert same.mean() > 0.9998, (name, 1 - same.mean())
    assert (np.abs(whole["ortho"].astype(int) - parts["ortho"]) > 1).mean() < 1e-3
    for kind in (MaskCode.MEASURED, MaskCode.FILLED, MaskCode.WATER):  # colours lie on the surface as it is in the end
        cells = (whole["mask"] == kind) & np.isfinite(whole["first view"])
        off = np.abs(whole["ortho"] - whole["first view"])[cells]
        assert cells.sum() > 5000 and (off > 1.5).mean() < 0.002, kind
    assert not whole["ortho"][whole["mask"] == MaskCode.NODATA].any()
    lake = whole["dsm"][(whole["mask"] == MaskCode.WATER)]
    assert np.ptp(lake[np.abs(lake - np.median(lake)) < 1]) < 0.01


@pytest.mark.slow
def test_run__envelope_is_the_surface_with_its_rims(hamlet: SceneFiles, tmp_path: Path) -> None:
    found = {}
    for kind in ("as_seen", "envelope"):
        content = yaml.safe_load(hamlet.config.read_text())
        content["output"]["surface"], content["lidar"] = kind, []
        scene = hamlet.config.with_name(f"{kind}.yaml")
        scene.write_text(yaml.safe_dump(content))
        run_command(scene, tmp_path / kind, workers=2, quiet=True)
        found[kind] = {
            name: read_raster(tmp_path / kind / f"{name}.tif")
            for name in ("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm", "mask")
        }
    seen, upper = ({n: r.values for n, r in found[k].items()} for k in ("as_seen", "envelope"))
    for name in ("dtm", "dtm_sigma", "chm"):
        np.testing.assert_array_equal(upper[name], seen[name])
    known = np.isfinite(seen["dsm"])
    raised = known & (upper["dsm"] > seen["dsm"])
    assert raised.mean() > 0.005 and np.array_equal(upper["dsm"][known & ~raised], seen["dsm"][known & ~raised])
    assert (upper["mask"][raised] == MaskCode.MEASURED).all() and (upper["dsm_sigma"][raised] >= 0.5).all()
    truth, classes = (read_raster(hamlet.epochs[0].truth[n]) for n in ("dsm", "class"))
    x, y = np.meshgrid(*found["as_seen"]["dsm"].grid.centres())
    crowns = raised & (classes.sample(x, y).round() == 5)
    before, after = (np.abs(k["dsm"] - truth.sample(x, y))[crowns] for k in (seen, upper))
    assert crowns.sum() > 200 and after.mean() < 0.4 * before.mean()
