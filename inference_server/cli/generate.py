"""`generate`: a clip on the command line, from a request file, or from a first frame and a folder of pose
images or a video whose motion drives it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.camera import MOVES, camera_path
from shared.engines import EngineDescription, Guidance, check_guidance, check_request, check_values
from shared.engines import find_engine as find_engine_of
from shared.messages import Done, FoundPoses, Frame, GenerationRequest, PoseRequest, Progress
from shared.request_file import SUFFIX, read_request
from shared.schema import MessageError

from ..engines import ENGINES, describe_engine, find_engine
from ..engines.base import Engine, EngineError, Picture, is_out_of_memory
from ..engines.poseanything.engine import PoseAnythingEngine, starts_from_draft
from ..worker.time_left import TimeLeft
from .output import check_free, open_output
from .progress_line import ProgressLine
from .remote import Remote, RemoteError, connect, picture_of
from .subject import add_subject, read_subject, subject_of
from .values import add_parameters, chosen_parameters, describe_values, parse_assignments

if TYPE_CHECKING:
    from ..poseanything.checkpoints import WeightSet
    from ..poseanything.conditioning.conditions import Conditions
    from ..poseanything.conditioning.latent_grid import LatentGrid


MAX_SAMPLES = 64


def add_parser(subparsers) -> argparse.ArgumentParser:
    engines = [describe_engine(name) for name in ENGINES]
    parser = subparsers.add_parser(
        "generate",
        help="make a clip from files",
        description=__doc__,
        epilog="\n\n".join(map(describe_values, engines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="CLIP", help="a new .mp4, or a new folder for PNGs"
    )
    parser.add_argument("--engine", help="default: the request's; poseanything for a folder of pose images")
    parser.add_argument(
        "--server",
        metavar="ADDRESS",
        help="have a running server make it, named by its address or the token of an invitation",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="with --server: so many clips, of as many seeds from the first on, side by side where it can;"
        " the output's name gets the seed",
    )
    parser.add_argument("--seed", type=int, help="default: the request's, or 0")
    parser.add_argument("--steps", type=int, help="denoising steps; default: the request's, or the engine's")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the engine, such as cache=first_block; may be repeated",
    )
    parser.add_argument(
        "--preset", metavar="NAME", help="a preset of the engine, which other arguments change"
    )
    _add_guidance(parser, engines)
    request = parser.add_argument_group("from a request")
    request.add_argument("--request", type=Path, metavar=f"FILE{SUFFIX}", help="written by the extension")
    _add_poses(parser)
    _add_video(parser)
    return parser


def _add_guidance(parser: argparse.ArgumentParser, engines: Sequence[EngineDescription]) -> None:
    guidance = parser.add_argument_group("guidance")
    guidance.add_argument(
        "--guider",
        metavar="NAME",
        help="default: the request's; subject_camera with --camera, classifier_free with one of its "
        "parameters, else none",
    )
    add_parameters(guidance, engines)
    guidance.add_argument(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("START", "STOP"),
        help="fractions of the steps between which guidance is on; default: all of them",
    )


def _add_poses(parser: argparse.ArgumentParser) -> None:
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
        "--prompt", default="", help="a description of the video, or the name of a text file that has one"
    )
    poses.add_argument("--negative-prompt", default="", help="what the video should not show, for guidance")
    poses.add_argument(
        "--frames",
        type=int,
        help="PoseAnything makes 1 + 4 n; default: as many as there are poses for, at most as in training",
    )
    poses.add_argument("--fps", type=float, help="default: 24, or the pose video's own")
    poses.add_argument(
        "--longer-side", type=int, metavar="PIXELS", help="default: as in training, 832 for the release"
    )
    poses.add_argument(
        "--camera",
        type=_move,
        action="append",
        default=[],
        metavar="MOVE=AMOUNT",
        help=f"such as pan_left=0.2, a fifth of the picture; repeated, all at once; {', '.join(MOVES)}",
    )


def _add_video(parser: argparse.ArgumentParser) -> None:
    video = parser.add_argument_group(
        "from a video",
        "With --prompt, --frames, --fps and --longer-side; without --first-frame, its own is driven.",
    )
    video.add_argument(
        "--pose-video", type=Path, metavar="FILE", help="whose subject's motion drives the clip"
    )
    video.add_argument(
        "--begin", type=float, default=0.0, metavar="SECONDS", help="into the video; default: %(default)g"
    )
    add_subject(video)
    video.add_argument(
        "--place",
        type=float,
        nargs=4,
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
        help="the box around the first frame's subject, as fractions, that the poses are laid over",
    )


def run(args: argparse.Namespace) -> int:
    started = time.monotonic()
    try:
        if sum(source is not None for source in (args.request, args.poses, args.pose_video)) != 1:
            raise ValueError("Name either a request file, a folder of pose images or a pose video.")
        if args.server is None and args.samples != 1:
            raise ValueError("Several samples are made by a server; name one with --server.")
        if args.samples == 1:
            check_free(args.output)
        if args.server is not None:
            return _on_server(args)
        fps, events = _from_poses(args) if args.poses else _from_request(args)
        note = _write(args.output, fps, events)
    except (EngineError, MessageError, RemoteError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if args.server is None:
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


@dataclass(frozen=True)
class Choices:
    """How a clip is to be sampled."""

    guidance: Guidance
    options: dict[str, Any]
    num_inference_steps: int
    seed: int


def _from_request(args: argparse.Namespace) -> tuple[float, Iterator]:
    request = read_request(args.request) if args.request else None
    engine, about = _ready_engine(args.engine or (request.engine if request else "draft"))
    request = _changed(args, request or _request_of_video(args, about), about)
    return request.fps, _after_loading(engine, lambda: engine.generate(request, lambda: False))


def _changed(
    args: argparse.Namespace, request: GenerationRequest, about: EngineDescription
) -> GenerationRequest:
    """A request for an engine, with what other arguments say."""
    asked = Choices(request.guidance, request.engine_options, request.num_inference_steps, request.seed)
    chosen = _choose(args, about, asked)
    request = dataclasses.replace(
        request,
        engine=about.name,
        guidance=chosen.guidance,
        engine_options=chosen.options,
        num_inference_steps=chosen.num_inference_steps,
        seed=chosen.seed,
    )
    check_request(request, about)
    return request


def _from_poses(args: argparse.Namespace) -> tuple[float, Iterator]:
    engine, about = _ready_engine(args.engine or "poseanything")
    chosen, fps = _choose_for_poses(args, about)
    if isinstance(engine, PoseAnythingEngine):
        from ..poseanything.checkpoints import find_weights

        weights = find_weights(engine.weights_folder()).choose(chosen.options.get("transformer", ""))
        if not starts_from_draft(weights.config):
            return fps, _sample(args, engine, chosen, weights)
        request = _request_of_poses(args, about, chosen, fps, weights.config)
    else:
        request = _request_of_poses(args, about, chosen, fps, {})
    return fps, _after_loading(engine, lambda: engine.generate(request, lambda: False))


def _choose_for_poses(args: argparse.Namespace, about: EngineDescription) -> tuple[Choices, float]:
    if args.first_frame is None:
        raise ValueError("Name the first frame that goes with the pose images.")
    return _choose_afresh(args, about, bool(args.camera)), _as_in_a_request(
        "fps", 24.0 if args.fps is None else args.fps
    )


def _choose_afresh(args: argparse.Namespace, about: EngineDescription, has_camera: bool) -> Choices:
    """What the arguments choose where no request says anything yet; raises `MessageError`."""
    default = Guidance("subject_camera" if has_camera else "none")
    chosen = _choose(args, about, Choices(default, {}, about.default_steps, 0))
    check_guidance(about, chosen.guidance, has_camera)
    check_values(chosen.options, about.options, about.label)
    return chosen


def _request_of_poses(
    args: argparse.Namespace, about: EngineDescription, chosen: Choices, fps: float, trained: Mapping
) -> GenerationRequest:
    """What the arguments ask of an engine that needs limbs; `trained` is its checkpoint's configuration."""
    from ..poseanything.conditioning.latent_grid import LatentGrid
    from ..poseanything.conditioning.limbs.drawings import request_of_drawings

    grid = LatentGrid(about.size_multiple, about.frame_step, patch_size=1)
    most_frames = min(about.max_frames, trained.get("sample_frames", about.max_frames))
    conditions = _read_conditions(args, grid, most_frames, trained.get("sample_size", 832))
    height, width = conditions.size
    camera = camera_path(dict(args.camera), conditions.num_frames, width, height) if args.camera else None
    request = request_of_drawings(
        conditions,
        about.name,
        fps=fps,
        seed=chosen.seed,
        num_inference_steps=chosen.num_inference_steps,
        guidance=chosen.guidance,
        camera_motion=camera,
        engine_options=chosen.options,
    )
    check_request(request, about)
    return request


