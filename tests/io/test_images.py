from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio

from terrain3d.errors import InputFileError
from terrain3d.io.images import Obscured, has_data, open_image, read_bands, read_window


def write(path: Path, values: np.ndarray, **options: object) -> Path:
    bands = values if values.ndim == 3 else values[None]
    profile = {"driver": "GTiff", "height": bands.shape[1], "width": bands.shape[2], "count": bands.shape[0]}
    with rasterio.open(path, "w", dtype=values.dtype.name, **profile, **options) as file:
        file.write(bands)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(3).integers(1, 4000, (90, 120)).astype(np.uint16)


def test_read_window__sticks_out_on_all_sides(tmp_path: Path, pixels: np.ndarray) -> None:
    image = open_image(write(tmp_path / "a.tif", pixels))
    assert (image.shape, image.nodata, image.dtype, image.bands) == ((90, 120), 0.0, "uint16", (1,))
    window = read_window(image, -5, -7, 110, 140)
    assert window.dtype == np.float32 and window.shape == (110, 140)
    np.testing.assert_array_equal(window[5:95, 7:127], pixels)
    assert np.isfinite(window).sum() == pixels.size
    np.testing.assert_array_equal(read_window(image, 10, 20, 5, 6), pixels[10:15, 20:26])
    assert np.isnan(read_window(image, 200, 0, 3, 3)).all()


def test_read_window__nodata(tmp_path: Path, pixels: np.ndarray) -> None:
    pixels[2, 3], pixels[4, 5] = 0, 65535
    undeclared = read_window(open_image(write(tmp_path / "a.tif", pixels)), 0, 0, 90, 120)
    assert np.isnan(undeclared[2, 3]) and undeclared[4, 5] == 65535
    declared = read_window(open_image(write(tmp_path / "b.tif", pixels, nodata=65535)), 0, 0, 90, 120)
    assert declared[2, 3] == 0 and np.isnan(declared[4, 5])
    real = np.float32([[0, np.inf], [np.nan, -5]])
    image = open_image(write(tmp_path / "c.tif", real, nodata=-5))
    np.testing.assert_array_equal(read_window(image, 0, 0, 2, 2), np.float32([[0, np.nan], [np.nan, np.nan]]))
    collar = read_window(open_image(write(tmp_path / "d.tif", np.float32([[0, 0.2], [np.nan, -5]]))), 0, 0, 2, 2)
    np.testing.assert_array_equal(np.isnan(collar), [[True, False], [True, False]])


def test_read_bands__four_bands_and_their_mean(tmp_path: Path, pixels: np.ndarray) -> None:
    stack = np.stack([pixels, pixels + 40, pixels * 2, pixels + 7])
    stack[:, :10] = 0
    stack[0, 20, 30] = 0  # one band of a shadow
    image = open_image(write(tmp_path / "a.tif", stack, nodata=0, interleave="pixel"))
    assert image.bands == (1, 2, 3, 4) and image.alpha is None
    bands = read_bands(image, 5, -2, 40, 60)
    assert bands.shape == (4, 40, 60) and np.isnan(bands[:, :5]).all() and np.isnan(bands[:, :, :2]).all()
    np.testing.assert_array_equal(bands[:, 5:, 2:], stack[:, 10:45, :58])
    np.testing.assert_allclose(read_window(image, 10, 0, 35, 58), stack[:, 10:45, :58].mean(axis=0), rtol=1e-6)
    marked = open_image(write(tmp_path / "b.tif", np.where(stack == 0, 65535, stack).astype(np.uint16), nodata=65535))
    assert np.isnan(read_bands(marked, 20, 30, 1, 1)).all()  # a value that was chosen to say so


def test_open_image__alpha_is_a_mask_and_infrared_is_not(tmp_path: Path, pixels: np.ndarray) -> None:
    colour = (pixels[None] // 16 + np.arange(4)[:, None, None] + 1).astype(np.uint8)
    infrared = open_image(write(tmp_path / "a.tif", colour, photometric="rgb", alpha="yes"))  # GDAL calls band 4 alpha
    assert infrared.bands == (1, 2, 3, 4) and infrared.alpha is None
    colour[3], colour[3, :9] = 255, 0
    image = open_image(write(tmp_path / "b.tif", colour, photometric="rgb", alpha="yes"))
    assert image.bands == (1, 2, 3) and image.alpha == 4
    window = read_bands(image, 0, 0, 90, 120)
    assert window.shape == (3, 90, 120) and np.isnan(window[:, :9]).all() and np.isfinite(window[:, 9:]).all()
    silent = open_image(write(tmp_path / "c.tif", colour, photometric="minisblack", alpha="unspecified"))
    assert silent.bands == (1, 2, 3) and silent.alpha == 4
    np.testing.assert_array_equal(read_bands(silent, 0, 0, 90, 120), window)
    empty = open_image(write(tmp_path / "d.tif", colour * np.uint8([1, 1, 1, 0])[:, None, None], photometric="rgb"))
    assert empty.alpha is None and np.isfinite(read_bands(empty, 0, 0, 90, 120)).all()


def test_read_bands__squares_that_cloud_hides_have_no_value(tmp_path: Path, pixels: np.ndarray) -> None:
    squares = np.zeros((12, 15), np.bool_)
    squares[2, 3] = True
    image = replace(open_image(write(tmp_path / "a.tif", pixels)), obscured=Obscured(squares, 8))
    window = read_bands(image, -3, 5, 40, 60)[0]
    hidden = np.zeros(window.shape, np.bool_)
    hidden[16 + 3 : 24 + 3, 24 - 5 : 32 - 5] = True
    np.testing.assert_array_equal(np.isnan(window[3:]), hidden[3:])
    assert image.obscured is not None and image.obscured.share == pytest.approx(1 / 180)


def test_open_image__truncated_in_a_later_band(tmp_path: Path, pixels: np.ndarray) -> None:
    path = write(tmp_path / "a.tif", np.stack([pixels] * 4), interleave="band")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.9)])
    with pytest.raises(InputFileError, match="truncated"):
        open_image(path)


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"tiled": True, "blockxsize": 16, "blockysize": 16}])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_open_image__truncated(tmp_path: Path, pixels: np.ndarray, options: dict[str, object], share: float) -> None:
    path = write(tmp_path / "a.tif", pixels, **options)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputFileError, match=r"a\.tif.*truncated") as caught:
        open_image(path)
    assert len(str(caught.value).splitlines()) == 1


