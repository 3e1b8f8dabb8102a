"""ONNX Runtime's entropy threshold, its definition in our own vectorised words, as an opponent for its own code.

The definition differs from qlearn's: the histogram is symmetric around zero, the groups are of equal size and the
last one takes the rest, Q is cut to whole counts, zeros are smoothed by 1e-4, and the bin at zero is not repaired.
"""

import numpy as np

SMOOTHING = 1e-4


def entropy_threshold(histogram, levels):
    """Return (lo, hi) for (counts, edges, smallest, largest), as `HistogramCollector.get_entropy_threshold` does."""
    counts, edges, smallest, largest = histogram
    middle, mass = counts.size // 2, np.concatenate([[0], np.cumsum(counts)])
    candidates = range(levels // 2, middle + 1)
    divergences = [_divergence(counts, mass, middle - i, min(middle + i + 1, counts.size), levels) for i in candidates]
    best = candidates[int(np.argmin(np.array(divergences, np.float64)))]
    lo, hi = edges[middle - best], edges[min(middle + best + 1, counts.size)]
    return max(lo, smallest), min(hi, largest)


def _divergence(counts, mass, start, end, levels):
    window = counts[start:end]
    p = window.copy()
    p[0] += mass[start]
    p[-1] += mass[-1] - mass[end]
    size = window.size // levels
    whole = size * levels
    groups = window[:whole].reshape(levels, size).sum(axis=1)
    groups[-1] += window[whole:].sum()
    occupied = (p[:whole] != 0).reshape(levels, size).sum(axis=1)
    share = np.divide(groups, occupied, out=np.zeros(levels), where=occupied != 0)
    q = np.zeros(window.size, np.int64)
    q[:whole] = np.repeat(share, size)  # cut to whole counts
    p, q = _smoothed(p), _smoothed(q)
    if p is None or q is None:
        return np.inf
    p, q = (1.0 * side / np.sum(side) for side in (p.astype(np.float32), q.astype(np.float32)))
    return np.sum(p * np.log(p / q))


def _smoothed(distribution):
    zeros = (distribution == 0).astype(np.float32)
    others = distribution.size - zeros.sum()
    if not others:
        return None
    taken = SMOOTHING * float(zeros.sum()) / float(others)
    return distribution.astype(np.float32) + (SMOOTHING * zeros - taken * (1 - zeros))
