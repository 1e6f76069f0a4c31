"""What a guider is. Nothing heavy is imported, so that an engine can describe its guiders at no cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar

from shared.engines import GuiderDescription, OptionDescription, describe_options


@dataclass(frozen=True)
class Guider(ABC):
    """A weighted sum of predictions under different conditions, over an interval of the steps.

    A subclass in a module of its own within this package is found by itself. Its fields, declared by
    `shared.engines.option`, are the parameters that a request may set. It names its `predictions` and, in the
    same order, the condition of each: `pose_conditions`, of

    - "subject": the request's poses,
    - "first_pose": the first of them in place of each (`conditions.repeat_first_pose`),
    - "camera": the rectangle that tells of the camera's motion,
    - "empty": black frames,

    and `text_conditions`, of "prompt" and "negative_prompt". The first prediction is the request's own;
    outside the interval it is taken alone. `declared_defaults` names the parameters whose default a
    checkpoint may declare, each with the entry of the checkpoint's configuration.

        guider = ClassifierFreePoseGuidance(3.0, stop=0.5)
        frames = pipeline.sample(conditions, guider=guider)

    Args:
        start, stop: fractions of the denoising steps between which guidance is on.

    Raises:
        ValueError: the interval is empty.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    help: ClassVar[str]
    predictions: ClassVar[tuple[str, ...]]
    pose_conditions: ClassVar[tuple[str, ...]]
    text_conditions: ClassVar[tuple[str, ...]]
    declared_defaults: ClassVar[Mapping[str, str]] = {}

    _: KW_ONLY
    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self):
        if len(self.predictions) > 1 and not self.start < self.stop:
            raise ValueError(
                f"Guidance starts at {self.start:g} and stops at {self.stop:g} of the steps; "
                "let it stop after it starts."
            )

    @abstractmethod
    def weights(self) -> tuple[float, ...]:
        """The weight of each prediction, in their order, inside the interval."""

    def for_poses(self, posed_ratio: float) -> Guider:
        """The same for a clip of which this share of frames has a pose. Raises `ValueError`."""
        return self

    def for_checkpoint(self, config: Mapping[str, Any]) -> Guider:
        """The same for a checkpoint of this configuration, as far as that says how it was trained."""
        return self

    @classmethod
    def parameters(cls, config: Mapping[str, Any] = {}) -> tuple[OptionDescription, ...]:
        """Its parameters, with the defaults that a checkpoint of this configuration declares."""
        entries = cls.declared_defaults.items()
        declared = {name: config[entry] for name, entry in entries if config.get(entry) is not None}
        return tuple(
            replace(about, default=declared.get(about.name, about.default)) for about in describe_options(cls)
        )

    @classmethod
    def describe(cls, config: Mapping[str, Any] = {}) -> GuiderDescription:
        """What it says of itself, with a checkpoint of this configuration."""
        return GuiderDescription(
            name=cls.name,
            label=cls.label,
            help=cls.help,
            evaluations=len(cls().for_checkpoint(config).predictions),
            needs_camera="camera" in cls().pose_conditions,
            parameters=cls.parameters(config),
        )
