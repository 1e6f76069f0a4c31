"""The small model from noise, and drawn clips as its pipeline takes them."""

from pathlib import Path

from inference_server.engines.poseanything.request import conditions_from_request
from inference_server.poseanything.sampling.options import Options

FROM_NOISE = Path(__file__).resolve().parents[1] / "data" / "mini_from_noise"


def conditions_of(example, parts="images"):
    """A drawn clip's conditions: parts of the "images" of its pose, matched by attention, or of the
    "scene"."""
    return conditions_from_request(example.request, Options(parts=parts))
