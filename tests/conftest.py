"""Fixtures shared by all packages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from terrain3d.cli import BLAS_THREADS

# As in a process of the command line, before numpy is loaded: the last bits of results would depend on the number of
# cores, and the workers of pytest would have more threads than that.
for name in BLAS_THREADS:
    os.environ.setdefault(name, "1")
# What is printed is tested as it is without colours.
for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERRAIN3D_DEBUG"):
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of scenes and real data that is not part of the project; tests that need it skip without it."""
    root = Path(os.environ.get("TERRAIN3D_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no test data at {root} (set TERRAIN3D_DATA)")
    return root


NUMBER, WORDS = {"type": "number"}, {"type": "string", "minLength": 1}
SIZE = {"type": "integer", "minimum": 0}
NODATA = {"anyOf": [NUMBER, {"enum": ["nan", "inf", "-inf"]}]}


def numbers(*lengths: int, of: dict[str, Any] = NUMBER) -> dict[str, Any]:
    """An array of one of these lengths."""
    return {"type": "array", "items": of, "anyOf": [{"minItems": n, "maxItems": n} for n in lengths]}


# What the extensions of an item may hold, after the tables of their specifications: by the prefix of their fields.
EXTENSIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "proj": ("projection/v2.0.0", {
        "code": {"anyOf": [{"type": "string", "pattern": "^[A-Z]+:[A-Za-z0-9]+$"}, {"type": "null"}]},
        "wkt2": {"type": ["string", "null"]}, "bbox": numbers(4, 6), "shape": numbers(2, of=SIZE),
        "transform": numbers(6, 9),
    }),
    "raster": ("raster/v2.0.0", {
        "sampling": {"enum": ["area", "point"]}, "bits_per_sample": SIZE, "spatial_resolution": NUMBER,
        "scale": NUMBER, "offset": NUMBER,
    }),
    "file": ("file/v2.1.0", {
        "size": SIZE, "header_size": SIZE, "checksum": {"type": "string", "pattern": "^1220[0-9a-f]{64}$"},
        "byte_order": {"enum": ["big-endian", "little-endian"]},
    }),
    "processing": ("processing/v1.2.0", {
        "software": {"type": "object", "minProperties": 1, "additionalProperties": WORDS}, "lineage": WORDS,
        "level": WORDS, "facility": WORDS, "version": WORDS, "datetime": WORDS,
    }),
}  # fmt: skip
BAND = {
    "type": "object", "required": ["name", "data_type"], "additionalProperties": False,
    "properties": {
        "name": WORDS, "unit": WORDS, "nodata": NODATA,
        "data_type": {"enum": [f"{k}int{n}" for k in ("", "u") for n in (8, 16, 32, 64)] + ["float32", "float64"]},
    },
}  # fmt: skip


def stac_faults(item: dict[str, Any]) -> list[str]:
    """Where the fields of the extensions of a STAC item or collection are not what their specifications say."""
    urls = [f"https://stac-extensions.github.io/{name}/schema.json" for name, _ in EXTENSIONS.values()]
    faults = [f"unknown extension {u}" for u in item["stac_extensions"] if u not in urls]
    used = set()
    fields = {f"{p}:{n}": rule for p, (_, rules) in EXTENSIONS.items() for n, rule in rules.items()}
    places = {"properties": item.get("properties", {}), **item["assets"]}
    for place, values in places.items():
        for key in (k for k in values if ":" in k):
            used.add(key.split(":")[0])
            rule = fields.get(key, False)
            faults += [f"{place} {key}: {e.message}" for e in Draft7Validator(rule).iter_errors(values[key])]
        for band in values.get("bands", []):
            faults += [f"{place} band: {e.message}" for e in Draft7Validator(BAND).iter_errors(band)]
    declared = {p for p, (name, _) in EXTENSIONS.items() if f"/{name}/" in " ".join(item["stac_extensions"])}
    return faults + [f"extension of {p}: used or declared, not both" for p in sorted(used ^ declared)]


@pytest.fixture(scope="session")
def faults_of() -> Callable[[dict[str, Any]], list[str]]:
    """``stac_faults``: [] for an item whose extensions are in order."""
    return stac_faults
