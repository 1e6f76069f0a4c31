#!/usr/bin/env python3
"""The one door to PoseAnything Bridge: sets up what is needed, then runs the demo, the tests, the server, or
packs the extension.

Needs Python and git, nothing else. Everything is installed into `.venv/` inside this folder, nothing
elsewhere.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".venv"
CONSTRAINTS = ROOT / ".constraints"
DIST = ROOT / "dist"
CAN_EXEC = os.name == "posix"

# Which Blender each Python can hold as a module: the first is the one used, the others are for the
# compatibility tests.
BLENDERS = {(3, 11): ("5.0", "4.5", "4.2"), (3, 13): ("5.2",)}

TORCH_INDEX = "https://download.pytorch.org/whl/"
PLAIN = "plain"
TORCH_BUILDS = (
    ("cu130", (13, 0), (7, 5), (99, 0)),
    ("cu126", (12, 0), (5, 0), (9, 9)),
)
"""PyTorch's builds, the best first, from its release matrix for 2.12 to 2.14: name, the least CUDA a driver
must run (a build for 12.6 runs on any driver for 12.x), and the compute capabilities it has code for."""
TORCH_OWN = ("nvidia-", "cuda-", "triton==")
"""Packages whose versions each build of torch sets itself."""
ON_PROCESSOR = "python build.py setup --model --torch cpu"


class BuildError(Exception):
    """What is wrong and what to do, in a sentence."""


def say(text: str) -> None:
    print(f"\033[1m·\033[0m {text}" if sys.stdout.isatty() else f"· {text}", flush=True)


# --- environments
# ----------------------------------------------------------------------------------------------------


def read_project() -> dict:
    import tomllib  # not in the Pythons that `restart_on_supported_python` is for

    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements_of(group: str) -> list[str]:
    """What pyproject.toml lists under a name: `server` for what the package needs, an extra, or a group."""
    file = read_project()
    project = file["project"]
    groups = {
        "server": project["dependencies"],
        **project["optional-dependencies"],
        **file["dependency-groups"],
    }
    return groups[group]


class Environment:
    """A virtual environment of the project's own, `.venv/NAME`.

    With `constraints`, the name of a file in `.constraints/`, everything in it has the versions listed there.
    """

    def __init__(self, name: str, constraints: str | None = None):
        self.folder = ENVIRONMENTS / name
        self.constraints = constraints and CONSTRAINTS / f"{constraints}.txt"
        self.python = self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._stamp = self.folder / "setup.json"

    def ensure(self, *groups: str, torch: str | None = None) -> Environment:
        """Install the named groups of pyproject.toml unless they are there; the environment is made when
        missing.

        The group `model` comes with the build of torch named by `torch` (see `choose_torch`); by default with
        the one installed before, or else the one that suits the machine.
        """
        state = json.loads(self._stamp.read_text()) if self._stamp.exists() and self.python.exists() else {}
        if "model" in groups:
            torch = torch or state.get("torch")
        missing = [group for group in groups if state.get(group) != self._key(group, torch)]
        if not missing:
            return self
        if not state:
            say(f"making the environment {self.folder.relative_to(ROOT)}")
            venv.create(self.folder, with_pip=True, clear=self.folder.exists())
            self._stamp.write_text("{}")  # from here on it is whole, if empty
        requirements = [requirement for group in missing for requirement in requirements_of(group)]
        index = []
        if "model" in missing:
            torch = torch or choose_torch(find_cards())
            version = self._pinned("torch")
            if torch != PLAIN and torch_is_offered(torch, version):
                requirements.append(f"torch=={version}+{torch}")
                index = ["--extra-index-url", TORCH_INDEX + torch]
            else:
                torch = PLAIN
            state["torch"] = torch
        say(f"installing {', '.join(missing)} into {self.folder.relative_to(ROOT)}")
        began = time.monotonic()
        self._install(requirements, index)
        say(f"installed {', '.join(missing)} in {time.monotonic() - began:.0f} s")
        state.update({group: self._key(group, torch) for group in missing})
        self._stamp.write_text(json.dumps(state, indent=1))
        return self

    def _key(self, group: str, torch: str | None) -> str:
        """Changes with everything that decides what is installed for a group."""
        pins = self.constraints.read_text() if self.constraints else ""
        build = [torch or ""] if group == "model" else []
        return hashlib.sha256("\n".join([*requirements_of(group), *build, pins]).encode()).hexdigest()

    def _pinned(self, package: str) -> str:
        return re.search(rf"^{package}==([^\s;]+)", self.constraints.read_text(), re.MULTILINE)[1]

    def _install(self, requirements: list[str], index: list[str]) -> None:
        """Install with uv where it is there, else with pip."""
        pins = ["--constraint", str(self.constraints)] if self.constraints else []
        if uv := shutil.which("uv"):
            strategy = ["--index-strategy", "unsafe-best-match"] if index else []  # as pip does it
            command = [
                uv,
                "pip",
                "install",
                "--quiet",
                "--python",
                str(self.python),
                *pins,
                *index,
                *strategy,
            ]
            if subprocess.call([*command, *requirements]) == 0:
                return
            say("uv could not install them; pip tries")
        command = [
            str(self.python),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
        ]
        pip = subprocess.Popen(
            [*command, *pins, *index, *requirements],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        log = []
        for line in pip.stdout:
            log.append(line)
            step = re.match(r"(Collecting|Downloading|Building|Installing)\s+(.*)", line.strip())
            if step and sys.stdout.isatty():
                print(f"\r\033[K  {step[1].lower()} {step[2][:90]}", end="", flush=True)
        if sys.stdout.isatty():
            print("\r\033[K", end="")
        if pip.wait() != 0:
            raise BuildError("Installing failed; the installer's last words:\n" + "".join(log[-15:]))

    def command(self, *arguments: object) -> list[str]:
        """The environment's Python with these arguments."""
        return [str(self.python), *map(str, arguments)]

    def run(
        self,
        *arguments: object,
        folder: Path = ROOT,
        check: bool = True,
        lifeline: Sequence[str] = (),
        **environ: str,
    ) -> int:
        """Run the environment's Python in a folder, by default the project's root; its exit code, or with
        `check` an end of the build. What runs is ended with this process; `lifeline` as in `become`."""
        process = subprocess.Popen(
            self.command(*arguments, *lifeline),
            cwd=folder,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE if lifeline else None,
        )
        try:
            code = process.wait()
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
        if code and check:
            raise SystemExit(code)
        return code


