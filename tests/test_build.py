"""The one door, as somebody meets it who has never seen the project."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import build
from tests.server.client import Client, request
from tests.server.processes import PATIENCE, Output, alive, descendants, wait_for_end

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "build.py", *words], capture_output=True, text=True, timeout=240
    )


# --- the command line ---


def test_help_names_every_command():
    done = run("--help")
    assert done.returncode == 0
    for command in ("demo", "test", "bench", "extension", "serve", "weights", "generate", "setup", "lock"):
        assert f"\n    {command}" in done.stdout


def test_without_a_command_says_what_is_missing():
    done = run()
    assert done.returncode == 2
    assert "COMMAND" in done.stderr


def test_a_benchmark_that_is_not_there_is_one_sentence():
    done = run("bench", "nonsense")
    assert done.returncode == 1
    assert done.stderr.startswith("build.py: There is no benchmark named 'nonsense'; choose from ")
    assert "Traceback" not in done.stderr


def test_what_other_code_has_rendered_is_not_gone_on_with(tmp_path):
    for room in build.SCENES:
        assert list((ROOT / "blender_addon" / room).glob("*.py")), room
        (tmp_path / room / "motion").mkdir(parents=True)
        (tmp_path / room / "motion" / "gait.py").write_text("PACE = 1\n")
    before = build.digest_of_scenes(tmp_path)
    (tmp_path / "examples" / "motion" / "gait.pyc").write_text("of another Python")
    (tmp_path / "ui").mkdir()
    (tmp_path / "ui" / "panel.py").write_text("")
    assert build.digest_of_scenes(tmp_path) == before
    for room in build.SCENES:
        (tmp_path / room / "motion" / "gait.py").write_text("PACE = 2\n")
        assert build.digest_of_scenes(tmp_path) != before
        (tmp_path / room / "motion" / "gait.py").write_text("PACE = 1\n")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Path:
    """A folder of the user's, who stands in it; the environments are the one that the tests run in."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").touch()  # a package of theirs, of a name that we have too
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build, "CAN_EXEC", False)
    monkeypatch.setattr(build.Environment, "ensure", lambda self, *groups, **options: self)
    monkeypatch.setattr(build.Environment, "command", lambda self, *words: [sys.executable, *map(str, words)])
    monkeypatch.setattr(build, "build_extension", lambda environment: "extension.zip")
    return tmp_path


def test_a_command_means_files_from_where_the_user_stands(elsewhere, capfd):
    (elsewhere / "frames.mp4").write_bytes(b"no video")
    with pytest.raises(SystemExit) as ended:
        build.server_command(build.parse(["xpose", "run", "frames.mp4", "--output", "made"]))
    assert ended.value.code == 0, capfd.readouterr().err
    assert "can't be read as a video" in capfd.readouterr().out
    assert (elsewhere / "made" / "index.html").exists()


def test_a_benchmark_tells_what_it_measures_and_measures_nothing():
    done = run("bench", "timer", "--help")
    assert done.returncode == 0 and done.stdout.startswith("· timer: ") and "Left out: " in done.stdout


def test_a_benchmark_means_files_from_where_the_user_stands(elsewhere, capfd):
    (elsewhere / "packed").mkdir()
    (elsewhere / "packed" / "index.json").write_text("no index")
    with pytest.raises(SystemExit):
        build.bench(build.parse(["bench", "xpose", "--data", "packed"]))
    assert "packed/index.json can't be read (Expecting value" in capfd.readouterr().err


BENCHMARKS = sorted(p for p in (ROOT / "tests" / "benchmarks").glob("*.py") if not p.stem.startswith("_"))


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_says_what_it_leaves_out(benchmark):
    assert re.fullmatch(r"Left out: .+\.", build.left_out_of(benchmark))


def test_words_after_test_go_to_pytest_untouched():
    arguments = build.parse(["test", "tests/contract", "-k", "raster", "--blender", "4.5", "-x"])
    assert arguments.blender == "4.5"
    assert arguments.pytest == ["tests/contract", "-k", "raster", "-x"]


def test_a_run_of_tests_is_over_when_pytest_is_whatever_it_left_behind(tmp_path):
    script = tmp_path / "test_leaving.py"
    script.write_text("import subprocess\ndef test_leaving(): subprocess.Popen(['sleep', '30'])\n")
    begun = time.monotonic()
    code, text = build.run_tests(build.BlenderEnvironment(), [str(script), "-p", "no:cacheprovider"], {})
    assert code == 0 and "1 passed" in text
    assert time.monotonic() - begun < 25


