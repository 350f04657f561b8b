"""Each format is written from one model and must give it back; real files must agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from numpy.testing import assert_allclose
from rasterio.rpc import RPC

from terrain3d.camera.read import counts_in_doubt, reach_beyond, read_rpc, read_rpc_file
from terrain3d.camera.read_bytes import MAX_BYTES
from terrain3d.camera.rpc import RpcModel, locate, project
from terrain3d.errors import CameraError, InputFileError

NORM = {
    "LINE_OFF": "line_off", "LINE_SCALE": "line_scale", "SAMP_OFF": "samp_off", "SAMP_SCALE": "samp_scale",
    "LONG_OFF": "lon_off_deg", "LONG_SCALE": "lon_scale_deg", "LAT_OFF": "lat_off_deg", "LAT_SCALE": "lat_scale_deg",
    "HEIGHT_OFF": "height_off", "HEIGHT_SCALE": "height_scale",
}  # fmt: skip
POLYNOMIALS = ("line_num", "line_den", "samp_num", "samp_den")


def rpb(m: RpcModel) -> str:
    names = {"LONG": "long", "LAT": "lat", "HEIGHT": "height", "LINE": "line", "SAMP": "samp"}
    lines = ['satId = "QB02";', 'bandId = "P";', 'SpecId = "RPC00B";', "BEGIN_GROUP = IMAGE", "\terrBias = 1.5;"]
    for key, name in NORM.items():
        axis, what = key.split("_")
        lines.append(f"\t{names[axis]}{'Offset' if what == 'OFF' else 'Scale'} = {getattr(m, name)!r};")
    for p in POLYNOMIALS:
        coefficients = ",\n".join(f"\t\t\t{v!r}" for v in getattr(m, p))
        lines.append(f"\t{p[:4]}{p[5:].title()}Coef = (\n{coefficients});")
    return "\r\n".join([*lines, "END_GROUP = IMAGE", "END;", ""])


def rpc_txt(m: RpcModel) -> str:
    units = {"LINE": "pixels", "SAMP": "pixels", "LAT": "degrees", "LONG": "degrees", "HEIGHT": "meters"}
    lines = [f"{k}: {getattr(m, v):+.17g} {units[k.split('_')[0]]}" for k, v in NORM.items()]
    lines += [f"{p.upper()}_COEFF_{i}: {v:+.17E}" for p in POLYNOMIALS for i, v in enumerate(getattr(m, p), 1)]
    return "\n".join(lines)


def geom(m: RpcModel) -> str:
    lines = [f"{k.lower()}:  {getattr(m, v)!r}" for k, v in NORM.items()] + [
        "polynomial_format:  B",
        "type:  ossimRpcModel",
    ]
    lines += [f"{p}_coeff_{i:02d}:  {v!r}" for p in POLYNOMIALS for i, v in enumerate(getattr(m, p))]
    return "\n".join(sorted(lines))


def dimap(m: RpcModel, version: int = 2, namespace: str = "") -> str:
    """Offsets count from 1 up to version 2; the model from image to ground comes first and must not be taken."""
    first = 1.0 if version < 3 else 0.0
    direct, inverse = (
        ("Direct_Model", "Inverse_Model") if version < 3 else ("ImagetoGround_Values", "GroundtoImage_Values")
    )
    wrong = "".join(f"<{p.upper()}_COEFF_{i}>9</{p.upper()}_COEFF_{i}>" for p in POLYNOMIALS for i in range(1, 21))
    right = "".join(
        f"<{p.upper()}_COEFF_{i}>{v!r}</{p.upper()}_COEFF_{i}>"
        for p in POLYNOMIALS
        for i, v in enumerate(getattr(m, p), 1)
    )
    norm = "".join(
        f"<{k}>{getattr(m, v) + (first if k in ('LINE_OFF', 'SAMP_OFF') else 0)!r}</{k}>" for k, v in NORM.items()
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Dimap_Document{namespace}><Rational_Function_Model><Global_RFM>'
        f"<{direct}>{wrong}</{direct}><{inverse}>{right}</{inverse}><RFM_Validity><Direct_Model_Validity_Domain>"
        f"<FIRST_COL>-790</FIRST_COL></Direct_Model_Validity_Domain>{norm}</RFM_Validity></Global_RFM>"
        "</Rational_Function_Model></Dimap_Document>"
    )


def write_image(
    path: Path, rpc: RpcModel | None = None, driver: str = "GTiff", size: int = 64, **profile: object
) -> Path:
    tags = None
    if rpc is not None:
        tags = RPC(
            **{k.lower(): getattr(rpc, v) for k, v in NORM.items()},
            **{f"{p}_coeff": list(getattr(rpc, p)) for p in POLYNOMIALS},
        )
    shape = {"height": size, "width": size, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver=driver, rpcs=tags, **shape, **profile) as target:
        target.write(np.full((1, size, size), 7, np.uint8))
    return path


def same(a: RpcModel, b: RpcModel, atol: float = 1e-6) -> None:
    x, y, z = np.random.default_rng(5).uniform(-1, 1, (3, 100))
    ground = (
        b.lon_off_deg + x * b.lon_scale_deg,
        b.lat_off_deg + y * b.lat_scale_deg,
        b.height_off + z * b.height_scale,
    )
    assert_allclose(project(a, *ground), project(b, *ground), rtol=0, atol=atol)


FORMATS = {
    "a.RPB": rpb,
    "a_RPC.TXT": rpc_txt,
    "a_rpc.txt": rpc_txt,
    "a.geom": geom,
    "RPC_a.XML": dimap,
    "v3.xml": lambda m: dimap(m, 3),
    "v1.xml": lambda m: dimap(m, 1, ' xmlns="http://example.org/dimap"'),
}


@pytest.mark.parametrize("name", FORMATS)
def test_read_rpc_file__gives_the_model_back(tmp_path: Path, model: RpcModel, name: str) -> None:
    path = tmp_path / name
    path.write_text(FORMATS[name](model))
    assert_allclose(read_rpc_file(path).packed, model.packed, rtol=1e-15, atol=0)


def test_read_rpc_file__by_content_not_by_suffix(tmp_path: Path, model: RpcModel) -> None:
    path = tmp_path / "rpc.dat"
    for write in (rpb, rpc_txt, geom, dimap):
        path.write_text("\ufeff" + write(model), encoding="utf-8")
        assert_allclose(read_rpc_file(path).packed, model.packed, rtol=1e-15, atol=0)


def test_read_rpc_file__rpb_and_txt_as_gdal_reads_them(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "a.tif")
    for name, write in (("a.RPB", rpb), ("a_RPC.TXT", rpc_txt)):
        sidecar = tmp_path / name
        sidecar.write_text(write(model))
        with rasterio.open(image) as source:
            theirs = source.rpcs
        ours = read_rpc_file(sidecar)
        assert theirs is not None
        assert (theirs.line_off, theirs.samp_off, theirs.lat_scale) == (
            ours.line_off,
            ours.samp_off,
            ours.lat_scale_deg,
        )
        assert_allclose(theirs.line_num_coeff, ours.line_num, rtol=1e-15)
        assert_allclose(theirs.samp_den_coeff, ours.samp_den, rtol=1e-15)
        sidecar.unlink()


@pytest.mark.parametrize("name", ["a.RPB", "a.rpb", "a_RPC.TXT", "a_rpc.txt", "a.geom", "RPC_a.XML"])
def test_read_rpc__finds_the_file_of_the_same_name(tmp_path: Path, model: RpcModel, name: str) -> None:
    image = write_image(tmp_path / "a.tif", transform=rasterio.Affine(1, 0, 19000, 0, 1, 20000))
    write = next(f for n, f in FORMATS.items() if n.lower() == name.lower())
    (tmp_path / name).write_text(write(model))
    (tmp_path / "a_bias.geom").write_text(geom(model.resampled(60, 0)))  # another name, so not this image's
    same(read_rpc(image), model.resampled(20000, 19000))


def test_read_rpc__pleiades_names(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "IMG_PHR1B_P_201308051042194_SEN_1-001_R1C1.TIF")
    (tmp_path / "RPC_PHR1B_P_201308051042194_SEN_1-001.XML").write_text(dimap(model))
    (tmp_path / "RPC_PHR1B_P_201308051042194_SEN_1-002.XML").write_text(dimap(model.resampled(500, 0)))
    same(read_rpc(image), model)


def test_read_rpc__pleiades_tile_takes_its_place_from_the_dim_file(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "IMG_X_R3C2.TIF")
    (tmp_path / "RPC_X.XML").write_text(dimap(model))
    with pytest.raises(CameraError, match=r"place in its product.*DIM_X\.XML"):
        read_rpc(image)
    (tmp_path / "DIM_X.XML").write_text(
        "<Dimap_Document><Raster_Data><Raster_Dimensions><Tile_Set><Regular_Tiling><NTILES_SIZE nrows='8192' "
        "ncols='4096'/></Regular_Tiling></Tile_Set></Raster_Dimensions></Raster_Data></Dimap_Document>"
    )
    same(read_rpc(image), model.resampled(2 * 8192, 4096))


def test_read_rpc__maxar_tile_takes_its_place_from_the_til_file(tmp_path: Path, model: RpcModel) -> None:
    whole, name = "24MAY01103012-P1BS-0123_01_P001", "24MAY01103012-P1BS_R2C1-0123_01_P001.TIF"
    image = write_image(tmp_path / name)
    (tmp_path / f"{whole}.RPB").write_text(rpb(model))
    for rpc in (None, tmp_path / f"{whole}.RPB"):  # found, or stated: the RPC of the whole is not the tile's
        with pytest.raises(CameraError, match=r"place in its product.*\.TIL"):
            read_rpc(image, rpc)
    tiles = ((1, name.replace("R2C1", "R1C1"), 0), (2, name, 8192))
    til = tmp_path / f"{whole}.TIL"
    til.write_text("numTiles = 2;\n" + "".join(
        f'BEGIN_GROUP = TILE_{k}\n\tfilename = "{n}";\n\tULColOffset = 7;\n\tULRowOffset = {row};\n'
        f"END_GROUP = TILE_{k}\n" for k, n, row in tiles))  # fmt: skip
    same(read_rpc(image), model.resampled(8192, 7))
    til.write_text(til.read_text().replace("ULRowOffset", "Row"))
    with pytest.raises(CameraError, match=r"place in its product"):
        read_rpc(image)
    image.with_suffix(".RPB").write_text(rpb(model))  # with an RPC of its own it needs none of that
    same(read_rpc(image), model)


def test_read_rpc__tags_describe_the_files_own_pixels(tmp_path: Path, model: RpcModel) -> None:
    own = model.resampled(20000, 19000)
    image = write_image(tmp_path / "a.tif", own, transform=rasterio.Affine(1, 0, 19000, 0, 1, 20000))
    (tmp_path / "a.RPB").write_text(rpb(model.resampled(5, 5)))  # tags come first
    same(read_rpc(image), own)
    assert_allclose(read_rpc_file(image).packed, own.packed, rtol=1e-14)


def test_read_rpc__line_and_sample_are_normalized_over_the_image(tmp_path: Path, model: RpcModel) -> None:
    found = read_rpc(write_image(tmp_path / "a.tif", model.resampled(20000, 19000), size=100))
    assert (found.line_off, found.line_scale, found.samp_off, found.samp_scale) == (49.5, 50, 49.5, 50)


def test_read_rpc__nitf(tmp_path: Path, model: RpcModel) -> None:
    """RPC00B stores whole pixels and few digits, so the model is rounded first."""
    digits = {p: tuple(float(f"{v:.6E}") for v in getattr(model, p)) for p in POLYNOMIALS}
    values = {k: getattr(model, k) for k in model.__dataclass_fields__ if k != "packed"}
    rounded = RpcModel(
        **{**values, **digits, "line_off": 32.0, "line_scale": 2000.0, "samp_off": 32.0, "samp_scale": 2000.0}
    )
    image = tmp_path / "a.ntf"
    rasterio.shutil.copy(write_image(tmp_path / "b.tif", rounded), image, driver="NITF")
    same(read_rpc(image), rounded, atol=1e-2)


def test_read_rpc__gdal_aux_file(tmp_path: Path, model: RpcModel) -> None:
    own = model.resampled(20000, 19000)
    image = write_image(tmp_path / "a.png", own, driver="PNG")
    assert (tmp_path / "a.png.aux.xml").is_file()
    same(read_rpc(image), own)


PLACES: dict[str, tuple[rasterio.Affine, tuple[float, float, float, float]]] = {
    "crop": (rasterio.Affine(1, 0, 19000, 0, 1, 20000), (20000, 19000, 1, 1)),
    "finer pixels": (rasterio.Affine(0.5, 0, 19000, 0, 0.5, 20000), (19999.75, 18999.75, 0.5, 0.5)),
    "coarser pixels": (rasterio.Affine(4, 0, 19000, 0, 2, 20000), (20000.5, 19001.5, 2, 4)),
    "rows up, centre (1, -1)": (rasterio.Affine(1, 0, 15028.5, 0, -1, -17015.5), (17015, 15028, 1, 1)),
    "rows up, corner (0, 0)": (rasterio.Affine(1, 0, 15028, 0, -1, -17015), (17015, 15028, 1, 1)),
}


@pytest.mark.parametrize("place", PLACES)
def test_read_rpc__crop_offset_and_pixel_size(tmp_path: Path, model: RpcModel, place: str) -> None:
    transform, expected = PLACES[place]
    image = write_image(tmp_path / "crop.tif", transform=transform)
    rpc = tmp_path / "full.geom"
    rpc.write_text(geom(model))
    same(read_rpc(image, rpc), model.resampled(*expected))


@pytest.mark.parametrize("place", PLACES)
def test_read_rpc__tags_of_a_crop_that_are_of_the_full_image(tmp_path: Path, model: RpcModel, place: str) -> None:
    """Tags copied to a crop count the full image's pixels; tags moved with it, as GDAL does, count its own."""
    transform, expected = PLACES[place]
    moved = model.resampled(*expected)
    same(read_rpc(write_image(tmp_path / "copied.tif", model, transform=transform)), moved)
    same(read_rpc(write_image(tmp_path / "moved.tif", moved, transform=transform)), moved)


