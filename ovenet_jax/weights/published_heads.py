"""The published heads. Which one a network has is known from its config; of a state dict the names of its arrays tell.

A head that is none of these has a title of its own: two unknown heads are never taken for the same.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

FIRST_RELEASE = {"attention.key", "attention.output", "attention.value", "classifier", "fusion", "pixels"}
ATTENTION = FIRST_RELEASE | {"attention.query"}
SEVERAL = {"classifier", "fusion", "pixels"}
OPTIONAL = {"aux", "widening"}
PART = re.compile(r"head\.(?:(attentions?\.)(?:\d+\.)?)?([a-z_]+)\.|(boundary_head|direction_head)\.")


class Head(NamedTuple):
    """A head and its entries in config.model.head that tell it from others.

    parts: what its arrays belong to, those of OPTIONAL aside. has, lacks: patterns of names, one of which must be among
    its arrays, or none, where the parts are those of another head, too.
    """

    title: str
    config: Mapping[str, Any]
    parts: set[str]
    has: str = ""
    lacks: str = ""


PYRAMID = {"pyramid", "context_pixels", "context_norm"}
SEPARATE, BIASED = r"value\.0\.", r"value\.0\.conv\.bias"  # what OCR's values have, OCNet's do not

HEADS = (
    Head("a plain head", {"name": "fcn"}, {"classifier"}, has=r"classifier\.hidden\."),
    Head("OCR in HRNet's own form", {"name": "ocr", "bias": False}, ATTENTION, has=SEPARATE, lacks=BIASED),
    Head("OCR in openseg's form", {"name": "ocr", "bias": True}, ATTENTION, has=BIASED),
    Head("ASP-OCR", {"name": "asp_ocr"}, ATTENTION | {"pyramid"}, has=SEPARATE),
    Head("Base-OC", {"name": "base_oc", "first_release": False}, ATTENTION, lacks=SEPARATE),
    Head("Base-OC of the first release", {"name": "base_oc", "first_release": True}, FIRST_RELEASE),
    Head("Pyramid-OC", {"name": "pyramid_oc"}, SEVERAL | {f"attentions.{x}" for x in ("key", "output", "value")}),
    Head("ASP-OC", {"name": "asp_oc", "first_release": False}, ATTENTION | PYRAMID),
    Head(
        "ASP-OC of the first release",
        {"name": "asp_oc", "first_release": True},
        FIRST_RELEASE | PYRAMID | {"context_conv"},
    ),
    Head("ISA", {"name": "isa"}, SEVERAL | {"attentions.long_range", "attentions.short_range"}),
    Head("boundaries and directions", {"name": "segfix"}, {"boundary_head", "direction_head"}),
)


def title_of_config(head: Mapping[str, Any]) -> str:
    """The title of the head that `config.model.head` describes."""
    for known in HEADS:
        if all(head.get(key) == value for key, value in known.config.items()):
            return known.title
    return f"the head {head['name']!r}"


def title_of_names(names: Iterable[str]) -> str:
    """The title of the head whose arrays have these names; "" where none is of a head."""
    part_of = {name: "".join(filter(None, match.groups())) for name in names if (match := PART.match(name))}
    parts = set(part_of.values()) - OPTIONAL

    def some(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in part_of)

    for known in HEADS:
        if parts == known.parts and some(known.has) and not (known.lacks and some(known.lacks)):
            return known.title
    return f"an unknown head ({', '.join(sorted(parts))})" if parts else ""