class BlenderEnvironment(Environment):
    """Holds Blender as a module: `.venv/pythonX.Y` the first of the Python's series, `pythonX.Y-bpyZ`
    another."""

    def __init__(self, blender: str | None = None):
        python = "python{}.{}".format(*sys.version_info[:2])
        series = BLENDERS[sys.version_info[:2]]
        self.blender = blender or series[0]
        if self.blender not in series:
            raise BuildError(
                f"Blender {self.blender} can't run on this Python; it can hold {', '.join(series)}."
            )
        name = python if self.blender == series[0] else f"{python}-bpy{self.blender}"
        super().__init__(name, f"blender-{self.blender}")

    def for_blender(self) -> BlenderEnvironment:
        return self.ensure("blender-" + self.blender.replace(".", "_"))


def restart_on_supported_python() -> None:
    """Go on under a Python that Blender has wheels for, when this one is not."""
    if sys.version_info[:2] in BLENDERS:
        return
    for major, minor in BLENDERS:
        for name in (f"python{major}.{minor}", f"py -{major}.{minor}"):
            command = name.split()
            found = shutil.which(command[0])
            if found and subprocess.run([found, *command[1:], "-c", ""], capture_output=True).returncode == 0:
                become([found, *command[1:], __file__, *sys.argv[1:]], {})
    versions = " or ".join(f"{major}.{minor}" for major, minor in BLENDERS)
    raise BuildError(
        f"Blender's module has no build for Python {sys.version_info[0]}.{sys.version_info[1]}; "
        f"install Python {versions} and run this with it."
    )


