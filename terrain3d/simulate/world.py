"""What a simulated world is, and the kinds that can be made: a town, a mountain valley, a land of waters, a coast."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.crs import Reference
from terrain3d.raster import Grid, Raster
from terrain3d.simulate import buildings as built
from terrain3d.simulate import landscape, trees
from terrain3d.simulate.buildings import Building
from terrain3d.simulate.landscape import Recipe
from terrain3d.simulate.layers import BRIDGE, BUILDING, GROUND, TREE, WATER, Layers
from terrain3d.simulate.waters import Waters, add_waters

CELL = 0.25
CENTRE = (680_000.0, 5_230_000.0)
REFERENCE = Reference("EPSG:32632")

TOWN = Recipe(base=540.0, relief=0.045, forest=0.2, town=0.55, terraces=0.25, river_width=15.0)
MOUNTAIN = Recipe(base=860.0, relief=0.2, forest=0.55, town=0.12, terraces=0.12, river_width=12.0)
WATERLAND = Recipe(base=540.0, relief=0.07, forest=0.3, town=0.15, terraces=0.1, river_width=18.0)
COAST = Recipe(base=48.9, relief=0.05, forest=0.25, town=0.2, terraces=0.1, river_width=14.0)  # over the geoid by 0.3 m


@dataclass(frozen=True)
class World:
    """A place as height fields of one grid, WGS 84 ellipsoidal metres.

    surface: highest surface (DSM). ground: bare earth, water level on water (DTM).
    classes: ASPRS 2 ground, 5 high vegetation, 6 building, 9 water, 17 bridge.
    albedo: reflectance of what is seen from above, 0 to 1.
    building: index into ``buildings`` plus one, 0 where there is none.
    road: share of road in a cell, 0 to 1; nothing is built or planted there.
    """

    grid: Grid
    surface: NDArray[np.float32]
    ground: NDArray[np.float32]
    classes: NDArray[np.uint8]
    albedo: NDArray[np.float32]
    building: NDArray[np.int32]
    road: NDArray[np.float32]
    buildings: tuple[Building, ...]

    @property
    def height_range(self) -> tuple[float, float]:
        """Lowest ground and highest surface."""
        return float(self.ground.min()), float(self.surface.max())

    def layers(self) -> Layers:
        """A copy that can be written to."""
        return Layers(
            self.grid, self.surface.copy(), self.ground.copy(), self.classes.copy(), self.albedo.copy(),
            self.building.copy(), self.road.copy(),
        )  # fmt: skip

    def truth(self, resolution: float = 0.5) -> tuple[Raster, Raster, Raster]:
        """DSM, DTM (means of the cells) and classes (the one of most of the cells) at a multiple of the cell size."""
        factor = round(resolution / self.grid.resolution)
        height, width = self.grid.height // factor, self.grid.width // factor
        grid = replace(self.grid, resolution=self.grid.resolution * factor, height=height, width=width)
        whole = (slice(height * factor), slice(width * factor))
        surface, ground = (
            a[whole].reshape(height, factor, width, factor).mean((1, 3), dtype=np.float64).astype(np.float32)
            for a in (self.surface, self.ground)
        )
        cells = self.classes[whole].reshape(height, factor, width, factor)
        kinds = np.array([GROUND, TREE, BUILDING, WATER, BRIDGE], np.uint8)
        votes = np.stack([(cells == k).sum((1, 3)) for k in kinds])
        return Raster(surface, grid), Raster(ground, grid), Raster(kinds[votes.argmax(0)], grid)


def world_of(layers: Layers, buildings: tuple[Building, ...]) -> World:
    """Layers that are done being written to, as a world."""
    return World(
        layers.grid, layers.surface, layers.ground, layers.classes, layers.albedo, layers.building, layers.road,
        buildings,
    )  # fmt: skip


def town(seed: int, size_m: float) -> World:
    """A town on gentle slopes: streets, houses and blocks, gardens, fields, woods, a river. ``size_m`` is the side."""
    return make_world(TOWN, seed, size_m)


def mountain(seed: int, size_m: float) -> World:
    """A steep valley: forest, meadows, terraces, a hamlet and a stream. ``size_m`` is the side of the square."""
    return make_world(MOUNTAIN, seed, size_m)


def waterland(seed: int, size_m: float) -> World:
    """A land with a river that falls by 4 m a km under two bridges, a stream that runs into it, and two lakes."""
    return make_world(WATERLAND, seed, size_m, Waters(fall=0.004, lakes=2, streams=1, bridges=2))


def coast(seed: int, size_m: float) -> World:
    """A sea in the west, at the height of the geoid, that a river runs into, and a lake."""
    return make_world(COAST, seed, size_m, Waters(lakes=1, sea=0.3))


def make_world(recipe: Recipe, seed: int, size_m: float, waters: Waters | None = None) -> World:
    """World of a recipe, with further waters; the same seed and size give the same world."""
    rng = np.random.default_rng((seed, 1))
    half = size_m / 2
    x, y = CENTRE
    grid = Grid.from_bounds(REFERENCE, x - half, y - half, x + half, y + half, CELL)
    plan = landscape.lay_out(recipe, grid, rng)
    layers = landscape.make_layers(recipe, plan, grid, rng)
    if waters is not None:
        plan = add_waters(layers, plan, waters, rng)
    houses = built.settle(layers, plan, rng)
    landscape.paint(layers, plan, rng)
    for index, house in enumerate(houses):
        built.raise_building(layers, house, index + 1, rng)
    trees.plant(layers, plan, rng)
    return world_of(layers, tuple(houses))
