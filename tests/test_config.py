"""The scene file: paths, globs, defaults, and errors that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from terrain3d.config import expand, load_scene
from terrain3d.errors import ConfigError, InputFileError

UTM = "EPSG:32631"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a_2.tif", "a_1.tif", "b.tif", "b.RPB", "cloud.tif", "l1.h5", "l2.H5", "geoid.gtx", "gnss.csv"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, **content: Any) -> Path:
    path = folder / "scene.yaml"
    path.write_text(yaml.safe_dump({"name": "test", "images": ["a_*.tif"], **content}), encoding="utf-8")
    return path


def test_load_scene__paths_are_found_beside_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    scene = load_scene(write(folder, lidar=["*.h5", "l2.H5"]))
    assert [Path(i.path).name for i in scene.images] == ["a_1.tif", "a_2.tif"]  # a glob is sorted
    assert all(Path(i.path).is_absolute() for i in scene.images)
    assert [p.name for p in scene.lidar] == ["l1.h5", "l2.H5"]


def test_load_scene__order_of_images_is_kept(folder: Path) -> None:
    scene = load_scene(write(folder, images=["b.tif", "a_2.tif", "a_1.tif"]))
    assert [Path(i.path).name for i in scene.images] == ["b.tif", "a_2.tif", "a_1.tif"]


def test_load_scene__rpc_and_mask_of_an_image(folder: Path) -> None:
    scene = load_scene(write(folder, images=["a_1.tif", {"path": "b.tif", "rpc": "b.RPB", "mask": "cloud.tif"}]))
    assert scene.images[1].rpc == str(folder / "b.RPB") and scene.images[1].mask == str(folder / "cloud.tif")
    assert scene.images[0].rpc is None


def test_load_scene__colour_of_an_image(folder: Path) -> None:
    scene = load_scene(write(folder, images=["a_1.tif", {"path": "b.tif", "colour": "a_2.tif"}]))
    assert scene.images[1].colour == str(folder / "a_2.tif")
    assert scene.completed()["images"][1] == {"path": str(folder / "b.tif"), "colour": str(folder / "a_2.tif")}
    long = {"path": "b.tif", "colour": {"path": "a_2.tif", "rpc": "b.RPB"}}
    found = load_scene(write(folder, images=["a_1.tif", long])).completed()["images"][1]
    assert found["colour"] == {"path": str(folder / "a_2.tif"), "rpc": str(folder / "b.RPB")}
    long["colour"]["rpcs"] = "x"  # type: ignore[index]
    with pytest.raises(ConfigError, match=r"unknown key 'images\.1\.colour\.rpcs'; .*known keys here: path, rpc$"):
        load_scene(write(folder, images=["a_1.tif", long]))
    with pytest.raises(ConfigError, match="one colour image for 2 images"):
        load_scene(write(folder, images=[{"path": "a_*.tif", "colour": "b.tif"}]))


def test_load_scene__defaults(folder: Path) -> None:
    output = load_scene(write(folder)).config.output
    assert (output.resolution, output.crs, output.vertical) == ("auto", "auto", "ellipsoid")
    assert load_scene(write(folder)).lidar == ()


def test_load_scene__table_with_columns(folder: Path) -> None:
    entry = {"path": "gnss.csv", "columns": {"x": "E", "y": "N", "height": "h"}, "crs": "EPSG:2154",
             "vertical": "geoid.gtx", "footprint": 0.1, "sigma": 0.02}  # fmt: skip
    scene = load_scene(write(folder, lidar=["l1.h5", entry, {"path": "l2.H5", "algorithm": 2}]))
    assert [p.name for p in scene.lidar] == ["l1.h5", "gnss.csv", "l2.H5"]
    form = scene.lidar_formats[folder / "gnss.csv"]
    assert form.columns is not None and form.columns.height == "h" and form.vertical == str(folder / "geoid.gtx")
    assert scene.lidar_formats[folder / "l2.H5"].algorithm == 2 and folder / "l1.h5" not in scene.lidar_formats
    copy = folder / "elsewhere" / "config.yaml"
    copy.parent.mkdir()
    copy.write_text(yaml.safe_dump(scene.completed()), encoding="utf-8")
    again = load_scene(copy)
    assert again.lidar_formats == scene.lidar_formats and again.completed() == scene.completed()


def test_load_scene__limits_of_the_rules(folder: Path) -> None:
    scene = load_scene(write(folder, lidar_rules={"base": "strict", "max_cloud_layers": 2}))
    assert scene.config.lidar_rules == {"base": "strict", "max_cloud_layers": 2}
    assert scene.completed()["lidar_rules"] == {"base": "strict", "max_cloud_layers": 2}


def test_load_scene__brackets_in_names_are_names(folder: Path) -> None:
    (folder / "x[1].tif").write_bytes(b"x")
    assert len(load_scene(write(folder, images=["x[1].tif", "b.tif"])).images) == 2


def test_completed__is_a_scene_of_its_own(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    images = ["a_1.tif", {"path": "b.tif", "rpc": "b.RPB"}]
    first = load_scene(write(folder, images=images, lidar=["*.h5"], output={"vertical": "geoid.gtx"}))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "config.yaml"
    elsewhere.write_text(yaml.safe_dump(first.completed()), encoding="utf-8")
    second = load_scene(elsewhere)
    assert second.images == first.images and second.lidar == first.lidar
    assert Path(second.config.output.vertical) == folder / "geoid.gtx"
    assert second.completed() == first.completed()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"imges": 1},
            r"unknown key 'imges'; known keys here: name, images, lidar, lidar_rules, water, reference_dem, output",
        ),
        ({"output": {"res": 1}}, r"unknown key 'output\.res'; known keys here: resolution, crs, vertical, frame"),
        ({"images": ["a_1.tif", {"path": "b.tif", "rpcs": "x"}]}, r"unknown key 'images\.1\.rpcs'; .*path, rpc, mask"),
        ({"images": ["a_1.tif", {"rpc": "b.RPB"}]}, r"images\.1\.path: Field required"),
        ({"images": []}, "images"),
        ({"images": [3, 4]}, r"images\.0"),
        ({"name": "a/b"}, "name"),
        ({"name": ""}, "name"),
        ({"output": {"resolution": 0}}, r"output\.resolution"),
        ({"output": {"resolution": "coarse"}}, r"output\.resolution"),
        ({"lidar_rules": "lax"}, "lidar_rules"),
        ({"output": 5}, "output"),
        ({"images": ["a_1.tif"]}, "at least two images, the scene has 1"),
        ({"images": ["a_*.tif", "a_1.tif"]}, r"listed twice: .*a_1\.tif"),
        ({"lidar": ["b.tif"]}, r"lidar file of type '\.tif'"),
        ({"lidar": ["gnss.csv"]}, r"a file of type '\.csv' is a table; give it as \{path:, columns:"),
        ({"lidar": [{"path": "l1.h5", "columns": {"x": "E"}}]}, r"a file of type '\.h5' is no table"),
        ({"lidar": [{"path": "gnss.csv", "colums": {}}]}, r"unknown key 'lidar\.0\.colums'; .*algorithm, columns, crs"),
        ({"lidar": [{"path": "gnss.csv", "columns": {"z": "h"}}]}, r"'lidar\.0\.columns\.z'; known keys here: x, y"),
        ({"lidar": [{"path": "l1.h5", "sigma": 0.3}]}, "'sigma' is for tables"),
        ({"lidar": [{"path": "gnss.csv", "crs": UTM, "footprint": 1}]}, "'crs' is for tables.*; give columns"),
        ({"lidar": [{"path": "l1.h5", "algorithm": 7}]}, r"lidar\.0\.algorithm: .* less than or equal to 6"),
        ({"lidar": [{"columns": {}}]}, r"lidar\.0\.path: Field required"),
        ({"output": {"epoch": "soon"}}, r"output\.epoch"),
    ],
)
def test_load_scene__wrong_content(folder: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        load_scene(write(folder, **content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [
        {"images": ["a_1.tif", "none.tif"]},
        {"images": ["z_*.tif"]},
        {"images": ["a_1.tif", {"path": "b.tif", "rpc": "c.RPB"}]},
        {"images": ["a_1.tif", {"path": "b.tif", "mask": "m.tif"}]},
        {"lidar": ["none.h5"]},
        {"images": [".", "a_1.tif"]},
    ],
)
def test_load_scene__missing_files(folder: Path, content: dict[str, Any]) -> None:
    with pytest.raises(InputFileError, match=r"check the path in .*scene\.yaml"):
        load_scene(write(folder, **content))


@pytest.mark.parametrize("text", ["a: [", "", "text", "- x", "name: !!python/object:os.system x", "\x00"])
def test_load_scene__not_a_configuration(folder: Path, text: str) -> None:
    path = folder / "scene.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"scene\.yaml"):
        load_scene(path)


def test_load_scene__not_utf8_and_too_large(folder: Path) -> None:
    path = folder / "scene.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not readable YAML"):
        load_scene(path)
    path.write_bytes(b"#" * 5_000_001)
    with pytest.raises(ConfigError, match="too large"):
        load_scene(path)


def test_load_scene__entities_do_not_explode(folder: Path) -> None:
    """YAML anchors may repeat themselves without bound."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
    )
    path = folder / "scene.yaml"
    path.write_text(bomb + "images: *h\nname: x\n", encoding="utf-8")
    with pytest.raises(ConfigError):
        load_scene(path)