def modules_from_here() -> dict[str, str]:
    """The variables by which a Python that starts in the user's folder, from where relative paths are meant,
    finds the project's modules, whatever else lies there, and behind them the user's own."""
    path = [str(ROOT), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONSAFEPATH": "1"}


def become(command: list[str], environ: dict[str, str], lifeline: Sequence[str] = ()) -> NoReturn:
    """Go on as another program with these further variables, so that no signal and no kill leaves it behind.

    Where a process can't become another (Windows), the program runs as a child, with the further words
    `lifeline` that make it end when its standard input closes: it does when this process ends, however it
    ends.
    """
    # A shell has its background commands ignore the interrupt, and whatever they start inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    environ = {**os.environ, **environ}
    if CAN_EXEC:
        sys.stdout.flush()
        os.execve(command[0], command, environ)
    child = subprocess.Popen([*command, *lifeline], env=environ, stdin=subprocess.PIPE if lifeline else None)
    while True:
        try:
            raise SystemExit(child.wait())
        except KeyboardInterrupt:  # it ends in its own time, which a terminal's interrupt has told it too
            if child.stdin:
                child.stdin.close()


# --- the right torch
# -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Card:
    """A graphics card as `nvidia-smi` describes it; `cuda` is the newest CUDA that its driver can run."""

    name: str
    driver: str
    cuda: tuple[int, int]
    capability: tuple[int, int] | None
    """Compute capability; None where the driver is too old to tell."""


def find_cards() -> list[Card]:
    """The NVIDIA cards of this machine.

    Raises `BuildError` when there is a driver that does not answer.
    """
    tool = shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/lib/wsl/lib")
    if tool is None:
        return []
    outputs = [
        subprocess.run([tool, *words], capture_output=True, text=True, errors="replace").stdout
        for words in ([], ["--query-gpu=compute_cap,name", "--format=csv,noheader"], ["--list-gpus"])
    ]
    return read_cards(*outputs)


def read_cards(table: str, capabilities: str, names: str) -> list[Card]:
    """The cards in what `nvidia-smi` prints: its table, compute capabilities with names, and names alone.

    Old drivers do not list capabilities; from 610 on they write "KMD Version" and "CUDA UMD Version".
    """
    cuda = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+)\.(\d+)", table)
    driver = re.search(r"(?:Driver|KMD) Version\s*:\s*([\d.]+)", table)
    if cuda is None or driver is None:
        if "No devices were found" in table:
            return []
        said = " ".join(table.split())[:200] or "nothing"
        raise BuildError(
            f"The NVIDIA driver does not answer (nvidia-smi says: {said}). Restart the machine or install "
            f"the driver anew, then run this again; `{ON_PROCESSOR}` goes on without the card."
        )
    found = re.findall(r"^(\d+)\.(\d+), (.+)$", capabilities, re.MULTILINE)
    found = found or [
        (None, None, name) for name in re.findall(r"^GPU \d+: (.+?) \(UUID", names, re.MULTILINE)
    ]
    return [
        Card(name, driver[1], (int(cuda[1]), int(cuda[2])), (int(major), int(minor)) if major else None)
        for major, minor, name in found
    ]


def choose_torch(cards: list[Card], system: str = sys.platform, machine: str = "") -> str:
    """The build of torch for a machine: `cuXXX` or `cpu` of PyTorch's index, `plain` for the registry's own.

    Says what was chosen, and why. Raises `BuildError` when no build can use the machine's card.
    """
    machine = machine or platform.machine()
    if system == "darwin":
        if machine != "arm64":
            raise BuildError(
                "PyTorch has no build for Macs with Intel processors; use the draft engine there."
            )
        say("Apple silicon: taking the registry's torch, which has Metal built in")
        return PLAIN
    if not cards:
        say("no NVIDIA card found: taking torch for the processor, on which a clip takes hours")
        return "cpu"
    card = max(cards, key=lambda card: card.capability or (0, 0))
    about = f"{card.name}, driver {card.driver}, CUDA {card.cuda[0]}.{card.cuda[1]}"
    if card.cuda < (12, 0) or card.capability is None:
        raise BuildError(
            f"{about}: the driver is too old for PyTorch, which needs version 525 or later. Update it from "
            f"nvidia.com/drivers, then run this again; `{ON_PROCESSOR}` goes on without the card."
        )
    for build, needed, oldest, newest in TORCH_BUILDS:
        if card.cuda >= needed and oldest <= card.capability <= newest:
            say(f"{about}: taking torch for CUDA {build[2:-1]}.{build[-1]}")
            return build
    if card.capability > TORCH_BUILDS[-1][3]:
        raise BuildError(
            f"{about}: PyTorch needs driver version 580 or later for this card. Update it from "
            f"nvidia.com/drivers, then run this again; `{ON_PROCESSOR}` goes on without the card."
        )
    say(f"{about}: PyTorch no longer supports this card: taking torch for the processor")
    return "cpu"


