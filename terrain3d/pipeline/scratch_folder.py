"""Folders for what a command stores while it works."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from terrain3d.io.atomic import output_error


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Folder for intermediate files inside ``out``; gone afterwards, and ``out`` with it if nothing was written."""
    existed = out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".work-", dir=out))
    except OSError as error:
        raise output_error(out, error) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed and not any(out.iterdir()):
            out.rmdir()
