"""The solutions in the notebooks pass, known wrong answers do not, and every kind of bad answer gets a clear line."""

import itertools
import math
import operator
from fractions import Fraction
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch

import qlearn as ql
from qlearn.analysis.compare import paired_difference
from qlearn.analysis.mixed_precision import Term
from qlearn.classroom import exercises
from qlearn.classroom.kinds import RANDOM_CASES, ChoiceExercise, FunctionExercise, ValueExercise
from qlearn.integer import reference
from qlearn.integer.packing import pack_codes
from qlearn.integer.requantize import FixedMultiplier, multiply_by_fixed
from qlearn.integer.tables import unary_table
from qlearn.numbers.qparams import QParams
from qlearn.pipeline.qat.grids import MovingGrid

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def _cells(tag):
    """Yield (exercise id, source) of all cells with a tag."""
    for path in NOTEBOOKS:
        for cell in nbformat.read(path, 4).cells:
            if tag in cell.metadata.get("tags", []):
                _, number, exercise, *_ = cell["id"].split("-")
                yield f"{number}.{exercise}", cell.source


SOLUTIONS = dict(_cells("solution"))
STUBS = dict(_cells("answer"))


def _run(source, **names):
    scope = {"np": np, "torch": torch, "ql": ql, "math": math, **names}
    exec(compile(source, "cell", "exec"), scope)
    return scope


def test_every_exercise_has_stub_check_and_solution():
    assert set(exercises()) == set(SOLUTIONS) == set(STUBS) == set(dict(_cells("check")))
    for number, source in _cells("check"):
        assert f'ql.check("{number}", ' in source


@pytest.mark.parametrize("number", sorted(SOLUTIONS))
def test_solution_passes(number, capsys):
    _run(SOLUTIONS[number])
    tests = exercises()[number].tests
    assert capsys.readouterr().out == f"✔ {number} passed ({tests} test{'s' if tests > 1 else ''})\n"


@pytest.mark.parametrize("number", sorted(STUBS))
def test_stub_is_friendly(number, capsys):
    _run(STUBS[number] + "\n" + dict(_cells("check"))[number])
    out = capsys.readouterr().out
    assert out.startswith(f"{number} is not answered yet: ")
    assert "✘" not in out


@pytest.mark.parametrize("number", sorted(exercises()))
def test_specs_agree_with_themselves_and_tell_cases_apart(number):
    exercise = exercises()[number]
    if isinstance(exercise, FunctionExercise):
        assert len(exercise.cases) == 3
        assert len(exercise.all_cases()) == exercise.tests == 3 + RANDOM_CASES
        assert str(exercise.all_cases()) == str(exercise.all_cases())  # seeded
        assert exercise.judge(exercise.spec) == []


def test_spec_of_scale_and_zero_point_is_the_librarys():
    exercise = exercises()["01.1"]
    for case in exercise.all_cases():
        clip_range = ql.ClipRange.including_zero(case["lo"], case["hi"])
        qparams = ql.scheme("affine", bits=case["bits"]).qparams(clip_range)
        scale, zero_point = exercise.spec(**case)
        assert float(qparams.scale) == pytest.approx(scale, rel=1e-6)
        assert qparams.zero_point == zero_point


def test_spec_of_rmse_and_of_parts_agree_with_the_librarys_sqnr():
    rng = np.random.default_rng(0)
    real, noises = rng.normal(size=50_000), rng.normal(size=(3, 50_000)) * [[0.1], [0.02], [0.05]]
    scale = 0.25
    rmse = exercises()["06.1"].spec(real.tolist(), (real + noises[0]).tolist(), scale)
    power = float(np.mean(real**2))
    assert 10 * math.log10(power / (rmse * scale) ** 2) == pytest.approx(ql.sqnr_db(real, real + noises[0]))
    parts = [ql.sqnr_db(real, real + noise) for noise in noises]
    left = ql.sqnr_db(real, real + noises[0] + noises[2])
    assert exercises()["06.3"].spec(parts, 1) == pytest.approx(left, abs=0.1)  # independent up to chance


def test_spec_of_paired_is_the_standard_error_of_the_differences():
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 2, (2, 1000))
    difference, error = exercises()["06.2"].spec(first.tolist(), second.tolist())
    assert difference == pytest.approx((first - second).mean())
    assert error == pytest.approx((first - second).std() / math.sqrt(1000))
    mine = paired_difference(first == 1, second == 1)
    assert (mine.high - mine.low) / 2 == pytest.approx(1.96 * error, rel=0.01)  # the library adds half a picture


def test_spec_of_the_sigmoid_table_is_the_librarys():
    for case in exercises()["06.4"].all_cases():
        bits = case["bits"]
        lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        q_in = QParams(case["s_in"], case["z_in"], lowest, highest)
        q_out = QParams(case["s_out"], case["z_out"], lowest, highest)
        assert exercises()["06.4"].spec(**case) == unary_table("sigmoid", q_in, q_out).tolist()


def test_spec_of_levels_left_is_the_librarys():
    for case in exercises()["11.2"].all_cases():
        weight = np.linspace(-1, 1, 20_001).astype(np.float32)
        ends = ql.ClipRange(-case["ratio"], case["ratio"])
        qparams = ql.scheme("symmetric_restricted", bits=case["bits"]).qparams(ends)
        assert len(np.unique(ql.quantize(weight, qparams))) == exercises()["11.2"].spec(**case)


def test_spec_of_the_coin_agrees_with_tossing_it():
    tosses = np.random.default_rng(0).binomial(9, 0.5, 200_000)
    found = (np.maximum(tosses, 9 - tosses) >= 7).mean()
    assert exercises()["11.3"].spec(2, 7) == pytest.approx(found, abs=0.005)


def test_spec_of_pictures_needed_is_the_closed_form():
    for case in exercises()["09.2"].all_cases():
        exact = Fraction(str(case["differ"])) * Fraction(196) ** 2 / Fraction(str(case["points"])) ** 2
        assert exercises()["09.2"].spec(**case) == max(1, math.ceil(exact))


def test_spec_of_row_scales_is_the_librarys():
    exercise = exercises()["02.1"]
    for case in exercise.all_cases():
        weight = np.array(case["weight"])
        ends = ql.ClipRange.including_zero(weight.min(axis=1), weight.max(axis=1))
        scale = ql.scheme("symmetric_restricted", bits=case["bits"]).qparams(ends, axis=0).scale
        assert scale == pytest.approx(exercise.spec(**case), rel=1e-6)