def test_read_rpc__tags_of_a_crop_that_begin_nowhere(tmp_path: Path, model: RpcModel) -> None:
    far = replace(model, line_off=model.line_off - 9000.0, samp_off=model.samp_off + 9000.0)
    image = write_image(tmp_path / "a.tif", far, transform=rasterio.Affine(1, 0, 19000, 0, 1, 20000))
    same(read_rpc(image), far)  # as GDAL means it
    assert counts_in_doubt(image)
    full = write_image(tmp_path / "full.tif", far)
    same(read_rpc(image, full), far.resampled(20000, 19000))
    beyond = write_image(tmp_path / "b.tif", far, transform=rasterio.Affine(1, 0, 480000, 0, -1, 5230000))
    assert not counts_in_doubt(beyond)
    same(read_rpc(beyond), far)  # whatever that geotransform is, it is no place in the RPC's image


def test_reach_beyond__rpc_of_a_larger_image(tmp_path: Path, model: RpcModel) -> None:
    def of(first: float, last: float, name: str = "a.tif") -> float:
        """The RPC made for lines and samples ``first`` to ``last`` of an image of 100 x 100 px."""
        m = model.normalized(100, 100)
        m = replace(m, line_off=(first + last) / 2, samp_off=(first + last) / 2,
                    line_scale=(last - first) / 2, samp_scale=(last - first) / 2)  # fmt: skip
        image = write_image(tmp_path / name, size=100)
        (tmp_path / "a.RPB").write_text(rpb(m))
        return reach_beyond(image, tmp_path / "a.RPB")

    assert of(0, 150) == pytest.approx(0.5, abs=0.02)
    assert of(0, 100) == of(-10, 110) == of(0, 110) == 0  # made for this image, with a margin or not
    assert of(-50, 100) == 0  # the offset of a crop is in it
    assert of(0, 150, "a_R1C1.tif") == 0


