"""ONNX graph of attention whose memory grows with the length of an utterance, not with its square."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import helper

from .graph import BOOL, FLOAT, INT64, Graph

SCORES = 1 << 22  # attention scores of a head that are computed at a time: all, up to 2,048 frames


@dataclass(frozen=True)
class PositionBias:
    """WavLM's gated relative positions.

    Args:
        gate: (B, H, F, 1).
        values: (H, N), biases of the distances from -farthest to farthest.
        farthest: distance beyond which all have the same bias.
    """

    gate: str
    values: str
    farthest: int

    def rows(self, graph: Graph, gate: str, queries: str, keys: str) -> str:
        """Return the biases (B, H, Q, F) of queries with gates (B, H, Q, 1) at positions (Q,); keys (F,)."""
        offset = graph.add("Unsqueeze", keys, graph.ints(0))
        offset = graph.add("Sub", offset, graph.add("Unsqueeze", queries, graph.ints(1)))
        nearest, farthest = (graph.weight(sign * self.farthest, np.int64) for sign in (-1, 1))
        offset = graph.add("Min", graph.add("Max", offset, nearest), farthest)
        offset = graph.add("Add", offset, farthest)
        return graph.rough("Mul", gate, graph.rough("Gather", self.values, offset, axis=1))


def attention_in_blocks(
    graph: Graph, q: str, k: str, v: str, bias: str, positions: PositionBias | None, width: int
) -> str:
    """Attend with as many queries at a time as bounds the memory for scores.

    Args:
        graph: receives the nodes.
        q: (B, H, F, d), scaled.
        k: (B, H, d, F).
        v: (B, H, F, d).
        bias: (B, 1, 1, F), added to the scores.
        positions: further biases.
        width: H * d.

    Returns:
        (B, F, H * d).
    """
    one = graph.ints(1)
    frames = graph.add("Shape", q, start=2, end=3)
    count = graph.add("Div", graph.add("Mul", frames, frames), graph.ints(SCORES))
    count = graph.add("Add", count, one)  # blocks
    size = graph.add("Add", graph.add("Div", graph.add("Sub", frames, one), count), one)
    total = graph.add("Mul", count, size)
    rest = graph.add("Concat", graph.ints(0), graph.add("Sub", total, frames), axis=0)
    blocked = graph.add("Concat", graph.ints(0, 0), count, size, graph.ints(-1), axis=0)

    def blocks(value: str) -> str:
        """(B, H, F, n) -> (blocks, B, H, size, n), with zeros at the end."""
        value = graph.add("Pad", value, rest, graph.weight(0.0), graph.ints(2))
        return graph.add("Transpose", graph.add("Reshape", value, blocked), perm=[2, 0, 1, 3, 4])

    zero, step = graph.weight(0, np.int64), graph.weight(1, np.int64)
    rows, keys = [blocks(q)], ""
    if positions is not None:
        keys = graph.add("Range", zero, graph.add("Squeeze", frames), step)
        queries = graph.add("Range", zero, graph.add("Squeeze", total), step)
        shape = graph.add("Concat", count, size, axis=0)
        rows += [blocks(positions.gate), graph.add("Reshape", queries, shape)]
    body = _body(graph, rows, k, v, bias, positions, keys)
    # A loop and not a scan, which OpenVINO refuses if its body reads values of the graph around it.
    y = graph.add("Loop", graph.add("Squeeze", count), graph.weight(True, np.bool_), body=body)
    graph.floats.add(y)
    y = graph.add("Transpose", y, perm=[1, 0, 3, 2, 4])  # (B, blocks, size, H, d)
    shape = graph.add("Concat", graph.ints(0), total, graph.ints(width), axis=0)
    return graph.add("Slice", graph.add("Reshape", y, shape), graph.ints(0), frames, one)


def _body(
    graph: Graph,
    rows: list[str],
    k: str,
    v: str,
    bias: str,
    positions: PositionBias | None,
    keys: str,
) -> object:
    """Return the graph of one block, which reads values of the graph around it.

    Args:
        graph: the graph around it.
        rows: queries of all blocks; with relative positions also their gates and positions.
        k: as in :func:`attention_in_blocks`, and likewise ``v``, ``bias`` and ``positions``.
        v: values.
        bias: biases.
        positions: further biases.
        keys: positions (F,) of the keys.
    """
    start = len(graph.nodes)
    block, go = (f"{graph.place}/block/{name}" for name in ("number", "go"))
    q, *others = (graph.add("Gather", each, block, axis=0) for each in rows)
    if positions is not None:
        gate, queries = others
        bias = graph.rough("Add", positions.rows(graph, gate, queries, keys), bias)
    scores = graph.rough("Softmax", graph.rough("Add", graph.rough("MatMul", q, k), bias), axis=-1)
    y = graph.add("Identity", graph.rough("MatMul", scores, v))
    outputs = [(graph.add("Identity", go), BOOL, []), (y, FLOAT, [None] * 4)]
    nodes, graph.nodes[start:] = graph.nodes[start:], []
    return helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info(block, INT64, []), helper.make_tensor_value_info(go, BOOL, [])],
        [helper.make_tensor_value_info(*output) for output in outputs],
    )