def test_spec_of_rescale_keeps_the_function():
    exercise = exercises()["02.3"]
    for case in exercise.all_cases():
        x = np.random.default_rng(0).normal(size=(len(case["first"][0]), 50))
        first, second = map(np.array, exercise.spec(**case))
        before = np.array(case["second"]) @ np.maximum(np.array(case["first"]) @ x, 0)
        assert second @ np.maximum(first @ x, 0) == pytest.approx(before, rel=1e-12, abs=1e-12)


def test_spec_of_quantize_is_the_librarys():
    exercise = exercises()["01.2"]
    for case in exercise.all_cases():
        qparams = ql.QParams(case["scale"], case["zero_point"], case["qmin"], case["qmax"])
        assert ql.quantize(case["x"], qparams).tolist() == exercise.spec(**case)


def test_spec_of_the_symmetric_scale_is_the_librarys():
    exercise = exercises()["01.3"]
    for case in exercise.all_cases():
        largest = max(map(abs, case["values"]))
        qparams = ql.scheme("symmetric_restricted", bits=case["bits"]).qparams(ql.ClipRange(-largest, largest))
        assert float(qparams.scale) == pytest.approx(exercise.spec(**case), rel=1e-6)


def test_spec_of_folding_is_the_librarys():
    exercise = exercises()["03.1"]
    for case in exercise.all_cases():
        taps = len(case["weights"])
        conv, norm = torch.nn.Conv2d(taps, 1, 1), torch.nn.BatchNorm2d(1, eps=case["eps"])
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(case["weights"]).reshape(1, taps, 1, 1))
            for tensor, key in [(conv.bias, "bias"), (norm.weight, "gamma"), (norm.bias, "beta"),
                                (norm.running_mean, "mean"), (norm.running_var, "variance")]:  # fmt: skip
                tensor.fill_(case[key])
        net = ql.trace(torch.nn.Sequential(conv, norm).eval(), torch.zeros(1, taps, 1, 1))
        node = ql.fold_batch_norm(net).nodes[1]
        theirs = [*node.params["weight"].flatten().tolist(), node.params["bias"].item()]
        assert theirs == pytest.approx(exercise.spec(**case), rel=1e-5, abs=1e-6)


def test_spec_of_equalizing_is_the_librarys():
    exercise = exercises()["05.1"]
    for case in exercise.all_cases():
        first, second = (torch.tensor(case[key]) for key in ("first", "second"))
        layers = torch.nn.Linear(first.shape[1], len(first)), torch.nn.Linear(len(first), len(second))
        net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1]).requires_grad_(False)
        for layer, weight in zip(layers, (first, second), strict=True):
            layer.weight.copy_(weight)
        equal = ql.cross_layer_equalize(ql.trace(net, torch.zeros(1, first.shape[1]))).node("0").params["weight"]
        factors = torch.tensor(exercise.spec(**case)).reshape(-1, 1)
        assert torch.allclose(equal * factors, first, rtol=1e-4)


def test_spec_of_absorbing_is_the_librarys():
    exercise = exercises()["05.2"]
    for case in exercise.all_cases():
        count, outputs = len(case["means"]), len(case["biases"])
        conv, norm, reader = (
            torch.nn.Conv2d(1, count, 1),
            torch.nn.BatchNorm2d(count),
            torch.nn.Conv2d(count, outputs, 1),
        )
        net = torch.nn.Sequential(conv, norm, torch.nn.ReLU(), reader).eval().requires_grad_(False)
        norm.bias.copy_(torch.tensor(case["means"]))
        norm.weight.copy_(torch.tensor(case["stds"]))
        reader.weight.copy_(torch.tensor(case["weights"]).reshape(outputs, count, 1, 1))
        reader.bias.copy_(torch.tensor(case["biases"]))
        folded = ql.fold_batch_norm(ql.trace(net, torch.zeros(1, 1, 2, 2)))
        found = ql.absorb_high_bias(folded).node("3").params["bias"]
        assert found.tolist() == pytest.approx(exercise.spec(**case), rel=1e-3, abs=1e-3)  # σ² / (σ² + ε)


def test_spec_of_correcting_a_bias_keeps_the_mean():
    exercise = exercises()["05.3"]
    for case in exercise.all_cases():
        w, means = np.array(case["weights"]), np.array(case["means"])
        rounded = ql.fake_quantize(w, ql.QParams(case["scale"], 0, -128, 127)).numpy()
        assert rounded @ means + exercise.spec(**case) == pytest.approx(w @ means + case["bias"], abs=1e-5)


def test_spec_of_the_least_error_is_never_above_nearest():
    exercise, lower = exercises()["05.4"], 0
    for case in exercise.all_cases():
        nearest = _error_of_rounding(case["weights"], case["scale"], case["inputs"])
        assert 0 <= exercise.spec(**case) <= nearest + 1e-12
        lower += exercise.spec(**case) < 0.99 * nearest
    assert lower >= 5  # else rounding to nearest would be an answer


def test_spec_of_the_combined_bias_is_the_kernels():
    exercise, rng = exercises()["03.2"], np.random.default_rng(0)
    for case in exercise.all_cases():
        w = np.int8([case["weight_codes"]])
        x = rng.integers(-128, 128, (5, w.shape[1])).astype(np.int8)
        accumulator = reference.linear(x, w, np.int32([case["bias_code"]]), x_zero=case["x_zero"])
        assert (x.astype(int) @ w[0].astype(int) + exercise.spec(**case)).tolist() == accumulator[:, 0].tolist()


def test_spec_of_requantizing_is_the_kernels():
    exercise = exercises()["03.3"]
    for case in exercise.all_cases():
        multiplier = FixedMultiplier(np.int64(case["mantissa"]), np.int64(-case["right"]))
        steps = multiply_by_fixed(np.int64(case["accumulator"]), multiplier)
        assert np.clip(steps + case["zero_point"], -128, 127) == exercise.spec(**case)


