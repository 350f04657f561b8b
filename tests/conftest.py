"""Fixtures shared by all packages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of scenes and real data that is not part of the project; tests that need it skip without it."""
    root = Path(os.environ.get("TERRAIN3D_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"no test data at {root} (set TERRAIN3D_DATA)")
    return root
