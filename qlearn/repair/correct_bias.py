"""Bias correction: quantized weights shift the mean of a layer's output; the bias takes the shift back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from qlearn.errors import CalibrationError
from qlearn.graph.fuse import fuse_activations
from qlearn.graph.ops import FLOAT_OPS, channel_axis
from qlearn.numbers.affine import dequantize
from qlearn.pipeline.observe import input_of
from qlearn.pipeline.quantize import bias_codes, quantize_model
from qlearn.pipeline.simulate import _quantized, _real, _run_layer
from qlearn.progress import progress


def correct_bias_empirical(model, recipe, table, batches):
    fused = fuse_activations(model)
    quantized = quantize_model(model, recipe, table)
    inputs = [input_of(b) for b in batches]
    biases = {}
    floats = {}
    fl = {fused.nodes[0].name: inputs}
    values = {}
    readers = fused.reader_counts(); readers2 = dict(readers)
    by = {l.node.name: l for l in quantized.layers}
    corrected = {}
    with torch.no_grad():
        for node, layer in zip(fused.nodes, quantized.layers):
            if node.op == "input":
                fl[node.name] = inputs
                values[node.name] = [_quantized(x.float(), layer.output) for x in inputs]
                continue
            if "weight" in node.params and node.op in ("conv2d", "linear") and layer.weight is not None:
                w = dequantize(layer.weight, layer.weight_qparams)
                pre_q = replace(node, params={**node.params, "weight": w}, attrs={**node.attrs, "clamp": None})
                pre_f = replace(node, attrs={**node.attrs, "clamp": None})
                src = node.inputs[0]
                n = sum(len(x) for x in inputs)
                tot = 0
                for xf, xq in zip(fl[src], values[src]):
                    f = FLOAT_OPS[node.op](pre_f, [xf])
                    q = FLOAT_OPS[node.op](pre_q, [_real(by[src], xq)])
                    d = (f - q)
                    ax = channel_axis(d.ndim) % d.ndim
                    tot = tot + d.double().mean(dim=[i for i in range(d.ndim) if i != ax]) * len(xf)
                shift = (tot / n).float()
                b = node.params.get("bias", torch.zeros_like(shift)) + shift
                corrected[node.name] = b
                x = by[src].output
                layer = replace(layer, node=replace(node, params={**node.params, "bias": b}), bias=bias_codes(b.numpy(), x.scale, layer.weight_qparams.scale) if x is not None else None)
                by[node.name] = layer
            values[node.name] = [_run_layer(layer, [(by[s], values[s][i]) for s in node.inputs]) for i in range(len(inputs))]
            fl[node.name] = [FLOAT_OPS[node.op](node, [fl[s][i] for s in node.inputs]) for i in range(len(inputs))]
            for s in node.inputs:
                readers[s] -= 1
                if readers[s] == 0:
                    del values[s], fl[s]
    return model.with_nodes(replace(n, params={**n.params, "bias": corrected[n.name]}) if n.name in corrected else n for n in model.nodes)
