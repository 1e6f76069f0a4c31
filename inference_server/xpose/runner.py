"""Runs the stages over a folder of videos on this machine, in processes.

Clips are divided up among as many processes as there are cores. A stage that uses a graphics card has a
process of its own, which clips go through in batches, while the others read and finish what is before and
behind it. What is done is packed in the order of the videos, so that the data set is the same whoever was
faster.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.processes import end_with_parent

from ..datasets.dataset import DatasetWriter
from ..datasets.errors import DatasetError
from .checks import ClipSettings, Span
from .pipeline import (
    Group,
    Item,
    Rates,
    RunSettings,
    Step,
    begin_item,
    group_steps,
    plan_safely,
    take_through,
)
from .stages import Record, SubjectPrompt, XPoseError
from .store import WorkFolder
from .video import find_videos


@dataclass(frozen=True)
class _Task:
    """What a process is asked to do: look through a video (group -1), or take items through a group; `alone`
    after a process died that had it."""

    group: int
    video: str = ""
    items: tuple[Item, ...] = ()
    alone: bool = False


def run(
    videos: Path,
    output: Path,
    settings: RunSettings,
    prompts: dict[str, SubjectPrompt],
    about: dict,
    processes: int = 0,
    shard_bytes: int | None = None,
    progress: Callable[[int, int, int], None] = lambda videos, kept, dropped: None,
    ray: str = "",
) -> str:
    """Make a data set of videos, or go on with it.

    Args:
        videos: a folder, or one video.
        output: the data set's folder.
        prompts: what is said of the subjects, see `pipeline.prompt_of`.
        about: what decides the result, as JSON; a run goes on only with the same.
        processes: for the stages without a card; default: the processor's cores.
        progress: called with the videos done, the clips kept and the records of what was dropped.
        ray: the address of a Ray cluster that does the work, see `cluster.ClusterRun`.

    Returns:
        how many clips a second each step did in one process, as text; "" where there was nothing to do.

    Raises:
        XPoseError: it can't begin or go on; what was done stays.
    """
    if not videos.exists():
        raise XPoseError(f"There is no {videos}; name a folder of videos, or a video.")
    found = find_videos(videos)
    if not found:
        raise XPoseError(f"{videos} holds no videos; make one of pictures that are numbered frames first.")
    base = videos if videos.is_dir() else videos.parent
    names = [path.relative_to(base).as_posix() for path in found]
    for said in prompts:
        if said != "*" and not {said, said.rpartition("#")[0]} & {*names}:
            raise XPoseError(f"Something is said of the subject of {said}, which is not in {videos}.")
    work = WorkFolder(output)
    try:
        work.begin(about)
        order = work.videos(names)
        with_size = {} if shard_bytes is None else {"shard_bytes": shard_bytes}
        writer = DatasetWriter(output, settings.source, settings.quality, **with_size)
        runner = _runner(videos, work, settings, prompts, processes, ray)
        packer = _Packer(work, writer, order)
        try:
            for _ in runner.run(order):
                packer.advance()
                progress(packer.videos, packer.kept, packer.dropped)
            packer.advance()
            with writer:
                pass
            packer.tidy()
            progress(packer.videos, packer.kept, packer.dropped)
            return str(runner.rates)
        except BaseException:
            writer.abandon()
            raise
        finally:
            runner.close()
    except (OSError, DatasetError) as error:
        raise XPoseError(
            f"The data set in {output} can't be written ({error}); free some space and run again: what was"
            " done stays."
        ) from error


def _runner(
    root: Path,
    work: WorkFolder,
    settings: RunSettings,
    prompts: dict[str, SubjectPrompt],
    processes: int,
    ray: str,
) -> Any:
    if not ray:
        return _Local(root, work, settings, prompts, processes or os.cpu_count() or 1)
    try:
        from .cluster import ClusterRun
    except ImportError as error:
        raise XPoseError(
            f"A cluster needs {error.name or 'ray'}; install what is missing with: pip install"
            " 'poseanything-bridge[ray]'"
        ) from error
    return ClusterRun(root, work, settings, prompts, ray)


class _Packer:
    """Writes the clips that are kept into shards, in the order of the videos."""

    def __init__(self, work: WorkFolder, writer: DatasetWriter, order: list[str]):
        self._work, self._writer, self._order = work, writer, order
        self._packed = self._in_shards()  # by runs before
        self._begun: deque[Span] = deque()  # in a shard that is not whole
        self.videos = self.kept = self.dropped = 0
        self._spans: list[Span] | None = None
        self._next = 0

    def _in_shards(self) -> int:
        return sum(entry["examples"] for entry in self._writer.index["shards"])

    def advance(self) -> None:
        """Pack what is done, up to the first clip that isn't."""
        while self.videos < len(self._order):
            if self._spans is None:
                plan = self._work.read_plan(self._order[self.videos])
                if plan is None:
                    return
                self._spans, self._next = plan[0], 0
                self.dropped += len(plan[1])
            while self._next < len(self._spans):
                span = self._spans[self._next]
                record = self._work.read_clip(span)
                if record is None:
                    return
                self._next += 1
                if not record.kept:
                    self.dropped += 1
                    continue
                self.kept += 1
                if self.kept > self._packed:
                    self._writer.append(self._work.read_example(span, record))
                self._begun.append(span)
                self.tidy()
            self.videos, self._spans = self.videos + 1, None

    def tidy(self) -> None:
        """Delete the copies of what is in whole shards."""
        open_examples = self.kept - self._in_shards()
        while len(self._begun) > max(open_examples, 0):
            self._work.forget_example(self._begun.popleft())


