"""The small model from noise, and drawn clips as its pipeline takes them."""

from pathlib import Path

from inference_server.engines.poseanything.request import conditions_from_request

FROM_NOISE = Path(__file__).resolve().parents[1] / "data" / "mini_from_noise"


def conditions_of(example, parts="drawn"):
    """A drawn clip's conditions: parts "drawn", told by the pose and matched by attention, or "scene"."""
    return conditions_from_request(example.request, parts)
