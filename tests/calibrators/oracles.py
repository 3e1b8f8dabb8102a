"""Independent answers: plain loops on the raw values, or on the histogram where the definition is about one."""

import math

import numpy as np

from qlearn.numbers.qparams import ClipRange


def noise_of(x, qp):
    """Sum of squared errors of x under each of K (scale, zero point) pairs, shape (K,)."""
    scale, zero = qp.scale.astype(np.float64).reshape(-1, 1), qp.zero_point.reshape(-1, 1)
    codes = np.clip(np.rint(x / scale) + zero, qp.qmin, qp.qmax)
    return ((scale * (codes - zero) - x) ** 2).sum(axis=1)


def sqnr_of_range(x, clip_range, scheme):
    """Signal to noise in dB of real values under one clip range."""
    return decibels(x, noise_of(x, scheme.qparams(clip_range))[0])


def decibels(x, noise):
    return 10 * math.log10((x**2).sum() / noise) if noise > 0 else math.inf


def best_noise(x, scheme, steps=56):
    """The least noise over a plain grid of ranges within the data, every value of x quantized for every one of them."""
    lo, hi = min(0.0, x.min()), max(0.0, x.max())
    fine = np.arange(1, 401) / 400
    if scheme.symmetric:
        threshold = fine * max(-lo, hi)
        ranges = np.maximum(lo, -threshold), np.minimum(hi, threshold)
    elif lo == 0 or hi == 0:
        ranges = lo * fine, hi * fine
    else:
        u, v = np.meshgrid(np.arange(steps + 1) / steps, np.arange(steps + 1) / steps)
        some = (u + v > 0).ravel()
        ranges = (lo * u.ravel())[some], (hi * v.ravel())[some]
    least = math.inf
    for start in range(0, len(ranges[0]), 64):
        part = slice(start, start + 64)
        qp = scheme.qparams(ClipRange(ranges[0][part], ranges[1][part]))
        least = min(least, noise_of(x, qp).min())
    return least


def loop_window(counts, origin, levels):
    """The entropy definition word by word: for each window, build P and Q bin by bin and add up."""
    h = [float(c) for c in counts]
    h[origin] = h[origin + 1]
    seen = [i for i, c in enumerate(counts) if c > 0]
    first, end = min(seen[0], origin), max(seen[-1] + 1, origin)
    results = {}
    for kept in range(1, max(origin - first, end - origin) + 1):
        start, stop = max(origin - kept, first), min(origin + kept, end)
        window = h[start:stop]
        if len(window) < levels or sum(h) == 0 or 2 * sum(window) < sum(h):
            continue
        p = list(window)
        p[0] += sum(h[:start])
        p[-1] += sum(h[stop:])
        results[kept] = loop_divergence(p, loop_merged(window, levels))
    if not results:
        return None
    least = min(results.values())
    return max(kept for kept, value in results.items() if value <= least + 1e-9)


def loop_merged(window, levels):
    """Put the bins into groups; the occupied bins of a group share its counts."""
    n = len(window)
    group_of = [j * levels // n for j in range(n)]
    total, occupied = [0.0] * levels, [0] * levels
    for j, count in enumerate(window):
        total[group_of[j]] += count
        occupied[group_of[j]] += count > 0
    return [total[g] / occupied[g] if c > 0 else 0.0 for c, g in zip(window, group_of, strict=True)]


def loop_divergence(p, q):
    """KL(P, Q) in nats; infinite where P has what Q has not."""
    sum_p, sum_q = sum(p), sum(q)
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return math.inf
    return sum(a / sum_p * math.log((a / sum_p) / (b / sum_q)) for a, b in zip(p, q, strict=True) if a > 0)
