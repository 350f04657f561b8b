"""Work and results as bytes between the processes of a batch.

Work is sent as it is, functions included (cloudpickle), from the driver to its own workers. Results are kept on disk,
so what reads them takes nothing but values of this program and of numpy: a manipulated file cannot run code.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import cloudpickle

from terrain3d.io.objects import Desk

# What results are made of besides the dataclasses and enumerations of this program.
PLAIN = {
    "builtins": ("set", "frozenset", "slice", "complex", "range", "bytearray"),
    "datetime": ("datetime", "date", "timedelta", "timezone"),
    "pathlib": ("Path", "PosixPath", "PurePosixPath"),
    "numpy": ("ndarray", "dtype"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "shapely": ("from_wkb",),
    "shapely.io": ("from_wkb",),
}


class _Named(pickle.Pickler):
    """Pickles the desk and its objects by their names."""

    def __init__(self, file: io.BytesIO, desk: Desk) -> None:
        super().__init__(file, protocol=5)
        self._desk = desk

    def persistent_id(self, value: Any) -> Any:
        return _name_of(value, self._desk)


class _Packer(_Named, cloudpickle.CloudPickler):
    """For work: functions too."""


def _name_of(value: Any, desk: Desk) -> tuple[str, str] | None:
    """How the desk and its objects are called on the other side."""
    if isinstance(value, Desk):
        return "desk", ""
    if isinstance(value, Path) and value.is_relative_to(desk.objects.folder):
        return "object", value.name
    return None


class _Unpacker(pickle.Unpickler):
    def __init__(self, data: bytes, desk: Desk, *, code: bool) -> None:
        super().__init__(io.BytesIO(data))
        self._desk, self._code = desk, code

    def persistent_load(self, name: Any) -> Any:
        kind, which = name
        return self._desk if kind == "desk" else self._desk.objects.path(which)

    def find_class(self, module: str, name: str) -> Any:
        if self._code or name in PLAIN.get(module, ()):
            return super().find_class(module, name)
        if module.startswith("terrain3d.") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum)):
                return found
        raise pickle.UnpicklingError(f"{module}.{name} has no place among results")


def pack_work(work: Any, desk: Desk) -> bytes:
    """Bytes of a function with what it captured, for ``unpack_work`` in another process."""
    file = io.BytesIO()
    _Packer(file, desk).dump(work)
    return file.getvalue()


def unpack_work(data: bytes, desk: Desk) -> Any:
    return _Unpacker(data, desk, code=True).load()


def pack_value(value: Any, desk: Desk) -> bytes:
    """Bytes of a value."""
    file = io.BytesIO()
    _Named(file, desk).dump(value)
    return file.getvalue()


def unpack_value(data: bytes, desk: Desk) -> Any:
    """Value of ``pack_value`` that was kept on disk. Raises pickle.UnpicklingError for more than values."""
    return _Unpacker(data, desk, code=False).load()
