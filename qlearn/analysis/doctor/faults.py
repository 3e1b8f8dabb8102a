"""What the doctor knows: the faults, their signs, and the limits beyond which a sign counts.

The limits were chosen on healthy networks (ADR 0019), not on the faults that the tests plant:
each leaves room to what the worst healthy network shows.
"""

from __future__ import annotations

from dataclasses import dataclass

TOO_WIDE = 8.0
"""A range is too wide if it is this many times what the pictures fill: three of eight bits are lost."""

TOO_NARROW_DB = 12.0
"""A range is too narrow if clipping alone leaves the layer an SQNR below this, in dB."""

UNREACHABLE = 0.25
"""Share of the codes that a fused ReLU can never give, above which the range was observed before the ReLU."""

SATURATED = 0.1
"""Share of pictures on which several logits share the largest code, above which the logits saturate."""

DEAD_SHARE = 2.0
"""Dead channels own a range if it is this many times what the other weights need: one bit is lost."""

FEW_STEPS = 4
"""A channel whose largest weight has fewer steps than this keeps two bits and a sign."""

FEW_STEP_CHANNELS = 0.25
"""Share of a layer's channels with fewer than `FEW_STEPS` steps, above which its channels are too unequal."""

FEW_BITS_DB = 25.0
"""A layer with fewer bits than the others does harm if its own SQNR is below this, in dB."""

FEW_PICTURES = 16
"""Fewer calibration pictures than this do not show what a layer can reach."""

FEW_CLASSES = 4.0
"""The calibration pictures are of too few classes if the evaluation pictures have this many times as many.

Classes are those that the float network answers, counted by exp(entropy): ten equally frequent classes count 10."""

INPUT_MEAN = 0.3
"""Mean over the first layer's channels of ((mean - expected mean) / expected std)², above which the input is off."""

INPUT_STD = 0.45
"""Median over the first layer's channels of ln(std / expected std), in size, above which the input is off: x 1.57."""

EXPLAINED = 4.0
"""A correction explains an input that is off if it brings the distance from the statistics down by this factor."""

RIVALS = 2.0
"""Two rules of normalisation explain an input alike if their distances differ by at most this factor."""

CHANNEL_OFF = 0.1
"""A channel of the first layer is off if its normal distribution is so many nats from the expected one."""

MOST_CHANNELS = 0.3
"""Pictures in another preparation move many channels of the first layer: below this share, filters were changed."""

SWAP_RATIO = 3.0
"""Swapped colours are suspected if the swap divides the distance of the means (as in `INPUT_MEAN`) by this."""

SWAP_LEAST = 0.03
"""... and by at least this much."""

SWAP_SURE = 0.95
"""Share of 200 resamples of the pictures in which the other order of colours must fit better."""

FEWEST_FOR_STATISTICS = 8
"""With fewer pictures, nothing is said about mean and spread of the input."""

PIXEL_SPAN = 32
"""Whole numbers only, over at least this span: an input of codes or of pixels, not of real numbers."""

ON_GRID = 1e-3
"""Weights lie on a grid if all are whole multiples of one number, up to this share of a step."""

FEW_LABELS = 0.2
"""Labels are shifted if moving them by one raises the float network's accuracy by this much, and doubles it."""

COARSE_BIAS = 1.0
"""A bias is wrong or too coarse if it is off by this many steps of the layer's output."""

WRONG_BIAS = 64.0
"""The same for an integer model, whose biases may have been corrected: a quarter of all codes."""

COLLAPSE_AGREEMENT = 0.8
"""Below this agreement with float, and below `COLLAPSE_DB`, something is wrong even if no cause was found."""

COLLAPSE_DB = 10.0
"""SQNR of the logits, in dB, that goes with `COLLAPSE_AGREEMENT`."""

LOST = 0.5
"""Agreement with float below which every warning is an error."""

