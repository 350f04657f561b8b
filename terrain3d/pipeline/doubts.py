"""Doubts about the inputs that the placement of a model raises: images that point as no satellite does, and heights
over a geoid that are said to be over the ellipsoid."""

from __future__ import annotations

import numpy as np

from terrain3d.adjust.network import Network
from terrain3d.adjust.pointing import Pointing
from terrain3d.image.view import ground_sample_distance
from terrain3d.io.geoid import egm96_height
from terrain3d.register.move import Move

SIDEWAYS = 15.0  # m on the ground: satellites of today point better
UPWARDS = 10.0  # m on the ground that two views of one pass point apart, beyond which something else is wrong
LEAN = 0.006  # of pointing along the flight: ten times what attitude drifts by
LIKE_GEOID = 4.0  # m within which a height is that of the geoid, beyond what pointing makes of it


def pointing_doubts(network: Network, crs: str) -> list[str]:
    """A line on each image whose RPC had to be corrected by more than pointing errs."""
    lines = []
    height = sum(network.heights) / 2
    for view, camera in zip(network.views, network.adjustment.cameras, strict=True):
        pixels = float(np.hypot(camera.correction.line[0], camera.correction.sample[0]))
        metres = pixels * ground_sample_distance(view, crs, height)
        if metres > SIDEWAYS:
            lines.append(
                f"{view.name}: its RPC was corrected by {pixels:.0f} px ({metres:.0f} m) until the images met: check "
                "that it is the image's own; the model may lie off sideways by as much, whatever its sigma says"
            )
    return lines


def placement_doubts(found: Move, crs: str, base_to_height: float) -> list[str]:
    """Lines on a move onto lidar that pointing does not explain. base_to_height: the largest of the matched pairs."""
    if not found.applied:
        return []
    aside, up, tilt = float(np.hypot(found.dx, found.dy)), found.dz, float(np.hypot(found.tilt_e, found.tilt_n))
    lines = []
    if tilt * base_to_height > LEAN:
        lines.append(
            f"the model was tilted by {1000 * tilt:.0f} m per km to fit the lidar, which no drift of pointing "
            "explains: check that each image has its own RPC, two may be exchanged; do not trust these heights"
        )
    geoid = geoid_doubt(found, crs, 0.5 * UPWARDS / base_to_height)
    if abs(up) * base_to_height > UPWARDS and geoid:
        lines.append(geoid)
    elif abs(up) * base_to_height > UPWARDS or aside > SIDEWAYS:
        lines.append(
            f"the model was moved by {aside:.0f} m sideways and {up:+.0f} m in height onto the lidar, "
            "more than pointing errs: check the RPCs, and the reference of the lidar's heights if they are a table's"
        )
    return lines


def geoid_doubt(found: Move, crs: str, slack: float = 0.0) -> str | None:
    """A line where a model was moved onto lidar by the height of the geoid. slack: metres that the model may be off."""
    geoid, up = egm96_height(crs, *found.origin), found.dz
    if abs(geoid) < 2 * LIKE_GEOID or abs(abs(up) - abs(geoid)) > LIKE_GEOID + slack:
        return None
    where, side = ("above" if v > 0 else "below" for v in (up, geoid))
    return (
        f"the lidar lies {abs(up):.1f} m {where} the surface, and the geoid {abs(geoid):.1f} m {side} the ellipsoid: "
        "heights of one of them seem to be over the geoid; if they are a table's, state its vertical: egm96"
    )


def unplaced_doubt(found: Move | None, seen: Pointing) -> str | None:
    """A line where lidar was given and moved nothing, so that cells state what those of a run without it do."""
    if found is None or found.applied:
        return None
    return (
        f"lidar moved nothing: as without it the model may lie off by {seen.sigma[2]:.2g} m in height (1-sigma) as a "
        "whole, which the sigma of the cells does not count"
    )
