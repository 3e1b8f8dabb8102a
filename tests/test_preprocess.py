"""What turns pictures into a network's input."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qlearn.errors import DataError, MissingDataError, ModelFileError
from qlearn.graph.preprocess import Preprocess

IMAGENET = Preprocess((224, 224), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=256)
SMALL = Preprocess((4, 6), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_equals_the_formula_in_torch_bit_by_bit():
    x = pictures(3, 4, 6, 3)
    mean, std = torch.tensor(SMALL.mean), torch.tensor(SMALL.std)
    expected = ((torch.from_numpy(x).float() / 255 - mean) / std).permute(0, 3, 1, 2)
    assert torch.equal(SMALL(x), expected)
    assert SMALL(x).dtype == torch.float32
    assert SMALL(x).is_contiguous()


def test_equals_the_formula_one_value_at_a_time():
    x = pictures(2, 4, 6, 3)
    got = SMALL.normalize(x)
    for n, row, column, channel in np.ndindex(x.shape):
        value = np.float32(x[n, row, column, channel]) / np.float32(255)
        value = (value - np.float32(SMALL.mean[channel])) / np.float32(SMALL.std[channel])
        assert got[n, channel, row, column] == value


@given(st.integers(0, 9), st.integers(0, 9))
def test_centre_crop(more_rows: int, more_columns: int):
    x = np.zeros((1, 4 + more_rows, 6 + more_columns, 3), np.uint8)
    top, left = more_rows // 2, more_columns // 2
    x[:, top : top + 4, left : left + 6] = 255
    assert SMALL.crop(x).shape == (1, 4, 6, 3)
    assert (SMALL.crop(x) == 255).all()


def test_pictures_are_not_changed():
    x = pictures(2, 8, 8, 3)
    before = x.copy()
    SMALL.normalize(x)
    assert (x == before).all()


def test_one_batch_or_many_gives_the_same_bits():
    x = pictures(8, 9, 9, 3)
    whole = SMALL.normalize(x)
    assert all((SMALL.normalize(x[i : i + 1])[0] == whole[i]).all() for i in range(8))


def test_no_picture_is_an_empty_batch():
    assert SMALL.normalize(np.zeros((0, 4, 6, 3), np.uint8)).shape == (0, 3, 4, 6)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 6, 3), np.uint8), r"3 x 6 pixels are smaller .* 4 x 6 .*scale them up"),
        (np.zeros((4, 6, 3), np.uint8), r"shape \(4, 6, 3\); a single picture p is p\[None\]"),
        (np.zeros((1, 3, 4, 6), np.uint8), "shape"),
        (np.zeros((1, 4, 6, 3), np.float32), "float32"),
    ],
)
def test_refuses_other_pictures(x: np.ndarray, message: str):
    with pytest.raises(DataError, match=message):
        SMALL(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 4)}, "size must be"),
        ({"size": (4,)}, "size needs 2"),
        ({"size": (4.5, 4)}, "size must be"),
        ({"mean": (0.5, 0.5)}, "mean needs 3"),
        ({"mean": (float("nan"),) * 3}, "mean needs 3 finite"),
        ({"mean": ("a", "b", "c")}, "mean needs 3"),
        ({"std": (0.5, 0.5, 0.0)}, "std must be > 0"),
        ({"std": (float("inf"),) * 3}, "std needs 3 finite"),
        ({"resize": 3}, "resize must be"),
        ({"resize": 4.5}, "resize must be"),
        ({"resize": "big"}, "resize needs 1 finite number"),
        ({"resize": True}, "resize needs 1"),
    ],
)
def test_refuses_nonsense(change: dict, message: str):
    good = {"size": (4, 4), "mean": (0.5,) * 3, "std": (0.5,) * 3, "resize": None}
    with pytest.raises(DataError, match=message):
        Preprocess(**(good | change))
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in (good | change).items()}
    with pytest.raises(ModelFileError, match=message):
        Preprocess.from_dict(values)


@pytest.mark.parametrize("rule", [IMAGENET, SMALL])
def test_survives_json(rule: Preprocess):
    assert Preprocess.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        None,
        {"size": [4, 4]},
        {**SMALL.to_dict(), "extra": 1},
        {**SMALL.to_dict(), "size": 4},
        {**SMALL.to_dict(), "mean": {"r": 1}},
        {**SMALL.to_dict(), "std": None},
    ],
)
def test_refuses_foreign_tables(values: object):
    with pytest.raises(ModelFileError):
        Preprocess.from_dict(values)


def test_load_picture_without_resize_crops(tmp_path):
    x = pictures(10, 13, 3)
    Image.fromarray(x).save(tmp_path / "a.png")
    assert (SMALL.load_picture(tmp_path / "a.png") == x[3:7, 3:9]).all()


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (256, 256), (120, 90)])
def test_load_picture_scales_the_short_side(tmp_path, size: tuple[int, int]):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
    picture = IMAGENET.load_picture(str(tmp_path / "a.png"))
    assert picture.shape == (224, 224, 3)
    assert (picture == (10, 20, 30)).all()


def test_load_picture_keeps_the_shape_of_things(tmp_path):
    x = np.zeros((512, 1024, 3), np.uint8)
    x[128:384, 384:640] = 255  # a square in the middle stays a square of half the size
    Image.fromarray(x).save(tmp_path / "a.png")
    picture = IMAGENET.load_picture(tmp_path / "a.png")
    assert (picture[112, :, 0] > 127).sum() == (picture[:, 112, 0] > 127).sum() == 128


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_load_picture_turns_other_modes_into_rgb(tmp_path, mode: str):
    name = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (8, 8), "white").convert(mode).save(name)
    assert SMALL.load_picture(name).shape == (4, 6, 3)
    assert SMALL.load_picture(name).min() > 250


def test_load_picture_refuses_what_is_not_a_picture(tmp_path):
    with pytest.raises(MissingDataError, match=r"nothing\.png"):
        SMALL.load_picture(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"text\.png: not a readable picture"):
        SMALL.load_picture(tmp_path / "text.png")
    with pytest.raises(DataError, match="not a readable picture"):
        SMALL.load_picture(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.7])
def test_load_picture_refuses_truncated_files(tmp_path, suffix: str, part: float):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(pictures(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"cut\.{suffix}"):
        SMALL.load_picture(path)


def test_load_picture_refuses_16_bits(tmp_path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: .*more than 8 bits"):
        SMALL.load_picture(tmp_path / "deep.png")


def test_load_picture_names_a_file_that_is_too_small(tmp_path):
    Image.new("RGB", (3, 3)).save(tmp_path / "tiny.png")
    with pytest.raises(DataError, match="smaller") as caught:
        SMALL.load_picture(tmp_path / "tiny.png")
    assert "tiny.png" in caught.value.__notes__[0]


def test_load_picture_without_pillow(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install qlearn\[zoo\]"):
        SMALL.load_picture(tmp_path / "a.png")
