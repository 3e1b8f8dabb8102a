"""A network that brings no preprocessing: the doctor names the rule of the training, if the user's is another."""

import pytest
import torch
from torch import nn

import qlearn as ql
from qlearn.analysis.doctor.corrections import USUAL_RULES, numbers, other_rules
from qlearn.analysis.doctor.sample import sample
from qlearn.cli import main
from qlearn.cli.sources import parse_preprocess
from qlearn.zoo.data import Dataset

SIZE = (32, 32)
RULES = dict(zip(("none", "half", "quarter", "imagenet"), USUAL_RULES, strict=True))
TYPED = {
    "none": "mean=0,std=1",
    "half": "mean=0.5,std=0.5",
    "quarter": "mean=0.5,std=0.25",
    "imagenet": "mean=0.485:0.456:0.406,std=0.229:0.224:0.225",
}


def prepared(dataset, rule):
    """The same pictures, prepared by another rule."""
    return Dataset(dataset.name, dataset.source, ql.Preprocess(SIZE, *rule), dataset.labels)


def pictures(part, rule):
    return prepared(getattr(ql.load("tiny_resnet")[1], part), rule)


def module(rule, seed=0, norms=3):
    """Three convolutions whose batch norms have measured the digits, prepared by a rule."""
    torch.manual_seed(seed)
    layers = []
    for place, (inputs, outputs) in enumerate(((3, 16), (16, 24), (24, 24))):
        norm = [nn.BatchNorm2d(outputs, momentum=None)] if place < norms else []
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), *norm, nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))
    with torch.no_grad():
        for x, _ in pictures("calibration", rule):
            net.train()(x)
    return net.eval()


def own_network(rule, **choices):
    return ql.trace(module(rule, **choices), torch.zeros(1, 3, *SIZE), name="own")


def examined(net, rule, **choices):
    return ql.diagnose(
        net, pictures("evaluation", rule), calibration=pictures("calibration", rule), measure=False, **choices
    )


def about_normalisation(diagnosis):
    return [one for one in diagnosis.findings if one.fault == "wrong_normalisation"]


@pytest.mark.parametrize("wrong", ["none", "quarter", "imagenet"])
def test_the_rule_of_the_training_is_named(wrong):
    findings = about_normalisation(examined(own_network(RULES["half"]), RULES[wrong]))
    assert {finding.site for finding in findings} == {"pictures", "calibration"}
    for finding in findings:
        assert "the network was trained on pictures normalised with mean=0.5,std=0.5" in finding.sentence
        assert "No usual mistake" not in finding.sentence
        assert finding.confidence == 0.9
        assert finding.evidence["divergence_if_corrected"] * 4 < finding.evidence["divergence"]
        (remedy,) = finding.remedies
        assert "--preprocess size=32,mean=0.5,std=0.5, or" in remedy.text


def test_no_finding_with_the_right_rule():
    for name, rule in RULES.items():
        diagnosis = examined(own_network(rule), rule)
        assert not diagnosis.faults & {"wrong_normalisation", "swapped_colours"}, name


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("true", RULES)
@pytest.mark.parametrize("wrong", RULES)
def test_whatever_is_named_is_the_rule_of_the_training_or_its_neighbour(true, wrong, seed):
    """0.5 with 0.25 and ImageNet's rule are near each other: told apart, or not more than likely."""
    for finding in about_normalisation(examined(own_network(RULES[true], seed=seed), RULES[wrong])):
        assert wrong != true
        assert "the network was trained on pictures" in finding.sentence
        if f"{TYPED[true]} (a first" not in finding.sentence and f"({TYPED[true]})" not in finding.sentence:
            assert {true, wrong} & {"quarter", "imagenet"}
            assert finding.sure in ("likely", "possible")


def test_a_rule_that_is_none_of_the_usual_ones_can_be_the_users():
    """What prepared the pictures may be any rule: it is known."""
    (finding, _) = about_normalisation(examined(own_network(RULES["half"]), ((0.1, 0.2, 0.3), (0.9, 0.8, 1.1))))
    assert "normalised with mean=0.5,std=0.5" in finding.sentence


def test_two_rules_that_fit_alike_are_both_named():
    """Trained between two rules: neither is more than likely."""
    between = ((0.490, 0.471, 0.439), (0.236, 0.233, 0.234))
    (finding, _) = about_normalisation(examined(own_network(between), RULES["none"]))
    assert "fits nearly as well" in finding.sentence
    assert TYPED["quarter"] in finding.sentence
    assert TYPED["imagenet"] in finding.sentence
    assert finding.sure == "likely"


