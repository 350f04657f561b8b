"""Ground, surface and terrain of clouds in files: units, CRS, classes, tiles, and what is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import laspy
import numpy as np
import pytest
from laspy.vlrs.known import WktCoordinateSystemVlr
from pyproj import CRS

from terrain3d.cli import main
from terrain3d.crs import Reference
from terrain3d.errors import ConfigError, FrameError, InputFileError
from terrain3d.io.cloud_files import open_cloud_file
from terrain3d.io.rasters import read_classes, read_raster, write_raster
from terrain3d.pipeline import cloud_ground as stage
from terrain3d.pipeline.cloud_ground import classify_cloud
from terrain3d.pipeline.cloud_models import CloudOptions, cloud_surface
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.raster_terrain import raster_terrain
from terrain3d.raster import Grid, Raster
from terrain3d.surface.mask import MaskCode

FEET = 1200 / 3937


def terrain(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 60 + 0.1 * (x - 3e5) + 2 * np.sin((y - 4e6) / 20)


@pytest.fixture(scope="module")
def points() -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) metres and which of them are on the ground: hills with two houses."""
    rng = np.random.default_rng(1)
    xy = np.column_stack([3e5 + rng.uniform(0, 150, 60_000), 4e6 + rng.uniform(0, 120, 60_000)])
    z = terrain(xy[:, 0], xy[:, 1]) + rng.normal(0, 0.03, len(xy))
    house = np.zeros(len(xy), bool)
    for east, north in ((40, 40), (100, 80)):
        house |= (np.abs(xy[:, 0] - 3e5 - east) < 9) & (np.abs(xy[:, 1] - 4e6 - north) < 7)
    return np.column_stack([xy, z + 6 * house]), ~house


def write_las(path: Path, xyz: np.ndarray, crs: str | None, scale: float = 0.001) -> Path:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales, header.offsets = np.full(3, scale), np.floor(xyz.min(axis=0))
    if crs is not None:
        header.vlrs.append(WktCoordinateSystemVlr(CRS.from_user_input(crs).to_wkt("WKT1_GDAL")))
        header.global_encoding.wkt = True
    cloud = laspy.LasData(header)
    cloud.x, cloud.y, cloud.z = xyz.T
    cloud.intensity = np.arange(len(xyz)) % 1000
    cloud.return_number = cloud.number_of_returns = np.ones(len(xyz), np.uint8)
    cloud.write(path)
    return path


