"""Bad pictures are refused by every repair that reads them, and good ones come back as they were."""

import pytest
import torch
from networks import make, pictures

import qlearn as ql
from qlearn.errors import CalibrationError, GraphError

RECIPE = ql.Recipe()


@pytest.fixture(scope="module")
def case():
    network = ql.fold_batch_norm(ql.trace(make("depthwise", 0), pictures(1)))
    return network, ql.calibrate(network, [pictures(4)], RECIPE)


REPAIRS = {
    "adaround": lambda network, table, data: ql.adaround(network, RECIPE, table, data, iterations=1, samples=20),
    "correct_bias": lambda network, table, data: ql.correct_bias(network, RECIPE, table, data),
    "equalize_noise": lambda network, _table, data: ql.equalize_noise(network, RECIPE, data, steps=1),
}


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=REPAIRS)
def test_bad_pictures_are_refused(case, repair):
    x = pictures(4)
    spoilt = x.clone()
    spoilt[1, 2, 3, 4] = float("nan")
    with pytest.raises(CalibrationError, match=f"1 of {x.numel()} values of batch 1 are NaN or Inf"):
        repair(*case, [x, spoilt])
    for bad in (x[:0], x[0], x[..., :-1], (x * 0).to(torch.uint8)):
        with pytest.raises(GraphError, match="takes a"):
            repair(*case, [x, bad])
    with pytest.raises(CalibrationError, match="no batches"):
        repair(*case, [])


@pytest.mark.parametrize("repair", REPAIRS.values(), ids=REPAIRS)
def test_pictures_are_not_changed(case, repair):
    x = pictures(4)
    before = x.clone()
    repair(*case, [x])
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_pictures_with_gradients_are_read_like_others(case):
    network, table = case
    x = pictures(4)
    quantized = ql.quantize_model(network, RECIPE, table)
    assert str(ql.analyze(quantized, [x.clone().requires_grad_()])) == str(ql.analyze(quantized, [x]))
