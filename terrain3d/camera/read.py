"""The RPC of an image file, from its own tags or from a file beside it, on the image's own pixel grid.

Which RPC holds for which pixels:

- RPC in the image's own metadata (GeoTIFF tag, NITF RPC00B, .aux.xml) describes the pixels of that very file, as GDAL
  reads and writes it, so a crop offset in the geotransform is not applied. But programs that copy tags to a crop leave
  it the RPC of the full image, which shows where the RPC begins; ``counts_in_doubt`` tells where it does not show.
- A separate RPC file describes the full image as it was delivered. If the image has no CRS, its geotransform says
  where in the full image its pixels lie (crop offset and pixel size), and the RPC is moved there. With a CRS the
  geotransform is a map position, and the RPC counts this file's pixels.

Two ways of writing that geotransform are met. Rows that count down (step > 0): coordinates of GDAL, the corner of the
full image is (0, 0). Rows that count up (step < 0): y = -row, and with the half pixels of Pleiades products the centre
of the full image's first pixel is (1, -1); with whole numbers the corner is (0, 0).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from terrain3d.camera.read_bytes import MAX_BYTES, read_bytes
from terrain3d.camera.read_text import parse_metadata, parse_text
from terrain3d.camera.read_xml import parse_aux, parse_dimap, parse_xml
from terrain3d.camera.rpc import RpcModel, locate
from terrain3d.camera.tile import is_tile, product_of, tile_place
from terrain3d.errors import CameraError, InputFileError

BEGINS, BEYOND = 0.01, 0.25  # of its scale: how near to the first pixel an RPC begins, how far it reaches too far
SURROUND = 0.12  # of its scale, that an RPC made for an image may begin before or after it
_GIVE_RPC = "give the RPC file of this image in the configuration (images: {path:, rpc:}, colour: {path:, rpc:})"


@dataclass(frozen=True)
class _Image:
    """What an image file itself says about its geometry."""

    height: int
    width: int
    has_crs: bool
    transform: tuple[float, ...]
    rpc: RpcModel | None

    @property
    def is_crop(self) -> bool:
        """Whether a geotransform without CRS says where in a larger image the pixels lie."""
        a, b, x, d, e, y = self.transform
        plain = not (self.has_crs or b or d) and a > 0 and e != 0
        return plain and (abs(x) > 1 or abs(y) > 1 or (a, abs(e)) != (1, 1))


def read_rpc(image: Path, rpc: Path | None = None) -> RpcModel:
    """RPC of the pixels of ``image``, its line and sample normalized to -1 .. 1 over that image.

    rpc: RPC file of the full image; without it the image's own metadata is used, else the RPC file beside it that
    bears its name: STEM.RPB, STEM_RPC.TXT, STEM.rpc, STEM.geom (any case), RPC_STEM.XML, RPC_x.XML for IMG_x, DIM_x
    and IMG_x_R1C1, and the same without the row and column of a tile (``terrain3d.camera.tile``).

    Raises InputFileError for a file that is missing, too large, truncated or not an RPC, CameraError for an image
    without RPC, with several that differ, or one that the RPC does not cover.
    """
    image = Path(image)
    has = _open(image)
    if rpc is None and has.rpc is not None:
        own = has.rpc.resampled(*_place(has, image)) if _counts_full(has.rpc, has, image) else has.rpc
        return _checked(own.normalized(has.height, has.width), has, image, image)
    source = Path(rpc) if rpc is not None else _beside(image)
    model = read_rpc_file(source)
    line, sample, line_step, sample_step = _place(has, image)
    if (line, sample, line_step, sample_step) == (0, 0, 1, 1):
        line, sample = tile_place(image, source)
    model = model.resampled(line, sample, line_step, sample_step).normalized(has.height, has.width)
    return _checked(model, has, image, source)


def read_rpc_file(path: Path) -> RpcModel:
    """RPC as a file holds it (full image): .RPB, _RPC.TXT, .geom, DIMAP XML, or the tags of an image.

    Raises InputFileError for a file that is missing, too large, truncated or not an RPC, CameraError for
    coefficients that cannot be used.
    """
    path = Path(path)
    if path.suffix.lower() in (".tif", ".tiff", ".ntf", ".nitf", ".jp2", ".vrt"):
        model = _open(path).rpc
        if model is None:
            raise CameraError("image has no RPC in its metadata", where=path, fix=_GIVE_RPC)
        return model
    data = read_bytes(path)
    if data.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        return parse_dimap(parse_xml(data, path), path)
    return parse_text(data.decode("utf-8-sig", errors="replace"), path)


def _open(path: Path) -> _Image:
    """Size, place and own RPC of an image. GDAL is kept from reading the files beside it: what it takes from them is
    an RPC of the full image, which must not pass for one of this file's pixels. A .TIL is nothing without them."""
    alone = {} if path.suffix.lower() == ".til" else {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
    if not path.is_file():
        raise InputFileError("no such file", where=path, fix="check the path of the image")
    try:
        with warnings.catch_warnings(), rasterio.Env(**alone):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as source:
                tags = source.tags(ns="RPC")
                height, width, crs, transform = source.height, source.width, source.crs, tuple(source.transform)[:6]
    except (RasterioError, OSError, UnicodeDecodeError) as error:  # also of messages that quote a damaged header
        fix = "the file may be truncated or not an image; fetch it again"
        raise InputFileError(f"cannot be opened as an image: {error}", where=path, fix=fix) from None
    aux = path.with_name(path.name + ".aux.xml")
    model = None
    if tags:
        model = parse_metadata(tags, path)
    elif aux.is_file() and aux.stat().st_size <= MAX_BYTES:  # may also hold histograms, so its size is no error
        model = parse_aux(parse_xml(read_bytes(aux), aux), aux)
    return _Image(height, width, bool(crs), transform, model)


def _beside(image: Path) -> Path:
    """The RPC file that bears the image's name."""
    stem = image.stem
    product = product_of(stem)
    bases = {s[4:] if s[:4].upper() in ("IMG_", "DIM_") else s for s in (stem, product)} | {stem}
    xml = {f"rpc_{b}.xml".lower() for b in bases}
    own, whole = ({(s + end).lower() for end in (".rpb", "_rpc.txt", ".rpc", ".geom")} for s in (stem, product))
    beside = sorted(image.parent.iterdir())
    found = [p for p in beside if p.name.lower() in own | xml] or [p for p in beside if p.name.lower() in whole]
    if not found:
        raise CameraError("image has no RPC, in its metadata or in a file beside it", where=image, fix=_GIVE_RPC)
    models = [read_rpc_file(p) for p in found]
    if not all(np.allclose(m.packed, models[0].packed, rtol=1e-9, atol=1e-14) for m in models[1:]):
        raise CameraError(f"RPC files that differ: {', '.join(p.name for p in found)}", where=image, fix=_GIVE_RPC)
    return found[0]


def _place(has: _Image, image: Path) -> tuple[float, float, float, float]:
    """Line and sample of the first pixel's centre in the full image, and the steps from pixel to pixel."""
    a, b, x, d, e, y = has.transform
    if has.has_crs:
        return 0.0, 0.0, 1.0, 1.0
    if b or d or a <= 0 or e == 0:
        fix = "cut the crop without rotation or mirroring, or store an RPC of its own pixels in its tags"
        raise CameraError("geotransform without CRS is not a crop offset (rotated or mirrored)", where=image, fix=fix)
    first = 0.0 if e > 0 or (x % 1 == 0 and y % 1 == 0) else 0.5  # coordinate of the full image's corner
    return (y if e > 0 else -y) - first + (abs(e) - 1) / 2, x - first + (a - 1) / 2, abs(e), a


def counts_in_doubt(image: Path) -> bool:
    """Whether an image is a crop of which nothing tells if the RPC in its tags counts its own pixels, as GDAL means it
    and ``read_rpc`` takes it, or those of the full image."""
    has = _open(image)
    return has.rpc is not None and _counts_full(has.rpc, has, image) is None


def reach_beyond(image: Path, rpc: Path | None = None) -> float:
    """How far beyond its last pixel the RPC of an image goes, in sizes of the image, where the RPC begins with the
    image and nothing says that this is a crop; else 0. Then it is one of a larger image, cut at its first corner, or
    cut elsewhere without its offset: in the second case all of the model lies as far off as was cut away."""
    has = _open(image)
    if has.is_crop or is_tile(image.stem):
        return 0.0
    model = has.rpc if rpc is None and has.rpc is not None else read_rpc_file(_beside(image) if rpc is None else rpc)
    line, sample = (
        ((off - abs(scale)) / abs(scale), (off + abs(scale) - size) / size)
        for off, scale, size in (
            (model.line_off, model.line_scale, has.height), (model.samp_off, model.samp_scale, has.width)
        )
    )  # fmt: skip
    if max(abs(line[0]), abs(sample[0])) > SURROUND:
        return 0.0
    farthest = max(line[1] + min(line[0], 0), sample[1] + min(sample[0], 0))  # beside a margin all around
    return farthest if farthest > BEYOND else 0.0


def _counts_full(model: RpcModel, has: _Image, image: Path) -> bool | None:
    """Whether the RPC in a crop's tags is that of the full image: an RPC is made for all of an image, from its first
    line and sample on, so what it is valid for begins where the full image does. None if it begins at neither place."""
    if not has.is_crop:
        return False
    line, sample, line_step, sample_step = _place(has, image)
    says = set()
    for first, step, size, offset, scale in (
        (line, line_step, has.height, model.line_off, abs(model.line_scale)),
        (sample, sample_step, has.width, model.samp_off, abs(model.samp_scale)),
    ):
        if first + size * step > offset + scale * (1 + BEYOND):
            return False  # the full image has no such pixels
        of_own, of_full = abs(offset - scale + first / step), abs(offset - scale)
        if min(of_own, of_full) < min(BEGINS * scale, max(of_own, of_full) / 4):
            says.add(of_full < of_own)
    return says.pop() if len(says) == 1 else None


def _checked(model: RpcModel, has: _Image, image: Path, source: Path) -> RpcModel:
    """The model, once it is sure that it covers the image: another image's RPC would only fail much later."""
    lon, lat = locate(model, (has.height - 1) / 2, (has.width - 1) / 2, model.height_off)
    off = max(
        abs((lon - model.lon_off_deg) / model.lon_scale_deg), abs((lat - model.lat_off_deg) / model.lat_scale_deg)
    )
    if not off < 2:  # also if NaN
        fix = "check that it belongs to this image and that the geotransform is its place in the full image"
        raise CameraError(f"image lies outside the RPC of {source.name}", where=image, fix=fix)
    return model
