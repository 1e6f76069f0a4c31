"""How the kinds of creatures move: on legs whose feet stay where they were set down, along a curve, in waves,
with wings; and what hangs on them follows as a spring."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import bpy
import numpy as np

from .creatures import step
from .curves import Way, spline, wander
from .posing import Poses, about, between, times
from .springs import Spring

RUN_UP = 24
"""Frames before the scene's first, so that springs already swing in it."""
GRAVITY = 9.81
REACH = 0.995
"""Of a leg's length; a body is lowered until its feet are that near."""
X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Leg:
    """A chain of bones that bends, and those behind it, which stand on the ground; `after` is the part of a
    cycle by which it comes later than the first."""

    chain: tuple[str, ...]
    foot: str = ""
    toes: str = ""
    after: float = 0.0


@dataclass(frozen=True)
class Gait:
    """How legs go: `verb` as a prompt says it, `stance` the part of a cycle that a foot is on the ground,
    `stride` in lengths of a leg, `cycle` in times that a pendulum as long as a leg takes for a radian, `lift`
    in lengths of a leg, `bounce` the same of the body, `flex` of the back in radians, `after` by leg."""

    verb: str
    stance: float
    stride: float
    cycle: float
    after: tuple[float, ...]
    lift: float = 0.14
    bounce: float = 0.0
    flex: float = 0.0
    heel: float = 0.5


FOUR = {
    "walk": Gait("walks", 0.64, 1.05, 4.0, (0.0, 0.5, 0.25, 0.75)),
    "pace": Gait("paces", 0.55, 1.2, 3.2, (0.0, 0.5, 0.04, 0.54)),
    "trot": Gait("trots", 0.45, 1.5, 2.3, (0.0, 0.5, 0.5, 0.0), bounce=0.03),
    "gallop": Gait("gallops", 0.3, 2.2, 2.1, (0.0, 0.12, 0.48, 0.6), lift=0.25, bounce=0.07, flex=0.25),
    "turn": Gait("turns on the spot", 0.64, 0.0, 4.0, (0.0, 0.5, 0.25, 0.75)),
    "stand": Gait("stands and looks around", 1.0, 0.0, 4.0, (0.0, 0.0, 0.0, 0.0)),
}
TWO = {
    "walk": Gait("walks", 0.62, 1.3, 3.4, (0.0, 0.5), lift=0.1, heel=0.7),
    "run": Gait("runs", 0.36, 2.1, 2.3, (0.0, 0.5), lift=0.25, bounce=0.05, heel=0.9),
    "turn": Gait("turns on the spot", 0.62, 0.0, 3.4, (0.0, 0.5), lift=0.1),
    "stand": Gait("stands and looks around", 1.0, 0.0, 3.4, (0.0, 0.0)),
}
EIGHT = {
    "crawl": Gait("crawls", 0.6, 0.55, 2.6, (0.0, 0.5, 0.5, 0.0, 0.05, 0.55, 0.55, 0.05), lift=0.15),
    "scuttle": Gait("scuttles", 0.52, 0.7, 1.7, (0.0, 0.5, 0.5, 0.0, 0.05, 0.55, 0.55, 0.05), lift=0.15),
    "turn": Gait("turns on the spot", 0.6, 0.0, 2.6, (0.0, 0.5, 0.5, 0.0, 0.05, 0.55, 0.55, 0.05), lift=0.15),
}


@dataclass(frozen=True)
class Plan:
    """What a kind's bones are for: legs (with `{}` for the side), the bone that carries all, the back from
    there to the shoulders, neck and head, and by the pattern of their names the chains that are springs."""

    gaits: dict[str, Gait] = field(default_factory=dict)
    legs: tuple[Leg, ...] = ()
    root: str = ""
    back: tuple[str, ...] = ()
    neck: tuple[str, ...] = ()
    springs: dict[str, Spring] = field(default_factory=dict)


def _spines(*numbers: int) -> tuple[str, ...]:
    return tuple(f"spine.{number:03d}" if number else "spine" for number in numbers)


