"""Declare ellipsoidal heights over a projected CRS inside a GeoTIFF.

GDAL reads ``VerticalGeoKey`` = code of a geographic 3D CRS (4979 for WGS 84) as a three-dimensional projected CRS, as
the DGIWG profile of GeoTIFF has it, but it writes such a CRS only into an ``.aux.xml`` beside the file, which is lost
when the file is moved. So the file is written with a stand-in vertical code, which is replaced here in its place.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from terrain3d.errors import OutputError

GEO_KEY_DIRECTORY = 34735  # TIFF tag, OGC 19-008r4 (GeoTIFF 1.1) section 7.1.1
VERTICAL_KEY = 4096  # VerticalGeoKey, section 7.5


def replace_vertical_key(path: Path, old: int, new: int) -> None:
    """Change the value of VerticalGeoKey from ``old`` to ``new`` in the first image of a TIFF or BigTIFF file.

    Raises OutputError if the file has no such key.
    """
    with path.open("r+b") as file:
        order, position, count = _geo_key_directory(file, path)
        file.seek(position)
        keys = struct.unpack(f"{order}{count}H", file.read(2 * count))
        for i in range(4, count - 3, 4):  # a header of four, then key, place, count, value
            if keys[i] == VERTICAL_KEY and keys[i + 3] == old:
                file.seek(position + 2 * (i + 3))
                file.write(struct.pack(f"{order}H", new))
                return
    raise OutputError("vertical reference could not be declared", where=path)


def _geo_key_directory(file: BinaryIO, path: Path) -> tuple[str, int, int]:
    """Byte order, position and number of shorts of the GeoKey directory of the first image."""
    order = "<" if file.read(2) == b"II" else ">"
    (version,) = struct.unpack(f"{order}H", file.read(2))
    if version == 43:  # BigTIFF: 8-byte offsets and counts
        file.seek(8)
        offset_type, count_type, entry_size = "Q", "Q", 20
    else:
        offset_type, count_type, entry_size = "I", "H", 12
    (start,) = struct.unpack(f"{order}{offset_type}", file.read(struct.calcsize(offset_type)))
    file.seek(start)
    (entries,) = struct.unpack(f"{order}{count_type}", file.read(struct.calcsize(count_type)))
    for _ in range(entries):
        tag, _, count, position = struct.unpack(f"{order}HH{offset_type}{offset_type}", file.read(entry_size))
        if tag == GEO_KEY_DIRECTORY:
            return order, position, count
    raise OutputError("GeoTIFF has no GeoKey directory", where=path)
