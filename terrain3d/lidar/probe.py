"""Texts of variable length in granules, tried in a process that can be stopped before they are read in this one.

libhdf5 keeps such texts in a heap; where that is damaged it may look for one without end, and holds the interpreter.
NASA's granules have texts of fixed length, so few files need this.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py

from terrain3d.errors import InputFileError
from terrain3d.lidar.granule import DAMAGE

TEXTS = ("short_name", "identifier_product_doi", "VersionID", "atlas_beam_type", "description")  # read by the readers
PLACES = ("METADATA/DatasetIdentification",)  # beside the file and its beams
LIMIT_S = 5.0  # CPU time for the texts of one granule, which take milliseconds; waiting for a disk is none
NONE = -1
TRY = """
import json, signal, sys, h5py
for line in sys.stdin:
    number, path, texts = json.loads(line)
    print(number, flush=True)
    signal.setitimer(signal.ITIMER_PROF, float(sys.argv[1]))  # then this process ends
    with h5py.File(path, "r") as file:
        for place, name in texts:
            file[place].attrs[name]
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(-1, flush=True)
"""


def check_texts(paths: Sequence[Path]) -> None:
    """Raises InputFileError for a granule whose texts cannot be read, or not within ``LIMIT_S``."""
    wanted = {str(p): texts for p in paths if (texts := _texts(p))}
    if not wanted:
        return
    lines = "".join(json.dumps((i, *item)) + "\n" for i, item in enumerate(wanted.items()))
    command = [sys.executable, "-I", "-c", TRY, str(LIMIT_S)]
    done = subprocess.run(
        command, input=lines, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    begun = int(done.stdout.split()[-1]) if done.stdout else NONE
    if begun != NONE:
        raise InputFileError("lidar granule cannot be read as HDF5 (its texts are damaged)", where=list(wanted)[begun],
                             fix="download the file again")  # fmt: skip


def _texts(path: Path) -> list[tuple[str, str]]:
    """Place and name of the texts of variable length in a granule; none of one that its reader cannot open either."""
    try:
        with h5py.File(path, "r") as file:
            return list(_of_variable_length(file))
    except DAMAGE:
        return []


def _of_variable_length(file: h5py.File) -> Iterator[tuple[str, str]]:
    for place in ("/", *file, *PLACES):
        try:
            attributes = file[place].attrs
            for name in TEXTS:
                if name in attributes and attributes.get_id(name).get_type().is_variable_str():
                    yield place, name
        except DAMAGE:
            continue
