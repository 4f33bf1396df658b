"""The names that PyTorch code bases give the arrays of their networks: tables of few rules, in code_bases.yaml.

The code base of a state dict is recognised from its keys; every key either belongs to one of our arrays
(`CodeBase.key`) or is ignored for a reason. Some networks of a code base wrap a layer in one more sequence than others;
keys are compared in their plain form, without it (`CodeBase.plain`).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ovenet_jax import described

Rules = Mapping[str, str]  # pattern -> replacement, applied one after the other
Parts = Mapping[str, str]  # the parts of a head: our name -> the published name

TABLES: dict[str, Any] = described.with_tuples(yaml.safe_load(Path(__file__).with_name("code_bases.yaml").read_text()))
PREFIX: str = TABLES["prefix"]
BELOW = ("backbone.", "offset_trunk.")
OFFSETS = {"offset_head.classifier": "aux_head_offset"}
OPTIONAL = {"head.aux", "head.widening"}  # parts that some networks with such a head do without

# Keys of the backbone and the offset trunk, in any code base.
BACKBONE = r"(backbone|((conv|bn|transition|stage)\d|layer[1-4])(_2)?)\."


def renamed(name: str, *tables: Rules) -> str:
    """`name` with each rule applied, one after the other."""
    for pattern, replacement in (rule for table in tables for rule in table.items()):
        name = re.sub(pattern, replacement, name)
    return name


def title_of_config(head: Mapping[str, Any]) -> str:
    """The title of the head that `config.model.head` describes; for an unknown head one that no file gets."""
    for title, entries in TABLES["heads"].items():
        if all(head.get(key) == value for key, value in entries.items()):
            return title
    return f"the head {head['name']!r}"


class CodeBase(NamedTuple):
    """A published code base: its title, its names, the input of its networks, its form of BatchNorm.

    tells: patterns by which it is recognised: each matches the start of some key. heads: the parts of each, by title.
    fed: keys of config.model -> the input and resizing of its networks; empty for a backbone alone. backbone: rules for
    keys that begin with "backbone.". parts, object_attention: rules for keys inside the parts of heads. one_module:
    queries and keys share a module, stored under both names. in_place_abn: some of its networks have in-place ABN where
    others have BatchNorm. absent: a pattern of our arrays that its networks lack; they become 0.
    """

    title: str
    tells: tuple[str, ...]
    heads: Mapping[str, Parts] = {}
    fed: Mapping[str, Any] = {}
    backbone: Rules = {r"^backbone\.": ""}
    parts: Rules = TABLES["parts"]
    object_attention: Rules = TABLES["object_attention"]
    one_module: bool = False
    in_place_abn: bool = True
    absent: str = r"(?!)"

    def key(self, name: str, title: str) -> str | None:
        """The key of our array, in its plain form; None where it is of a part that the head of this title lacks."""
        if name.startswith(BELOW):
            return renamed(name, TABLES["below"], TABLES["leaves"], self.backbone)
        parts = {**self.heads.get(title, {}), **OFFSETS}
        part = next((part for part in parts if name.startswith(f"{part}.")), None)
        if part is None:
            return None
        attention = self.object_attention if "OCR" in title else TABLES["self_attention"]
        inside = attention if part.startswith("head.attention") else {}
        return parts[part] + renamed(name.removeprefix(part), inside, self.parts, TABLES["leaves"])

    def plain(self, key: str) -> str:
        """A state-dict key in the form in which keys are compared."""
        key = _plain(key)
        return key.replace(".f_query.", ".f_key.") if self.one_module else key

    def title_of(self, keys: Iterable[str]) -> str:
        """The title of the head that these state-dict keys belong to; "" if none is of a head."""
        keys = [key for key in map(self.plain, keys) if not re.match(BACKBONE, key) and why_ignored(key) is None]
        keys = [key for key in keys if not _part_of(key, OFFSETS.values())]
        known = {theirs for parts in self.heads.values() for theirs in parts.values()}
        of_heads = [key for key in keys if _part_of(key, known)]
        for title, parts in self.heads.items():
            found = {_part_of(key, parts.values()) for key in of_heads}
            if {theirs for ours, theirs in parts.items() if ours not in OPTIONAL} <= found <= set(parts.values()):
                return title
        first = sorted({key.partition(".")[0] for key in keys})
        return f"unknown parts ({', '.join(first[:8])}{', ...' * (len(first) > 8)})" if first else ""


CODE_BASES = {name: CodeBase(**entries) for name, entries in TABLES["code_bases"].items()}


def _plain(key: str) -> str:
    return renamed(re.sub(PREFIX, "", key), TABLES["plain"])


def _part_of(key: str, parts: Iterable[str]) -> str:
    return max((part for part in parts if key.startswith(f"{part}.")), key=len, default="")


def recognise(keys: Iterable[str]) -> CodeBase:
    """The code base that uses these state-dict keys."""
    keys = {re.sub(PREFIX, "", key) for key in keys}
    bases = CODE_BASES.values()
    return next(base for base in bases if all(any(re.match(tell, key) for key in keys) for tell in base.tells))


def why_ignored(key: str) -> str | None:
    """Why a state-dict key is ignored; None if its array belongs to the network."""
    key = _plain(key)
    return next((reason for pattern, reason in TABLES["ignored"].items() if re.search(pattern, key)), None)


def describe(names: Iterable[str], head: str) -> str:
    """Names a network by its arrays (our names or state-dict keys) and its head: "ResNet (3, 4, 23, 3), Base-OC,
    offsets"."""
    names = [_plain(name) for name in names]
    module = r"(?:backbone\.)?(?:trunk\.)?(stage\d|layer[1-4])\.(\d+)\."
    modules = {match.groups() for name in names if (match := re.match(module, name))}
    kind = "HRNet" if any(stage.startswith("stage") for stage, _ in modules) else "ResNet"
    modules = {(stage, _) for stage, _ in modules if kind == "ResNet" or stage.startswith("stage")}
    counts = tuple(Counter(stage for stage, _ in sorted(modules)).values())
    if kind == "ResNet" and not any(re.search(r"layer\d\.\d+\.conv3\.", name) for name in names):
        kind = "ResNet of basic blocks"
    offsets = "offsets" if any(name.startswith(("offset_head", "aux_head_offset")) for name in names) else ""
    backbone = f"{kind} {counts}" if counts else "no backbone known here"
    return ", ".join(filter(None, (backbone, head, offsets)))
