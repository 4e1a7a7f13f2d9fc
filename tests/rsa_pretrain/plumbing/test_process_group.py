"""Errors of a group of processes that has lost one."""

import pytest
import torch
import torch.distributed as dist

from rsa_pretrain.plumbing.distributed import process_group
from rsa_pretrain.plumbing.errors import UserError


@pytest.fixture
def pretended_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that another process has been joined."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda _: None)


@pytest.mark.usefixtures("pretended_pair")
@pytest.mark.parametrize(
    "error",
    [
        dist.DistNetworkError("Failed to recv, got 0 bytes. Did the remote server shutdown?"),
        dist.DistStoreError("wait timeout after 300000ms, keys: /default_pg/0//1"),
        RuntimeError("[../gloo/transport/tcp/pair.cc] Connection closed by peer"),
    ],
)
def test_a_lost_process_is_one_error(error: RuntimeError) -> None:
    """Found by a backend or by the store of torch."""
    with (
        pytest.raises(UserError, match="lost contact with another process"),
        process_group(torch.device("cpu")),
    ):
        raise error


@pytest.mark.usefixtures("pretended_pair")
def test_another_error_is_left_as_it_is() -> None:
    """Such as one of shapes."""
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2 shapes"),
        process_group(torch.device("cpu")),
    ):
        torch.ones(2, 3) @ torch.ones(2, 3)
