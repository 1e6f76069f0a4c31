"""A walk along the extension's buttons in a real window: each is found on the screen, pressed with the mouse,
and photographed."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from zipfile import ZipFile

import cv2
import numpy as np

from tests.desktop.window import HEIGHT, OPENED, Desktop, display, inside, wait_for

PRESSED = (
    "operator",
    "operator_enum",
    "operator_menu_enum",
    "prop",
    "prop_search",
    "prop_tabs_enum",
    "popover",
    "menu",
)
"""Layouts' functions that draw something to press that is the extension's own."""
HELPERS = ("field", "switch")
"""The extension's own, which are written in `HELPERS_FILE` and call those."""
HELPERS_FILE = "ui/text.py"
RED = 60
"""How much redder than before a pixel of a coloured button is."""
PAGES, PAGE, ALL = 9, 12, 60
"""How often a sidebar is scrolled at most, by how many notches of the wheel, and by how many to its top."""
TALL = 10
"""Rows of pixels of a button that is in sight, at least; of others no more than an edge is."""
RESTLESS = 5
"""Photographs after which a window that goes on moving is taken as it is."""
TRIES = 2
"""How often a hand clicks that saw nothing happen: what tells of progress may have moved a button away from
under it."""
CHANGED = 40
"""Pixels that are not the same once a button has been pressed, at least."""
TITLE = 22
"""Height of a photograph's title on the contact sheet."""

RESET = """
import recorder
recorder.after(True)
session = import_module(f"{MODULE}.session").get()
for task in (*session.bridge.active(), *session.bridge.searching()):
    session.bridge.cancel(task)
bpy.ops.wm.open_mainfile(filepath=str(folder / "film.blend"))
for known in (session.bridge.jobs, session.bridge.searches):
    known.clear()
session.arrival.forget(session.bridge.jobs)
session.findings, session.sentence = (), ""
preferences = bpy.context.preferences
preferences.view.ui_scale = 1.0
prefs = preferences.addons[MODULE].preferences
for name in ("token", "autostart", "keep_going"):
    prefs.property_unset(name)
prefs.address, prefs.server_folder, prefs.server_python = where
session.follow_address(bpy.context)
answer = lambda: True
"""
"""Has Blender as it was at first, but for a server that runs."""
END = """
import recorder
bridge = import_module(f"{MODULE}.session").get().bridge
for task in (*bridge.active(), *bridge.searching()):
    bridge.cancel(task)
answer = None if exporting() or bridge.active() or bridge.searching() else recorder.after(True)
"""
"""Ends what a press has begun."""
GO_ON = "import recorder\nanswer = recorder.after(False)"
Key = tuple[str, str, str]
"""Where in the code a button is drawn, "file:line", what it presses, and what is written on it."""


