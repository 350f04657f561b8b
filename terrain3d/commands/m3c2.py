"""``terrain3d m3c2``."""

from __future__ import annotations

import numpy as np

from terrain3d.console import ConsoleReporter, say
from terrain3d.pipeline.m3c2 import M3C2Request, run_m3c2


def m3c2_command(request: M3C2Request, *, quiet: bool) -> None:
    """``terrain3d m3c2``."""
    with ConsoleReporter(quiet=quiet) as reporter:
        found = run_m3c2(request, reporter)
    if quiet:
        return
    d, o, unit = found.distances, found.options, "file units" if request.file_units else "m"
    known = d.distance[np.isfinite(d.distance)]
    radii = f"{o.normal_radius:.2f}, of cylinders {o.cylinder_radius:.2f}, half length {o.half_length:.2f}"
    say(f"radius of normals {radii} {unit}")
    say(f"{len(d.distance)} core points, {len(known)} with a distance, {int(d.significant.sum())} significant at 95 %")
    low, middle, high = np.percentile(known, (5, 50, 95))
    say(f"median {middle:+.3f}, 5 % {low:+.3f}, 95 % {high:+.3f} {unit}")
    say(f"results: {request.out}")
