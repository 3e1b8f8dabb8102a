"""Data sets in memory and in files, and an engineer's own folder."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

from qlearn.errors import DataError, DataWarning, MissingDataError
from qlearn.graph.preprocess import Preprocess
from qlearn.zoo.data import Batch, Dataset, Files, Splits, draw
from qlearn.zoo.folder import from_folder

RULE = Preprocess((4, 4), (0.5,) * 3, (0.25,) * 3)


def pictures(count: int, side: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3)).astype(np.uint8)


def numbered(count: int, **options: int) -> Dataset:
    x = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy()
    return Dataset("numbered", x, RULE, np.arange(count), **options)


@pytest.fixture
def folder(tmp_path):
    """Seven pictures, named so that their number is their grey value."""
    for i in range(7):
        Image.new("RGB", (6, 5), (i, i, i)).save(tmp_path / f"p{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    return tmp_path


def write_csv(folder, text: str, encoding: str = "utf-8"):
    path = folder / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_batches_cover_every_picture_once_and_again():
    data = numbered(11, batch_size=4)
    for _ in range(2):
        batches = list(data)
        assert [len(batch.images) for batch in batches] == [4, 4, 3]
        assert torch.equal(torch.cat([batch.labels for batch in batches]), torch.arange(11))
        assert torch.equal(torch.cat([batch.images for batch in batches]), RULE(data.pictures(range(11))))
    assert len(data) == 11


@pytest.mark.parametrize("batch_size", [1, 3, 11, 100])
def test_batch_size_does_not_change_the_values(batch_size: int):
    data = Dataset("random", pictures(11), RULE)
    got = torch.cat([images for images, _ in data.batches(batch_size)])
    assert torch.equal(got, RULE(pictures(11)))


def test_batches_are_typed():
    batch = next(iter(numbered(3)))
    assert isinstance(batch, Batch)
    assert (batch.images.dtype, batch.labels.dtype) == (torch.float32, torch.int64)
    assert next(iter(Dataset("no labels", pictures(2), RULE))).labels is None


def test_pictures_are_cropped():
    data = Dataset("large", pictures(3, side=8), RULE)
    assert (data.pictures([2, 0]) == pictures(3, side=8)[[2, 0], 2:6, 2:6]).all()


def test_subset_by_number_is_a_sorted_draw_that_repeats():
    data = numbered(100)
    chosen = data.subset(20).labels
    assert (chosen == np.sort(np.random.default_rng(0).choice(100, 20, replace=False))).all()
    assert (chosen == data.subset(20).labels).all()
    assert (chosen != data.subset(20, seed=1).labels).any()
    assert data.subset(3, seed=None).labels.tolist() == [0, 1, 2]


def test_subset_by_indices_keeps_the_order():
    data = numbered(10, batch_size=2).subset(np.array([7, 1, 7]))
    assert data.labels.tolist() == [7, 1, 7]
    assert data.pictures([0, 1, 2])[:, 0, 0, 0].tolist() == [7, 1, 7]
    assert data.batch_size == 2
    assert data.subset([1]).labels.tolist() == [1]


@pytest.mark.parametrize("chosen", [0, -1, 11, [], [10], [-1], [0.5], [True], [[1]], "3"])
def test_subset_refuses(chosen: object):
    with pytest.raises(DataError, match="numbered"):
        numbered(10).subset(chosen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": pictures(0)}, "no pictures at all"),
        ({"source": pictures(2).astype(np.float32)}, "uint8"),
        ({"source": pictures(2, side=3)}, "smaller"),
        ({"labels": [1]}, "one for each of 2 pictures"),
        ({"labels": [1.0, 2.0]}, "whole numbers"),
        ({"labels": [1, -2]}, ">= 0, got -2"),
        ({"labels": [[1], [2]]}, "shape"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_construction_refuses(options: dict, message: str):
    with pytest.raises(DataError, match=message):
        Dataset(**({"name": "mine", "source": pictures(2), "preprocess": RULE} | options))


def test_batches_refuses_at_once():
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        numbered(3).batches(0)


def test_labels_cannot_be_changed_from_outside():
    labels = np.arange(3)
    data = Dataset("mine", pictures(3), RULE, labels)
    labels[0] = 9
    assert data.labels[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        data.labels[0] = 9


def test_repr():
    assert repr(numbered(3)) == "Dataset('numbered', 3 pictures, labels, batch_size=50)"
    splits = Splits(calibration=numbered(2), evaluation=numbered(3))
    assert (len(splits.calibration), len(splits.evaluation)) == (2, 3)


def test_draw_is_the_documented_one():
    assert draw(1000, 200, 0)[:5].tolist() == [2, 4, 7, 13, 14]
    assert len(set(draw(1000, 200, 0).tolist())) == 200


def test_folder_with_labels_in_the_order_of_the_csv(folder):
    csv = write_csv(folder, "extra,file,label\nx,p3.png,30\n,p1.png, 10\n\n,p3.png,31\n")
    with pytest.warns(
        DataWarning, match=r"no row for 5 of the pictures in .*; left out: p0.png, p2.png, p4.png and 2 more"
    ):
        data = from_folder(folder, csv, RULE, batch_size=2)
    assert data.name == folder.name
    assert data.labels.tolist() == [30, 10, 31]
    assert data.pictures([0, 1, 2])[:, 0, 0, 0].tolist() == [3, 1, 3]
    assert [len(images) for images, _ in data] == [2, 1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_as_spreadsheets_write_it(folder, encoding: str, newline: str):
    csv = write_csv(folder, newline.join(["file,label", '"p0.png",1', ""]), encoding)
    with pytest.warns(DataWarning):
        assert from_folder(str(folder), str(csv), RULE).labels.tolist() == [1]


def test_folder_without_labels(folder):
    (folder / ".hidden.png").write_bytes(b"")
    (folder / "P9.PNG").write_bytes((folder / "p0.png").read_bytes())
    data = from_folder(folder, None, RULE, name="mine")
    assert (len(data), data.labels, data.name) == (8, None, "mine")
    (batch,) = data
    assert batch.labels is None
    assert batch.images.shape == (8, 3, 4, 4)
    assert data.subset([2]).source.paths[0].name == "p1.png"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("file,label\ngone.png,1\n", MissingDataError, r"labels\.csv, line 2: there is no picture 'gone\.png'"),
        ("file,label\np0.png,1\n,2\n", MissingDataError, r"line 3: there is no picture ''"),
        ("file,label\np0.png,cat\n", DataError, r"line 2: the label 'cat' is not a whole number"),
        ("file,label\np0.png,1.5\n", DataError, "'1.5' is not a whole number"),
        ("file,label\np0.png\n", DataError, "'' is not a whole number"),
        ("file,label\np0.png,-1\n", DataError, "-1 is not a class index"),
        ("file,label\np0.png,99999999999999999999\n", DataError, "not a class index"),
        ("name,label\np0.png,1\n", DataError, r"no column 'file' in the header \['name', 'label'\]"),
        ("file;label\np0.png;1\n", DataError, r"no column 'file' .* with commas"),
        ("file\np0.png\n", DataError, "no column 'label'"),
        ("", DataError, "no column 'file'"),
        ("file,label\n", DataError, "no pictures at all"),
    ],
)
def test_csv_errors(folder, text: str, kind: type, message: str):
    with pytest.raises(kind, match=message):
        from_folder(folder, write_csv(folder, text), RULE)


def test_csv_that_is_no_text(folder):
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        from_folder(folder, write_csv(folder, "file,label\nü.png,1\n", "latin-1"), RULE)


def test_missing_places(folder, tmp_path):
    with pytest.raises(MissingDataError, match=r"no folder of pictures at .*elsewhere"):
        from_folder(tmp_path / "elsewhere", None, RULE)
    with pytest.raises(MissingDataError, match=r"no CSV file of labels at .*none\.csv"):
        from_folder(folder, folder / "none.csv", RULE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no pictures at all in .*empty"):
        from_folder(tmp_path / "empty", None, RULE)


def test_damaged_picture_is_named_when_it_is_read(folder):
    path = folder / "p4.png"
    path.write_bytes(path.read_bytes()[:40])
    data = from_folder(folder, None, RULE, batch_size=1)
    batches = iter(data)
    for _ in range(4):
        next(batches)
    with pytest.raises(DataError, match=r"p4\.png"):
        next(batches)


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    Image.fromarray(pictures(1, side=64)[0]).save(tmp_path / "a.png")
    rule = Preprocess((64, 64), (0.5,) * 3, (0.25,) * 3)

    def peak(count: int) -> int:
        data = Dataset("many", Files((tmp_path / "a.png",) * count, rule), rule, batch_size=4)
        tracemalloc.start()
        for _ in data:
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)  # what is imported on first use does not count
    assert peak(200) < 2 * peak(8)
