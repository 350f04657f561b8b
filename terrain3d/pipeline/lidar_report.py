"""What lidar says of a run, for its report: figures on held-out tracks, a map, and profiles along tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from terrain3d.adjust.level import HeightTies
from terrain3d.export.figures import DIVERGING, colour, marked, shaded, with_bar
from terrain3d.export.plots import Series, histogram, profile
from terrain3d.export.report import Block, Figure, Table, Text
from terrain3d.io.scratch import StoredRaster
from terrain3d.lidar.read import LidarSet
from terrain3d.pipeline.running import overview, step_for_side
from terrain3d.points import LidarReturns
from terrain3d.register.registration import Registration
from terrain3d.stats import ErrorSummary, nmad

Floats = NDArray[np.float64]

MAP_PX = 700
MAP_LIMIT = 1.0  # metres, of the strongest colours
PROFILES = 24
PROFILE_POINTS = 500
PROFILE_TOGETHER = 10  # points whose cells are read at once
MIN_RETURNS = 5  # of a track that is drawn
ERRORS = ("n", "bias m", "NMAD m", "RMSE m", "LE90 m")


@dataclass(frozen=True)
class Shown:
    """Surfaces of the profiles, over the ellipsoid."""

    dsm: StoredRaster
    dtm: StoredRaster | None = None


def lidar_blocks(lidar: LidarSet, r: Registration, shown: Shown, ties: HeightTies | None = None) -> list[Block]:
    """Section of the report. ties: what lidar heights in the image adjustment would do."""
    sigma = np.sqrt(np.diag(r.covariance)) * (1, 1, 1, 1000, 1000)
    shift, tilt = (r.dx, r.dy, r.dz), (1000 * r.tilt_e, 1000 * r.tilt_n)
    rows = [
        ("frame", lidar.frame),
        ("rules", lidar.rules),
        ("returns read", f"{lidar.n_read}"),
        *((f"rejected: {rule}", f"{n}") for rule, n in lidar.rejected if n),
        *(
            (f"not asked of {product}, which lacks the fields", ", ".join(rules))
            for product, rules in lidar.unasked.items()
        ),
        *((f"not used: {rule}", f"{n}") for rule, n in r.report.rejected if n),
        ("used", f"{int(r.used.sum())}"),
        ("shift east, north, up", f"{_with_sigma(shift, sigma[:3])} m"),
        ("tilt east, north", f"{_with_sigma(tilt, sigma[3:])} m/km"),
    ]
    if r.smooth is not None:
        rows.append(("1-sigma of the height correction, median", f"{np.median(r.smooth.sigma.values):.2f} m"))
    blocks: list[Block] = [
        Table(("", "value"), rows),
        Text(r.horizontal_reason),
        *map(Text, r.notes),
        *_held_out(r),
        *_in_adjustment(r, ties),
    ]
    residual = -r.residual[r.used & np.isfinite(r.residual)]
    if residual.size:
        plot = histogram([Series("used returns, after", residual)], x_label="surface minus lidar, m")
        blocks += [Figure(plot, "Residuals of the returns that carried weight"), _map(shown.dsm, r)]
        blocks += _profiles(shown, r, lidar.returns)
    return blocks


def _with_sigma(values: tuple[float, ...], sigma: Floats) -> str:
    return ", ".join(f"{v:.2f} ± {s:.2f}" for v, s in zip(values, sigma, strict=True))


def _held_out(r: Registration) -> list[Block]:
    if r.before is None or r.after is None or r.report.coverage is None:
        return [Text(r.report.note)] if r.report.note else []
    both = ((g.by, g.name, g.n, g.before, g.after) for g in r.report.groups)
    rows = [
        (*names, when, str(n), *(("too few",) * (len(ERRORS) - 1) if s is None else _summary(s)))
        for *names, n, before, after in (("all", "", r.after.n, r.before, r.after), *both)
        for when, s in (("before", before), ("after", after))
    ]
    one, two, three = (f"{100 * share:.0f} %" for share in r.report.coverage)
    left_out = f", gross errors left out: {r.report.n_gross}" if r.report.n_gross else ""
    return [
        Table(
            ("by", "group", "surface minus lidar", *ERRORS),
            rows,
            f"Tracks held out in {len(r.report.folds)} groups, each corrected by the others{left_out}",
        ),
        Text(
            f"Within the sigma's bounds of 68, 90 and 95 %: {one}, {two}, {three} of the held-out errors. "
            f"Residuals are {r.report.scale:.2f} times what the products and the surface state; that factor is in it."
        ),
    ]


def _in_adjustment(r: Registration, ties: HeightTies | None) -> list[Block]:
    """What lidar heights as observations of the adjustment would do, beside the correction of the finished model."""
    if r.after is None or ties is None or not np.isfinite(ties.nmad_held_out):
        return []
    return [
        Text(
            f"For comparison: with lidar heights as observations of the image adjustment instead ({ties.reason}) the "
            f"NMAD on held-out tracks is {ties.nmad_held_out:.2f} m; with the finished model corrected, as it was, "
            f"{r.after.nmad:.2f} m."
        )
    ]


def _summary(s: ErrorSummary) -> tuple[str, ...]:
    return f"{s.bias:.2f}", f"{s.nmad:.2f}", f"{s.rmse:.2f}", f"{s.le90:.2f}"


def _map(dsm: StoredRaster, r: Registration) -> Figure:
    small = overview(dsm, step_for_side(dsm.grid, MAP_PX))
    column, row = small.grid.column_row(*r.places.T)
    shown = r.used & np.isfinite(r.residual)
    dots = colour(-r.residual[shown, None], -MAP_LIMIT, MAP_LIMIT, DIVERGING)
    picture = marked(shaded(small.values, small.grid.resolution), column[shown], row[shown], dots)
    bar = with_bar(picture, DIVERGING, -MAP_LIMIT, MAP_LIMIT)
    return Figure(bar, "Surface minus lidar where returns carried weight")


def _profiles(shown: Shown, r: Registration, returns: LidarReturns) -> list[Block]:
    """Profiles along the tracks that have returns on the surface, those with the most that carried weight first."""
    tracks = []
    for track in np.unique(returns.track):
        rows = np.flatnonzero((returns.track == track) & np.isfinite(r.residual))
        rows = rows[np.argsort(returns.time_s[rows], kind="stable")]
        if len(rows) >= MIN_RETURNS:
            along = np.append(0.0, np.cumsum(np.hypot(*np.diff(r.places[rows], axis=0).T)))
            tracks.append((int(r.used[rows].sum()), returns.track_names[track], rows, along))
    tracks.sort(key=lambda t: (-t[0], t[1]))
    return [_profile(shown, r, returns, *t[1:]) for t in tracks[:PROFILES]]


def _profile(
    shown: Shown, r: Registration, returns: LidarReturns, name: str, rows: NDArray[np.int64], along: Floats
) -> Figure:
    at = np.linspace(0, along[-1], PROFILE_POINTS)
    x, y = (np.interp(at, along, c) for c in r.places[rows].T)
    used = r.used[rows]
    series = [
        Series("DSM", _cells(shown.dsm, x, y), at),
        *([] if shown.dtm is None else [Series("DTM", _cells(shown.dtm, x, y), at)]),
        Series("lidar, used", returns.height[rows][used], along[used], dots=True),
        Series("lidar, not used", returns.height[rows][~used], along[~used], dots=True),
    ]
    return Figure(
        profile(series, x_label="along the track, m", y_label="ellipsoidal height, m"), _fit_on(name, r, rows)
    )


def _fit_on(name: str, r: Registration, rows: NDArray[np.int64]) -> str:
    """Name of a track, and how the corrected surface lies to its returns."""
    error = -r.residual[rows][r.used[rows]]
    text = f"{name}: {len(error)} of {len(rows)} returns used"
    if len(error) < MIN_RETURNS:
        return text
    return f"{text}, surface minus lidar there: median {np.median(error):.2f} m, NMAD {nmad(error):.2f} m"


def _cells(raster: StoredRaster, x: Floats, y: Floats) -> Floats:
    """Values of the cells at places, NaN outside."""
    column, row = (np.rint(a).astype(int) for a in raster.grid.column_row(x, y))
    inside = (column >= 0) & (row >= 0) & (column < raster.grid.width) & (row < raster.grid.height)
    out = np.full(len(x), np.nan)
    places = np.flatnonzero(inside)
    for part in (places[i : i + PROFILE_TOGETHER] for i in range(0, places.size, PROFILE_TOGETHER)):
        top, left = int(row[part].min()), int(column[part].min())
        window = raster.read(top, left, int(row[part].max()) + 1 - top, int(column[part].max()) + 1 - left)
        out[part] = window[row[part] - top, column[part] - left]
    return out