def test_a_run_of_tests_that_never_ends_is_ended_and_says_how_far_it_came(tmp_path):
    script = tmp_path / "test_hanging.py"
    script.write_text("import time\ndef test_first(): pass\ndef test_hanging(): time.sleep(60)\n")
    words = [str(script), "-v", "-p", "no:cacheprovider"]
    code, text = build.run_tests(build.BlenderEnvironment(), words, {}, limit=5)
    assert code != 0 and "test_first PASSED" in text and text.endswith("ended, as it took more than 5 s\n")


def test_words_that_nobody_takes_are_refused():
    with pytest.raises(SystemExit):
        build.parse(["demo", "--colour", "red"])


def test_a_blender_this_python_cannot_hold_is_one_sentence():
    with pytest.raises(build.BuildError, match=r"Blender 3\.6 can't run on this Python; it can hold \d"):
        build.BlenderEnvironment("3.6")


# --- environments ---


def wheel(folder: Path, version: str) -> None:
    """Put a wheel of a package `tiny` into a folder."""
    information = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny.py", f"version = {version!r}\n")
        archive.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n"
        )
        archive.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{information}/RECORD", "")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project that needs the package `tiny`: 1.0 and 2.0 are on its shelf, 1.0 in its constraints."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel(shelf, "1.0")
    wheel(shelf, "2.0")
    (tmp_path / ".constraints").mkdir()
    (tmp_path / ".constraints" / "all.txt").write_text("tiny==1.0\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["tiny"]\noptional-dependencies = {model = []}\n[dependency-groups]\n'
    )
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "ENVIRONMENTS", tmp_path / ".venv")
    monkeypatch.setattr(build, "CONSTRAINTS", tmp_path / ".constraints")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))  # no uv
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return tmp_path


def installed(environment: build.Environment) -> str:
    done = subprocess.run(
        environment.command("-c", "import tiny; print(tiny.version)"), capture_output=True, timeout=240
    )
    return done.stdout.decode().strip()


def test_setup_installs_what_is_missing_once_and_what_the_constraints_say(project):
    build.Environment("one", "all").ensure("server")
    assert installed(build.Environment("one", "all")) == "1.0"

    (project / "shelf").rename(project / "away")  # whatever would install now fails
    build.Environment("one", "all").ensure("server")

    (project / ".constraints" / "all.txt").write_text("tiny==2.0\n")
    with pytest.raises(build.BuildError, match="Installing failed.*"):
        build.Environment("one", "all").ensure("server")
    (project / "away").rename(project / "shelf")
    build.Environment("one", "all").ensure("server")
    assert installed(build.Environment("one", "all")) == "2.0"


@pytest.mark.skipif(os.name != "posix", reason="a script stands in for uv")
def test_setup_asks_uv_where_it_is_there_and_pip_where_that_fails(project, capfd):
    uv = project / "bin" / "uv"
    uv.parent.mkdir()
    uv.write_text(f'#!/bin/sh\necho "$@" > {project}/words\nexit 2\n')
    uv.chmod(0o755)
    environment = build.Environment("one", "all").ensure("server")
    words = (project / "words").read_text()
    constraint = project / ".constraints" / "all.txt"
    assert words == f"pip install --quiet --python {environment.python} --constraint {constraint} tiny\n"
    assert "uv could not install them; pip tries" in capfd.readouterr().out
    assert installed(environment) == "1.0"


def locked() -> list[Path]:
    return sorted((ROOT / ".constraints").glob("*.txt"))


def test_every_environment_has_its_constraints():
    series = [f"blender-{blender}" for every in build.BLENDERS.values() for blender in every]
    assert [path.stem for path in locked()] == sorted([*series, "docs"])


