"""One pass through the network, for any number of recipes, here or on many workers (paper §5.2).

Calibrators that need the same statistic share it, so one pass costs the same for one recipe and for ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from qlearn.calibrators.base import can_share, share_statistics
from qlearn.calibrators.spec import CalibratorSpec, Trait
from qlearn.errors import CalibrationError
from qlearn.numbers.rows import rows_of
from qlearn.progress import progress
from qlearn.registry import calibrator, default_registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from qlearn.calibrators.spec import Calibrator
    from qlearn.graph.model import FloatModel, Node
    from qlearn.pipeline.recipe import TensorRecipe

    Plan = Mapping[str, TensorRecipe]
    """What one recipe wants to know: how each site is to be quantized."""


@dataclass(eq=False)
class SiteObservers:
    """The calibrators of one pass: for each site, one per plan that has it. What workers send back and merge.

    Parameters
    ----------
    plans : sequence of mapping of site to TensorRecipe
        One per recipe.
    sites : mapping of site to mapping of plan to calibrator
        Plans are named by their place.
    images : int
        Inputs seen.
    """

    plans: Sequence[Plan]
    sites: dict[str, dict[int, Calibrator]]
    images: int = 0

    def __post_init__(self) -> None:
        self._groups = {site: self._groups_at(site) for site in self.sites}

    def _groups_at(self, site: str) -> list[_Group]:
        """Group the calibrators of a site; each group goes by the name of the one that observes for it."""
        places = self.sites[site]
        names = {id(mine): self.plans[place][site].calibrator for place, mine in places.items()}
        groups = share_statistics(places.values())
        return [_Group(names[id(leader)], leader, rest, can_share(leader)) for leader, *rest in groups]

    @classmethod
    def of(cls, plans: Sequence[Plan]) -> Self:
        """Make fresh calibrators for the sites."""
        sites: dict[str, dict[int, Calibrator]] = {}
        for place, plan in enumerate(plans):
            for site, choice in plan.items():
                sites.setdefault(site, {})[place] = calibrator(choice.calibrator, **choice.calibrator_params)
        return cls(plans, sites)

    def run(self, model: FloatModel, x: Tensor) -> None:
        """Run one batch through the network and let every calibrator see it."""

        def watch(node: Node, value: Tensor) -> None:
            if node.name in self.sites:
                self.observe(node.name, value)

        model(x, watch)
        self.images += len(x)

    def observe(self, site: str, value: Tensor) -> None:
        """Let every calibrator of one site see a value."""
        rows = None
        for group in self._groups[site]:
            with noted(site, group.name, value):
                if group.takes_rows:
                    rows = rows_of(value, None) if rows is None else rows
                    group.leader.observe_rows(rows)  # type: ignore[attr-defined]
                    group.read_along()
                else:
                    group.leader.observe(value)

    def merge(self, other: SiteObservers) -> None:
        """Take over what a worker saw."""
        for site, places in self.sites.items():
            theirs = {id(mine): other.sites[site][place] for place, mine in places.items()}
            for group in self._groups[site]:
                with noted(site, group.name, None):
                    group.leader.merge(theirs[id(group.leader)])
                group.read_along()
        self.images += other.images


@dataclass(frozen=True, eq=False)
class _Group:
    """Calibrators of one site with the same statistic, which the leader fills."""

    name: str
    leader: Calibrator
    followers: list[Calibrator]
    takes_rows: bool

    def read_along(self) -> None:
        """Give the followers the leader's statistic."""
        for follower in self.followers:
            follower.statistic = self.leader.statistic  # type: ignore[attr-defined]  # of the same kind


def observe_here(model: FloatModel, batches: Iterable[Any], plans: Sequence[Plan]) -> SiteObservers:
    """Observe all batches in this process."""
    observers = SiteObservers.of(plans)
    for batch in progress(batches, "calibrate", unit="batch"):
        observers.run(model, input_of(batch))
    return observers


def observe_on(client: Any, model: FloatModel, batches: Iterable[Any], plans: Sequence[Plan]) -> SiteObservers:
    """Observe each batch as one task of a Dask client and merge what comes back, in whatever order it does.

    At most two batches per thread are on their way at a time, so memory does not grow with their number.
    """
    _check_mergeable(plans)
    if not (hasattr(client, "scatter") and hasattr(client, "nthreads")):
        raise CalibrationError(f"client= takes a dask.distributed.Client, got {type(client).__name__}")
    (shared,) = client.scatter([model], broadcast=True, hash=False)
    pending = {shared}
    observers = SiteObservers.of(plans)
    try:
        ready = (_prepared(batch) for batch in progress(batches, "calibrate", unit="batch"))
        for future in _tasks(client, ready, (shared, plans), pending):
            observers.merge(future.result())
            pending.discard(future)
    except Exception as error:
        raise error.with_traceback(None) from None  # the traceback would keep the futures, and they the batches
    finally:
        client.cancel(list(pending), force=True)
        pending.clear()
    return observers


def _tasks(client: Any, batches: Iterator[Any], arguments: tuple[Any, ...], pending: set[Any]) -> Iterator[Any]:
    """Submit two tasks per thread, then one for each that is done; yield them as they are."""
    from distributed import as_completed  # the extra "dask"; whoever has a client has it

    def submit(count: int) -> list[Any]:
        new = [client.submit(_observe_batch, batch, *arguments, pure=False) for batch in islice(batches, count)]
        pending.update(new)
        return new

    running = as_completed(submit(2 * max(1, sum(client.nthreads().values()))))
    for future in running:
        yield future
        for new in submit(1):
            running.add(new)


def _prepared(batch: Any) -> Any:
    """Return what goes to the worker: a future stays one, so that the worker loads the pictures itself."""
    return batch if hasattr(batch, "key") else input_of(batch)


def _observe_batch(batch: Any, model: FloatModel, plans: Sequence[Plan]) -> SiteObservers:
    """One task: one batch, one thread, because a float forward changes with the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        observers = SiteObservers.of(plans)
        observers.run(model, input_of(batch))
        return observers
    finally:
        torch.set_num_threads(threads)


def _check_mergeable(plans: Sequence[Plan]) -> None:
    for name in {choice.calibrator: None for plan in plans for choice in plan.values()}:
        spec = default_registry().find("calibrator", name).spec
        if not (isinstance(spec, CalibratorSpec) and Trait.MERGEABLE in spec.traits):
            raise CalibrationError(
                f"calibrator {name!r} cannot run on several workers: it does not declare MERGEABLE; "
                "leave out client=, or choose a calibrator that `qlearn plugins` shows as mergeable"
            )


def input_of(batch: Any) -> Tensor:
    """Return the input tensor of a batch, without gradients: the batch itself, or the first of a tuple."""
    first = batch[0] if isinstance(batch, tuple | list) and len(batch) else batch
    if isinstance(first, np.ndarray):
        first = torch.from_numpy(first)
    if not isinstance(first, torch.Tensor):
        raise CalibrationError(f"a batch is a tensor or a tuple that starts with one, got {type(first).__name__}")
    return first.detach()


class noted:  # noqa: N801  (a context manager, read as a word)
    """Add site, calibrator and shape to whatever is raised inside."""

    def __init__(self, site: str, name: str, value: Tensor | None) -> None:
        self.site, self.name, self.value = site, name, value

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            shape = "" if self.value is None else f", values of shape {tuple(self.value.shape)}"
            error.add_note(f"at site {self.site!r}, calibrator {self.name!r}{shape}")
