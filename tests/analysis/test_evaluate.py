"""Accuracy, agreement and SQNR against counting by hand."""

import math

import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.errors import DataError, QLearnError


def model(x):
    return x


LOGITS = torch.tensor([[1.0, 2.0, 0.0], [5.0, 1.0, 1.0], [0.0, 0.0, 9.0], [1.0, 3.0, 2.0]])
LABELS = torch.tensor([1, 0, 0, 1])


def test_counts_by_hand():
    reference = LOGITS.clone()
    reference[0] = torch.tensor([3.0, 2.0, 0.0])
    result = ql.evaluate(model, [(LOGITS[:3], LABELS[:3]), (LOGITS[3:], LABELS[3:])], reference=reference.numpy())
    assert (result.images, result.accuracy, result.agreement) == (4, 0.75, 0.75)
    assert result.sqnr_db == pytest.approx(10 * math.log10(float((reference**2).sum()) / 4.0))
    assert "accuracy 75.0%, agreement with float 75.0%, SQNR" in str(result)


def test_a_reference_network_is_run_on_the_same_data():
    result = ql.evaluate(model, [(LOGITS, LABELS)], reference=lambda x: x)
    assert (result.agreement, result.sqnr_db) == (1.0, math.inf)
    assert result.to_dict()["sqnr_db"] is None


def test_without_labels_there_is_no_accuracy():
    for dataset in ([LOGITS], [(LOGITS, None)]):
        result = ql.evaluate(model, dataset)
        assert result.accuracy is None
        assert "accuracy" not in str(result)


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="no pictures"):
        ql.evaluate(model, [])
    with pytest.raises(DataError, match=r"4 pictures, but labels of shape \(3,\)"):
        ql.evaluate(model, [(LOGITS, LABELS[:3])])
    with pytest.raises(DataError, match="the reference has logits of shape"):
        ql.evaluate(model, [(LOGITS, LABELS)], reference=np.zeros((4, 5), np.float32))


def test_sqnr():
    assert ql.sqnr_db([0.0], [0.0]) == math.inf
    assert ql.sqnr_db([0.0], [1.0]) == -math.inf
    assert ql.sqnr_db(torch.ones(3), torch.zeros(3)) == 0.0
    with pytest.raises(QLearnError, match="equal shapes"):
        ql.sqnr_db([1.0], [1.0, 2.0])


def test_each_bit_buys_six_decibels():
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0)).clamp(-3, 3)
    noise = [
        ql.sqnr_db(x, ql.fake_quantize(x, ql.scheme("affine", bits=bits).qparams(ql.ClipRange(-3, 3))))
        for bits in (6, 7, 8, 9, 10)
    ]
    assert np.allclose(np.diff(noise), 6.02, atol=0.15)
