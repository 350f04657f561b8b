"""Images of several bands, from the scene file to the files of the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

from terrain3d.camera.read import read_rpc
from terrain3d.camera.rpc import RpcModel
from terrain3d.camera.write import rpc_tags
from terrain3d.commands.run import run_command
from terrain3d.config import load_scene
from terrain3d.errors import CameraError
from terrain3d.image.colour import Colour
from terrain3d.pipeline.load import load_views
from terrain3d.simulate.scene import SceneFiles

GAINS = (0.6, 0.9, 1.1, 1.4)


def with_bands(source: Path, target: Path) -> None:
    """The image as four bands of different brightness, with its RPC."""
    with rasterio.open(source) as file:
        values, profile, tags = file.read(1), file.profile, file.tags(ns="RPC")
    noise = np.random.default_rng(1).normal(0, 2, (4, *values.shape))
    bands = np.stack(
        [np.where(values > 0, np.clip(g * values + n, 1, None), 0) for g, n in zip(GAINS, noise, strict=True)]
    )
    with rasterio.open(target, "w", **{**profile, "count": 4, "interleave": "pixel"}) as file:
        file.write(bands.astype(np.uint16))
        file.update_tags(ns="RPC", **tags)


def with_colour(pan: Path, target: Path) -> RpcModel:
    """Two bands of a quarter of the image's resolution, with an RPC that is off by some pixels."""
    with rasterio.open(pan) as file:
        values, profile, tags = file.read(1).astype(float), file.profile, file.tags(ns="RPC")
    h, w = (n // 4 for n in values.shape)
    means = values[: 4 * h, : 4 * w].reshape(h, 4, w, 4)
    bands = np.stack([np.where(means.min(axis=(1, 3)) > 0, g * means.mean(axis=(1, 3)), 0) for g in (0.5, 2.0)])
    for axis, off in (("LINE", 1.3), ("SAMP", -0.8)):
        tags[f"{axis}_OFF"] = str((float(tags[f"{axis}_OFF"]) - 1.5) / 4 + off)
        tags[f"{axis}_SCALE"] = str(float(tags[f"{axis}_SCALE"]) / 4)
    with rasterio.open(target, "w", **{**profile, "count": 2, "height": h, "width": w}) as file:
        file.write(bands.astype(np.uint16))
        file.update_tags(ns="RPC", **tags)
    return read_rpc(target)


@pytest.mark.slow
def test_load_views__rpc_of_the_colour_from_a_file(hamlet: SceneFiles, tmp_path: Path) -> None:
    """A multispectral image without RPC, and the RPC in a file with another name, is as one that has it in its tags."""
    pan, tagged, bare, vendor = (
        hamlet.epochs[0].images[0], tmp_path / "tagged.tif", tmp_path / "bare.tif", tmp_path / "vendor.txt"
    )  # fmt: skip
    lines = []
    for key, value in rpc_tags(with_colour(pan, tagged)).items():
        numbers = value.split()
        lines += [f"{key}_{i}: {n}" for i, n in enumerate(numbers, 1)] if len(numbers) > 1 else [f"{key}: {value}"]
    vendor.write_text("\n".join(lines))
    with rasterio.open(tagged) as file, rasterio.open(bare, "w", **file.profile) as copy:
        copy.write(file.read())

    def colour_of(given: object) -> Colour | None:
        images = [{"path": str(pan), "colour": given}, str(hamlet.epochs[0].images[1])]
        config = tmp_path / "scene.yaml"
        config.write_text(yaml.safe_dump({"name": "colour", "images": images}))
        return load_views(load_scene(config))[0].colour

    expected, found = colour_of(str(tagged)), colour_of({"path": str(bare), "rpc": str(vendor)})
    assert expected is not None and found is not None and found.windows == expected.windows > 3
    np.testing.assert_allclose(found.line, expected.line, atol=1e-6)
    np.testing.assert_allclose(found.sample, expected.sample, atol=1e-6)
    with pytest.raises(CameraError, match=r"bare\.tif.*colour: \{path:, rpc:\}"):
        colour_of({"path": str(bare)})


@pytest.mark.slow
def test_run__panchromatic_with_colour(hamlet: SceneFiles, tmp_path: Path) -> None:
    images = []
    for k, pan in enumerate(hamlet.epochs[0].images):
        with_colour(pan, tmp_path / f"colour_{k}.tif")
        images.append({"path": str(pan), "colour": str(tmp_path / f"colour_{k}.tif")})
    found = {}
    for name, given in (("grey", [e["path"] for e in images]), ("colour", images)):
        scene = tmp_path / f"{name}.yaml"
        scene.write_text(yaml.safe_dump({"name": name, "images": given, "output": {"resolution": 0.5}}))
        run_command(scene, tmp_path / name, workers=2, quiet=True)
        with rasterio.open(tmp_path / name / "ortho.tif") as ortho, rasterio.open(tmp_path / name / "dsm.tif") as dsm:
            found[name] = ortho.read().astype(float), dsm.read(1)
    (grey, surface), (colour, same) = found["grey"], found["colour"]
    assert colour.shape[0] == 2 and np.array_equal(surface, same)
    known = (grey[0] > 0) & (colour > 0).all(axis=0)
    assert known.mean() > 0.6 * (grey[0] > 0).mean()
    for band, gain in zip(colour, (0.5, 2.0), strict=True):
        ratio = band[known] / (gain * grey[0][known])
        assert np.median(ratio) == pytest.approx(1, abs=0.01) and np.percentile(np.abs(ratio - 1), 90) < 0.15


@pytest.mark.slow
def test_run__four_bands(hamlet: SceneFiles, tmp_path: Path) -> None:
    shutil.copytree(hamlet.folder, tmp_path / "scene")
    for path in hamlet.epochs[0].images:
        with_bands(path, tmp_path / "scene" / path.relative_to(hamlet.folder))
    config = tmp_path / "scene" / hamlet.config.name
    results = {}
    for name, scene in (("one", hamlet.config), ("four", config)):
        content = yaml.safe_load(scene.read_text())
        content["output"]["super_resolution"] = name == "four"
        scene.with_name("short.yaml").write_text(yaml.safe_dump({**content, "lidar": []}))
        run_command(scene.with_name("short.yaml"), tmp_path / name, workers=2, quiet=True)
        with rasterio.open(tmp_path / name / "dsm.tif") as file, rasterio.open(tmp_path / name / "ortho.tif") as ortho:
            assert file.transform == ortho.transform or name == "four"
            results[name] = (file.read(1, masked=True), ortho.read(), ortho.dtypes, ortho.nodata)
    (dsm, _, _, _), (same, bands, dtypes, nodata) = results["one"], results["four"]
    assert dtypes == ("uint16",) * 4 and nodata == 0
    known = (bands > 0).all(axis=0)
    assert known.mean() > 0.7 and np.array_equal(known, (bands > 0).any(axis=0))
    for band, gain in zip(bands, GAINS, strict=True):
        assert np.median(band[known] / bands[0][known]) == pytest.approx(gain / GAINS[0], rel=0.02)
    assert abs(dsm.std() - same.std()) < 0.2
    assert abs(np.ma.median(dsm) - np.ma.median(same)) < 1.0  # without lidar the height is as free as the pointing
    assert not (tmp_path / "one" / "ortho_super.tif").exists()
    with rasterio.open(tmp_path / "four" / "ortho_super.tif") as file:
        fine = file.read()
        assert file.res == (0.25, 0.25) and fine.shape == (4, bands.shape[1] * 2, bands.shape[2] * 2)
    means = fine.reshape(4, bands.shape[1], 2, bands.shape[2], 2).mean(axis=(2, 4))
    both = (fine > 0).reshape(4, bands.shape[1], 2, bands.shape[2], 2).all(axis=(0, 2, 4)) & known
    assert both.mean() > 0.65 and abs((means - bands)[:, both].mean()) < 0.015 * bands[:, both].mean()
    figures = json.loads((tmp_path / "four" / "quality.json").read_text())["ortho"]
    assert figures["bands"] == 4 and sum(figures["share_from_image"].values()) + figures[
        "hidden_share"
    ] == pytest.approx(1)
