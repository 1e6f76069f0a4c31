"""One of several processes that train a model: whole in each, and then divided over them without a card, as
accelerate does it on cards alone, which goes on once more from the checkpoint before its last.

python -m tests.training.sharded_training PORT,PORT ACCELERATE.yaml COMMAND... -- DIVIDED COMMAND...

The divided runs' processes find each other at the two ports.
"""

import os
import shutil
import sys
from pathlib import Path

from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from inference_server.cli import main


def run(ports: list[str], config: str, whole: list[str], divided: list[str]) -> None:
    assert main(whole) == 0
    launched = launch_command_parser().parse_args(["--config_file", config, "-m", "inference_server"])
    settings = prepare_multi_gpu_env(_validate_launch_command(launched)[0])
    os.environ |= {name: value for name, value in settings.items() if "FSDP" in name}
    divide(ports[0])
    assert main(divided) == 0
    state = divide(ports[1])
    if state.is_main_process:
        set_back(Path(divided[divided.index("--output") + 1]))
    state.wait_for_everyone()
    assert main(divided) == 0


def divide(port: str) -> PartialState:
    """Have the next run divide its model, in a new group of processes: a run that ends leaves its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["MASTER_PORT"] = port
    state = PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return state


def set_back(output: Path) -> None:
    """As if the run had been killed before its last checkpoint; its result is kept in `first`."""
    shutil.rmtree(max((output / "checkpoints").glob("step-*")))
    (output / "first").mkdir()
    shutil.move(output / "transformer", output / "first")


if __name__ == "__main__":
    ports, config, *words = sys.argv[1:]
    middle = words.index("--")
    run(ports.split(","), config, words[:middle], words[middle + 1 :])