def test_spec_of_the_accumulator_is_tight():
    """The input that drives every product to its end needs all of the bits, and no fewer."""
    exercise = exercises()["03.4"]
    for case in exercise.all_cases():
        bits = exercise.spec(**case)
        w = np.array(case["weight_codes"])
        ends = [int(w @ (np.where(w * sign > 0, 127, -128) - case["x_zero"])) + case["bias_code"] for sign in (1, -1)]
        assert all(-(2 ** (bits - 1)) <= end < 2 ** (bits - 1) for end in ends)
        assert bits == 1 or not all(-(2 ** (bits - 2)) <= end < 2 ** (bits - 2) for end in ends)


def test_spec_of_packing_is_the_size_that_packing_gives():
    for case in exercises()["07.1"].all_cases():
        sizes = []
        for count, bits in zip(case["counts"], case["bits"], strict=True):
            qparams = ql.QParams(1.0, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            sizes.append(pack_codes(np.zeros(count, int), qparams).nbytes)
        assert sum(sizes) == exercises()["07.1"].spec(**case)


def test_spec_of_the_best_bits_is_the_librarys_front():
    exercise = exercises()["07.2"]
    for case in exercise.all_cases():
        names = [str(place) for place in range(len(case["counts"]))]
        costs = {
            ql.Choice(name, "weights", bits): case["costs"][place][k]
            for place, name in enumerate(names)
            for k, bits in enumerate(case["widths"])
        }
        slots = [(name, "weights") for name in names]
        terms = tuple(Term(count, (slot,)) for count, slot in zip(case["counts"], slots, strict=True))
        front = ql.pareto_front(costs, ql.Resource("weights", "bits", terms, dict.fromkeys(slots, 8)))
        best = front[int(np.searchsorted(front.usage, case["budget"], side="right")) - 1]
        assert [best.bits()[name] for name in names] == exercise.spec(**case)


def test_spec_of_the_trace_finds_the_trace_from_all_vectors():
    matrix = [[2.0, 1.0, -4.0], [1.0, 3.0, 0.5], [-4.0, 0.5, -1.0]]
    every = [list(v) for v in itertools.product((1, -1), repeat=3)]
    assert exercises()["07.3"].spec(matrix, every) == pytest.approx(np.trace(matrix))


def test_spec_of_bit_operations_is_the_librarys():
    exercise = exercises()["07.4"]
    for case in exercise.all_cases():
        k, height, width = case["kernel"], case["height"], case["width"]
        conv = torch.nn.Conv2d(case["inputs"], case["outputs"], k, groups=case["groups"])
        net = ql.trace(torch.nn.Sequential(conv), torch.zeros(1, case["inputs"], height + k - 1, width + k - 1))
        resource = ql.bit_operations(net, ql.Recipe())
        chosen = [ql.Choice("0", "weights", case["weight_bits"])]
        chosen.append(ql.Choice(net.nodes[0].name, "activations", case["input_bits"]))
        assert resource.usage(chosen) == exercise.spec(**case)


def test_spec_of_minmax_is_the_librarys():
    exercise = exercises()["04.1"]
    for case in exercise.all_cases():
        calibrator = ql.calibrator("minmax")
        for batch in case["batches"]:
            calibrator.observe(np.array(batch))
        assert calibrator.compute_range(ql.scheme("affine")) == ql.ClipRange(*exercise.spec(**case))


def test_spec_of_mean_and_deviation_is_the_librarys():
    exercise = exercises()["04.2"]
    for case in exercise.all_cases():
        calibrator = ql.calibrator("mean_std", k=case["k"], bins=16384)
        calibrator.observe(np.array(case["values"]))
        found = calibrator.compute_range(ql.scheme("affine"))
        near = 2e-4 * max(map(abs, case["values"])) * (1 + case["k"])
        assert (float(found.lo), float(found.hi)) == pytest.approx(exercise.spec(**case), abs=near)


def test_spec_of_the_percentile_is_the_librarys():
    exercise = exercises()["04.3"]
    for case in exercise.all_cases():
        counts, width = case["counts"], case["width"]
        values = np.repeat((np.arange(len(counts)) + 0.5) * width, counts)
        calibrator = ql.calibrator("percentile", percent=case["percent"], bins=16)
        calibrator.observe(values)
        calibrator.observe(np.array([15.9 * width]))  # sets the width of the bins; it counts as one value more
        shifted = exercise.spec([*counts, *[0] * (15 - len(counts)), 1], width, case["percent"])
        assert float(calibrator.compute_range(ql.scheme("affine")).hi) == min(shifted, 15.9 * width)


@pytest.mark.parametrize("number", ["08.1", "08.2"])
def test_specs_of_the_gradients_are_the_librarys(number):
    exercise = exercises()[number]
    for case in exercise.all_cases():
        x = torch.tensor(case["x"], dtype=torch.float64, requires_grad=True)
        scale = torch.tensor(case["scale"], dtype=torch.float64, requires_grad=True)
        limits = case["qmin"], case["qmax"]
        y = ql.fake_quantize_learned(x, scale, torch.tensor(0), *limits, gradient_scale=1.0)
        y.backward(torch.tensor(case["gradient"], dtype=torch.float64))
        theirs = x.grad.tolist() if number == "08.1" else float(scale.grad)
        assert theirs == pytest.approx(exercise.spec(**case), rel=1e-9, abs=1e-12)


def test_spec_of_the_moving_range_is_the_librarys():
    exercise = exercises()["08.3"]
    for case in exercise.all_cases():
        grid = MovingGrid(None, ql.TensorRecipe(scheme="affine"), case["momentum"])
        for batch in case["batches"]:
            grid(torch.tensor(batch))
        found = grid.clip_range()
        assert (float(found.lo), float(found.hi)) == pytest.approx(exercise.spec(**case), rel=1e-5, abs=1e-6)


def test_spec_of_counting_updates_ends_one_update_before_the_code_changes():
    exercise = exercises()["08.4"]
    for case in exercise.all_cases():
        steps, update = exercise.spec(**case), case["update"]
        before, after = ql.quantize([(steps - 1) * update, steps * update], ql.QParams(case["scale"], 0, -128, 127))
        assert before == 0
        assert after != 0


def test_spec_of_merging_is_the_librarys():
    exercise = exercises()["04.4"]
    for case in exercise.all_cases():
        bins = len(case["a"])
        merged = []
        for side in "ab":
            histogram = ql.StreamingHistogram(max(2, bins))
            histogram.counts[0, bins:] = torch.tensor(case[side])
            histogram.exponents[0] = case[f"exponent_{side}"]
            merged.append(histogram)
        merged[0].merge(merged[1])
        assert merged[0].counts[0, bins:].tolist() == exercise.spec(**case)


def _eq4_without_zero_rule(lo, hi, bits):
    S = (hi - lo) / (2**bits - 1) or 1.0
    return S, round(2 ** (bits - 1) - 1 - hi / S)


def _zero_point_truncated(lo, hi, bits):
    lo, hi = min(lo, 0.0), max(hi, 0.0)
    S = (hi - lo) / (2**bits - 1) or 1.0
    return S, int(-(2 ** (bits - 1)) - lo / S)


def _clamp_only(lo, hi, bits):
    S, Z = _eq4_without_zero_rule(lo, hi, bits)
    return S, max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, Z))


