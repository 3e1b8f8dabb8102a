"""Packed codes against plain Python: a string of bits, cut into bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qlearn as ql
from qlearn.errors import KernelError
from qlearn.integer.packing import pack_codes, packed_size, unpack_codes

FORMATS = [("symmetric_restricted", True), ("affine", True), ("affine", False)]


def by_hand(codes, qparams):
    """The same bytes from a string of zeros and ones."""
    bits = "".join(format(int(code) - qparams.qmin, f"0{qparams.bits}b") for code in codes)
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


@given(st.integers(2, 16), st.sampled_from(FORMATS), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_every_width_packs_without_gaps_and_comes_back(bits, kind, count, seed):
    name, signed = kind
    qparams = ql.scheme(name, bits=bits, signed=signed or name != "affine").qparams(ql.ClipRange(-1.0, 1.0))
    codes = np.random.default_rng(seed).integers(qparams.qmin, qparams.qmax + 1, count)
    packed = pack_codes(codes, qparams)
    assert packed.dtype == np.uint8
    assert packed.tolist() == by_hand(codes, qparams)
    assert len(packed) == packed_size(count, bits) == -(-count * bits // 8)
    back = unpack_codes(packed, qparams, (count,))
    assert back.dtype == qparams.dtype
    assert (back == codes).all()


def test_shapes_and_bad_input():
    qparams = ql.QParams(1.0, 0, -3, 3)
    codes = np.arange(-3, 3).reshape(2, 3)
    assert (unpack_codes(pack_codes(codes, qparams), qparams, (2, 3)) == codes).all()
    with pytest.raises(KernelError, match="do not fit in"):
        pack_codes([4], qparams)
    with pytest.raises(KernelError, match="takes integers"):
        pack_codes([0.5], qparams)
    with pytest.raises(KernelError, match="at most 16 bits"):
        pack_codes([0], ql.QParams(1.0, 0, -(2**20), 2**20))
    with pytest.raises(KernelError, match="are 3 bytes"):
        unpack_codes(np.zeros(2, np.uint8), qparams, (6,))
    with pytest.raises(KernelError, match=r"shape \(-2, -3\)"):
        unpack_codes(np.zeros(3, np.uint8), qparams, (-2, -3))
    with pytest.raises(KernelError, match="something else"):
        unpack_codes(np.full(3, 255, np.uint8), qparams, (6,))  # 7 is above qmax = 3 once qmin is added


def test_a_model_says_both_sizes():
    network = ql.fold_batch_norm(ql.load("tiny_resnet")[0])
    x = [ql.load("tiny_resnet")[1].calibration.subset(8)]
    weights = ql.TensorRecipe(scheme="symmetric_restricted", granularity="per_channel", bits=3)
    recipe = ql.Recipe(weights=weights)
    model = ql.quantize_model(network, recipe, ql.calibrate(network, x[0], recipe)).to_integer()
    packed = stored = 0
    for layer in model.layers:
        if layer.weight is not None:
            packed += len(pack_codes(layer.weight, layer.weight_qparams)) + layer.bias.nbytes
            stored += layer.weight.size + layer.bias.nbytes
    assert model.packed_bytes == packed
    assert model.weight_bytes == stored
