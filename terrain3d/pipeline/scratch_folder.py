"""Folders for what a command stores while it works, and for results that appear together."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from terrain3d.errors import ConfigError, OutputError
from terrain3d.io.atomic import output_error


def check_apart(out: Path, given: Sequence[Path]) -> None:
    """Raises ConfigError where results would be written over the models, folders or files, that they are made from."""
    for path in given:
        if path.resolve() in (out.resolve(), (out / "dsm.tif").resolve()):
            raise ConfigError(f"would overwrite what was given, {path}", where="--out", fix="name another folder")


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


@contextmanager
def all_or_none(folder: Path, out: Path, earlier: Sequence[Path] = ()) -> Iterator[Path]:
    """Folder inside ``folder``, on the disk of ``out``, whose files go to ``out`` when the block ends well.

    Else ``out`` keeps what it had: results of two runs are not mixed. earlier: files that an earlier run left, relative
    to ``out``; those that are not written anew go. Raises OutputError, also if a folder is in the way of a file."""
    ready = folder / "results"
    yield ready
    files = sorted(p.relative_to(ready) for p in ready.rglob("*") if p.is_file())
    taken = next((out / f for f in files if (out / f).is_dir()), None)
    if taken is not None:
        raise OutputError("cannot be written (a folder with this name is in the way)", where=taken, fix="move it away")
    for file in files:
        try:
            (out / file).parent.mkdir(parents=True, exist_ok=True)
            (ready / file).replace(out / file)
        except OSError as error:
            raise output_error(out / file, error) from error
    for file in set(earlier) - set(files):
        (out / file).unlink(missing_ok=True)
        if (out / file).parent != out and not any((out / file).parent.iterdir()):
            (out / file).parent.rmdir()
