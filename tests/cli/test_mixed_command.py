"""``qlearn mixed`` as a user meets it: tables, JSON, a saved model, and errors that name the remedy."""

import json

import pytest

import qlearn as ql
from qlearn.cli import main, mixed_run

pytest.importorskip("scipy")
QUICK = ["--images", "100", "--sensitivity-images", "20"]


def run(capsys, *arguments):
    code = main(["mixed", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_tables_and_a_model_that_keeps_the_budget(capsys, tmp_path):
    file = tmp_path / "mixed.qlearn"
    code, out, _ = run(capsys, "tiny_resnet", *QUICK, "--budget", "4bit", "--pareto", "--output", file)
    assert code == 0
    table, networks, front = out.split("\n\n")
    assert "cost by kl" in table
    assert len(table.splitlines()) == 2 + 10  # one line per layer with weights
    rows = {line.split("  ")[0]: line for line in networks.splitlines()}
    assert {"float", "uniform 4 bits", "program, kl", "greedy, kl"} <= set(rows)
    assert "allocations that no other beats" in front
    model = ql.IntegerModel.load(file)
    uniform = int(rows["uniform 4 bits"].split()[6].replace(",", ""))
    assert model.packed_bytes <= uniform < model.weight_bytes
    assert len({layer.weight_qparams.bits for layer in model.layers if layer.weight is not None}) > 1


def test_json_of_several_measures(capsys):
    code, out, _ = run(
        capsys, "tiny_resnet", *QUICK, "--json", "--measure", "sqnr", "hessian", "--vectors", "2", "--budget", "40000",
        "--search", "program", "--weight-bits", "3", "5",
    )  # fmt: skip
    document = json.loads(out)
    assert code == 0
    assert [row["name"] for row in document["rows"]] == ["program, sqnr", "program, hessian"]
    assert all(row["packed_bytes"] <= 40000 == row["budget"] for row in document["rows"])
    assert all(row["stored_bytes"] > 40000 for row in document["rows"])
    assert set(document["costs"]) == {"sqnr", "hessian"}
    assert set(document["costs"]["sqnr"]["conv"]["weights"]) == {"3", "5"}
    assert set(document["traces"]["conv"]) == {"trace", "standard_error", "weights"}
    assert "--measure sqnr hessian" in document["command"]
    assert document["versions"].keys() == {"torch", "scipy", "numpy"}


def test_bit_operations_with_activations(capsys):
    code, out, _ = run(
        capsys, "tiny_resnet", *QUICK, "--json", "--resource", "bops", "--budget", "4bit",
        "--weight-bits", "2", "4", "8", "--activation-bits", "4", "8",
    )  # fmt: skip
    assert code == 0
    uniform, program, greedy = json.loads(out)["rows"]
    assert program["bit_operations"] <= uniform["bit_operations"] == uniform["budget"]
    assert greedy["bit_operations"] <= uniform["budget"]
    assert set(program["bits"]["activations"].values()) <= {4, 8}
    assert program["cost"] <= greedy["cost"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "lots"], "write 4bit, or a number"),
        (["--workers", "0"], "at least 1"),
        (["--budget", "100"], "with the fewest bits of every tensor it takes"),
        (["--budget", "4bit", "--weight-bits", "5", "8"], "with the fewest bits of every tensor it takes"),
        (["--measure", "hessian", "--activation-bits", "4"], "leave --activation-bits out"),
        (["--output", "/no/such/folder/x.qlearn"], "its folder does not exist"),
    ],
)
def test_errors(capsys, arguments, message, monkeypatch):
    """All before anything is measured, which can take minutes."""
    monkeypatch.setattr(mixed_run, "measure_choices", lambda *a, **k: pytest.fail("measured before it was refused"))
    code, out, err = run(capsys, "tiny_resnet", *QUICK, *arguments)
    assert code == 1
    assert message in err
    assert out == ""
