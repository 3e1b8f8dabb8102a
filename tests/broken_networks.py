"""Networks that are broken on purpose: one fault each, planted the way it happens to people."""

import warnings
from dataclasses import dataclass, field, replace

import numpy as np
import torch

import qlearn as ql
from qlearn.errors import FallbackWarning
from qlearn.graph.fold import fold_batch_norm
from qlearn.graph.preprocess import Preprocess
from qlearn.numbers.affine import dequantize
from qlearn.zoo.data import Dataset

PER_TENSOR = ql.Recipe(weights=ql.TensorRecipe(scheme="symmetric_restricted"))


@dataclass(frozen=True)
class Broken:
    """What goes into `diagnose`, and what should come out."""

    model: object
    data: object
    fault: str
    site: str | None = None
    more: dict = field(default_factory=dict)

    def diagnose(self, **more):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            return ql.diagnose(self.model, self.data, **{"images": 32, "measure": False, **self.more, **more})


def load(name, calibration=48):
    """A network and its pictures, few of them for calibration."""
    net, data = ql.load(name)
    return net, replace(data, calibration=data.calibration.subset(calibration))


def start(name, calibration=48):
    """A network, its data, and the same folded with its table."""
    net, data = load(name, calibration)
    folded = fold_batch_norm(net)
    return net, data, folded, ql.calibrate(folded, data.calibration, ql.Recipe())


def pairs(dataset, change=lambda x: x, shift=0, count=64):
    """Batches with the pictures or the labels changed."""
    return [(change(x), labels + shift) for x, labels in dataset.subset(min(count, len(dataset)))]


def scaled(table, site, factor):
    """The table with the range of one site changed."""
    return {**table, site: ql.ClipRange(table[site].lo * factor, table[site].hi * factor)}


def dead_channels(name):
    """As in MobileNet: a convolution with zero weights, and a depthwise one behind it with variance 0."""
    net, data = load(name)
    expand, norm1, depthwise, norm2 = (f"blocks.2.{part}" for part in ("expand", "bn1", "depthwise", "bn2"))

    def changed(node):
        params = {key: value.clone() for key, value in node.params.items()}
        if node.name == expand:
            params["weight"][3] = 0.0
        if node.name == norm1:
            params["bias"][3], params["running_mean"][3] = -0.5, 0.0
        if node.name == norm2:
            params["running_mean"][3], params["running_var"][3] = 0.0, 0.0
        return replace(node, params=params)

    return Broken(net.with_nodes(map(changed, net.nodes)), data, "dead_channels", depthwise, {"recipe": PER_TENSOR})


def unequal_channels(name):
    """Half of the channels of one layer written 200 times larger, and read 200 times smaller: the same function."""
    _, data, folded, _ = start(name)
    classes = [node for node in folded.nodes if node.op == "conv2d"]
    first, second = classes[1], classes[2]  # a convolution that only the next one reads, with a ReLU between them
    factor = torch.ones(len(first.params["weight"]))
    factor[::4] = 200.0

    def changed(node):
        if node.name == first.name:
            params = {
                "weight": node.params["weight"] * factor.reshape(-1, 1, 1, 1),
                "bias": node.params["bias"] * factor,
            }
            return node.with_weights(**params)
        return (
            node.with_weights(weight=node.params["weight"] / factor.reshape(1, -1, 1, 1))
            if node.name == second.name
            else node
        )

    return Broken(folded.with_nodes(map(changed, folded.nodes)), data, "unequal_channels", None, {"recipe": PER_TENSOR})


