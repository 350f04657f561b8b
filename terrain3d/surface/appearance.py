"""What overhangs look like in a scene, learned from those rims that matching is sure of and told of all.

At the height that it shows, a cell of a crown has in every view the light of the crown; one that the crown was only
carried over has the light of the ground seen past it, in each view of another place. How these differ depends on sun,
shadow and season, and where they do not, nothing can be said. So nothing is assumed: a table of the darkest and the
brightest value of a cell is filled by expectation and maximization (Dempster, Laird & Rubin 1977), from what the other
signs say of the cells of the scene itself.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Codes = NDArray[np.uint16]
Counts = NDArray[np.int64]

LEVELS = 16  # of light, about equally many cells of the scene in each
LIMITS = tuple(i / LEVELS for i in range(1, LEVELS))  # shares of a scene's values that lie under the limits
NONE = LEVELS**2  # code of a cell that no view sees
FEW = 4  # views up to which the darkest and the brightest one count; of more, as many again leave out one at either end
TURNS = 5  # of expectation and maximization
PRIOR = 60.0  # cells that an entry of the table starts from, for which light says nothing
ALIKE = 1.0  # levels, sigma of the window over the table
LARGEST_ODDS, ODDS_BINS = 8.0, 64  # of the odds that cells are counted by


def codes_of(values: Singles, limits: Floats) -> Codes:
    """Entries of the table (n,) for values (views, n) of cells, NaN where a view has none. limits: of the levels."""
    rising = np.sort(values, axis=0)  # NaN last
    seen = np.isfinite(values).sum(axis=0)
    aside = (np.maximum(seen, 1) - 1) // FEW
    dark, bright = (
        np.searchsorted(limits, np.take_along_axis(rising, np.maximum(k, 0)[None], axis=0)[0])
        for k in (aside, seen - 1 - aside)
    )
    return np.where(seen > 0, dark * LEVELS + bright, NONE).astype(np.uint16)


def count(odds: Singles, codes: Codes) -> Counts:
    """Number of cells by odds and entry of the table, (ODDS_BINS, NONE + 1)."""
    which = np.clip((odds / LARGEST_ODDS + 1) * (ODDS_BINS / 2), 0, ODDS_BINS - 1).astype(np.int64)
    both = np.bincount(which * (NONE + 1) + codes, minlength=ODDS_BINS * (NONE + 1))
    return both.reshape(ODDS_BINS, NONE + 1)


def learn(counts: Counts) -> Singles:
    """Table (NONE + 1,) of what the light of a cell adds to the logarithm of its odds, from ``count`` of a scene."""
    odds = ((np.arange(ODDS_BINS) + 0.5) * (2 / ODDS_BINS) - 1)[:, None] * LARGEST_ODDS
    cells = counts[:, :NONE].astype(float)
    table = np.zeros(NONE)
    if not cells.any():
        return np.zeros(NONE + 1, np.float32)
    for _ in range(TURNS):
        ground = cells / (1 + np.exp(-odds - table))
        share = ground.sum() / cells.sum()
        of_ground, of_top = (_even(n.sum(axis=0)) for n in (ground, cells - ground))
        table = np.log(of_ground / share + PRIOR) - np.log(of_top / (1 - share) + PRIOR)
    return np.append(table, 0).astype(np.float32)


def _even(table: Floats) -> Floats:
    """Numbers of the table, shared with those alike."""
    return cv2.GaussianBlur(table.reshape(LEVELS, LEVELS), (0, 0), ALIKE, borderType=cv2.BORDER_REPLICATE).ravel()
