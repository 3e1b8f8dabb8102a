"""Every committed result says what made it, and the list of them can make it again, whole or not at all."""

import dataclasses
import datetime as dt
import doctest
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(
    path for folder in ("notebooks/results", "tools/logs") for path in (ROOT / folder).iterdir() if path.name[0] != "."
)
NEVER_RECORDED = {"tools/logs/tiny_resnet.json", "tools/logs/tiny_mobilenet.json"}
"""The logs of the first trainings, from before commands were recorded."""


def load_tool():
    if "qlearn_tools_results" not in sys.modules:
        sys.path.insert(0, str(ROOT / "tools"))
        try:
            spec = importlib.util.spec_from_file_location("qlearn_tools_results", ROOT / "tools" / "results.py")
            module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(ROOT / "tools"))
    return sys.modules["qlearn_tools_results"]


tool = load_tool()
ENTRIES = {entry.file: entry for entry in tool.RESULTS}


def test_every_file_has_one_entry_and_every_entry_a_file():
    assert sorted(entry.file for entry in tool.RESULTS) == [path.relative_to(ROOT).as_posix() for path in FILES]
    names = [entry.name for entry in tool.RESULTS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_records_its_day_and_the_commands_of_its_entry(path):
    file = path.relative_to(ROOT).as_posix()
    document = json.loads(path.read_text(encoding="utf-8"))
    if file in NEVER_RECORDED:
        assert "command" not in document
        return
    heads = tool.recorded(document)
    assert sorted(head["command"] for head in heads) == sorted(ENTRIES[file].commands)
    for head in heads:
        assert dt.date(2026, 11, 1) <= dt.date.fromisoformat(head["date"]) <= dt.datetime.now(tz=dt.UTC).date()


@pytest.mark.parametrize("entry", [one for one in tool.RESULTS if not one.is_training], ids=lambda entry: entry.name)
def test_a_file_names_the_versions_that_made_it(entry):
    for head in tool.recorded(json.loads((ROOT / entry.file).read_text(encoding="utf-8"))):
        assert {"qlearn", "torch", "python"} <= set(head["versions"])


def test_versions_of_a_command_come_beside_those_of_the_tool():
    document = tool._with_head({"versions": {"scipy": "1.0", "torch": "own"}, "rows": []}, "qlearn x --json", {})
    assert document["versions"].keys() == {"qlearn", "torch", "numpy", "python", "scipy"}
    assert document["versions"]["torch"] == "own"


@pytest.mark.parametrize("entry", tool.RESULTS, ids=lambda entry: entry.name)
def test_a_command_is_one_that_exists(entry):
    for command in entry.commands:
        program, *words = command.split()
        if program == "qlearn":
            assert words[-1] == "--json"
        else:
            assert program == "python"
            source = (ROOT / words[0]).read_text(encoding="utf-8")
            assert entry.is_training or '"--output"' in source
    assert entry.minutes > 0


@pytest.fixture
def listed(monkeypatch):
    """Put entries into the list, in the place of the real ones."""
    return lambda *entries: monkeypatch.setattr(tool, "RESULTS", entries)


def entry(command, name="one", **fields):
    return tool.Result(f"notebooks/results/{name}.json", (command,), 1, **fields)


def test_a_run_of_a_tool_writes_what_its_entry_says(listed, tmp_path, capfd):
    listed(entry("python tools/calibration_size.py --draws 2 --pictures 5", "calibration_size_tiny_resnet"))
    assert tool.main(["run", "--into", str(tmp_path)]) == 0
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    assert document["command"] == "python tools/calibration_size.py --draws 2 --pictures 5"
    assert document["date"] == dt.datetime.now(tz=dt.UTC).date().isoformat()
    assert set(document["versions"]) == {"qlearn", "torch", "numpy", "python"}
    assert all(len(row["accuracy"]) == 2 for row in document["rows"])
    assert re.search(r"\[1/1\] calibration_size_tiny_resnet: made in \d", capfd.readouterr().out)


def test_what_qlearn_prints_gets_a_head_and_notes(listed, tmp_path):
    command = "qlearn quantize tiny_resnet --images 20 --json"
    listed(entry(command, notes=(("pictures", "of digits"),)))
    assert tool.main(["run", "one", "--into", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "one.json").read_text())
    assert list(document)[:4] == ["date", "command", "versions", "pictures"]
    assert document["command"] == command
    assert [row["images"] for row in document["rows"]] == [20] * len(document["rows"])


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("qlearn quantize no_such_network --json", "ended with"),
        ("qlearn info tiny_resnet", "FAILED"),  # prints no JSON
        ("python tools/runtimes.py --no-such-option", "ended with"),
    ],
)
def test_a_failure_leaves_the_old_file(command, message, listed, tmp_path, capfd):
    listed(entry(command))
    (tmp_path / "one.json").write_text("old")
    assert tool.main(["run", "--into", str(tmp_path)]) == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one.json": "old"}
    printed = capfd.readouterr().out
    assert "FAILED, the old file is as it was" in printed
    assert message in printed