def torch_is_offered(build: str, version: str) -> bool:
    """Whether PyTorch's own index has this build for the running Python; says so where it has not."""
    python = "cp{}{}".format(*sys.version_info[:2])
    try:
        with urllib.request.urlopen(f"{TORCH_INDEX}{build}/torch/", timeout=10) as page:
            wheels = urllib.parse.unquote(page.read().decode(errors="replace"))
    except OSError as error:
        reason = f"PyTorch's own index can't be reached ({getattr(error, 'reason', error)})"
    else:
        if f"torch-{version}+{build}-{python}-" in wheels:
            return True
        reason = f"PyTorch's own index has no torch {version} for {build} and {python}"
    say(f"{reason}: taking torch from the registry, which may not suit this machine")
    return False


# --- the extension
# ---------------------------------------------------------------------------------------------------


def build_extension(environment: BlenderEnvironment) -> Path:
    """Pack `blender_addon/`, `shared/`, the panels' pages and the wheels into one installable zip for all
    platforms."""
    manifest = read_manifest()
    target = DIST / f"{manifest['id']}-{manifest['version']}.zip"
    digest = hashlib.sha256()
    for folder in (ROOT / "blender_addon", ROOT / "shared"):
        for path in sorted(folder.rglob("*")):
            if path.suffix in (".py", ".toml", ".png"):
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    stamp = DIST / "extension.sha256"
    if target.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return target
    staging = stage_extension(environment)
    blender_extension(environment, "build", "--source-dir", staging, "--output-filepath", target)
    stamp.write_text(digest.hexdigest())
    say(f"packed {target.relative_to(ROOT)} ({target.stat().st_size / 1e6:.1f} MB)")
    return target


def split_extension(environment: BlenderEnvironment, folder: Path) -> list[Path]:
    """Pack a zip for each platform into a folder, in place of those that are there."""
    staging = stage_extension(environment)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{read_manifest()['id']}-*.zip"):
        old.unlink()
    blender_extension(
        environment, "build", "--source-dir", staging, "--output-dir", folder, "--split-platforms"
    )
    return sorted(folder.glob("*.zip"))


def build_repository(environment: BlenderEnvironment, folder: Path) -> Path:
    """Make a folder that Blender can subscribe to from any static host; returns its `index.json`."""
    split_extension(environment, folder)
    blender_extension(environment, "server-generate", "--repo-dir", folder, "--html")
    return folder / "index.json"


def read_manifest() -> dict:
    import tomllib

    return tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text(encoding="utf-8"))


def stage_extension(environment: BlenderEnvironment) -> Path:
    """Gather all that belongs to the extension in a folder, and let Blender's own tool check it."""
    staging = DIST / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "blender_addon", staging, ignore=ignore)
    shutil.copytree(ROOT / "shared", staging / "shared", ignore=ignore)
    shutil.copytree(ROOT / "docs" / "panels", staging / "docs")
    shutil.copy(ROOT / "LICENSE", staging)
    (staging / "wheels").mkdir(exist_ok=True)
    for entry in read_manifest()["wheels"]:
        shutil.copy(fetch_wheel(environment, Path(entry).name), staging / "wheels")
    blender_extension(environment, "validate", staging)
    return staging


