"""The first clip of somebody who has only just installed the extension: real clicks, all counted."""

from __future__ import annotations

import socket
import time

import pytest

from tests.desktop.walk import Walk
from tests.desktop.window import (
    HEIGHT,
    ROOT,
    Desktop,
    display,
    inside,
    open_window,
    skip_without_window,
    wait_for,
)

MOST_CLICKS, MOST_SECONDS = 6, 60.0
TAB = 260
"""How far below the sidebar's upper edge the tab of the extension is, below those of Blender."""


class User:
    """Clicks and says when."""

    def __init__(self, desktop: Desktop, request: pytest.FixtureRequest):
        self.desktop, self.clicks, self.name = desktop, 0, request.node.name
        self.eyes, self.began = Walk(desktop, desktop.folder), 0.0

    def press(self, operator: str) -> None:
        """A button of the sidebar."""
        _, place = self.eyes.find(operator, "POSEANYTHING_PT_main.")
        self.click(operator, *place)

    def click(self, what: str, x: float, y: float) -> None:
        self.look(f"before {what}")
        if not self.clicks:
            self.began = time.monotonic()
        self.desktop.press(x, y)
        self.clicks += 1

    def look(self, at: str) -> None:
        self.desktop.photograph(f"{self.name}, {at}.png".replace(" ", "_"))

    def wait_for_strip(self) -> dict[str, float]:
        """Seconds from the first click to each thing that is seen, until the strip is whole."""
        seen: dict[str, float] = {}

        def note(what: str) -> None:
            if what not in seen:
                seen[what] = time.monotonic() - self.began

        while True:
            text, _ = self.desktop.ask("answer = step()")
            if text:
                note(text if not text.startswith("Frame ") else "Exporting")
            for job in self.desktop.jobs():
                assert job["state"] not in ("FAILED", "CANCELLED"), job
                note("Sent")
                if job["shown"]:
                    note("Strip")
                if job["state"] == "DONE" and job["shown"] == job["frames"]:
                    note("Whole")
                    return seen
            assert time.monotonic() - self.began < 10 * MOST_SECONDS, seen
            time.sleep(0.1)


@pytest.fixture
def user(tmp_path_factory, request):
    """Somebody in front of Blender's own scene, whose computer has the checkout of the zip."""
    skip_without_window()
    folder = tmp_path_factory.mktemp("first")
    (folder / "checkout").write_text(str(ROOT))
    keys = str(inside(folder) / "keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with open_window(folder, address, "fresh", POSEANYTHING_KEYS=keys) as desktop:
        yield User(desktop, request)
        desktop.ask("bpy.ops.poseanything.stop_server() if bpy.ops.poseanything.stop_server.poll() else None")


def open_tab(user: User) -> None:
    display("xdotool", "mousemove", "500", "400", "sleep", "0.5", "key", "n", "sleep", "1.5")
    right, top = user.desktop.ask(
        "region = next(r for r in area_of('VIEW_3D').regions if r.type == 'UI')\n"
        "answer = [region.x + region.width, region.y + region.height]"
    )
    user.click("the tab", right - 12, HEIGHT - top + TAB)


def report(user: User, seen: dict[str, float], capsys) -> None:
    with capsys.disabled():
        print(f"\n{user.name}: {user.clicks} clicks;", ", ".join(f"{k} {v:.1f} s" for k, v in seen.items()))


def test_a_metarig_with_a_mesh(user, capsys):
    user.desktop.ask("put_human()")
    open_tab(user)
    user.press("poseanything.frame_subject")
    wait_for(lambda: user.desktop.ask("answer = bpy.context.scene.camera is not None"), 20)
    user.press("poseanything.generate")
    seen = user.wait_for_strip()
    user.look("at the end")
    report(user, seen, capsys)
    assert user.clicks <= MOST_CLICKS
    assert "Strip" in seen


def test_the_example_shot(user, capsys):
    open_tab(user)
    user.clicks = 0  # counted from the tab on
    user.press("poseanything.example_shot")
    wait_for(
        lambda: user.desktop.ask("answer = bpy.context.scene.name == 'Example Shot' and not exporting()"), 240
    )
    user.press("poseanything.generate")
    seen = user.wait_for_strip()
    user.look("at the end")
    report(user, seen, capsys)
    assert user.clicks == 2
