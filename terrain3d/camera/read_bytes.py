"""Bytes of the small files that come with an image."""

from __future__ import annotations

from pathlib import Path

from terrain3d.errors import InputFileError

MAX_BYTES = 5_000_000  # RPC files have some 10 kB; far larger ones are something else


def read_bytes(path: Path) -> bytes:
    """All of a file. Raises InputFileError for one that is missing, larger than ``MAX_BYTES`` or not to be read."""
    try:
        if not path.is_file():
            raise InputFileError("no such file", where=path, fix="check the path of the RPC file")
        if path.stat().st_size > MAX_BYTES:
            raise InputFileError("too large for an RPC file", where=path, fix="give the RPC file of this image")
        return path.read_bytes()
    except InputFileError:
        raise
    except OSError as error:
        raise InputFileError(f"cannot be read: {error.strerror}", where=path, fix="check its permissions") from None
