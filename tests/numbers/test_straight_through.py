"""Fake quantization and its gradients: against loops, torch's own functions, and numerical derivatives."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlearn.errors import NumbersError
from qlearn.numbers.affine import dequantize, fake_quantize, quantize
from qlearn.numbers.qparams import QParams
from qlearn.numbers.straight_through import fake_quantize_learned, lsq_gradient_scale

FORMATS = [(-128, 127), (-127, 127), (0, 255), (-8, 7), (0, 15), (-2, 1), (-32768, 32767)]


def bits(x):
    """The float32 bit patterns: -0 is not 0 here."""
    return x.detach().contiguous().view(torch.int32)


def values_with_ties(scale, qmin, qmax, zero_point, seed=0):
    """Random values, every tie between two codes, and what lies outside."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.arange(max(qmin, -300) - 3, min(qmax, 300) + 4).float()
    ties = (codes - zero_point + 0.5) * scale
    spread = torch.randn(500, generator=generator) * scale * (qmax - qmin)
    return torch.cat([ties, -ties, spread, torch.tensor([0.0, -0.0, -0.3 * scale, 1e30 * scale * 1e-25])])


@pytest.mark.parametrize("limits", FORMATS)
@pytest.mark.parametrize("scale", [0.5, 0.1, 1.0, 3.7e-4, 2.0**-9])
def test_values_and_gradient_are_those_of_torch_bit_for_bit(limits, scale):
    qmin, qmax = limits
    for zero_point in sorted({qmin, 0, qmax, (qmin + qmax) // 2 + 1}):
        x = values_with_ties(scale, qmin, qmax, zero_point)
        ours, theirs = (x.clone().requires_grad_() for _ in range(2))
        gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        a = fake_quantize(ours, QParams(scale, zero_point, qmin, qmax))
        b = torch.fake_quantize_per_tensor_affine(theirs, float(np.float32(scale)), zero_point, qmin, qmax)
        a.backward(gradient)
        b.backward(gradient)
        assert torch.equal(bits(a), bits(b))
        assert torch.equal(ours.grad, theirs.grad)


@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(2.0**-20, 1e3),
    limits=st.sampled_from(FORMATS),
    where=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_random_grids_are_those_of_torch(seed, scale, limits, where):
    qmin, qmax = limits
    zero_point = int(qmin + where * (qmax - qmin))
    x = torch.randn(1000, generator=torch.Generator().manual_seed(seed)) * scale * 100
    expected = torch.fake_quantize_per_tensor_affine(x, float(np.float32(scale)), zero_point, qmin, qmax)
    assert torch.equal(bits(fake_quantize(x, QParams(scale, zero_point, qmin, qmax))), bits(expected))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("zeros", ["equal", "different"])
def test_per_channel_is_that_of_torch(axis, zeros):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(5, 4, 3, 5, generator=generator)
    channels = x.shape[axis]
    scale = torch.rand(channels, generator=generator) * 0.02 + 0.005
    zero_point = torch.zeros(channels, dtype=torch.int32)
    if zeros == "different":
        zero_point = torch.arange(channels, dtype=torch.int32) * 3 - 4
    ours, theirs = (x.clone().requires_grad_() for _ in range(2))
    a = fake_quantize(ours, QParams(scale.numpy(), zero_point.numpy(), -128, 127, axis))
    b = torch.fake_quantize_per_channel_affine(theirs, scale, zero_point, axis % 4, -128, 127)
    gradient = torch.randn(x.shape, generator=generator)
    a.backward(gradient)
    b.backward(gradient)
    assert torch.equal(bits(a), bits(b))
    assert torch.equal(ours.grad, theirs.grad)
    assert 0 < int((ours.grad == 0).sum()) < x.numel()


def test_it_is_quantize_and_then_dequantize():
    qparams = QParams(0.07, 3, -128, 127)
    x = values_with_ties(0.07, -128, 127, 3)
    assert torch.equal(fake_quantize(x, qparams), dequantize(quantize(x, qparams), qparams))


def loops(x, gradient, scale, zero_point, qmin, qmax):
    """Gradients for x, scale and zero point, in plain Python, float64."""
    to_x, to_scale, to_zero = [], 0.0, 0.0
    for value, g in zip(x.tolist(), gradient.tolist(), strict=True):
        v = value / scale
        code = round(v) + zero_point
        if code < qmin or code > qmax:
            bound = qmin if code < qmin else qmax
            to_x.append(0.0)
            to_scale += g * (bound - zero_point)
            to_zero -= g * scale
        else:
            to_x.append(g)
            to_scale += g * (round(v) - v)
    return to_x, to_scale, to_zero


@pytest.mark.parametrize("limits", [(-8, 7), (0, 15), (-128, 127)])
def test_learned_gradients_are_those_of_loops(limits):
    qmin, qmax = limits
    zero = (qmin + qmax) // 2 + 1
    x = (torch.randn(400, generator=torch.Generator().manual_seed(5)) * (qmax - qmin) * 0.04).double()
    gradient = torch.randn(400, generator=torch.Generator().manual_seed(6)).double()
    x.requires_grad_()
    scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    zero_point = torch.tensor(float(zero), dtype=torch.float64, requires_grad=True)
    fake_quantize_learned(x, scale, zero_point, qmin, qmax, gradient_scale=1.0).backward(gradient)
    to_x, to_scale, to_zero = loops(x.detach(), gradient, 0.1, zero, qmin, qmax)
    assert x.grad.tolist() == to_x
    assert float(scale.grad) == pytest.approx(to_scale, rel=1e-9)
    assert float(zero_point.grad) == pytest.approx(to_zero, rel=1e-9, abs=1e-12)


def test_per_channel_learned_gradients_are_those_of_each_channel_alone():
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(3, 4, 5, 5, generator=generator)
    for zeros in ([0.0] * 4, [0.0, 1.0, -3.0, 2.0]):
        scale = (torch.rand(4, generator=generator) * 0.3 + 0.1).requires_grad_()
        zero_point = torch.tensor(zeros, requires_grad=True)
        gradient = torch.randn(x.shape, generator=generator)
        whole = x.clone().requires_grad_()
        y = fake_quantize_learned(whole, scale, zero_point, -8, 7, axis=1, gradient_scale=0.5)
        y.backward(gradient)
        for c in range(4):
            part = x[:, c].clone().requires_grad_()
            s, z = (v.detach()[c].clone().requires_grad_() for v in (scale, zero_point))
            alone = fake_quantize_learned(part, s, z, -8, 7, gradient_scale=0.5)
            alone.backward(gradient[:, c])
            assert torch.equal(alone, y[:, c])
            assert torch.equal(part.grad, whole.grad[:, c])
            torch.testing.assert_close(s.grad, scale.grad[c], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(z.grad, zero_point.grad[c], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limits", [(-128, 127), (0, 15)])
@pytest.mark.parametrize("zero", [0, 5])
def test_learned_gradients_are_those_of_torch(limits, zero):
    qmin, qmax = limits
    x = torch.randn(8, 6, 10, 10, generator=torch.Generator().manual_seed(4))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    results = []
    for ours in (True, False):
        leaf = x.clone().requires_grad_()
        scale = torch.tensor([3.0 / (qmax - qmin)], requires_grad=True)
        zero_point = torch.tensor([float(zero)], requires_grad=True)
        if ours:
            y = fake_quantize_learned(leaf, scale[0], zero_point[0], qmin, qmax, gradient_scale=0.01)
        else:
            y = torch._fake_quantize_learnable_per_tensor_affine(leaf, scale, zero_point, qmin, qmax, 0.01)
        y.backward(gradient)
        results.append((y.detach(), leaf.grad, scale.grad, zero_point.grad))
    (y, to_x, to_scale, to_zero), theirs = results
    assert torch.equal(y, theirs[0])
    assert torch.equal(to_x, theirs[1])
    torch.testing.assert_close(to_scale, theirs[2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(to_zero, theirs[3], rtol=1e-4, atol=1e-6)


def surrogate(x, scale, zero_point, qmin, qmax):
    """The same gradients from autograd: rounding is a constant that is added."""
    v = x / scale + (zero_point - zero_point.round()).detach()
    rounded = v + (torch.round(v) - v).detach()
    low, high = qmin - zero_point, qmax - zero_point
    clipped = torch.where(torch.round(v) < low, low, torch.where(torch.round(v) > high, high, rounded))
    return clipped * scale


def test_the_gradient_is_that_of_a_surrogate_that_autograd_differentiates():
    x = torch.randn(300, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    leaves = []
    for function in (fake_quantize_learned, surrogate):
        leaf = x.clone().requires_grad_()
        scale, zero = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.13, 2.0))
        more = {"gradient_scale": 1.0} if function is fake_quantize_learned else {}
        (function(leaf, scale, zero, -8, 7, **more) ** 2).sum().backward()
        leaves.append((leaf.grad, scale.grad, zero.grad))
    for ours, theirs in zip(*leaves, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_gradcheck_of_the_step_size_where_everything_is_clipped():
    """There the function is q S with q fixed: the straight-through gradient is the true one."""
    x = torch.tensor([-9.0, -4.0, 5.0, 9.0], dtype=torch.float64)
    scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    zero = torch.tensor(1.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda s: fake_quantize_learned(x, s, zero, -8, 7, gradient_scale=1.0), (scale,), eps=1e-6
    )


@pytest.mark.parametrize("zero", [-8, 0, 3])
def test_a_fused_relu_is_a_relu_before(zero):
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(7))
    gradient = torch.randn(x.shape, generator=torch.Generator().manual_seed(8))
    results = []
    for fused in (True, False):
        leaf = x.clone().requires_grad_()
        scale = torch.tensor(0.1, requires_grad=True)
        y = fake_quantize_learned(leaf if fused else leaf.relu(), scale, torch.tensor(zero), -8, 7, relu=fused)
        y.backward(gradient)
        results.append((y.detach(), leaf.grad, scale.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_fused_relu_per_channel():
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    scale, zero = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, -8, 4])
    a, b = (x.clone().requires_grad_() for _ in range(2))
    fake_quantize_learned(a, scale, zero, -8, 7, axis=0, relu=True).sum().backward()
    fake_quantize_learned(b.relu(), scale, zero, -8, 7, axis=0).sum().backward()
    assert torch.equal(a.grad, b.grad)


def test_memory_layouts_and_expanded_gradients_change_nothing():
    x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    gradients = [torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), torch.ones(()).expand(x.shape)]
    for gradient in gradients:
        found = []
        for layout in (torch.contiguous_format, torch.channels_last):
            for gradient_layout in (torch.contiguous_format, torch.channels_last):
                leaf = x.clone(memory_format=layout).requires_grad_()
                scale = torch.tensor(0.2, requires_grad=True)
                y = fake_quantize_learned(leaf, scale, torch.tensor(0), -8, 7)
                same = not gradient.is_contiguous()
                y.backward(gradient if same else gradient.contiguous(memory_format=gradient_layout))
                assert y.is_contiguous(memory_format=layout)
                found.append((y.detach(), leaf.grad, scale.grad))
        for other in found[1:]:
            assert torch.equal(other[0], found[0][0])
            assert torch.equal(other[1], found[0][1])
            torch.testing.assert_close(other[2], found[0][2], rtol=1e-4, atol=1e-6)


def test_nothing_is_changed_in_place():
    x, gradient = torch.randn(100), torch.randn(100)
    before = x.clone(), gradient.clone()
    leaf = x.requires_grad_()
    scale = torch.tensor(0.1, requires_grad=True)
    fake_quantize_learned(leaf, scale, torch.tensor(0), -8, 7).backward(gradient)
    assert torch.equal(x.detach(), before[0])
    assert torch.equal(gradient, before[1])


def test_lsq_gradient_scale():
    assert lsq_gradient_scale(100, 7) == 1 / math.sqrt(700)
    assert lsq_gradient_scale(0, 0) == 1.0
    x = torch.randn(6, 20)
    for axis, count in ((None, 120), (0, 20)):
        size = () if axis is None else (6,)
        found = []
        for factor in (None, lsq_gradient_scale(count, 7)):
            scale = torch.full(size, 0.1, requires_grad=True)
            y = fake_quantize_learned(x, scale, torch.zeros(size), -8, 7, axis=axis, gradient_scale=factor)
            y.sum().backward()
            found.append(scale.grad)
        assert torch.equal(*found)


def test_extreme_values():
    qparams = QParams(0.5, 1, -8, 7)
    x = torch.tensor([float("inf"), -float("inf"), 3e38, -3e38, 1e-45, float("nan")])
    assert fake_quantize(x, qparams)[:5].tolist() == [3.0, -4.5, 3.0, -4.5, 0.0]
    assert torch.isnan(fake_quantize(x, qparams)[5])
    assert fake_quantize(torch.zeros(0, 3), qparams).shape == (0, 3)
    leaf = torch.tensor(0.3, requires_grad=True)
    scale = torch.tensor(0.5, requires_grad=True)
    fake_quantize_learned(leaf, scale, torch.tensor(0), -8, 7).backward()
    assert float(leaf.grad) == 1.0


def test_a_learned_zero_point_is_rounded_half_to_even_and_kept_in_the_format():
    x = torch.linspace(-5, 5, 101)
    for learned, used in ((2.5, 2), (3.5, 4), (99.0, 7), (-99.0, -8)):
        a = fake_quantize_learned(x, torch.tensor(0.3), torch.tensor(learned), -8, 7)
        b = fake_quantize_learned(x, torch.tensor(0.3), torch.tensor(used), -8, 7)
        assert torch.equal(a, b)


def test_nothing_is_quantized_to_nothing():
    none = torch.zeros(2, 0)
    empty = fake_quantize_learned(none, torch.zeros(0), torch.zeros(0), -8, 7, axis=1)
    assert empty.shape == none.shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, dtype=torch.float16)}, "float32 or float64, got torch.float16"),
        ({"x": torch.zeros(3, dtype=torch.int32)}, "got torch.int32"),
        ({"scale": torch.tensor(0.0)}, "finite and positive"),
        ({"scale": torch.tensor(-1.0)}, "finite and positive"),
        ({"scale": torch.tensor(float("nan"))}, "finite and positive"),
        ({"scale": torch.tensor(float("inf"))}, "finite and positive"),
        ({"scale": torch.ones(2)}, "shape \\(\\) expected"),
        ({"zero_point": torch.ones(2)}, "shape \\(\\) expected"),
        ({"zero_point": torch.tensor(float("nan"))}, "zero point must be finite"),
        ({"axis": 1}, "no channel axis 1"),
        ({"axis": 0}, "shape \\(3,\\) expected"),
        ({"qmin": 7}, "below qmax"),
        ({"scale": 0.1}, "are tensors"),
        ({"scale": torch.tensor(0.1, dtype=torch.float64)}, "dtype of the values, torch.float32: got torch.float64"),
        ({"scale": torch.tensor(1)}, "got torch.int64"),
    ],
)
def test_bad_input_is_refused(change, message):
    good = {"x": torch.zeros(3), "scale": torch.tensor(0.1), "zero_point": torch.tensor(0), "qmin": -8, "qmax": 7}
    with pytest.raises(NumbersError, match=message):
        fake_quantize_learned(**{**good, **change})
