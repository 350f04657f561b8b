"""What a user can get wrong: one clear line, exit code 2, before any work, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine

from terrain3d.camera.read import read_rpc
from terrain3d.camera.write import rpc_tags, write_image
from terrain3d.cli import main
from terrain3d.simulate.scene import SceneFiles

Content = dict[str, Any]
Refused = Callable[..., str]


@pytest.fixture
def content(hamlet: SceneFiles) -> Content:
    """A valid scene, to be spoilt."""
    return {
        "name": "hamlet",
        "images": [str(p) for p in hamlet.epochs[0].images],
        "lidar": [str(p) for p in hamlet.lidar],
        "output": {"resolution": 1.0},
    }


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Run a scene that must be refused, and give the one line that says why.

    ties: whether the fault shows only when the images are tied; everything else must show before that.
    """

    def run(content: Content | str, *, ties: bool = False, out: Path | None = None) -> str:
        def too_late(*_: object, **__: object) -> None:
            raise AssertionError("the error comes after the work has begun")

        monkeypatch.setattr(f"terrain3d.pipeline.run.{'coarse_pass' if ties else 'build_network'}", too_late)
        scene = tmp_path / "scene.yaml"
        scene.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        target = out or tmp_path / "out"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            main(["run", str(scene), "--out", str(target), "--quiet", "--workers", "1"])
        printed = capsys.readouterr()
        assert stop.value.code == 2, printed.err
        assert printed.out == ""
        lines = printed.err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("terrain3d: "), printed.err
        assert "Traceback" not in printed.err and "Error" not in lines[0]
        assert sorted(tmp_path.rglob("*")) == before, "files were left behind"
        return lines[0]

    return run


def copy_of(image: str | Path, path: Path, *, values: np.ndarray | None = None, shift_deg: float = 0.0) -> str:
    """The image with other pixels, or with a camera that looks elsewhere."""
    rpc = read_rpc(Path(image))
    with rasterio.open(image) as file:
        own = file.read(1)
    write_image(path, own if values is None else values, replace(rpc, lon_off_deg=rpc.lon_off_deg + shift_deg))
    return str(path)


def shape_of(image: str) -> tuple[int, int]:
    with rasterio.open(image) as file:
        return file.height, file.width


def test_run__the_scene_that_is_spoilt_here_is_good(content: Content, refused: Refused) -> None:
    """With nothing wrong the run gets to the ties: so each refusal below is for its own reason."""
    with pytest.raises(AssertionError, match="after the work has begun"):
        refused(content)


# images


