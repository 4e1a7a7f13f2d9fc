"""``rsa-pretrain config``: what a config resolves to, and where each value comes from."""

from rsa_pretrain.command_line import Commands
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.config_command import add_config_command


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    add_config_command(
        commands, PretrainConfig, "rsa-pretrain config cifar10/rsa training.epochs=800"
    )
