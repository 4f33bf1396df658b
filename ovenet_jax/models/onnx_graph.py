"""A program of JAX as an ONNX graph, for images of any number and size.

It is traced with variables for batch, height and width (`jax.export.symbolic_shape`), and each traced operation becomes
ONNX's of the same meaning, so a new head needs nothing here. What depends on sizes is computed in the graph. Maps stay
channels-last: an operation that ONNX has for [B, C, H, W] gets transposes around it, which onnxruntime removes, as it
computes what is constant.
"""

import ast
from collections.abc import Callable, Sequence
from string import ascii_lowercase
from typing import Any, TypeAlias

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr
from jax.interpreters.partial_eval import dce_jaxpr

SIDES, SMALLEST = ("batch", "height", "width"), 32  # of images; height and width have at least so many pixels
HEADER = """<ir_version: 8, opset_import: ["": 18]>
network (%s[batch, height, width, channels] image)
  => (uint8[batch, height, width] label_map, float[batch, height, width, classes] scores) {}"""

Equation: TypeAlias = Any  # a JaxprEqn; its types do not say that variables have shapes
Value: TypeAlias = str | np.ndarray  # the name of a result in the graph, or a constant


def model_of(program: Callable, images: Callable) -> onnx.ModelProto:
    """`program` as the ONNX model of HEADER. images: as `images_of`, for (B, H, W). Raises NotImplementedError: an
    operation without a translation."""
    shape = jax.export.symbolic_shape(", ".join(SIDES), constraints=[f"{side} >= {SMALLEST}" for side in SIDES[1:]])
    image = images(*shape)
    traced = jax.make_jaxpr(program)(image)
    needed, _ = dce_jaxpr(traced.jaxpr, len(traced.out_avals) * [True], instantiate=True)
    model = onnx.parser.parse_model(HEADER % image.dtype)
    graph = _Graph(model.graph)
    for output, result in zip(model.graph.output, graph.run(traced.replace(jaxpr=needed), ["image"]), strict=True):
        graph("Identity", result, name=output.name)
    return model


class _Graph:
    """Adds nodes to an ONNX graph."""

    def __init__(self, graph: onnx.GraphProto):
        self._nodes = graph.node
        self._sides = {side: self("Shape", "image", start=axis, end=axis + 1) for axis, side in enumerate(SIDES)}

    def __call__(self, operation: str, *inputs: Value, name: str = "", **attributes: Any) -> str:
        """Adds a node with one result. Returns the name of that."""
        names = [x if isinstance(x, str) else self("Constant", value=onnx.numpy_helper.from_array(x)) for x in inputs]
        name = name or f"value_{len(self._nodes)}"
        self._nodes.append(onnx.helper.make_node(operation, names, [name], **attributes))
        return name

    def run(self, traced: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
        """Adds a traced program. Returns its results."""
        variables = [*traced.jaxpr.constvars, *traced.jaxpr.invars]
        known: dict[Any, Value] = dict(zip(variables, [*map(np.asarray, traced.consts), *inputs], strict=True))
        for e in traced.jaxpr.eqns:
            values = [np.asarray(x.val, x.aval.dtype) if hasattr(x, "val") else known[x] for x in e.invars]
            name, fixed = e.primitive.name, not any(map(jax.export.is_symbolic_dim, e.outvars[0].aval.shape))
            if inner := e.params.get("jaxpr") or e.params.get("call_jaxpr"):  # of jax.jit, of jax.custom_jvp
                known |= zip(e.outvars, self.run(inner, values), strict=True)
            elif values and fixed and all(isinstance(x, np.ndarray) for x in values):
                known[e.outvars[0]] = np.asarray(e.primitive.bind(*values, **e.params))
            elif name in SAME:
                known[e.outvars[0]] = self(SAME[name], *values)
            elif name in OPERATIONS:
                known[e.outvars[0]] = OPERATIONS[name](self, e, *values)
            else:
                raise NotImplementedError(f"the operation {name}")
        return [known[x] for x in traced.jaxpr.outvars]

    def sizes(self, sides: Sequence[Any]) -> str:
        """int64 [len(sides)], of integers and expressions of SIDES."""
        return self("Concat", *(self._side(ast.parse(str(side), mode="eval").body) for side in sides), axis=0)

    def _side(self, expression: ast.expr) -> Value:
        """int64 [1], of an expression as jax.export prints it."""
        match expression:
            case ast.Constant(int(number)):
                return np.array([number])
            case ast.Name(name):
                return self._sides[name]
            case ast.UnaryOp(ast.USub(), operand):
                return self("Neg", self._side(operand))
            case ast.BinOp(left, operator, right):
                name, parts = type(operator).__name__, [left, right]
            case ast.Call(ast.Name(name), parts):
                pass
        return self({"Mult": "Mul", "floordiv": "Div", "mod": "Mod"}.get(name, name), *map(self._side, parts))

    def on_maps(self, operation: str, x: Value, *inputs: Value, **attributes: Any) -> str:
        """An operation of ONNX on a map [B, H, W, C]."""
        result = self(operation, self("Transpose", x, perm=(0, 3, 1, 2)), *inputs, **attributes)
        return self("Transpose", result, perm=(0, 2, 3, 1))


def _conv(graph: _Graph, e: Equation, x: Value, kernel: np.ndarray) -> Value:
    sizes = {"strides": e.params["window_strides"], "dilations": e.params["rhs_dilation"]}
    return graph.on_maps("Conv", x, kernel.transpose(3, 2, 0, 1), pads=np.ravel(e.params["padding"], "F"), **sizes)


def _max_pool(graph: _Graph, e: Equation, x: Value) -> Value:
    size, strides, padding = (e.params[key][1:3] for key in ("window_dimensions", "window_strides", "padding"))
    return graph.on_maps("MaxPool", x, kernel_shape=size, strides=strides, pads=np.ravel(padding, "F"))


def _named(graph: _Graph, e: Equation, *inputs: Value) -> Value:
    (batch, *size, channels), name = e.outvars[0].aval.shape, e.params["target_name"]
    sizes = ("", "", graph.sizes((batch, channels, *size))) if name == "Resize" else ()
    return graph.on_maps(name, *inputs, *sizes, **dict(e.params["attributes"]))


def _broadcast(graph: _Graph, e: Equation, x: Value) -> Value:
    shape: list[Any] = [1] * e.outvars[0].aval.ndim
    for axis, side in zip(e.params["broadcast_dimensions"], e.invars[0].aval.shape, strict=True):
        shape[axis] = side
    if isinstance(x, np.ndarray):
        return x.reshape(shape)  # operations broadcast it
    return graph("Expand", graph("Reshape", x, graph.sizes(shape)), graph.sizes(e.outvars[0].aval.shape))


def _slice(graph: _Graph, e: Equation, x: Value, starts: Value) -> Value:
    dimensions, sizes = e.params["dimension_numbers"], e.params["slice_sizes"]
    if len(e.invars[1].aval.shape) != 1 or dimensions.operand_batching_dims:
        raise NotImplementedError("gather of more than one slice")
    starts, axes = graph("Cast", starts, to=onnx.TensorProto.INT64), dimensions.start_index_map
    ends = graph("Add", starts, graph.sizes([sizes[axis] for axis in axes]))
    return _reshape(graph, e, graph("Slice", x, starts, ends, np.array(axes)))


def _product(graph: _Graph, e: Equation, *inputs: Value) -> Value:
    (contracted, shared), letters = e.params["dimension_numbers"], iter(ascii_lowercase)
    first, second = ([next(letters) for _ in x.aval.shape] for x in e.invars)
    for axis, other in zip((*contracted[0], *shared[0]), (*contracted[1], *shared[1]), strict=True):
        second[other] = first[axis]
    batch, summed = ([first[axis] for axis in axes[0]] for axes in (shared, contracted))
    result = batch + [x for x in first + second if x not in batch + summed]
    return graph("Einsum", *inputs, equation=f"{''.join(first)},{''.join(second)}->{''.join(result)}")


def _reshape(graph: _Graph, e: Equation, x: Value) -> Value:
    return graph("Reshape", x, graph.sizes(e.outvars[0].aval.shape))


def _cast(graph: _Graph, e: Equation, x: Value) -> Value:
    return graph("Cast", x, to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(e.outvars[0].aval.dtype)))