def test_image__without_rpc(content: Content, hamlet: SceneFiles, tmp_path: Path, refused: Refused) -> None:
    bare = tmp_path / "bare.tif"
    with rasterio.open(hamlet.epochs[0].images[1]) as file:
        values = file.read(1)
    profile = {"driver": "GTiff", "dtype": "uint16", "count": 1, "height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(bare, "w", **profile) as file:
        file.write(values, 1)
    line = refused({**content, "images": [str(hamlet.epochs[0].images[0]), str(bare)]})
    assert "bare.tif" in line and "RPC" in line


def test_images__that_do_not_overlap(content: Content, tmp_path: Path, refused: Refused) -> None:
    first, second = content["images"]
    line = refused({**content, "images": [first, copy_of(second, tmp_path / "away.tif", shift_deg=0.1)], "lidar": []})
    assert "shares no ground" in line and (Path(first).name in line or "away.tif" in line)


def test_image__truncated(content: Content, tmp_path: Path, refused: Refused) -> None:
    first, second = content["images"]
    cut = tmp_path / "cut.tif"
    data = Path(second).read_bytes()
    cut.write_bytes(data[: len(data) // 2])
    line = refused({**content, "images": [first, str(cut)]})
    assert "cut.tif" in line and "truncated" in line


def test_image__all_nodata(content: Content, tmp_path: Path, refused: Refused) -> None:
    first, second = content["images"]
    empty = copy_of(second, tmp_path / "empty.tif", values=np.zeros(shape_of(second), np.uint16))
    line = refused({**content, "images": [first, empty]})
    assert "empty.tif" in line and "nodata" in line


def test_image__of_nan_only(content: Content, tmp_path: Path, refused: Refused) -> None:
    first, second = content["images"]
    rows, columns = shape_of(second)
    blank = tmp_path / "nan.tif"
    profile = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": rows, "width": columns}
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), rasterio.open(blank, "w", **profile) as file:
        file.update_tags(ns="RPC", **rpc_tags(read_rpc(Path(second))))
        file.write(np.full((rows, columns), np.nan, np.float32), 1)
    line = refused({**content, "images": [first, str(blank)]})
    assert "nan.tif" in line and "no pixel with a value" in line


@pytest.mark.parametrize("data", [b"", b"not an image at all\n" * 20], ids=["empty", "text"])
def test_image__is_no_image(content: Content, tmp_path: Path, refused: Refused, data: bytes) -> None:
    first, _ = content["images"]
    (tmp_path / "notes.tif").write_bytes(data)
    assert "notes.tif" in refused({**content, "images": [first, str(tmp_path / "notes.tif")]})


def test_images__only_one(content: Content, refused: Refused) -> None:
    line = refused({**content, "images": content["images"][:1]})
    assert "at least two images" in line and "scene.yaml" in line


def test_images__the_same_twice(content: Content, refused: Refused) -> None:
    first = content["images"][0]
    line = refused({**content, "images": [first, first]})
    assert "listed twice" in line and Path(first).name in line


def test_image__missing(content: Content, tmp_path: Path, refused: Refused) -> None:
    line = refused({**content, "images": [content["images"][0], "not_there.tif"]})
    assert "not_there.tif" in line and "no image found" in line


def test_image__glob_without_match(content: Content, refused: Refused) -> None:
    line = refused({**content, "images": ["nothing/*.tif"]})
    assert "nothing/*.tif" in line and "no image found" in line


def test_image__rpc_file_missing(content: Content, refused: Refused) -> None:
    first, second = content["images"]
    line = refused({**content, "images": [first, {"path": second, "rpc": "gone.RPB"}]})
    assert "gone.RPB" in line


def test_image__mask_of_another_size(content: Content, tmp_path: Path, refused: Refused) -> None:
    first, second = content["images"]
    mask = copy_of(second, tmp_path / "mask.tif", values=np.ones((40, 50), np.uint16))
    line = refused({**content, "images": [first, {"path": second, "mask": mask}]})
    assert "mask.tif" in line and "does not fit" in line


@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_images__without_common_texture(content: Content, tmp_path: Path, refused: Refused, kind: str) -> None:
    rng = np.random.default_rng(5)
    images = []
    for n, image in enumerate(content["images"]):
        shape = shape_of(image)
        values = rng.integers(1, 4000, shape) if kind == "noise" else np.full(shape, 700)
        images.append(copy_of(image, tmp_path / f"{kind}_{n}.tif", values=values.astype(np.uint16)))
    line = refused({**content, "images": images, "lidar": []}, ties=True)
    assert "tie points" in line and "check that the images" in line


# lidar


def test_lidar__without_usable_returns(content: Content, shared_data: Path, refused: Refused) -> None:
    granule = shared_data / "real" / "atl03_polar" / "ATL03_gt1l.h5"
    line = refused({**content, "lidar": [str(granule)]})
    assert "ATL03_gt1l.h5" in line and "no usable returns" in line


def test_lidar__all_granules_of_the_polar_set(content: Content, shared_data: Path, refused: Refused) -> None:
    assert "no usable returns" in refused({**content, "lidar": [str(shared_data / "real" / "atl03_polar" / "*.h5")]})


def test_lidar__gedi_without_elevations(content: Content, shared_data: Path, refused: Refused) -> None:
    line = refused({**content, "lidar": [str(shared_data / "real" / "gedi_no_elevation" / "*.h5")]})
    assert "GEDI02_A_2019162222610" in line and "elev" in line


def test_lidar__of_another_scene(content: Content, shared_data: Path, refused: Refused) -> None:
    line = refused({**content, "lidar": [str(shared_data / "scenes" / "mountain" / "lidar" / "*.h5")]})
    assert "no usable returns" in line or "far" in line or "outside" in line


def test_lidar__a_degree_away(content: Content, tmp_path: Path, refused: Refused) -> None:
    moved = []
    for granule in content["lidar"]:
        moved.append(shutil.copy(granule, tmp_path))
        with h5py.File(moved[-1], "r+") as file:
            file.visititems(_one_degree_east)
    line = refused({**content, "lidar": [str(p) for p in moved]})
    assert "km" in line


def _one_degree_east(name: str, item: object) -> None:
    if isinstance(item, h5py.Dataset) and name.rpartition("/")[2].startswith(("longitude", "lon_")):
        item[...] = item[...] + 1.0


def test_lidar__missing(content: Content, refused: Refused) -> None:
    line = refused({**content, "lidar": ["gone/*.h5"]})
    assert "gone/*.h5" in line and "no lidar file found" in line


def test_lidar__not_hdf5(content: Content, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "text.h5").write_text("lat,lon,h\n1,2,3\n")
    assert "text.h5" in refused({**content, "lidar": ["text.h5"]})


def test_lidar__of_an_unknown_type(content: Content, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "points.xyz").write_text("1 2 3\n")
    line = refused({**content, "lidar": ["points.xyz"]})
    assert ".xyz" in line and "HDF5" in line


# configuration


def test_key__unknown(content: Content, refused: Refused) -> None:
    line = refused({**content, "imagse": []})
    assert (
        "unknown key 'imagse'" in line
        and "here: name, images, lidar, lidar_rules, water, reference_dem, output" in line
    )


def test_key__unknown_in_output(content: Content, refused: Refused) -> None:
    line = refused({**content, "output": {"resolutoin": 1.0}})
    assert "unknown key 'output.resolutoin'" in line and "resolution, crs, vertical" in line


def test_key__unknown_in_an_image(content: Content, refused: Refused) -> None:
    first, second = content["images"]
    line = refused({**content, "images": [first, {"path": second, "rcp": "a.RPB"}]})
    assert "rcp" in line and "path, rpc, mask" in line


def test_key__missing(content: Content, refused: Refused) -> None:
    line = refused({k: v for k, v in content.items() if k != "images"})
    assert "images" in line and "scene.yaml" in line


@pytest.mark.parametrize("value", [0, -1, 1000, "fine", None])
def test_resolution__impossible(content: Content, refused: Refused, value: object) -> None:
    assert "output.resolution" in refused({**content, "output": {"resolution": value}})


def test_vertical__without_grid(content: Content, refused: Refused) -> None:
    line = refused({**content, "output": {"vertical": "egm2008"}})
    assert "'egm2008' has no geoid grid" in line and "egm96" in line


def test_vertical__grid_is_no_grid(content: Content, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "geoid.gtx").write_text("no grid\n")
    assert "geoid.gtx" in refused({**content, "output": {"vertical": "geoid.gtx"}})


def test_vertical__grid_of_another_place(content: Content, tmp_path: Path, refused: Refused) -> None:
    profile = {
        "driver": "GTiff", "dtype": "float32", "count": 1, "height": 5, "width": 5, "crs": "EPSG:4326",
        "transform": Affine(0.25, 0.0, 140.0, 0.0, -0.25, 36.0),
    }  # fmt: skip
    with rasterio.open(tmp_path / "japan.tif", "w", **profile) as file:
        file.write(np.full((5, 5), 40, np.float32), 1)
    line = refused({**content, "output": {"vertical": "japan.tif"}})
    assert "japan.tif" in line and "covers the area" in line


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:2263", "EPSG:5773", "EPSG:999999", "somewhere"])
def test_crs__not_projected_in_metres(content: Content, refused: Refused, crs: str) -> None:
    line = refused({**content, "output": {"crs": crs}})
    assert "crs" in line.lower() and ("EPSG:32654" in line or "UTM" in line)


@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32755", "EPSG:3031"])
def test_output__crs_that_stretches_the_place(crs: str, content: Content, refused: Refused) -> None:
    line = refused({**content, "output": {"crs": crs}})
    assert f"output crs '{crs}' is not made for longitude" in line and "use 'auto'" in line


@pytest.mark.parametrize("text", ["images: [a.tif\nname: x", "", "just words", "- a\n- b\n", "\x00\x01"])
def test_scene__not_a_configuration(text: str, refused: Refused) -> None:
    assert "scene.yaml" in refused(text)


def test_scene__missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2
    assert "no.yaml: scene file not found" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# output


def test_out__is_a_file(content: Content, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "results").write_text("mine")
    line = refused(content, out=tmp_path / "results")
    assert "results" in line and "cannot be written" in line
    assert (tmp_path / "results").read_text() == "mine"


def test_out__of_an_earlier_run_is_left_as_it_was(content: Content, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dsm.tif").write_text("older result")
    refused({**content, "output": {"vertical": "egm2008"}})
    assert (tmp_path / "out" / "dsm.tif").read_text() == "older result"


def test_entry_point__one_line_and_code_2(content: Content, tmp_path: Path) -> None:
    scene = tmp_path / "scene.yaml"
    scene.write_text(yaml.safe_dump({**content, "output": {"vertical": "egm2008"}}), encoding="utf-8")
    command = [sys.executable, "-m", "terrain3d", "run", str(scene), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("terrain3d: ")
    assert not (tmp_path / "out").exists()