class _Local:
    """The processes, and what they are doing."""

    def __init__(
        self,
        root: Path,
        work: WorkFolder,
        settings: RunSettings,
        prompts: dict[str, SubjectPrompt],
        processes: int,
    ):
        self._root, self._work, self._settings, self._prompts = root, work, settings, prompts
        self._groups = group_steps(settings)
        self.rates = Rates()
        self._processes = processes
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._running: dict[Future, _Task] = {}
        self._waiting: list[deque[Item]] = [deque() for _ in self._groups]
        self._followers: dict[str, list[Span]] = {}
        self._suspects: deque[_Task] = deque()
        # Clips in memory stay few, but for what fills a batch.
        self._most = 2 * max(processes, *(group.batch_size for group in self._groups))

    def close(self) -> None:
        for pool in self._pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def run(self, order: list[str]):
        """Do all that isn't done; yields each time that something is."""
        videos = deque(order)
        while True:
            self._top_up(videos)
            if not self._running:
                if not videos and not any(self._waiting) and not self._suspects:
                    return
                yield None
                continue
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(self._running.pop(future), future)
            yield None

    def _top_up(self, videos: deque[str]) -> None:
        if self._suspects:  # one at a time, to see which it is
            if not self._running:
                self._submit(self._suspects.popleft())
            return
        while videos and len(self._waiting[0]) + self._busy(-1) + self._busy(0) < 2 * self._processes:
            video = videos.popleft()
            plan = self._work.read_plan(video)
            if plan is None:
                self._submit(_Task(-1, video))
            else:
                self._begin(plan[0])
        # The last groups first: what is further on is finished before more is begun.
        for number in reversed(range(len(self._groups))):
            group, waiting = self._groups[number], self._waiting[number]
            most = 1 if group.uses_card else self._processes
            while waiting and self._busy(number) < most + 1:
                if len(waiting) < group.batch_size and self._upstream(number, videos):
                    break
                if number == 0 and sum(map(len, self._waiting[1:])) >= self._most:
                    break
                batch = [waiting.popleft() for _ in range(min(group.batch_size, len(waiting)))]
                self._submit(_Task(number, items=tuple(batch)))

    def _busy(self, group: int) -> int:
        return sum(task.group == group for task in self._running.values())

    def _upstream(self, number: int, videos: deque[str]) -> bool:
        """Whether more may come to a group."""
        return (
            bool(videos)
            or any(map(bool, self._waiting[:number]))
            or any(task.group < number for task in self._running.values())
        )

    def _submit(self, task: _Task) -> None:
        card = task.group >= 0 and self._groups[task.group].uses_card
        pool = self._pool(task.group if card else -1, 1 if card else self._processes)
        if task.group < 0:
            path = self._root / task.video if self._root.is_dir() else self._root
            future = pool.submit(_look_through, path, task.video, self._settings.clips)
        else:
            last = task.group == len(self._groups) - 1
            dataset = self._work.dataset if last else None
            future = pool.submit(_take_through, self._groups[task.group], list(task.items), dataset)
        self._running[future] = task

    def _pool(self, key: int, processes: int) -> ProcessPoolExecutor:
        if key not in self._pools:
            # Spawned: a fork of a process with threads, as OpenCV's and torch's, may wait for ever.
            self._pools[key] = ProcessPoolExecutor(
                processes, multiprocessing.get_context("spawn"), initializer=_begin_process
            )
        return self._pools[key]

    def _take(self, task: _Task, future: Future) -> None:
        try:
            result = future.result()
        except BrokenProcessPool:
            self._died(task)
            return
        result, times = result
        self.rates.add(times)
        if task.group < 0:
            spans, records = result
            self._work.write_plan(task.video, spans, records)
            self._begin(spans)
        elif task.group < len(self._groups) - 1:
            self._waiting[task.group + 1].extend(result)
        else:
            self._begin_followers(task)

    def _begin(self, spans: list[Span]) -> None:
        for span in spans:
            if self._work.read_clip(span) is not None:
                continue
            item = begin_item(span, self._root, self._prompts, self._work)
            if item is None:
                self._followers.setdefault(span.follows, []).append(span)
            else:
                self._waiting[0].append(item)

    def _begin_followers(self, done: _Task) -> None:
        for item in done.items:
            self._begin(self._followers.pop(item.span.name, []))

    def _died(self, task: _Task) -> None:
        """A process is gone, and with it whatever ran there: try each alone, and drop what it dies of."""
        card = task.group >= 0 and self._groups[task.group].uses_card
        pool = self._pools.pop(task.group if card else -1, None)
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        if not task.alone:
            each = [(item,) for item in task.items] or [()]
            self._suspects += [dataclasses.replace(task, items=items, alone=True) for items in each]
            return
        reason = "The process that worked on it died: memory ran out, or a decoder failed."
        if task.group < 0:
            self._work.write_plan(task.video, [], [Record(task.video, stage="video", reason=reason)])
        for item in task.items:
            item.drop("video", reason)
            self._work.write_clip(item.span, item.record)
        self._begin_followers(task)


# --- in the processes

_made: dict[str, list[tuple[str, Step]]] = {}
"""The steps that this process has made, by their makers."""

Times = list[tuple[str, int, float]]


def _begin_process() -> None:
    import cv2

    end_with_parent()
    cv2.setNumThreads(1)  # the processes share the cores


def _look_through(
    path: Path, video: str, settings: ClipSettings
) -> tuple[tuple[list[Span], list[Record]], Times]:
    began = time.monotonic()
    plan = plan_safely(path, video, settings)
    return plan, [("look", 1, time.monotonic() - began)]


def _take_through(group: Group, items: list[Item], dataset: Path | None) -> tuple[list[Item], Times]:
    """Take items through a group of steps; the last group's are kept on the disk and not sent back."""
    key = repr(group.makers)
    steps = _made.get(key)
    if steps is None:
        steps = _made[key] = group.make()
    items, times = take_through(steps, items)
    if dataset is None:
        return items, times
    work = WorkFolder(dataset)
    for item in items:
        work.write_clip(item.span, item.record, item.encoded, item.sheet, item.last_mask)
    return [], times
