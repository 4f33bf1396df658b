"""What a compiled program does, read from its HLO text: one Kernel for everything that a GPU is told to launch."""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}  # of other types the digits in their names
SHAPE = re.compile(r"\b(pred|token|opaque|bf16|[a-z]+\d+\w*)\[([\d,]*)\](?:\{([\d,]*))?")
COMPUTATION = re.compile(r"^(ENTRY )?%?(?P<name>[\w.-]+) .*->.*\{$")
INSTRUCTION = re.compile(
    r"^ +(?:ROOT )?%?(?P<name>[\w.-]+) = (?P<type>\(?\S.*?) (?P<opcode>[a-z][\w-]*)\((?P<operands>[^)]*)\)(?P<rest>.*)$"
)
LAUNCHES_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
COLLECTIVES = {"all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all", "collective-broadcast"}
MOVES = {"parameter", "constant", "bitcast", "tuple", "reshape", "transpose", "copy", "convert", "slice"}
# What a fusion is called by, the first of these that it holds.
TELLING = {
    "sort": "sort",
    "scatter": "scatter",
    "gather": "gather",
    "reduce": "reduction",
    "reduce-window": "reduction",
    "concatenate": "concatenation",
}


class Shape(NamedTuple):
    """Of an array; `order` are its dimensions from the one whose neighbours are adjacent in memory."""

    type: str
    sizes: tuple[int, ...]
    order: tuple[int, ...]

    @property
    def bytes(self) -> int:
        bits = BITS[self.type] if self.type in BITS else int(re.search(r"\d+", self.type)[0])
        return math.prod(self.sizes) * bits // 8


class Kernel(NamedTuple):
    """An instruction of the optimised program, counted `times` (as often as the loops around it run).

    kind: "convolution", "product", a collective's name, a custom call's target, or what a fusion is called by.
    path: as an Instruction's. read, written: bytes of its operands, as far as it reads them, and of its results. flop:
    of convolutions and products. types: of what these multiply and make, with "TF32" where float32 may be rounded to
    that. detail: a convolution's direction and layouts; "beside others" for a collective that other kernels need not
    wait for.
    """

    name: str
    kind: str
    path: str
    times: int
    read: int
    written: int
    flop: float = 0.0
    types: str = ""
    detail: str = ""

    @property
    def bytes(self) -> int:
        return self.read + self.written


class Instruction(NamedTuple):
    name: str
    shapes: list[Shape]
    opcode: str
    operands: list[str]
    rest: str

    def attribute(self, pattern: str) -> str | None:
        found = re.search(pattern, self.rest)
        return found[1] if found else None

    @property
    def path(self) -> str:
        """Of the JAX operation it comes from, "" where the compiler has not kept it."""
        return self.attribute(r'op_name="([^"]*)"') or ""

    @property
    def written(self) -> int:
        return sum(shape.bytes for shape in self.shapes)


Computation = dict[str, Instruction]


def kernels(program: str) -> list[Kernel]:
    """All that one run of the program launches."""
    computations, entry = read_computations(program)
    return list(_launched(computations, entry, 1))


def read_computations(program: str) -> tuple[dict[str, Computation], str]:
    """The program's computations by name, each its instructions by name; and the entry's name."""
    computations, entry, current = {}, "", {}
    for line in program.splitlines():
        if found := COMPUTATION.match(line):
            current = computations[found["name"]] = {}
            entry = found["name"] if found[1] else entry
        elif found := INSTRUCTION.match(line):
            operands = re.findall(r"%([\w.#-]+)", found["operands"])
            shapes = [
                Shape(kind, _numbers(sizes), _numbers(order)) for kind, sizes, order in SHAPE.findall(found["type"])
            ]
            name = found["name"]
            current[name] = Instruction(name, shapes, found["opcode"], operands, found["rest"])
    return computations, entry


