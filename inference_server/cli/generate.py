"""`generate`: a clip on the command line, from a first frame and a folder of pose images, or from a request
file."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from shared.camera import MOVES, camera_path
from shared.messages import GenerationRequest, Guidance, Progress
from shared.request_file import SUFFIX, read_request
from shared.schema import MessageError

from ..engines import find_engine
from ..engines.base import Engine, EngineError, Picture
from ..out_of_memory import is_out_of_memory
from ..worker.job import Estimate
from .output import open_output

GUIDERS = ("none", "classifier_free", "subject_camera", "subject_camera_separate")


def add_parser(subparsers) -> argparse.ArgumentParser:
    parser = subparsers.add_parser("generate", help="make a clip from files", description=__doc__)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="CLIP", help="a new .mp4, or a new folder for PNGs"
    )
    parser.add_argument("--engine", help="default: the request's; poseanything for a folder of pose images")
    parser.add_argument("--seed", type=int, help="default: the request's, or 0")
    parser.add_argument("--steps", type=int, help="denoising steps; default: the request's, or 50")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the engine, such as cache=first_block; may be repeated",
    )
    request = parser.add_argument_group("from a request")
    request.add_argument("--request", type=Path, metavar=f"FILE{SUFFIX}", help="written by the extension")
    poses = parser.add_argument_group("from pose images")
    poses.add_argument(
        "--poses",
        type=Path,
        metavar="FOLDER",
        help="white lines on black, a picture a frame in the order of their names; a black one is no pose",
    )
    poses.add_argument(
        "--first-frame", type=Path, metavar="PICTURE", help="squashed to the pose images' shape"
    )
    poses.add_argument(
        "--subject", type=Path, metavar="PICTURE", help="the first frame's subject, cut out on white"
    )
    poses.add_argument(
        "--prompt", default="", help="what is to be seen, or the name of a text file that says so"
    )
    poses.add_argument("--negative-prompt", default="", help="what is not to be seen, for guidance")
    poses.add_argument(
        "--frames", type=int, help="1 + 4 n; default: as many as there are poses for, at most 81"
    )
    poses.add_argument("--fps", type=float, default=24.0, help="default: %(default)g")
    poses.add_argument(
        "--longer-side", type=int, default=832, metavar="PIXELS", help="default: %(default)s, as trained"
    )
    poses.add_argument(
        "--guider",
        choices=GUIDERS,
        help="default: subject_camera with a camera, classifier_free with a scale, else none",
    )
    poses.add_argument(
        "--guidance-scale",
        type=_scale,
        metavar="SCALE",
        help="1 is none; auto goes by how many frames have a pose; default: 2 with a guider",
    )
    poses.add_argument(
        "--camera-guidance-scale", type=float, metavar="SCALE", help="for subject_camera_separate; default: 1"
    )
    poses.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        default=(0.0, 1.0),
        metavar=("START", "STOP"),
        help="fractions of the steps between which guidance is on; default: all of them",
    )
    poses.add_argument(
        "--negative",
        choices=("text", "pose", "both"),
        default="both",
        help="what classifier-free guidance leads away from: the negative prompt, the first pose repeated, "
        "or both (the default)",
    )
    poses.add_argument(
        "--camera",
        type=_move,
        action="append",
        default=[],
        metavar="MOVE=AMOUNT",
        help=f"such as pan_left=0.2, a fifth of the picture; repeated, all at once; {', '.join(MOVES)}",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        if (args.request is None) == (args.poses is None):
            raise ValueError("Name either a request file or a folder of pose images.")
        fps, events = _from_request(args) if args.request else _from_poses(args)
        note = _write(args.output, fps, events)
    except (EngineError, MessageError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was kept.", file=sys.stderr)
        return 130
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        print(
            "Memory ran out; choose a smaller size or fewer frames, or close other programs.",
            file=sys.stderr,
        )
        return 1
    print(f"{args.output}: made in {time.monotonic() - started:.0f} s. {note or ''}".rstrip())
    return 0


def _from_request(args: argparse.Namespace) -> tuple[float, Iterator]:
    request = read_request(args.request)
    changed = {"engine": args.engine, "seed": args.seed, "num_inference_steps": args.steps}
    request = dataclasses.replace(
        request,
        **{name: value for name, value in changed.items() if value is not None},
        engine_options=request.engine_options | _options(args.option),
    )
    engine = _ready_engine(request.engine)
    return request.fps, _after_loading(engine, lambda: engine.generate(request, lambda: False))


def _from_poses(args: argparse.Namespace) -> tuple[float, Iterator]:
    if args.first_frame is None:
        raise ValueError("Name the first frame that goes with the pose images.")
    if args.engine not in (None, "poseanything"):
        raise ValueError(
            f"The engine {args.engine} needs limbs, which pose images don't tell; give it a request file."
        )
    fps, steps, seed = (
        _as_in_a_request(name, value)
        for name, value in (("fps", args.fps), ("num_inference_steps", args.steps), ("seed", args.seed))
    )
    guidance, options = _guidance(args), _options(args.option)
    if args.guidance_scale == "auto":
        options["guidance"] = "auto"
    engine = _ready_engine("poseanything")
    from ..engines.poseanything.request import draw_camera
    from ..poseanything.conditioning.files import read_conditions
    from ..poseanything.sampling.request import SamplingRequest

    prompt = (
        Path(args.prompt).read_text(encoding="utf-8").strip() if args.prompt.endswith(".txt") else args.prompt
    )
    clip = read_conditions(
        args.first_frame,
        args.poses,
        subject=args.subject,
        num_frames=args.frames,
        longer_side=args.longer_side,
        prompt=prompt,
        negative_prompt=args.negative_prompt,
    )
    if args.camera:
        height, width = clip.size
        path = camera_path(dict(args.camera), clip.num_frames, width, height)
        clip = dataclasses.replace(clip, camera_images=draw_camera(path, width, height))
    sampling = SamplingRequest.of(clip, guidance, seed, steps, options)
    return fps, _after_loading(engine, lambda: engine.make(sampling, lambda: False))


def _ready_engine(name: str) -> Engine:
    """An engine that can run here; raises `EngineError` with its reason where it can't."""
    found = find_engine(name)
    about = found.describe()
    if not about.ready:
        raise EngineError(about.reason)
    return found()


