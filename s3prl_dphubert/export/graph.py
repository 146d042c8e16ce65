"""Builder of ONNX graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

OPSET = 20  # the first with Gelu; LayerNormalization came with 17
OPSET_BF16 = 22  # the first whose Conv takes bfloat16
IR_VERSION = 10  # readable by runtimes since 2024

FLOAT, BFLOAT16, INT64 = TensorProto.FLOAT, TensorProto.BFLOAT16, TensorProto.INT64
BOOL = TensorProto.BOOL
BF16 = np.dtype(ml_dtypes.bfloat16)
_NOT_FLOAT = frozenset(
    {"Shape", "Range", "Less", "Greater"}
)  # operators whose results are not floating-point

Array = np.ndarray | Tensor


class Graph:
    """Nodes, weights, inputs and outputs in the order in which they are added.

    Values are referred to by their names. Nodes are named after the current ``place``
    (``layers.0.attention/MatMul_2``), so that quantization and profiles can tell them apart.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.floats: set[str] = set()
        """Floating-point values other than weights."""
        self.rough_nodes: set[str] = set()
        """Nodes that tolerate 16-bit numbers."""
        self.crest: tuple[str, str] | None = None
        """Values (B, 1, 1): how far the features of loud moments lie above the mean, and the inverse.

        Only graphs with GroupNorm have it, whose features grow with the share of an utterance that is quiet.
        """
        self.place = ""
        self._names: dict[str, int] = {}

    def input(self, name: str, dtype: int, shape: list[str | int]) -> str:
        """Add an input and return its name."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        if dtype == FLOAT:
            self.floats.add(name)
        return name

    def output(self, value: str, name: str, dtype: int, shape: list[str | int]) -> None:
        """Make a value an output with that name."""
        self.nodes.append(helper.make_node("Identity", [value], [name], name))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def weight(self, value: Array | list | float, dtype: Any = np.float32, name: str = "weight") -> str:
        """Add a constant and return its name."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        name = self._unique(name)
        self.weights[name] = np.ascontiguousarray(array.astype(dtype)).reshape(array.shape)
        return name

    def ints(self, *values: int) -> str:
        """Add a constant vector of integers (axes, shapes, bounds) and return its name."""
        return self.weight(list(values), np.int64, "ints")

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        name = self._unique(op)
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        if op == "Cast":
            is_float = attributes["to"] == FLOAT
        else:
            is_float = op not in _NOT_FLOAT and self._is_float(inputs[-1 if op == "Where" else 0])
        if is_float:
            self.floats.add(name)
        return name

    def rough(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node that tolerates 16-bit numbers; otherwise as :meth:`add`."""
        name = self.add(op, *inputs, **attributes)
        self.rough_nodes.add(name)
        return name

    def _is_float(self, value: str) -> bool:
        return value in self.floats or (value in self.weights and self.weights[value].dtype == np.float32)

    def copy(self, nodes: Iterable[onnx.NodeProto], weights: dict[str, np.ndarray]) -> Graph:
        """Return a graph with the same inputs and outputs, these nodes, and the weights that they use."""
        other = Graph()
        other.nodes = list(nodes)
        used = {value for node in other.nodes for value in _reads(node)}
        other.weights = {name: array for name, array in weights.items() if name in used}
        other.inputs, other.outputs = self.inputs, self.outputs
        other.floats, other.rough_nodes, other.crest = self.floats, self.rough_nodes, self.crest
        return other

    def model(self, metadata: dict[str, str] | None = None, watched: Iterable[str] = ()) -> onnx.ModelProto:
        """Return the finished model after ONNX's own check.

        Args:
            metadata: key -> text to store in the file.
            watched: floating-point values with three axes to return as well.
        """
        watched = list(watched)
        nodes = self._needed({*(value.name for value in self.outputs), *watched})
        used = {value for node in nodes for value in _reads(node)}
        weights = [_constant(array, name) for name, array in self.weights.items() if name in used]
        extra = [helper.make_tensor_value_info(name, FLOAT, [None] * 3) for name in watched]
        graph = helper.make_graph(nodes, "encoder", self.inputs, [*self.outputs, *extra], weights)
        half = any(node.op_type == "Cast" and node.attribute[0].i == BFLOAT16 for node in self.nodes)
        opset = helper.make_opsetid("", OPSET_BF16 if half else OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        model.producer_name = "s3prl-dphubert"
        helper.set_model_props(model, metadata or {})
        onnx.checker.check_model(model)
        return model

    def _needed(self, values: set[str]) -> list[onnx.NodeProto]:
        """Return the nodes that these values depend on, in order."""
        values, nodes = set(values), []
        for node in reversed(self.nodes):
            if not values.isdisjoint(node.output):
                nodes.append(node)
                values.update(_reads(node))
        return nodes[::-1]

    def _unique(self, name: str) -> str:
        name = f"{self.place}/{name}" if self.place else name
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"


def _reads(node: onnx.NodeProto) -> list[str]:
    """Return the inputs of a node and of the nodes in its bodies."""
    bodies = (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH)
    return [*node.input, *(value for body in bodies for inner in body.node for value in _reads(inner))]


def _constant(array: np.ndarray, name: str) -> onnx.TensorProto:
    if array.dtype != BF16:
        return numpy_helper.from_array(array, name)
    return helper.make_tensor(name, BFLOAT16, array.shape, array.tobytes(), raw=True)
