"""Lakes whose shores hardly show their level, as between woods and steep banks.

Water is else found by the level that its shores agree on. Where crowns hang over the banks few of them reach down to
it; what could be taken for such a lake is ground in shadow, but no shadow is as wide as a lake amid low banks.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from terrain3d.pipeline.sea import widest
from terrain3d.surface.water_level import WaterKind, WaterLevel

LEAST_WIDTH = 30.0  # m
LEAST_REACHED, LEAST_STRETCHES = 0.15, 4  # share and number of the stretches of shore that reach down to the level
MOST_UNDER = 0.1  # share of those that lie under it
SHADOW = 1.75  # length of shadows over the height of what casts them, with the sun 30 degrees high
RIM = 0.9  # quantile of the heights of the shore that is as high as what stands there
SIGMA = 0.5  # m: banks that rise steeply are seen higher than the water beneath


def lake_amid_banks(level: WaterLevel, shore: NDArray[np.float32]) -> WaterLevel | None:
    """Level of a body most of whose shores stand above it, as a lake; None where it may be a pit in shadow.

    level: what the shores say. shore: heights (m) of their matched cells.
    """
    reached = level.agreement * level.stretches
    if level.kind is not WaterKind.LAKE or reached < max(LEAST_STRETCHES, LEAST_REACHED * level.stretches):
        return None
    high = float(np.quantile(shore, RIM)) - level.low
    if level.under > MOST_UNDER or widest(level.shape) < max(LEAST_WIDTH, SHADOW * high):
        return None
    return replace(level, sigma=float(np.hypot(level.sigma, SIGMA)), agreement=1.0)
