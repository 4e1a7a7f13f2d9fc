"""Loader processes that cannot send their batches, and signals to them."""

import multiprocessing
import os
import signal
import tempfile
import time

import pytest
import torch
from torch.utils.data import Dataset

from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.loader_processes import prepare_loader_process


class _Numbers(Dataset):
    def __getitem__(self, key):
        return torch.tensor(key)


@pytest.mark.process
def test_a_batch_that_cannot_be_sent_is_not_waited_for(tmp_path, monkeypatch, capfd):
    """Batches go through a socket in TMPDIR, whose path may be too long for one."""
    folder = tmp_path / ("x" * 110)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.delitem(multiprocessing.current_process()._config, "tempdir", raising=False)
    loader = make_loader(_Numbers(), [[0], [1]], 1, torch.device("cpu"))
    with pytest.raises(UserError, match="a loader process ended"):
        list(iterate(loader))
    assert "cannot send a batch: AF_UNIX path too long (TMPDIR may" in capfd.readouterr().err


class _Texts(Dataset):
    """Texts that fill the pipe they are sent through."""

    def __getitem__(self, key):
        return "x" * 1_000_000


def _signal_until_gone(group: int, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.killpg(group, 0)
        time.sleep(0.1)


@pytest.mark.process
def test_none_outlives_a_killed_main_process():
    """Also while it waits to send what nobody reads."""
    read_end, write_end = os.pipe()
    if (process := os.fork()) == 0:
        os.setsid()
        loader = make_loader(_Texts(), [[number] for number in range(9)], 2, torch.device("cpu"))
        next(iter(loader))
        os.write(write_end, b"x")
        signal.pause()
    os.close(write_end)
    os.read(read_end, 1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with pytest.raises(ProcessLookupError, match="No such process"):
        _signal_until_gone(process, 60)


def _signalled_at_its_start(worker):
    os.kill(os.getpid(), signal.SIGTERM)
    prepare_loader_process(worker)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.process
def test_a_signal_to_all_processes_does_not_end_one_that_starts():
    """Neither before it ignores the signal nor afterwards."""
    loader = make_loader(_Numbers(), [[0], [1]], 1, torch.device("cpu"))
    loader.worker_init_fn = _signalled_at_its_start
    assert [batch.tolist() for batch in iterate(loader)] == [[0], [1]]
