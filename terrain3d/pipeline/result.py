"""What a run found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from terrain3d.adjust.network import Network
from terrain3d.config import Scene
from terrain3d.crs import Reference
from terrain3d.image.view import View
from terrain3d.lidar.read import LidarSet
from terrain3d.pipeline.surfaces import Surfaces
from terrain3d.register.registration import Registration
from terrain3d.stereo.pairs import Pair


@dataclass(frozen=True)
class RunResult:
    """What a run found, for its report and for callers. Cameras of ``views`` are those of the finished model.

    surfaces: on disk until the run has ended. cells: figures of them, as in ``quality.json``.
    registered: names of the lidar files that the registration came from.
    seconds: wall and CPU seconds by stage, up to the writing of the products.
    coarser: the surfaces on further cells, from the finest of them on.
    """

    scene: Scene
    reference: Reference
    views: list[View]
    network: Network
    pairs: list[Pair]
    lidar: LidarSet | None
    registration: Registration | None
    surfaces: Surfaces
    cells: dict[str, Any]
    points: int
    warnings: tuple[str, ...]
    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    registered: tuple[str, ...] = ()
    coarser: tuple[Surfaces, ...] = ()