def _launched(computations: dict[str, Computation], name: str, times: int) -> Iterator[Kernel]:
    computation = computations[name]
    for instruction in computation.values():
        opcode = instruction.opcode
        if opcode in LAUNCHES_NOTHING or opcode.endswith("-done"):
            continue
        if opcode == "while":
            trips = instruction.attribute(r'"known_trip_count":\{"n":"(\d+)"') or 1
            yield from _launched(computations, instruction.attribute(r"body=%?([\w.-]+)"), times * int(trips))
        elif opcode in ("call", "conditional"):
            for called in re.findall(r"%([\w.-]+)", instruction.rest):
                if called in computations:
                    yield from _launched(computations, called, times)
        else:
            yield _kernel(computations, computation, instruction, times)


def _kernel(
    computations: dict[str, Computation], computation: Computation, instruction: Instruction, times: int
) -> Kernel:
    operands = [shape for name in instruction.operands for shape in _shapes_of(computation, name)]
    kernel = Kernel(
        instruction.name,
        instruction.opcode.removesuffix("-start"),
        instruction.path,
        times,
        sum(shape.bytes for shape in operands),
        instruction.written,
    )
    if kernel.kind in COLLECTIVES:
        sent = min(kernel.written, kernel.read)  # by each device
        detail = "beside others" if instruction.opcode.endswith("-start") else "alone"
        return kernel._replace(read=0, written=sent, detail=detail)
    if instruction.opcode == "fusion":
        return _fusion(computations, instruction, kernel)
    if instruction.opcode != "custom-call":
        return kernel
    target = instruction.attribute(r'custom_call_target="([^"]*)"')
    if target.startswith("__cudnn$conv"):
        return _convolution(instruction, operands, target, kernel)
    if "cublas" in target:
        left, right, result = operands[0], operands[1], instruction.shapes[0]
        contracted = int(instruction.attribute(r'"lhs_contracting_dimensions":\["(\d+)"'))
        flop = 2 * math.prod(result.sizes) * left.sizes[contracted]
        return kernel._replace(kind="product", flop=flop, types=_types(instruction, left, right, result))
    return kernel._replace(kind=target)


def _convolution(instruction: Instruction, operands: list[Shape], target: str, kernel: Kernel) -> Kernel:
    left, right, result = operands[0], operands[1], instruction.shapes[0]
    labels = instruction.attribute(r"dim_labels=(\w+->\w+)")
    left_labels, right_labels, result_labels = re.split("_|->", labels)
    if "Forward" in target:
        kernel_shape, pixels, outputs = right, result, result.sizes[result_labels.index("f")]
    elif "BackwardInput" in target:
        kernel_shape, pixels, outputs = right, left, left.sizes[left_labels.index("f")]
    else:
        kernel_shape, pixels, outputs = result, right, right.sizes[left_labels.index("f")]
    flop = 2 * math.prod(pixels.sizes) * math.prod(kernel_shape.sizes) / outputs
    layouts = f"{_layout(left, left_labels)},{_layout(right, right_labels)}->{_layout(result, result_labels)}"
    direction = re.sub(r"^__cudnn\$conv", "", target)
    return kernel._replace(
        kind="convolution", flop=flop, types=_types(instruction, left, right, result), detail=f"{direction} {layouts}"
    )


