"""Damaged inputs for every reader: each must be read or refused in one line, quickly and in little memory.

    python tools/fuzz_readers.py [--cases 2000] [--seed 1] [--reader NAME] [--keep FOLDER]

Files of every kind are made by the simulator, then cut short, overwritten, flipped, repeated, given absurd numbers or
mixed with each other. Readers run in a process of their own with a limit on its memory. What counts as a finding: an
exception other than the program's own, a process that dies, more than 10 seconds, a file written.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fuzz_seeds import seeds

MOST_S = 10
MOST_WALL_S = 60  # of a loaded machine; also stops what waits
MOST_BYTES = 3 * 2**30
NUMBERS = (0, 1, -1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, 255, 65535, 2**40)
WORDS = (b"nan", b"inf", b"-1e308", b"99999999999999999999", b"<", b"\x00", b"\xff\xfe", b"../../", b"%s%n", b",,,,")
TEXT = (".xml", ".txt", ".rpb", ".geom", ".csv", ".yaml", ".vrt")


def mutated(data: bytes, text: bool, draw: random.Random, other: bytes) -> bytes:
    """Bytes with one to four kinds of damage."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        place = min(int(len(out) * draw.random() ** draw.choice((1, 1, 4))), len(out) - 1)  # headers are hit most
        kind = draw.randrange(9)
        if kind == 0:
            del out[place:]
        elif kind == 1:
            for _ in range(draw.choice((1, 1, 8, 64))):
                out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
        elif kind == 2:
            number = struct.pack("<q", draw.choice(NUMBERS))
            width = draw.choice((2, 4, 8))
            out[place : place + width] = number[:width] if draw.random() < 0.5 else number[:width][::-1]
        elif kind == 3:
            out[place : place + draw.choice((1, 16, 400))] = b""
        elif kind == 4:
            out[place:place] = out[place : place + draw.choice((1, 40, 4000))] * draw.choice((1, 3, 50))
        elif kind == 5:
            out[place : place + draw.choice((4, 64, 1024))] = bytes(draw.randrange(256) for _ in range(64))
        elif kind == 6:
            out[place:place] = draw.choice(WORDS) * draw.choice((1, 1, 1000))
        elif kind == 7 and text:
            digits = [i for i, b in enumerate(out) if 48 <= b <= 57]
            if digits:
                i = draw.choice(digits)
                out[i : i + 1] = draw.choice((b"nan", b"1e400", b"-", b"9" * 400, b"", b"e"))
        else:
            cut = draw.randrange(len(other) or 1)
            out[place:] = other[cut:]
    return bytes(out)


def reader(name: str) -> Callable[[Path], object]:
    """What the program does with a file of a kind."""
    from terrain3d.camera.read import read_rpc, read_rpc_file
    from terrain3d.config import LidarFormat, TableColumns, load_scene
    from terrain3d.info import describe
    from terrain3d.io.clouds import read_cloud
    from terrain3d.io.images import has_data, open_image, read_window
    from terrain3d.io.rasters import read_raster
    from terrain3d.io.vectors import read_layer
    from terrain3d.lidar.read import read_granule, read_lidar
    from terrain3d.pipeline.batch.area import load_area

    def image(path: Path) -> None:
        found = open_image(path)
        has_data(found)
        read_rpc(path)
        read_window(found, 0, 0, min(found.height, 64), min(found.width, 64))

    def table(path: Path) -> None:
        own = path.suffix == ".laz"
        columns = TableColumns() if own else TableColumns(x="lon", y="lat", height="h", track="track")
        stated = {"vertical": "ellipsoid", "footprint": 1, "sigma": 1, "crs": None if own else "EPSG:4326"}
        with path.open("rb") as file:
            decimal = "," if b";" in file.read(40) else "."
        read_granule(path, form=LidarFormat(columns=columns, decimal=decimal, **stated))
        if path.suffix == ".parquet":
            read_granule(path)

    def pair(path: Path) -> None:
        (photons,) = (path.parent.parent / "photons").glob("ATL03*.h5")
        read_lidar([photons, path])

    def also_described(read: Callable[[Path], object]) -> Callable[[Path], object]:
        def both(path: Path) -> None:
            try:
                read(path)
            finally:
                describe(path)

        return both

    readers: dict[str, Callable[[Path], object]] = {
        "image": also_described(image), "raster": also_described(read_raster), "rpc": read_rpc_file,
        "lidar": also_described(read_granule), "pair": pair, "cloud": also_described(read_cloud), "table": table,
        "vector": read_layer, "area": load_area, "scene": load_scene,
    }  # fmt: skip
    return readers[name]


