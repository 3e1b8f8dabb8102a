"""Fake quantization against torch's own, forward and with gradients: equal values, and how many times faster.

Both run interleaved in one process, on one thread; the ratio is that of the fastest of each.
"""

import time

import pytest
import torch

from qlearn.numbers.affine import fake_quantize
from qlearn.numbers.qparams import QParams
from qlearn.numbers.straight_through import fake_quantize_learned

SMALL, LARGE = (8, 96, 28, 28), (64, 96, 56, 56)  # 2.4 MB and 77 MB
SCALE, ZERO, QMIN, QMAX = 0.03, 3, -128, 127


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fastest(functions, rounds):
    """Seconds of the fastest run of each; every round runs each once."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for place, function in enumerate(functions):
            begin = time.perf_counter()
            function()
            best[place] = min(best[place], time.perf_counter() - begin)
    return best


def report(what, ours, theirs, wanted):
    print(
        f"\n{what}: {1e3 * ours:.2f} ms, torch {1e3 * theirs:.2f} ms, {theirs / ours:.1f} times faster (goal: {wanted})"
    )


@pytest.mark.parametrize(("shape", "rounds", "wanted"), [(SMALL, 200, 8), (LARGE, 10, 2)], ids=["2.4 MB", "77 MB"])
def test_forward(shape, rounds, wanted):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    qparams = QParams(SCALE, ZERO, QMIN, QMAX)
    scale = float(qparams.scale)

    def ours():
        return fake_quantize(x, qparams)

    def theirs():
        return torch.fake_quantize_per_tensor_affine(x, scale, ZERO, QMIN, QMAX)

    assert torch.equal(ours().view(torch.int32), theirs().view(torch.int32))
    report(f"forward, {4 * x.numel() / 1e6:.1f} MB", *fastest([ours, theirs], rounds), wanted)


@pytest.mark.parametrize(("shape", "rounds", "wanted"), [(SMALL, 100, 2), (LARGE, 5, 1)], ids=["2.4 MB", "77 MB"])
def test_forward_and_backward_with_a_learned_step(shape, rounds, wanted):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).requires_grad_()
    gradient = torch.randn(shape, generator=generator)
    scale, zero = torch.tensor([SCALE], requires_grad=True), torch.tensor([float(ZERO)])

    def run(forward):
        x.grad = scale.grad = None
        y = forward()
        y.backward(gradient)
        return y.detach(), x.grad, scale.grad

    def ours():
        return run(lambda: fake_quantize_learned(x, scale[0], zero[0], QMIN, QMAX, gradient_scale=1e-3))

    def theirs():
        return run(lambda: torch._fake_quantize_learnable_per_tensor_affine(x, scale, zero, QMIN, QMAX, 1e-3))  # noqa: SLF001

    a, b = ours(), theirs()
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    torch.testing.assert_close(a[2], b[2], rtol=0, atol=1e-8 * float(gradient.abs().sum()))  # sums of float32
    report(f"forward and backward, {4 * x.numel() / 1e6:.1f} MB", *fastest([ours, theirs], rounds), wanted)
