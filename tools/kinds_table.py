"""Confusion table of the kinds of change on simulated scenes, and false changes on scenes where nothing changed.

    python tools/kinds_table.py FOLDER [scene ...]

Scenes that are not yet in FOLDER are simulated and both epochs run; the names are those of SCENES, all by default.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

from shapely import Polygon, unary_union

from terrain3d.change.result import ChangeOptions
from terrain3d.config import load_scene
from terrain3d.pipeline.change import run_change
from terrain3d.pipeline.progress import Silent
from terrain3d.pipeline.run import run_scene
from terrain3d.simulate.scene import write_scene

# Kind of world, side (m), seed, images an epoch, changes: of different make-up.
SCENES = {
    "k1": ("town", 400.0, 11, 3, "every"),
    "k2": ("mountain", 400.0, 12, 3, "every"),
    "k3": ("town", 400.0, 13, 2, "every"),
    "k4": ("mountain", 450.0, 14, 3, "every"),
    "k5": ("town", 450.0, 15, 4, "every"),
    "f1": ("town", 420.0, 101, 3, "every"),
    "f2": ("mountain", 420.0, 102, 3, "every"),
    "f3": ("town", 380.0, 103, 2, "every"),
    "f4": ("mountain", 440.0, 104, 4, "every"),
    "f5": ("town", 450.0, 105, 3, "every"),
    "n1": ("town", 350.0, 21, 3, "none"),
    "n2": ("mountain", 350.0, 22, 3, "none"),
    "n3": ("town", 350.0, 23, 2, "none"),
}
CONFIDENCE = (0.0, 0.4, 0.6, 0.8, 0.9, 1.01)
NAMES = {"felled": "felling", "landslide_source": "landslide", "landslide_deposit": "landslide"}


def prepared(folder: Path, name: str) -> Path:
    """Folder of a scene with its two runs."""
    kind, size, seed, views, changes = SCENES[name]
    out = folder / name
    if not (out / "after" / "dsm.tif").is_file():
        scene = write_scene(out / "scene", kind, size, seed, views=views, epochs=2, changes=changes)
        for epoch, run in zip(scene.epochs, ("before", "after"), strict=True):
            run_scene(load_scene(epoch.config), out / run, Silent())
    return out


def main() -> None:
    folder = Path(sys.argv[1])
    table: Counter[tuple[str, str]] = Counter()
    stated: list[tuple[float, bool]] = []
    for name in sys.argv[2:] or SCENES:
        out = prepared(folder, name)
        result = run_change(out / "before", out / "after", out / "change", ChangeOptions(), Silent())
        used = set()
        for event in json.loads((out / "scene" / "events.json").read_text()):
            outline = unary_union([Polygon(ring) for ring in event["outline"]])
            share = [r.polygon.intersection(outline).area for r in result.regions]
            used |= {k for k, area in enumerate(share) if area > 0}
            best = max(range(len(share)), key=share.__getitem__, default=-1)
            kind = str(result.regions[best].kind) if best >= 0 and share[best] > 0 else "missed"
            true = NAMES.get(event["kind"], event["kind"])
            table[true, kind] += 1
            if kind != "missed":
                stated.append((result.regions[best].confidence, kind == true))
        false = len(result.regions) - len(used)
        area = result.compared * result.difference.grid.resolution**2 / 1e6
        print(f"{name}: {false} false changes on {area:.2f} km2")
    kinds = sorted({k for pair in table for k in pair})
    width = max(map(len, kinds), default=4)
    print("true \\ found".ljust(width), *(k[:9].rjust(9) for k in kinds))
    for true in sorted({k for k, _ in table}):
        print(true.ljust(width), *(str(table[true, k] or ".").rjust(9) for k in kinds))
    found = sum(n for (_, f), n in table.items() if f != "missed")
    right = sum(n for (t, f), n in table.items() if t == f)
    print(f"{sum(table.values())} true changes, {found} found, {right} of the right kind: {right / max(found, 1):.2f}")
    for low, high in pairwise(CONFIDENCE):
        part = [(c, ok) for c, ok in stated if low <= c < high]
        if part:
            mean, share = (sum(values) / len(part) for values in zip(*part, strict=True))
            print(f"confidence {low} to {high}: {len(part)} changes, mean {mean:.2f}, {share:.2f} of the right kind")


if __name__ == "__main__":
    main()
