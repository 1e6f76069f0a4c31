"""Stages of the tests' own, named as module:class."""

import os
import time
from dataclasses import dataclass

from inference_server.xpose.stages import Filter, SubjectFinder, Verdict
from inference_server.xpose.subjects.flow import FlowSubjectFinder


@dataclass
class Words(Filter):
    """A filter that works in batches in a process of its own, as one with weights does."""

    batch_size = 2
    uses_card = True

    def judge(self, clips):
        return [
            Verdict("bird" not in clip.name, "A bird is seen.", "lizard", "walking", "legs", "a lizard walks")
            for clip in clips
        ]


@dataclass
class Mortal(SubjectFinder):
    """Dies of some clips, fails at others, and takes its time."""

    seconds: float = 0.0

    def find(self, clip, verdict):
        if "deadly" in clip.name:
            os._exit(9)
        if "faulty" in clip.name:
            raise ZeroDivisionError("nothing to divide by")
        time.sleep(self.seconds)
        return FlowSubjectFinder().find(clip, verdict)
