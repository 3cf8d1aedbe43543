"""Open ONNX models, with the extra ``tagger`` (onnxruntime)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotReady, Problem

if TYPE_CHECKING:
    from pathlib import Path


def open_model(model: Path, hint: str, threads: int = 0) -> Any:
    """Return an inference session on the CPU.

    Args:
        model: the ONNX file.
        hint: the next step if it is not usable.
        threads: threads of one inference. Default: all cores.

    Raises:
        NotReady: the extra is missing, or the file is not usable.
    """
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise NotReady(Problem("onnxruntime", "is not installed", "pip install 'krnk[tagger]'")) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no other base class
        raise NotReady(Problem(str(model), f"is not a usable ONNX model: {error}", hint)) from error
