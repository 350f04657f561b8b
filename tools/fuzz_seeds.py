"""Small valid files of every kind that the program reads, for ``fuzz_readers.py`` to damage."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import shapely
import yaml
from bench_lidar import write_granules

from terrain3d.camera.read import read_rpc
from terrain3d.camera.write import rpc_tags
from terrain3d.crs import Reference
from terrain3d.io.clouds import write_cloud
from terrain3d.io.rasters import read_raster, write_raster
from terrain3d.io.vectors import write_layer
from terrain3d.points import PointCloud
from terrain3d.simulate.scene import write_scene

CRS = "EPSG:32632"
PHOTONS = 3000


def seeds(folder: Path) -> dict[str, list[Path]]:
    """Files by the name of the reader that they are for."""
    scene = write_scene(folder / "scene", "town", 100, seed=2, views=2)
    image = scene.epochs[0].images[0]
    tags = rpc_tags(read_rpc(image))
    write_raster(folder / "heights.tif", read_raster(scene.epochs[0].truth["dsm"]), nodata=-9999)
    content = yaml.safe_load(scene.config.read_text())
    content["images"] = [str(scene.folder / p) for p in content["images"]]
    content["lidar"] = [str(scene.folder / p) for p in content["lidar"]]
    (folder / "area.yaml").write_text(yaml.safe_dump(content | {"tiles": {"utm": 100}}))
    entry = {"path": content["lidar"][0], "algorithm": 2}
    (folder / "scene.yaml").write_text(yaml.safe_dump(content | {"lidar": [entry], "lidar_rules": {"base": "strict"}}))
    photons, classes = write_granules(folder / "photons", PHOTONS)
    return {
        "image": [image, *_other_images(folder, image, tags)], "raster": [folder / "heights.tif"],
        "rpc": _rpcs(folder, tags),
        "lidar": [*scene.lidar, photons, _land_ice(folder / "ice.h5"), _with_texts(folder, scene.lidar[0])],
        "pair": [classes], "cloud": _clouds(folder), "table": _tables(folder), "vector": [_sheets(folder)],
        "area": [folder / "area.yaml"], "scene": [folder / "scene.yaml"],
    }  # fmt: skip


def _rpcs(folder: Path, tags: dict[str, str]) -> list[Path]:
    texts = {
        "view_RPC.TXT": "\n".join(text_lines(tags)), "view.RPB": rpb(tags), "RPC_view.XML": dimap(tags),
        "view.geom": "\n".join(geom_lines(tags)),
    }  # fmt: skip
    place = folder / "rpc"
    place.mkdir()
    for name, text in texts.items():
        (place / name).write_text(text)
    return [place / name for name in texts]


def _other_images(folder: Path, image: Path, tags: dict[str, str]) -> list[Path]:
    """The image as NITF, as JPEG 2000 where GDAL writes it, and as a VRT."""
    import rasterio
    from rasterio.rpc import RPC

    with rasterio.open(image) as source:
        values = source.read()[:, :64, :64]
    lists = {k.lower(): [float(n) for n in v.split()] for k, v in tags.items()}
    rpcs = RPC(**{k: v if len(v) > 1 else v[0] for k, v in lists.items()})
    found = []
    for name, driver in (("view.ntf", "NITF"), ("view.jp2", "JP2OpenJPEG")):
        shape = {"count": len(values), "height": 64, "width": 64, "dtype": values.dtype}
        with rasterio.open(folder / name, "w", driver=driver, rpcs=rpcs, **shape) as target:
            target.write(values)
        found.append(folder / name)
    rasterio.shutil.copy(str(image), str(folder / "view.vrt"), driver="VRT")
    return [*found, folder / "view.vrt"]


def _land_ice(path: Path) -> Path:
    n = 60
    with h5py.File(path, "w") as file:
        file.attrs["short_name"] = np.bytes_("ATL06")
        for beam in ("gt1l", "gt2r"):
            group = file.create_group(f"{beam}/land_ice_segments")
            group["latitude"], group["longitude"] = 47.0 + np.arange(n) * 0.0002, np.full(n, 11.4)
            group["delta_time"], group["h_li"] = 2e8 + np.arange(n), np.full(n, 600, np.float32)
            group["h_li_sigma"] = np.full(n, 0.1, np.float32)
            group["fit_statistics/n_fit_photons"] = np.full(n, 70, np.int32)
            group["geophysical/cloud_flg_atm"] = np.zeros(n, np.int8)
    return path


def _with_texts(folder: Path, granule: Path) -> Path:
    """The granule with texts of variable length, which HDF5 keeps in a heap."""
    path = folder / "texts.h5"
    shutil.copy(granule, path)
    with h5py.File(path, "a") as file:
        for place in (file, *(file[name] for name in file if name.startswith(("gt", "BEAM")))):
            for name in list(place.attrs):
                if isinstance(place.attrs[name], bytes):
                    place.attrs[name] = place.attrs[name].decode()
    return path


def _clouds(folder: Path) -> list[Path]:
    xyz = np.random.default_rng(1).uniform(0, 50, (400, 3)) + [680_000, 5_230_000, 500]
    ones = np.ones(400, np.float32)
    cloud = PointCloud(Reference(CRS), xyz, ones, ones, np.ones(400, np.uint8), np.ones(400, np.uint16))
    for name in ("cloud.laz", "cloud.las"):
        write_cloud(folder / name, cloud)
    return [folder / "cloud.laz", folder / "cloud.las"]


def _tables(folder: Path) -> list[Path]:
    """Tables of points: text of two kinds, GeoPackage, LAZ, Parquet, and SlideRule's Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    n = 60
    lon, lat, h = 11.37 + np.arange(n) * 1e-5, np.full(n, 47.2), 500.0 + np.arange(n)
    with (folder / "points.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["lon", "lat", "h", "track"])
        writer.writerows([x, y, z, "a"] for x, y, z in zip(lon, lat, h, strict=True))
    rows = (f"{x:.6f};{y};{z};a".replace(".", ",") for x, y, z in zip(lon, lat, h, strict=True))
    (folder / "comma.csv").write_text("\ufefflon;lat;h;track\n" + "\n".join(rows))
    columns: dict[str, Any] = {"lon": lon, "lat": lat, "h": h, "track": np.full(n, "a")}
    write_layer(folder / "points.gpkg", "points", list(shapely.points(lon, lat, h)), columns, "EPSG:4326")
    parquet.write_table(pa.table(columns), folder / "points.parquet")
    fitted = {
        "longitude": lon, "latitude": lat, "h_mean": h, "rms_misfit": np.full(n, 0.1), "n_fit_photons": np.full(n, 60),
        "h_sigma": np.full(n, 0.1), "spot": np.full(n, 1), "rgt": np.full(n, 7), "time_ns": np.arange(n) * 10**9,
    }  # fmt: skip
    made = pa.table(fitted).replace_schema_metadata({"sliderule": '{"len": 20, "atl08_class": ["atl08_ground"]}'})
    parquet.write_table(made, folder / "fitted.parquet")
    names = ("points.csv", "comma.csv", "points.gpkg", "points.parquet", "fitted.parquet", "cloud.laz")
    return [folder / name for name in names]


def _sheets(folder: Path) -> Path:
    codes = {"code": np.array(["a", "b", "c"])}
    write_layer(folder / "index.gpkg", "sheets", [shapely.box(0, 0, 1, 1)] * 3, codes, CRS)
    return folder / "index.gpkg"


def text_lines(tags: dict[str, str]) -> list[str]:
    lines = []
    for key, value in tags.items():
        numbers = value.split()
        lines += [f"{key}: {value}"] if len(numbers) == 1 else [f"{key}_{i}: {n}" for i, n in enumerate(numbers, 1)]
    return lines


def geom_lines(tags: dict[str, str]) -> list[str]:
    """OSSIM's keyword list."""
    lines = ["type:  ossimRpcModel", "polynomial_format:  B"]
    for key, value in tags.items():
        numbers = value.split()
        name = key.lower()
        lines += (
            [f"{name}:  {value}"] if len(numbers) == 1 else [f"{name}_{i:02d}:  {n}" for i, n in enumerate(numbers)]
        )
    return lines


def rpb(tags: dict[str, str]) -> str:
    names = {
        "LINE_OFF": "lineOffset", "SAMP_OFF": "sampOffset", "LAT_OFF": "latOffset", "LONG_OFF": "longOffset",
        "HEIGHT_OFF": "heightOffset", "LINE_SCALE": "lineScale", "SAMP_SCALE": "sampScale", "LAT_SCALE": "latScale",
        "LONG_SCALE": "longScale", "HEIGHT_SCALE": "heightScale", "LINE_NUM_COEFF": "lineNumCoef",
        "LINE_DEN_COEFF": "lineDenCoef", "SAMP_NUM_COEFF": "sampNumCoef", "SAMP_DEN_COEFF": "sampDenCoef",
    }  # fmt: skip
    body = []
    for key, name in names.items():
        numbers = tags[key].split()
        value = numbers[0] if len(numbers) == 1 else "(\n" + ",\n".join(numbers) + ")"
        body.append(f"\t{name} = {value};")
    return 'satId = "X";\nSpecId = "RPC00B";\nBEGIN_GROUP = IMAGE\n' + "\n".join(body) + "\nEND_GROUP = IMAGE\nEND;\n"


def dimap(tags: dict[str, str]) -> str:
    model = "".join(
        f"<{key}_{i}>{n}</{key}_{i}>"
        for key in ("SAMP_NUM_COEFF", "SAMP_DEN_COEFF", "LINE_NUM_COEFF", "LINE_DEN_COEFF")
        for i, n in enumerate(tags[key].split(), 1)
    )
    names = ("LONG_SCALE", "LONG_OFF", "LAT_SCALE", "LAT_OFF", "HEIGHT_SCALE", "HEIGHT_OFF", "SAMP_SCALE", "SAMP_OFF",
             "LINE_SCALE", "LINE_OFF")  # fmt: skip
    validity = "".join(f"<{n}>{tags[n]}</{n}>" for n in names)
    return (
        '<?xml version="1.0" encoding="UTF-8"?><Dimap_Document><Rational_Function_Model><Global_RFM><Inverse_Model>'
        f"{model}</Inverse_Model><RFM_Validity>{validity}</RFM_Validity></Global_RFM></Rational_Function_Model>"
        "</Dimap_Document>"
    )
