"""qlearn: learn to quantize convolutional networks to 8 bits.

The public face. Names are resolved when they are first used, so that ``qlearn --help`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "ActivationStudy": "qlearn.analysis.activations",
    "CalibrationTable": "qlearn.pipeline.calibrate",
    "Calibrator": "qlearn.calibrators.spec",
    "CalibratorSpec": "qlearn.calibrators.spec",
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
    "Preprocess": "qlearn.graph.preprocess",
    "QParams": "qlearn.numbers.qparams",
    "QuantizedModel": "qlearn.pipeline.simulate",
    "Recipe": "qlearn.pipeline.recipe",
    "Scheme": "qlearn.schemes.base",
    "SchemeSpec": "qlearn.schemes.base",
    "Sensitivity": "qlearn.analysis.sensitivity",
    "StreamingHistogram": "qlearn.numbers.histogram",
    "TensorRecipe": "qlearn.pipeline.recipe",
    "Trait": "qlearn.calibrators.spec",
    "absorb_high_bias": "qlearn.graph.high_bias",
    "activation_study": "qlearn.analysis.activations",
    "analyze": "qlearn.analysis.layers",
    "calibrate": "qlearn.pipeline.calibrate",
    "calibrate_many": "qlearn.pipeline.calibrate",
    "calibrator": "qlearn.registry",
    "check": "qlearn.classroom.exercises",
    "check_calibrator": "qlearn.testing",
    "check_environment": "qlearn.classroom.environment",
    "check_scheme": "qlearn.testing",
    "compare_calibrators": "qlearn.analysis.compare",
    "correct_bias": "qlearn.repair.correct_bias",
    "cross_layer_equalize": "qlearn.graph.equalize",
    "dead_channels": "qlearn.graph.dead",
    "dequantize": "qlearn.numbers.affine",
    "diagnose": "qlearn.analysis.doctor.diagnose",
    "engine": "qlearn.registry",
    "equalize_noise": "qlearn.repair.equalize_noise",
    "error_budget": "qlearn.analysis.budget",
    "evaluate": "qlearn.analysis.evaluate",
    "export_litert": "qlearn.export.litert",
    "export_onnx": "qlearn.export.onnx",
    "fake_quantize": "qlearn.numbers.affine",
    "fold_batch_norm": "qlearn.graph.fold",
    "fuse_activations": "qlearn.graph.fuse",
    "hookimpl": "qlearn.hookspecs",
    "import_litert": "qlearn.export.litert_import",
    "load": "qlearn.zoo.load",
    "loss_landscape": "qlearn.analysis.landscape",
    "plugins": "qlearn.registry",
    "quantize": "qlearn.numbers.affine",
    "quantize_model": "qlearn.pipeline.quantize",
    "register": "qlearn.registry",
    "repair_ladder": "qlearn.analysis.ladder",
    "scheme": "qlearn.registry",
    "sensitivity": "qlearn.analysis.sensitivity",
    "sqnr_db": "qlearn.analysis.metrics",
    "trace": "qlearn.graph.trace",
    "unregister": "qlearn.registry",
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
    from qlearn.analysis.compare import Comparison, compare_calibrators
    from qlearn.analysis.doctor.diagnose import diagnose
    from qlearn.analysis.doctor.finding import Diagnosis, Finding
    from qlearn.analysis.evaluate import Evaluation, evaluate
    from qlearn.analysis.ladder import repair_ladder
    from qlearn.analysis.landscape import Landscape, loss_landscape
    from qlearn.analysis.layers import LayerTable, analyze
    from qlearn.analysis.metrics import sqnr_db
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
    from qlearn.graph.high_bias import absorb_high_bias
    from qlearn.graph.model import FloatModel
    from qlearn.graph.preprocess import Preprocess
    from qlearn.graph.trace import trace
    from qlearn.hookspecs import hookimpl
    from qlearn.integer.model import IntegerModel
    from qlearn.numbers.affine import dequantize, fake_quantize, quantize
    from qlearn.numbers.histogram import StreamingHistogram
    from qlearn.numbers.qparams import ClipRange, QParams
    from qlearn.pipeline.calibrate import CalibrationTable, calibrate, calibrate_many
    from qlearn.pipeline.quantize import quantize_model
    from qlearn.pipeline.recipe import LayerRecipe, Recipe, TensorRecipe
    from qlearn.pipeline.simulate import QuantizedModel
    from qlearn.registry import calibrator, engine, plugins, register, scheme, unregister
    from qlearn.repair.correct_bias import correct_bias
    from qlearn.repair.equalize_noise import equalize_noise
    from qlearn.schemes.base import Scheme, SchemeSpec
    from qlearn.testing import check_calibrator, check_scheme
    from qlearn.zoo.load import load
