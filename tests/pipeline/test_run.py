"""From images and lidar to products, end to end: the files of the contract exist and mean what they say."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import laspy
import numpy as np
import pyogrio
import pytest
import rasterio
import yaml
from pyproj import CRS
from shapely import Polygon, from_wkb, unary_union

from terrain3d.assess import assess
from terrain3d.cli import main
from terrain3d.crs import to_lonlat, vertical_from_name
from terrain3d.io.geoid import undulation
from terrain3d.io.rasters import read_raster
from terrain3d.simulate.scene import SceneFiles
from terrain3d.surface.mask import MaskCode

pytestmark = pytest.mark.slow

RASTERS = ("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm", "ortho", "mask")
FILES = {f"{r}.tif" for r in RASTERS} | {
    "cloud.laz", "water.gpkg", "trees.gpkg", "quality.json", "report.html", "config.yaml", "run.log", "item.json",
}  # fmt: skip


def ok(*arguments: object) -> None:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    assert stop.value.code == 0


def run(scene: Path, out: Path, workers: int = 2) -> Path:
    ok("run", scene, "--out", out, "--workers", workers, "--quiet")
    return out


def values(folder: Path, name: str) -> np.ndarray:
    """Values as they are in the file, nodata included."""
    with rasterio.open(folder / f"{name}.tif") as file:
        return np.asarray(file.read(1))


def quality(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "quality.json").read_text(encoding="utf-8")))


# one run


def test_run__writes_the_files_of_the_contract_and_nothing_else(before: Path) -> None:
    assert {p.name for p in before.iterdir()} == FILES
    assert all(p.stat().st_size > 0 for p in before.iterdir())


def test_rasters__share_one_grid_with_whole_cells(before: Path) -> None:
    grids = set()
    for name in RASTERS:
        with rasterio.open(before / f"{name}.tif") as file:
            assert file.tags()["AREA_OR_POINT"] == "Area" and file.count == 1
            assert CRS.from_wkt(file.crs.to_wkt()).to_2d().name.startswith("WGS 84 / UTM zone 32N")
            grids.add((file.transform, file.shape))
    (transform, _), *others = grids
    assert not others
    assert transform.a == 0.5 == -transform.e and transform.c % 0.5 == 0 == transform.f % 0.5


def test_rasters__declare_types_and_nodata(before: Path) -> None:
    declared = {}
    for name in RASTERS:
        with rasterio.open(before / f"{name}.tif") as file:
            declared[name] = (file.dtypes[0], file.nodata)
    heights = dict.fromkeys(("dsm", "dsm_sigma", "dtm", "dtm_sigma", "chm"), ("float32", -9999.0))
    assert declared == heights | {"ortho": ("uint16", 0.0), "mask": ("uint8", 0.0)}


def test_heights__declare_the_ellipsoid_and_differences_do_not(before: Path) -> None:
    for name in ("dsm", "dtm"):
        vertical = read_raster(before / f"{name}.tif").grid.reference.vertical
        assert vertical.is_ellipsoid, name
    for name in ("dsm_sigma", "dtm_sigma", "chm", "ortho", "mask"):
        with rasterio.open(before / f"{name}.tif") as file:
            assert len(CRS.from_wkt(file.crs.to_wkt()).axis_info) == 2, name


def test_mask__agrees_with_the_surface(before: Path) -> None:
    dsm, mask = values(before, "dsm"), values(before, "mask")
    assert set(np.unique(mask)) <= {int(c) for c in MaskCode}
    np.testing.assert_array_equal(mask == MaskCode.NODATA, dsm == -9999)
    assert (mask == MaskCode.MEASURED).mean() > 0.75


def test_sigma__is_there_and_positive_where_the_surface_is(before: Path) -> None:
    for height, sigma in (("dsm", "dsm_sigma"), ("dtm", "dtm_sigma")):
        valid = values(before, height) != -9999
        s = values(before, sigma)
        assert (s[valid] > 0).all(), sigma
        assert (s[~valid] == -9999).all(), sigma
    s, mask = values(before, "dsm_sigma"), values(before, "mask")
    assert 0.05 < np.median(s[mask == MaskCode.MEASURED]) < 0.8
    if (mask == MaskCode.FILLED).any():
        assert np.median(s[mask == MaskCode.FILLED]) > np.median(s[mask == MaskCode.MEASURED])


def test_terrain__lies_under_the_surface_and_canopy_is_between(before: Path) -> None:
    dsm, dtm, chm = (values(before, n) for n in ("dsm", "dtm", "chm"))
    valid = (dsm != -9999) & (dtm != -9999)
    over = (dtm - dsm)[valid]
    assert (over > 0.5).mean() < 0.01  # in gaps between crowns, where the ground under trees passes over noise
    np.testing.assert_array_equal(chm != -9999, valid)
    assert (chm[valid] >= 0).all()
    # pits in crowns are closed and rims are kept; only steep rims of a canopy, and where its ground may hide, have the
    # height that is likely from what is around
    plain = np.where(valid, np.maximum(dsm - dtm, 0), np.inf)
    above = (chm - plain)[valid]
    lowest = cv2.erode(plain, np.ones((9, 9), np.uint8))
    assert (chm < lowest - 1e-3)[valid].mean() < 2e-3 and (chm - lowest)[valid].min() > -1
    assert np.percentile(above, 1) > -2 and above.mean() > 0
    assert (np.abs(above) < 1e-3).mean() > 0.85


def test_ortho__has_a_picture_where_the_surface_is(before: Path) -> None:
    picture, dsm = values(before, "ortho"), values(before, "dsm")
    assert (picture[dsm != -9999] > 0).mean() > 0.96  # what no view sees is empty
    assert 300 < np.median(picture[picture > 0]) < 2500  # digital numbers of the images


def test_surface__is_accurate_against_the_truth(before: Path, town: SceneFiles) -> None:
    truth = town.epochs[0].truth
    found = assess(before, truth["dsm"], truth["class"])
    figures = {c.name: c for c in found.classes}
    assert figures["all"].valid > 0.97 and figures["all"].complete_1m > 0.75
    assert abs(figures["ground"].bias) < 0.3
    assert figures["ground"].nmad < 0.4
    assert found.offset is not None and np.hypot(found.offset.east, found.offset.north) < 1.5
    assert not found.notes  # both are ellipsoidal and say so


def test_terrain__is_accurate_against_the_truth(before: Path, town: SceneFiles) -> None:
    truth = town.epochs[0].truth
    found = {c.name: c for c in assess(before / "dtm.tif", truth["dtm"], truth["class"]).classes}
    assert found["all"].nmad < 0.5 and found["all"].rmse < 1.5
    assert abs(found["building"].bias) < 1.0  # no roof is left in it


def test_cloud__has_reference_count_and_heights_of_the_surface(before: Path) -> None:
    with laspy.open(before / "cloud.laz") as file:
        crs = file.header.parse_crs()
        count = file.header.point_count
        cloud = file.read()
    assert crs.to_2d().to_epsg() == 32632
    assert [a.name.lower()[:18] for a in crs.axis_info][2:] == ["ellipsoidal height"]
    assert count == quality(before)["points"] > 100_000
    dsm = read_raster(before / "dsm.tif")
    difference = np.asarray(cloud.z) - dsm.sample(np.asarray(cloud.x), np.asarray(cloud.y))
    assert abs(np.nanmedian(difference)) < 0.05  # the registration moved both


def test_quality__holds_the_figures(before: Path) -> None:
    q = quality(before)
    assert q["reference"] == {"horizontal": "EPSG:32632", "vertical": "ellipsoid"}
    assert [i["name"] for i in q["images"]] == ["view_1", "view_2", "view_3"]
    assert all(i["ties"] >= 12 and i["rms_after_px"] < 0.3 < i["rms_before_px"] for i in q["images"])
    assert [p["matched"] for p in q["pairs"]] == [True] * 3
    assert all(0.1 < p["base_to_height"] < 0.6 and p["ties"] >= 12 and p["ties_grid_share"] > 0.5 for p in q["pairs"])
    assert all(p["reason"].startswith(f"convergence {p['convergence_deg']:.1f} deg") for p in q["pairs"])
    shares = sum(q["cells"][f"{c.name.lower()}_share"] for c in MaskCode)
    assert shares == pytest.approx(1.0)
    assert q["placement"]["rests_on"] == "lidar" and 0 < q["placement"]["height_sigma_m"] < 1
    assert q["lidar"]["used"] > 5 and q["lidar"]["read"] >= q["lidar"]["used"]
    assert abs(q["lidar"]["held_out_after"]["bias"]) < 0.5
    groups = {(g["by"], g["group"]): g for g in q["lidar"]["held_out_by"]}
    assert groups["product", "ATL08"]["after"]["n"] > 5
    instead = q["lidar"]["in_adjustment_instead"]
    assert instead["given"] == q["lidar"]["used"] + sum(q["lidar"]["not_used_by_rule"].values())
    assert instead["reason"] and instead["applied"] == (instead["used"] > 0)
    assert 0 < q["lidar"]["held_out_coverage"]["68"] <= q["lidar"]["held_out_coverage"]["95"] <= 1
    assert q["lidar"]["used"] + sum(q["lidar"]["not_used_by_rule"].values()) == q["lidar"]["read"] - sum(
        q["lidar"]["rejected_by_rule"].values()
    )
    text = (before / "report.html").read_text(encoding="utf-8")
    assert all(h in text for h in ("RMS before px", "RMS after px", "reach", "B/H", "cells of a 4 x 4 grid with ties"))
    assert "along the track, m" in text and "Surface minus lidar where returns carried weight" in text
    assert {"inputs", "matching", "terrain model"} <= set(q["seconds"])
    assert 50 < q["peak_memory_mb"] < 4000


def test_item__is_a_stac_item_whose_checksums_match(before: Path) -> None:
    item = json.loads((before / "item.json").read_text(encoding="utf-8"))
    assert item["type"] == "Feature" and item["stac_version"].startswith("1.") and item["id"] == "town"
    assert "datetime" in item["properties"]
    west, south, east, north = item["bbox"]
    assert 11.36 < west < east < 11.39 and 47.19 < south < north < 47.21
    assert item["geometry"]["type"] == "Polygon"
    assert {Path(a["href"]).name for a in item["assets"].values()} == FILES - {"item.json", "run.log"}
    for asset in item["assets"].values():
        data = (before / asset["href"]).read_bytes()
        assert asset["file:size"] == len(data)
        assert asset["file:checksum"] == "1220" + hashlib.sha256(data).hexdigest()  # multihash of SHA-256


def test_report__stands_alone(before: Path) -> None:
    page = (before / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") >= 6
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page
    assert "EPSG:32632" in page and "held-out" in page


def test_log__tells_the_stages_with_times(before: Path) -> None:
    lines = (before / "run.log").read_text(encoding="utf-8").splitlines()
    assert any("begin matching" in x for x in lines) and any("end matching: " in x for x in lines)


def test_config__runs_again_to_the_same_bits_with_other_workers(before: Path, tmp_path: Path) -> None:
    completed = yaml.safe_load((before / "config.yaml").read_text(encoding="utf-8"))
    assert set(completed) == {"name", "images", "lidar", "lidar_rules", "output", "water", "reference_dem"}
    moved = shutil.copy(before / "config.yaml", tmp_path / "again.yaml")
    again = run(Path(moved), tmp_path / "again", workers=1)
    for name in RASTERS:
        np.testing.assert_array_equal(values(again, name), values(before, name), err_msg=name)
    assert (again / "config.yaml").read_text() == (before / "config.yaml").read_text()


# other inputs and references


@pytest.fixture(scope="module")
def plain(hamlet: SceneFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the small scene."""
    return run(hamlet.config, tmp_path_factory.mktemp("plain") / "out")


