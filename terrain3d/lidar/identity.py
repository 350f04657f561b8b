"""What an open granule is: its product by its content, its release, the pass that it is from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from terrain3d.errors import InputFileError, Terrain3dError
from terrain3d.lidar.atlas import BEAMS
from terrain3d.lidar.granule import DAMAGE, attribute_text, has
from terrain3d.lidar.read_gedi import beam_groups

ATL03, ATL06, ATL08, GEDI_L2A = "ATL03", "ATL06", "ATL08", "GEDI_L2A"
GROUPS = ((ATL08, "land_segments"), (ATL06, "land_ice_segments"), (ATL03, "heights"))
HDF5 = (".h5", ".hdf5", ".he5")


def product_of(file: h5py.File) -> str | None:
    """Product of an open granule: its short_name, else the layout of its groups; None if neither is known."""
    name = attribute_text(file.attrs, "short_name").upper().replace("GEDI02_A", GEDI_L2A)
    for product in (ATL08, ATL06, GEDI_L2A, ATL03):
        if name.startswith(product):
            return product
    for product, group in GROUPS:
        if any(has(file, f"{b}/{group}") for b in BEAMS):
            return product
    return GEDI_L2A if beam_groups(file) else None


def release_of(file: h5py.File, path: Path) -> int | None:
    """Release of an ICESat-2 granule: from its metadata or its DOI, else from its name; None if none of them says."""
    identity = file.get("METADATA/DatasetIdentification")
    texts = [] if identity is None else [attribute_text(identity.attrs, "VersionID")]
    texts.append(attribute_text(file.attrs, "identifier_product_doi").rpartition(".")[2])
    named = re.search(r"_(\d{3})_\d{2}(?:_|\.|$)", path.name)
    texts.append(named.group(1) if named else "")
    return next((int(t) for t in texts if t.isdigit()), None)


def pass_of(file: h5py.File, path: Path) -> tuple[int | None, ...]:
    """What granules of one pass over one place have in common: reference ground track, cycle, and region or None.

    Of the file, else of its name; () where neither says it.
    """
    found = re.search(r"\d{14}_(\d{4})(\d{2})(\d{2})", path.name)
    named = tuple(int(g) for g in found.groups()) if found else ()
    numbers = tuple(
        int(np.asarray(file[n][()]).ravel()[0]) if n in file and file[n].size else None
        for n in ("orbit_info/rgt", "orbit_info/cycle_number", "ancillary_data/start_region")
    )
    if None in numbers[:2]:
        return named
    return named if numbers[2] is None and named[:2] == numbers[:2] else numbers


@contextmanager
def open_granule(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file; what h5py raises while it is open becomes InputFileError."""
    if not path.is_file():
        raise InputFileError("lidar file not found", where=path, fix="check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except Terrain3dError:
        raise
    except DAMAGE as error:
        fix = "download the file again" if path.suffix.lower() in HDF5 else "give granules in HDF5, or tables"
        raise InputFileError(f"lidar granule cannot be read as HDF5 ({error})", where=path, fix=fix) from error