def test_read_rpc__with_a_crs_the_geotransform_is_a_map(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "a.tif", transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 4e6), crs="EPSG:32631")
    (tmp_path / "a.RPB").write_text(rpb(model))
    same(read_rpc(image), model)


# ---- real files


def test_ventoux__dimap_and_geom_are_the_same_camera(shared_data: Path) -> None:
    folder = shared_data / "real/ventoux"
    dimap_file = next(folder.glob("RPC_*.XML"))
    assert_allclose(
        read_rpc_file(dimap_file).packed, read_rpc_file(folder / "left_image.geom").packed, rtol=1e-12, atol=1e-14
    )


def test_ventoux__bias_file_moves_the_line_by_60(shared_data: Path) -> None:
    folder = shared_data / "real/ventoux"
    a, b = (read_rpc(folder / "right_image.tif", folder / f"right_image{e}.geom") for e in ("", "_bias"))
    ground = (*locate(a, 250.0, 250.0, 900.0), 900.0)
    assert_allclose(np.subtract(project(b, *ground), project(a, *ground)), (60, 0), atol=1e-6)


def test_ventoux__pixel_sizes_agree_on_the_ground(shared_data: Path) -> None:
    """Four half pixels lie in one pixel: pixel (100, 200) has its centre between half pixels 200 and 201."""
    folder = shared_data / "real/ventoux"
    coarse = read_rpc(folder / "left_image.tif")
    fine = read_rpc(folder / "left_image_pixsize_0_5.tif", folder / "left_image.geom")
    ground = (*locate(coarse, 100.0, 200.0, 800.0), 800.0)
    assert_allclose(project(fine, *ground), (200.5, 400.5), atol=1e-6)
    full = read_rpc_file(folder / "left_image.geom")
    assert_allclose(project(full, *ground), (5100, 5200), atol=1e-6)


