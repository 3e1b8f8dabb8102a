"""What calibration costs: ratios of minima, measured in turns in one run on one thread, by ``make benchmarks``."""

import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.calibrators.entropy import best_window
from qlearn.numbers.histogram import StreamingHistogram
from qlearn.pipeline.calibrate import calibration_plan
from qlearn.pipeline.observe import SiteObservers
from qlearn.zoo.load import load_module
from qlearn.zoo.models.mobilenet import MobileNetV1

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "calibrators"), str(ROOT / "benchmarks")]

from oracles import loop_window  # noqa: E402  (the plain loop that the tests trust)
from ort_entropy import entropy_threshold  # noqa: E402

NAMES = ["minmax", "moving_average", "mean_std", "percentile", "entropy", "mse"]
RECIPES = [ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator=name)) for name in NAMES]


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def in_turns(rounds, **runs):
    """Processor time of each, once per round and in turns, so that a slow moment hits all; minima in seconds."""
    times = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:  # the first round warms up
                times[name].append(time.process_time() - start)
    return {name: min(values) for name, values in times.items()}


def report(capsys, title, times, base, goal):
    with capsys.disabled():
        print(f"\n{title}")
        for name, seconds in times.items():
            print(f"  {name:32} {1e3 * seconds:10.2f} ms   {seconds / times[base]:8.2f} x {base}")
        print(f"  goal: {goal}")


@pytest.fixture(scope="module")
def module():
    """MobileNetV1-0.25-224: the trained weights where QLEARN_DATA has them, else seeded random ones."""
    try:
        return load_module("mobilenet_v1_0.25")
    except ql.errors.MissingDataError:
        torch.manual_seed(0)
        return MobileNetV1(alpha=0.25).eval()


@pytest.fixture(scope="module")
def fused(module):
    """The network that calibration runs: batch norms folded, activations fused."""
    traced = ql.trace(module, torch.zeros(1, 3, 224, 224), name="mobilenet_v1_0.25")
    return ql.fuse_activations(ql.fold_batch_norm(traced))


@pytest.fixture(scope="module")
def batch():
    smooth = torch.nn.functional.interpolate(torch.randn(8, 3, 28, 28, generator=torch.Generator().manual_seed(0)), 224)
    return smooth.clamp(-1, 1).contiguous()


def test_one_pass_for_everything(capsys, benchmark, module, fused, batch):
    """The float forward is the module's own, batch norms and all; the pass runs the fused network.

    Nothing is kept from round to round: a tensor that stays at the top of the heap decides whether the pages of the
    activations go back to the system and are faulted in again, which alone can double the time of a forward pass.
    """
    plans = [calibration_plan(fused, recipe) for recipe in RECIPES]
    everything, minmax = SiteObservers.of(plans), SiteObservers.of(plans[:1])
    count = 0

    def std_mean(node, value):
        nonlocal count
        if node.name in everything.sites:
            torch.std_mean(value)
            count += value.numel()

    def forward():
        with torch.no_grad():
            module(batch)

    fused(batch, std_mean)
    title = f"one pass, MobileNetV1-0.25-224, batch 8, {count / 1e6:.1f} M values, {len(everything.sites)} sites"
    times = in_turns(
        25,
        forward=forward,
        forward_fused=lambda: fused(batch),
        pass_with_minmax=lambda: minmax.run(fused, batch),
        pass_with_everything=lambda: everything.run(fused, batch),
        pass_with_torch_std_mean=lambda: fused(batch, std_mean),
    )
    times["collecting_everything_alone"] = times["pass_with_everything"] - times["forward_fused"]
    report(capsys, title, times, "forward", "pass_with_everything at most 1.5 x forward")
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("shape", ["normal", "relu"])
def test_one_histogram_of_ten_million(capsys, benchmark, shape):
    from torch.ao.quantization import HistogramObserver

    x = torch.randn(10_000_000, generator=torch.Generator().manual_seed(0))
    x = x.relu() if shape == "relu" else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        times = in_turns(
            7,
            qlearn=lambda: StreamingHistogram().add(x[None]),
            torch_HistogramObserver=lambda: HistogramObserver(bins=2048)(x),
            torch_histc=lambda: torch.histc(x, 4096),
        )
    goal = "torch_HistogramObserver at least 3 x qlearn"
    report(capsys, f"histogram of 10 M values, {shape}, 2048 bins", times, "qlearn", goal)
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("shape", ["normal", "relu"])
def test_entropy_search(capsys, benchmark, shape):
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    histogram = StreamingHistogram()
    histogram.add((x.relu() if shape == "relu" else x)[None])
    counts = histogram.counts[0].numpy()
    start = time.process_time()
    expected = loop_window(counts.tolist(), 2048, 256)
    loop = time.process_time() - start
    assert best_window(counts, 2048, 256) == expected
    times = in_turns(7, qlearn=lambda: best_window(counts, 2048, 256)) | {"plain_loop": loop}
    title = f"entropy search, {shape}, 2048 bins, 256 levels, bin {expected} both"
    report(capsys, title, times, "qlearn", "plain_loop at least 100 x qlearn")
    benchmark.pedantic(lambda: None)


