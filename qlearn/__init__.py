"""qlearn: learn to quantize convolutional networks to 8 bits.

The public face. Names are resolved when they are first used, so that ``qlearn --help`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ActivationStudy": "qlearn.analysis.activations",
    "Allocation": "qlearn.analysis.mixed_precision.choices",
    "CalibrationTable": "qlearn.pipeline.calibrate",
    "Calibrator": "qlearn.calibrators.spec",
    "CalibratorSpec": "qlearn.calibrators.spec",
    "Choice": "qlearn.analysis.mixed_precision.choices",
    "ChoiceLogits": "qlearn.analysis.mixed_precision.logits",
    "ClipRange": "qlearn.numbers.qparams",
    "Comparison": "qlearn.analysis.compare",
    "Diagnosis": "qlearn.analysis.doctor.finding",
    "Engine": "qlearn.engines.spec",
    "EngineSpec": "qlearn.engines.spec",
    "ErrorBudget": "qlearn.analysis.budget",
    "Evaluation": "qlearn.analysis.evaluate",
    "Finding": "qlearn.analysis.doctor.finding",
    "FloatModel": "qlearn.graph.model",
    "IntegerModel": "qlearn.integer.model",
    "Landscape": "qlearn.analysis.landscape",
    "LayerRecipe": "qlearn.pipeline.recipe",
    "LayerTable": "qlearn.analysis.layers",
    "ParetoFront": "qlearn.analysis.mixed_precision.search",
    "Preprocess": "qlearn.graph.preprocess",
    "QATModel": "qlearn.pipeline.qat.model",
    "QParams": "qlearn.numbers.qparams",
    "QuantizedModel": "qlearn.pipeline.simulate",
    "Recipe": "qlearn.pipeline.recipe",
    "Resource": "qlearn.analysis.mixed_precision.resources",
    "Scheme": "qlearn.schemes.base",
    "SchemeSpec": "qlearn.schemes.base",
    "Sensitivity": "qlearn.analysis.sensitivity",
    "StreamingHistogram": "qlearn.numbers.histogram",
    "TensorRecipe": "qlearn.pipeline.recipe",
    "Trait": "qlearn.calibrators.spec",
    "absorb_high_bias": "qlearn.graph.high_bias",
    "activation_study": "qlearn.analysis.activations",
    "adaround": "qlearn.repair.adaround",
    "analyze": "qlearn.analysis.layers",
    "bit_operations": "qlearn.analysis.mixed_precision.resources",
    "calibrate": "qlearn.pipeline.calibrate",
    "calibrate_many": "qlearn.pipeline.calibrate",
    "calibrate_without_pictures": "qlearn.pipeline.without_pictures",
    "calibration_size_curve": "qlearn.analysis.calibration_data",
    "calibrator": "qlearn.registry",
    "check": "qlearn.classroom.exercises",
    "check_calibrator": "qlearn.testing",
    "check_environment": "qlearn.classroom.environment",
    "check_scheme": "qlearn.testing",
    "compare_calibration_sets": "qlearn.analysis.calibration_data",
    "compare_calibrators": "qlearn.analysis.compare",
    "convert": "qlearn.pipeline.qat.model",
    "correct_bias": "qlearn.repair.correct_bias",
    "cross_layer_equalize": "qlearn.graph.equalize",
    "dead_channels": "qlearn.graph.dead",
    "dequantize": "qlearn.numbers.affine",
    "diagnose": "qlearn.analysis.doctor.diagnose",
    "distill_pictures": "qlearn.pipeline.distill",
    "engine": "qlearn.registry",
    "equalize_noise": "qlearn.repair.equalize_noise",
    "error_budget": "qlearn.analysis.budget",
    "evaluate": "qlearn.analysis.evaluate",
    "export_litert": "qlearn.export.litert",
    "export_onnx": "qlearn.export.onnx",
    "fake_quantize": "qlearn.numbers.affine",
    "fake_quantize_learned": "qlearn.numbers.straight_through",
    "fold_batch_norm": "qlearn.graph.fold",
    "fuse_activations": "qlearn.graph.fuse",
    "hessian_costs": "qlearn.analysis.mixed_precision.hessian",
    "hessian_traces": "qlearn.analysis.mixed_precision.hessian",
    "hookimpl": "qlearn.hookspecs",
    "import_litert": "qlearn.export.litert_import",
    "load": "qlearn.zoo.load",
    "load_checkpoint": "qlearn.pipeline.checkpoint",
    "load_qat": "qlearn.zoo.qat",
    "loss_landscape": "qlearn.analysis.landscape",
    "measure_choices": "qlearn.analysis.mixed_precision.measure",
    "pareto_front": "qlearn.analysis.mixed_precision.search",
    "plugins": "qlearn.registry",
    "prepare_qat": "qlearn.pipeline.qat.prepare",
    "quantize": "qlearn.numbers.affine",
    "quantize_model": "qlearn.pipeline.quantize",
    "reestimate_batch_norm": "qlearn.pipeline.qat.prepare",
    "register": "qlearn.registry",
    "repair_ladder": "qlearn.analysis.ladder",
    "round_to_float16": "qlearn.graph.half",
    "save_checkpoint": "qlearn.pipeline.checkpoint",
    "scheme": "qlearn.registry",
    "search_bits": "qlearn.analysis.mixed_precision.search",
    "select_calibration_set": "qlearn.pipeline.select",
    "sensitivity": "qlearn.analysis.sensitivity",
    "sqnr_db": "qlearn.analysis.metrics",
    "trace": "qlearn.graph.trace",
    "unregister": "qlearn.registry",
    "weight_bytes": "qlearn.analysis.mixed_precision.resources",
    "with_activation": "qlearn.analysis.activations",
    "zero_dead_inputs": "qlearn.graph.dead",
}

__all__ = [*sorted(_HOMES)]  # noqa: PLE0604  (strings, one per name)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'qlearn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


if TYPE_CHECKING:
    from qlearn.analysis.activations import ActivationStudy, activation_study, with_activation
    from qlearn.analysis.budget import ErrorBudget, error_budget
    from qlearn.analysis.calibration_data import calibration_size_curve, compare_calibration_sets
    from qlearn.analysis.compare import Comparison, compare_calibrators
    from qlearn.analysis.doctor.diagnose import diagnose
    from qlearn.analysis.doctor.finding import Diagnosis, Finding
    from qlearn.analysis.evaluate import Evaluation, evaluate
    from qlearn.analysis.ladder import repair_ladder
    from qlearn.analysis.landscape import Landscape, loss_landscape
    from qlearn.analysis.layers import LayerTable, analyze
    from qlearn.analysis.metrics import sqnr_db
    from qlearn.analysis.mixed_precision.choices import Allocation, Choice
    from qlearn.analysis.mixed_precision.hessian import hessian_costs, hessian_traces
    from qlearn.analysis.mixed_precision.logits import ChoiceLogits
    from qlearn.analysis.mixed_precision.measure import measure_choices
    from qlearn.analysis.mixed_precision.resources import Resource, bit_operations, weight_bytes
    from qlearn.analysis.mixed_precision.search import ParetoFront, pareto_front, search_bits
    from qlearn.analysis.sensitivity import Sensitivity, sensitivity
    from qlearn.calibrators.spec import Calibrator, CalibratorSpec, Trait
    from qlearn.classroom.environment import check_environment
    from qlearn.classroom.exercises import check
    from qlearn.engines.spec import Engine, EngineSpec
    from qlearn.export.litert import export_litert
    from qlearn.export.litert_import import import_litert
    from qlearn.export.onnx import export_onnx
    from qlearn.graph.dead import dead_channels, zero_dead_inputs
    from qlearn.graph.equalize import cross_layer_equalize
    from qlearn.graph.fold import fold_batch_norm
    from qlearn.graph.fuse import fuse_activations
    from qlearn.graph.half import round_to_float16
    from qlearn.graph.high_bias import absorb_high_bias
    from qlearn.graph.model import FloatModel
    from qlearn.graph.preprocess import Preprocess
    from qlearn.graph.trace import trace
    from qlearn.hookspecs import hookimpl
    from qlearn.integer.model import IntegerModel
    from qlearn.numbers.affine import dequantize, fake_quantize, quantize
    from qlearn.numbers.histogram import StreamingHistogram
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.numbers.straight_through import fake_quantize_learned
    from qlearn.pipeline.calibrate import CalibrationTable, calibrate, calibrate_many
    from qlearn.pipeline.checkpoint import load_checkpoint, save_checkpoint
    from qlearn.pipeline.distill import distill_pictures
    from qlearn.pipeline.qat.model import QATModel, convert
    from qlearn.pipeline.qat.prepare import prepare_qat, reestimate_batch_norm
    from qlearn.pipeline.quantize import quantize_model
    from qlearn.pipeline.recipe import LayerRecipe, Recipe, TensorRecipe
    from qlearn.pipeline.select import select_calibration_set
    from qlearn.pipeline.simulate import QuantizedModel
    from qlearn.pipeline.without_pictures import calibrate_without_pictures
    from qlearn.registry import calibrator, engine, plugins, register, scheme, unregister
    from qlearn.repair.adaround import adaround
    from qlearn.repair.correct_bias import correct_bias
    from qlearn.repair.equalize_noise import equalize_noise
    from qlearn.schemes.base import Scheme, SchemeSpec
    from qlearn.testing import check_calibrator, check_scheme
    from qlearn.zoo.load import load
    from qlearn.zoo.qat import load_qat
