"""What the user should know about a clip or its making, and the button that helps."""

from __future__ import annotations

from dataclasses import dataclass

from .. import buttons


@dataclass(frozen=True)
class Finding:
    """One sentence, and, where a button helps, the operator it presses, its label and its properties."""

    sentence: str
    operator: str = ""
    label: str = ""
    properties: tuple[tuple[str, object], ...] = ()

    @property
    def button(self) -> buttons.Button:
        return buttons.Button(self.operator, self.label, self.properties)


def setting(sentence: str, label: str, path: str, value: object) -> Finding:
    """A finding whose button sets one property of the context, as `buttons.sets` says."""
    return Finding(sentence, *buttons.sets(label, path, value))


def is_set(context, finding: Finding) -> bool:
    """Whether what a finding's button sets is set already."""
    if finding.button == buttons.LEAVE_EDIT_MODE:
        return not context.mode.startswith("EDIT")
    values = dict(finding.properties)
    return "data_path" in values and context.path_resolve(values["data_path"]) == values["value"]
