"""What stands over the tiles: a mosaic of each layer with overviews, a STAC collection, checksums."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from terrain3d.export.stac import stac_collection
from terrain3d.io.atomic import write_json, write_text
from terrain3d.io.mosaic import write_mosaic
from terrain3d.pipeline.batch.manifest import Manifest, TileState
from terrain3d.pipeline.batch.tile import TILES, TITLES

WRITTEN = ("done", "incomplete")
CHANGE = "change"


@dataclass(frozen=True)
class ChangeSet:
    """Products of the change since one previous model: their names relative to the batch, with SHA-256, and which of
    them are STAC items."""

    name: str
    files: dict[str, str]

    @property
    def items(self) -> list[str]:
        return [n for n in self.files if n.endswith(f"_{CHANGE}.json")]


def write_mosaics(
    out: Path, tiles: Sequence[TileState], manifest: Manifest
) -> tuple[dict[str, str], list[str]]:  # fmt: skip
    """Write ``LAYER.vrt`` with overviews for each layer; SHA-256 of the products of all tiles by their names, and the
    layers. Raises OutputError."""
    codes = [t.code for t in tiles if t.state in WRITTEN]
    sums = {path: total for r in manifest.records() for path, total in r.files if path.split("/")[1] in codes}
    layers: dict[str, list[Path]] = {}
    for code in codes:
        for path in sorted(p for p in sums if p.startswith(f"{TILES}/{code}/") and p.endswith(".tif")):
            layer = Path(path).stem.removeprefix(f"{code}_")
            layers.setdefault(layer, []).append(out / path)
    for layer, paths in layers.items():
        write_mosaic(out / f"{layer}.vrt", paths)
    for stale in {p.stem for p in out.glob("*.vrt")} - set(layers):
        for suffix in ("vrt", "vrt.ovr"):
            (out / f"{stale}.{suffix}").unlink(missing_ok=True)
    return sums, list(layers)


def write_catalog(
    out: Path, name: str, tiles: Sequence[TileState], sums: dict[str, str], layers: Sequence[str],
    changes: Sequence[ChangeSet],
) -> None:  # fmt: skip
    """Write ``collection.json`` and ``SHA256SUMS``. sums, layers: of ``write_mosaics``. Raises OutputError."""
    items = [out / TILES / t.code / f"{t.code}.json" for t in tiles if t.state in WRITTEN]
    assets = [(out / f"{layer}.vrt", f"{layer} of all tiles") for layer in layers]
    assets += [(out / f"{key}.gpkg", title) for key, title in TITLES.items()]
    for change in changes:
        items += [out / item for item in change.items]
        assets.append((out / CHANGE / change.name / f"{CHANGE}.gpkg", f"Changes since {change.name}"))
        sums = sums | change.files
    write_json(out / "collection.json", stac_collection(name, items, assets, folder=out))
    write_text(out / "SHA256SUMS", "".join(f"{sums[p]}  {p}\n" for p in sorted(sums)))


def write_logs(out: Path, manifest: Manifest, tiles: Sequence[TileState]) -> None:
    """Write ``logs/CODE.log`` for every tile: the work that touched it, what it took, and what became of it."""
    records = [r for r in manifest.records() if r.bounds is not None]
    bounds = np.array([r.bounds for r in records]).reshape(-1, 4)
    for tile in tiles:
        west, south, east, north = tile.bounds
        near = (bounds[:, 0] < east) & (bounds[:, 2] > west) & (bounds[:, 1] < north) & (bounds[:, 3] > south)
        lines = [f"{tile.code}: {tile.state} {tile.note}".rstrip()]
        for r in (records[i] for i in np.flatnonzero(near)):
            took = f"{r.wall_s:.2f} s, {r.cpu_s:.2f} CPU s, {r.memory_mb:.0f} MB, {r.attempts} attempts"
            lines.append(f"{r.stage} {r.place}: {r.state}, {took}" + (f": {r.error}" if r.error else ""))
        write_text(out / "logs" / f"{tile.code}.log", "\n".join(lines) + "\n")


def remove_tile(folder: Path) -> None:
    """Delete the files of a tile that is no longer whole."""
    shutil.rmtree(folder, ignore_errors=True)