def blender_extension(environment: BlenderEnvironment, command: str, *words: object) -> None:
    """Run a command of Blender's own tool for extensions."""
    environment.for_blender()
    tool = next(environment.folder.rglob("bl_pkg/cli/blender_ext.py"))
    done = subprocess.run(environment.command(tool, command, *words), capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"Blender's extension tool failed at {command}:\n{done.stdout}{done.stderr}")


def fetch_wheel(environment: Environment, name: str) -> Path:
    """A wheel by its file name, from the package index into `.venv/wheels`, once."""
    folder = ENVIRONMENTS / "wheels"
    wheel = folder / name
    if not wheel.exists():
        project, version, python, abi, platforms = name.removesuffix(".whl").split("-")
        command = environment.command(
            "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"
        )
        command += ["--only-binary=:all:", "--dest", str(folder)]
        if platforms != "any":
            command += ["--implementation", "cp", "--abi", abi]
            command += ["--python-version", re.sub(r"cp(\d)(\d+)", r"\1.\2", python)]
            command += [word for platform in platforms.split(".") for word in ("--platform", platform)]
        done = subprocess.run([*command, f"{project}=={version}"], capture_output=True, text=True)
        if not wheel.exists():
            raise BuildError(
                f"The package index did not give {name}, which the manifest names:\n{done.stderr[-800:]}"
            )
    return wheel


# --- the commands
# ----------------------------------------------------------------------------------------------------


def remember() -> None:
    """Note this folder, so that Blender finds the server in it."""
    from shared.checkout import remember_checkout  # by a Python that is supported

    remember_checkout(ROOT)


def setup(arguments) -> None:
    environment = BlenderEnvironment().ensure("server")
    if arguments.model:
        environment.ensure("model", torch=arguments.torch or choose_torch(find_cards()))
    environment.for_blender()
    remember()
    say("ready")


def lock(arguments) -> None:
    """Write each constraints file anew, for every system at once; what need not change keeps its version."""
    uv = shutil.which("uv") or Environment("uv").ensure("lock").python.with_name("uv")
    files = {
        f"blender-{series}": (
            python,
            [
                "server",
                *read_project()["project"]["optional-dependencies"],
                "test",
                "blender-" + series.replace(".", "_"),
            ],
        )
        for python, every in BLENDERS.items()
        for series in every
    }
    for name, (python, groups) in {**files, "docs": (min(BLENDERS), ["docs"])}.items():
        path = CONSTRAINTS / f"{name}.txt"
        requirements = "\n".join(requirement for group in groups for requirement in requirements_of(group))
        command = [uv, "pip", "compile", "-", "--quiet", "--universal", "--no-header", "--no-annotate"]
        command += ["--python-version", "{}.{}".format(*python), "--output-file", path]
        command += ["--upgrade"] if arguments.upgrade else []
        if subprocess.run(command, input=requirements, text=True, cwd=CONSTRAINTS).returncode:
            raise BuildError(f"uv found no set of versions for {path.relative_to(ROOT)}.")
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith(TORCH_OWN)))
        say(f"wrote {path.relative_to(ROOT)}")


def demo(arguments) -> None:
    environment = BlenderEnvironment().ensure("server").for_blender()
    extension = build_extension(environment)
    rest = ["--rig", arguments.rig.resolve()] if arguments.rig else []
    rest += ["--action", arguments.action] if arguments.action else []
    rest += ["--up", arguments.up] if arguments.up else []
    script = ROOT / "blender_addon" / "examples" / "demo.py"
    environment.run(script, "--extension", extension, "--output", arguments.output.resolve(), *rest)


SIDE_BY_SIDE = 3
"""Test runs at a time: of three on two cores one mostly waits for a process or a server."""