def test_toulouse__tags_and_dimap_with_crop_offset_agree(shared_data: Path) -> None:
    image = shared_data / "real/toulouse/texture_image.tif"
    same(read_rpc(image), read_rpc(image, image.with_name("rpc.XML")), atol=1e-6)


# ---- what a user can get wrong


def test_read_rpc__no_rpc_anywhere(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=r"a\.tif: image has no RPC.*; give the RPC"):
        read_rpc(write_image(tmp_path / "a.tif"))
    with pytest.raises(CameraError, match="no RPC in its metadata"):
        read_rpc_file(tmp_path / "a.tif")


def test_read_rpc__missing_files(tmp_path: Path, model: RpcModel) -> None:
    with pytest.raises(InputFileError, match=r"none\.tif: no such file"):
        read_rpc(tmp_path / "none.tif")
    image = write_image(tmp_path / "a.tif", model)
    with pytest.raises(InputFileError, match=r"none\.RPB: no such file"):
        read_rpc(image, tmp_path / "none.RPB")
    with pytest.raises(InputFileError, match="no such file"):
        read_rpc(image, tmp_path)


def test_read_rpc__image_that_cannot_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(write_image(tmp_path / "b.tif").read_bytes()[:6])
    with pytest.raises(InputFileError, match="cannot be opened as an image"):
        read_rpc(path)


