"""The plan of an area, made before any work starts: what serves which tile, what it will take, what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import shapely
from shapely.geometry.base import BaseGeometry

from terrain3d.crs import from_lonlat
from terrain3d.errors import OverlapError
from terrain3d.image.view import footprint
from terrain3d.pipeline.batch.area import Area
from terrain3d.pipeline.batch.inputs import Inputs
from terrain3d.pipeline.batch.sheets import Sheet, sheets_of
from terrain3d.pipeline.canopy_ground import lidar_reach
from terrain3d.pipeline.run import resolution_of
from terrain3d.stereo.pairs import Pair, choose_pairs
from terrain3d.tiles import reproject

# Measured (tools/bench_batch.py 2586): seconds of one core, per million cells of output, pixels of a matched pair, and
# pixels of an image.
CELL_S, PIXEL_S, IMAGE_S = 9.8, 1.3, 0.3
START_S = 9.0  # of one core, to start and to end
WORKER_MB = 650.0  # whatever the size of the area
WORK_BYTES = 190.0  # on disk while the batch works, per cell of output
PRODUCT_BYTES = 25.0  # on disk for the products, per cell
FULL = 0.995  # share of a tile from which on it counts as covered


@dataclass(frozen=True)
class TilePlan:
    """A tile and what serves it. covered: share of it that at least one pair sees. returns: of lidar, over it.
    granules: names of the lidar files with returns so near that its terrain may look at them. previous: names of
    previous models over it."""

    sheet: Sheet
    images: tuple[str, ...]
    pairs: tuple[tuple[str, str], ...]
    covered: float
    returns: int
    granules: tuple[str, ...]
    previous: tuple[str, ...]

    @property
    def missing(self) -> str:
        """What it lacks, in a word; empty if nothing."""
        lacks = [] if self.covered > FULL else [f"{1 - self.covered:.0%} of it seen by no pair"]
        return ", ".join(lacks + ([] if self.returns else ["no lidar"]))


@dataclass(frozen=True)
class Plan:
    """Tiles with what serves them; pairs with the decision on each; estimates: seconds of one core, MB a worker, bytes
    on disk while it works and for the products."""

    tiles: tuple[TilePlan, ...]
    pairs: tuple[Pair, ...]
    resolution: float
    crs: str
    core_s: float
    worker_mb: float
    work_bytes: float
    product_bytes: float
    covered: BaseGeometry
    previous: tuple[str, ...]

    def as_json(self, inputs: Inputs) -> dict[str, Any]:
        """Plain values for ``plan.json``."""
        names = [v.name for v in inputs.views]
        return {
            "crs": self.crs,
            "resolution_m": self.resolution,
            "images": [{"name": v.name, "path": v.image.path} for v in inputs.views],
            "lidar": [str(p) for p in inputs.scene.lidar],
            "previous": list(self.previous),
            "left_out": [{"what": p.what, "place": p.place, "message": p.message} for p in inputs.problems],
            "pairs": [
                {"images": [names[p.left], names[p.right]], "matched": p.chosen, "reason": p.reason} for p in self.pairs
            ],
            "estimate": {
                "core_seconds": round(self.core_s), "memory_mb_per_worker": round(self.worker_mb),
                "disk_mb_while_working": round(self.work_bytes / 1e6), "disk_mb_of_products": round(
                    self.product_bytes / 1e6),
            },
            "tiles": [
                {
                    "code": t.sheet.code, "bounds": list(t.sheet.bounds), "images": list(t.images),
                    "pairs": [list(p) for p in t.pairs], "covered": round(t.covered, 4), "lidar_returns": t.returns,
                    "lidar": list(t.granules), "previous": list(t.previous), "missing": t.missing,
                }
                for t in self.tiles
            ],
        }  # fmt: skip


def make_plan(area: Area, inputs: Inputs) -> Plan:
    """Plan of an area, from the images' own pointing: footprints are some pixels off, and no pixel has been read.

    Raises OverlapError (no pair can be matched), ConfigError (tiles).
    """
    crs, height, views = inputs.reference.horizontal, inputs.height, inputs.views
    prints = [footprint(v, crs, height) for v in views]
    pairs = choose_pairs(views, crs, height)
    chosen = [p for p in pairs if p.chosen]
    covered = shapely.union_all([p.area for p in chosen])
    if covered.is_empty:
        raise OverlapError("no ground is seen by a pair of images", fix="check that the images show the same place")
    resolution = resolution_of(inputs.scene, views, crs, height)
    sheets = sheets_of(area, covered, crs)
    near = None if inputs.lidar is None else inputs.lidar.returns
    points = [] if near is None else shapely.points(*from_lonlat(crs, near.lon_deg, near.lat_deg))
    tree = shapely.STRtree(points)
    earlier = {name: reproject(shape, source, crs) for name, (shape, source) in inputs.previous.items()}
    tiles = []
    for sheet in sheets:
        serving = [p for p in chosen if p.area.intersects(sheet.outline)]
        seen = shapely.union_all([p.area for p in serving]).intersection(sheet.outline)
        tiles.append(
            TilePlan(
                sheet,
                tuple(v.name for v, outline in zip(views, prints, strict=True) if outline.intersects(sheet.outline)),
                tuple((views[p.left].name, views[p.right].name) for p in serving),
                float(seen.area / sheet.outline.area),
                len(tree.query(sheet.outline, predicate="contains")),
                () if near is None else near.select(tree.query(sheet.outline, "dwithin", lidar_reach())).files,
                tuple(n for n, shape in earlier.items() if shapely.relate_pattern(shape, sheet.outline, "T********")),
            )
        )
    cells = covered.area / resolution**2
    pixels = sum(p.area.area for p in chosen) / resolution**2
    mega = sum(v.image.height * v.image.width for v in views) / 1e6
    return Plan(
        tuple(tiles), tuple(pairs), resolution, crs, cells / 1e6 * CELL_S + pixels / 1e6 * PIXEL_S
        + mega * IMAGE_S + START_S, WORKER_MB, cells * WORK_BYTES, cells * PRODUCT_BYTES, covered,
        tuple(earlier),
    )  # fmt: skip
