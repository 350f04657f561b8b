"""Texts of variable length in granules, tried in a process that can be stopped before they are read in this one.

libhdf5 keeps such texts in a heap; where that is damaged it may look for one without end, and holds the interpreter.
NASA's granules have texts of fixed length, so few files need this.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py

from terrain3d.errors import InputFileError
from terrain3d.lidar.granule import DAMAGE

TEXTS = ("short_name", "identifier_product_doi", "VersionID", "atlas_beam_type", "description")  # read by the readers
PLACES = ("METADATA/DatasetIdentification",)  # beside the file and its beams
LIMIT_S = 5.0
TRY = """
import sys, h5py
for line in sys.stdin:
    path, *texts = line.rstrip("\\n").split("\\t")
    print(path, flush=True)
    with h5py.File(path, "r") as file:
        for text in texts:
            place, name = text.rsplit("@", 1)
            file[place].attrs[name]
    print("", flush=True)
"""


def check_texts(paths: Sequence[Path]) -> None:
    """Raises InputFileError for a granule whose texts cannot be read, or not within ``LIMIT_S``."""
    wanted = {str(p): texts for p in paths if (texts := _texts(p))}
    if not wanted:
        return
    lines = "".join("\t".join((path, *texts)) + "\n" for path, texts in wanted.items())
    with subprocess.Popen(
        [sys.executable, "-I", "-c", TRY], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        try:
            said, _ = child.communicate(lines, timeout=LIMIT_S + len(wanted))
        except subprocess.TimeoutExpired:
            child.kill()
            said, _ = child.communicate()
    last = said.splitlines()[-1] if said else ""
    if last:  # begun, and not ended
        raise InputFileError("lidar granule cannot be read as HDF5 (its texts are damaged)", where=last,
                             fix="download the file again")  # fmt: skip


def _texts(path: Path) -> list[str]:
    """Texts of variable length in a granule, as 'place@name'; none where it cannot be opened: its reader says why."""
    try:
        with h5py.File(path, "r") as file:
            return list(_of_variable_length(file))
    except DAMAGE:
        return []


def _of_variable_length(file: h5py.File) -> Iterator[str]:
    for place in ("/", *file, *PLACES):
        try:
            attributes = file[place].attrs
            for name in TEXTS:
                if name in attributes and attributes.get_id(name).get_type().is_variable_str():
                    yield f"{place}@{name}"
        except DAMAGE:
            continue
