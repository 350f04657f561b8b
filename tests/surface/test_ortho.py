from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.read import read_rpc
from terrain3d.camera.rpc import RpcModel
from terrain3d.crs import Reference, to_lonlat
from terrain3d.io.images import open_image, read_bands
from terrain3d.io.rasters import read_classes, read_raster
from terrain3d.raster import Grid, Raster
from terrain3d.surface.ortho import OrthoView, odd_lights, ortho, rank_views
from terrain3d.surface.visibility import visible

NORTH, WEST, SIZE = 3.9e6, 3.0e5, 200


def oblique(lean_east: float, lean_north: float) -> Camera:
    """Camera over the test grid, 0.5 m pixels, whose relief leans by the given metres per metre."""
    lon, lat = to_lonlat("EPSG:32654", np.array([WEST + 50.0]), np.array([NORTH - 50.0]))
    east = to_lonlat("EPSG:32654", np.array([WEST + 51.0]), np.array([NORTH - 50.0]))
    north = to_lonlat("EPSG:32654", np.array([WEST + 50.0]), np.array([NORTH - 49.0]))
    per_metre = np.array([[east[0][0] - lon[0], north[0][0] - lon[0]], [east[1][0] - lat[0], north[1][0] - lat[0]]])
    to_metres = np.linalg.inv(per_metre) * 0.01  # of a normalized hundredth of a degree
    samp = np.zeros(20)
    line = np.zeros(20)
    samp[1:4] = 2 * to_metres[0, 0], 2 * to_metres[0, 1], 2 * lean_east
    line[1:4] = -2 * to_metres[1, 0], -2 * to_metres[1, 1], -2 * lean_north
    one = np.eye(20)[0]
    return Camera(
        RpcModel(
            tuple(line), tuple(one), tuple(samp), tuple(one), 99.5, 1.0, 99.5, 1.0,
            float(lon[0]), 0.01, float(lat[0]), 0.01, 0.0, 1.0,
        )
    )  # fmt: skip


def view_of(image: np.ndarray, camera: Camera) -> OrthoView:
    return OrthoView(camera, lambda r, c, h, w: image[None, r : r + h, c : c + w].astype(np.float32), image.shape)


def drawn(dsm: Raster, views: list[OrthoView]) -> np.ndarray:
    """Values of the first band, NaN where no view sees a cell."""
    return ortho(dsm, rank_views(dsm, views)).values[0]


def flat() -> Raster:
    return Raster(np.zeros((SIZE, SIZE), np.float32), Grid(Reference("EPSG:32654"), WEST, NORTH, 0.5, SIZE, SIZE))


@pytest.mark.parametrize(
    ("lean", "hidden"), [((0.5, 0.0), (0, 1)), ((-0.5, 0.0), (0, -1)), ((0.0, 0.5), (-1, 0)), ((0.1, -0.5), (1, 0))]
)
def test_visible__shadow_lies_on_the_side_relief_leans_to(lean: tuple[float, float], hidden: tuple[int, int]) -> None:
    z = np.zeros((101, 101), np.float32)
    z[45:56, 45:56] = 10.0  # hides 5 m, 10 cells
    seen = visible(z, 0.5, lean)
    assert seen[45:56, 45:56].all()
    assert not seen[50 + 8 * hidden[0], 50 + 8 * hidden[1]]
    assert seen[50 - 8 * hidden[0], 50 - 8 * hidden[1]]
    length = sum(not seen[50 + k * hidden[0], 50 + k * hidden[1]] for k in range(6, 40))
    assert length == pytest.approx(9, abs=1)  # one metre of tolerance takes one cell


def test_visible__nadir_and_voids() -> None:
    z = np.zeros((5, 5), np.float32)
    z[2, 2] = np.nan
    assert visible(z, 0.5, (0.0, 0.0)).sum() == 24


def test_ortho__geometry_is_exact_on_flat_ground() -> None:
    line, sample = np.mgrid[0:SIZE, 0:SIZE]
    got = drawn(flat(), [view_of(1000 + 10 * sample + line, oblique(0.0, 0.0))])
    expected = 1000 + 10 * sample + line
    assert np.abs(got - expected)[5:-5, 5:-5].max() <= 1


def test_ortho__relief_is_placed_and_hidden_cells_come_from_the_other_view() -> None:
    dsm = flat()
    dsm.values[80:120, 80:120] = 20.0
    ground, roof = 500.0, 2000.0
    images = []
    for lean in (0.3, -0.4):
        image = np.full((SIZE, SIZE), ground)
        shift = round(lean * 20 / 0.5)
        image[80:120, min(80, 80 + shift) : max(120, 120 + shift)] = 60.0  # facade
        image[80:120, 80 + shift : 120 + shift] = roof
        images.append(view_of(image, oblique(lean, 0.0)))
    got = drawn(dsm, images)
    assert np.abs(got[85:115, 85:115] - roof).max() <= 2
    assert np.abs(got[85:115, 125:130] - ground).max() <= 2  # hidden behind the roof in the first view
    assert np.abs(got[85:115, 66:75] - ground).max() <= 2


