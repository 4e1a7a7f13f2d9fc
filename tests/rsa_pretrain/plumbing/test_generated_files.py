from pathlib import Path

import pytest

import rsa_eval.__main__
import rsa_pretrain.__main__
from detection.__main__ import main
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.plumbing.generated_files import check_generated, check_json


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """A file that begins differently stays; a generated or missing one may be written."""
    file = tmp_path / "keys.yaml"
    check_generated(file, "# ours\nmore\n")
    file.write_text("# ours\nkey: 1\n")
    check_generated(file, "# ours\nmore\n")
    file.write_text("name: a recipe\n")
    with pytest.raises(UserError, match="exists and was not written by this command"):
        check_generated(file, "# ours\nmore\n")


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "{}", '{"name": "pk"}', '{"findings": 1, "name": "pk"}', "\0"]
)
def test_json_of_others_is_refused(tmp_path: Path, content: str) -> None:
    """A generated file has none but known keys; a missing one may be written."""
    file = tmp_path / "found.json"
    check_json(file, ["findings", "more"])
    file.write_text('{"findings": []}')
    check_json(file, ["findings", "more"])
    file.write_text(content)
    with pytest.raises(UserError, match="exists and was not written by this command"):
        check_json(file, ["findings", "more"])


@pytest.mark.parametrize(
    "content", ['{"train": [1, 2], "test": [3]}', '{"train": {"errors": []}, "test": {"a": 1}}']
)
def test_sections_of_others_are_refused(tmp_path: Path, content: str) -> None:
    """A list of splits has the keys of a report on splits, but not the keys below them."""
    file = tmp_path / "splits.json"
    file.write_text('{"train": {"errors": [], "notes": []}}')
    check_json(file, ["train", "test"], inner="errors")
    file.write_text(content)
    with pytest.raises(UserError, match="exists and was not written by this command"):
        check_json(file, ["train", "test"], inner="errors")


@pytest.mark.parametrize("split", ["train", "test"])
def test_data_check_keeps_lists_of_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    """Neither program takes them for findings; its own are replaced."""
    file = tmp_path / "splits.json"
    for run, config in ((rsa_pretrain.__main__.main, "digits/rsa"), (main, "toy_shapes")):
        file.write_text(f'{{"{split}": ["a.jpg"]}}')
        assert run(["data-check", config, "--out", str(file)]) == 2
        assert "splits.json' exists and was not written by" in capsys.readouterr().err
    file.unlink()
    for _ in range(2):
        words = ["data-check", "digits/rsa", "--split", "test", "--out", str(file)]
        assert rsa_pretrain.__main__.main(words) == 0


def test_commands_keep_the_json_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In all three programs, before any work."""
    file = tmp_path / "package.json"
    file.write_text('{"name": "pk"}')
    for run, *words in (
        (rsa_pretrain.__main__.main, "data-check", "digits/rsa", "--out"),
        (main, "data-check", "toy_shapes", "--out"),
        (rsa_eval.__main__.main, "compare", "a", "b", "--json"),
        (rsa_eval.__main__.main, "audit", "a", "--json"),
    ):
        assert run([*words, str(file)]) == 2
        assert "package.json' exists and was not written by" in capsys.readouterr().err
        assert file.read_text() == '{"name": "pk"}'


def test_an_export_does_not_replace_its_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe given as the file to write is named, and kept."""
    recipe = Path(__file__).parents[3] / "configs" / "detection" / "toy_shapes.yaml"
    copy = tmp_path / "toy.yaml"
    copy.write_text(recipe.read_text())
    assert main(["export-config", str(copy), str(copy)]) == 2
    assert "exists and was not written by this command" in capsys.readouterr().err
    assert copy.read_text() == recipe.read_text()


@pytest.mark.parametrize("option", [["--num-machines", "4"], ["--machine-rank", "1"]])
def test_options_of_a_launch_need_its_processes(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """They are never silently ignored."""
    recipe = Path(__file__).parents[3] / "configs" / "detection" / "toy_shapes.yaml"
    assert main(["train", str(recipe), "--random-init", *option]) == 2
    assert f"{option[0]} needs --num-gpus" in capsys.readouterr().err
