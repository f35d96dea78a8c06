"""A folder of .onnx files gives what the model gives."""

import pytest

from tests.exporting.exports import LIKE_OTHERS, MODELS, assert_same

IN_ONNX = tuple(row.name for row in MODELS if row.name not in LIKE_OTHERS)


@pytest.mark.parametrize(
    ("name", "names"),
    [pytest.param(n, IN_ONNX, id=n) for n in IN_ONNX]
    + [pytest.param(n, LIKE_OTHERS, id=n, marks=pytest.mark.slow) for n in LIKE_OTHERS],
)
def test_onnx(exports, name, names):
    pytest.importorskip("tf2onnx")
    pytest.importorskip("onnxruntime")
    assert_same(*exports.results("onnx", names=names)[name])