def test_ortho__views_are_balanced() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(400, 900, (SIZE, SIZE))
    half = np.where(np.arange(SIZE) < SIZE // 2, image, np.nan)
    got = drawn(flat(), [view_of(half, oblique(0.0, 0.0)), view_of(1.3 * image + 200, oblique(0.001, 0.0))])
    assert np.abs(got[10:-10, 110:-10] - image[10:-10, 110:-10]).mean() < 12


def test_odd_lights__is_the_view_unlike_two_others() -> None:
    rng = np.random.default_rng(4)
    ground = rng.normal(500, 100, 4000)
    views = np.array([ground, 0.7 * ground + 90, 1.2 * ground, ground], np.float32) + rng.normal(0, 20, (4, 4000))
    assert not odd_lights(views).any()
    views[2] += rng.normal(0, 150, 4000)  # haze
    assert odd_lights(views).tolist() == [False, False, True, False]
    assert not odd_lights(views[1:3]).any()  # of two nothing tells which
    views[0, :3950] = np.nan
    views[3] = 700  # of one value
    assert not odd_lights(views).any()


def test_rank_views__the_most_vertical_under_haze_or_cloud_comes_last() -> None:
    rng = np.random.default_rng(5)
    image = rng.uniform(400, 900, (SIZE, SIZE))
    haze = 300 + 0.4 * image + rng.normal(0, 120, image.shape)
    leans, images = (0.0, 0.001, 0.002), (haze, image, 1.1 * image)
    views = [view_of(i, oblique(lean, 0.0)) for i, lean in zip(images, leans, strict=True)]
    ranked = rank_views(flat(), views)
    assert [views.index(r.view) for r in ranked] == [1, 2, 0]
    assert np.abs(drawn(flat(), views)[10:-10, 10:-10] - image[10:-10, 10:-10]).mean() < 12
    plain = [views[1], views[2]]
    assert [r.view for r in rank_views(flat(), plain)] == plain
    covered = replace(plain[0], obscured=0.8)
    assert rank_views(flat(), [covered, plain[1]])[-1].view is covered


def test_ortho__all_bands_are_drawn_and_balanced() -> None:
    rng = np.random.default_rng(2)
    image = rng.uniform(400, 900, (SIZE, SIZE))
    bands = np.stack([image, 2 * image, 900 - 0.5 * image, np.full_like(image, 77)]).astype(np.float32)
    half = np.where(np.arange(SIZE) < SIZE // 2, bands, np.nan)
    other = bands * np.array([1.2, 0.8, 1.0, 1.5])[:, None, None] + 50
    views = [
        OrthoView(
            oblique(lean, 0.0), lambda r, c, h, w, v=v: v[:, r : r + h, c : c + w].astype(np.float32), image.shape, 4
        )
        for v, lean in ((half, 0.0), (other, 0.001))
    ]
    dsm = flat()
    got = ortho(dsm, rank_views(dsm, views))
    assert got.values.shape == (4, SIZE, SIZE) and set(np.unique(got.source[5:-5, 5:-5])) == {1, 2}
    for band, truth in zip(got.values, bands, strict=True):
        assert np.abs(band - truth)[10:-10, 110:-10].mean() < 0.02 * truth.mean()


def test_ortho__what_no_view_sees_is_empty() -> None:
    dsm = flat()
    dsm.values[80:120, 80:120] = 20.0
    views = [view_of(np.full((SIZE, SIZE), 500.0), oblique(lean, 0.0)) for lean in (0.3, 0.4)]
    got = ortho(dsm, rank_views(dsm, views))
    empty = np.isnan(got.values[0])
    assert np.array_equal(empty, got.source == 0)
    assert empty[85:115, 122:130].all()  # 0.3 m a metre of 20 m, less the tolerance
    assert not empty[85:115, 133:].any() and not empty[:, :119].any()


def test_ortho__no_height_no_value() -> None:
    dsm = flat()
    dsm.values[:, :20] = np.nan
    got = drawn(dsm, [view_of(np.full((SIZE, SIZE), 300.0), oblique(0.0, 0.0))])
    assert np.isnan(got[:, :20]).all()
    assert np.allclose(got[10:-10, 30:-10], 300)
    assert np.isnan(drawn(dsm, [])).all()


def test_ortho__roofs_of_a_scene_stand_on_their_footprints(shared_data: Path) -> None:
    scene = shared_data / "scenes" / "town"
    if not scene.is_dir():
        pytest.skip("no scene")
    window = (700, 200, 500, 500)
    dsm = read_raster(scene / "truth1" / "dsm.tif", window=window)
    views = []
    for path in sorted((scene / "epoch1").glob("*.tif")):
        image = open_image(path)
        views.append(
            OrthoView(Camera(read_rpc(path)), lambda r, c, h, w, i=image: read_bands(i, r, c, h, w), image.shape)
        )
    got = drawn(dsm, views)
    classes = read_classes(scene / "truth1" / "class.tif", window=window).values
    assert np.isfinite(got).mean() > 0.97
    # roofs differ from the ground around them, which only a true ortho shows within a few pixels of the footprint
    assert abs(np.nanmedian(got[classes == 6]) - np.nanmedian(got[classes == 2])) > 20


def test_ortho__specks_that_no_view_sees_have_the_mean_around_them() -> None:
    dsm = flat()
    dsm.values[60, 60] = dsm.values[80, 100:102] = -4.0  # dents
    dsm.values[100:130, 60:90] = 10.0  # a house, which hides ground
    image = np.full((SIZE, SIZE), 300, np.uint16)
    found = ortho(dsm, rank_views(dsm, [view_of(image, oblique(0.5, 0.0))]))
    assert found.source[60, 60] == 0 == found.source[80, 101]
    assert found.values[0, 60, 60] == pytest.approx(300) and found.values[0, 80, 101] == pytest.approx(300)
    assert np.isnan(found.values[0, 110, 92:96]).all()
