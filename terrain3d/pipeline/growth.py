"""What an area as a whole says of its parts, kept while images are added to it: cameras, pairs, grid, light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from terrain3d.adjust.join import Begun, joined
from terrain3d.adjust.network import Network
from terrain3d.adjust.sigma import relative_sigma
from terrain3d.config import Scene
from terrain3d.image.view import View
from terrain3d.pipeline.blocks import extended
from terrain3d.pipeline.running import laid_over
from terrain3d.pipeline.threads import Workers, hold, learned
from terrain3d.raster import Bounds, Grid, Growth, Raster, widened
from terrain3d.stereo.pairs import Pair, choose_pairs
from terrain3d.stereo.trend import CoarseSurface
from terrain3d.surface.ortho import RankedView

_Of = tuple[int, CoarseSurface]  # number of pairs, and what they are matched from

LATER = {"images", "lidar", "lidar_rules", "name"}  # of a scene, that may change while what is learned stays
MOVED_M = 64.0  # by which registration may move points, at most


def kept_network(
    network: Network, views: list[View], scene: Scene, crs: str, workers: Workers, tell: Callable[[str], None]
) -> Network:  # fmt: skip
    """A network whose earlier cameras are those of the batch before, as long as all images agree with them.

    network: of all views adjusted together. views: as they were given.
    """
    if isinstance(workers, int):
        return network
    marks = tuple(workers.mark(v) for v in views)
    middle = sum(network.heights) / 2
    pairs = [_names(p, network.views) for p in choose_pairs(network.views, crs, middle) if p.chosen]
    begun = hold(
        "network", Begun(network, marks, marks), lambda old, new: joined(old, new, pairs, crs, tell), workers
    )  # fmt: skip
    options = scene.config.model_dump_json(exclude=LATER)
    workers.grow(workers.mark((begun.begun, options)), grown=begun.grown)
    return begun.network


def kept_pairs(pairs: list[Pair], views: list[View], workers: Workers, name: str = "pairs") -> list[Pair]:
    """Pairs with those first that an area had before images were added, in their order; new ones need a new image.
    name: under which they are kept."""
    chosen = [_names(p, views) for p in pairs if p.chosen]
    names = learned(name, chosen, workers, _with_new)
    by_names = {_names(p, views): p for p in pairs}
    kept = [replace(by_names.pop(n), chosen=True) for n in names]
    return kept + [replace(p, chosen=False) for p in by_names.values()]


def kept_surfaces(surface: CoarseSurface, pairs: int, workers: Workers) -> list[CoarseSurface]:
    """Coarse surface that each of a number of pairs is matched from: that of before for those that were there."""

    def join(old: list[_Of], new: list[_Of]) -> list[_Of]:
        more = new[0][0] - sum(n for n, _ in old)
        return [*old, (more, surface)] if more > 0 else old

    return [s for n, s in learned("coarse surface", [(pairs, surface)], workers, join) for _ in range(n)][:pairs]


def kept_grid(grid: Grid, parts: Sequence[Bounds], workers: Workers, tell: Callable[[str], None]) -> Grid:
    """Grid of an area: that of before, extended where it does not hold all of it. parts: bounds of what was matched."""

    def join(old: Grid, new: Grid) -> Grid:
        if _holds(old.bounds, new.bounds):
            return old
        tell("images reach beyond the ground of before, which stays as it was")
        return extended(old, new.bounds)

    kept = learned("grid", grid, workers, join)
    return replace(kept, grown=tuple(_told(g, parts) for g in kept.grown))


def _told(growth: Growth, parts: Sequence[Bounds]) -> Growth:
    """A step of growth with what was matched beyond it."""
    beyond = tuple(widened(b, MOVED_M) for b in parts if not _holds(growth.before, b))
    return replace(growth, beyond=beyond)


def kept_orientation(network: Network, grid: Grid, workers: Workers) -> Raster:
    """Sigma of heights by the orientation of the views to each other: that of before, and beyond it that of now."""
    every, height = tuple(range(len(network.views))), sum(network.heights) / 2

    def sigma(cell: float | None = None) -> Raster:
        return relative_sigma(network.adjustment, every, grid.reference, grid.bounds, height, cell=cell)

    return learned("orientation", sigma(), workers, lambda old, _: laid_over(old, sigma(old.grid.resolution)))


@dataclass(frozen=True)
class Light:
    """Place of a view in the ranking and its balance, see ``RankedView``."""

    name: str
    lean: tuple[float, float]
    pixel: float
    gain: tuple[float, ...]
    offset: tuple[float, ...]
    spread: tuple[float, ...]


def kept_ranking(name: str, ranked: list[RankedView], workers: Workers) -> list[RankedView]:
    """Ranked views in the light of before: those that were added are brought to it. name: of what they are for."""
    if isinstance(workers, int):
        return ranked
    lights = [
        Light(r.view.name, r.lean, r.pixel, *(tuple(a.tolist()) for a in (r.gain, r.offset, r.spread))) for r in ranked
    ]
    views = {r.view.name: r.view for r in ranked}
    return [
        RankedView(views[k.name], k.lean, k.pixel, *(np.array(a, np.float32) for a in (k.gain, k.offset, k.spread)))
        for k in learned(name, lights, workers, _in_one_light)
    ]


def _in_one_light(old: Sequence[Light], new: Sequence[Light]) -> list[Light]:
    """Old ones as they are, and new ones brought to the first of them, each before the first old one it precedes."""
    known, place = {k.name for k in old}, {k.name: i for i, k in enumerate(new)}
    if not old or not known <= place.keys():
        return list(new)
    first = next(k for k in new if k.name == old[0].name)
    gain, offset = np.array(first.gain), np.array(first.offset)
    out = list(old)
    for k in new:
        if k.name not in known:
            own = (np.array(k.gain) / gain, (np.array(k.offset) - offset) / gain, np.array(k.spread) / gain)
            at = next((i for i, o in enumerate(out) if place[o.name] > place[k.name]), len(out))
            out.insert(at, Light(k.name, k.lean, k.pixel, *(tuple(a.tolist()) for a in own)))
    return out


def _names(pair: Pair, views: list[View]) -> tuple[str, str]:
    return views[pair.left].name, views[pair.right].name


def _with_new(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> list[tuple[str, str]]:
    known = {name for pair in old for name in pair}
    return old + [p for p in new if not known.issuperset(p)]


def _holds(a: Bounds, b: Bounds) -> bool:
    return a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3]