TAIL, EAR, HAIR = Spring(1.6, 0.25), Spring(4.5, 0.25), Spring(1.9, 0.2)
_WOLF_LEGS = (
    Leg(("thigh.{}", "shin.{}", "foot.{}"), "toe.{}"),
    Leg(("front_thigh.{}", "front_shin.{}", "front_foot.{}"), "front_toe.{}"),
)
PLANS = {
    "wolf": Plan(
        FOUR, _WOLF_LEGS, "spine.004", _spines(5, 6, 7, 8), _spines(9, 10, 11),
        {r"spine\.003|spine\.002|spine\.001|spine": TAIL, r"ear\.[LR]": EAR},
    ),
    "basic_quadruped": Plan(
        FOUR, _WOLF_LEGS, "spine.004", _spines(5, 6, 7, 8), _spines(9, 10, 11),
        {r"spine\.003|spine\.002|spine\.001|spine": TAIL},
    ),
    "cat": Plan(
        FOUR,
        (
            Leg(("thigh.{}", "shin.{}", "foot.{}"), "r_toe.{}"),
            Leg(("upper_arm.{}", "forearm.{}"), "hand.{}", "f_toe.{}"),
        ),
        "spine", _spines(1, 2, 3), _spines(4, 5, 6),
        {r"tail\.\d+": TAIL, r"ear\.[LR]": EAR},
    ),
    "horse": Plan(
        FOUR,
        (
            Leg(("thigh.{}", "lower_leg.{}", "hind_foot.{}"), "r_toe.{}", "r_hoof.{}"),
            Leg(("upper_arm.{}", "forearm.{}", "forefoot.{}"), "f_toe.{}", "f_hoof.{}"),
        ),
        "spine.001", _spines(2, 3, 4, 5, 6), ("neck.001", "neck.002", "neck.003", "neck.004", "head"),
        {r"tail\.\d+": TAIL, r"ear\.[LR].*": EAR, r"mane_(base|top)\.\d+": HAIR},
    ),
    "human": Plan(
        TWO, (Leg(("thigh.{}", "shin.{}"), "foot.{}", "toe.{}"),), "spine", _spines(1, 2, 3),
        _spines(4, 5, 6), {r"hair\.\d+": HAIR},
    ),
    "bird": Plan(
        {"walk": TWO["walk"], "fly": Gait("flies", 1.0, 0.0, 1.0, (0.0, 0.0)), "stand": TWO["stand"]},
        (Leg(("thigh.{}", "shin.{}"), "foot.{}", "toe.{}"),), "spine.003", _spines(4, 5),
        ("spine.006", "neck.001", "neck.002", "head"),
        {r"spine\.002|spine\.001|spine": Spring(3.0, 0.4), r"[tw]_feather.*": Spring(5.0, 0.4)},
    ),
    "spider": Plan(
        EIGHT, tuple(Leg(tuple(f"leg {number}{{}}.{link:02d}" for link in range(3))) for number in range(4)),
        "body.00", (), (), {r"feeler [LR]\.\d+": Spring(3.5, 0.2)},
    ),
}  # fmt: skip


def animate(scene: bpy.types.Scene, rig: bpy.types.Object, kind: str, shuffle: random.Random) -> str:
    """Key a motion for the scene's range on a rig of one of the kinds; returns what it does, as a verb with
    what belongs to it."""
    frames = scene.frame_end - scene.frame_start + 1 + RUN_UP
    poses = Poses(rig, frames)
    fps = scene.render.fps / scene.render.fps_base
    says = OWN.get(kind, _go)(poses, kind, shuffle, np.arange(frames) / fps, fps)
    poses.key(scene.frame_start, RUN_UP)
    return says


