"""Runs the stages on a Ray cluster, by Ray Data: the same steps as on one machine, and the same data set.

Videos are planned and clips read on processors, stages with weights run in an actor for each graphics card,
and Ray holds back what comes faster than it is taken. A node that is lost loses nothing: what was there is
done again. What is done comes to the program that began the run, which alone writes. Every node must find the
videos under the same path.
"""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from ray.data import ActorPoolStrategy
from ray.exceptions import RayError

from .checks import ClipSettings
from .pipeline import (
    Group,
    Item,
    Rates,
    RunSettings,
    begin_item,
    group_steps,
    plan_safely,
    prompt_of,
    take_through,
    takes_over,
)
from .stages import Record, SubjectPrompt, XPoseError
from .store import WorkFolder

log = logging.getLogger(__name__)

DIED = "The process that worked on it died: memory ran out, or a decoder failed."
TRIES = 2
"""How often a clip is tried whose process died."""


class ClusterRun:
    """The cluster's side of a run; `run` yields each time that something is done, as the local one does.

    address: of the cluster, "auto" for the one that this machine is part of, "local" for one of its own.
    """

    def __init__(
        self,
        root: Path,
        work: WorkFolder,
        settings: RunSettings,
        prompts: dict[str, SubjectPrompt],
        address: str,
    ):
        self._root, self._work, self._settings, self._prompts = root.resolve(), work, settings, prompts
        self._groups = group_steps(settings)
        self.rates = Rates()
        self._began = not ray.is_initialized()
        if self._began:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            except (RayError, ConnectionError, ValueError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise XPoseError(
                    f"No Ray cluster answers at {address} ({reason}); start one with: ray start --head"
                ) from error
        context = ray.data.DataContext.get_current()
        context.max_errored_blocks = -1  # a clip whose process dies is tried again, and stops no other
        context.enable_progress_bars = False
        cards = int(ray.cluster_resources().get("GPU", 0))
        if not cards and any(group.uses_card for group in self._groups):
            log.warning("The cluster has no graphics card, so that stages with weights run on processors.")
        self._cards = cards

    def close(self) -> None:
        if self._began:
            ray.shutdown()

    def run(self, order: list[str]) -> Iterator[None]:
        """Passes over what can be done, until all is. What takes over the last mask of another clip is done
        in a pass behind that one's."""
        tried: Counter[str] = Counter()
        while rows := self._left(order):
            yield from self._pass(list(rows.values()))
            for name, row in self._left(order).items():
                if name in rows or not self._takes_over(row):  # else it could not be begun
                    tried[name] += 1
                if tried[name] >= TRIES:
                    self._give_up(row)
                    yield None

    def _left(self, order: list[str]) -> dict[str, dict[str, Any]]:
        """What can be done and isn't: a row for each video without a plan and each clip without a record, by
        their names."""
        rows: dict[str, dict[str, Any]] = {}
        for video in order:
            plan = self._work.read_plan(video)
            if plan is None:
                rows[video] = make_row("video", video)
                continue
            for span in plan[0]:
                if self._work.read_clip(span) is None:
                    item = begin_item(span, self._root, self._prompts, self._work)
                    if item is not None:
                        rows[span.name] = make_row("item", item)
        return rows

    def _takes_over(self, row: dict[str, Any]) -> bool:
        content = pickle.loads(row["content"])
        return row["kind"] == "item" and takes_over(content[0].span, self._prompts)

    def _pass(self, rows: list[dict[str, Any]]) -> Iterator[None]:
        # Each group holds a processor at least, so that on few of them they share.
        processors = ray.cluster_resources().get("CPU", 1)
        share = min(1.0, processors / (len(self._groups) + 1))
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            Plan,
            fn_constructor_args=(self._root, self._settings.clips, self._prompts),
            batch_size=1,
            num_cpus=share,
            compute=ActorPoolStrategy(min_size=1, max_size=max(int(processors), 1)),
        )
        for group in self._groups:
            card = group.uses_card and self._cards > 0
            data = data.map_batches(
                Work,
                fn_constructor_args=(group,),
                batch_size=group.batch_size,
                num_cpus=0 if card else share,
                num_gpus=1 if card else 0,
                compute=ActorPoolStrategy(
                    min_size=1, max_size=max(int(self._cards if card else processors), 1)
                ),
            )
        try:
            for row in data.iter_rows():
                self.take(row)
                yield None
        except RayError as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise XPoseError(
                f"The Ray cluster stopped ({reason}); run again: what was done stays."
            ) from error

    def take(self, row: dict[str, Any]) -> None:
        kind, content = row["kind"], pickle.loads(row["content"])
        if kind == "error":  # no fault of a clip: weights are missing, a disk is full
            raise XPoseError(content)
        if kind == "plan":
            video, spans, records = content
            self._work.write_plan(video, spans, records)
            return
        item, times = content
        self.rates.add(times)
        self._work.write_clip(item.span, item.record, item.encoded, item.sheet, item.last_mask)

    def _give_up(self, row: dict[str, Any]) -> None:
        content = pickle.loads(row["content"])
        if row["kind"] == "video":
            self._work.write_plan(content, [], [Record(content, stage="video", reason=DIED)])
        else:
            item, _ = content
            item.drop("video", DIED)
            self._work.write_clip(item.span, item.record)


