"""Where chains stay: the regions that they do not leave, and whether points lie in one mode of the draws."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: two chains are apart when their means differ by more than this many standard deviations of the wider one
APART = 3.0
#: the histogram in which valleys are looked for, and how low a valley is next to the lower of its two peaks
BINS = 40
VALLEY = 0.25
#: chance that start points drawn from the target itself count as lying outside of it
OUTSIDE = 0.02


def regions(draws: Floats) -> tuple[list[tuple[list[int], Floats]], list[int]]:
    """Group chains by the region in which they stay.

    Compact chains come first and found the regions. A chain that is apart from all of them founds another one, and a
    chain that is not apart from several belongs to none: it moves between them.

    Parameters
    ----------
    draws : (n_chains, n_draws, n_params) array
        The draws.

    Returns
    -------
    found : list of (chains, (n_params,) centre), largest first
    travellers : list of int
        Chains that move between regions.
    """
    means, spreads = draws.mean(axis=1), draws.std(axis=1)
    compact_first = np.argsort(np.log(spreads + np.finfo(np.float64).tiny).sum(axis=1), kind="stable")
    groups: list[list[int]] = []
    travellers: list[int] = []
    for chain in map(int, compact_first):
        near = [group for group in groups if not _is_apart(means, spreads, chain, group)]
        if len(near) > 1:
            travellers.append(chain)
        elif near:
            near[0].append(chain)
        else:
            groups.append([chain])
    found = [(sorted(group), means[group].mean(axis=0)) for group in groups]
    return sorted(found, key=lambda region: (-len(region[0]), region[0])), sorted(travellers)


def _is_apart(means: Floats, spreads: Floats, chain: int, group: list[int]) -> bool:
    distance = np.abs(means[chain] - means[group].mean(axis=0))
    return bool((distance > APART * np.maximum(spreads[chain], spreads[group].max(axis=0))).any())


def lies_in_one_mode(starts: Floats, points: Floats) -> bool:
    """Tell whether all start points lie in one mode of the draws, as far as their marginals show.

    They do not when one lies outside the draws in some coordinate, or when in some coordinate a valley of the draws'
    histogram lies between two of them.

    Parameters
    ----------
    starts : (n_chains, n_params) array
        Where the chains started.
    points : (n_points, n_params) array
        Where they went.
    """
    tail = OUTSIDE / (2 * starts.size)
    low, high = np.quantile(points, [tail, 1 - tail], axis=0)
    if ((starts < low) | (starts > high)).any():
        return False
    return not any(_has_valley_between(starts[:, k], points[:, k]) for k in range(starts.shape[1]))


def _has_valley_between(starts: Floats, points: Floats) -> bool:
    low, high = np.quantile(points, [0.001, 0.999])
    if not high > low:
        return False
    heights, edges = np.histogram(points, BINS, (low, high))
    smooth = np.convolve(heights, np.full(3, 1 / 3), mode="same")
    lower_peak = np.minimum(np.maximum.accumulate(smooth), np.maximum.accumulate(smooth[::-1])[::-1])
    valleys = ((edges[:-1] + edges[1:]) / 2)[smooth < VALLEY * lower_peak]
    return bool(((valleys > starts.min()) & (valleys < starts.max())).any())
