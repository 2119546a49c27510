"""The picture of a plan: a layered graph of its steps as SVG, without any library.

Layers are longest paths from the inputs; within a layer nodes stand at the mean of what feeds them (Sugiyama's
barycentre rule), swept down and up a few times.

References
----------
Sugiyama, Tagawa, Toda (1981), Methods for visual understanding of hierarchical system structures, IEEE SMC-11.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from html import escape

from pxtools.expr.explain import Labels, step_text
from pxtools.expr.plan import Plan, op_name

FILLS = {"input": "#dbe9f6", "output": "#d5efd9", "blas3": "#fff3d6", "lapack": "#fbdcd3", "small": "#f3f3f3"}
LAPACK = ("potrf", "getrf", "sytrf", "potri", "getri", "trtri", "tpqrt", "tpmqrt", "getrs", "sytrs")
GAP_X, GAP_Y, HEIGHT, CHAR = 22, 44, 40, 6.7


@dataclass
class GraphNode:
    """A box: an input, an operation or an output, with the boxes that feed it."""

    title: str
    detail: str
    kind: str
    parents: list[int] = field(default_factory=list)
    layer: int = 0
    x: float = 0.0

    @property
    def width(self) -> float:
        return max(64.0, CHAR * max(len(self.title), len(self.detail)) + 18)


@dataclass(frozen=True, repr=False)
class PlanGraph:
    """The graph of a plan; notebooks show it as SVG."""

    nodes: tuple[GraphNode, ...]

    @staticmethod
    def of(plan: Plan) -> PlanGraph:
        nodes = _arranged(_nodes(plan))
        return PlanGraph(tuple(nodes))

    def __repr__(self) -> str:
        return f"PlanGraph({len(self.nodes)} nodes; .save(path) writes the SVG)"

    def _repr_svg_(self) -> str:
        return _svg(list(self.nodes))

    def save(self, path: str) -> None:
        """Write the picture to a file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._repr_svg_())


def _nodes(plan: Plan) -> list[GraphNode]:
    labels = Labels.of(plan)
    nodes: list[GraphNode] = []
    maker: dict[int, int] = {}
    scalar_maker: dict[int, int] = {}
    for spec in plan.inputs:
        detail = "scalar" if spec.shape is None else "×".join(map(str, spec.shape))
        (scalar_maker if spec.shape is None else maker)[spec.scalar if spec.shape is None else spec.buffer] = len(nodes)
        nodes.append(GraphNode(spec.name, detail, "input"))
    for step in plan.steps:
        if step.op in ("check", "mirror"):
            continue
        parents = sorted({maker[b] for b in step.reads if b in maker})
        parents += [scalar_maker[p] for p in (step.alpha, step.beta) if p in scalar_maker]
        name = op_name(step)
        kind = "lapack" if step.op in LAPACK else "blas3" if step.flops > 0 and name == step.op else "small"
        if step.op == "axpby" and kind != "small":
            kind = "small"
        index = len(nodes)
        nodes.append(GraphNode(name.upper(), step_text(plan, labels, step), kind, parents))
        for buf in step.writes:
            maker[buf] = index
        if step.op in ("dot", "logdet", "scalar"):
            scalar_maker[step.result] = index
    for out in plan.outputs:
        source = scalar_maker.get(out.scalar) if out.shape is None else maker.get(out.buffer)
        detail = "scalar" if out.shape is None else "×".join(map(str, out.shape))
        nodes.append(GraphNode(out.name, detail, "output", [] if source is None else [source]))
    return [n for i, n in enumerate(nodes)]


def _arranged(nodes: list[GraphNode]) -> list[GraphNode]:
    for node in nodes:
        node.layer = 1 + max((nodes[p].layer for p in node.parents), default=-1)
    children: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for parent in node.parents:
            children.setdefault(parent, []).append(index)
    for index in reversed(range(len(nodes))):  # inputs stand just above their first use
        if not nodes[index].parents and children.get(index):
            nodes[index].layer = min(nodes[c].layer for c in children[index]) - 1
    layers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        layers.setdefault(node.layer, []).append(index)
    for row in layers.values():
        _place(nodes, row)
    for sweep in range(8):
        for depth in sorted(layers, reverse=bool(sweep % 2)):
            row = layers[depth]
            for index in row:
                near = nodes[index].parents if sweep % 2 == 0 else children.get(index, [])
                if near:
                    nodes[index].x = sum(nodes[n].x for n in near) / len(near)
            row.sort(key=lambda i: nodes[i].x)
            _spread(nodes, row)
    return nodes


def _place(nodes: list[GraphNode], row: list[int]) -> None:
    x = 0.0
    for index in row:
        nodes[index].x = x + nodes[index].width / 2
        x += nodes[index].width + GAP_X


def _spread(nodes: list[GraphNode], row: list[int]) -> None:
    """Move overlapping neighbours apart, keeping the row's centre."""
    wanted = [nodes[i].x for i in row]
    for left, right in itertools.pairwise(row):
        least = nodes[left].x + (nodes[left].width + nodes[right].width) / 2 + GAP_X
        nodes[right].x = max(nodes[right].x, least)
    shift = sum(wanted) / len(row) - sum(nodes[i].x for i in row) / len(row)
    for index in row:
        nodes[index].x += shift


def _svg(nodes: list[GraphNode]) -> str:
    left = min(n.x - n.width / 2 for n in nodes) - 12
    width = max(n.x + n.width / 2 for n in nodes) + 12 - left
    height = (max(n.layer for n in nodes) + 1) * (HEIGHT + GAP_Y) + 4
    # saved notebooks show SVG as a picture of this width and do not shrink it: 676 fits on half a screen
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{min(width, 676):.0f}"'
    parts = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans Mono, monospace" font-size="11">'),
        (
            '<defs><marker id="px" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>'
        ),
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>',
    ]
    parts += [_edge(nodes[parent], node, left) for node in nodes for parent in node.parents]
    parts += [_box(node, left) for node in nodes]
    return "\n".join([*parts, "</svg>"])


def _top(node: GraphNode) -> float:
    return node.layer * (HEIGHT + GAP_Y) + 8


def _edge(parent: GraphNode, node: GraphNode, left: float) -> str:
    x1, y1, x2, y2 = parent.x - left, _top(parent) + HEIGHT, node.x - left, _top(node) - 1
    bend = (y2 - y1) / 2
    return (
        f'<path d="M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}" '
        'fill="none" stroke="#999" marker-end="url(#px)"/>'
    )


def _box(node: GraphNode, left: float) -> str:
    x, y = node.x - left - node.width / 2, _top(node)
    round_by = 18 if node.kind in ("input", "output") else 4
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{HEIGHT}" rx="{round_by}" '
        f'fill="{FILLS[node.kind]}" stroke="#666"/>'
        f'<text x="{node.x - left:.1f}" y="{y + 16:.1f}" text-anchor="middle" font-weight="bold">'
        f"{escape(node.title)}</text>"
        f'<text x="{node.x - left:.1f}" y="{y + 31:.1f}" text-anchor="middle">{escape(node.detail)}</text>'
    )