def test_open_image__bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no such file"):
        open_image(tmp_path / "a.tif")
    with pytest.raises(InputFileError, match="not a file"):
        open_image(tmp_path)
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(InputFileError):
        open_image(tmp_path / "a.tif")
    with pytest.raises(InputFileError, match="real numbers"):
        open_image(write(tmp_path / "c.tif", np.ones((4, 4), np.complex64)))


def test_has_data__empty_and_nearly_empty(tmp_path: Path) -> None:
    values = np.zeros((300, 2000), np.uint16)
    assert not has_data(open_image(write(tmp_path / "a.tif", values)))
    values[:, 900:1100] = 7
    assert has_data(open_image(write(tmp_path / "b.tif", values)))


def test_read_window__from_threads(tmp_path: Path, pixels: np.ndarray) -> None:
    image = open_image(write(tmp_path / "a.tif", pixels, tiled=True, blockxsize=16, blockysize=16, compress="deflate"))
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda r: read_window(image, r, 0, 1, 120), range(90)))
    np.testing.assert_array_equal(np.concatenate(rows), pixels)


def test_read_window__reflectance_becomes_counts(tmp_path: Path, pixels: np.ndarray) -> None:
    reflectance = np.where(pixels > 100, pixels / np.float32(2**14), np.float32(np.nan))
    image = open_image(write(tmp_path / "a.tif", reflectance))
    assert image.gain == 2.0**13  # a median of about 2000 counts, halved: within a factor of 1.5 of 1000
    np.testing.assert_array_equal(read_window(image, 0, 0, 90, 120), reflectance * 2**13)
    np.testing.assert_array_equal(read_bands(image, 0, 0, 90, 120)[0], reflectance)  # an ortho keeps its values
    assert open_image(write(tmp_path / "b.tif", np.zeros((9, 9), np.float32))).gain == 1
    assert open_image(write(tmp_path / "c.tif", pixels)).gain == 1


def test_open_image__without_a_place_on_the_ground_and_without_a_word(tmp_path: Path, pixels: np.ndarray) -> None:
    image, mask = write(tmp_path / "a.tif", pixels), write(tmp_path / "m.tif", (pixels > 100).astype(np.uint8))
    code = f"from pathlib import Path; from terrain3d.io.images import *; m = Path({str(mask)!r}); "
    code += f"read_window(open_image(Path({str(image)!r}), m), 0, 0, 9, 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_open_image__collars_that_nobody_declares(tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(60, 900, (300, 400)).astype(np.uint16)
    row, column = np.mgrid[:300, :400]
    outside = (row + column < 120) | (row - column > 200)

    def found(name: str, values: np.ndarray, **options: object) -> tuple[float | None, np.ndarray]:
        image = open_image(write(tmp_path / f"{name}.tif", values, **options))
        return image.collar, np.isnan(read_window(image, 0, 0, 300, 400))

    def filled(value: float, kind: type = np.uint16) -> np.ndarray:
        return np.where(outside, value, pixels.astype(float)).astype(kind)

    for name, values in {
        "white": filled(65535), "below": filled(-9999, np.int16), "real": filled(-9999, np.float32),
        "between": np.where(outside | (pixels != 500), filled(500), 501).astype(np.uint16),
    }.items():  # fmt: skip
        collar, missing = found(name, values)
        assert collar == float(values[0, 0]) and np.array_equal(missing, outside), name
    bands = np.stack([pixels, pixels // 2, pixels // 3]).astype(np.uint8)
    bands[:, outside] = 255
    bands[0, 150, 200] = 255  # bright in one band only
    collar, missing = found("rgb", bands)
    assert collar == 255 and np.array_equal(missing, outside)
    dark = np.where(outside, 50, pixels).astype(np.uint16)  # may be a lake
    scattered = filled(500)
    scattered[::3, ::5] = 500  # grey as much of the rest is
    cloud = pixels.copy()
    cloud[100:200, 100:200] = 4095  # inside
    small = pixels.copy()
    small[:20, :20] = 65535
    for name, values in {"dark": dark, "grey": scattered, "cloud": cloud, "small": small, "none": pixels}.items():
        collar, missing = found(name, values)
        assert collar is None and not missing.any(), name
    assert found("declared", filled(65535), nodata=65535)[0] is None
    assert found("flat", np.full_like(pixels, 700))[0] is None
