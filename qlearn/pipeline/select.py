"""Which pictures calibrate? Those whose activations, together, look like everybody's (paper §5.2, ref. 24)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qlearn.errors import CalibrationError, GraphError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.model import FloatModel
from qlearn.numbers.rows import rows_of
from qlearn.pipeline.calibrate import calibration_sites
from qlearn.pipeline.observe import input_of
from qlearn.progress import batch_count, progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from qlearn.graph.model import Node

    Features = NDArray[np.float64]

STATISTICS = ("mean", "standard deviation", "smallest", "largest")
"""What is kept of one picture at one site."""

MOST_ROUNDS = 50


def select_calibration_set(
    model: FloatModel, pictures: Iterable[Any], count: int, *, by: str = "ranges", seed: int = 0
) -> NDArray[np.int64]:
    """Choose pictures to calibrate on by the statistics of their activations, without labels.

    One pass notes, for every picture and site, mean, standard deviation, smallest and largest value
    (`picture_statistics`); each is then scaled to standard deviation 1 over the pool.

    - ``"ranges"``: one picture after the other, always the one that widens the ranges of the chosen ones most,
      summed over sites. A few pictures then reach nearly as far as the pool does, which is what counts at 8 bits.
    - ``"clusters"``: k-means makes `count` groups of pictures that are alike; the one nearest to the middle of each
      group is chosen. Every kind of picture is there, rare ones too.
    - ``"match"``: one picture after the other, always the one that brings the average of the chosen ones nearest to
      the average of the pool. Rare pictures are as rare as they are.

    Parameters
    ----------
    model : FloatModel
        Batch norms folded. Not changed.
    pictures : iterable
        The pool, as for `calibrate`. Iterated over once; memory is four numbers per picture and site.
    count : int
        How many to choose.
    by : str
        ``"ranges"``, ``"clusters"`` or ``"match"``.
    seed : int
        Where ``"clusters"`` starts. The others need none.

    Returns
    -------
    ndarray, shape (count,), int64
        Places in the pool, rising: ``pictures.subset(chosen)``.

    Raises
    ------
    CalibrationError
        If there are no pictures, fewer than `count`, `by` is unknown, or a value is NaN or Inf.

    References
    ----------
    Z. Zhang et al., "SelectQ: calibration data selection for post-training quantization", 2022, is what the paper's
    §5.2 describes in a sentence; features and clustering here are this library's own.

    Examples
    --------
    >>> import torch
    >>> from qlearn.graph.trace import trace
    >>> net = trace(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU()), torch.zeros(1, 1, 8, 8))
    >>> dark, bright = torch.zeros(9, 1, 8, 8), torch.ones(3, 1, 8, 8)
    >>> chosen = select_calibration_set(net, [torch.cat([dark, bright])], 2)
    >>> [place >= 9 for place in chosen.tolist()]           # one of the nine, one of the three
    [False, True]
    """
    _check(count, by)  # before the pass
    return choose_pictures(picture_statistics(model, pictures), count, by=by, seed=seed)


def choose_pictures(statistics: Features, count: int, *, by: str = "ranges", seed: int = 0) -> NDArray[np.int64]:
    """Choose as `select_calibration_set` does, from statistics that are at hand: several sets from one pass.

    Parameters
    ----------
    statistics : ndarray, shape (pictures, sites, 4)
        From `picture_statistics`.
    count, by, seed
        As for `select_calibration_set`, and so are result and errors.
    """
    _check(count, by)
    if count > len(statistics):
        raise CalibrationError(
            f"cannot choose {count} of {len(statistics)} pictures: ask for fewer, or calibrate on all of them"
        )
    features = standardized(statistics.reshape(len(statistics), -1))
    return np.sort(_RULES[by](features, int(count), seed))


def _check(count: Any, by: str) -> None:
    if by not in _RULES:
        raise CalibrationError(f"select by {', '.join(map(repr, _RULES))}: got {by!r}")
    if isinstance(count, bool) or not hasattr(count, "__index__") or count < 1:
        raise CalibrationError(f"count is a whole number of 1 or more: got {count!r}")


def picture_statistics(model: FloatModel, batches: Iterable[Any]) -> Features:
    """Return mean, standard deviation, smallest and largest value of every picture at every site.

    Parameters
    ----------
    model : FloatModel
        Its activations are fused first; sites are those of `calibration_sites`.
    batches : iterable
        As for `calibrate`.

    Returns
    -------
    ndarray, shape (pictures, sites, 4), float64
        The last axis is `STATISTICS`.

    Raises
    ------
    CalibrationError
        If there are no pictures, or a value is NaN or Inf; a note names the site.
    """
    if not isinstance(model, FloatModel):
        raise GraphError(f"pictures are chosen for a traced network, got {type(model).__name__}: use qlearn.trace()")
    fused = fuse_activations(model)
    sites = {site: place for place, site in enumerate(calibration_sites(fused))}
    found: list[Features] = []
    for batch in progress(batches, "select", unit="batch", total=batch_count(batches)):
        x = input_of(batch)
        table = np.empty((len(x), len(sites), len(STATISTICS)))

        def watch(node: Node, value: Any, table: Features = table) -> None:
            if node.name in sites:
                table[:, sites[node.name]] = _of_each_picture(node.name, value)

        fused(x, watch)
        found.append(table)
    if not found:
        raise CalibrationError(f"{model.name}: no pictures to choose from (an iterator that was already used up?)")
    return np.concatenate(found)


def _of_each_picture(site: str, value: Any) -> Features:
    try:
        rows = rows_of(value, 0)
    except CalibrationError as error:
        error.add_note(f"at site {site!r}, values of shape {tuple(value.shape)}")
        raise
    values = rows.values.double()
    return np.stack([values.mean(1).numpy(), values.std(1, correction=0).numpy(), rows.lo, rows.hi], axis=1)


def standardized(features: Features) -> Features:
    """Return every column with mean 0 and standard deviation 1; one that never moves becomes 0.

    Examples
    --------
    >>> standardized(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """
    centred = features - features.mean(axis=0)
    spread = centred.std(axis=0)
    still = spread <= 1e-9 * np.abs(features).max(axis=0)
    return np.where(still, 0.0, centred / np.where(still, 1.0, spread))


def _by_clusters(features: Features, count: int, seed: int) -> NDArray[np.int64]:
    """K-means, then of each group the picture nearest to its centre."""
    centres = features[_far_apart(features, count, np.random.default_rng(seed))]
    owner = np.full(len(features), -1)
    for _ in range(MOST_ROUNDS):
        distance = _squared_distances(features, centres)
        before, owner = owner, distance.argmin(axis=1)
        if (owner == before).all():
            break
        for group in np.unique(owner):
            centres[group] = features[owner == group].mean(axis=0)
    distance = _squared_distances(features, centres)
    chosen = {int(np.where(owner == group, distance[:, group], np.inf).argmin()) for group in np.unique(owner)}
    while len(chosen) < count:  # fewer groups than wanted: equal pictures; add whoever is farthest from all chosen
        nearest = _squared_distances(features, features[sorted(chosen)]).min(axis=1)
        nearest[sorted(chosen)] = -1.0
        chosen.add(int(nearest.argmax()))
    return np.array(sorted(chosen), np.int64)


def _far_apart(features: Features, count: int, rng: np.random.Generator) -> list[int]:
    """Where k-means starts: the first at random, each next one with a chance that grows with its squared distance."""
    chosen = [int(rng.integers(len(features)))]
    nearest = _squared_distances(features, features[chosen])[:, 0]
    while len(chosen) < count:
        total = nearest.sum()
        weights = nearest / total if total > 0 else np.full(len(features), 1 / len(features))
        chosen.append(int(rng.choice(len(features), p=weights)))
        nearest = np.minimum(nearest, _squared_distances(features, features[chosen[-1:]])[:, 0])
    return chosen


def _by_matching(features: Features, count: int, seed: int) -> NDArray[np.int64]:
    """Greedy: the average of the pool is 0 after scaling, so the sum of the chosen ones is kept small."""
    total = np.zeros(features.shape[1])
    free = np.ones(len(features), bool)
    for _ in range(count):
        error = ((features + total) ** 2).sum(axis=1)
        best = int(np.where(free, error, np.inf).argmin())
        free[best] = False
        total = total + features[best]
    return np.flatnonzero(~free).astype(np.int64)


def _by_ranges(features: Features, count: int, seed: int) -> NDArray[np.int64]:
    """Greedy: whoever moves the smallest and largest values of the chosen ones outward most."""
    by_site = features.reshape(len(features), -1, len(STATISTICS))
    outward = np.concatenate([-by_site[:, :, 2], by_site[:, :, 3]], axis=1)
    reach = outward.min(axis=0)
    free = np.ones(len(features), bool)
    for _ in range(count):
        gain = np.maximum(outward, reach).sum(axis=1)
        best = int(np.where(free, gain, -np.inf).argmax())
        free[best] = False
        reach = np.maximum(reach, outward[best])
    return np.flatnonzero(~free).astype(np.int64)


def _squared_distances(points: Features, centres: Features) -> Features:
    """One row per point, one column per centre; a loop over centres, so that memory stays points x features."""
    return np.stack([((points - centre) ** 2).sum(axis=1) for centre in centres], axis=1)


_RULES: dict[str, Callable[[Features, int, int], NDArray[np.int64]]] = {
    "ranges": _by_ranges,
    "clusters": _by_clusters,
    "match": _by_matching,
}