def test(arguments) -> None:
    series = BLENDERS[sys.version_info[:2]]
    extras = [] if arguments.without_model else list(read_project()["project"]["optional-dependencies"])
    main = BlenderEnvironment().ensure("server", "test", *extras).for_blender()
    extension = build_extension(main)
    environ = {"POSEANYTHING_EXTENSION": str(extension), "POSEANYTHING_SERVER_PYTHON": str(main.python)}
    if arguments.blender or arguments.pytest:
        chosen = BlenderEnvironment(arguments.blender).ensure("test").for_blender()
        raise SystemExit(chosen.run("-m", "pytest", *(arguments.pytest or ["tests/addon"]), **environ))

    others = [BlenderEnvironment(blender).ensure("test").for_blender() for blender in series[1:]]
    # The longest first, so that no process is left alone at the end.
    apart = {"tests/model", "tests/training", "tests/addon"}
    rest = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").iterdir())
        if str(path.relative_to(ROOT)) not in apart
        and (path.name.startswith("test_") or any(path.glob("test_*.py")))
    ]
    runs = [
        ("the server, the contract and the rest", main, rest),
        ("the model", main, ["tests/model"]),
        (f"the extension with Blender {main.blender}", main, ["tests/addon"]),
        *(
            (f"the extension with Blender {each.blender}", each, ["tests/addon", "-m", "not any_blender"])
            for each in others
        ),
        ("training", main, ["tests/training"]),
    ]
    say(f"testing with Blender {', '.join(series)}, {SIDE_BY_SIDE} runs side by side")
    codes = []
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        reports = [pool.submit(run_tests, environment, words, environ) for _, environment, words in runs]
        try:
            for (name, _, _), report in zip(runs, reports):
                code, text = report.result()
                say(f"{name}:")
                print(text, flush=True)
                codes.append(code)
        except BaseException:  # ended by somebody, who does not want to wait for the tests
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(RUNNING):
                process.kill()
            raise
    raise SystemExit(1 if any(codes) else 0)  # a run that a signal ended counts below zero


RUNNING: set[subprocess.Popen] = set()
"""What `run_tests` waits for, in whichever thread."""
TEST_LIMIT = 1800.0
"""Seconds that one run of tests may take: several times what it does, and far less than a CI would wait."""


def run_tests(
    environment: BlenderEnvironment, words: list[str], environ: dict[str, str], limit: float = TEST_LIMIT
) -> tuple[int, str]:
    """Run pytest in an environment: exit code and what it said, though it or what it started never ends."""
    # A file, since a pipe stays open as long as anything does that a test left behind.
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [environment.python, "-u", "-m", "pytest", *words],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environ,  # they share the cores
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        RUNNING.add(process)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            said.write(f"\nended, as it took more than {limit:.0f} s\n".encode())
        finally:
            RUNNING.discard(process)
        said.seek(0)
        return code, said.read().decode(errors="replace")


def bench(arguments) -> None:
    folder = ROOT / "tests" / "benchmarks"
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    for name in arguments.names:
        if name not in names:
            raise BuildError(f"There is no benchmark named {name!r}; choose from {', '.join(names)}.")
    if {"-h", "--help"} & set(arguments.rest):
        for name in arguments.names or names:
            say(f"{name}: {docstring_of(folder / f'{name}.py')}\n")
        return
    extras = read_project()["project"]["optional-dependencies"]
    environment = BlenderEnvironment().ensure("server", "test", *extras).for_blender()
    environ = modules_from_here() | {"POSEANYTHING_EXTENSION": str(build_extension(environment))}
    environ["POSEANYTHING_SERVER_PYTHON"] = str(environment.python)
    for name in arguments.names or [name for name in names if name != "card"]:
        say(f"measuring {name}")
        words = ["-m", f"tests.benchmarks.{name}", *arguments.rest]
        environment.run(*words, folder=Path.cwd(), **environ)
        say(left_out_of(folder / f"{name}.py"))
    if not arguments.names:
        say("left out altogether: card, which needs a CUDA card; run `python build.py bench card` there")


def left_out_of(benchmark: Path) -> str:
    """What a benchmark says that it does not measure: the paragraph "Left out: ..." of its docstring."""
    parts = docstring_of(benchmark).split("\n\n")
    return " ".join(next(part for part in parts if part.startswith("Left out: ")).split())


