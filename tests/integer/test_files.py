"""Model files: what is loaded runs bit for bit as what was saved, and everything else is refused."""

import hashlib
import io
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_networks import everything
from networks import make, pictures

import qlearn as ql
from qlearn.errors import ExportError, FallbackWarning, ModelFileError
from qlearn.integer.files import FORMAT_VERSION, MAGIC


def build(name="residual", preprocess=None):
    network = ql.fold_batch_norm(ql.trace(make(name), pictures(1), name=name, preprocess=preprocess))
    recipe = ql.Recipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        return ql.quantize_model(network, recipe, ql.calibrate(network, [pictures(8)], recipe)).to_integer()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "net.qlearn"
    build(preprocess=ql.Preprocess((15, 15), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))).save(path)
    return path


def test_save_load_run_is_bit_exact(saved):
    original, loaded = build(), ql.IntegerModel.load(saved)
    x = pictures(5).numpy()
    for site, codes in original.codes(x).items():
        assert np.array_equal(codes, loaded.codes(x)[site])
    assert original(x).tobytes() == loaded(x).tobytes()
    assert loaded.preprocess == ql.Preprocess((15, 15), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    assert (loaded.name, loaded.policy, loaded.input_shape) == ("residual", "fixed", (3, 15, 15))
    assert loaded.predict(np.zeros((2, 15, 15, 3), np.uint8)).shape == (2,)


def test_saving_again_gives_the_same_bytes(saved, tmp_path):
    ql.IntegerModel.load(saved).save(tmp_path / "again.qlearn")
    assert (tmp_path / "again.qlearn").read_bytes() == saved.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["again.qlearn"]


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_one_changed_byte_is_noticed(saved, data):
    content = bytearray(saved.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    broken = saved.with_name("broken.qlearn")
    broken.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"broken\.qlearn"):
        ql.IntegerModel.load(broken)


def test_truncated_foreign_and_missing_files_are_refused(saved, tmp_path):
    content = saved.read_bytes()
    cases = {
        "empty": b"",
        "head": content[:10],
        "half": content[: len(content) // 2],
        "longer": content + b"\0",
        "pickle": pickle.dumps({"a": 1}),
        "text": b"hello",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelFileError, match=name):
            ql.IntegerModel.load(tmp_path / name)
    with pytest.raises(ModelFileError, match="cannot be read"):
        ql.IntegerModel.load(tmp_path / "missing.qlearn")
    with pytest.raises(ModelFileError, match="cannot be read"):
        ql.IntegerModel.load(tmp_path)


def sealed(body: bytes, version: int = FORMAT_VERSION) -> bytes:
    return MAGIC + version.to_bytes(4, "little") + hashlib.sha256(body).digest() + body


def archive(**arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a model file was unpickled",))


def test_well_sealed_nonsense_is_refused_and_never_executed(tmp_path):
    compressed = io.BytesIO()
    np.savez_compressed(compressed, graph=np.zeros(100, np.uint8))
    graph = np.frombuffer(b'{"layers": 3}', np.uint8)
    cases = {
        "a newer format": sealed(archive(graph=graph), version=FORMAT_VERSION + 1),
        "no archive": sealed(b"nothing"),
        "no graph": sealed(archive(other=graph)),
        "wrong graph": sealed(archive(graph=graph)),
        "no text": sealed(archive(graph=np.zeros(3))),
        "compressed": sealed(compressed.getvalue()),
        "a pickled object": sealed(archive(graph=np.array([Bomb()], dtype=object))),
    }
    for name, content in cases.items():
        path = tmp_path / f"hostile {name}.qlearn"
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=f"hostile {name}"):
            ql.IntegerModel.load(path)


def test_a_float_layer_cannot_be_saved_and_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="layer 'norm' runs in float"):
        build("mixed").save(tmp_path / "mixed.qlearn")
    assert list(tmp_path.iterdir()) == []


WRITERS = {
    "qlearn": lambda path: everything().save(path),
    "tflite": lambda path: ql.export_litert(everything(), path),
    "onnx": lambda path: ql.export_onnx(everything(policy="onnxruntime"), path),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_what_cannot_be_written_is_an_error_that_says_where(kind, tmp_path):
    pytest.importorskip({"tflite": "ai_edge_litert", "onnx": "onnx"}.get(kind, "numpy"))
    write = WRITERS[kind]
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for name in ("folder", "missing/net", "file/net", "zero\0byte", "x" * 5000, "half \ud800 letter"):
        with pytest.raises((ModelFileError, ExportError), match="cannot be written"):
            write(str(tmp_path / name))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    write(tmp_path / "größe 🚀")
    assert (tmp_path / "größe 🚀").stat().st_size > 1000
    assert not list(tmp_path.glob("*.part"))