@pytest.mark.parametrize("shape", ["normal", "relu"])
def test_entropy_search_as_onnxruntime_defines_it(capsys, benchmark, shape):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate", reason="the extra runtimes is missing")
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).numpy()
    x = np.maximum(x, 0) if shape == "relu" else x
    absmax = np.float32(np.abs(x).max())
    counts, edges = np.histogram(x, bins=2048, range=(-absmax, absmax))
    histogram = (counts, edges.astype(np.float32), x.min(), x.max())
    collector = calibrate.HistogramCollector.__new__(calibrate.HistogramCollector)
    theirs = collector.get_entropy_threshold(histogram, 255)
    ours = entropy_threshold(histogram, 255)
    assert [float(v) for v in theirs] == [float(v) for v in ours]
    times = in_turns(
        3,
        ours=lambda: entropy_threshold(histogram, 255),
        onnxruntime=lambda: collector.get_entropy_threshold(histogram, 255),
    )
    title = f"ONNX Runtime's entropy definition, {shape}, 2048 bins, 255 levels, threshold {float(ours[1]):.4f} both"
    report(capsys, title, times, "ours", "onnxruntime at least 10 x ours")
    benchmark.pedantic(lambda: None)


def test_all_thresholds_of_the_network(capsys, benchmark, fused, batch):
    observers = SiteObservers.of([calibration_plan(fused, recipe) for recipe in RECIPES])
    observers.run(fused, batch)
    scheme = ql.scheme("affine")

    def thresholds(place):
        return lambda: [calibrators[place].compute_range(scheme) for calibrators in observers.sites.values()]

    times = in_turns(5, **{name: thresholds(place) for place, name in enumerate(NAMES)})
    times["all_six"] = sum(times.values())
    report(capsys, f"thresholds of all {len(observers.sites)} sites", times, "all_six", "all_six under 1000 ms")
    benchmark.pedantic(lambda: None)


_MEMORY = """
import resource, sys, torch, qlearn as ql
from qlearn.zoo.models.mobilenet import MobileNetV1
torch.manual_seed(0); torch.set_num_threads(1)
network = ql.fold_batch_norm(ql.trace(MobileNetV1(alpha=0.25).eval(), torch.zeros(1, 3, 224, 224)))
names = ["minmax", "moving_average", "mean_std", "percentile", "entropy", "mse"]
recipes = [ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator=name)) for name in names]
batches = (torch.randn(8, 3, 224, 224) for _ in range(int(sys.argv[1]) // 8))
ql.calibrate_many(network, batches, recipes)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_peak_memory_does_not_grow_with_the_pictures(capsys, benchmark):
    peaks = {}
    for pictures in (64, 1000, 64, 1000):
        command = [sys.executable, "-c", _MEMORY, str(pictures)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.setdefault(pictures, []).append(int(done.stdout) / 1024)
    with capsys.disabled():
        print("\npeak memory of calibrate_many, MobileNetV1-0.25-224, batches of 8, six calibrators")
        for pictures, values in peaks.items():
            print(f"  {pictures:5} pictures: {min(values):.0f} MiB   {min(values) / min(peaks[64]):.3f} x 64 pictures")
        print("  goal: the same for both")
    benchmark.pedantic(lambda: None)