def docstring_of(benchmark: Path) -> str:
    return ast.get_docstring(ast.parse(benchmark.read_text(encoding="utf-8"))) or ""


def extension(arguments) -> None:
    environment = BlenderEnvironment()
    made = [build_extension(environment)]
    if arguments.split_platforms:
        made = split_extension(environment, DIST / "platforms")
    if arguments.repository:
        made = [build_repository(environment, arguments.repository.resolve())]
    remember()
    print(*made, sep="\n")


def docs(arguments) -> None:
    """Build the documentation site, which fails on a link that leads nowhere."""
    environment = Environment("docs", "docs").ensure("docs")
    environment.run("-m", "mkdocs", "build", "--quiet", "-f", ".mkdocs.yml", NO_MKDOCS_2_WARNING="1")
    print(DIST / "site" / "index.html")


SERVER_COMMANDS = {
    "serve": ((), "run the inference server in the foreground"),
    "invite": ((), "let another computer use the server: prints a token to paste there"),
    "keys": ((), "list who may use the server, or revoke a key"),
    "status": ((), "show how a server is: its workers, memory, users"),
    "jobs": ((), "list the jobs of a server"),
    "cancel": ((), "end jobs of a server"),
    "fetch": ((), "fetch a job's frames from a server"),
    "weights": (("model",), "get the neural engine's weights, or check those that are there"),
    "generate": (("model",), "make a clip from files, without Blender"),
    "synthesise": (
        ("model", "training"),
        "make a data set to train on; with --blender FIRST LAST, render the example scenes of these seeds"
        " for it",
    ),
    "train": (("model", "training"), "train a model by a file of settings"),
    "evaluate": (("model", "training"), "measure engines or folders of clips against the truth"),
    "xpose": (("xpose",), "make pose-video pairs of videos"),
}
"""The commands that the server's command line has too: the extras they need, and what they do."""


def server_command(arguments) -> None:
    """Go on as the server's command of the same name, with all that was said after it."""
    extras, _ = SERVER_COMMANDS[arguments.command]
    environment = BlenderEnvironment().ensure("server", *extras)
    words = ["-m", "inference_server", arguments.command, *arguments.server]
    lifeline = ["--exit-with-stdin"] if arguments.command == "serve" else []
    become(environment.command(*words), modules_from_here(), lifeline)


SCENES = ("examples", "rig", "view", "ground_truth", "camera", "request")
"""The rooms of `blender_addon` that make the clips of a seed."""


