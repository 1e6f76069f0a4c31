#!/usr/bin/env python3
"""The one door to PoseAnything Bridge: sets up what is needed, then runs the demo, the tests, the server, or packs the extension.

Needs Python and git, nothing else. Everything is installed into `.venv/` inside this folder, nothing elsewhere.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENTS = ROOT / ".venv"
DIST = ROOT / "dist"

# Which Blender each Python can hold as a module: the first is the one used, the others are for the compatibility tests.
BLENDERS = {(3, 11): ("5.0", "4.5", "4.2"), (3, 13): ("5.2",)}


class BuildError(Exception):
    """What is wrong and what to do, in a sentence."""


def say(text: str) -> None:
    print(f"\033[1m·\033[0m {text}" if sys.stdout.isatty() else f"· {text}", flush=True)


# --- environments ----------------------------------------------------------------------------------------------------


def requirements_of(group: str) -> list[str]:
    """What pyproject.toml lists under a name: `server` for what the package needs, an extra, or a group."""
    import tomllib

    file = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = file["project"]
    return {
        "server": project["dependencies"],
        **project["optional-dependencies"],
        **file["dependency-groups"],
    }[group]


class Environment:
    """A virtual environment of the project's own: `.venv/pythonX.Y` or, for another Blender, `.venv/pythonX.Y-bpyZ`."""

    def __init__(self, blender: str | None = None):
        series = BLENDERS[sys.version_info[:2]]
        self.blender = blender or series[0]
        if self.blender not in series:
            raise BuildError(
                f"Blender {self.blender} can't run on this Python; it can hold {', '.join(series)}."
            )
        self.main = self.blender == series[0]
        name = "python{}.{}".format(*sys.version_info[:2])
        self.folder = ENVIRONMENTS / (name if self.main else f"{name}-bpy{self.blender}")
        self.python = self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def ensure(self, *groups: str) -> Environment:
        """Install the named groups of pyproject.toml unless they are there; the environment is made when missing."""
        stamp = self.folder / "installed.json"
        installed = json.loads(stamp.read_text()) if stamp.exists() and self.python.exists() else {}
        wanted = {}
        for group in groups:
            listed = requirements_of(group)
            key = hashlib.sha256("\n".join(listed).encode()).hexdigest()
            if installed.get(group) != key:
                wanted[group] = (key, listed)
        if not wanted:
            return self
        if not stamp.exists():
            say(f"making the environment {self.folder.relative_to(ROOT)}")
            venv.create(self.folder, with_pip=True, clear=self.folder.exists())
            stamp.write_text("{}")  # from here on it is whole, if empty
        requirements = [requirement for _, listed in wanted.values() for requirement in listed]
        say(f"installing {', '.join(wanted)} into {self.folder.relative_to(ROOT)}")
        self._pip(requirements, ", ".join(wanted))
        installed.update({group: key for group, (key, _) in wanted.items()})
        stamp.write_text(json.dumps(installed, indent=1))
        return self

    def _pip(self, requirements: list[str], what: str) -> None:
        began = time.monotonic()
        command = [
            self.python,
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--progress-bar",
            "off",
            *requirements,
        ]
        pip = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
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
        say(f"installed {what} in {time.monotonic() - began:.0f} s")

    def run(self, *arguments: object, check: bool = True, **environ: str) -> int:
        """Run the environment's Python in the project's root; its exit code, or with `check` an end of the build."""
        code = subprocess.call(
            [str(self.python), *map(str, arguments)], cwd=ROOT, env={**os.environ, **environ}
        )
        if code and check:
            raise SystemExit(code)
        return code

    def for_blender(self) -> Environment:
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
                raise SystemExit(subprocess.call([found, *command[1:], __file__, *sys.argv[1:]]))
    versions = " or ".join(f"{major}.{minor}" for major, minor in BLENDERS)
    raise BuildError(
        f"Blender's module has no build for Python {sys.version_info[0]}.{sys.version_info[1]}; "
        f"install Python {versions} and run this with it."
    )