def unfolded(name):
    net, data, *_ = start(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        quantized = ql.quantize_model(net, ql.Recipe(), ql.calibrate(net, data.calibration, ql.Recipe()))
    return Broken(quantized, data, "unfolded_batch_norm")


def tinted(name):
    """A network that was trained on tinted pictures: its batch norms are measured anew on them."""
    net, data = load(name, 256)
    gain, offset = (torch.tensor(v).reshape(3, 1, 1) for v in ((1.2, 1.0, 0.6), (0.8, 0.0, -0.8)))

    def tint(x):
        return x * gain + offset

    x = torch.cat([images for images, _ in data.calibration.subset(128)])
    first = next(node for node in net.nodes if node.op == "batch_norm")
    seen = net.with_nodes(net.nodes, output=first.inputs[0])(tint(x))
    params = {**first.params, "running_mean": seen.mean((0, 2, 3)), "running_var": seen.var((0, 2, 3))}
    net = net.with_nodes(replace(node, params=params) if node is first else node for node in net.nodes)
    return replace(net, preprocess=None), data, tint


def swapped_colours(name):
    net, data, tint = tinted(name)
    calibration = [images for images, _ in pairs(data.calibration, tint)]
    return Broken(net, pairs(data.evaluation, lambda x: tint(x).flip(1)), "swapped_colours", "pictures",
                  {"calibration": calibration})  # fmt: skip


def wrong_preprocessing(mean, std):
    """The data set normalises otherwise than the network was trained."""

    def make(name):
        net, data = load(name)
        rule = Preprocess(net.preprocess.size, (mean,) * 3, (std,) * 3)
        evaluation = Dataset("wrong", data.evaluation.source, rule, data.evaluation.labels)
        return Broken(net, replace(data, evaluation=evaluation), "wrong_normalisation", "pictures")

    return make


def wrong_statistics(change):
    """The same, told from the numbers alone: calibrated and evaluated on pictures that are prepared in another way."""

    def make(name):
        net, data = load(name)
        return Broken(net, pairs(data.evaluation, change), "wrong_normalisation", None,
                      {"calibration": [x for x, _ in pairs(data.calibration, change)]})  # fmt: skip

    return make


def to_pixels(x):
    return ((x * 0.25 + 0.5) * 255).round()


def raw_pixels(name):
    net, data = load(name)
    return Broken(net, pairs(data.evaluation, to_pixels), "raw_pixels", None, {"calibration": data.calibration})


def codes_as_input(name):
    _, data, folded, table = start(name)
    quantized = ql.quantize_model(folded, ql.Recipe(), table)
    qp = quantized.layers[0].output
    return Broken(quantized, pairs(data.evaluation, lambda x: ql.quantize(x, qp).float()), "codes_as_input", "pictures")


def codes_as_output(name):
    _, data, folded, table = start(name)
    integer = ql.quantize_model(folded, ql.Recipe(), table).to_integer()
    pictures = data.evaluation.subset(40)
    x = torch.cat([images for images, _ in pictures])
    return Broken(integer, pictures, "codes_as_output", "outputs",
                  {"reference": folded, "outputs": integer.run(x.numpy()).astype(np.float32)})  # fmt: skip


def range_times(factor, fault, place):
    """One entry of the calibration table is off."""

    def make(name):
        _, data, folded, table = start(name)
        site = [node.name for node in folded.nodes if node.op == "conv2d"][place]
        return Broken(folded, data, fault, site, {"table": scaled(table, site, factor)})

    return make


def saturated(name):
    _, data, folded, table = start(name)
    table = scaled(table, folded.output, 0.15)
    return Broken(ql.quantize_model(folded, ql.Recipe(), table).to_integer(), data, "saturated_logits", folded.output,
                  {"reference": folded})  # fmt: skip


def saturated_alone(name):
    """The same model without its float network: what a .qlearn file is."""
    return replace(saturated(name), more={}, site="outputs")


def one_class(name):
    net, data = load(name, 256)
    same = data.calibration.subset(np.flatnonzero(data.calibration.labels == 3))
    return Broken(net, replace(data, calibration=same), "few_classes", "calibration")


def few_pictures(name):
    net, data = load(name)
    return Broken(net, replace(data, calibration=data.calibration.subset(4)), "few_pictures", "calibration")


def twice(name):
    """Quantized per tensor, dequantized, and quantized again per channel."""
    _, data, folded, table = start(name)
    before = {layer.node.name: layer for layer in ql.quantize_model(folded, PER_TENSOR, table).layers}

    def rounded(node):
        layer = before.get(node.name)
        return node if layer is None or layer.weight is None else replace(
            node, params={**node.params, "weight": dequantize(layer.weight, layer.weight_qparams)})  # fmt: skip

    return Broken(folded.with_nodes(map(rounded, folded.nodes)), data, "quantized_twice")


def before_relu(name):
    """A range that was observed at the convolution, before its ReLU."""
    _, data, folded, table = start(name)
    site = next(node.inputs[0] for node in folded.nodes if node.op == "clamp" and node.inputs[0] in table)
    values = []
    for x, _ in data.calibration:
        folded(x, lambda node, value: values.append(value) if node.name == site else None)
    low, high = (float(end) for end in torch.cat(values).aminmax())
    return Broken(folded, data, "observed_before_relu", site, {"table": {**table, site: ql.ClipRange(low, high)}})


def few_bits(name):
    _, data, folded, _ = start(name)
    site = [node.name for node in folded.nodes if node.op == "conv2d"][2]
    recipe = ql.Recipe().with_layer(site, weights=ql.TensorRecipe(scheme="symmetric_restricted", bits=3))
    return Broken(folded, data, "few_bits", site, {"recipe": recipe})


def with_layer(quantized, site, change):
    """A quantized network in which one layer is another."""
    layers = [replace(layer, **change(layer)) if layer.node.name == site else layer for layer in quantized.layers]
    return replace(quantized, layers=tuple(layers))


def bias(change):
    """A bias that another program has stored with too few bits."""

    def make(name):
        _, data, folded, table = start(name)
        site = [node.name for node in folded.nodes if node.op == "conv2d"][1]
        quantized = ql.quantize_model(folded, ql.Recipe(), table)
        broken = with_layer(quantized, site, lambda layer: {"bias": change(layer.bias)})
        return Broken(broken, data, "coarse_bias", site)

    return make


def bias_of_integers(name):
    """The same in a saved model, examined beside its float network."""
    broken = bias(lambda codes: (codes * 16).astype(np.int32))(name)
    return replace(broken, model=broken.model.to_integer(), more={"reference": ql.load(name)[0]})


def four_bits(codes):
    """Four bits for the whole bias vector."""
    step = max(np.abs(codes).max() / 7, 1)
    return (np.rint(codes / step) * step).astype(np.int32)


def overflow(codes):
    """Wrapped around as 12-bit integers wrap."""
    return ((codes + 2**11) % 2**12 - 2**11).astype(np.int32)


def in_float(name):
    """A layer without an integer kernel in the middle."""
    net, data = load(name)
    site = next(node.name for node in net.nodes if node.op == "global_avg_pool")

    def changed(node):
        if node.name != site:
            return node
        attrs = {
            "function": lambda x: x.amax((2, 3), keepdim=True) * 0 + x.mean((2, 3), keepdim=True),
            "reason": "my own",
        }
        return replace(node, op="float", attrs=attrs)

    return Broken(net.with_nodes(map(changed, net.nodes)), data, "float_layer", site)


def shifted_labels(name):
    net, data = load(name)
    return Broken(net, pairs(data.evaluation, shift=1), "labels_shifted", "labels", {"calibration": data.calibration})


def negated(name):
    """The weights of one layer with the wrong sign: no known fault, but no answer either."""
    _, data, folded, table = start(name)
    site = [node.name for node in folded.nodes if node.op == "conv2d"][1]
    quantized = ql.quantize_model(folded, ql.Recipe(), table)
    return Broken(with_layer(quantized, site, lambda layer: {"weight": -layer.weight}), data, "unexplained_loss")


BROKEN = {
    "dead channels own a per-tensor range": (dead_channels, "tiny_mobilenet"),
    "unequal channels under one scale": (unequal_channels, "tiny_resnet"),
    "batch norms not folded": (unfolded, "tiny_resnet"),
    "colours swapped": (swapped_colours, "tiny_resnet"),
    "mean 0.485 and std 0.229 instead of 0.5 and 0.25": (wrong_preprocessing(0.485, 0.229), "tiny_mobilenet"),
    "numbers from 0 to 1, not normalised": (wrong_statistics(lambda x: x * 0.25 + 0.5), "tiny_mobilenet"),
    "numbers from 0 to 255, not whole": (wrong_statistics(lambda x: (x * 0.25 + 0.5) * 255 + 0.25), "tiny_resnet"),
    "std of 0.5 instead of 0.25": (wrong_statistics(lambda x: x / 2), "tiny_resnet"),
    "mean not subtracted": (wrong_statistics(lambda x: x + 2), "tiny_mobilenet"),
    "raw pixels": (raw_pixels, "tiny_resnet"),
    "codes fed as real numbers": (codes_as_input, "tiny_resnet"),
    "codes read as real outputs": (codes_as_output, "tiny_mobilenet"),
    "range of one layer x100": (range_times(100, "range_too_wide", 2), "tiny_resnet"),
    "range of one layer x100, ReLU6": (range_times(100, "range_too_wide", 4), "tiny_mobilenet"),
    "range of one layer /10": (range_times(0.1, "range_too_narrow", 2), "tiny_resnet"),
    "logits saturate": (saturated, "tiny_resnet"),
    "logits saturate, no float network": (saturated_alone, "tiny_mobilenet"),
    "calibrated on one class": (one_class, "tiny_mobilenet"),
    "calibrated on four pictures": (few_pictures, "tiny_resnet"),
    "weights quantized twice": (twice, "tiny_mobilenet"),
    "observed before the ReLU": (before_relu, "tiny_resnet"),
    "one layer at 3 bits": (few_bits, "tiny_mobilenet"),
    "biases of 4 bits": (bias(four_bits), "tiny_resnet"),
    "biases that wrapped": (bias(overflow), "tiny_mobilenet"),
    "biases in another unit, in a saved model": (bias_of_integers, "tiny_resnet"),
    "a layer in float": (in_float, "tiny_resnet"),
    "weights of one layer negated": (negated, "tiny_resnet"),
    "labels shifted by one": (shifted_labels, "tiny_mobilenet"),
}
"""What is broken, how, and in which network."""
