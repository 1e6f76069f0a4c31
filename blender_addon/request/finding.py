"""What the user should know about a clip or its making, and the button that helps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One sentence, and, where a button helps, the operator it presses, its label and its properties."""

    sentence: str
    operator: str = ""
    label: str = ""
    properties: tuple[tuple[str, object], ...] = ()


def setting(sentence: str, label: str, path: str, value: object) -> Finding:
    """A finding whose button sets one property of the context, by Blender's own operators.

    Args:
        path: from the context on, like "scene.poseanything.view".
    """
    kind = {bool: "boolean", str: "enum", int: "int", float: "float"}[type(value)]
    return Finding(sentence, f"wm.context_set_{kind}", label, (("data_path", path), ("value", value)))


def is_set(context, finding: Finding) -> bool:
    """Whether what a finding's button sets is set already."""
    values = dict(finding.properties)
    return "data_path" in values and context.path_resolve(values["data_path"]) == values["value"]
