"""Lines of other libraries kept from the terminal, where this program has its own."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

MAPS = Path("/proc/self/maps")


@lru_cache(maxsize=1)
def hush_libtiff() -> None:
    """Let the TIFF library that rasterio brought along print nothing: what it finds (a full disk) GDAL raises, too.

    It writes to the process's own standard error, past GDAL and Python (TIFFSetErrorHandler, libtiff's manual).
    """
    with suppress(OSError, AttributeError):
        loaded = {line.split()[-1] for line in MAPS.read_text(encoding="utf-8").splitlines() if "/libtiff" in line}
        for path in loaded:
            handler = ctypes.CDLL(path).TIFFSetErrorHandler
            handler.restype, handler.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            handler(None)
