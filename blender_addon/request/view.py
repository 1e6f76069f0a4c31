"""Where a clip is seen from: the scene's camera, a 3D view, or the view of an earlier take."""

from __future__ import annotations

from ..buttons import USE_CAMERA
from ..errors import ExportError
from ..takes.take import Take
from ..texts import say
from ..view import SceneCamera, Viewport


def find_viewport(context):
    """(space, region) of the 3D view that the user is in, else of the largest one; None without any."""
    area = context.area
    if area is None or area.type != "VIEW_3D":
        areas = [a for a in context.screen.areas if a.type == "VIEW_3D"] if context.screen is not None else []
        if not areas:
            return None
        area = max(areas, key=lambda a: a.width * a.height)
    return area.spaces.active, next(region for region in area.regions if region.type == "WINDOW")


def find_view(context, settings) -> SceneCamera | Viewport:
    """The view that the settings name. Raises `ExportError`."""
    if settings.view == "CAMERA":
        return SceneCamera()
    viewport = find_viewport(context)
    if viewport is None:
        raise ExportError("There is no 3D view to look through; choose the camera as view.", *USE_CAMERA)
    return Viewport.from_context(*viewport)


def recorded_view(take: Take | None) -> Viewport | None:
    """The viewport that a take was seen through, None when it was a camera. Raises `ExportError`."""
    kept = take.record.get("viewport") if take is not None else None
    try:
        return Viewport.from_record(kept) if kept else None
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            say("The viewport of {take} can't be read; use its settings and generate.", take=take.name)
        ) from error
