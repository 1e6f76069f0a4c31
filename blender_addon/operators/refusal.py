"""What an operator says that can't do its work."""

from __future__ import annotations

import bpy

from .. import session
from ..errors import ExportCancelled
from ..request.finding import Finding
from ..texts.translation import shown


def refuse(operator: bpy.types.Operator, error: Exception) -> set[str]:
    """Report an error; one that a button helps against stays in the panel, with the button. Gives what the
    operator returns then."""
    if button := getattr(error, "button", ()):
        session.get().findings = (Finding(str(error), *button),)
    operator.report({"INFO" if isinstance(error, ExportCancelled) else "ERROR"}, shown(error))
    return {"CANCELLED"}
