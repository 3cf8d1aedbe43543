"""Test torch: GPU, one matrix product, one step of an 8-bit optimizer.

A program for sd-scripts' Python: ``python torch_test_program.py cuda``, or ``cpu`` for the product alone. Its last line is
JSON: "torch", "devices" (names of those that pass), "unused" (others with their reason), and where no device passes, "failed"
(the test) and "reason".
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

AVAILABLE, PRODUCT, STEP = "torch.cuda.is_available()", "matrix product", "8-bit optimizer step"


def test(kind: str) -> dict[str, Any]:
    """Run the tests for "cuda" or "cpu", and return the result."""
    result: dict[str, Any] = {"torch": "", "devices": [], "unused": [], "failed": "import torch", "reason": ""}
    try:
        torch = importlib.import_module("torch")
        result["torch"] = torch.__version__
        devices = {"cpu": ""}
        if kind == "cuda":
            result["failed"] = AVAILABLE
            if not torch.cuda.is_available():
                torch.cuda.init()  # raises the reason
                return {**result, "reason": "it is False"}
            devices = {f"cuda:{index}": torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    except Exception as error:  # noqa: BLE001  # every failure of a foreign package is the result
        return {**result, "reason": _text(error)}
    failures: list[tuple[str, str]] = []
    for device, name in devices.items():
        failed = PRODUCT
        try:
            matrix_product(torch, device)
            if kind == "cuda":
                failed = STEP
                optimizer_step(torch, importlib.import_module("bitsandbytes").optim.AdamW8bit, device)
            result["devices"].append(name)
        except Exception as error:  # noqa: BLE001  # as above
            failures.append((failed, _text(error)))
            result["unused"].append(f"{name}, {failed}: {_text(error)}")
    if result["devices"]:
        return {**result, "failed": ""}
    return {**result, "unused": [], "failed": failures[0][0], "reason": failures[0][1]}


def _text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def matrix_product(torch: Any, device: str) -> None:
    """Multiply two matrices on a device, and compare with the CPU.

    Raises:
        ArithmeticError: the products differ.
    """
    left, right = torch.rand(64, 256), torch.rand(256, 64)
    product = (left.to(device) @ right.to(device)).cpu()
    if not torch.allclose(product, left @ right, rtol=1e-2):
        raise ArithmeticError("it differs from the product on the CPU")


def optimizer_step(torch: Any, optimizer: Any, device: str) -> None:
    """Minimize a square by one step, with a state in 8 bits.

    Raises:
        ArithmeticError: the parameter or the state is not as expected.
    """
    parameter = torch.nn.Parameter(torch.ones(128, 128, device=device))  # smaller ones keep a state in 32 bits
    stepper = optimizer([parameter], lr=0.1)
    parameter.square().sum().backward()
    stepper.step()
    if not (parameter.isfinite().all() and (parameter < 1).all()):
        raise ArithmeticError("the parameter is not smaller after it")
    if not any(getattr(value, "dtype", None) == torch.uint8 for value in stepper.state[parameter].values()):
        raise ArithmeticError("the state is not in 8 bits")


if __name__ == "__main__":
    print(json.dumps(test(sys.argv[1])))
