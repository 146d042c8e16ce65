"""Graphs in lower precision: 16 bits where rounding is borne, 8 bits where a plan says so."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from .graph import BF16, BFLOAT16, FLOAT, Graph

WEIGHTED = ("Conv", "MatMul")
FOLLOWING = ("Add", "Gelu")  # they are fused with the product before them, so they have its type
LEAST = 1e-8  # of a scale


@dataclass(frozen=True)
class Range:
    """The numbers of a value that 8 bits tell apart, from ``low`` <= 0 to ``high`` >= 0."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """One step."""
        return np.float32(max((self.high - self.low) / 255, LEAST))

    @property
    def zero(self) -> np.uint8:
        """The step that stands for 0."""
        return np.uint8(np.clip(round(-self.low / float(self.scale)), 0, 255))


@dataclass(frozen=True)
class Plan:
    """Which numbers a graph calculates with.

    Args:
        int8: places whose products of weights take 8 bits.
        bf16: whether all else that bears it takes bfloat16; float32 otherwise.
        ranges: by value, for every input of such a product.
        outputs: whether results of 8-bit convolutions are rounded to 8 bits as well, without which
            ONNX Runtime calculates them in float32.
    """

    int8: frozenset[str] = frozenset()
    bf16: bool = False
    ranges: dict[str, Range] = field(default_factory=dict)
    outputs: bool = False


def place(node: onnx.NodeProto) -> str:
    """Where in the encoder a node belongs: ``conv.3``, ``layers.0.attention``."""
    return node.name.partition("/")[0]


def products(graph: Graph) -> list[onnx.NodeProto]:
    """Products with constant weights that bear low precision."""
    return [
        node
        for node in graph.nodes
        if node.op_type in WEIGHTED and node.name in graph.rough_nodes and node.input[1] in graph.weights
    ]


def lower(graph: Graph, plan: Plan) -> Graph:
    """A new graph that follows a plan; what it takes and returns stays float32."""
    return _Lowering(graph, plan).result()


def with_half_weights(graph: Graph) -> Graph:
    """A new graph that stores its weights in bfloat16 and calculates in float32."""
    weights, casts = dict(graph.weights), []
    for node in products(graph):
        name = node.input[1]
        weights[f"{name}/stored"] = weights.pop(name).astype(BF16)
        casts.append(helper.make_node("Cast", [f"{name}/stored"], [name], f"{name}/Cast", to=FLOAT))
    return graph.copy([*casts, *graph.nodes], weights)


class _Lowering:
    """Copies a graph node by node; values keep their names, casts and codes are kept beside them."""

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self.graph, self.plan = graph, plan
        self.weights = dict(graph.weights)
        self.nodes: list[onnx.NodeProto] = []
        self.half: set[str] = set()  # values in bfloat16
        self.made: set[str] = set()
        wanted = [node for node in products(graph) if place(node) in plan.int8]
        self.quantised = {node.name for node in wanted}

    def result(self) -> Graph:
        for node in self.graph.nodes:
            self._copy(node)
        return self.graph.copy(self.nodes, self.weights)

    def _copy(self, node: onnx.NodeProto) -> None:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        half = self._is_half(node)
        for index, value in enumerate(node.input):
            new.input[index] = self._typed(value, half)
        if node.name in self.quantised:
            self._quantise(node, new)
        self.nodes.append(new)
        if half:
            self.half.update(node.output)
        if node.op_type == "Conv" and node.name in self.quantised and self.plan.outputs:
            result = node.output[0]
            new.output[0] = f"{result}/exact"
            self._codes(f"{result}/exact", self.plan.ranges[result], result)

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if not self.plan.bf16 or node.name not in self.graph.rough_nodes or node.name in self.quantised:
            return False
        first = node.input[0]
        follows = node.op_type in FOLLOWING and first in self.graph.rough_nodes
        return not follows or first in self.half

    def _typed(self, value: str, half: bool) -> str:
        """The value in float32 or, if ``half``, in bfloat16; what is no float number stays as it is."""
        if value in self.graph.weights:
            if not half or self.graph.weights[value].dtype != np.float32:
                return value
            self.weights[f"{value}/half"] = self.graph.weights[value].astype(BF16)
            return f"{value}/half"
        if value not in self.graph.floats or (value in self.half) == half:
            return value
        name = f"{value}/{'half' if half else 'float'}"
        if name not in self.made:
            self.made.add(name)
            to = BFLOAT16 if half else FLOAT
            self.nodes.append(helper.make_node("Cast", [value], [name], name, to=to))
        return name

    def _quantise(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        value, weight = node.input[0], node.input[1]
        codes = f"{value}/coded"
        if codes not in self.made:
            self.made.add(codes)
            self._codes(new.input[0], self.plan.ranges[value], codes)
        new.input[0] = codes
        axis = 0 if node.op_type == "Conv" else 1
        scale = self._weight_codes(weight, axis)
        new.input[1] = f"{weight}/coded"
        if len(node.input) > 2 and self.plan.outputs:
            new.input[2] = self._bias_codes(node.input[2], scale * self.plan.ranges[value].scale)

    def _codes(self, value: str, bounds: Range, name: str) -> None:
        """Round a value to 8 bits and back."""
        self.weights[f"{name}/scale"] = np.asarray(bounds.scale)
        self.weights[f"{name}/zero"] = np.asarray(bounds.zero)
        scale = [f"{name}/scale", f"{name}/zero"]
        self.nodes.append(helper.make_node("QuantizeLinear", [value, *scale], [f"{name}/u8"], f"{name}/Q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}/u8", *scale], [name], f"{name}/DQ"))

    def _weight_codes(self, name: str, axis: int) -> np.ndarray:
        """Put a weight into 8 bits, a scale for each output channel; returns the scales."""
        array = self.graph.weights[name]
        others = tuple(index for index in range(array.ndim) if index != axis)
        scale = np.maximum(np.abs(array).max(others) / 127, LEAST).astype(np.float32)
        shape = [-1 if index == axis else 1 for index in range(array.ndim)]
        codes = np.clip(np.round(array / scale.reshape(shape)), -127, 127).astype(np.int8)
        self._stored(name, codes, scale, axis)
        return scale

    def _bias_codes(self, name: str, scale: np.ndarray) -> str:
        self._stored(name, np.round(self.graph.weights[name] / scale).astype(np.int32), scale, 0)
        return f"{name}/coded"

    def _stored(self, name: str, codes: np.ndarray, scale: np.ndarray, axis: int) -> None:
        self.weights[f"{name}/codes"], self.weights[f"{name}/scale"] = codes, scale
        self.weights[f"{name}/zeros"] = np.zeros(len(scale), codes.dtype)
        inputs = [f"{name}/codes", f"{name}/scale", f"{name}/zeros"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}/coded"], f"{name}/DQ", axis=axis)
        )
