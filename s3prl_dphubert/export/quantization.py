"""Lower a graph to bfloat16 or int8, following a plan by places."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from .graph import BF16, BFLOAT16, FLOAT, Graph

WEIGHTED = ("Conv", "MatMul")
FOLLOWING = ("Add", "Gelu")  # fused with the product before them, so they take its type
MIN_SCALE = 1e-8


@dataclass(frozen=True)
class Range:
    """Numbers that the 8-bit codes of a value cover, from ``low`` <= 0 to ``high`` >= 0."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """Difference of two adjacent codes."""
        return np.float32(max((self.high - self.low) / 255, MIN_SCALE))

    @property
    def zero(self) -> np.uint8:
        """Code of the number 0."""
        return np.uint8(np.clip(round(-self.low / float(self.scale)), 0, 255))


@dataclass(frozen=True)
class QuantizationPlan:
    """Number types of a graph's operations.

    Args:
        int8: places whose products with weights are computed in 8 bits.
        bf16: compute everything else that tolerates it in bfloat16 rather than float32.
        ranges: value -> range, for each input of a product in 8 bits.
        outputs: round the results of 8-bit convolutions to 8 bits, too; otherwise ONNX Runtime computes
            them in float32.
    """

    int8: frozenset[str] = frozenset()
    bf16: bool = False
    ranges: dict[str, Range] = field(default_factory=dict)
    outputs: bool = False


def place(node: onnx.NodeProto) -> str:
    """Return the place of a node in the encoder, such as ``conv.3`` or ``layers.0.attention``."""
    return node.name.partition("/")[0]


def products(graph: Graph) -> list[onnx.NodeProto]:
    """Return the products with constant weights that tolerate low precision."""
    return [
        node
        for node in graph.nodes
        if node.op_type in WEIGHTED and node.name in graph.rough_nodes and node.input[1] in graph.weights
    ]


def has_crest(node: onnx.NodeProto) -> bool:
    """Return whether a product's input and result are divided by the graph's crest, if it has one."""
    return node.op_type == "Conv" and place(node).startswith("conv.")


def lower(graph: Graph, plan: QuantizationPlan) -> Graph:
    """Return a new graph that follows a plan; its inputs and outputs stay float32."""
    return _Lowering(graph, plan).result()


def with_half_weights(graph: Graph) -> Graph:
    """Return a new graph that stores weights in bfloat16 and computes in float32."""
    weights, casts = dict(graph.weights), []
    for node in products(graph):
        name = node.input[1]
        weights[f"{name}/stored"] = weights.pop(name).astype(BF16)
        casts.append(helper.make_node("Cast", [f"{name}/stored"], [name], f"{name}/Cast", to=FLOAT))
    return graph.copy([*casts, *graph.nodes], weights)


class _Lowering:
    """Copies a graph node by node; values keep their names, their casts and codes get new ones."""

    def __init__(self, graph: Graph, plan: QuantizationPlan) -> None:
        self.graph, self.plan = graph, plan
        self.weights = dict(graph.weights)
        self.nodes: list[onnx.NodeProto] = []
        self.half: set[str] = set()  # values in bfloat16
        self.added: set[str] = set()  # casts and codes
        self.quantized = {node.name for node in products(graph) if place(node) in plan.int8}

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
        if node.name in self.quantized:
            self._quantize(node, new)
        for attribute in new.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                self._lower_body(attribute.g)
        self.nodes.append(new)
        if half:
            self.half.update(node.output)
        if node.op_type == "Conv" and node.name in self.quantized:
            self._finish_conv(node, new)

    def _lower_body(self, body: onnx.GraphProto) -> None:
        """Lower the nodes of a body; casts that are added there are not known outside of it."""
        nodes, added = self.nodes, self.added
        self.nodes, self.added = [], set(added)
        for node in body.node:
            self._copy(node)
        del body.node[:]
        body.node.extend(self.nodes)
        self.nodes, self.added = nodes, added

    def _is_half(self, node: onnx.NodeProto) -> bool:
        if not self.plan.bf16 or node.name not in self.graph.rough_nodes or node.name in self.quantized:
            return False
        first = node.input[0]
        follows = node.op_type in FOLLOWING and first in self.graph.rough_nodes
        return not follows or first in self.half

    def _typed(self, value: str, half: bool) -> str:
        """Return the name of a value in bfloat16 if ``half``, else in float32; integers stay as they are."""
        if value in self.graph.weights:
            if not half or self.graph.weights[value].dtype != np.float32:
                return value
            self.weights[f"{value}/half"] = self.graph.weights[value].astype(BF16)
            return f"{value}/half"
        if value not in self.graph.floats or (value in self.half) == half:
            return value
        name = f"{value}/{'half' if half else 'float'}"
        if name not in self.added:
            self.added.add(name)
            to = BFLOAT16 if half else FLOAT
            self.nodes.append(helper.make_node("Cast", [value], [name], name, to=to))
        return name

    def _finish_conv(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Add what follows a convolution in 8 bits: its result in 8 bits, the crest, the bias."""
        result = value = node.output[0]
        crest, bias = self._crest_of(node), node.input[2] if len(node.input) > 2 else ""
        if self.plan.outputs:
            new.output[0] = f"{result}/exact"
            value = f"{result}/rounded" if crest else result
            self._codes(new.output[0], self.plan.ranges[result], value)
        elif crest:
            value = new.output[0] = f"{result}/rounded"
        if not crest:
            return
        scaled = f"{result}/scaled" if bias else result
        self.nodes.append(helper.make_node("Mul", [value, crest[0]], [scaled], f"{node.name}/crest"))
        if bias:
            self.weights[f"{bias}/column"] = self.graph.weights[bias][:, None]
            self.nodes.append(
                helper.make_node("Add", [scaled, f"{bias}/column"], [result], f"{node.name}/bias")
            )

    def _crest_of(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        """Return the crest by which the input of a product is divided before it is rounded."""
        return self.graph.crest if has_crest(node) else None

    def _quantize(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        value, weight, crest = node.input[0], node.input[1], self._crest_of(node)
        codes = f"{value}/coded"
        if codes not in self.added:
            self.added.add(codes)
            exact = new.input[0]
            if crest:
                exact = f"{value}/even"
                self.nodes.append(helper.make_node("Mul", [new.input[0], crest[1]], [exact], exact))
            self._codes(exact, self.plan.ranges[value], codes)
        new.input[0] = codes
        axis = 0 if node.op_type == "Conv" else 1
        scale = self._weight_codes(weight, axis)
        new.input[1] = f"{weight}/coded"
        if crest:
            del new.input[2:]
        if len(new.input) > 2 and self.plan.outputs:
            new.input[2] = self._bias_codes(node.input[2], scale * self.plan.ranges[value].scale)

    def _codes(self, value: str, bounds: Range, name: str) -> None:
        """Add nodes that round a value to 8 bits and back."""
        self.weights[f"{name}/scale"] = np.asarray(bounds.scale)
        self.weights[f"{name}/zero"] = np.asarray(bounds.zero)
        scale = [f"{name}/scale", f"{name}/zero"]
        self.nodes.append(helper.make_node("QuantizeLinear", [value, *scale], [f"{name}/u8"], f"{name}/Q"))
        self.nodes.append(helper.make_node("DequantizeLinear", [f"{name}/u8", *scale], [name], f"{name}/DQ"))

    def _weight_codes(self, name: str, axis: int) -> np.ndarray:
        """Store a weight in 8 bits with a scale for each output channel, and return the scales (C_out,)."""
        array = self.graph.weights[name]
        others = tuple(index for index in range(array.ndim) if index != axis)
        scale = np.maximum(np.abs(array).max(others) / 127, MIN_SCALE).astype(np.float32)
        shape = [-1 if index == axis else 1 for index in range(array.ndim)]
        codes = np.clip(np.round(array / scale.reshape(shape)), -127, 127).astype(np.int8)
        self._store(name, codes, scale, axis)
        return scale

    def _bias_codes(self, name: str, scale: np.ndarray) -> str:
        """Store a bias in 32 bits and return its name."""
        self._store(name, np.round(self.graph.weights[name] / scale).astype(np.int32), scale, 0)
        return f"{name}/coded"

    def _store(self, name: str, codes: np.ndarray, scale: np.ndarray, axis: int) -> None:
        self.weights[f"{name}/codes"], self.weights[f"{name}/scale"] = codes, scale
        self.weights[f"{name}/zeros"] = np.zeros(len(scale), codes.dtype)
        inputs = [f"{name}/codes", f"{name}/scale", f"{name}/zeros"]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{name}/coded"], f"{name}/DQ", axis=axis)
        )