def changed(scene: SceneFiles, path: Path, **keys: object) -> Path:
    """The scene's configuration with other keys."""
    content = yaml.safe_load(scene.config.read_text(encoding="utf-8"))
    content["images"] = [str(scene.folder / p) for p in content["images"]]
    content["lidar"] = [str(scene.folder / p) for p in content["lidar"]]
    path.write_text(yaml.safe_dump({**content, **keys}), encoding="utf-8")
    return path


def test_vertical__egm96_differs_by_the_undulation(plain: Path, hamlet: SceneFiles, tmp_path: Path) -> None:
    scene = changed(hamlet, tmp_path / "scene.yaml", output={"resolution": 0.5, "vertical": "egm96"})
    geoid = run(scene, tmp_path / "out")
    over_ellipsoid, over_geoid = read_raster(plain / "dsm.tif"), read_raster(geoid / "dsm.tif")
    assert over_geoid.grid.reference.vertical.name == "egm96"
    assert over_geoid.grid.bounds == over_ellipsoid.grid.bounds
    x, y = (a.mean() for a in over_geoid.grid.centres())
    n = float(undulation(vertical_from_name("egm96"), *to_lonlat("EPSG:32632", x, y)))
    assert 47 < n < 51  # the Alps near Innsbruck
    for name in ("dsm", "dtm"):
        a, b = values(plain, name), values(geoid, name)
        valid = a != -9999
        np.testing.assert_array_equal(valid, b != -9999)
        np.testing.assert_allclose((a - b)[valid], n, atol=0.01)
    np.testing.assert_array_equal(values(plain, "chm"), values(geoid, "chm"))
    with laspy.open(plain / "cloud.laz") as one, laspy.open(geoid / "cloud.laz") as other:
        assert "EGM96" in other.header.parse_crs().name
        difference = np.asarray(one.read().z) - np.asarray(other.read().z)
    np.testing.assert_allclose(difference, n, atol=0.01)
    assert quality(geoid)["reference"]["vertical"] == "egm96"
    highest = values(geoid, "dsm").max()
    ties = [np.array(quality(folder)["ties"]["heights_m"]) for folder in (plain, geoid)]
    np.testing.assert_allclose(ties[0] - ties[1], n, atol=0.01)
    assert quality(geoid)["cells"]["height_max_m"] == pytest.approx(highest, abs=0.002)  # of the file, not of the run