def _as_in_a_request(name: str, value: object) -> object:
    """A value that the request's field takes, or its default for None; raises `MessageError`."""
    (field,) = (field for field in dataclasses.fields(GenerationRequest) if field.name == name)
    return field.default if value is None else field.metadata["kind"].check(value, field.metadata["label"])


def _guidance(args: argparse.Namespace) -> Guidance:
    scale, camera_scale = args.guidance_scale, args.camera_guidance_scale
    default = "subject_camera" if args.camera else "none" if scale in (None, 1.0) else "classifier_free"
    start, stop = args.guidance_interval
    return Guidance(
        guider=args.guider or default,
        guidance_scale=scale if isinstance(scale, float) else 2.0,
        camera_guidance_scale=1.0 if camera_scale is None else camera_scale,
        negative_text=args.negative != "pose",
        negative_pose=args.negative != "text",
        start=start,
        stop=stop,
    )


def _scale(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor auto") from None


def _move(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} has no amount; write it as pan_left=0.2") from None


def _after_loading(engine, generate) -> Iterator:
    yield from engine.load()
    return (yield from generate())


def _options(words: list[str]) -> dict[str, object]:
    """The table that NAME=VALUE words make: numbers, true and false as such, anything else as text."""
    options = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise ValueError(f"The option {word!r} has no value; write it as NAME=VALUE.")
        value: object = {"true": True, "false": False}.get(text.lower(), text)
        for number in (float, int):
            try:
                value = number(text)
            except ValueError:
                continue
        options[name] = value
    return options


def _write(output: Path, fps: float, events: Iterator) -> object:
    """Write the pictures, telling how far it is; returns the engine's note."""
    tell = _Teller()
    with open_output(output, fps) as write:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, Picture):
                write(event.image)
            elif isinstance(event, Progress):
                tell(event)


class _Teller:
    """Progress on standard output: a line that changes on a terminal, elsewhere a line every few seconds."""

    QUIET_SECONDS = 5.0

    def __init__(self):
        self._estimate, self._told = Estimate(), 0.0
        self._terminal = sys.stdout.isatty()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        seconds = self._estimate(progress, now)
        ends = progress.step == progress.total
        if not (self._terminal or ends or now - self._told > self.QUIET_SECONDS):
            return
        self._told = now
        left = "" if seconds is None or ends else f", {seconds:.0f} s left"
        line = f"{progress.stage} {progress.step}/{progress.total}{left} {progress.note}".rstrip()
        print(
            f"\033[K{line}" if self._terminal else line,
            end="\r" if self._terminal and not ends else "\n",
            flush=True,
        )
