"""Files that are either whole or not there: written beside their place under another name, renamed when done."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from terrain3d.errors import OutputError, Terrain3dError

FULL_BYTES = 2**16  # free on a disk that counts as full


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Temporary path in the folder of ``path`` with the same suffix; becomes ``path`` when the block ends well.

    The folder is made if it is missing. Whatever goes wrong inside, nothing stays behind and an older file at ``path``
    is untouched. An OSError of the machine (full disk, no permission, not a directory) becomes an OutputError; errors
    of this program pass through.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, "a folder with this name is in the way")
        yield part
        part.replace(path)
    except Terrain3dError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        _remove(part)


def output_error(path: Path, error: BaseException) -> OutputError:
    """OutputError with the machine's own reason, in one line."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if getattr(error, "errno", None) is None and _is_full(path):  # libraries do not say it, or in words of their own
        reason = os.strerror(errno.ENOSPC)
    return OutputError(
        f"cannot be written ({reason.splitlines()[0]})",
        where=path,
        fix="check the folder, its permissions and the free disk space",
    )


def _is_full(path: Path) -> bool:
    """Whether hardly any space is left where a path lies."""
    try:
        stat = os.statvfs(next(p for p in path.absolute().parents if p.is_dir()))
    except OSError:
        return False
    return stat.f_bavail * stat.f_frsize < FULL_BYTES


def _remove(part: Path) -> None:
    """Delete the temporary file and what libraries put beside it (journals, .aux.xml)."""
    try:
        for left in [p for p in part.parent.iterdir() if p.name.startswith(part.name)]:
            left.unlink(missing_ok=True)
    except OSError:
        pass  # the folder itself is gone or closed; the error that led here is the one to report


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically. Raises OutputError."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write bytes atomically. Raises OutputError."""
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys in their given order, numbers that are not finite as null. Raises OutputError."""
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """Value in types of JSON: dataclasses, enums, paths, numpy scalars and arrays resolved, NaN and infinity None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (str, int, bool)) or value is None:
        return value
    return str(value)
