"""ONNX files return the same outputs as the model."""

import pytest

from tests.exporting.exports import (
    COVERED_IN_ONNX,
    assert_same,
    parametrize_rows,
    run_together,
)

pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


@parametrize_rows(COVERED_IN_ONNX)
def test_onnx_returns_the_same_as_the_model(exports, name):
    assert_same(*exports.results("onnx", run_together(name, COVERED_IN_ONNX))[name])