def _no_clamp(x, S, Z, qmin, qmax):
    return (np.round(np.array(x) / S) + Z).astype(int)


def _paper_order(x, S, Z, qmin, qmax):
    return np.clip(np.round(np.array(x) / S + Z), qmin, qmax).astype(int)


def _truncates(x, S, Z, qmin, qmax):
    return np.clip(np.trunc(np.array(x) / S) + Z, qmin, qmax).astype(int)


def _half_up(x, S, Z, qmin, qmax):
    return np.clip(np.floor(np.array(x) / S + 0.5) + Z, qmin, qmax).astype(int)


def _floats(x, S, Z, qmin, qmax):
    return np.clip(np.round(np.array(x) / S) + Z, qmin, qmax)


def _folded(w, b, gamma, beta, mean, variance, eps, *, own_bias=True, root=True, inside=True):
    spread = variance + eps if inside else variance
    a = gamma / (math.sqrt(spread) if root else spread) if spread > 0 else 0.0
    return [*(a * value for value in w), beta + a * ((b if own_bias else 0.0) - mean)]


def _requantized(accumulator, mantissa, right, zero_point, *, away=True, twice=True, clamp=True):
    real = accumulator * mantissa / 2 ** (31 + right)
    if twice:
        real = ((accumulator * mantissa + 2**30) >> 31) / 2**right
    steps = math.copysign(math.floor(abs(real) + 0.5), real) if away else math.floor(real + 0.5)
    code = int(steps) + zero_point
    return max(-128, min(127, code)) if clamp else code


def _bits_of(w, b, z, *, symmetric=False):
    reach = max(127 - z, z + 128)
    largest = sum(map(abs, w)) * (127 if symmetric else reach) + abs(b)
    return largest.bit_length() + 1


def _edge(counts, width, percent, *, left=0, strict=False):
    share = 100 * np.cumsum(counts) / np.sum(counts)
    return (np.argmax(share > percent if strict else share >= percent) + 1 - left) * width