def test_a_file_that_would_record_another_command_is_refused(listed, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "_run", lambda command: Path(command.split()[-1]).write_text('{"command": "other"}'))
    listed(entry("python tools/calibration_size.py"))
    (tmp_path / "one.json").write_text("old")
    assert tool.main(["run", "--into", str(tmp_path)]) == 1
    assert (tmp_path / "one.json").read_text() == "old"


def test_a_killed_run_leaves_the_old_file(tmp_path):
    """Killed between the first byte and the last, without a chance to clean up."""
    path = tmp_path / "one.json"
    path.write_text("old")
    program = (
        "import os, pathlib, provenance\n"
        f"with provenance.whole(pathlib.Path({str(path)!r})) as part:\n"
        "    part.write_text('half of the ')\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "tools", check=False)
    assert done.returncode == 9
    assert path.read_text() == "old"


def test_what_is_not_here_is_skipped_and_named(listed, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("QLEARN_DATA", raising=False)
    listed(
        entry("qlearn a --json", needs=("QLEARN_DATA",)), entry("qlearn b --json", "two", needs=("no_such_package",))
    )
    assert tool.main(["run", "--into", str(tmp_path)]) == 0
    assert list(tmp_path.iterdir()) == []
    printed = capsys.readouterr().out
    assert "[1/2] one: skipped: needs pictures and networks that do not ship, in the folder that QLEARN_DATA" in printed
    assert "[2/2] two: skipped: needs the package no_such_package" in printed


def test_names_choose_and_trainings_want_theirs(capsys):
    everything = [one.name for one in tool.chosen([])]
    assert not any(one.is_training for one in tool.chosen([]))
    assert [one.name for one in tool.chosen(["adaround*"])] == [n for n in everything if n.startswith("adaround")]
    assert [one.is_training for one in tool.chosen(["resnet20_w4a4"])] == [True]
    assert tool.main(["run", "table2"]) == 1
    assert "no result is called 'table2'" in capsys.readouterr().err
    assert tool.main(["list", "table1"]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "    python tools/table1.py"


def test_formatted_is_the_document_to_six_digits():
    document = {"a": 1 / 3, "rows": [{"x": [1.23456789, 2]}, {"y": "é"}], "deep": {"b": {"c": {"d": [1]}}}, "n": None}
    text = tool.formatted(document)
    wanted = {**document, "a": 0.333333, "rows": [{"x": [1.23457, 2]}, {"y": "é"}]}
    assert json.loads(text) == wanted
    assert '  {"x": [1.23457, 2]},\n' in text


def test_the_examples_of_provenance_run():
    assert doctest.testmod(sys.modules["provenance"]) == (0, 3)


def test_an_entry_is_a_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        tool.RESULTS[0].minutes = 0
