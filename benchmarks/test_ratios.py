"""What each stage costs, beside the obvious alternative, interleaved by group. Run with ``make benchmarks``."""

import pytest
import torch

import qlearn as ql
from qlearn.numbers.histogram import StreamingHistogram


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stages():
    network, data = ql.load("tiny_mobilenet")
    network = ql.fold_batch_norm(network)
    x = torch.cat([images for images, _ in data.evaluation.subset(64)])
    recipe = ql.Recipe()
    simulated = ql.quantize_model(network, recipe, ql.calibrate(network, data.calibration, recipe))
    percentile = ql.Recipe(activations=ql.TensorRecipe(scheme="affine", calibrator="percentile"))
    fixed, float32 = simulated.to_integer("fixed"), simulated.to_integer("float32")
    return {
        "float": lambda: network(x),
        "calibrate with minmax": lambda: ql.calibrate(network, [x], recipe),
        "calibrate with percentile": lambda: ql.calibrate(network, [x], percentile),
        "simulate": lambda: simulated(x),
        "integer, float32": lambda: float32(x.numpy()),
        "integer, fixed": lambda: fixed(x.numpy()),
    }


@pytest.mark.benchmark(group="tiny_mobilenet, 64 pictures")
@pytest.mark.parametrize(
    "stage",
    ["float", "calibrate with minmax", "calibrate with percentile", "simulate", "integer, float32", "integer, fixed"],
)
def test_stages(benchmark, stages, stage):
    benchmark(stages[stage])


@pytest.mark.benchmark(group="fake quantization of 600 thousand numbers")
@pytest.mark.parametrize("whose", ["qlearn", "torch"])
def test_fake_quantize(benchmark, whose):
    x = torch.randn(8, 96, 28, 28, generator=torch.Generator().manual_seed(0))
    qp = ql.scheme("affine").qparams(ql.ClipRange(-3.0, 4.0))
    if whose == "qlearn":
        benchmark(ql.fake_quantize, x, qp)
    else:
        arguments = (float(qp.scale), int(qp.zero_point), qp.qmin, qp.qmax)
        benchmark(torch.fake_quantize_per_tensor_affine, x, *arguments)


@pytest.mark.benchmark(group="histogram of 10 million numbers, 4096 bins")
@pytest.mark.parametrize("whose", ["qlearn", "torch.histc", "torch.ao HistogramObserver"])
@pytest.mark.filterwarnings("ignore")
def test_histogram(benchmark, whose):
    x = torch.randn(10_000_000, generator=torch.Generator().manual_seed(0))
    if whose == "qlearn":
        benchmark.pedantic(lambda: StreamingHistogram(2048).add(x[None]), rounds=5, warmup_rounds=1)
    elif whose == "torch.histc":
        benchmark.pedantic(lambda: torch.histc(x, 4096), rounds=5, warmup_rounds=1)
    else:
        from torch.ao.quantization import HistogramObserver

        benchmark.pedantic(lambda: HistogramObserver(bins=2048)(x), rounds=5, warmup_rounds=1)
