"""Which outputs have shapes that follow from the picture, and not from the shapes of the inputs alone.

Values are followed through the graph: a tensor is tainted where its values depend on those of an input. A node whose
output shape is read from a tainted tensor has an output of variable shape, and so has whatever is computed from it.
"""

from __future__ import annotations

import onnx

# Operators whose output shapes follow from values, not from shapes.
VALUE_SHAPED = frozenset(
    {
        *("NonMaxSuppression", "NonZero", "Unique", "Compress", "Loop", "If", "Scan", "SequenceAt"),
        *("SplitToSequence", "ConcatFromSequence", "StringSplit"),
    }
)
# Inputs that an operator reads its output's shape from.
_SHAPE_INPUTS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,),
    "Expand": (1,),
    "Slice": (1, 2, 3, 4),
    "Range": (0, 1, 2),
    "Tile": (1,),
    "TopK": (1,),
    "ConstantOfShape": (0,),
    "Pad": (1,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "OneHot": (1,),
    "Split": (1,),
    "CenterCropPad": (1,),
}


def variable_outputs(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the graph's outputs whose shapes may differ from picture to picture."""
    graph = model.graph
    inner = {
        (function.domain, function.name)
        for function in model.functions
        if any(node.op_type in VALUE_SHAPED for node in function.node)
    }
    constant = {tensor.name for tensor in graph.initializer}
    tainted = {value.name for value in graph.input} - constant
    variable: set[str] = set()
    for node in graph.node:  # ONNX graphs are sorted: a tensor stands before what reads it
        shapes = [node.input[place] for place in _SHAPE_INPUTS.get(node.op_type, ()) if place < len(node.input)]
        by_value = node.op_type in VALUE_SHAPED or (node.domain, node.op_type) in inner
        from_variable = any(name in variable for name in node.input)
        if node.op_type in ("Shape", "Size"):
            tainted.update(node.output if from_variable else ())
            continue
        if by_value or from_variable or any(name in tainted for name in shapes):
            variable.update(node.output)
            tainted.update(node.output)
        elif any(name in tainted for name in node.input):
            tainted.update(node.output)
    return frozenset(value.name for value in graph.output if value.name in variable)