def _halved_once(a, ea, b, eb):
    narrow, wide = (a, b) if ea < eb else (b, a)
    if ea != eb:
        narrow = np.pad(np.reshape(narrow, (-1, 2)).sum(1), (0, len(a) // 2))
    return np.array(narrow) + wide


def _searched(values, thresholds, bits, *, clamp=True, power=2):
    x, qmax = np.array(values), 2 ** (bits - 1) - 1

    def noise(t):
        codes = np.round(x * qmax / t)
        return (np.abs(x - (np.clip(codes, -qmax, qmax) if clamp else codes) * t / qmax) ** power).sum()

    return min(thresholds, key=noise)


def _energy_edge(counts, share, *, centre=0.5):
    energy = np.array(counts) * (np.arange(len(counts)) + centre) ** 2
    return int(np.argmax(energy.cumsum() >= share * energy.sum())) + 1


def _equalizing(first, second, *, root=True, turned=False, careful=True):
    r1, r2 = np.abs(first).max(1), np.abs(second).max(1 if turned else 0)
    ratio = [a / b if b > 0 else 0.0 for a, b in zip(r1, r2, strict=False)]
    return [(x**0.5 if root else x) if x > 0 or not careful else 1.0 for x in ratio]


def _absorbing(means, stds, weights, biases, *, sigmas=3, clamp=True):
    c = np.subtract(means, sigmas * np.array(stds))
    return np.array(biases) + np.array(weights) @ (np.maximum(c, 0) if clamp else c)


def _shift(w, scale, means, *, rounded=np.round):
    return (rounded(np.array(w) / scale) * scale - w) @ np.array(means)


def _error_of_rounding(w, scale, inputs, *, rounded=np.round):
    return float(((np.array(inputs) @ (rounded(np.array(w) / scale) * scale - w)) ** 2).sum())


def _unpaired_error(first, second):
    """As if the two had seen different pictures."""
    return math.sqrt((np.var(first) + np.var(second)) / len(first))


def _sigmoid_codes(s_in, z_in, s_out, z_out, bits, *, clamp=True):
    lowest, highest = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    codes = np.arange(lowest, highest + 1)
    out = np.round(1 / (1 + np.exp(-s_in * (codes - z_in))) / s_out) + z_out
    return (out.clip(lowest, highest) if clamp else out).astype(int)


def _log_rounded(weight):
    largest = np.abs(weight).max(axis=1)
    return np.round(np.log2(largest.max() / largest)).astype(int)


def _bits_tried(counts, widths, costs, budget, *, strict=False):
    limit = budget - 1 if strict else budget
    picks = itertools.product(range(len(widths)), repeat=len(counts))
    fits = [p for p in picks if sum(n * widths[k] for n, k in zip(counts, p, strict=True)) <= limit]
    cheapest = min(fits, key=lambda p: sum(row[k] for row, k in zip(costs, p, strict=True)), default=None)
    return None if cheapest is None else [widths[k] for k in cheapest]


def _bits_downhill(counts, widths, costs, budget):
    """One width down at a time, where a bit saved costs least; never a step back."""
    picks = [len(widths) - 1] * len(counts)

    def price(layer):
        k = picks[layer]
        return (costs[layer][k - 1] - costs[layer][k]) / (counts[layer] * (widths[k] - widths[k - 1]))

    while sum(n * widths[k] for n, k in zip(counts, picks, strict=True)) > budget:
        picks[min((layer for layer, k in enumerate(picks) if k), key=price)] -= 1
    return [widths[k] for k in picks]


def _passed(x, g, S, qmin, qmax, *, closed=False, whole=False, upper=False):
    v = np.array(x) / S
    if closed:
        inside = (v >= qmin) & (v <= qmax)
    elif upper:
        inside = np.round(v) <= qmax
    else:
        inside = (np.round(v) >= qmin) & (np.round(v) <= qmax)
    return np.array(g) * (inside | whole)


def _pulled(x, g, S, qmin, qmax, *, clipped=True, times=1.0, sign=1):
    v = np.array(x) / S
    codes = np.clip(np.round(v), qmin, qmax)
    inside = np.round(v) == codes
    slope = np.where(inside, sign * (codes - v), codes if clipped else 0)
    return (np.array(g) * slope).sum() * times


def _followed(batches, m, *, zero=True, start=True, keep=False):
    extremes = [(min(b), max(b)) if not zero else (min(0.0, *b), max(0.0, *b)) for b in batches]
    ends = np.array(extremes[0] if start else (0.0, 0.0))
    for each in extremes[1 if start else 0 :]:
        ends = m * ends + (1 - m) * np.array(each) if keep else (1 - m) * ends + m * np.array(each)
    return ends


def _tail(first, second, more=0):
    """The probability of one direction alone."""
    tosses, most = first + second, max(first, second) + more
    return sum(math.comb(tosses, heads) for heads in range(most, tosses + 1)) / 2**tosses


WRONG = [
    ("00.1", lambda n, b: n * b // 8, "input     weights=3, bits=4"),
    ("00.1", lambda n, b: n * b / 8, "an integer is expected, this is a float"),
    ("00.1", lambda n, b: n * -(-b // 8), "Expected  2"),
    ("00.2", lambda b: (0, 2**b - 1), "Expected  [-128, 127]"),
    ("00.2", lambda b: (-(2 ** (b - 1)), 2 ** (b - 1)), "Yours     [-128, 128]"),
    ("00.2", lambda b: 127, "shape () instead of (2,)"),
    ("00.3", lambda a, b: (a == b).mean(), "Expected  1"),
    ("00.3", lambda a, b: (a.argmax(0) == b.argmax(0)).mean(), "Expected"),
    ("00.3", lambda a, b: (a.argmax(1) == b.argmax(1)).sum(), "Yours     2"),
    ("00.4", "a", 'not "a"'),
    ("00.4", "c", "nothing is trained"),
    (
        "01.1",
        _eq4_without_zero_rule,
        "input     lo=2, hi=3, bits=8\n  Yours     [0.00392157, -638]\n  Expected  [0.0117647, -128]",
    ),
    ("01.1", _zero_point_truncated, "Expected"),
    ("01.1", _clamp_only, "Yours     [0.00392157, -128]"),
    ("01.2", _no_clamp, "Yours     [-20, 16]\n  Expected  [-4, 3]"),
    ("01.2", _paper_order, "Yours     [0, 0, -2]\n  Expected  [-1, 1, -1]"),
    ("01.2", _truncates, "fails"),
    ("01.2", _half_up, "fails"),
    ("01.2", _floats, "integers are expected, these are floats"),
    ("01.3", lambda v, b: max(v) / (2 ** (b - 1) - 1), "Expected  0.2"),
    ("01.3", lambda v, b: max(map(abs, v)) / 2 ** (b - 1), "Expected  0.01"),
    ("01.3", lambda v, b: max(map(abs, v)) / (2 ** (b - 1) - 1), "input     values=[0, 0], bits=8\n  Yours     0"),
    ("01.4", lambda s, b, t: b + math.floor((t - s) / 6.02), "Yours     9\n  Expected  10"),
    ("01.4", lambda s, b, t: b + math.ceil((t - s) / 6), "Yours     11\n  Expected  10"),
    ("01.4", lambda s, b, t: math.ceil(t / 6.02), "Expected  7"),
    ("01.4", lambda s, b, t: b + max(0, math.ceil((t - s) / 6.02)), "Expected  7"),
    ("01.5", "a", 'not "a"'),
    ("01.5", "D", 'not "d"'),
    (
        "03.1",
        lambda *n: _folded(*n, own_bias=False),
        "Yours     [1, -2, -0.9]\n  Expected  [1, -2, -0.3]",
    ),
    (
        "02.1",
        lambda w, b: np.max(w, axis=1) / (2 ** (b - 1) - 1),
        "Yours     [0.1, 0.00142857]\n  Expected  [0.1, 0.01]",
    ),
    ("02.1", lambda w, b: np.abs(w).max(axis=1) / 2 ** (b - 1), "Yours     [0.0875, 0.00875]"),
    ("02.1", lambda w, b: np.abs(w).max(axis=1) / (2 ** (b - 1) - 1), "Yours     [0, 1]\n  Expected  [1, 1]"),
    ("02.1", lambda w, b: np.abs(w).max() / (2 ** (b - 1) - 1), "shape () instead of (2,)"),
    ("02.2", _log_rounded, "fails"),
    ("02.2", lambda w: np.log2(np.abs(w).max() / np.abs(w).max(axis=1)), "integers are expected"),
    ("02.2", lambda w: np.floor(np.log2(np.max(w) / np.max(w, axis=1))).astype(int), "fails"),
    ("02.3", lambda a, b, f: (np.array(a) * f, np.array(b) / f), "fails"),
    ("02.3", lambda a, b, f: (np.array(a) * np.array(f)[:, None], np.array(b) * f), "fails"),
    ("02.3", lambda a, b, f: (np.array(a) * np.array(f)[:, None], np.array(b) / np.array(f)[:, None]), "fails"),
    ("02.4", "a", "the scale stands before it"),
    ("02.4", "d", 'not "d"'),
    ("02.5", "b", "per channel has 8 bits too"),
    ("02.5", "d", "the float row as well"),
    ("03.1", lambda *n: _folded(*n, root=False), "Expected  [1, -2, -0.9]"),
    ("03.1", lambda *n: _folded(*n, inside=False), "Expected  [1, -2, -0.9]"),
    ("03.1", lambda *n: _folded(*n)[-1], "shape () instead of (3,)"),
    ("03.2", lambda w, b, z: b + z * sum(w), "Yours     10\n  Expected  46"),
    ("03.2", lambda w, b, z: b - z, "Yours     31\n  Expected  46"),
    ("03.2", lambda w, b, z: -z * sum(w), "Yours     18\n  Expected  46"),
    ("03.3", lambda *n: _requantized(*n, clamp=False), "Yours     500\n  Expected  127"),
    ("03.3", lambda *n: _requantized(*n, away=False), "Yours     8\n  Expected  7"),
    ("03.3", lambda a, m, r, z: max(-128, min(127, (a * m >> 31 >> r) + z)), "fails"),
    ("03.3", lambda a, m, r, z: float(_requantized(a, m, r, z)), "an integer is expected, this is a float"),
    ("03.4", _bits_of, "Yours     9\n  Expected  8"),
    ("03.4", lambda w, b, z: _bits_of(w, b, z, symmetric=True), "Yours     19\n  Expected  20"),
    ("03.4", lambda w, b, z: 32, "Yours     32\n  Expected  8"),
    ("03.5", "a", 'not "a": the code 0 stands for'),
    ("03.5", "c", "only where Z is −128"),
    ("04.1", lambda b: (min(map(min, b)), max(map(max, b))), "Yours     [2, 3]\n  Expected  [0, 3]"),
    ("04.1", lambda b: (min(0.0, *b[-1]), max(0.0, *b[-1])), "Yours     [-1, 0]\n  Expected  [-1, 2]"),
    ("04.1", lambda b: (np.mean([min(0.0, *x) for x in b]), np.mean([max(0.0, *x) for x in b])), "Yours     [-0.5, 1]"),
    ("04.2", lambda v, k: (np.mean(v) - k * np.std(v), np.mean(v) + k * np.std(v)), "Expected  [0, 4]"),
    (
        "04.2",
        lambda v, k: (max(min(v), np.mean(v) - k * np.std(v)), min(max(v), np.mean(v) + k * np.std(v))),
        "Yours     [5, 6]\n  Expected  [0, 6]",
    ),
    ("04.2", lambda v, k: (-k * np.std(v, ddof=1), k * np.std(v, ddof=1)), "Expected  [-2.23607, 2.23607]"),
    ("04.3", lambda c, w, p: _edge(c, w, p, left=1), "Yours     0.5\n  Expected  1"),
    ("04.3", lambda c, w, p: _edge(c, w, 100 - p), "Yours     0.5\n  Expected  1"),
    ("04.3", lambda c, w, p: _edge(c, w, p, strict=True), "Yours     1.5\n  Expected  1"),
    ("04.4", lambda a, ea, b, eb: np.add(a, b), "Yours     [6, 2, 3, 5]\n  Expected  [8, 7, 0, 1]"),
    ("04.4", _halved_once, "Expected  [15, 0, 0, 1]"),
    ("04.4", lambda a, ea, b, eb: [*a, *b], "shape (8,) instead of (4,)"),
    ("04.5", lambda v, t, b: max(map(abs, v)), "fails"),
    ("04.5", lambda v, t, b: max(t), "Yours     2\n  Expected  1"),
    ("04.5", lambda v, t, b: _searched(v, t, b, clamp=False), "fails"),
    ("04.5", lambda v, t, b: _searched(v, t, b, power=1), "fails"),
    ("04.6", "a", 'not "a"'),
    ("04.6", "b", "counts do not know who came first"),
    ("05.1", lambda f, s: _equalizing(f, s, root=False), "Yours     [16, 0.0625]\n  Expected  [4, 0.25]"),
    ("05.1", lambda f, s: _equalizing(f, s, turned=True), "Expected  [4, 0.25]"),
    ("05.1", lambda f, s: _equalizing(f, s, careful=False), "Yours     [0, 0.5]\n  Expected  [1, 0.5]"),
    ("05.2", lambda m, s, w, b: _absorbing(m, s, w, b, clamp=False), "Yours     [7.5]\n  Expected  [15]"),
    ("05.2", lambda m, s, w, b: _absorbing(m, s, w, b, sigmas=0), "Yours     [22.5]\n  Expected  [15]"),
    ("05.2", lambda m, s, w, b: np.subtract(b, _absorbing(m, s, w, np.zeros(len(b)))), "Yours     [-13]"),
    ("05.3", lambda w, b, s, m: b + _shift(w, s, m), "Yours     0.37\n  Expected  0.63"),
    ("05.3", lambda w, b, s, m: b - _shift(w, s, m, rounded=np.trunc), "fails"),
    ("05.3", lambda w, b, s, m: -_shift(w, s, m), "Yours     0.13\n  Expected  0.63"),
    ("05.4", _error_of_rounding, "Yours     0.16\n  Expected  0.01"),
    ("05.4", lambda w, s, x: _error_of_rounding(w, s, x, rounded=np.ceil), "Yours     0.36\n  Expected  0.01"),
    ("05.5", "b", "this one was divided"),
    ("05.5", "d", "no longer be cut"),
    ("06.1", lambda r, q, s: np.mean(np.abs(np.subtract(q, r))) / s, "fails"),
    ("06.1", lambda r, q, s: np.sqrt(np.mean(np.subtract(q, r) ** 2)), "Expected  0.282843"),
    ("06.1", lambda r, q, s: np.std(np.subtract(q, r)) / s, "fails"),
    ("06.2", lambda a, b: (np.mean(a) - np.mean(b), _unpaired_error(a, b)), "fails"),
    ("06.2", lambda a, b: (np.subtract(b, a).mean(), np.subtract(a, b).std() / len(a) ** 0.5), "Expected  [0.25, "),
    ("06.2", lambda a, b: (np.subtract(a, b).mean(), np.subtract(a, b).std()), "fails"),
    ("06.3", lambda p, k: np.mean([d for i, d in enumerate(p) if i != k]), "Yours     40\n  Expected  36.9897"),
    ("06.3", lambda p, k: -10 * np.log10(sum(10 ** (-d / 10) for d in p)), "Expected  36.9897"),
    ("06.3", lambda p, k: -20 * np.log10(sum(10 ** (-d / 20) for i, d in enumerate(p) if i != k)), "fails"),
    ("06.4", lambda s, z, so, zo, n: _sigmoid_codes(s, z, so, zo, n, clamp=False), "fails"),
    ("06.4", lambda s, z, so, zo, n: _sigmoid_codes(s, 0, so, zo, n), "fails"),
    ("06.4", lambda s, z, so, zo, n: _sigmoid_codes(s, z, so, 0, n), "fails"),
    ("06.4", lambda s, z, so, zo, n: _sigmoid_codes(s, z, so, zo, n) * 1.0, "integers are expected, these are floats"),
    ("06.5", "a", 'not "a"'),
    ("06.5", "c", "nothing of it is inherited"),
    ("06.5", "d", "the grid is bad"),
    ("07.1", lambda c, b: -(-sum(map(operator.mul, c, b)) // 8), "Yours     3\n  Expected  4"),
    ("07.1", lambda c, b: sum(n * w // 8 for n, w in zip(c, b, strict=True)), "Yours     2\n  Expected  4"),
    ("07.1", lambda c, b: sum(c), "Yours     8\n  Expected  3"),
    ("07.2", _bits_downhill, "Yours     [4, 8, 4]\n  Expected  [8, 8, 4]"),
    ("07.2", lambda *n: _bits_tried(*n, strict=True), "Yours     [4]\n  Expected  [8]"),
    ("07.2", lambda c, w, k, b: [w[-1]] * len(c), "Yours     [8, 8, 8]\n  Expected  [8, 8, 4]"),
    ("07.3", lambda m, v: sum(np.array(one) @ np.array(m) @ one for one in v), "Yours     10\n  Expected  5"),
    ("07.3", lambda m, v: np.trace(np.array(m)), "Yours     5\n  Expected  7"),
    ("07.3", lambda m, v: np.mean([np.sum(np.array(m) @ one) for one in v]), "fails"),
    ("07.4", lambda i, o, k, h, w, g, a, b: i * o * k * k * h * w * a * b, "Yours     14745600\n  Expected  921600"),
    ("07.4", lambda i, o, k, h, w, g, a, b: i // g * o * k * k * h * w * (a + b), "Yours     15360"),
    ("07.4", lambda i, o, k, h, w, g, a, b: i // g * o * k * k * a * b, "Yours     960\n"),
    ("07.5", "a", "the time is the same"),
    ("07.5", "b", "a byte of its own"),
    ("08.1", lambda *n: _passed(*n, whole=True), "Yours     [1, 2, 3]\n  Expected  [1, 2, 0]"),
    ("08.1", lambda *n: _passed(*n, closed=True), "Yours     [0, 0, 0]\n  Expected  [1, 1, 0]"),
    ("08.1", lambda *n: _passed(*n, upper=True), "fails"),
    ("08.1", lambda x, *n: ql.fake_quantize(torch.tensor(x), ql.QParams(n[1], 0, n[2], n[3])), "Expected  [1, 2, 0]"),
    ("08.2", lambda *n: _pulled(*n, clipped=False), "Yours     0\n  Expected  -5"),
    ("08.2", lambda *n: _pulled(*n, times=n[2]), "Yours     0.1\n  Expected  0.2"),
    ("08.2", lambda *n: _pulled(*n, sign=-1), "Yours     -0.2\n  Expected  0.2"),
    ("08.3", lambda *n: _followed(*n, start=False), "Yours     [-0.1, 0.2]\n  Expected  [-1, 2]"),
    ("08.3", lambda *n: _followed(*n, zero=False), "fails"),
    ("08.3", lambda *n: _followed(*n, keep=True), "Expected  [0, 2.98]"),
    ("08.3", lambda b, m: (min(0.0, *map(min, b)), max(0.0, *map(max, b))), "Yours     [-3, 4]\n  Expected  [-2, 3]"),
    ("08.4", lambda u, s: math.ceil(s / abs(u)), "Yours     4\n  Expected  2"),
    ("08.4", lambda u, s: math.ceil(s / 2 / u), "Yours     -2\n  Expected  3"),
    ("08.4", lambda u, s: int(s / 2 / abs(u)), "Yours     1\n  Expected  2"),
    ("08.5", "a", "collecting new statistics changes no step size"),
    ("08.5", "d", "same codes"),
    ("09.1", lambda lows, limit: int(np.argmax(lows)), "Yours     2\n  Expected  1"),
    (
        "09.1",
        lambda lows, limit: next((i for i, low in enumerate(lows) if low > limit), -1),
        "Yours     -1\n  Expected  1",
    ),
    ("09.1", lambda lows, limit: next((i for i, low in enumerate(lows) if low >= limit), len(lows)), "Expected  -1"),
    ("09.2", lambda d, p: math.floor(d * (196 / p) ** 2), "Yours     384\n  Expected  385"),
    ("09.2", lambda d, p: math.ceil(d * (1.96 / p) ** 2), "Yours     1\n  Expected  2500"),
    ("09.2", lambda d, p: math.ceil(d * (196 / p) ** 2), "Yours     0\n  Expected  1"),
    ("09.3", lambda e, f, s, same, limit: 2 if e - s > limit else 1 if e - f > limit else 3 - 3 * same, "Yours     2"),
    ("09.3", lambda e, f, s, same, limit: 3 if not same else 1 if e - f > limit else 2, "Yours     3\n  Expected  2"),
    (
        "09.3",
        lambda e, f, s, same, limit: 1 if e - f > limit else 2 if f - s > limit else 0,
        "Yours     0\n  Expected  3",
    ),
    ("09.3", lambda e, f, s, same, limit: 1 if e - f >= limit else 2 if f - s > limit else 3 - 3 * same, "Expected  3"),
    ("09.3", lambda e, f, s, same, limit: 1 if e - f > limit else 2 if e - s > limit else 3 - 3 * same, "Expected  0"),
    (
        "09.3",
        lambda e, f, s, same, limit: 1 if abs(e - f) > limit else 2 if f - s > limit else 3 - 3 * same,
        "Yours     1",
    ),
    ("09.3", lambda e, f, s, same, limit: 1 if e - f > 1 else 2 if f - s > 1 else 3 - 3 * same, "fails"),
    ("09.4", "a", "2.5 points worse"),
    ("09.4", "d", "selects luck"),
    ("09.5", "a", "ahead by luck"),
    ("09.5", "c", 'not "c"'),
    ("10.1", lambda m, a, n, b: (m + n, (a + b) / 2), "fails"),
    ("10.1", lambda m, a, n, b: (m * a + n * b) / (m + n), "shape () instead of (2,)"),
    ("10.2", lambda s: 2.0 ** np.floor(np.log2(s)), "Yours     0.25\n  Expected  0.5"),
    ("10.2", lambda s: 2.0 ** (np.floor(np.log2(s)) + 1), "Yours     0.5\n  Expected  0.25"),
    ("10.3", lambda c, s: int(np.argmax(np.cumsum(c) >= s * np.sum(c))) + 1, "Yours     1\n  Expected  2"),
    ("10.3", lambda c, s: _energy_edge(c, s, centre=0.0), "fails"),
    ("10.3", lambda c, s: _energy_edge(c, s) - 1, "Yours     1\n  Expected  2"),
    ("10.4", "a", "Reverse their order"),
    ("10.4", "c", 'not "c"'),
    ("10.5", "a", "from machine to machine"),
    ("10.5", "c", 'not "c"'),
    ("11.1", lambda p, h: round(1.96**2 * p * (1 - p) / h**2), "fails"),
    ("11.1", lambda p, h: math.ceil(1.96 * p * (1 - p) / h**2), "Yours     279\n  Expected  547"),
    ("11.1", lambda p, h: math.ceil(1.96**2 * p * (1 - p) / h**2), "Yours     0\n  Expected  1"),
    ("11.2", lambda r, b: 2 * int((2 ** (b - 1) - 1) / r) + 1, "Yours     1\n  Expected  3"),
    ("11.2", lambda r, b: round((2 ** (b - 1) - 1) / r), "Yours     1\n  Expected  3"),
    ("11.2", lambda r, b: 2 * round(2 ** (b - 1) / r) + 1, "fails"),
    ("11.3", _tail, "Yours     0.03125\n  Expected  0.0625"),
    ("11.3", lambda b, c: 2 * _tail(b, c), "Yours     1.3125\n  Expected  1"),
    ("11.3", lambda b, c: min(1.0, 2 * _tail(b, c, more=1)), "Yours     0\n  Expected  0.0625"),
    ("11.4", "a", "neither is excluded"),
    ("11.4", "b", "the network is another one"),
    ("11.4", "d", "leaves zero out"),
]


@pytest.mark.parametrize(("number", "answer", "message"), WRONG)
def test_wrong_answer_fails(number, answer, message, capsys):
    assert ql.check(number, answer) is False
    out = capsys.readouterr().out
    assert out.startswith(f"✘ {number} ")
    assert message in out


def test_every_exercise_has_two_wrong_answers():
    listed = [number for number, _, _ in WRONG]
    assert all(listed.count(number) >= 2 for number in exercises())


def _raises(lo, hi, bits):
    return 1 / 0


BAD = [
    (_raises, "Yours     raised ZeroDivisionError: division by zero"),
    (lambda lo: 0, "raised TypeError"),
    (lambda lo, hi, bits: (0.5, float("nan")), "(NaN)"),
    (lambda lo, hi, bits: "text", "numbers are expected"),
    (lambda lo, hi, bits: 3, "shape () instead of (2,)"),
    (lambda lo, hi, bits: (1, [2, 3]), "a number or a list of numbers is expected, this is tuple"),
    (lambda lo, hi, bits: object(), "this is object"),
    (lambda lo, hi, bits: None if lo > 0 else (0.5, -2), "nothing was returned"),
    (3, "a function is asked for, but this is an int: pass its name"),
]


@pytest.mark.parametrize(("answer", "message"), BAD)
def test_bad_answer_gets_a_clear_line(answer, message, capsys):
    assert ql.check("01.1", answer) is False
    assert message in capsys.readouterr().out


def test_integers_must_be_integers(capsys):
    for answer, message in [(float("nan"), "a float"), (2.0, "a float"), (True, "a truth value")]:
        assert not ql.check("00.1", lambda weights, bits, answer=answer: answer)
        assert f"an integer is expected, this is {message}" in capsys.readouterr().out


def test_real_answers_that_are_nan(capsys):
    assert not ql.check("01.3", lambda values, bits: float("nan"))
    assert "(NaN)" in capsys.readouterr().out


def test_interrupts_are_not_swallowed():
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ql.check("01.1", stop)


@pytest.mark.parametrize("number", ["01.9", "1.1", "", None, 1.1])
def test_unknown_id_lists_the_known(number, capsys):
    assert ql.check(number, 3) is False
    out = capsys.readouterr().out
    assert out.startswith(f"There is no exercise {number!r}; there are 00.1, ")
    assert "01.5" in out


@pytest.mark.parametrize("answer", [5, "e", "bb", ["b"], float("nan")])
def test_a_choice_wants_a_letter(answer, capsys):
    assert not ql.check("00.4", answer)
    assert "answer with one letter in quotes, a, b, c, d: got" in capsys.readouterr().out


@pytest.mark.parametrize("answer", ["b", "B", " b.", "(b)"])
def test_a_letter_may_be_written_in_many_ways(answer, capsys):
    assert ql.check("00.4", answer)


def test_torch_numpy_and_lists_count_alike(capsys):
    solution = _run(SOLUTIONS["01.2"])["quantize"]
    for convert in (torch.as_tensor, list, tuple, np.asarray):
        assert ql.check("01.2", lambda *arguments, convert=convert: convert(solution(*arguments)))


def test_an_answer_cannot_change_its_cases(capsys):
    def spoils(values, bits):
        values[0] = 99.0

    ql.check("01.3", spoils)
    assert 99.0 not in exercises()["01.3"].cases[0]["values"]


def test_value_exercises_never_show_the_value():
    exercise = ValueExercise(id="9.9", title="t", value=255, hint="Count again.")
    assert exercise.judge(255) == []
    assert exercise.judge(256) == ["256 is not it. Count again."]
    assert exercise.judge(255.0) == ["255 is not it (an integer is expected, this is a float). Count again."]
    assert exercise.judge(len) == ["a value is asked for, but this is a function: call it, and pass what it returns"]


def test_choices_explain_every_wrong_letter():
    for exercise in exercises().values():
        if isinstance(exercise, ChoiceExercise):
            assert sorted([exercise.right, *exercise.why_not]) == list("abcd")
