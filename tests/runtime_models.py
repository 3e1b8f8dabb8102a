"""One layer, or one file, in LiteRT and in ONNX Runtime. Import it only where these are installed."""

import numpy as np

from qlearn.export.litert_build import FROM_FILE, TO_FILE, LiteBuilder
from qlearn.export.litert_layers import emit
from qlearn.export.litert_write import lite_bytes
from qlearn.export.onnx_build import OnnxBuilder, OnnxEnd, Site
from qlearn.export.onnx_layers import emit as emit_onnx
from qlearn.export.onnx_write import onnx_bytes
from qlearn.integer.elementwise import unsigned_offset

KINDS = {"litert_reference": "BUILTIN_REF", "xnnpack": "AUTO"}


def interpreter(content, profile, **options):
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kind = getattr(OpResolverType, KINDS[profile])
    made = Interpreter(model_content=content, experimental_op_resolver_type=kind, num_threads=1, **options)
    made.allocate_tensors()
    return made


def to_file(x):
    return np.ascontiguousarray(x.transpose(TO_FILE)) if x.ndim == 4 else x


def from_file(x):
    return x.transpose(FROM_FILE) if x.ndim == 4 else x


def litert_layer(layer, inputs, shape, profile):
    """The codes that LiteRT gives for one layer."""
    builder = LiteBuilder()
    sites = [builder.site(name, x.shape, q, name) for name, (x, q) in zip(layer.inputs, inputs, strict=True)]
    output = emit(builder, layer, sites, shape)
    made = interpreter(lite_bytes(builder.graph(sites, [output])), profile)
    for detail, (x, _) in zip(made.get_input_details(), inputs, strict=True):
        made.set_tensor(detail["index"], to_file(x))
    made.invoke()
    return from_file(made.get_tensor(made.get_output_details()[0]["index"]))


def session(content, optimized=True):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def to_uint8(codes, q):
    """Codes of ours as an ONNX file has them."""
    return (codes.astype(np.int16) + unsigned_offset(q)).astype(np.uint8)


def from_uint8(codes, q):
    return (codes.astype(np.int16) - unsigned_offset(q)).astype(q.dtype)


def onnx_layer(layer, inputs, shape):
    """The codes that ONNX Runtime gives for one layer."""
    builder = OnnxBuilder()
    sites = [
        Site(builder.unique(f"{name}:codes"), x.shape, q) for name, (x, q) in zip(layer.inputs, inputs, strict=True)
    ]
    output = emit_onnx(builder, layer, sites, shape).codes
    ends = [OnnxEnd(site.codes, "uint8", site.shape[1:]) for site in sites]
    graph = builder.graph(ends, [OnnxEnd(output, "uint8", shape[1:])])
    feeds = {site.codes: to_uint8(x, q) for site, (x, q) in zip(sites, inputs, strict=True)}
    return from_uint8(session(onnx_bytes(graph, "layer", {})).run(None, feeds)[0], layer.output)