def test_one_batch_norm_alone_is_not_believed_as_much():
    for finding in about_normalisation(examined(own_network(RULES["half"], norms=1), RULES["none"])):
        assert "mean=0.5,std=0.5; but no later batch norm confirms it" in finding.sentence
        assert finding.sure == "likely"


def test_numbers_from_0_to_1_without_a_data_set():
    batches = {part: [x for x, _ in pictures(part, RULES["none"])] for part in ("calibration", "evaluation")}
    net = own_network(RULES["quarter"])
    diagnosis = ql.diagnose(net, batches["evaluation"], calibration=batches["calibration"], measure=False)
    (finding, _) = about_normalisation(diagnosis)
    assert TYPED["quarter"] in finding.sentence
    (remedy,) = finding.remedies
    assert "--preprocess size=32,mean=0.5,std=0.25, or ql.Preprocess(size=(32, 32), mean=(0.5," in remedy.text
    assert other_rules(sample([x - 0.1 for x in batches["evaluation"]], 8, "pictures")) == ()


def test_a_network_with_a_rule_of_its_own_is_believed():
    """Stored and used are the same: the statistics are to blame, not the rule."""
    rule = ql.Preprocess(SIZE, *RULES["none"])
    net = ql.trace(module(RULES["half"]), torch.zeros(1, 3, *SIZE), name="own", preprocess=rule)
    findings = about_normalisation(examined(net, RULES["none"]))
    assert len(findings) == 2
    for finding in findings:
        assert "the network was trained on" not in finding.sentence
        assert finding.confidence <= 0.7


def test_other_pictures_are_explained_by_no_rule():
    """Noise: no rule brings it near the statistics of the digits."""
    net = own_network(RULES["half"])
    noise = torch.rand(128, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    findings = about_normalisation(ql.diagnose(net, noise[:64], calibration=[noise[64:]], measure=False))
    assert len(findings) == 2
    assert all("No usual mistake explains it" in finding.sentence for finding in findings)


@pytest.mark.parametrize("name", RULES)
def test_mends_are_the_rule_itself(name):
    """Undoing the user's rule and applying another gives what Preprocess computes."""
    theirs = sample(pictures("evaluation", ((0.1, 0.2, 0.3), (0.9, 0.8, 1.1))), 4, "pictures")
    expected = sample(pictures("evaluation", RULES[name]), 4, "pictures").x
    (correction,) = (one for one in other_rules(theirs) if one.rule == RULES[name])
    torch.testing.assert_close(correction.mend(theirs.x), expected, rtol=0, atol=1e-5)


def test_what_is_named_can_be_typed():
    for name, (mean, std) in RULES.items():
        rule = parse_preprocess(f"size=32:48,{TYPED[name]},resize=40")
        assert (rule.mean, rule.std) == (mean, std)
        assert TYPED[name] == f"mean={numbers(mean)},std={numbers(std)}"


def test_on_the_command_line(capsys, tmp_path, monkeypatch):
    """What --preprocess says is the user's rule, not the network's."""
    Image = pytest.importorskip("PIL.Image")
    st = pytest.importorskip("safetensors.torch")
    st.save_file(module(RULES["half"]).state_dict(), tmp_path / "own.safetensors")
    (tmp_path / "pictures").mkdir()
    for place, picture in enumerate(ql.load("tiny_resnet")[1].evaluation.subset(96).pictures(range(96))):
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{place:02}.png")
    (tmp_path / "doctors_own_nets.py").write_text(
        "from torch import nn\n\n\ndef build():\n"
        "    return nn.Sequential(\n"
        "        nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU(),\n"
        "        nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),\n"
        "        nn.Conv2d(24, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU(),\n"
        "        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 10))\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = ["doctor", "doctors_own_nets:build", "--checkpoint", "own.safetensors", "--data", "pictures", "--quick"]
    assert main([*command, "--preprocess", "size=32"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "It looks as if the network was trained on pictures normalised with mean=0.5,std=0.5" in out
    assert "--preprocess size=32,mean=0.5,std=0.5, or ql.Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5)" in out
    assert main([*command, "--preprocess", "size=32,mean=0.5,std=0.5"]) == 0
    assert "normalis" not in capsys.readouterr().out.split("not looked for")[0]