def _reverse(graph: _Graph, e: Equation, x: Value) -> Value:
    (axis,) = e.params["dimensions"]
    return graph("Gather", x, np.arange(e.invars[0].aval.shape[axis])[::-1], axis=axis)


SAME = {  # of JAX: in ONNX
    "add": "Add", "mul": "Mul", "div": "Div", "max": "Max", "exp": "Exp", "tanh": "Tanh", "logistic": "Sigmoid",
    "lt": "Less", "le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual", "stop_gradient": "Identity",
}  # fmt: skip
OPERATIONS: dict[str, Callable[..., Value]] = {
    "conv_general_dilated": _conv,
    "reduce_window_max": _max_pool,
    "ffi_call": _named,
    "broadcast_in_dim": _broadcast,
    "gather": _slice,
    "dot_general": _product,
    "reshape": _reshape,
    "squeeze": _reshape,
    "convert_element_type": _cast,
    "pad": lambda g, e, x, v: g("Pad", x, g.sizes([p[i] for i in (0, 1) for p in e.params["padding_config"]]), v),
    "stack": lambda g, e, *parts: g(
        "Concat", *(g("Unsqueeze", x, np.array([e.params["axis"]])) for x in parts), axis=e.params["axis"]
    ),
    "rev": _reverse,
    "transpose": lambda g, e, x: g("Transpose", x, perm=e.params["permutation"]),
    "concatenate": lambda g, e, *parts: g("Concat", *parts, axis=e.params["dimension"]),
    "reduce_max": lambda g, e, x: g("ReduceMax", x, np.array(e.params["axes"]), keepdims=0),
    "reduce_sum": lambda g, e, x: g("ReduceSum", x, np.array(e.params["axes"]), keepdims=0),
    "argmax": lambda g, e, x: _cast(g, e, g("ArgMax", x, axis=e.params["axes"][0], keepdims=0)),
    "dim_as_value": lambda g, e: _cast(g, e, g("Squeeze", g.sizes([e.params["dim"]]))),
    "iota": lambda g, e: _cast(g, e, g("Range", np.array(0), g("Squeeze", g.sizes(e.params["shape"])), np.array(1))),
    "select_n": lambda g, _, which, no, yes: g("Where", which, yes, no),
    # Runtimes make the addition of a constant a part of the convolution before it.
    "sub": lambda g, _, x, y: g("Add", x, -y) if isinstance(y, np.ndarray) else g("Sub", x, y),
}