def _go(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """On legs."""
    plan = PLANS[kind]
    weights = [1 if gait.verb.startswith(("turns", "stands")) else 2 for gait in plan.gaits.values()]
    [gait] = shuffle.choices(list(plan.gaits.values()), weights)
    if gait.verb == "flies":
        return _fly(poses, plan, shuffle, time, fps)
    legs = _legs(plan, gait)
    long = float(np.mean([poses.heads[leg.chain[0]][2] for leg in legs]))
    cycle = max(gait.cycle * math.sqrt(long / GRAVITY) * shuffle.uniform(0.9, 1.15), 10 / fps)
    stride = gait.stride * long * shuffle.uniform(0.9, 1.05)
    speed = stride / cycle
    way = Way(shuffle, speed * time[-1], shuffle.choice((0.0, shuffle.uniform(0.15, 0.4))))
    phase = (time - time[RUN_UP]) / cycle
    turning = shuffle.choice((-1, 1)) * shuffle.uniform(0.3, 0.8) if "turn" in gait.verb else 0.0

    def stand(when: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place [N, 3] and heading [N] of the body after so many cycles [N]."""
        far = when * stride
        ease = when * cycle
        return np.column_stack([way.at(far), np.zeros(len(far))]), way.heading(far) + turning * ease

    place, heading = stand(phase)
    poses.place, poses.turn = place.copy(), about(Z, heading)
    wave = 2 * np.pi * phase
    stands = gait.stance == 1
    if stands:  # it shifts its weight
        poses.place[:, 0] += 0.05 * long * wander(shuffle, time, 1.2)
        poses.place[:, 1] += 0.04 * long * wander(shuffle, time, 1.5)
        poses.place[:, 2] -= 0.03 * long * (1 + wander(shuffle, time, 0.9))
    poses.place[:, 2] -= gait.bounce * long * np.cos(2 * wave if not gait.flex else wave)
    _bend_back(poses, plan, gait, wave, stands)
    _look(poses, plan, shuffle, time, wave, 0.5 if stands else 0.12)
    if kind == "human":
        _swing_arms(poses, gait, wave, shuffle, time)
    if kind == "bird":
        _fold_wings(poses)
    feet = [_Foot(poses, leg, gait, phase, stand, 1.0 if stands else gait.lift * long) for leg in legs]
    _lower(poses, feet, max(int(cycle * fps / 4), 1))
    for foot in feet:
        foot.set()
    if stands or turning:
        _flick(poses, plan, shuffle, time)
    _hang(poses, plan, fps)
    return gait.verb


def _legs(plan: Plan, gait: Gait) -> list[Leg]:
    """Both sides of each, the left one first."""
    pairs = [(leg, side) for leg in plan.legs for side in "LR"]
    return [
        Leg(tuple(b.format(side) for b in leg.chain), leg.foot.format(side), leg.toes.format(side), after)
        for (leg, side), after in zip(pairs, gait.after)
    ]


class _Foot:
    """Where a leg's foot is: set down for a while, then carried to where it is set down next."""

    def __init__(
        self,
        poses: Poses,
        leg: Leg,
        gait: Gait,
        phase: np.ndarray,
        stand: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
        lift: float,
    ):
        self.poses, self.leg = poses, leg
        # It rolls over the end of the bone that is set down, or stands on the end of the chain.
        self.end = poses.heads[leg.foot] if leg.foot else poses.tails[leg.chain[-1]]
        pivot = poses.tails[leg.foot] if leg.foot else self.end
        count, share = np.divmod(phase - leg.after, 1.0)
        forward, up = np.array([step(value, gait.stance) for value in share]).T

        def plant(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            place, heading = stand(number + leg.after + gait.stance / 2)
            return place + times(about(Z, heading), pivot), heading

        (before, turned), (after, turns) = plant(count), plant(count + 1)
        if gait.stance == 1:
            (before, turned), up = plant(np.zeros_like(count)), np.zeros_like(up)
        carried = share >= gait.stance
        moved = np.where(carried, (1 + forward) / 2, 0.0)
        self.pivot = before + moved[:, None] * (after - before) + np.outer(lift * up, Z)
        self.heading = turned + moved * (turns - turned)
        self.on_ground = ~carried
        leaving = np.clip(share / max(gait.stance, 1e-6) - 0.7, 0, None) / 0.3
        pitch = gait.heel * np.where(carried, 1 - moved * 1.3, leaving**2) * (gait.stance < 1)
        self.pitch = pitch if leg.foot else np.zeros_like(pitch)
        self._away = self.end - pivot
        turn = about(Z, self.heading) @ about(X, self.pitch)
        self.target = self.pivot + times(turn, self._away)
        joints = np.array([*(poses.heads[bone] for bone in leg.chain), self.end])
        self.length = np.linalg.norm(np.diff(joints, axis=0), axis=1).sum()

    def set(self) -> None:
        poses, leg = self.poses, self.leg
        poses.reach_for(list(leg.chain), self.end, poses.from_world(self.target))
        flat = poses.turn.transpose(0, 2, 1) @ about(Z, self.heading)
        if leg.foot:
            poses.set_turned(leg.foot, flat @ about(X, self.pitch))
        if leg.toes:
            poses.set_turned(leg.toes, flat @ about(X, np.where(self.on_ground, 0, 0.4 * self.pitch)))


def _lower(poses: Poses, feet: list[_Foot], window: int) -> None:
    """Sink by as much as the feet that are on the ground need to be reached, smoothly."""
    needed = np.zeros(poses.frames)
    for foot in feet:
        way = poses.to_world(poses.head(foot.leg.chain[0])) - foot.target
        across = np.linalg.norm(way[:, :2], axis=1)
        above = np.sqrt(np.maximum((REACH * foot.length) ** 2 - across**2, 0))
        needed = np.maximum(needed, np.where(foot.on_ground, way[:, 2] - above, 0))
    padded = np.pad(needed, 2 * window, mode="edge")
    highest = np.array([padded[i : i + 2 * window + 1].max() for i in range(len(padded) - 2 * window)])
    smooth = np.array([highest[i : i + 2 * window + 1].mean() for i in range(poses.frames)])
    poses.place[:, 2] -= smooth


def _bend_back(poses: Poses, plan: Plan, gait: Gait, wave: np.ndarray, stands: bool) -> None:
    if len(plan.legs) == 2:  # hind and fore: the hips swing, the shoulders against them
        sway, flex = (0.0 if stands else 0.06) * np.sin(wave), gait.flex * np.sin(wave + 0.8)
        poses.rotate(plan.root, Z, sway)
        poses.rotate(plan.root, X, -flex)
        for bone in plan.back:
            poses.rotate(bone, Z, -2 * sway / len(plan.back))
            poses.rotate(bone, X, 1.6 * flex / len(plan.back))
        for bone in plan.neck:
            poses.rotate(bone, X, -0.6 * flex / len(plan.neck))
            poses.rotate(bone, Z, sway / len(plan.neck))
    elif plan.back:
        twist = (0.0 if stands else 0.1) * np.sin(wave)
        poses.rotate(plan.root, Z, twist)
        lean = 0.04 + 2.5 * gait.bounce * (gait.stance < 0.5)
        for bone in plan.back:
            poses.rotate(bone, Z, -2 * twist / len(plan.back))
            poses.rotate(bone, X, np.array(lean / len(plan.back)))


def _look(
    poses: Poses, plan: Plan, shuffle: random.Random, time: np.ndarray, wave: np.ndarray, far: float
) -> None:
    """Let the head look about, and nod with the steps."""
    yaw, pitch = far * wander(shuffle, time, 0.9), 0.5 * far * wander(shuffle, time, 1.1)
    for number, bone in enumerate(plan.neck):
        poses.rotate(bone, Z, yaw / len(plan.neck))
        nod = 0.03 * np.sin(2 * wave + 0.5 * number) if far < 0.3 else 0.0
        poses.rotate(bone, X, pitch / len(plan.neck) + nod)


def _swing_arms(poses: Poses, gait: Gait, wave: np.ndarray, shuffle: random.Random, time: np.ndarray) -> None:
    runs, stands = gait.stance < 0.5, gait.stance == 1
    lifts = shuffle.choice("LR") if stands and shuffle.random() < 0.5 else ""
    for side, sign in (("L", 1), ("R", -1)):
        bones = [f"{name}.{side}" for name in ("upper_arm", "forearm", "hand")]
        down = np.array([sign * (0.45 if runs else 0.25), 0.05, -1.0])
        raised = (0.5 + 0.5 * wander(shuffle, time, 0.8)) if side == lifts else np.zeros(poses.frames)
        aim = down + raised[:, None] * np.array([sign * 0.8, -0.6, 1.3])
        upper = between(poses.tails[bones[0]] - poses.heads[bones[0]], aim)
        swing = (0.0 if stands else 0.7 if runs else 0.4) * np.sin(wave + (np.pi if sign < 0 else 0))
        upper = about(X, swing) @ upper
        poses.turns[bones[0]] = upper
        bend = (1.5 if runs else 0.3) + 0.25 * swing + 1.2 * raised
        fore = between(poses.tails[bones[1]] - poses.heads[bones[1]], aim)
        total = about(X, swing - bend) @ fore
        poses.turns[bones[1]] = upper.transpose(0, 2, 1) @ total


def _fold_wings(poses: Poses) -> None:
    for side, sign in (("L", 1), ("R", -1)):
        poses.rotate(f"Wing.{side}", Y, np.array(sign * 0.5))
        poses.rotate(f"Wing.{side}", Z, np.array(sign * 1.1))
        poses.rotate(f"Wing.001.{side}", Z, np.array(sign * 0.25))


def _fly(poses: Poses, plan: Plan, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """With wings that beat, and now and then glide."""
    span = 2 * float(poses.tails["Wing.002.L"][0])
    cycle, speed = shuffle.uniform(0.4, 0.7), span * shuffle.uniform(2.0, 4.0)
    way = Way(shuffle, speed * time[-1], shuffle.uniform(0.1, 0.35))
    far = speed * (time - time[RUN_UP])
    heading = way.heading(far)
    beat = 2 * np.pi * time / cycle
    glides = np.clip(0.5 + 1.5 * wander(shuffle, time, 0.9), 0.15, 1.0)
    climb = 0.8 * span * wander(shuffle, time, 1.6)
    height = span * 2.0 + climb + 0.06 * span * glides * np.sin(beat + 1.5)
    poses.place = np.column_stack([way.at(far), height])
    bank = -0.9 * np.gradient(heading) * fps * speed / GRAVITY / span
    pitch = np.arctan2(np.gradient(climb) * fps, speed)
    poses.turn = about(Z, heading) @ about(X, -0.6 * pitch) @ about(Y, np.clip(bank, -0.7, 0.7))
    for side, sign in (("L", 1), ("R", -1)):
        for bone, reach, late in (("Wing", 0.75, 0.0), ("Wing.001", 0.35, 0.7), ("Wing.002", 0.4, 1.3)):
            poses.rotate(f"{bone}.{side}", Y, -sign * (reach * glides * np.sin(beat - late) + 0.06))
        poses.rotate(f"thigh.{side}", X, np.array(0.9))
        poses.rotate(f"shin.{side}", X, np.array(0.5))
        poses.rotate(f"foot.{side}", X, np.array(0.9))
    _look(poses, plan, shuffle, time, beat, 0.3)
    _hang(poses, plan, fps)
    return "flies"


def _hang(poses: Poses, plan: Plan, fps: float, push: np.ndarray | float = 0.0) -> None:
    """All the springs of a plan, those nearer to the trunk first."""
    for pattern, spring in plan.springs.items():
        chain = [bone for bone in poses.heads if re.fullmatch(pattern, bone)]
        poses.hang(chain, [spring] * len(chain), fps, push)


def _flick(poses: Poses, plan: Plan, shuffle: random.Random, time: np.ndarray) -> None:
    """Wag with the first bone of the tail; the others follow."""
    for pattern, spring in plan.springs.items():
        if spring is TAIL:
            first = next(bone for bone in poses.heads if re.fullmatch(pattern, bone))
            poses.rotate(first, Z, 0.6 * wander(shuffle, time, 0.45))
            poses.rotate(first, X, 0.3 * wander(shuffle, time, 0.8))


def _slither(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """Along a winding curve: each of a snake's bones follows the one before on the same track."""
    chain = sorted(bone for bone in poses.heads if bone.startswith("spine"))
    lengths = np.array([np.linalg.norm(poses.tails[bone] - poses.heads[bone]) for bone in chain])
    long = lengths.sum()
    speed, wave = long * shuffle.uniform(0.15, 0.5), long * shuffle.uniform(0.35, 0.6)
    aside = wave * shuffle.uniform(0.08, 0.16)
    way = Way(shuffle, speed * time[-1], shuffle.uniform(0.1, 0.4))
    far = np.arange(-3 * long, speed * time[-1] + long, 0.002 * long)
    heading = way.heading(far)
    winding = aside * np.sin(2 * np.pi * far / wave)
    track = way.at(far) + winding[:, None] * np.column_stack([np.cos(heading), np.sin(heading)])
    gone = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(track, axis=0), axis=1))])
    begin = gone[np.searchsorted(far, 0.0)]

    def on_track(where: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(where, gone, axis) for axis in track.T], axis=1)

    where = begin + speed * (time - time[RUN_UP])
    head = on_track(where)
    poses.place = np.column_stack([head, np.zeros(len(head))]) - poses.heads[chain[0]] * (1, 1, 0)
    for bone, length in zip(chain, lengths):
        back = where - length
        for _ in range(3):  # the chord, not the arc, is as long as the bone
            back -= length - np.linalg.norm(on_track(back) - head, axis=1)
        tail = on_track(back)
        rest = poses.tails[bone] - poses.heads[bone]
        poses.set_turned(bone, between(rest, np.column_stack([tail - head, np.zeros(len(head))])))
        where, head = back, tail
    return "slithers"


