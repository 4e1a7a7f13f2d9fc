from collections.abc import Callable
from pathlib import Path

import pytest

from detection.__main__ import main
from detection.recipe.recipe import Recipe
from rsa_pretrain.plumbing.config.files import write_config
from rsa_pretrain.weights.checkpoint import LoadedBackbone

WriteCheckpoint = Callable[..., LoadedBackbone]
MakeRecipe = Callable[..., Recipe]


def _error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail as a user's mistake; return its one error line."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in captured.err
    return line


@pytest.fixture
def config(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """The small recipe as a file."""
    path = tmp_path / "recipe.yaml"
    write_config(make_recipe(), path)
    return path


def test_convert_prints_what_it_proved(
    write_checkpoint: WriteCheckpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts, the proof's result and the YAML keys reach the user."""
    out = tmp_path / "weights" / "r18.pkl"
    assert main(["convert", str(write_checkpoint().path), str(out)]) == 0
    text = capsys.readouterr().out
    for expected in (
        "used 100 tensors",
        "dropped 20 tensors: num_batches_tracked",
        "listed from resnet18's architecture",
        "the written file, read back, equals the input bitwise",
        "STRIDE_IN_1X1: false",
        "RES2_OUT_CHANNELS: 64",
        "FORMAT: RGB",
    ):
        assert expected in text
    assert sorted(path.name for path in out.parent.iterdir()) == ["r18.pkl", "r18.yaml"]


def test_toy_then_train(
    config: Path, make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands of the README work one after the other, overrides after options included."""
    data = tmp_path / "data"
    options = ["--num-train", "2", "--num-test", "1", "--image-size", "48", "--seed", "4"]
    assert main(["toy", str(data), *options]) == 0
    overrides = [
        f"data.train_annotations={data}/annotations/instances_train.json",
        f"data.train_images={data}/train",
        f"data.test_annotations={data}/annotations/instances_val.json",
        f"data.test_images={data}/val",
        "solver.iterations=1",
        "solver.decay_at=[]",
        "solver.warmup_iterations=0",
    ]
    assert main(["train", str(config), "--random-init", *overrides]) == 0
    text = capsys.readouterr().out
    assert "bbox  AP " in text
    assert "segm  AP " in text
    assert (make_recipe().output_dir / "records" / "detection.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frobnicate"], "unknown command 'frobnicate'; expected one of import-annotations, init"),
        (
            ["convert", "absent", "out.pkl"],
            "checkpoint 'absent' does not exist; expected a run folder",
        ),
        (["toy"], "required: OUT"),
        (["toy", "out", "--num-train", "many"], "invalid int value: 'many'"),
        (["train", "absent.yaml", "--random-init"], "cannot read config 'absent.yaml'"),
        (["train", "absent.yaml"], "one of the arguments --checkpoint --random-init is required"),
        (["train", "a.yaml", "--random-init", "--checkpoint", "b"], "not allowed with"),
        (["evaluate", "absent.json", "absent.json"], "cannot read annotations 'absent.json'"),
        (["evaluate", "absent.json"], "required: PREDICTIONS.json"),
        (["visualize", "absent.json", "out.html"], "is not a run folder; give --annotations"),
        (["visualize", ".", "out.html"], "is not a finished run: it has no predictions.json"),
        (["visualize", ".", "out.html", "--min-score", "2"], "a number from 0 to 1, found '2'"),
        (["visualize", ".", "out.html", "--min-score", "nan"], "found 'nan'"),
        (["data-check", "absent.yaml"], "cannot read config 'absent.yaml'"),
        (["data-check", "absent.json", "--images", "."], "cannot read annotations 'absent.json'"),
        (["data-check", "set.json", "--images", ".", "seed=1"], "'seed=1' needs a config"),
        (["data-check", "set.json", "--limit", "0"], "expected a whole number above 0"),
        (["data-check", "set.json", "--role", "both"], "invalid choice: 'both'"),
    ],
)
def test_command_line_mistakes(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is one error line and exit code 2, and leaves no file behind."""
    monkeypatch.chdir(tmp_path)
    assert message in _error_of(arguments, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("solver.base_rl=1", "the nearest valid key is 'solver.base_lr'"),
        ("training.precision=fp16", "precision 'fp16' needs a GPU"),
        ("data.train_annotations=absent.json", "cannot read annotations 'absent.json'"),
        ("data.train_images=absent", "6 of 6 images of"),
        (
            "model.arch=resnet34",
            "model.arch is resnet34; set model.arch=resnet18 or null, or",
        ),
        ("nonsense", "is not of the form section.key=value"),
        ("--num-gpus=2", "start engine torchvision with torchrun"),
    ],
)
def test_train_mistakes(
    config: Path,
    write_checkpoint: WriteCheckpoint,
    make_recipe: MakeRecipe,
    override: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong settings are refused before the run folder exists."""
    checkpoint = str(write_checkpoint().path)
    found = _error_of(["train", str(config), "--checkpoint", checkpoint, override], capsys)
    assert message in found
    assert not make_recipe().output_dir.exists()


@pytest.mark.parametrize("words", [("convert",), ("convert", "--model"), ("data-check", "--out")])
def test_the_input_is_not_overwritten(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An output by the input's name, here through a folder, is refused before any work."""
    file = tmp_path / "input.pth"
    file.write_bytes(b"all there is")
    again = tmp_path / "folder" / ".." / "input.pth"
    (tmp_path / "folder").mkdir()
    found = _error_of([*words[:1], str(file), *words[1:], str(again)], capsys)
    assert found == f"error: '{again}' is the input file; write to another"
    assert file.read_bytes() == b"all there is"


def test_convert_refuses_what_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A foreign file is refused by name, and OUT is not written."""
    foreign = tmp_path / "foreign.pt"
    foreign.write_bytes(b"not safetensors")
    found = _error_of(["convert", str(foreign), str(tmp_path / "out.pkl")], capsys)
    assert "is not a checkpoint" in found
    assert list(tmp_path.iterdir()) == [foreign]