def digest_of_scenes(addon: Path = ROOT / "blender_addon") -> str:
    """What tells apart clips of one seed that other code has rendered, so that they are not mixed."""
    digest = hashlib.sha256()
    for room in SCENES:
        for path in sorted((addon / room).rglob("*.py")):
            digest.update(str(path.relative_to(addon)).encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def synthesise(arguments) -> None:
    arguments.server += ["--size", *map(str, arguments.size), "--frames", str(arguments.frames)]
    if arguments.processes:
        arguments.server += ["--processes", str(arguments.processes)]
    if arguments.blender:
        extras, _ = SERVER_COMMANDS["synthesise"]
        environment = BlenderEnvironment().ensure("server", *extras).for_blender()
        size, frames, renderer = arguments.size, arguments.frames, arguments.renderer
        look = arguments.look or "bones"  # a rig's own; what is drawn has the trained one
        name = "{}x{}-{}-{}-{}-{}".format(*size, frames, renderer, look, digest_of_scenes())
        folder = DIST / "rendered" / name
        script = ROOT / "blender_addon" / "examples" / "synthesise.py"
        words = ["--extension", build_extension(environment), "--output", folder]
        words += ["--size", *size, "--frames", frames, "--renderer", renderer, "--look", look]
        words += ["--processes", arguments.processes or 1, "--subjects"]
        words += [Path(word).resolve() if Path(word).is_file() else word for word in arguments.subjects]
        began = time.time()
        environment.run(script, *words, "--seeds", *arguments.blender, lifeline=["--exit-with-stdin"])
        fresh = [path for path in folder.glob("seed-*/clips.json") if path.stat().st_mtime >= began]
        clips = sum(len(json.loads(path.read_text())) for path in fresh)
        say(f"{clips} clips rendered, {clips / (time.time() - began):.2f} a second")
        seeds = map(str, arguments.blender)
        arguments.server += ["--rendered", str(folder), "--seeds", *seeds]
        if "all" not in arguments.subjects:
            arguments.server += ["--subjects", *(Path(word).stem for word in arguments.subjects)]
    elif arguments.look:
        arguments.server += ["--look", arguments.look]
    server_command(arguments)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")

    def command(function, text, name=""):
        own_help = not name  # the server's own says more
        name = name or function.__name__
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False, add_help=own_help)
        added.set_defaults(run=function)
        return added

    shoot = command(
        demo, "make a film once, all the way: a scene, the extension, the server, a strip in the sequencer"
    )
    shoot.add_argument(
        "--rig", type=Path, help="your own .glb, .gltf, .fbx, .blend or .bvh instead of the built-in creature"
    )
    shoot.add_argument("--action", help="the action of that rig to play (default: its first)")
    shoot.add_argument(
        "--up", choices=("Y", "Z"), help="the axis of a .bvh that is up (default: as its rest pose stands)"
    )
    shoot.add_argument(
        "--output", type=Path, default=DIST / "demo", help="folder for the results (default: dist/demo)"
    )
    check = command(test, "run the whole test suite; words that follow go to pytest")
    check.add_argument("--blender", help="only under this Blender series, such as 4.2")
    check.add_argument(
        "--without-model",
        action="store_true",
        help="skip installing torch; the model's tests are skipped by name",
    )
    measure = command(
        bench,
        "measure the figures of the README: the named ones, or all but card, which needs one; words that "
        "follow go to them; --help tells what each measures",
        "bench",
    )
    measure.add_argument("names", nargs="*", metavar="NAME")
    pack = command(extension, "pack the extension into dist/, ready to install in Blender")
    pack.add_argument("--split-platforms", action="store_true", help="a smaller zip for each platform, too")
    pack.add_argument(
        "--repository",
        type=Path,
        metavar="FOLDER",
        nargs="?",
        const=DIST / "repository",
        help="make an extension repository, for any web server to serve and Blender to subscribe to "
        "(default folder: dist/repository)",
    )
    command(docs, "build the documentation site into dist/site")
    for name, (_, text) in SERVER_COMMANDS.items():
        function = synthesise if name == "synthesise" else server_command
        added = command(function, f"{text}; words that follow go to it", name)
        if function is synthesise:
            added.add_argument("--blender", nargs=2, type=int)
            added.add_argument("--size", nargs=2, type=int, default=(128, 96))
            added.add_argument("--frames", type=int, default=17)
            added.add_argument("--subjects", nargs="+", default=["fox"])
            added.add_argument("--renderer", default="cycles")
            added.add_argument("--look")
            added.add_argument("--processes", type=int)
    prepare = command(setup, "install what the others need, without doing anything else")
    prepare.add_argument(
        "--model",
        action="store_true",
        help="with the neural engine's packages, torch as it suits the machine",
    )
    prepare.add_argument(
        "--torch",
        choices=[PLAIN, "cpu", *(build for build, *_ in TORCH_BUILDS)],
        help=f"with --model: this build of torch; {PLAIN!r} is the registry's own",
    )
    renew = command(lock, "bring the exact versions in .constraints/ into step with pyproject.toml")
    renew.add_argument("--upgrade", action="store_true", help="take the newest versions that it allows")

    arguments, rest = parser.parse_known_args(words)
    if rest and arguments.command not in ("test", "bench", *SERVER_COMMANDS):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.pytest = arguments.server = arguments.rest = rest
    return arguments


def main() -> None:
    arguments = parse(sys.argv[1:])
    # So that what was started is ended, too. A shell has its background commands ignore the interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        restart_on_supported_python()
        arguments.run(arguments)
    except BuildError as error:
        raise SystemExit(f"build.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