def make_row(kind: str, content: Any) -> dict[str, Any]:
    if kind == "item":
        content = (content, [])
    return {"kind": kind, "content": pickle.dumps(content, protocol=5)}


def as_batch(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    kinds, contents = np.empty(len(rows), object), np.empty(len(rows), object)
    for index, row in enumerate(rows):
        kinds[index], contents[index] = row["kind"], row["content"]
    return {"kind": kinds, "content": contents}


# --- in the cluster


class Plan:
    """Rows of videos become a row for the video's plan, and one for each of its clips; clips pass."""

    def __init__(self, root: Path, settings: ClipSettings, prompts: dict[str, SubjectPrompt]):
        self._root, self._settings, self._prompts = root, settings, prompts

    def __call__(self, batch: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        for kind, content in zip(batch["kind"], batch["content"]):
            if kind != "video":
                yield as_batch([{"kind": kind, "content": content}])
                continue
            video = pickle.loads(content)
            path = self._root / video if self._root.is_dir() else self._root
            spans, records = plan_safely(path, video, self._settings)
            yield as_batch([{"kind": "plan", "content": pickle.dumps((video, spans, records))}])
            for span in spans:
                if not takes_over(span, self._prompts):
                    item = Item(span, self._root, prompt_of(span, self._prompts), span.record())
                    yield as_batch([make_row("item", item)])


class Work:
    """Takes rows of clips through a group of steps; others pass."""

    def __init__(self, group: Group):
        import cv2

        cv2.setNumThreads(1)
        self._steps, self._failed = [], ""
        try:
            self._steps = group.make()
        except XPoseError as error:
            self._failed = str(error)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rows = [{"kind": kind, "content": content} for kind, content in zip(batch["kind"], batch["content"])]
        clips = [index for index, row in enumerate(rows) if row["kind"] == "item"]
        if not clips:
            return batch
        if self._failed:
            return as_batch([make_row("error", self._failed)])
        contents = [pickle.loads(rows[index]["content"]) for index in clips]
        items = [item for item, _ in contents]
        try:
            items, took = take_through(self._steps, items)
        except (XPoseError, OSError) as error:
            return as_batch([make_row("error", str(error))])
        for index, item, (_, times) in zip(clips, items, contents):
            # A batch's times are told once.
            done = (item, [*times, *(took if index == clips[0] else ())])
            rows[index] = {"kind": "item", "content": pickle.dumps(done, protocol=5)}
        return as_batch(rows)