@pytest.mark.parametrize("write", [rpb, rpc_txt, geom, dimap])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_read_rpc_file__truncated(
    tmp_path: Path, model: RpcModel, write: Callable[[RpcModel], str], part: float
) -> None:
    text = write(model)
    path = tmp_path / "a.rpc"
    path.write_text(text[: int(len(text) * part)])
    with pytest.raises(InputFileError, match=r"a\.rpc: .*(truncated|repair|holds no RPC)"):
        read_rpc_file(path)


@pytest.mark.parametrize(
    "data", [b"", b"hello", bytes(range(256)) * 9, b"<a>", b"<a/>", b"<?xml encoding='none'?><a/>"]
)
def test_read_rpc_file__not_an_rpc(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.geom"
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=r"a\.geom: .*; "):
        read_rpc_file(path)


@pytest.mark.parametrize("write", [rpb, rpc_txt, geom, dimap])
def test_read_rpc_file__numbers_that_cannot_be_used(
    tmp_path: Path, model: RpcModel, write: Callable[[RpcModel], str]
) -> None:
    text, path = write(model), tmp_path / "a.rpc"
    height = next(t for t in ("800.0", "+800") if t in text)
    path.write_text(text.replace(height, "0", 1))
    with pytest.raises(CameraError, match=r"a\.rpc: .*scale of zero"):
        read_rpc_file(path)
    path.write_text(text.replace(height, "nan", 1))
    with pytest.raises(CameraError, match=r"a\.rpc: .*not a number"):
        read_rpc_file(path)
    path.write_text(text.replace(height, "eight", 1))
    with pytest.raises(InputFileError, match=r"a\.rpc: .*not a number: "):
        read_rpc_file(path)