def test_lidar__is_optional(hamlet: SceneFiles, tmp_path: Path) -> None:
    out = run(changed(hamlet, tmp_path / "scene.yaml", lidar=[]), tmp_path / "out")
    assert {p.name for p in out.iterdir()} == FILES
    assert quality(out)["lidar"] is None
    place = quality(out)["placement"]
    assert place["rests_on"] == "pointing of the images" and not place["in_sigma_of_cells"]
    assert place["height_sigma_m"] > 5 > 3 * quality(out)["cells"]["median_sigma_m"]
    assert "may lie off by" in (out / "report.html").read_text(encoding="utf-8")
    truth = hamlet.epochs[0].truth
    found = {c.name: c for c in assess(out, truth["dsm"], truth["class"]).classes}
    assert found["ground"].nmad < 0.5  # shape is right, height rests on the pointing
    assert abs(found["ground"].bias) < 30


def test_lidar__takes_the_bias_out(plain: Path, hamlet: SceneFiles) -> None:
    truth = hamlet.epochs[0].truth
    found = {c.name: c for c in assess(plain, truth["dsm"], truth["class"]).classes}
    assert abs(found["ground"].bias) < 0.5


def test_resolution_and_crs__as_asked(hamlet: SceneFiles, tmp_path: Path) -> None:
    output = {"resolution": 2.0, "crs": "EPSG:3035"}
    out = run(changed(hamlet, tmp_path / "scene.yaml", output=output, lidar=[]), tmp_path / "out")
    grid = read_raster(out / "dsm.tif").grid
    assert grid.resolution == 2.0 and grid.reference.horizontal == "EPSG:3035"
    assert grid.reference.vertical.is_ellipsoid
    assert grid.west % 2 == 0 and 60 < grid.width < 110