class Walk:
    """What has been pressed so far, and the photographs of it."""

    def __init__(
        self,
        desktop: Desktop,
        album: Path,
        where: tuple[str, str, str] = ("", "", ""),
        left_out: Collection[str] = (),
    ):
        """`where` are the server's address, its folder and its Python."""
        self.desktop, self.album, self.where, self.left_out = desktop, album, where, left_out
        self.tried: set[Key] = set()
        self.pressed: set[Key] = set()
        """Those that did something."""
        self.grey: dict[Key, str] = {}
        self.wrong: list[str] = []
        self.read = 0
        """Characters of Blender's log."""
        self.sheet: list[tuple[str, Path]] = []
        album.mkdir(parents=True, exist_ok=True)
        here = Path(__file__).with_name("recorder.py")
        (desktop.folder / here.name).write_text(here.read_text())
        desktop.ask(
            "sys.path.append(str(folder))\nimport recorder\n"
            "if not recorder.package:\n"
            f"    recorder.install(MODULE, {PRESSED!r}, {HELPERS_FILE!r})\n"
        )

    # --- where it begins

    def begin(self) -> None:
        """Close the panels, and keep that as what each part begins with."""
        self.desktop.ask("bpy.context.preferences.view.show_tooltips = False")  # they come without a click
        for panel in ("shot", "prompt"):
            self.turn(panel, False)
        self.desktop.ask("with bpy.context.temp_override(window=window()): bpy.ops.wm.save_mainfile()")

    def reset(self) -> None:
        """Begin anew, with the sidebar's panels closed."""
        self.escape()
        self.desktop.ask(f"where = {self.where!r}\n{RESET}")

    def serve(self) -> None:
        """Have a server that is connected to."""
        if not self.connected():
            self.desktop.ask("import_module(f'{MODULE}.session').get().reach_server(bpy.context)")
            wait_for(self.connected, 120)

    def stop_server(self) -> None:
        """Have none."""
        self.desktop.ask(
            "bpy.ops.poseanything.stop_server() if bpy.ops.poseanything.stop_server.poll() else None"
        )
        server = "server = import_module(f'{MODULE}.connection.server')\n"
        taken = f"{server}answer = server.is_taken(server.parse_server({self.where[0]!r})[0])"
        wait_for(lambda: not self.desktop.ask(taken), 30)

    # --- what is seen

    def recorder(self, call: str):
        return self.desktop.ask(f"import recorder\nanswer = recorder.{call}")

    def drawn(self, *owners: str) -> list[dict]:
        """The buttons that are drawn by classes whose names begin so; all without."""
        return [one for one in self.recorder("colour()") if one["owner"].startswith(owners or "")]

    def picture(self) -> np.ndarray:
        """The window [H, W, 3], blue first."""
        path = self.desktop.folder / "now.ppm"
        display("import", "-window", "root", "-depth", "8", str(inside(path)))
        return cv2.imread(str(path))

    def settled(self) -> np.ndarray:
        """The window once nothing in it moves, as panels do that slide; as it is where that takes long."""
        picture = self.picture()
        for _ in range(RESTLESS):
            last, picture = picture, self.picture()
            if np.array_equal(last, picture):
                break
        return picture

    def photograph(self, title: str, picture: np.ndarray | None = None) -> None:
        """Put the window as it is into the album."""
        path = self.album / f"{len(self.sheet):03d} {title}.png".replace("/", " ")
        cv2.imwrite(
            str(path), self.settled() if picture is None else picture, [cv2.IMWRITE_PNG_COMPRESSION, 1]
        )
        self.sheet.append((title, path))

    def places(self, buttons: list[dict]) -> dict[int, tuple[int, int]]:
        """The middle of each button that is in sight, x and y down, by its place in the list: each is
        coloured by the digits of its number, and none in every photograph."""
        seen = []
        for bit in range((len(buttons) + 1).bit_length()):
            chosen = [
                (one["owner"], one["number"]) for place, one in enumerate(buttons, 1) if place >> bit & 1
            ]
            self.recorder(f"colour({json.dumps(chosen)})")
            seen.append(redness(self.picture()))
        self.recorder("colour()")
        plain = np.minimum.reduce(seen)
        code = sum((one - plain > RED).astype(np.int16) << bit for bit, one in enumerate(seen))
        found = {}
        for place, button in enumerate(buttons):
            rows, columns = np.nonzero(code == place + 1)
            if len(rows) and np.ptp(rows) >= TALL:
                # Of choices that stand beside each other the last.
                x = columns.max() - 15 if button["expand"] else np.median(columns)
                found[place] = int(x), int(np.median(rows))
        return found

    def scrolled_to(self, buttons: list[dict]) -> dict[int, tuple[int, int]]:
        """Where they are, once the sidebar is scrolled to where they are in sight."""
        found = self.places(buttons)
        for notches in (-ALL, *[PAGE] * PAGES):
            if found:
                break
            self.scroll(notches)
            found = self.places(buttons)
        return found

    def photograph_sidebar(self, title: str) -> None:
        """All of it, page by page."""
        self.scroll(-ALL)
        last = None
        for page in range(PAGES):
            picture = self.settled()
            if last is not None and np.array_equal(picture, last):
                break
            self.photograph(f"{title} {page + 1}", picture)
            self.scroll(PAGE)
            last = picture

    def scroll(self, notches: int) -> None:
        """Turn the wheel over the sidebar's margin, where there is no list that scrolls by itself."""
        x, y = self.desktop.ask(
            "region = next(each for each in area_of('VIEW_3D').regions if each.type == 'UI')\n"
            "answer = [region.x + 9, region.y + region.height // 2]"
        )
        self.point(x, HEIGHT - y)
        wheel = "4" if notches < 0 else "5"
        display("xdotool", "click", "--repeat", str(abs(notches)), "--delay", "10", wheel)
        self.catch_up()

    def find(self, what: str, *owners: str, text: str = "") -> tuple[dict, tuple[int, int]]:
        """A button that is drawn, and where."""
        for button in self.drawn(*owners):
            if button["what"] == what and text in button["text"]:
                found = self.scrolled_to([button])
                assert found, f"{what} {text} is not in sight"
                return button, found[0]
        raise AssertionError(f"{what} {text} is not drawn")

    def offered(self, text: str) -> dict:
        """The main panel's button that says so; waits for it."""
        [button] = wait_for(
            lambda: [one for one in self.drawn("POSEANYTHING_PT_main.") if one["text"] == text], 120
        )
        return button

    def connected(self) -> bool:
        return (
            self.desktop.ask("answer = import_module(f'{MODULE}.session').get().bridge.link.state")
            == "CONNECTED"
        )

    # --- what is pressed

    def open(self, *panels: str) -> None:
        for panel in panels:
            self.turn(panel, True)

    def turn(self, panel: str, wanted: bool) -> None:
        """Open or close a panel by a click on its title, unless it is so already."""
        for _ in range(2):  # a hand that was too fast clicks again
            if (f"POSEANYTHING_PT_{panel}.draw" in self.recorder("drawers()")) == wanted:
                return
            _, (x, y) = self.find("poseanything.help", f"POSEANYTHING_PT_{panel}.draw_header_preset")
            self.click_at(x - 120, y)
            self.settled()
        assert (f"POSEANYTHING_PT_{panel}.draw" in self.recorder("drawers()")) == wanted, panel

    def stop(
        self,
        title: str,
        *owners: str,
        leave: Iterable[str] = (),
        reopen: Callable[[], None] | None = None,
    ) -> None:
        """Photograph what is shown, and press each of the buttons that classes whose names begin so draw and
        that was not pressed before; what comes of it is ended by Esc.

        leave: what is not pressed here. reopen: opens anew what may close when something in it is pressed.
        """
        if reopen is not None:
            self.reopen(reopen, *owners)
        self.photograph(title)
        while todo := self._todo(owners, drawn := self.drawn(), leave):
            places = self.scrolled_to(todo)
            if not places:
                self.wrong.append(f"{title}: not in sight: {[key_of(one) for one in todo]}")
                return
            shown = set(map(identity, drawn))
            for index, place in places.items():
                now = self.press(todo[index], place, reopen=reopen)
                if reopen is not None:
                    now = self.reopen(reopen, *owners)
                if set(map(identity, now)) != shown:
                    break  # pressing has changed what is drawn, or moved it

    def reopen(self, reopen: Callable[[], None], *owners: str) -> list[dict]:
        """Open anew what such classes draw; gives what is drawn then."""
        for _ in range(TRIES):
            reopen()
            drawn = self.drawn()
            if any(one["owner"].startswith(owners) for one in drawn):
                return drawn
        self.photograph("does not open")
        raise AssertionError(f"{' '.join(owners)} does not open")

    def _todo(self, owners: tuple[str, ...], drawn: list[dict], leave: Iterable[str]) -> list[dict]:
        own = [one for one in drawn if one["owner"].startswith(owners)]
        for button in own:
            if button["why_not"]:
                self.grey[key_of(button)] = button["why_not"]
        return [
            one
            for one in own
            if one["enabled"]
            and not one["why_not"]
            and one["what"] not in (*self.left_out, *leave)
            and key_of(one) not in self.tried
        ]

    def press_one(self, what: str, *owners: str, text: str = "") -> list[dict]:
        """Press a button and let what comes of it go on; gives what is drawn then."""
        return self.press(*self.find(what, *owners, text=text), escape=False)

    def press_offered(self, text: str) -> list[dict]:
        """Press the button of the main panel that says so, which is waited for; gives what is drawn then."""
        button = self.offered(text)
        self.photograph(text)
        return self.press(button, *self.scrolled_to([button]).values(), escape=False)

    def cure(self, title: str, broken: str, text: str) -> None:
        """Break something, and press the button that is offered against it: it has to go away by that."""
        self.desktop.ask(broken)
        if any(one["text"] == text for one in self.press_offered(text)):
            self.wrong.append(f"{title}: {text} does not help")

    def escape(self) -> None:
        display("xdotool", "key", "Escape")
        self.recorder("after(True)")

    def press(
        self,
        button: dict,
        place: tuple[int, int],
        escape: bool = True,
        reopen: Callable[[], None] | None = None,
    ) -> list[dict]:
        """Rest on a button, press it, photograph what comes of it, and end that; gives what is drawn then."""
        title = f"{button['owner'].split('_')[-1].split('.')[0]} {button['what']} {button['text']}".strip()
        self.tried.add(key_of(button))
        for attempt in range(TRIES):
            if attempt and reopen is not None:
                self.reopen(reopen, button["owner"])
            if attempt:
                button, place = self.find_again(button)
            before, after = self.click(button, place, in_menu=reopen is not None)
            now = self.put_back(escape)
            differs = (abs(before.astype(np.int16) - after).max(axis=2) > 20).sum()
            if differs > 2000:
                self.photograph(title, after)
            if button["what"] in now["ran"] or not button.get("followed") and differs >= CHANGED:
                self.pressed.add(key_of(button))
                return now["drawn"]
        self.wrong.append(f"{title}: nothing happened but {now['ran']}")
        return now["drawn"]

    def opened_outside(self) -> list[str]:
        """What the desktop was to open."""
        opened = self.desktop.folder / OPENED
        return opened.read_text().splitlines() if opened.exists() else []

    def find_again(self, button: dict) -> tuple[dict, tuple[int, int]]:
        """A button as it is drawn now, and where."""
        return self.find(button["what"], button["owner"], text=button["text"])

    def click(self, button: dict, place: tuple[int, int], in_menu: bool) -> list[np.ndarray]:
        """The window with the pointer on a button, and after a click on it."""
        self.point(*place, in_menu)
        self.recorder(f"before({button['owner']!r}, {button['number']})")
        before = self.picture()
        display("xdotool", "click", "1")
        self.catch_up()
        return [before, self.picture()]

    def put_back(self, escape: bool) -> dict:
        """End what a press has begun, where that is asked for; gives what ran, and what is drawn then."""
        if escape:
            display("xdotool", "key", "Escape")
        return wait_for(lambda: self.desktop.ask(END if escape else GO_ON), 60)

    def point(self, x: int, y: int, in_menu: bool = False) -> None:
        """Move the pointer there; in two steps where a menu has opened another one and takes no notice of the
        first."""
        if in_menu:
            display("xdotool", "mousemove", str(x - 2), str(y))
            self.catch_up()
        display("xdotool", "mousemove", str(x), str(y))

    def click_at(self, x: int, y: int, number: int = 1) -> None:
        """Click with one of the mouse's buttons, until Blender has drawn what comes of it."""
        self.point(x, y, in_menu=True)
        self.catch_up()
        display("xdotool", "click", str(number))
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until Blender has drawn what came of all that was typed and clicked."""
        self.desktop.ask("answer = lambda: True")

    # --- what is left

    def check(self) -> None:
        """Whether something was wrong since this was asked last: a button that does nothing, a report that
        can't be understood, a word that is missing."""
        for operator, kind, text in self.recorder("reports.copy()"):
            if kind == "ERROR" and not is_sentence(text):
                self.wrong.append(f"{operator} says only {text!r}")
        for (_, what, text), why in self.grey.items():
            if "context is incorrect" in why:
                self.wrong.append(f"{what} {text} is grey without a word")
        for opened in self.opened_outside():
            here = str(inside(self.desktop.folder))
            if (
                not opened.startswith("https://")
                and not Path(opened.replace(here, str(self.desktop.folder))).is_dir()
            ):
                self.wrong.append(f"{opened} was to be opened")
        self.recorder("reports.clear()")
        self.grey.clear()
        log = (self.desktop.folder / "blender.log").read_text()[self.read :]
        self.read += len(log)
        if "Traceback" in log:
            self.wrong.append(log[log.index("Traceback") - 200 :][:3000])
        wrong, self.wrong = self.wrong, []
        assert not wrong, "\n".join(wrong)

    def write_sheet(self, across: int = 4, width: int = 480) -> Path:
        """All photographs on one."""
        tiles = []
        for title, path in self.sheet:
            picture = cv2.imread(str(path))
            small = cv2.resize(
                picture, (width, width * picture.shape[0] // picture.shape[1]), interpolation=cv2.INTER_AREA
            )
            tile = cv2.copyMakeBorder(small, TITLE, 4, 2, 2, cv2.BORDER_CONSTANT, value=(255, 255, 255))
            cv2.putText(
                tile, title, (4, TITLE - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA
            )
            tiles.append(tile)
        tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % across)
        rows = [np.hstack(tiles[row : row + across]) for row in range(0, len(tiles), across)]
        path = self.album / "sheet.png"
        cv2.imwrite(str(path), np.vstack(rows))
        return path


def redness(picture: np.ndarray) -> np.ndarray:
    blue, green, red = np.moveaxis(picture.astype(np.int16), 2, 0)
    return red - np.maximum(blue, green)


def key_of(button: dict) -> Key:
    """Help is another in every panel."""
    return (
        button["site"],
        button["what"],
        button["owner" if button["what"] == "poseanything.help" else "text"],
    )


def identity(button: dict) -> tuple:
    """What tells one from another that may stand in its place."""
    return button["owner"], button["number"], button["what"], button["shape"]


def draws(node: ast.Call, calls: Iterable[str]) -> bool:
    """Whether it calls one of a layout's methods, or of the extension's own functions that do."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in calls
    return isinstance(node.func, ast.Name) and node.func.id in HELPERS


def is_sentence(text: str) -> bool:
    """Whether a person can make something of it: words that end in a stop."""
    return (
        text.lstrip("'/")[:1].isalnum() and text.rstrip().endswith((".", "!", "?")) and len(text.split()) > 2
    )


def sites(package: Path, calls: Iterable[str]) -> Iterator[tuple[str, range, set[str]]]:
    """What in a packed extension's code draws something to press: the file, its lines, the words in the
    call."""
    with ZipFile(package) as packed:
        files = [name for name in packed.namelist() if name.endswith(".py")]
        drawing = [name for name in files if name.startswith(("ui/", "operators/")) and name != HELPERS_FILE]
        sources = {name: packed.read(name) for name in drawing}
    for name, source in sources.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and draws(node, calls):
                constants = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant))
                words = {value for value in constants if isinstance(value, str)}
                words |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
                yield name, range(node.lineno, node.end_lineno + 1), words
