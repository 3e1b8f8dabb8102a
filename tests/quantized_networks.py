"""Small quantized networks that the tests of the analysis share."""

import warnings

from networks import make, pictures

import qlearn as ql
from qlearn.errors import FallbackWarning

PER_TENSOR = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))
FOUR_BITS = ql.Recipe(
    activations=ql.TensorRecipe(scheme="affine", bits=4, calibrator="percentile", calibrator_params={"percent": 98.0}),
    weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=4),
)


def quantized_network(name="residual", recipe=PER_TENSOR, seed=0):
    """Return a folded float network and its quantized self."""
    net = ql.fold_batch_norm(ql.trace(make(name, seed), pictures(1), name=name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return net, ql.quantize_model(net, recipe, ql.calibrate(net, [pictures(8)], recipe))


def layer_of(quantized, name):
    """Return the layer of that name."""
    return next(layer for layer in quantized.layers if layer.node.name == name)
