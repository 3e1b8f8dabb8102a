"""Small networks as other converters write them, imported, against LiteRT's two interpreters."""

import numpy as np
import pytest
from lite_graphs import GRAPHS, input_for

from qlearn.export.litert_import import integer_model
from qlearn.export.litert_read import lite_graph
from qlearn.integer.reference import dequantize

pytest.importorskip("ai_edge_litert")
from runtime_models import from_file, interpreter

from qlearn.export.litert_write import lite_bytes

pytestmark = pytest.mark.runtimes


@pytest.mark.parametrize("profile", ["litert_reference", "xnnpack"])
@pytest.mark.parametrize("name", GRAPHS)
def test_imported_as_litert_runs_it(name, profile):
    content = lite_bytes(GRAPHS[name])
    model = integer_model(lite_graph(content), profile, name)
    made = interpreter(content, profile)
    for seed in range(20):
        x = input_for(GRAPHS[name], seed)
        made.set_tensor(made.get_input_details()[0]["index"], x)
        made.invoke()
        theirs = from_file(made.get_tensor(made.get_output_details()[0]["index"]))
        run = model.run if x.dtype == np.float32 else model.run_codes
        ours = run(from_file(x))
        if theirs.dtype == np.float32:
            ours = dequantize(ours, model.layer(model.output).output)
        assert ours.shape == theirs.shape
        assert np.array_equal(ours, theirs)
