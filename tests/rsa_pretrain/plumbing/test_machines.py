import pytest
import torch

from rsa_pretrain.plumbing import machines
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.machines import MACHINES_FILE, note_machine, read_machines

CPU = torch.device("cpu")


def test_a_resumed_run_lists_each_change_of_machine(tmp_path, monkeypatch):
    """The same machine again adds nothing; another one, and the first one after it, do."""
    for hardware in ("A", "A", "B", "A"):
        monkeypatch.setattr(machines, "describe_hardware", lambda device, name=hardware: name)
        note_machine(tmp_path, CPU)
    assert [machine.hardware for machine in read_machines(tmp_path)] == ["A", "B", "A"]
    assert {machine.num_processes for machine in read_machines(tmp_path)} == {1}


def test_an_older_run_tells_of_no_machine(tmp_path):
    """Runs from before this file are not guessed at."""
    assert read_machines(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{}", '[{"hardware": 1}]', "[" * 10_000])
def test_a_damaged_list_is_refused(tmp_path, text):
    """A file that is not a list of machines is named."""
    (tmp_path / MACHINES_FILE).write_text(text)
    with pytest.raises(UserError, match=r"machines\.json' is damaged, .*; restore or delete it$"):
        read_machines(tmp_path)
