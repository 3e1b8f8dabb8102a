"""Every error that qlearn raises on purpose.

::

    QLearnError
    ├── NumbersError (ValueError)          a value or range that no integer can stand for
    ├── RecipeError (ValueError)           a recipe that contradicts itself
    ├── CalibrationError (ValueError)      data that a calibrator refuses: NaN, Inf, empty, integers
    │   └── NotCalibratedError             a range was asked for before any data was seen
    ├── GraphError                         the network cannot be used as it is
    │   ├── UntraceableError               torch.fx cannot follow its forward()
    │   └── UnsupportedOpError             a layer that has no integer kernel, under strict
    ├── KernelError                        an integer kernel was given what it cannot compute
    │   └── AccumulatorOverflowError       a layer's sum may leave int32
    ├── ExportError                        a model that the other program's file cannot hold
    ├── ModelFileError (ValueError)        a damaged or foreign model file
    ├── MissingDependencyError (ImportError)   an optional package is not installed
    ├── DataError                          pictures, labels or weights that cannot be used
    │   ├── MissingDataError (FileNotFoundError)
    │   └── ChecksumError (ValueError)
    └── PluginError                        anything about plugins
        ├── UnknownCalibratorError (LookupError)
        ├── UnknownSchemeError (LookupError)
        ├── UnknownEngineError (LookupError)
        ├── PluginConflictError (LookupError)
        └── ConformanceError (AssertionError)   a check of the conformance kit failed

    DataWarning (UserWarning)              pictures without a label were left out
    PluginWarning (UserWarning)            a plugin was left out; the library goes on
    FallbackWarning (UserWarning)          a layer stays in float (paper §7.1)
    GridWarning (UserWarning)              learned weights were moved to another grid

Low-level functions raise short errors; the public entry points add the layer, the shape and the calibrator as
notes (``BaseException.add_note``), so that a traceback names what, where and the remedy.
"""

from __future__ import annotations


class QLearnError(Exception):
    """Base class: ``except QLearnError`` catches everything that qlearn raises on purpose."""


class NumbersError(QLearnError, ValueError):
    """A value or a range that no integer can stand for."""


class RecipeError(QLearnError, ValueError):
    """A recipe that contradicts itself."""


class CalibrationError(QLearnError, ValueError):
    """Data that a calibrator refuses: NaN, Inf, empty, integers, a wrong number of channels."""


class NotCalibratedError(CalibrationError):
    """A clip range was asked for before any data was seen."""


class GraphError(QLearnError):
    """The network cannot be used as it is."""


class UntraceableError(GraphError):
    """torch.fx cannot follow the network's ``forward``."""


class UnsupportedOpError(GraphError):
    """A layer has no integer kernel, and ``strict`` forbids the float fallback."""


class KernelError(QLearnError):
    """An integer kernel was given what it cannot compute."""


class AccumulatorOverflowError(KernelError):
    """The sum of a layer may leave int32 for some input."""


class ExportError(QLearnError):
    """A layer cannot be written to the file of another program; it is named."""


class ModelFileError(QLearnError, ValueError):
    """A model file is damaged, or was not written by qlearn."""


class MissingDependencyError(QLearnError, ImportError):
    """An optional package is not installed; the message says which extra brings it."""


class DataError(QLearnError):
    """Pictures, labels or weights that cannot be used."""


class MissingDataError(DataError, FileNotFoundError):
    """A file or folder of data is not there."""


class ChecksumError(DataError, ValueError):
    """A file is not the one that was promised."""


class PluginError(QLearnError):
    """Anything about plugins."""


class UnknownCalibratorError(PluginError, LookupError):
    """No calibrator of that name is registered."""


class UnknownSchemeError(PluginError, LookupError):
    """No scheme of that name is registered."""


class UnknownEngineError(PluginError, LookupError):
    """No engine of that name is registered."""


class PluginConflictError(PluginError, LookupError):
    """Two plugins claim the same bare name."""


class ConformanceError(PluginError, AssertionError):
    """A calibrator or a scheme breaks a rule of the conformance kit."""


class DataWarning(UserWarning):
    """Pictures that have no label were left out."""


class PluginWarning(UserWarning):
    """A plugin was left out; the library goes on without it."""


class FallbackWarning(UserWarning):
    """A layer stays in float between dequantize and quantize (paper §7.1)."""


class GridWarning(UserWarning):
    """The grid that was pinned to learned weights could not be kept, and they were rounded anew."""