# change, assess, info


@pytest.fixture(scope="module")
def compared(before: Path, after: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the change between both epochs."""
    out = tmp_path_factory.mktemp("change") / "out"
    ok("change", before, after, "--out", out, "--quiet")
    return out


def test_change__files_of_the_contract(compared: Path, before: Path) -> None:
    contract = {"change.tif", "change.gpkg", "quality.json", "report.html"}
    assert {p.name for p in compared.iterdir()} == contract | {"change.geojson", "detectable.tif"}
    with rasterio.open(compared / "change.tif") as file:
        dz, sigma, significant = file.read(masked=True)
        assert file.nodata == -9999 and "after - before" in file.descriptions[0]
    valid = ~np.ma.getmaskarray(dz)
    assert valid.mean() > 0.7
    assert (sigma[valid] > 0).all()
    assert set(np.unique(significant.compressed())) == {0, 1}
    assert abs(np.ma.median(dz[significant == 0])) < 0.15


def test_change__finds_buildings_with_the_right_sign(compared: Path, town: SceneFiles) -> None:
    meta, _, wkb, columns = pyogrio.raw.read(compared / "change.gpkg", layer="changes")
    contract = ["kind", "area_m2", "mean_dz_m", "volume_m3", "volume_sigma_m3", "confidence"]
    assert list(meta["fields"])[: len(contract)] == contract  # more follow
    assert CRS.from_user_input(meta["crs"]).to_epsg() == 32632
    polygons = from_wkb(wkb)
    kind, area, dz, volume, volume_sigma, confidence = columns[: len(contract)]
    for kind_of_event, sign in (("new_building", 1), ("demolished_building", -1)):
        events = [e for e in town.events if e.kind == kind_of_event]
        assert len(events) >= 3
        found = 0
        for event in events:
            outline = unary_union([Polygon(ring) for ring in event.outline])
            best = int(np.argmax([p.intersection(outline).area for p in polygons]))
            if polygons[best].intersection(outline).area > 0.5 * outline.area:
                found += 1
                assert np.sign(dz[best]) == np.sign(volume[best]) == sign
        assert found >= len(events) - 1, kind_of_event
    assert (area >= 25).all() and (volume_sigma > 0).all()
    assert ((confidence >= 0) & (confidence <= 1)).all()
    np.testing.assert_allclose([p.area for p in polygons], area, rtol=0.35)
    assert len(kind) <= 2 * len(town.events)


def test_change__against_itself_is_nothing(before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ok("change", before, before / "dsm.tif", "--out", tmp_path / "out")
    assert "0 changes" in capsys.readouterr().out
    assert pyogrio.read_info(tmp_path / "out" / "change.gpkg", layer="changes")["features"] == 0


@pytest.mark.parametrize("other", ["missing", "empty_folder"])
def test_change__wrong_input_is_code_2(
    other: str, before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty_folder").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["change", str(before), str(tmp_path / other), "--out", str(tmp_path / "out"), "--quiet"])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert printed.err.count("\n") == 1 and other in printed.err
    assert not (tmp_path / "out").exists()


def test_change__of_other_places_is_code_2(
    before: Path, hamlet: SceneFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rasterio.open(before / "dsm.tif") as file:
        profile, data = {**file.profile, "driver": "GTiff"}, file.read()
    profile["transform"] = profile["transform"].translation(5000, 0) @ profile["transform"]
    with rasterio.open(tmp_path / "east.tif", "w", **profile) as file:
        file.write(data)
    with pytest.raises(SystemExit) as stop:
        main(["change", str(before), str(tmp_path / "east.tif"), "--out", str(tmp_path / "out"), "--quiet"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_assess__prints_the_table_and_writes_json(
    before: Path, town: SceneFiles, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = town.epochs[0].truth
    ok("assess", before, truth["dsm"], "--classes", truth["class"], "--json", tmp_path / "a.json")
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:5]] == ["class", "all", "ground", "building", "tree"]
    assert "offset: " in out
    figures = json.loads((tmp_path / "a.json").read_text())
    shown = float(out.splitlines()[2].split()[5])
    assert figures["classes"][1]["name"] == "ground"
    assert figures["classes"][1]["bias"] == pytest.approx(shown, abs=6e-4)


def test_info__describes_inputs_and_results(before: Path, town: SceneFiles, capsys: pytest.CaptureFixture[str]) -> None:
    image, granule = town.epochs[0].images[0], town.lidar[0]
    ok("info", image, granule, before / "dsm.tif", before / "cloud.laz", before, town.config)
    out = capsys.readouterr().out
    for path in (image, granule, before / "dsm.tif", before / "cloud.laz", before, town.config):
        assert f"{path}: " in out
    assert (
        "32632" in out
        and "ellipsoid" in out
        and "ATL08" in out
        and f"{quality(before)['points']}" in out.replace(",", "")
    )


def test_info__missing_file_is_code_2_after_the_others(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["info", str(tmp_path / "gone.tif"), str(before / "dsm.tif")])
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert "dsm.tif: " in printed.out and "gone.tif" in printed.err