def test_read_rpc_file__other_polynomial_format(tmp_path: Path, model: RpcModel) -> None:
    path = tmp_path / "a.geom"
    path.write_text(geom(model).replace("polynomial_format:  B", "polynomial_format:  A"))
    with pytest.raises(CameraError, match="polynomial_format A is not RPC00B"):
        read_rpc_file(path)


def test_read_rpc_file__entities_are_refused(tmp_path: Path, model: RpcModel) -> None:
    path = tmp_path / "a.xml"
    bomb = '<!DOCTYPE x [<!ENTITY a "1"><!ENTITY b "&a;&a;"><!ENTITY c SYSTEM "file:///etc/hostname">]>'
    path.write_text(dimap(model).replace("<Dimap_Document>", bomb + "<Dimap_Document>"))
    with pytest.raises(InputFileError, match="DOCTYPE"):
        read_rpc_file(path)


def test_read_rpc_file__too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.rpb"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputFileError, match="too large"):
        read_rpc_file(path)


def test_read_rpc__files_that_differ_are_not_chosen_from(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "a.tif", transform=rasterio.Affine(1, 0, 19000, 0, 1, 20000))
    (tmp_path / "a.RPB").write_text(rpb(model))
    (tmp_path / "a_RPC.TXT").write_text(rpc_txt(model))
    same(read_rpc(image), model.resampled(20000, 19000))
    (tmp_path / "a.geom").write_text(geom(model.resampled(60, 0)))
    with pytest.raises(CameraError, match=r"differ: a\.RPB, a\.geom, a_RPC\.TXT"):
        read_rpc(image)


@pytest.mark.parametrize("transform", [rasterio.Affine(1, 0.1, 0, 0, 1, 0), rasterio.Affine(-1, 0, 0, 0, 1, 0)])
def test_read_rpc__rotated_or_mirrored_crop(tmp_path: Path, model: RpcModel, transform: rasterio.Affine) -> None:
    image = write_image(tmp_path / "a.tif", transform=transform)
    (tmp_path / "a.RPB").write_text(rpb(model))
    with pytest.raises(CameraError, match="rotated or mirrored"):
        read_rpc(image)


def test_read_rpc__image_outside_the_rpc(tmp_path: Path, model: RpcModel) -> None:
    image = write_image(tmp_path / "a.tif", transform=rasterio.Affine(0.5, 0, 5e5, 0, -0.5, 4.8e6))
    (tmp_path / "a.RPB").write_text(rpb(model))
    with pytest.raises(CameraError, match=r"a\.tif: image lies outside the RPC of a\.RPB"):
        read_rpc(image)
