"""When an image was taken, as far as its files tell.

Asked in this order: the IMAGERY domain that GDAL fills from the providers' metadata files (DIMAP, IMD, RPC-beside
products; UTC), NITF's image date, and the product names of Pleiades, SPOT and Maxar, which hold the time and which
crops and conversions of an image carry on in their tags or file name. TIFF's DateTime is when the file was written and
says nothing of the image.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terrain3d.io.rasters import open_raster

# DS_PHR1B_201306290637144_..., IMG_SPOT6_P_201305251018121_...; the last digit is a tenth of a second
_AIRBUS = re.compile(r"(?:PHR1[AB]|SPOT[67]|PNEO[3-6])_(?:[A-Z]{1,4}_)?(\d{14})(\d?)(?!\d)")
_MAXAR = re.compile(r"(?<![0-9A-Za-z])(\d\d)(JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)(\d{8})-[A-Z]\d[A-Z]{2}")
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y%m%d%H%M%S")


def read_acquired(path: Path) -> datetime | None:
    """Time of acquisition (UTC) of an image; None where nothing tells it. Raises InputFileError if unreadable."""
    with open_raster(path) as file:
        stated = [file.tags(ns="IMAGERY").get("ACQUISITIONDATETIME"), file.tags().get("NITF_IDATIM")]
        names = [path.name, *_names(file)]
    for text in stated:
        if text and (time := _parse(text.strip())):
            return time
    return next((t for name in names if (t := time_in_name(name))), None)


def _names(file: Any) -> Iterator[str]:
    """Texts of the metadata that may hold a product's name."""
    for domain in (None, *(d for d in file.tag_namespaces() if d.startswith("xml:"))):
        for text in file.tags(ns=domain).values():
            yield text[:20_000]


def time_in_name(text: str) -> datetime | None:
    """Time that a product name of Pleiades, SPOT 6/7, Pleiades Neo or Maxar (14MAY09014327-P1BS-...) holds."""
    if found := _AIRBUS.search(text):
        time = _parse(found[1])
        return time.replace(microsecond=100_000 * int(found[2] or 0)) if time else None
    if found := _MAXAR.search(text):
        return _parse(f"20{found[1]}{_MONTHS.index(found[2]) + 1:02d}{found[3]}")
    return None


def _parse(text: str) -> datetime | None:
    for form in _FORMATS:
        try:
            return datetime.strptime(text.removesuffix("Z")[:19], form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