def _swim(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """With a wave that runs down the body and grows towards the tail."""
    ends = np.array([*poses.heads.values(), *poses.tails.values()])
    long = float(np.ptp(ends[:, 1]))
    speed, beat = long * shuffle.uniform(0.4, 1.0), shuffle.uniform(0.7, 1.3)
    way = Way(shuffle, speed * time[-1], shuffle.uniform(0.1, 0.35))
    far = speed * (time - time[RUN_UP])
    heading, climb = way.heading(far), 0.3 * long * wander(shuffle, time, 2.0)
    poses.place = np.column_stack([way.at(far), 0.5 * long + climb])
    bank = np.clip(-0.5 * np.gradient(heading) * fps, -0.5, 0.5)
    pitch = np.arctan2(np.gradient(climb) * fps, speed)
    poses.turn = about(Z, heading) @ about(X, -pitch) @ about(Y, bank)
    wave = 2 * np.pi * beat * time
    strength = shuffle.uniform(0.8, 1.2)
    tail = [f"spine.{number:03d}" for number in (3, 2, 1)] + ["spine"]
    for link, bone in enumerate(tail):
        poses.rotate(bone, Z, strength * (0.03 + 0.09 * link) * np.sin(wave - 0.75 * link))
    for link, number in enumerate((8, 4, 5, 6, 7)):
        poses.rotate(f"spine.{number:03d}", Z, strength * 0.035 * np.sin(wave + 0.5 + 0.5 * link))
    for side, sign in (("L", 1), ("R", -1)):
        poses.rotate(f"side_fin.{side}", Y, sign * 0.3 * wander(shuffle, time, 0.8))
    fins = {r"back_fin.*": Spring(2.5, 0.5), r"(side|top|mid|chest)_fin.*": Spring(2.5, 0.5)}
    _hang(poses, Plan(springs=fins), fps)
    return "swims"


def _jet(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """As an octopus: thrust by thrust, the tentacles close and open again, and trail behind."""
    ends = np.array([*poses.heads.values(), *poses.tails.values()])
    long = float(np.ptp(ends[:, 0]))
    beat, speed = shuffle.uniform(0.7, 1.2), long * shuffle.uniform(0.2, 0.5)
    way = Way(shuffle, speed * time[-1], shuffle.uniform(0.1, 0.4))
    cycles = beat * (time - time[RUN_UP])
    gone = cycles - 0.6 * np.sin(2 * np.pi * cycles) / (2 * np.pi)  # fast in the thrust
    far = speed / beat * gone
    rise = 0.35 * long * (wander(shuffle, time, 1.6) + gone / gone[-1])
    poses.place = np.column_stack([way.at(far), 0.8 * long + rise])
    lean = shuffle.uniform(0.2, 1.0)
    poses.turn = about(Z, way.heading(far)) @ about(X, np.full(len(time), lean))
    open_ = 0.5 + 0.5 * np.cos(2 * np.pi * cycles + np.pi * 0.75)
    for number in range(8):
        turn = math.pi / 4 * number
        axis = (-math.sin(turn), math.cos(turn), 0.0)  # a positive turn about it lowers the tentacle
        own = 0.25 * wander(shuffle, time, 0.7)
        poses.rotate(f"tentacle {number}.00", axis, 0.7 - 1.1 * open_ + 0.5 * own)
        poses.rotate(f"tentacle {number}.01", axis, 0.2 - 0.5 * open_ + own)
        chain = [f"tentacle {number}.{link:02d}" for link in range(2, 6)]
        poses.hang(chain, [Spring(2.6 - 0.3 * link, 0.5) for link in range(len(chain))], fps)
    return "swims"


def _reach(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """As an arm or a lamp on its foot: from one drawn pose to the next along splines."""
    every = shuffle.uniform(0.6, 1.1)
    if kind == "lamp":
        joints = {"stand.01": (0.5, 0.9), "stand.02": (0.4, 0.3), "stand.03": (0.5, 0.3)}
    else:
        joints = {"arm.00": (0.35, 0.5), "arm.01": (0.6, 0.3), "arm.02": (0.4, 0.4)}
    for bone, (bow, turn) in joints.items():
        poses.rotate(bone, X, bow * wander(shuffle, time, every))
        poses.rotate(bone, Z if kind == "lamp" else Y, turn * wander(shuffle, time, every))
    if kind == "lamp":
        poses.hang(["stand.03"], [Spring(3.0, 0.25)], fps)
        return "bends and looks about"
    closed = 0.45 + 0.45 * wander(shuffle, time, 0.7)
    for finger in range(5):
        for link in range(3):
            lag = np.interp(time - 0.05 * finger - 0.04 * link, time, closed)
            poses.rotate(f"finger {finger}.{link:02d}", X, lag * (0.9 if finger else 0.6))
    return "reaches about and closes its fingers"


def _sway(poses: Poses, kind: str, shuffle: random.Random, time: np.ndarray, fps: float) -> str:
    """As a tree in gusts of wind, every branch a spring."""
    turn = shuffle.uniform(0, 2 * math.pi)
    knots = np.array([max(shuffle.gauss(0.5, 0.8), 0.0) for _ in range(int(time[-1] / 0.5) + 3)])
    gusts = spline(knots, time / 0.5) * shuffle.uniform(3.0, 9.0)
    side = wander(shuffle, time, 0.6) * 2.0
    wind = np.outer(gusts, (math.cos(turn), math.sin(turn), 0)) + np.outer(
        side, (-math.sin(turn), math.cos(turn), 0.3)
    )
    trunk = [f"trunk.{link:02d}" for link in range(4)]
    poses.hang(trunk, [Spring(3.2 - 0.4 * link, 0.15) for link in range(4)], fps, wind)
    for number in range(9):
        stiff = shuffle.uniform(0.85, 1.15)
        chain = [f"branch {number}.{link:02d}" for link in range(3)]
        springs = [Spring(stiff * (2.2 - 0.3 * link), 0.15) for link in range(3)]
        poses.hang(chain, springs, fps, wind)
    return "sways in the wind"


OWN = {
    "snake": _slither, "shark": _swim, "octopus": _jet, "lamp": _reach, "arm": _reach, "tree": _sway,
}  # fmt: skip
"""The kinds that go on no legs."""