def test_load_scene__several_resolutions(folder: Path) -> None:
    scene = load_scene(write(folder, output={"resolution": [2, 0.5, 10, 2]}))
    assert scene.config.output.resolution == [0.5, 2, 10] and scene.config.output.coarser == (2, 10)
    assert scene.completed()["output"]["resolution"] == [0.5, 2, 10]
    assert load_scene(write(folder, output={"resolution": [1]})).config.output.resolution == 1
    with pytest.raises(ConfigError, match=r"0\.7 m is no multiple of the finest, 0\.5 m"):
        load_scene(write(folder, output={"resolution": [0.5, 0.7]}))
    with pytest.raises(ConfigError, match=r"output\.resolution\.1: .* number"):
        load_scene(write(folder, output={"resolution": [0.5, "x"]}))
    with pytest.raises(ConfigError, match=r"output\.resolution: .* 100"):
        load_scene(write(folder, output={"resolution": 1000}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x,x,x,x,x,x,x,x]\n" + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in
                                             zip("abcdefghi", "bcdefghij", strict=True)), "more than 200000 values"),
        ("only: &only [1, *only]\n", "more than 200000 values"),
        ("lidar: " + "[" * 5000, "not readable YAML"),
        ("time_origin: 2018-99-99\n", "not readable YAML"),
        ("a: !!python/object/apply:os.system [ls]\n", "not readable YAML"),
    ],
)  # fmt: skip
def test_load_scene__a_file_that_expands_without_end(folder: Path, text: str, message: str) -> None:
    path = folder / "scene.yaml"
    path.write_text(f"name: s\nimages: [a_1.tif, a_2.tif]\n{text}", encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as error:
        load_scene(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_expand__in_a_folder_whose_name_has_wildcards(tmp_path: Path) -> None:
    folder = tmp_path / "area [1] *"
    (folder / "epoch").mkdir(parents=True)
    for name in ("a.tif", "b.tif"):
        (folder / "epoch" / name).write_bytes(b"x")
    assert [p.name for p in expand("epoch/*.tif", folder, "image", "check it")] == ["a.tif", "b.tif"]
    assert len(expand(str(tmp_path / "area*" / "**" / "a.tif"), folder, "image", "check it")) == 1
    with pytest.raises(InputFileError, match=r"no image found; check it; folders are parted by /"):
        expand("epoch\\c*.tif", folder, "image", "check it")


def test_load_scene__name_with_other_characters(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text("name: a/b\nimages: [a.tif, b.tif]\n")
    with pytest.raises(ConfigError, match="name 'a/b' has other characters than letters"):
        load_scene(path)


def test_load_scene__keys_left_empty_and_a_number_as_name(folder: Path) -> None:
    path = folder / "scene.yaml"
    path.write_text("name: 2024\nimages: [a_1.tif, a_2.tif]\nlidar:\n  # - l1.h5\noutput:\nwater:\nreference_dem:\n")
    scene = load_scene(path)
    assert scene.config.name == "2024" and scene.lidar == () and scene.config.output.resolution == "auto"
    path.write_text("name: a\nimages:\n")
    with pytest.raises(ConfigError, match="images: Field required"):
        load_scene(path)