def child(name: str, folder: Path, sources: list[Path]) -> None:
    """Read the files of a folder one by one; say which, and what came of it. sources: valid files, read first, so that
    what is compiled or loaded on first use does not count."""
    from terrain3d.errors import Terrain3dError

    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    read = reader(name)
    for path in sources:
        with suppress(Terrain3dError):  # an image whose RPC is beside it
            read(path)
    for path in sorted(folder.iterdir()):
        print(f"begin {path.name}", flush=True)
        before = {p.name for p in folder.iterdir()}
        signal.setitimer(signal.ITIMER_PROF, MOST_S)  # of the processor, which others may use too
        signal.alarm(MOST_WALL_S)
        start = time.monotonic()
        try:
            read(path)
            result = "read"
        except Terrain3dError as error:
            result = "refused" if "\n" not in str(error) else f"FINDING message of several lines: {error!r}"
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            own = [f for f in traceback.extract_tb(error.__traceback__) if "terrain3d/" in f.filename]
            mine = f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else "?"
            result = f"FINDING {type(error).__name__}: {str(error)[:120]!r} at {Path(place.filename).name} via {mine}"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        written = {p.name for p in folder.iterdir()} - before
        if written:
            result = f"FINDING wrote {written}"
        print(f"end {path.name} {time.monotonic() - start:.1f} {result}", flush=True)


def run_reader(name: str, sources: list[Path], cases: int, seed: int, folder: Path) -> list[str]:
    """Findings of one reader, each with the name of its file."""
    draw = random.Random(f"{seed}{name}")
    for i in range(cases):
        source, other = draw.choice(sources), draw.choice(sources)
        text = source.suffix.lower() in TEXT
        data = mutated(source.read_bytes(), text, draw, other.read_bytes())
        (folder / f"{i:05d}{source.suffix}").write_bytes(data)
    findings, counts = [], {"read": 0, "refused": 0}
    while any(folder.iterdir()):
        command = [sys.executable, __file__, "--child", name, str(folder), *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = done.stdout.splitlines()
        for line in lines:
            word, file, *rest = line.split(" ", 3)
            if word != "end":
                continue
            if rest[1].startswith("FINDING"):
                findings.append(f"{name} {file}: {rest[1]}")
                _keep(folder / file)
            else:
                counts[rest[1]] += 1
            (folder / file).unlink(missing_ok=True)
        last = lines[-1].split(" ") if lines else [""]
        if last[0] == "begin":
            findings.append(f"{name} {last[1]}: FINDING died with {done.returncode} {done.stderr[-300:]!r}")
            _keep(folder / last[1])
            (folder / last[1]).unlink(missing_ok=True)
        elif done.returncode and not lines:
            sys.exit(f"{name}: {done.stderr[-2000:]}")
    print(
        f"{name}: {cases} files, {counts['read']} read, {counts['refused']} refused, {len(findings)} findings",
        flush=True,
    )
    return findings


KEEP: list[Path] = []


def _keep(path: Path) -> None:
    if KEEP and path.exists():
        shutil.copy(path, KEEP[0] / f"{path.parent.name}_{path.name}")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    options.add_argument("--cases", type=int, default=2000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--reader")
    options.add_argument("--keep", type=Path, help="folder for the files of the findings")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]), [Path(p) for p in given.child[2:]])
        return
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        KEEP.append(given.keep)
    findings = []
    with tempfile.TemporaryDirectory() as temporary:
        made = seeds(Path(temporary))
        chosen = [given.reader] if given.reader else list(made)
        for name in chosen:
            folder = Path(temporary) / f"cases_{name}"
            folder.mkdir()
            findings += run_reader(name, made[name], given.cases // len(chosen), given.seed, folder)
    for line in findings:
        print(line)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
