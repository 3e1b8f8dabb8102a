"""Networks that were trained to be quantized: packed, shipped, read again."""

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.errors import MissingDataError, ModelFileError
from qlearn.pipeline.qat.model import convert
from qlearn.pipeline.qat.prepare import prepare_qat
from qlearn.zoo.bundled import parse_sums, read_asset_bytes
from qlearn.zoo.qat import available_qat, find_qat, load_qat, packed_state, unpack_state

SHIPPED = [
    e.name
    for e in available_qat()
    if f"{e.name}.npz" in parse_sums(read_asset_bytes.__globals__["_read"]("SHA256SUMS").decode())
]


@pytest.mark.parametrize("granularity", ["per_tensor", "per_channel"])
def test_packed_and_unpacked_it_has_the_same_integers(granularity):
    recipe = ql.Recipe(
        weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=4, granularity=granularity, calibrator="mse")
    )
    model, data = ql.load("tiny_mobilenet")
    table = ql.calibrate(ql.fold_batch_norm(model), data.calibration, recipe)
    qat = prepare_qat(model, recipe, table)
    optimizer = torch.optim.SGD(qat.parameters(), lr=0.01)
    x, _ = next(iter(data.calibration))
    for _ in range(2):
        qat(x).square().mean().backward()
        optimizer.step()
    packed = packed_state(qat)
    assert all(value.dtype == np.int8 for key, value in packed.items() if key.endswith("conv/weight"))
    assert sum(v.nbytes for v in packed.values()) < 0.5 * sum(v.nbytes for v in qat.state_dict().values())
    other = prepare_qat(model, recipe)
    unpack_state(other, packed, "test")
    a, b = convert(qat), convert(other)
    for ours, theirs in zip(a.layers, b.layers, strict=True):
        assert ours.output == theirs.output
        if ours.weight is not None:
            assert np.array_equal(ours.weight, theirs.weight)
            assert ours.weight_qparams == theirs.weight_qparams
            assert np.array_equal(ours.bias, theirs.bias)
    assert torch.equal(a(x[:10]), b(x[:10]))


def test_what_does_not_fit_is_refused():
    qat = find_qat("tiny_mobilenet_w8a8").untrained()
    with pytest.raises(ModelFileError, match="the file does not fit"):
        unpack_state(qat, {"weight": np.zeros(2)}, "the file")
    plain = {key: value.numpy() for key, value in qat.state_dict().items()}
    with pytest.raises(ModelFileError, match="not codes"):
        unpack_state(qat, {**plain, **{k: np.ones_like(v) for k, v in plain.items() if k.endswith("started")}}, "it")
    with pytest.raises(MissingDataError, match="did you mean 'resnet20_w4a4'"):
        load_qat("resnet20_w4a5")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_run_on_integers(name):
    """The codes of simulation and integers are equal at every site, on random pictures."""
    qat = load_qat(name)
    x = torch.randn(4, *qat.graph.input_shape, generator=torch.Generator().manual_seed(0))
    quantized = convert(qat)
    integers = quantized.to_integer("float32").codes(x.numpy())
    assert all(np.array_equal(codes.numpy(), integers[site]) for site, codes in quantized.codes(x).items())


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("tiny")])
def test_shipped_digits_networks_are_as_accurate_as_logged(name):
    import json
    from pathlib import Path

    log = json.loads((Path(__file__).parents[1] / "tools" / "logs" / f"{name}.json").read_text())
    _, data = ql.load("tiny_mobilenet")
    integer = convert(load_qat(name)).to_integer("float32").with_engine("torch")
    assert ql.evaluate(integer, data.evaluation).accuracy == log["rows"]["QAT"]
