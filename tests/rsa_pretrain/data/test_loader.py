"""Loader processes that cannot send their batches."""

import multiprocessing
import tempfile

import pytest
import torch
from torch.utils.data import Dataset

from rsa_pretrain.data.loader import iterate, make_loader
from rsa_pretrain.plumbing.errors import UserError


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
