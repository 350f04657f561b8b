"""Compiled functions, loaded once for all workers that are copies of a process."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from terrain3d.surface.visibility import visible


def load_compiled() -> None:
    """Load all compiled functions of this program that Numba keeps on disk. What is not there, or where Numba keeps it
    otherwise than it does now, is loaded when it is first called."""
    visible(np.zeros((2, 2), np.float32), 1.0, (0.1, 0.0))  # whatever Numba sets up for its first
    for name, module in list(sys.modules.items()):
        if name.startswith("terrain3d."):
            for value in list(vars(module).values()):
                if isinstance(value, Dispatcher) and value.py_func.__module__ == name:
                    with suppress(Exception):
                        _load(value)


def _load(function: Any) -> None:
    cache, codegen = function._cache, function.targetctx.codegen()
    for key in cache._cache_file._load_index():
        if key == cache._index_key(key[0], codegen):  # of this processor and this code
            function.compile(key[0])