SEVERITIES = ("error", "warning", "note")
"""From worst to mildest: useless answers; accuracy lost; worth knowing."""


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Parameters
    ----------
    code : str
        Its name in `Finding.fault`, in JSON and in the book.
    title : str
        A few words for people.
    severity : str
        One of `SEVERITIES`.
    sign : str
        What the doctor looks for, with the limit.
    remedy : str
        What to do.
    needs : tuple of str
        What must be there to look for it: ``"float"`` (a float network), ``"statistics"`` (a batch norm behind the
        first layer), ``"colours"`` (statistics that a swap of colours would move), ``"calibration"``, ``"labels"``,
        ``"outputs"``.
    explains : tuple of str
        Faults that are only its symptoms: they are listed apart when both are found.
    """

    code: str
    title: str
    severity: str
    sign: str
    remedy: str
    needs: tuple[str, ...] = ("float",)
    explains: tuple[str, ...] = ()


_RANGES = ("range_too_wide", "range_too_narrow", "saturated_logits", "few_bits", "coarse_bias", "unexplained_loss")

_ALL = (
    Fault(
        "codes_as_input", "codes fed as real numbers", "error",
        f"all inputs are whole numbers, some negative, over a span of {PIXEL_SPAN} or more",
        "feed real numbers; codes go to IntegerModel.run_codes()",
        needs=(), explains=(*_RANGES, "few_classes", "wrong_normalisation", "swapped_colours"),
    ),
    Fault(
        "raw_pixels", "pixels 0 to 255 instead of normalised numbers", "error",
        f"all inputs are whole numbers from 0 to 255, over a span of {PIXEL_SPAN} or more",
        "normalise the pictures as in training: model.preprocess(pictures)",
        needs=(), explains=(*_RANGES, "few_classes", "wrong_normalisation", "swapped_colours"),
    ),
    Fault(
        "wrong_normalisation", "another mean or std than in training", "error",
        "the data set normalises otherwise than the network's stored preprocessing; or the first layer's batch-norm "
        f"statistics are off: mean of ((mean - expected) / std)² above {INPUT_MEAN}, or median of "
        f"|ln(std / expected)| above {INPUT_STD}",
        "use the preprocessing of the training: model.preprocess",
        needs=("statistics",), explains=(*_RANGES, "few_classes", "swapped_colours"),
    ),
    Fault(
        "swapped_colours", "colour channels in another order than in training", "error",
        f"another order of the colours fits the first layer's batch-norm means {SWAP_RATIO:g} times better, by "
        f"{SWAP_LEAST} or more, and does so in {SWAP_SURE:.0%} of 200 resamples of the pictures",
        "give the channels in the order of the training (RGB here; OpenCV reads BGR)",
        needs=("statistics", "colours"), explains=("few_classes", "unexplained_loss"),
    ),
    Fault(
        "labels_shifted", "labels shifted by one", "error",
        f"labels moved by one raise the float network's accuracy by {FEW_LABELS * 100:.0f} points or more, "
        "and double it",
        "shift the labels (1001 classes often have a background class 0)",
        needs=("labels",),
    ),
    Fault(
        "codes_as_output", "codes read as real outputs", "error",
        "the outputs that were handed in are the codes of the quantized network, not S (q - Z)",
        "dequantize: S (q - Z), with scale and zero point of the output",
        needs=("outputs",),
    ),
    Fault(
        "unfolded_batch_norm", "batch norms not folded", "warning",
        "a batch norm is left that fold_batch_norm() takes away",
        "fold_batch_norm(), then calibrate and quantize again",
        explains=("float_layer", "unexplained_loss"),
    ),
    Fault(
        "float_layer", "a layer left in float", "note",
        "a layer has no integer kernel, so its input is dequantized and its output quantized again",
        "replace the layer, or accept that it runs in float",
    ),
    Fault(
        "dead_channels", "dead channels own the range of weights", "warning",
        "channels that are the same for every picture are read by weights which make the range "
        f"{DEAD_SHARE:g} times wider than the others need, or more",
        "per-channel weights where that takes them apart; or zero_dead_inputs() then cross_layer_equalize()",
        explains=("unexplained_loss",),
    ),
    Fault(
        "unequal_channels", "very unequal channel ranges under one scale", "warning",
        f"{FEW_STEP_CHANNELS:.0%} or more of a layer's channels have fewer than {FEW_STEPS} steps from zero to their "
        "largest weight (dead channels left out)",
        "per-channel weights; or cross_layer_equalize()",
        explains=("unexplained_loss",),
    ),
    Fault(
        "quantized_twice", "weights that lie on another grid already", "warning",
        "all float weights of a channel are whole multiples of one number, and the new grid is another one",
        "start from the float weights, or keep the grid on which they lie",
        explains=("unexplained_loss",),
    ),
    Fault(
        "coarse_bias", "a bias that is wrong or too coarse", "warning",
        f"a dequantized bias is off from the float bias by more than {COARSE_BIAS:g} step of the layer's output "
        f"({WRONG_BIAS:g} steps for an integer model, whose biases may have been corrected)",
        "int32 biases with scale S_x S_w; a narrower input range if the steps are too coarse",
        explains=("unexplained_loss",),
    ),
    Fault(
        "range_too_wide", "a range far wider than the values", "warning",
        f"the range of a site is {TOO_WIDE:g} times what the pictures fill, or more",
        "calibrate again; look for an outlier or a wrong unit in the table",
        explains=("coarse_bias", "unexplained_loss"),
    ),
    Fault(
        "range_too_narrow", "a range that clips", "warning",
        f"clipping alone leaves a site an SQNR below {TOO_NARROW_DB:g} dB",
        "calibrate again, with pictures like those that the network will see, or with mse or minmax",
        explains=("unexplained_loss",),
    ),
    Fault(
        "observed_before_relu", "a range observed before the ReLU", "warning",
        f"a fused ReLU can never give {UNREACHABLE:.0%} or more of the codes of an asymmetric range",
        "fuse_activations() before calibration: calibrate() does",
        explains=("unexplained_loss",),
    ),
    Fault(
        "saturated_logits", "saturated logits with ties", "error",
        f"on more than {SATURATED:.0%} of the pictures several logits share the largest code of all",
        "a wider range for the logits: minmax for the last layer",
        needs=(), explains=("range_too_narrow", "unexplained_loss"),
    ),
    Fault(
        "few_bits", "too few bits", "warning",
        f"a layer has fewer bits than most, and its own SQNR is below {FEW_BITS_DB:g} dB; "
        f"or all have fewer than 8, and agreement is below {COLLAPSE_AGREEMENT:.0%}",
        "8 bits for that layer: recipe.with_layer()",
        explains=("unexplained_loss",),
    ),
    Fault(
        "few_pictures", "calibrated on too few pictures", "warning",
        f"fewer than {FEW_PICTURES} calibration pictures",
        "calibrate on 100 pictures or more",
        needs=("calibration",), explains=("range_too_narrow", "saturated_logits", "unexplained_loss", "few_classes"),
    ),
    Fault(
        "few_classes", "calibrated on pictures of few classes", "warning",
        f"the evaluation pictures are of {FEW_CLASSES:g} times as many classes as those of the calibration, or more "
        "(answers of the float network, exp of their entropy)",
        "calibrate on pictures of all classes",
        needs=("calibration",), explains=("range_too_narrow", "saturated_logits", "unexplained_loss"),
    ),
    Fault(
        "unexplained_loss", "answers lost, and no single cause found", "warning",
        f"agreement with float is below {COLLAPSE_AGREEMENT:.0%}, the logits' SQNR is below {COLLAPSE_DB:g} dB, "
        "and nothing else was found",
        "look at analyze() and error_budget(); then repair: equalize, correct biases, more bits",
    ),
)  # fmt: skip

FAULTS: dict[str, Fault] = {fault.code: fault for fault in _ALL}
"""All faults by code, in the order in which causes come before symptoms."""


def fault_table() -> str:
    """Return the table of faults in Markdown, as the book has it."""
    lines = ["| fault | severity | sign and limit | remedy |", "|---|---|---|---|"]
    for fault in _ALL:
        sign = fault.sign.replace("|", "\\|")
        lines.append(f"| `{fault.code}`: {fault.title} | {fault.severity} | {sign} | {fault.remedy} |")
    return "\n".join(lines)
