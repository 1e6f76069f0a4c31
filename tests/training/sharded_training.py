"""`train` with its model divided over processes without a card, as accelerate does it on cards alone.

python -m tests.training.sharded_training ACCELERATE.yaml WORDS OF THE COMMAND
"""

import os
import sys

from accelerate import PartialState
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env

from inference_server.cli import main


def run(config: str, words: list[str]) -> None:
    launched = launch_command_parser().parse_args(["--config_file", config, "-m", "inference_server"])
    settings = prepare_multi_gpu_env(_validate_launch_command(launched)[0])
    os.environ |= {name: value for name, value in settings.items() if "FSDP" in name}
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    assert main(words) == 0


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2:])
