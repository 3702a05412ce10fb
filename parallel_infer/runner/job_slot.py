"""The memory of one job of a `Runner`: input and output buffers, and the run that is bound to them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from parallel_infer.inference.engines import Stop
from parallel_infer.inference.session import Binding, Session

Shapes = dict[str, tuple[int, ...]]


class JobSlot:
    """Buffers for one job at a time: `load` it, then `run` it.

    Buffers are allocated at the first job and again only when the shapes change. Outputs whose shape is known only
    after a run have no buffer; ONNX Runtime allocates those for each job.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._shapes: Shapes = {}
        self._inputs: dict[str, np.ndarray] = {}
        self._reused: frozenset[str] = frozenset()  # outputs that the next job overwrites
        self._binding: Binding | None = None

    def load(self, inputs: Mapping[str, np.ndarray]) -> None:
        """Copies `inputs`, which the caller may change from now on. `BadInput` where they do not fit the model."""
        sizes = self._session.signature.check(inputs)
        shapes = {name: array.shape for name, array in inputs.items()}
        if self._binding is None or shapes != self._shapes:
            self._allocate(shapes, sizes)
        for name, array in inputs.items():
            np.copyto(self._inputs[name], array)

    def run(self, stop: Stop) -> dict[str, np.ndarray]:
        """The outputs of the loaded job, in arrays that are the caller's own."""
        assert self._binding is not None, "nothing was loaded"
        outputs = self._binding.run(stop)
        return {name: array.copy() if name in self._reused else array for name, array in outputs.items()}

    def _allocate(self, shapes: Shapes, sizes: Mapping[str, int]) -> None:
        signature = self._session.signature
        self._binding = None  # so that an error below leaves nothing half done
        self._inputs = {tensor.name: np.empty(shapes[tensor.name], tensor.dtype) for tensor in signature.inputs}
        known = signature.output_shapes(sizes)
        outputs = {
            tensor.name: np.empty(known[tensor.name], tensor.dtype)
            for tensor in signature.outputs
            if tensor.name in known
        }
        self._binding = self._session.bind(self._inputs, outputs)
        self._reused = frozenset(outputs)
        self._shapes = shapes
