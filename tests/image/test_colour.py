"""A panchromatic and a multispectral image of one acquisition, made by the simulator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio

from terrain3d.camera.adjusted import Camera
from terrain3d.camera.write import rpc_tags, write_image
from terrain3d.errors import ImageError
from terrain3d.image.colour import Colour, laid_on, sharpened
from terrain3d.io.images import open_image
from terrain3d.simulate.render import Radiometry, render
from terrain3d.simulate.sensor import PushbroomCamera, View, camera_over, draw_pointing, fit_rpc
from terrain3d.simulate.shade import illuminate
from terrain3d.simulate.world import World, town

REFLECTANCE = {2: (0.8, 1.0, 1.2), 5: (0.4, 0.9, 1.7), 6: (1.3, 1.0, 0.7), 9: (1.5, 1.0, 0.5)}  # by class, three bands
RATIO = 4
SIZE = 260


def colours(world: World) -> list[World]:
    """The world in each of three bands."""
    return [
        replace(world, albedo=(world.albedo * np.select(
            [world.classes == k for k in REFLECTANCE], [np.float32(v[band]) for v in REFLECTANCE.values()]
        )).astype(np.float32))
        for band in range(3)
    ]  # fmt: skip


class Acquisition:
    """Files of one acquisition, each with a pointing error of its own, and the exact cameras."""

    def __init__(self, folder: Path, seed: int) -> None:
        world, rng = town(seed, SIZE), np.random.default_rng(seed)
        self.heights = world.height_range
        direction, middle = View(9.0, 4.0, 190.0), sum(self.heights) / 2
        self.fine, self.coarse = (camera_over(world.grid, middle, direction, g) for g in (0.5, 0.5 * RATIO))
        lit = [illuminate(w) for w in colours(world)]
        self.truth = np.stack([render(w, self.fine, rng, Radiometry(shot=0.0, read=0.0)) for w in lit]).astype(float)
        self.pan = write_image(
            folder / "pan.tif", render(illuminate(world), self.fine, rng), self._rpc(self.fine, rng)
        )  # fmt: skip
        bands = np.stack([render(w, self.coarse, rng, Radiometry(blur_px=0.42)) for w in lit])
        self.multi = folder / "multi.tif"
        profile = {"driver": "GTiff", "dtype": "uint16", "count": 3, "nodata": 0,
                   "height": bands.shape[1], "width": bands.shape[2]}  # fmt: skip
        self.rpc = self._rpc(self.coarse, rng)
        with rasterio.open(self.multi, "w", **profile) as file:
            file.update_tags(ns="RPC", **rpc_tags(self.rpc))
            file.write(bands)

    def _rpc(self, camera: PushbroomCamera, rng: np.random.Generator):  # type: ignore[no-untyped-def]
        rpc = fit_rpc(camera, draw_pointing(rng, camera.lines), "EPSG:32632", self.heights)
        if camera is self.fine:
            self.fine_rpc = rpc
        return rpc

    def colour(self) -> Colour:
        image, coarse = open_image(self.pan), open_image(self.multi)
        return laid_on(image, Camera(self.fine_rpc), coarse, Camera(self.rpc), sum(self.heights) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 12])
def test_sharpened__lies_where_it_belongs_and_is_nearer_to_the_truth_than_bicubic(seed: int, tmp_path: Path) -> None:
    taken = Acquisition(tmp_path, seed)
    colour = taken.colour()
    assert colour.ratio == pytest.approx(RATIO, rel=0.02) and colour.windows >= 4
    line, sample = np.meshgrid(np.linspace(40, taken.fine.lines - 40, 9), np.linspace(40, taken.fine.samples - 40, 9))
    for height in taken.heights:  # wherever the ground is
        true = taken.coarse.project(*taken.fine.locate(line, sample, height), height)
        away = np.hypot(*(np.array(colour.place(line, sample)) - np.array(true)))
        assert away.max() < 0.5 and away.mean() < 0.25, (away.mean(), away.max())
    shape = taken.truth.shape[1:]
    got = sharpened(open_image(taken.pan), colour, 0, 0, *shape)
    part = sharpened(open_image(taken.pan), colour, 100, 60, 80, 90)
    np.testing.assert_allclose(part, got[:, 100:180, 60:150], rtol=1e-3)  # whatever window is read
    a, b = colour.place(*np.mgrid[0 : shape[0], 0 : shape[1]])
    with rasterio.open(taken.multi) as file:
        pixels = file.read().astype(np.float32)
    plain = [cv2.remap(p, b.astype(np.float32), a.astype(np.float32), cv2.INTER_CUBIC) for p in pixels]
    inner = np.zeros(shape, bool)
    inner[24:-24, 24:-24] = True
    for band, (sharp, bicubic, truth) in enumerate(zip(got, plain, taken.truth, strict=True)):
        known = inner & np.isfinite(sharp) & (truth > 0)
        known &= cv2.erode((bicubic > 1).astype(np.uint8), np.ones((17, 17))) > 0
        assert known.mean() > 0.4
        errors = {n: float(np.sqrt(np.mean((v - truth)[known] ** 2))) for n, v in (("s", sharp), ("b", bicubic))}
        detail = [
            v - cv2.GaussianBlur(v, (0, 0), 2.0) for v in (np.where(known, x, truth) for x in (sharp, bicubic, truth))
        ]
        like = [float(np.corrcoef(d[known], detail[2][known])[0, 1]) for d in detail[:2]]
        assert errors["s"] < 0.75 * errors["b"], (band, errors)
        assert like[0] > 0.8 and like[0] > like[1] + 0.2, (band, like)
        assert np.median((sharp / truth)[known]) == pytest.approx(1, abs=0.03)  # the colour stays


def test_laid_on__what_is_no_coarser_image_of_the_place_is_refused(tmp_path: Path) -> None:
    flat = np.full((40, 40), 500, np.uint16)
    camera = PushbroomCamera(
        np.array([680_000.0, 5_230_000.0, 6e5]), np.array([0.0, -0.5, 0.0]), np.array([0.0, 0.0, -1.0]),
        np.array([0.5 / 6e5, 0.0, 0.0]), 20.0, 40, 40,
    )  # fmt: skip
    rpc = fit_rpc(camera, draw_pointing(np.random.default_rng(0), 40), "EPSG:32632", (0, 50))
    image = open_image(write_image(tmp_path / "a.tif", flat, rpc))
    with pytest.raises(ImageError, match="has pixels"):
        laid_on(image, Camera(rpc), image, Camera(rpc), 20.0)
    coarse = replace(
        camera, pitch=camera.pitch * 4, advance=camera.advance * 4, origin=camera.origin + np.array([5000.0, 0, 0])
    )
    elsewhere = fit_rpc(coarse, draw_pointing(np.random.default_rng(0), 40), "EPSG:32632", (0, 50))
    with pytest.raises(ImageError, match="does not show"):
        laid_on(image, Camera(rpc), image, Camera(elsewhere), 20.0)
