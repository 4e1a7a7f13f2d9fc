"""``rsa-detect config``: what a recipe resolves to, and where each value comes from."""

from detection.recipe import Recipe
from rsa_pretrain.command_line import Commands
from rsa_pretrain.config_command import add_config_command


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    add_config_command(
        commands, Recipe, "rsa-detect config mask_rcnn_R_50_FPN_1x solver.batch_size=8"
    )