@pytest.mark.parametrize("path", locked(), ids=lambda path: path.stem)
def test_constraints_are_exact_versions_that_the_project_allows(path):
    pins = {}
    for line in path.read_text().splitlines():
        pin = Requirement(line)  # an index or a file is no requirement
        assert re.fullmatch(r"==[^*]+", str(pin.specifier)) and "+" not in line, line
        assert not pin.name.startswith(("nvidia-", "cuda-", "triton")), "torch's own builds set these"
        pins.setdefault(pin.name, []).append(str(pin.specifier)[2:])
    groups = ["docs"]
    if path.stem != "docs":
        extras = build.read_project()["project"]["optional-dependencies"]
        groups = ["server", *extras, "test", path.stem.replace(".", "_")]
    for group in groups:
        for listed in map(Requirement, build.requirements_of(group)):
            assert pins.get(listed.name), f"{listed.name} has no version: run `python build.py lock`"
            assert all(listed.specifier.contains(version) for version in pins[listed.name]), listed


# --- the right torch ---


def table(driver: str, cuda: str) -> str:
    if int(driver.split(".")[0]) >= 610:
        head = f"| NVIDIA-SMI {driver:22} KMD Version: {driver:14} CUDA UMD Version: {cuda:9}|"
    else:
        head = f"| NVIDIA-SMI {driver:22} Driver Version: {driver:14} CUDA Version: {cuda:9}|"
    return f"Sun Jun  7 08:16:57 2026\n+---+\n{head}\n+---+\n|  0  NVIDIA B200  On | 00000000:63:00.0 Off |\n"


NO_CAPABILITY = 'Field "compute_cap" is not a valid field to query.\n\n'
B200 = table("610.43.02", "13.3"), "10.0, NVIDIA B200\n", "GPU 0: NVIDIA B200 (UUID: GPU-1)\n"
RTX_4090 = table("580.65.06", "13.0"), "8.9, NVIDIA GeForce RTX 4090\n", ""
RTX_3060 = table("550.54.14", "12.4"), "8.6, NVIDIA GeForce RTX 3060\n", ""
GTX_1080 = table("580.82.07", "13.0"), "6.1, NVIDIA GeForce GTX 1080\n", ""
RTX_5090_OLD = table("572.16", "12.8"), "12.0, NVIDIA GeForce RTX 5090\n", ""
GTX_770 = table("535.104.05", "12.2"), "3.0, NVIDIA GeForce GTX 770\n", ""
OLD_DRIVER = table("470.63.01", "11.4"), NO_CAPABILITY, "GPU 0: NVIDIA GeForce RTX 3080 (UUID: GPU-1)\n"
TWO_CARDS = table("580.82.07", "13.0"), "6.1, NVIDIA GeForce GTX 1080\n9.0, NVIDIA H100\n", ""


@pytest.mark.parametrize(
    "outputs, chosen, said",
    [
        (B200, "cu130", "NVIDIA B200, driver 610.43.02, CUDA 13.3: taking torch for CUDA 13.0"),
        (RTX_4090, "cu130", "RTX 4090, driver 580.65.06, CUDA 13.0: taking torch for CUDA 13.0"),
        (RTX_3060, "cu126", "RTX 3060, driver 550.54.14, CUDA 12.4: taking torch for CUDA 12.6"),
        (GTX_1080, "cu126", "GTX 1080, driver 580.82.07, CUDA 13.0: taking torch for CUDA 12.6"),
        (GTX_770, "cpu", "PyTorch no longer supports this card: taking torch for the processor"),
        (TWO_CARDS, "cu130", "NVIDIA H100, driver 580.82.07"),
    ],
)
def test_torch_suits_the_card_and_its_driver(outputs, chosen, said, capsys):
    assert build.choose_torch(build.read_cards(*outputs), "linux", "x86_64") == chosen
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "outputs, sentence",
    [
        (OLD_DRIVER, r"RTX 3080, driver 470.63.01, CUDA 11.4: the driver is too old .* 525 or later"),
        (RTX_5090_OLD, r"RTX 5090, driver 572.16, CUDA 12.8: PyTorch needs driver version 580 or later"),
        (
            ("NVIDIA-SMI has failed because it couldn't communicate with the driver.", "", ""),
            "does not answer",
        ),
        (("", "", ""), "nvidia-smi says: nothing"),
    ],
)
def test_a_card_that_torch_cannot_use_is_refused_with_what_to_do(outputs, sentence):
    with pytest.raises(build.BuildError, match=f"{sentence}.*{re.escape(build.ON_PROCESSOR)}"):
        build.choose_torch(build.read_cards(*outputs), "linux", "x86_64")