def _request_of_video(
    args: argparse.Namespace, about: EngineDescription, server: Remote | None = None
) -> GenerationRequest:
    """A request for an engine with the poses of a video's subject, which a server finds if it can."""
    from ..poseanything.conditioning.pictures import decode_picture
    from ..xpose.finder import find_poses
    from ..xpose.pose_video import JOB, ask_for_poses, make_request, read_clip
    from ..xpose.stages import Dropped, XPoseError

    _choose_afresh(args, about, has_camera=False)  # what is wrong is told before the search, which takes long
    prompt = read_prompt(args.prompt)
    # A picture that is bent needs the same limbs all the time.
    skeleton = "medial" if about.pose_look == "trained" else "carried"
    try:
        clip = read_clip(
            args.pose_video,
            read_subject(subject_of(args)),
            begin=args.begin,
            most_frames=args.frames or min(about.max_frames, 81),
            frame_step=about.frame_step,
            fps=None if args.fps is None else _as_in_a_request("fps", args.fps),
            longer_side=args.longer_side or 832,
            size_multiple=max(about.size_multiple, 2),
        )
        picture = decode_picture(args.first_frame.read_bytes()) if args.first_frame else None
        place = None if args.place is None else tuple(args.place)
        if server is not None and server.finds_poses:
            found = _poses_from(server, ask_for_poses(clip, skeleton, uuid.uuid4().hex[:12]))
        else:
            found = find_poses(clip, skeleton, JOB)
        if found.note:
            print(found.note, flush=True)
        return make_request(clip, found, prompt, picture, place)
    except Dropped as dropped:
        raise ValueError(f"{args.pose_video.name}: {dropped}") from dropped
    except XPoseError as error:
        raise ValueError(str(error)) from error