def _fusion(computations: dict[str, Computation], instruction: Instruction, kernel: Kernel) -> Kernel:
    called = computations[instruction.attribute(r"calls=%?([\w.-]+)")]
    inside = list(_inside(computations, called))
    kernel = kernel._replace(read=sum(_read(called, x) for x in called.values() if x.opcode == "parameter"))
    opcodes = {x.opcode for _, x in inside}
    products = [(computation, x) for computation, x in inside if x.opcode == "dot"]
    if products:
        flop = 0
        for computation, product in products:
            (left,) = _shapes_of(computation, product.operands[0])
            contracted = _numbers(product.attribute(r"lhs_contracting_dims=\{([\d,]*)\}"))
            flop += 2 * math.prod(product.shapes[0].sizes) * math.prod(left.sizes[axis] for axis in contracted)
        computation, product = products[0]
        sides = [_shapes_of(computation, name)[0] for name in product.operands]
        return kernel._replace(kind="product", flop=flop, types=_types(product, *sides, product.shapes[0]))
    for opcode, kind in TELLING.items():
        if opcode in opcodes:
            launches = sum(_launches_of_sort(x) for _, x in inside if x.opcode == "sort") or 1
            return kernel._replace(kind=kind, times=kernel.times * launches)
    return kernel._replace(kind="copy" if opcodes <= MOVES else "arithmetic")


def _launches_of_sort(sort: Instruction) -> int:
    """XLA sorts bitonically: a launch reads and writes everything to compare numbers of one distance, or all within
    tiles that fit into a block's shared memory."""
    size = max(sort.shapes[0].sizes)
    tile = min(4096, 49152 // sum(shape.bytes // math.prod(shape.sizes) for shape in sort.shapes))
    farther = max(0, (size - 1).bit_length() - tile.bit_length() + 1)  # steps that double the sorted runs beyond a tile
    return 1 + farther + farther * (farther + 1) // 2


def _inside(computations: dict[str, Computation], called: Computation) -> Iterator[tuple[Computation, Instruction]]:
    """The instructions of a fusion, those of fusions in it included."""
    for instruction in called.values():
        yield called, instruction
        if instruction.opcode == "fusion":
            yield from _inside(computations, computations[instruction.attribute(r"calls=%?([\w.-]+)")])


def _read(called: Computation, parameter: Instruction) -> int:
    """How much of a fusion's operand is read: of one that is only sliced or gathered from, so much; of one that is only
    written into, nothing."""
    (shape,) = parameter.shapes
    whole = math.prod(shape.sizes)
    parts = list(_parts_read(called, parameter.name))
    if not parts or any(kind == "whole" for kind, _ in parts):
        return shape.bytes
    gathered = sum(min(whole, size) for kind, size in parts if kind == "gather")
    sliced = min(whole, sum(size for kind, size in parts if kind != "gather"))
    return shape.bytes * (gathered + sliced) // max(whole, 1)


def _parts_read(called: Computation, name: str) -> Iterator[tuple[str, int]]:
    """What takes each part, and how many numbers that is."""
    for reader in called.values():
        if name not in reader.operands:
            continue
        first = reader.operands[0] == name
        if reader.opcode in ("slice", "dynamic-slice", "gather") and first:
            yield reader.opcode, math.prod(reader.shapes[0].sizes)
        elif reader.opcode == "dynamic-update-slice" and first:
            yield reader.opcode, 0
        elif reader.opcode in ("convert", "bitcast"):
            parts = list(_parts_read(called, reader.name))
            yield from parts if all("slice" in kind for kind, _ in parts) else [("whole", 0)]
        else:
            yield "whole", 0


def _shapes_of(computation: Computation, name: str) -> list[Shape]:
    """Of an operand; "x#1" is the second result of x."""
    name, _, index = name.partition("#")
    shapes = computation[name].shapes
    return shapes[int(index) : int(index) + 1] if index else shapes


def _types(instruction: Instruction, left: Shape, right: Shape, result: Shape) -> str:
    exact = re.search(r'operand_precision"?[=:][{\["]+highest', instruction.rest, re.IGNORECASE)
    return f"{left.type},{right.type}->{result.type}{' TF32' * (left.type == 'f32' and not exact)}"


def _layout(shape: Shape, labels: str) -> str:
    """Labels b01f of axes 3, 2, 1, 0 from the adjacent one -> NHWC."""
    names = {"b": "N", "f": "C", "0": "H", "1": "W", "i": "I", "o": "O"}
    return "".join(names[labels[axis]] for axis in reversed(shape.order))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