def test_torch_without_an_nvidia_card(capsys):
    assert build.read_cards("No devices were found", "", "") == []
    assert build.choose_torch([], "linux", "x86_64") == "cpu"
    assert "a clip takes hours" in capsys.readouterr().out
    assert build.choose_torch([], "darwin", "arm64") == build.PLAIN
    with pytest.raises(build.BuildError, match="no build for Macs with Intel"):
        build.choose_torch([], "darwin", "x86_64")


@pytest.mark.skipif(os.name != "posix", reason="a script stands in for nvidia-smi")
def test_the_cards_are_read_from_nvidia_smi(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        "#!/bin/sh\ncase \"$1\" in\n--query-gpu=compute_cap,name) echo '9.0, NVIDIA H100 80GB HBM3';;\n"
        f"--list-gpus) echo 'GPU 0: x (UUID: y)';;\n*) echo '{table('570.86.10', '12.8')}';;\nesac\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert build.find_cards() == [build.Card("NVIDIA H100 80GB HBM3", "570.86.10", (12, 8), (9, 0))]


def test_where_there_is_no_nvidia_smi_there_is_no_card(tmp_path, monkeypatch):
    monkeypatch.setattr(build.shutil, "which", lambda *_, **__: None)
    assert build.find_cards() == []


@pytest.fixture
def index(monkeypatch):
    """PyTorch's index as this machine serves it: a list of wheels for `cu130`, nothing else."""
    python = "cp{}{}".format(*sys.version_info[:2])

    class Index(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/whl/cu130/torch/"
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(f'<a href="torch-2.13.0%2Bcu130-{python}-{python}-linux.whl">'.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(build, "TORCH_INDEX", f"http://127.0.0.1:{server.server_port}/whl/")
    yield server
    server.shutdown()
    server.server_close()


def test_a_build_is_taken_where_the_index_has_it(index, capsys):
    assert build.torch_is_offered("cu130", "2.13.0")
    assert not capsys.readouterr().out
    assert not build.torch_is_offered("cu130", "2.13")
    assert not build.torch_is_offered("cu126", "2.13.0")
    assert "taking torch from the registry" in capsys.readouterr().out


def test_an_index_out_of_reach_is_said_in_a_sentence(index, capsys):
    index.shutdown()
    index.server_close()
    assert not build.torch_is_offered("cu130", "2.13.0")
    assert re.fullmatch(
        r"· PyTorch's own index can't be reached \(.*\): taking torch from the registry, .*\n",
        capsys.readouterr().out,
    )


def python_in(folder: Path) -> None:
    """What of an environment is looked for."""
    folder.joinpath("bin").mkdir(parents=True)
    folder.joinpath("bin", "python").touch()
    folder.joinpath("Scripts").mkdir()
    folder.joinpath("Scripts", "python.exe").touch()


def test_setup_installs_the_chosen_build_and_keeps_to_it(project, index, monkeypatch):
    (project / "pyproject.toml").write_text(
        "[project]\ndependencies = []\n[project.optional-dependencies]\n"
        'model = ["torch>=2,<3"]\n[dependency-groups]\n'
    )
    (project / ".constraints" / "all.txt").write_text("torch==2.13.0\n")
    asked = []
    monkeypatch.setattr(build.Environment, "_install", lambda _, *words: asked.append(words))
    monkeypatch.setattr(build.venv, "create", lambda folder, **_: python_in(folder))
    monkeypatch.setattr(build, "find_cards", lambda: build.read_cards(*B200))

    build.Environment("one", "all").ensure("model")
    cuda = ["torch>=2,<3", "torch==2.13.0+cu130"], ["--extra-index-url", f"{build.TORCH_INDEX}cu130"]
    assert asked == [cuda]
    monkeypatch.setattr(build, "find_cards", lambda: pytest.fail("it looked again"))
    build.Environment("one", "all").ensure("model")
    assert asked == [cuda]

    build.Environment("one", "all").ensure("model", torch="cu126")  # which the index does not have
    assert asked == [cuda, (["torch>=2,<3"], [])]


# --- serving ---


SERVE = [sys.executable, str(ROOT / "build.py"), "serve", "--address", "tcp://127.0.0.1:0"]
IGNORING = ["sh", "-c", 'trap "" INT TERM; exec "$@"', "sh"]
"""Starts a command as a shell starts one in the background, where SIGINT and here SIGTERM too are ignored."""
AS_ON_WINDOWS = "import build, sys; build.CAN_EXEC = False; sys.argv[1:] = sys.argv[2:]; build.main()"


def kill(*processes: int) -> None:
    """Those that are still alive."""
    for process in filter(alive, processes):
        os.kill(process, signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    "command", [SERVE, [sys.executable, "-c", AS_ON_WINDOWS, *SERVE[1:]]], ids=["exec", "child"]
)
def test_a_server_ends_with_the_command_that_started_it(command, number):
    if not (build.BlenderEnvironment().folder / "setup.json").exists():
        pytest.skip("the environment was not made by build.py")
    family: list[int] = []
    with subprocess.Popen(IGNORING + command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        try:
            line = Output(started.stdout).line("listening on ")
            family = descendants(started.pid)
            with Client(line.split()[-1]) as client:
                client.send(request("job", "draft"))
                client.ending("job")
            assert len(family) > 1  # the worker, and as a child the server
            started.send_signal(number)
            for process in family:
                wait_for_end(process)
        finally:
            kill(started.pid, *family)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the processes from /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_whoever_renders_ends_with_the_command_that_started_them(number):
    if not (build.BlenderEnvironment().folder / "setup.json").exists():
        pytest.skip("the environment was not made by build.py")
    words = "synthesise --blender 1 400 --subjects snake --size 64 48 --renderer workbench --processes 2"
    as_installed = "import build; build.Environment.ensure = lambda self, *_: self; build.main()"
    command = [*IGNORING, sys.executable, "-c", as_installed, *words.split(), "--output", os.devnull]
    with subprocess.Popen(command, cwd=ROOT) as started:
        family, end = [], time.monotonic() + PATIENCE
        try:
            while len(family) < 4:  # build.py, who shares the seeds out, and two that render
                assert started.poll() is None and time.monotonic() < end
                family = descendants(started.pid)
                time.sleep(0.05)
            started.send_signal(number)
            for process in family:
                wait_for_end(process)
        finally:
            kill(started.pid, *family)


# --- the extension ---


def test_every_wheel_that_the_manifest_names_is_in_the_zip():
    manifest = tomllib.loads((ROOT / "blender_addon" / "blender_manifest.toml").read_text())
    packed = build.build_extension(build.BlenderEnvironment())
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
        assert {entry.removeprefix("./") for entry in manifest["wheels"]} <= names
        assert {"__init__.py", "LICENSE", "shared/wire.py"} <= names
        assert archive.testzip() is None
    assert not [
        name for name in names if "__pycache__" in name or name.startswith(("tests/", "inference_server/"))
    ]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """An extension repository as somebody would put it onto a web server."""
    return build.build_repository(build.BlenderEnvironment(), tmp_path_factory.mktemp("repository")).parent


def test_each_platform_has_a_zip_with_its_own_wheels(repository):
    manifest = build.read_manifest()
    packed = sorted(repository.glob("*.zip"))
    assert len(packed) == len(manifest["platforms"])
    wheels = {}
    for path in packed:
        with zipfile.ZipFile(path) as archive:
            within = tomllib.loads(archive.read("blender_manifest.toml").decode())
            names = {name for name in archive.namelist() if name.endswith(".whl")}
        generated = within["build"]["generated"]
        assert names == {entry.removeprefix("./") for entry in generated["wheels"]}
        (platform,) = generated["platforms"]
        wheels[platform] = names
    assert {len(names) for names in wheels.values()} == {5, 6}  # Python 3.14 is for builds on Linux alone
    assert all("win_amd64" in name or "py3-none-any" in name for name in wheels["windows-x64"])
    assert set.union(*wheels.values()) == {entry.removeprefix("./") for entry in manifest["wheels"]}


def test_blender_installs_from_the_repository(repository, tmp_path):
    listing = json.loads((repository / "index.json").read_text())["data"]
    assert {entry["website"] for entry in listing} == {build.read_manifest()["website"]}
    words = ["--remote-url", (repository / "index.json").as_uri(), "--local-dir", tmp_path]
    environment = build.BlenderEnvironment()
    build.blender_extension(environment, "sync", *words)
    version = f"{environment.blender}.0"
    build.blender_extension(
        environment, "install", *words, "--blender-version", version, "poseanything_bridge"
    )
    assert (tmp_path / "poseanything_bridge" / "blender_manifest.toml").exists()