def _poses_from(server: Remote, request: PoseRequest) -> FoundPoses:
    """What a server finds, telling how far it is. Raises `RemoteError` with its reason where it can't."""
    with _Teller() as teller:
        for event in server.make([request]):
            if isinstance(event, Progress):
                teller.tell(event)
    assert isinstance(event, FoundPoses)
    return event


def _on_server(args: argparse.Namespace) -> int:
    """Have a server make the clip, or one for each of several seeds."""
    started = time.monotonic()
    with connect(args.server) as server, ExitStack() as clips, _Teller() as teller:
        offered = server.welcome.engines
        request = read_request(args.request) if args.request else None
        name = args.engine or (request.engine if request else "")
        about = find_engine_of(offered, name)
        if about is None or not about.ready:
            there = ", ".join(engine.name for engine in offered if engine.ready) or "none"
            reason = about.reason if about else f"The server has no engine {name!r}; it has {there}."
            raise ValueError(reason or f"{name} can't run there; choose one of {there}.")
        if not 1 <= args.samples <= MAX_SAMPLES:
            raise ValueError(f"Choose between 1 and {MAX_SAMPLES} samples.")
        if args.samples > 1 and not about.uses_seed:
            raise ValueError(f"{about.label} makes the same clip of every seed; ask for one sample.")
        if args.poses:
            request = _request_of_poses(args, about, *_choose_for_poses(args, about), {})
        else:
            request = _changed(args, request or _request_of_video(args, about, server), about)
        seeds = range(request.seed, request.seed + args.samples)
        requests = {
            seed: dataclasses.replace(
                request, job=uuid.uuid4().hex[:12], seed=seed, frame_format="png", preview_interval=0.0
            )
            for seed in seeds
        }
        outputs = {each.job: _output_of(args.output, seed, args.samples) for seed, each in requests.items()}
        open_clips = {job: clips.enter_context(ExitStack()) for job in outputs}
        writers = {
            job: open_clips[job].enter_context(open_output(output, request.fps))
            for job, output in outputs.items()
        }
        print(f"Jobs {', '.join(outputs)} at {server.address}", flush=True)
        try:
            for event in server.make(list(requests.values())):
                if isinstance(event, Frame):
                    writers[event.job](picture_of(event))
                elif isinstance(event, Progress) and args.samples == 1:
                    teller.tell(event)
                elif isinstance(event, Done):
                    open_clips[event.job].close()  # whatever becomes of the others
                    seconds = time.monotonic() - started
                    print(f"{outputs[event.job]}: made in {seconds:.0f} s. {event.note}".rstrip(), flush=True)
        except KeyboardInterrupt:
            print("\nStopped here; the server goes on. See its jobs, fetch and cancel.", file=sys.stderr)
            raise
    return 0


def _output_of(output: Path, seed: int, samples: int) -> Path:
    return output if samples == 1 else output.with_name(f"{output.stem}-{seed}{output.suffix}")


def read_prompt(said: str) -> str:
    """The prompt, or the text of the file that is named."""
    return Path(said).read_text(encoding="utf-8").strip() if said.endswith(".txt") else said


