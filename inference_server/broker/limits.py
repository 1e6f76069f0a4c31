"""Whether the engine that a valid request names can serve it, told before the job waits for its turn."""

from __future__ import annotations

from collections.abc import Mapping

from shared.messages import EngineDescription, GenerationRequest


class Refusal(Exception):
    """A request no engine here can serve. Its text is one sentence for the user, `code` one of `Failed`'s."""

    def __init__(self, message: str, code: str = "invalid"):
        super().__init__(message)
        self.code = code


def check_request(request: GenerationRequest, engines: Mapping[str, EngineDescription]) -> None:
    """Raises `Refusal`."""
    engine = engines.get(request.engine)
    if engine is None:
        raise Refusal(f"There is no engine named {request.engine!r}; choose one of {', '.join(engines)}.")
    if not engine.ready:
        raise Refusal(engine.reason or f"{engine.label} can't run here; choose another engine.", "engine")
    if request.num_frames > engine.max_frames:
        raise Refusal(
            f"{engine.label} makes at most {engine.max_frames} frames, not {request.num_frames}; "
            "shorten the clip."
        )
    surplus = (request.num_frames - 1) % engine.frame_step
    if surplus:
        below = request.num_frames - surplus
        possible = [str(n) for n in (below, below + engine.frame_step) if n <= engine.max_frames]
        raise Refusal(
            f"{engine.label} can't make {request.num_frames} frames; choose {' or '.join(possible)}."
        )
    multiple = engine.size_multiple
    if request.width % multiple or request.height % multiple:
        sides = request.width, request.height
        width, height = (max(multiple, round(side / multiple) * multiple) for side in sides)
        raise Refusal(
            f"{engine.label} takes sizes that are multiples of {multiple}, "
            f"not {request.width} x {request.height}; choose {width} x {height}."
        )