# --- the extension ---------------------------------------------------------------------------------------------------


def build_extension(environment: Environment) -> Path:
    """Pack `blender_addon/` and `shared/` with their wheels into the installable zip; Blender's own tool checks it."""
    import tomllib

    source = ROOT / "blender_addon"
    manifest = tomllib.loads((source / "blender_manifest.toml").read_text())
    target = DIST / f"{manifest['id']}-{manifest['version']}.zip"
    inputs = [
        p
        for folder in (source, ROOT / "shared")
        for p in sorted(folder.rglob("*"))
        if p.suffix in (".py", ".toml", ".png")
    ]
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    stamp = DIST / "extension.sha256"
    if target.exists() and stamp.exists() and stamp.read_text() == digest.hexdigest():
        return target

    staging = DIST / "staging"
    shutil.rmtree(staging, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(source, staging, ignore=ignore)
    shutil.copytree(ROOT / "shared", staging / "shared", ignore=ignore)
    shutil.copy(ROOT / "LICENSE", staging)
    (staging / "wheels").mkdir(exist_ok=True)
    for entry in manifest.get("wheels", []):
        shutil.copy(fetch_wheel(environment, Path(entry).name), staging / "wheels")

    environment.for_blender()
    tool = next(environment.folder.rglob("bl_pkg/cli/blender_ext.py"))
    for command in (["validate", staging], ["build", "--source-dir", staging, "--output-filepath", target]):
        done = subprocess.run([environment.python, tool, *command], capture_output=True, text=True)
        if done.returncode:
            raise BuildError(
                f"Blender's extension tool refuses to {command[0]} the extension:\n{done.stdout}{done.stderr}"
            )
    stamp.write_text(digest.hexdigest())
    say(f"packed {target.relative_to(ROOT)} ({target.stat().st_size / 1e6:.1f} MB)")
    return target


def fetch_wheel(environment: Environment, name: str) -> Path:
    """A wheel by its file name, from the package index into `.venv/wheels`, once."""
    folder = ENVIRONMENTS / "wheels"
    wheel = folder / name
    if not wheel.exists():
        project, version, python, abi, platforms = name.removesuffix(".whl").split("-")
        command = [
            environment.python,
            "-m",
            "pip",
            "download",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
        ]
        command += ["--only-binary=:all:", "--implementation", "cp", "--abi", abi, "--dest", folder]
        command += ["--python-version", re.sub(r"cp(\d)(\d+)", r"\1.\2", python)]
        command += [word for platform in platforms.split(".") for word in ("--platform", platform)]
        done = subprocess.run([*command, f"{project}=={version}"], capture_output=True, text=True)
        if not wheel.exists():
            raise BuildError(
                f"The package index did not give {name}, which the manifest names:\n{done.stderr[-800:]}"
            )
    return wheel


# --- the commands ----------------------------------------------------------------------------------------------------


def setup(arguments) -> None:
    groups = ["server", *(["model"] if arguments.model else [])]
    Environment().ensure(*groups).for_blender()
    say("ready")


def demo(arguments) -> None:
    environment = Environment().ensure("server").for_blender()
    extension = build_extension(environment)
    rest = ["--rig", arguments.rig.resolve()] if arguments.rig else []
    rest += ["--action", arguments.action] if arguments.action else []
    environment.run(
        "-m", "tests.demo", "--extension", extension, "--output", arguments.output.resolve(), *rest
    )


def test(arguments) -> None:
    series = BLENDERS[sys.version_info[:2]]
    main = (
        Environment().ensure("server", "test", *([] if arguments.without_model else ["model"])).for_blender()
    )
    extension = build_extension(main)
    environ = {"POSEANYTHING_EXTENSION": str(extension), "POSEANYTHING_SERVER_PYTHON": str(main.python)}
    if arguments.blender or arguments.pytest:
        chosen = Environment(arguments.blender).ensure("test").for_blender()
        raise SystemExit(chosen.run("-m", "pytest", *(arguments.pytest or ["tests/addon"]), **environ))

    others = [Environment(blender).ensure("test").for_blender() for blender in series[1:]]
    say(f"testing with Blender {', then the extension with '.join(series)}, side by side")
    with ThreadPoolExecutor(1) as beside:  # one after another, while the suite runs here
        reports = [beside.submit(test_extension, environment, environ) for environment in others]
        codes = [main.run("-m", "pytest", check=False, **environ)]
        for environment, report in zip(others, reports):
            code, text = report.result()
            say(f"the extension with Blender {environment.blender}:")
            print(text, flush=True)
            codes.append(code)
    raise SystemExit(1 if any(codes) else 0)  # a run that a signal ended counts below zero


def test_extension(environment: Environment, environ: dict[str, str]) -> tuple[int, str]:
    """Run the extension's tests in the environment of another Blender: exit code and what pytest said."""
    done = subprocess.run(
        [environment.python, "-m", "pytest", "tests/addon"],
        cwd=ROOT,
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return done.returncode, done.stdout


def bench(arguments) -> None:
    folder = ROOT / "tests" / "benchmarks"
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    for name in arguments.names:
        if name not in names:
            raise BuildError(f"There is no benchmark named {name!r}; choose from {', '.join(names)}.")
    environment = Environment().ensure("server", "test", "model").for_blender()
    environ = {"POSEANYTHING_EXTENSION": str(build_extension(environment))}
    environ["POSEANYTHING_SERVER_PYTHON"] = str(environment.python)
    for name in arguments.names or names:
        say(f"measuring {name}")
        environment.run("-m", f"tests.benchmarks.{name}", **environ)


def extension(arguments) -> None:
    print(build_extension(Environment()))


def serve(arguments) -> None:
    Environment().ensure("server").run("-m", "inference_server", "serve", *arguments.server)


def weights(arguments) -> None:
    Environment().ensure("server", "model").run("-m", "inference_server", "weights", *arguments.server)


def generate(arguments) -> None:
    Environment().ensure("server", "model").run("-m", "inference_server", "generate", *arguments.server)


PASSING_ON = (serve, weights, generate)
"""Commands whose words all go to the server's command line."""


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function, text):
        own_help = function not in PASSING_ON  # theirs says more
        added = commands.add_parser(
            function.__name__, help=text, description=text, allow_abbrev=False, add_help=own_help
        )
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
        "--output", type=Path, default=DIST / "demo", help="folder for the results (default: dist/demo)"
    )
    check = command(test, "run the whole test suite; words that follow go to pytest")
    check.add_argument("--blender", help="only under this Blender series, such as 4.2")
    check.add_argument(
        "--without-model",
        action="store_true",
        help="skip installing torch; the model's tests are skipped by name",
    )
    measure = command(bench, "measure the figures of the README (all, or the named ones)")
    measure.add_argument("names", nargs="*", metavar="NAME")
    command(extension, "pack the extension into dist/, ready to install in Blender")
    for function, text in (
        (serve, "run the inference server in the foreground"),
        (weights, "get the neural engine's weights, or check those that are there"),
        (generate, "make a clip from files, without Blender"),
    ):
        command(function, f"{text}; words that follow go to it")
    prepare = command(setup, "install what the others need, without doing anything else")
    prepare.add_argument("--model", action="store_true", help="with the neural engine's packages")

    arguments, rest = parser.parse_known_args(words)
    if rest and arguments.run not in (test, *PASSING_ON):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.pytest = arguments.server = rest
    return arguments


def main() -> None:
    arguments = parse(sys.argv[1:])
    try:
        restart_on_supported_python()
        arguments.run(arguments)
    except BuildError as error:
        raise SystemExit(f"build.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
