"""Networks that nobody would build on purpose: the same codes everywhere, or a refusal that names the layer."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import qlearn as ql
from qlearn.errors import ExportError
from qlearn.integer.profiles import PROFILES, profile_named

pytest.importorskip("ai_edge_litert")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from runtime_models import from_file, from_uint8, interpreter, session, to_file, to_uint8

pytestmark = [
    pytest.mark.runtimes,
    pytest.mark.filterwarnings("ignore::qlearn.errors.FallbackWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),  # torch's, about its own speed
]


class Odd(nn.Module):
    """A convolution from three channels to four, a linear layer, and a function of both and the picture."""

    def __init__(self, function, linear=(1, 1)):
        super().__init__()
        self.conv, self.linear, self.function = nn.Conv2d(3, 4, 3), nn.Linear(*linear), function

    def forward(self, x):
        return self.function(self, x)


def with_conv(function, **options):
    return Odd(lambda net, x: function(net.conv(x)), **options)


def filled(weight, bias, function):
    module = with_conv(function)
    module.conv.weight.fill_(weight)
    module.conv.bias.copy_(torch.tensor(bias))
    return module


def cancelled():
    """Two convolutions whose sum is 0, but for rounding."""
    module = Odd(lambda net, x: net.conv(x) + net.other(x))
    module.other = nn.Conv2d(3, 4, 3)
    module.other.weight.copy_(-module.conv.weight * (1 + 1e-7))
    module.other.bias.copy_(-module.conv.bias)
    return module


def named():
    module = nn.Sequential()
    for name, layer in (("größe→🚀", nn.Conv2d(3, 4, 3)), ("input", nn.Conv2d(4, 4, 1)), ("output", nn.ReLU()),
                        ("a/b c'", nn.Conv2d(4, 4, 1)), ("x:codes", nn.Conv2d(4, 4, 1))):  # fmt: skip
        module.add_module(name, layer)
    return module


def chain(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def conv(*args, **options):
    return lambda: nn.Conv2d(*args, **options)


NETWORKS = {
    "groups of three": chain(conv(3, 9, 3, groups=3), nn.ReLU, conv(9, 15, (1, 5), groups=3, padding=(0, 2))),
    "a depthwise multiplier": chain(conv(3, 12, 3, groups=3, dilation=(1, 3)), nn.ReLU6),
    "dilation and odd padding": lambda: Odd(
        lambda net, x: F.conv2d(F.pad(x, (2, 0, 1, 3)), net.conv.weight, dilation=2)
    ),
    "an even kernel, same": chain(conv(3, 5, (4, 2), padding="same"), nn.ReLU),
    "rows and columns": chain(conv(3, 4, (1, 7), padding=(0, 3)), conv(4, 4, (7, 1), padding=(3, 0))),
    "strides over the kernel": chain(conv(3, 4, 1, stride=3), nn.ReLU, conv(4, 4, 2, stride=3)),
    "three times itself": lambda: with_conv(lambda y: torch.cat([y, y, y], 1)),
    "itself plus itself": lambda: with_conv(lambda y: F.relu(y + y)),
    "itself minus itself": lambda: with_conv(lambda y: y - y),
    "itself times itself": lambda: with_conv(lambda y: y * y),
    "the input plus itself": lambda: Odd(lambda net, x: x + x),
    "nothing": nn.Identity,
    "all zeros": lambda: filled(0.0, 0.0, lambda y: y),
    "all constants": lambda: filled(0.0, [-2.0, 0, 1, 3], F.relu),
    "all cut off": lambda: filled(0.1, -100.0, F.relu6),
    "nothing but rounding": cancelled,
    "ReLU after ReLU": chain(conv(3, 4, 3), nn.ReLU6, nn.ReLU6, nn.ReLU),
    "other limits": chain(conv(3, 4, 3), lambda: nn.Hardtanh(-0.3, 0.7)),
    "a pool after a ReLU": chain(conv(3, 4, 3), nn.ReLU, lambda: nn.MaxPool2d(3, 2, 1)),
    "a padded pool of both signs": lambda: nn.MaxPool2d(3, 2, 1),
    "a mean with its padding": lambda: nn.AvgPool2d(3, 2, 1),
    "a mean without its padding": lambda: nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False),
    "a mean of all in a window": lambda: nn.AvgPool2d(12),
    "linear after flatten": chain(conv(3, 4, 3, stride=2), nn.Flatten, lambda: nn.Linear(100, 7)),
    "linear after channels last": lambda: Odd(
        lambda net, x: net.linear(net.conv(x).permute(0, 2, 3, 1).flatten(1)), linear=(400, 7)
    ),
    "linear over four axes": lambda: Odd(lambda net, x: net.linear(net.conv(x).permute(0, 2, 3, 1)), linear=(4, 7)),
    "softmax over four axes": lambda: with_conv(lambda y: torch.softmax(y, -1)),
    "a gate for each pixel": lambda: with_conv(lambda y: y * torch.sigmoid(y.mean(1, keepdim=True))),
    "a mean over all axes": lambda: with_conv(lambda y: y.mean((1, 2, 3))),
    "five axes": lambda: with_conv(lambda y: y.view(-1, 2, 2, 10, 10).transpose(1, 2).reshape(-1, 4, 10, 10)),
    "slices from behind": lambda: with_conv(lambda y: y[:, 1:-1, ::3, -4:]),
    "a layer in float": chain(conv(3, 4, 3), nn.GELU, conv(4, 4, 1)),
    "odd names": named,
    "sixty layers": chain(*[conv(3, 3, 1)] * 60),
}
LITERT_REFUSES = {
    "nothing but rounding": "times finer than what it is computed from",
    "a padded pool of both signs": "not TensorFlow's SAME",
    "a mean without its padding": "not TensorFlow's SAME",
    "linear over four axes": "four axes",
    "softmax over four axes": "four axes",
    "a layer in float": "GELU has no integer kernel",
}
ONNX_REFUSES = {"a layer in float": "GELU has no integer kernel"}


def in_litert(path, profile, codes):
    made, outputs = interpreter(path.read_bytes(), profile), []
    for picture in codes:
        made.set_tensor(made.get_input_details()[0]["index"], to_file(picture[None]))
        made.invoke()
        outputs.append(from_file(made.get_tensor(made.get_output_details()[0]["index"])))
    return np.concatenate(outputs)


def exported(model, codes, path):
    """The codes that the model's runtime gives, if it has one."""
    if model.policy == "onnxruntime":
        ql.export_onnx(model, path, integers=True)
        made = session(path)
        feed = {made.get_inputs()[0].name: to_uint8(codes, model.layers[0].output)}
        return from_uint8(made.run(None, feed)[0], model.layer(model.output).output)
    ql.export_litert(model, path)
    return in_litert(path, model.policy, codes)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_codes_everywhere(name, tmp_path):
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(1)
        module, x = NETWORKS[name]().eval().requires_grad_(False), torch.randn(6, 3, 12, 12)
        network = ql.fold_batch_norm(ql.trace(module, x[:1]))
        table = ql.calibrate(network, [x], ql.Recipe())
    simulated = ql.quantize_model(network, ql.Recipe(), table)
    for profile in PROFILES:
        model = simulated.to_integer(profile)
        codes = profile_named(profile).quantize(1.3 * x.numpy(), model.layers[0].output)
        ours = model.run_codes(codes)
        assert np.array_equal(model.with_engine("torch").run_codes(codes), ours)
        assert np.array_equal(np.concatenate([model.run_codes(codes[i : i + 1]) for i in range(len(codes))]), ours)
        if name != "a layer in float":
            model.save(tmp_path / "net.qlearn")
            assert np.array_equal(ql.IntegerModel.load(tmp_path / "net.qlearn").run_codes(codes), ours)
        refused = (ONNX_REFUSES if profile == "onnxruntime" else LITERT_REFUSES).get(name)
        if profile == "float32":
            for site, value in simulated.codes(1.3 * x).items():
                assert np.array_equal(value.numpy(), model.codes(1.3 * x.numpy())[site]), site
        elif profile != "fixed" and refused:
            with pytest.raises(ExportError, match=refused):
                exported(model, codes, tmp_path / "net")
        elif profile != "fixed":
            assert np.array_equal(exported(model, codes, tmp_path / "net"), ours), profile
            if profile != "onnxruntime":
                again = ql.import_litert(tmp_path / "net", profile).run_codes(codes)
                assert np.array_equal(again.reshape(ours.shape), ours)
