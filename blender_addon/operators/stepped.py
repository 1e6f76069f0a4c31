"""Operators that work in small steps, so that Blender's window goes on living while they do."""

from __future__ import annotations

import time
from collections.abc import Generator

from .. import session
from ..errors import UserError
from ..request.blockers import export_blocker
from ..request.export import ExportStep
from ..shared.schema import MessageError
from ..texts import say
from ..texts.translation import shown, tell
from .refusal import refuse

BAD_INPUT = UserError, MessageError
"""What is the user's to put right; each says so in one sentence."""
BUDGET = 0.05
"""Seconds of work between two looks at the window's events."""


class SteppedOperator:
    """Base of operators whose work is a generator, `steps(context)`; its value is handed to `finish`.

    Pressed as a button (`interactive`), it takes the window's events while it works, and leaves them to
    Blender while it waits for somebody else; Esc cancels it. Called from a script, it runs through.
    """

    interactive = False

    def steps(self, context) -> Generator[ExportStep, None, object]:
        """Raises one of `BAD_INPUT`."""
        raise NotImplementedError

    def finish(self, context, result) -> set[str]:
        return {"FINISHED"}

    def execute(self, context):
        steps = self.steps(context)
        try:
            while True:
                step = next(steps)
                if step.waiting:
                    time.sleep(0.01)
        except StopIteration as finished:
            return self.finish(context, finished.value)
        except BAD_INPUT as error:
            return refuse(self, error)

    def invoke(self, context, event):
        self.interactive = True
        self._steps, self._waiting = self.steps(context), True
        self._timer = context.window_manager.event_timer_add(0.01, window=context.window)
        context.window_manager.modal_handler_add(self)
        session.get().exporting = ExportStep(0.0, "Starting", waiting=True)
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type == "ESC" and event.value == "PRESS":
            self._leave(context)
            self.report({"INFO"}, tell("Export cancelled"))
            return {"CANCELLED"}
        if event.type != "TIMER":
            return {"PASS_THROUGH"} if self._waiting else {"RUNNING_MODAL"}
        end = time.perf_counter() + BUDGET
        try:
            while time.perf_counter() < end:
                step = next(self._steps)
                if step.waiting:
                    break
        except StopIteration as finished:
            self._leave(context)
            return self.finish(context, finished.value)
        except BAD_INPUT as error:
            self._leave(context)
            return refuse(self, error)
        except Exception:  # a bug: Blender shows it, and the next press must not be refused for it
            self._leave(context)
            raise
        self._waiting = step.waiting
        session.get().exporting = step
        context.workspace.status_text_set(
            tell("{what} ({share:.0%})   Esc: Cancel", what=step.text, share=step.fraction)
        )
        if context.area is not None:
            context.area.tag_redraw()
        return {"PASS_THROUGH"}

    def cancel(self, context):
        if self.interactive:  # else its dialog was closed, before anything began
            self._leave(context)

    def _leave(self, context):
        self._steps.close()
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)
        session.get().exporting = None


class RangeOperator(SteppedOperator):
    """Base of those that export the range as the scene has it now: they wait for what stands in the way."""

    @classmethod
    def poll(cls, context):
        reason = (
            export_blocker(context) if session.get().exporting is None else say("Wait for the export to end")
        )
        if reason:
            cls.poll_message_set(shown(reason))
        return not reason
