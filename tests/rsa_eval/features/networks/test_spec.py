from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.commands.subjects import split_checkpoints, the_checkpoint
from rsa_eval.features.networks.spec import NetworkSpec, checkpoint_of
from rsa_pretrain.plumbing.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm:vit.a_b-1@/a b/x=1/@.pth", NetworkSpec("timm", "vit.a_b-1", Path("/a b/x=1/@.pth"))),
        ("timm:vit", NetworkSpec("timm", "vit")),
        ("timm:vit@pretrained", NetworkSpec("timm", "vit", download="pretrained")),
        ("timm:vit@./pretrained", NetworkSpec("timm", "vit", Path("pretrained"))),
        ("torchvision:vgg11@DEFAULT", NetworkSpec("torchvision", "vgg11", download="DEFAULT")),
        ("torchvision:vgg11@w.pth", NetworkSpec("torchvision", "vgg11", Path("w.pth"))),
        ("hf:some folder/a=b", NetworkSpec("hf", "some folder/a=b")),
        ("python:my.module:make", NetworkSpec("python", "my.module:make")),
        ("./timm:vit", Path("timm:vit")),
        ("runs/x", Path("runs/x")),
    ],
)
def test_words_are_checkpoints(text: str, expected: Path | NetworkSpec) -> None:
    """Networks and paths, with spaces and equals signs; none is taken for an override."""
    assert split_checkpoints([text, "data.name=digits"]) == ([expected], ["data.name=digits"])


@pytest.mark.parametrize("text", ["timm:vit@w.pth", "torchvision:vgg11@DEFAULT", "python:a.b:c"])
def test_a_spec_is_written_as_given(text: str) -> None:
    """Its text is that of the command line, for records."""
    assert str(checkpoint_of(text)) == text


def test_names_in_records(tmp_path: Path) -> None:
    """Without weights; a folder's name alone; home folders are expanded."""
    assert [NetworkSpec("timm", "vit", Path("w.pth")).network] == ["timm:vit"]
    assert checkpoint_of(f"hf:{tmp_path}/").network == f"hf:{tmp_path.name}"
    assert checkpoint_of("timm:vit@~/w.pth").file == Path.home() / "w.pth"


@pytest.mark.parametrize(
    "text",
    [
        *("timm:", "timm:a/b@x", "timm:hf-hub:a/b", "timm:vit@", "torchvision:", "hf:"),
        *("python:a", "python:a:b:c", "python:a.:b", "python:a:b()"),
    ],
)
def test_other_forms_are_refused(text: str) -> None:
    """With the form that was expected."""
    with pytest.raises(UserError, match="is not of the form"):
        checkpoint_of(text)


def test_weights_are_chosen_not_drawn() -> None:
    """A network without weights is random only if asked for; the error lists the choices."""
    bare = NetworkSpec("timm", "vit")
    with pytest.raises(UserError, match=r"add @FILE .* @pretrained to download .* --random-init"):
        the_checkpoint([bare], random_init=False)
    assert the_checkpoint([bare], random_init=True) == NetworkSpec("timm", "vit", is_random=True)
    with pytest.raises(UserError, match="@DEFAULT to download"):
        the_checkpoint([NetworkSpec("torchvision", "vgg11")], random_init=False)
    for text in ("timm:vit@pretrained", "hf:folder", "python:a:b", "runs/x"):
        with pytest.raises(UserError, match="give --random-init or a checkpoint, not both"):
            the_checkpoint([checkpoint_of(text)], random_init=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timm:vit@absent.pth", "'absent.pth' does not exist; expected the weights of timm:vit"),
        ("hf:absent", "'absent' is not a folder; expected one with config.json"),
        ("absent", "checkpoint 'absent' does not exist"),
    ],
)
def test_absent_files_are_one_line(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any library is imported."""
    assert main(["knn", text, "--config", "data/digits"]) == 2
    assert f"error: {message}" in capsys.readouterr().err


def test_a_record_outside_a_run_needs_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As for any file outside a run folder."""
    (tmp_path / "w.pth").touch()
    assert main(["knn", f"timm:vit@{tmp_path}/w.pth", "--config", "data/digits"]) == 2
    assert "no run folder to write the record to; give --out FILE.json" in capsys.readouterr().err
    assert main(["knn", f"timm:vit@{tmp_path}/w.pth"]) == 2
    assert "outside a run folder, does not determine the images" in capsys.readouterr().err
