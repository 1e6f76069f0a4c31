"""`train` with its model divided over processes without a card, as accelerate does it on cards alone; then
the same again from the last checkpoint but one.

    python -m tests.training.sharded_training ACCELERATE.yaml WORDS OF THE COMMAND
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


def run(config: str, words: list[str]) -> None:
    launched = launch_command_parser().parse_args(["--config_file", config, "-m", "inference_server"])
    settings = prepare_multi_gpu_env(_validate_launch_command(launched)[0])
    os.environ |= {name: value for name, value in settings.items() if "FSDP" in name}
    output = Path(words[words.index("--output") + 1])
    for name in ("whole", "resumed"):
        state = PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        if state.is_main_process and name == "resumed":
            shutil.rmtree(max((output / "checkpoints").glob("step-*")))
        state.wait_for_everyone()
        assert main(words) == 0
        if state.is_main_process:
            (output / "transformer").rename(output / name)
        AcceleratorState._reset_state(reset_partial_state=True)


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