def test_classify_cloud__keeps_all_but_the_class(points: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    xyz, truth = points
    source = write_las(tmp_path / "cloud.laz", xyz, "EPSG:32654")
    total, found = classify_cloud(source, tmp_path / "out.laz", Silent())
    before, after = laspy.read(source), laspy.read(tmp_path / "out.laz")
    assert total == len(xyz) == len(after.points) and found == (np.asarray(after.classification) == 2).sum()
    assert set(np.unique(after.classification)) == {1, 2}
    assert np.array_equal(before.X, after.X) and np.array_equal(before.intensity, after.intensity)
    assert after.header.parse_crs() == before.header.parse_crs()
    assert np.mean((np.asarray(after.classification) == 2) == truth) > 0.99
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.slow
def test_classify_cloud__text_and_feet_and_blocks_agree(
    points: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    xyz, truth = points
    table = tmp_path / "cloud.txt"
    np.savetxt(table, xyz, fmt="%.3f", header="x y z", comments="")
    classify_cloud(table, tmp_path / "out.txt", Silent())
    kinds = np.loadtxt(tmp_path / "out.txt")[:, 3]
    assert np.mean((kinds == 2) == truth) > 0.99
    feet = write_las(tmp_path / "feet.las", xyz / FEET, "EPSG:2263", 0.01)  # New York, US survey feet
    classify_cloud(feet, tmp_path / "feet_out.las", Silent())
    assert np.mean((np.asarray(laspy.read(tmp_path / "feet_out.las").classification) == 2) == truth) > 0.99
    monkeypatch.setattr(stage, "BLOCK_CELLS", 64)
    classify_cloud(table, tmp_path / "parts.txt", Silent())
    assert np.mean(np.loadtxt(tmp_path / "parts.txt")[:, 3] == kinds) > 0.9999


def test_cloud_surface__heights_and_files(points: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    xyz, _ = points
    source = write_las(tmp_path / "cloud.laz", xyz, None)
    options = CloudOptions(1.0, "EPSG:32654", "ellipsoid")
    made = cloud_surface(source, tmp_path / "out", options, Silent(), terrain=True)
    assert set(made.files) == {p.name for p in (tmp_path / "out").iterdir()}
    dtm, dsm, chm = (read_raster(tmp_path / "out" / f"{n}.tif") for n in ("dtm", "dsm", "chm"))
    assert dtm.grid.reference.horizontal == "EPSG:32654" and dtm.grid.reference.vertical.is_ellipsoid
    x, y = dtm.grid.centres()
    error = (dtm.values - terrain(x[None, :], y[:, None]))[3:-3, 3:-3]
    assert np.nanmax(np.abs(error)) < 1.0 and np.sqrt(np.nanmean(error**2)) < 0.15
    row, column = int(dsm.grid.north - 4e6 - 40), int(3e5 + 40 - dsm.grid.west)
    assert chm.values[row, column] == pytest.approx(6, abs=0.7)
    assert read_classes(tmp_path / "out" / "mask.tif").values[row, column] == MaskCode.MEASURED


def test_cloud_surface__coarse_cells_lie_on_their_multiples(
    points: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    source = write_las(tmp_path / "cloud.laz", points[0], "EPSG:32654")
    cloud_surface(source, tmp_path / "out", CloudOptions(3.0), Silent(), terrain=True)
    dtm = read_raster(tmp_path / "out" / "dtm.tif")
    assert dtm.grid.resolution == 3.0 and dtm.grid.west % 3 == 0 and dtm.grid.north % 3 == 0
    x, y = dtm.grid.centres()
    error = (dtm.values - terrain(x[None, :], y[:, None]))[2:-2, 2:-2]
    assert np.sqrt(np.nanmean(error**2)) < 0.2


def test_cloud_surface__several_resolutions_in_folders(points: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    source = write_las(tmp_path / "cloud.laz", points[0], "EPSG:32654")
    out = tmp_path / "out"
    made = cloud_surface(source, out, CloudOptions(1.0, coarser=(2.0, 5.0)), Silent(), terrain=True)
    assert set(made.files) == {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    fine = read_raster(out / "dsm.tif")
    for fold in (2, 5):
        coarse = read_raster(out / f"{fold}m" / "dsm.tif")
        assert coarse.grid.resolution == fold and coarse.grid.west % fold == 0 and coarse.grid.north % fold == 0
        row = round(fine.grid.north - coarse.grid.north + 10 * fold)
        column = round(coarse.grid.west - fine.grid.west + 10 * fold)
        part = fine.values[row : row + fold, column : column + fold]
        assert coarse.values[10, 10] == pytest.approx(part.mean(), abs=0.05)  # open ground
        assert (read_classes(out / f"{fold}m" / "mask.tif").values == MaskCode.MEASURED).mean() > 0.9
        above = coarse.values - read_raster(out / f"{fold}m" / "dtm.tif").values
        assert np.nanmax(np.abs(above - read_raster(out / f"{fold}m" / "chm.tif").values)) < 0.5
        inside = above[2:-2, 2:-2]
        assert ((np.abs(inside) < 0.7) | (np.abs(inside - 6) < 0.7)).mean() > 0.99  # ground or roof, never between
    with pytest.raises(ConfigError, match="no multiple"):
        cloud_surface(source, tmp_path / "none", CloudOptions(1.0, coarser=(2.5,)), Silent())
    assert not (tmp_path / "none").exists()


def test_raster_terrain__of_a_raster_off_the_multiples(tmp_path: Path) -> None:
    grid = Grid(Reference("EPSG:32654"), 3e5 + 0.37, 4e6 + 150.21, 1.0, 150, 160)
    x, y = grid.centres()
    z = terrain(x[None, :], y[:, None])
    truth = z.copy()
    z[60:80, 60:90] += 9
    write_raster(tmp_path / "model.tif", Raster(z.astype(np.float32), grid), nodata=-9999)
    raster_terrain(tmp_path / "model.tif", tmp_path / "out", Silent())
    dtm = read_raster(tmp_path / "out" / "dtm.tif")
    assert dtm.grid == grid
    assert np.nanmax(np.abs(dtm.values - truth)) < 1.0
    chm = read_raster(tmp_path / "out" / "chm.tif").values
    assert chm[70, 75] == pytest.approx(9, abs=0.7) and chm[20, 20] < 0.1


def test_raster_terrain__nothing_is_left_of_towers(tmp_path: Path) -> None:
    y, x = np.mgrid[0:440, 0:480] * 0.5
    ground = 40 + 0.03 * x + 1.5 * np.sin(y / 50)
    z, towers = ground.copy(), np.zeros(ground.shape, bool)
    for row, column, side, height in ((40, 40, 56, 45), (60, 230, 70, 150), (240, 60, 90, 90), (250, 300, 60, 120)):
        towers[row : row + side, column : column + side] = True
        z[row : row + side, column : column + side] = ground[row, column] + height
    z = cv2.GaussianBlur(z, (0, 0), 2.0) + np.random.default_rng(8).normal(0, 0.1, z.shape)
    grid = Grid(Reference("EPSG:32633"), 5e5, 5.2e6, 0.5, *z.shape)
    write_raster(tmp_path / "model.tif", Raster(z.astype(np.float32), grid), nodata=-9999)
    raster_terrain(tmp_path / "model.tif", tmp_path / "out", Silent())
    error = read_raster(tmp_path / "out/dtm.tif").values - ground
    assert np.abs(error[towers]).max() < 2.0
    assert np.sqrt((error**2).mean()) < 0.4


def test_clouds__what_is_refused(
    points: tuple[np.ndarray, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xyz = points[0][:500]
    bare = write_las(tmp_path / "bare.laz", xyz, None)
    with pytest.raises(FrameError, match=r"no CRS.*--crs"):
        open_cloud_file(bare, None, None)
    known = write_las(tmp_path / "known.laz", xyz, "EPSG:32654")
    with pytest.raises(FrameError, match="leave --crs out"):
        open_cloud_file(known, "EPSG:32631", None)
    with pytest.raises(FrameError, match="not projected"):
        open_cloud_file(bare, "EPSG:4326", None)
    with pytest.raises(FrameError, match="not in metres"):
        cloud_surface(bare, tmp_path / "out", CloudOptions(1.0, "EPSG:2263"), Silent())
    with pytest.raises(InputFileError, match="ground class"):
        cloud_surface(known, tmp_path / "out", CloudOptions(1.0, classified=True), Silent(), terrain=True)
    with pytest.raises(ConfigError, match="overwrite"):
        classify_cloud(known, known, Silent())
    (tmp_path / "words.txt").write_text("a b c\nd e f\n")
    with pytest.raises(InputFileError, match="no table"):
        classify_cloud(tmp_path / "words.txt", tmp_path / "o.txt", Silent())
    assert not (tmp_path / "out").exists() and not (tmp_path / "o.txt").exists()
    with pytest.raises(SystemExit) as code:
        main(["dtm", str(bare), "--out", str(tmp_path / "out"), "--quiet"])
    assert code.value.code == 2
    assert "--crs EPSG" in capsys.readouterr().err
