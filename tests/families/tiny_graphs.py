"""Tiny ONNX graphs with the signatures of real exports: each output is a given array, repeated for every job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Dims = tuple[int | str | None, ...]
Array = npt.NDArray[np.generic]
PICTURE: dict[str, tuple[str, Dims]] = {"images": ("float32", ("batch", 3, 64, 64))}
CELLS = 84  # of a 64 x 64 row at strides 8, 16 and 32


def onnx_type(dtype: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def tiny(
    outputs: Mapping[str, Array],
    inputs: Mapping[str, tuple[str, Dims]] = PICTURE,
    metadata: Mapping[str, str] | None = None,
    batch: int | str = "batch",
    declared: Mapping[str, Dims] | None = None,
) -> onnx.ModelProto:
    """A graph whose outputs are `outputs` (of one job) for each job of the first input.

    `declared` replaces the dimensions that the file declares for an output, batch included.
    """
    first = next(iter(inputs))
    nodes = [
        helper.make_node("Shape", [first], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "one"], ["jobs"]),
    ]
    initial = [
        numpy_helper.from_array(np.array([0], np.int64), "zero"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    for name, array in outputs.items():
        initial.append(numpy_helper.from_array(np.ascontiguousarray(array[None]), f"{name}_value"))
        initial.append(numpy_helper.from_array(np.array(array.shape, np.int64), f"{name}_rest"))
        nodes.append(helper.make_node("Concat", ["jobs", f"{name}_rest"], [f"{name}_shape"], axis=0))
        nodes.append(helper.make_node("Expand", [f"{name}_value", f"{name}_shape"], [name]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, onnx_type(dtype), dims) for name, (dtype, dims) in inputs.items()],
        [
            helper.make_tensor_value_info(
                name, onnx_type(str(array.dtype)), (declared or {}).get(name, (batch, *array.shape))
            )
            for name, array in outputs.items()
        ],
        initial,
    )
    return finished(graph, metadata)


def finished(graph: onnx.GraphProto, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """A model of the graph, of a version that every supported ONNX Runtime reads."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    return model


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def one_node(operator: str, domain: str = "", opset: int = 17, ir_version: int = 8) -> onnx.ModelProto:
    """x -> operator -> y, both float32 [batch, 3]."""
    dims: Dims = ("batch", 3)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x"], ["y"], domain=domain)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)],
    )
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def zeros(*shape: int) -> npt.NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def boxes_up_to(reach: float, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A table whose first four columns go up to `reach`."""
    table = np.zeros((rows, columns), np.float32)
    table[:, :4] = np.linspace(0.0, reach, rows, dtype=np.float32)[:, None]
    return table


def names(count: int) -> str:
    return str({number: f"thing {number}" for number in range(count)})