def _read_conditions(
    args: argparse.Namespace, grid: LatentGrid, most_frames: int, longer_side: int = 832
) -> Conditions:
    from ..poseanything.conditioning.files import read_conditions

    return read_conditions(
        args.first_frame,
        args.poses,
        subject=args.subject,
        num_frames=args.frames,
        longer_side=args.longer_side or longer_side,
        grid=grid,
        most_frames=most_frames,
        prompt=read_prompt(args.prompt),
        negative_prompt=args.negative_prompt,
    )


def _sample(
    args: argparse.Namespace, engine: PoseAnythingEngine, chosen: Choices, weights: WeightSet
) -> Iterator:
    """The clip of an engine that is shown the pose images as they are."""
    from ..engines.poseanything.request import draw_camera
    from ..poseanything.conditioning.latent_grid import LatentGrid
    from ..poseanything.sampling.request import SamplingRequest

    trained = weights.config
    conditions = _read_conditions(
        args, weights.grid or LatentGrid(), trained.get("sample_frames", 81), trained.get("sample_size", 832)
    )
    if args.camera:
        height, width = conditions.size
        path = camera_path(dict(args.camera), conditions.num_frames, width, height)
        conditions = dataclasses.replace(conditions, camera_images=draw_camera(path, width, height, trained))
    sampling = SamplingRequest.of(
        conditions, chosen.guidance, chosen.seed, chosen.num_inference_steps, chosen.options, trained
    )
    return _after_loading(engine, lambda: engine.make(sampling, lambda: False))


def _ready_engine(name: str) -> tuple[Engine, EngineDescription]:
    """An engine that can run here, and what it says of itself; raises `EngineError` with its reason where it
    can't."""
    found = find_engine(name)
    about = found.describe()
    if not about.ready:
        named = about.reason.startswith(about.label)
        raise EngineError(about.reason if named else f"{about.label} can't run: {about.reason}")
    return found(), about


def _choose(args: argparse.Namespace, engine: EngineDescription, asked: Choices) -> Choices:
    """What was asked for, changed by the preset and then by the other arguments."""
    guidance, options, steps = asked.guidance, dict(asked.options), asked.num_inference_steps
    if args.preset:
        preset = engine.preset(args.preset)
        if preset is None:
            names = ", ".join(preset.name for preset in engine.presets) or "none"
            raise ValueError(f"{engine.label} has no preset {args.preset!r}; choose one of {names}.")
        kept = {name: value for name, value in options.items() if name not in engine.preset_options}
        guidance, options = preset.guidance, kept | preset.options
        steps = preset.num_inference_steps or engine.default_steps
    return Choices(
        _guidance(args, engine, guidance),
        options | parse_assignments(args.option, engine.options, engine.label),
        _as_in_a_request("num_inference_steps", steps if args.steps is None else args.steps),
        _as_in_a_request("seed", asked.seed if args.seed is None else args.seed),
    )


def _guidance(args: argparse.Namespace, engine: EngineDescription, base: Guidance) -> Guidance:
    parameters = chosen_parameters(args, engine)
    name = args.guider or base.guider
    if name == "none" and parameters and args.guider is None:
        name = "classifier_free"
    kept = base.parameters if name == base.guider else {}
    start, stop = args.guidance_interval or (base.start, base.stop)
    return Guidance(name, kept | parameters, start, stop)


def _as_in_a_request(name: str, value: object) -> Any:
    """A value that the request's field takes; raises `MessageError`."""
    (field,) = (field for field in dataclasses.fields(GenerationRequest) if field.name == name)
    return field.metadata["kind"].check(value, field.metadata["label"])


def _move(text: str) -> tuple[str, float]:
    name, _, amount = text.partition("=")
    try:
        return name, float(amount)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} has no amount; write it as pan_left=0.2") from None


def _after_loading(engine, generate) -> Iterator:
    yield from engine.load()
    return (yield from generate())


def _write(output: Path, fps: float, events: Iterator) -> object:
    """Write the pictures, telling how far it is; returns the engine's note."""
    with open_output(output, fps) as write, _Teller() as teller:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if isinstance(event, Picture):
                write(event.image)
            elif isinstance(event, Progress):
                teller.tell(event)


class _Teller(ProgressLine):
    """Progress on standard output, with the time that is left."""

    def __init__(self):
        super().__init__(sys.stdout)
        self._time_left = TimeLeft()

    def tell(self, progress: Progress) -> None:
        seconds = self._time_left(progress, time.monotonic())
        ends = progress.step == progress.total
        left = "" if seconds is None or ends else f", {seconds:.0f} s left"
        self(f"{progress.stage} {progress.step}/{progress.total}{left} {progress.note}".rstrip())
        if ends:
            self.done()
