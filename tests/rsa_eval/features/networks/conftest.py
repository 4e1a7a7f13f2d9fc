"""Tiny networks of other libraries, and functions written to files."""

import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_pretrain.plumbing.config.files import parse_tree, to_tree

PLAIN = """
import torch
from torch import nn

from rsa_eval import Preprocessing

INPUT = Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


class Colours(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3))


def make():
    return Colours(), INPUT
"""


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that looks up or calls another machine: nothing is downloaded unasked."""
    called: list[object] = []

    def refuse(*arguments: object, **options: object) -> None:
        called.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert called == []


@pytest.fixture
def settings(knn_config: KNNConfig) -> Callable[..., KNNConfig]:
    """A function that changes settings of an evaluation of a few digits."""

    def changed(**changes: Any) -> KNNConfig:
        return parse_tree(KNNConfig, to_tree(knn_config) | changes, "test")

    return changed


@pytest.fixture
def write_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Path]]:
    """A function that writes a module ``mine`` into the current folder, which is a new one."""
    monkeypatch.chdir(tmp_path)
    paths = list(sys.path)

    def write(code: str) -> Path:
        sys.modules.pop("mine", None)
        path = tmp_path / "mine.py"
        path.write_text(PLAIN + code)
        return path

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield write
    sys.modules.pop("mine", None)
    sys.path[:] = paths
