"""Mixed precision: how many bits for which layer (paper §7.3).

Measure what each choice of bits hurts (`measure_choices`, or `hessian_traces` and `hessian_costs`), say what it uses
(`weight_bytes`, `bit_operations`), search (`search_bits`, `pareto_front`). The result is an ordinary recipe.
"""

from qlearn.analysis.mixed_precision.choices import Allocation, Choice, with_choices
from qlearn.analysis.mixed_precision.hessian import TraceEstimate, hessian_costs, hessian_traces
from qlearn.analysis.mixed_precision.logits import ChoiceLogits
from qlearn.analysis.mixed_precision.measure import measure_choices
from qlearn.analysis.mixed_precision.resources import Resource, Term, bit_operations, weight_bytes
from qlearn.analysis.mixed_precision.search import ParetoFront, pareto_front, search_bits

__all__ = [
    "Allocation",
    "Choice",
    "ChoiceLogits",
    "ParetoFront",
    "Resource",
    "Term",
    "TraceEstimate",
    "bit_operations",
    "hessian_costs",
    "hessian_traces",
    "measure_choices",
    "pareto_front",
    "search_bits",
    "weight_bytes",
    "with_choices",
]
