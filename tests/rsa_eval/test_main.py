import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rsa_eval.__main__ import main
from rsa_eval.evaluators import EVALUATORS
from rsa_eval.records.record import read_record
from rsa_pretrain.plumbing.versions import VERSION

DIGITS = [
    "data.name=digits",
    "data.image_size=32",
    "data.num_train_images=60",
    "data.num_test_images=30",
    "data.num_workers=0",
    "device=cpu",
]


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """A function that runs a command that must fail, and returns its one line of error."""

    def run(*words: str | Path) -> str:
        assert main([str(word) for word in words]) == 2
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert captured.out == ""
        return lines[0]

    return run


def test_knn_of_a_run_folder(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images and place of the record come from the run; the result is a table and a path."""
    assert main(["knn", str(run_folder)]) == 0
    out = run_folder / "records" / "knn-weighted_vote-digits.json"
    record = read_record(out)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"record: {out}"
    assert any(line.split()[:2] == ["200", "0.1"] for line in lines)
    assert record.model.checkpoint == str(run_folder / "backbone.safetensors")
    assert record.num_samples == 30


def test_linear_with_config_and_overrides_anywhere(run_folder: Path, tmp_path: Path) -> None:
    """Settings may stand before, between and after the options."""
    out = tmp_path / "new/linear.json"
    words = ["probe.epochs=2", "--out", str(out), *DIGITS[2:4], str(run_folder)]
    words += ["--config", "linear/moco_v2", "probe.milestones=[]", "probe.mode=cached"]
    assert main(["linear", *words]) == 0
    record = read_record(out)
    assert record.kind == "linear"
    assert record.config["probe"]["epochs"] == 2
    assert record.config["probe"]["mode"] == "cached"


def test_random_init_in_place_of_a_checkpoint(tmp_path: Path) -> None:
    """The baseline needs an architecture, images and a place for the record."""
    out = tmp_path / "random.json"
    network = ["backbone.arch=resnet18", "backbone.stem=standard"]
    assert main(["knn", "--random-init", *network, *DIGITS, "--out", str(out), "seed=3"]) == 0
    record = read_record(out)
    assert record.model.checkpoint is None
    assert record.model.backbone.arch == "resnet18"
    assert not record.model.backbone.zero_init_residual
    assert record.seeds == [3]


@pytest.mark.parametrize("data", ["", "3"])
def test_data_that_is_no_section(error_of: Callable[..., str], tmp_path: Path, data: str) -> None:
    """Commands look for the images in a config before it is checked as a whole."""
    config = tmp_path / "my.yaml"
    config.write_text(f"data: {data}\n")
    error = error_of("config", "--evaluator", "knn", config)
    assert "'data': expected a section of settings" in error
    words = ["--random-init", "--config", config, "--out", tmp_path / "a.json"]
    assert "does not determine the images" in error_of("knn", *words, "backbone.arch=resnet18")


def test_missing_checkpoint(error_of: Callable[..., str], tmp_path: Path) -> None:
    """It is named before anything else is asked for."""
    assert "nothing' does not exist; expected a run folder" in error_of("knn", tmp_path / "nothing")


def test_neither_and_both(error_of: Callable[..., str], run_folder: Path) -> None:
    """Exactly one of CHECKPOINT and --random-init is wanted."""
    assert "expected one CHECKPOINT, or --random-init; found none" in error_of("knn", *DIGITS)
    assert "or a checkpoint, not both" in error_of("knn", run_folder, "--random-init")
    assert "expected one CHECKPOINT" in error_of("linear", run_folder, run_folder)


def test_truncated_checkpoint(
    error_of: Callable[..., str], run_folder: Path, tmp_path: Path
) -> None:
    """A file cut short is refused, and no record is left."""
    copy = tmp_path / "copy"
    shutil.copytree(run_folder, copy)
    file = copy / "backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    assert "is not a complete safetensors file" in error_of("knn", copy)
    assert not list((copy / "records").glob("*"))


def test_bare_file_says_what_is_missing(
    error_of: Callable[..., str], run_folder: Path, tmp_path: Path
) -> None:
    """Without a run folder the images and the record's place must be given."""
    file = tmp_path / "backbone.safetensors"
    shutil.copy(run_folder / "backbone.safetensors", file)
    assert "--config data/cifar10, or data.name" in error_of("knn", file)
    assert "give --out FILE.json" in error_of("knn", file, *DIGITS)
    assert "--config data/cifar10, or data.name" in error_of("knn", "--random-init")


def test_random_init_without_architecture(error_of: Callable[..., str], tmp_path: Path) -> None:
    """It says which settings name one."""
    message = error_of("knn", "--random-init", *DIGITS, "--out", tmp_path / "x.json")
    assert "set backbone.arch and backbone.stem" in message


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("batchsize=3", "unknown key 'batchsize'; the nearest valid key is 'batch_size'"),
        ("batch_size=many", "'batch_size'"),
        ("precision=fp16", "precision 'fp16' needs a GPU"),
        ("--fast", "unrecognised argument: --fast"),
        ("backbone.arch=resnet50", "'backbone.stem' is required"),
        ("data.num_test_images=9999", "asked for 9999 images of digits, which has 360"),
    ],
)
def test_unusable_words(
    error_of: Callable[..., str], run_folder: Path, word: str, message: str
) -> None:
    """A misspelt key, a wrong value or an unknown option is named."""
    assert message in error_of("knn", run_folder, "device=cpu", word)
    assert not list((run_folder / "records").glob("*"))


def test_unusable_outputs(error_of: Callable[..., str], run_folder: Path, tmp_path: Path) -> None:
    """A record that could not be written is refused before the work, not after it."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    assert "should end in .json" in error_of("knn", run_folder, "--out", tmp_path / "x.txt")
    assert "is a folder" in error_of("knn", run_folder, "--out", tmp_path / "folder.json")
    message = error_of("knn", run_folder, "--out", tmp_path / "file/x.json")
    assert "is not a writable folder" in message


def test_report_errors(error_of: Callable[..., str], tmp_path: Path) -> None:
    """Missing inputs and unwritable outputs are refused."""
    assert "nothing to report" in error_of("report", tmp_path, "--out", tmp_path / "r.html")
    assert "should end in .html" in error_of("report", tmp_path, "--out", tmp_path / "r.pdf")
    assert "--out" in error_of("report", tmp_path)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [name for name in EVALUATORS if name != "segmentation"])
def test_every_evaluator_runs_on_a_gpu(name: str, tmp_path: Path) -> None:
    """Each runs on CUDA from beginning to end, and its record has a headline."""
    out = tmp_path / "record.json"
    words = ["--random-init", "backbone.arch=resnet18", "backbone.stem=standard", "device=cuda"]
    assert main([name, *words, "--config", "data/digits", "--out", str(out)]) == 0
    record = read_record(out)
    assert record.config["device"] == "cuda"
    assert record.headline in record.metrics


def test_out_replaces_only_records_of_its_evaluator(
    error_of: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another file, and another evaluator's record, stay; another model's is named."""
    words = [*DIGITS, "backbone.arch=resnet18", "backbone.stem=cifar", "--random-init"]
    out = tmp_path / "package.json"
    for content in ('{"name": "pk"}', "no JSON"):
        out.write_text(content)
        error = error_of("knn", *words, "--out", out)
        assert "--out would replace a file that is no record" in error
        assert "name another file, or delete it first" in error
        assert out.read_text() == content
    out.unlink()
    assert main(["knn", *words, "--out", str(out)]) == 0
    assert "replaced" not in capsys.readouterr().out
    first = out.read_text()
    error = error_of("logistic", *words, "--out", out)
    assert f"--out '{out}' is a record of knn, not of logistic" in error
    assert out.read_text() == first
    assert main(["knn", *words, "--out", str(out)]) == 0
    assert "replaced" not in capsys.readouterr().out
    assert main(["knn", *words, "backbone.arch=resnet34", "--out", str(out)]) == 0
    assert "replaced: the record of random weights, seed 0 on digits" in capsys.readouterr().out


def test_a_crop_that_shows_little_of_the_images_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """image_size lowered beside a config that sets eval_resize: the record says so."""
    words = [*DIGITS, "backbone.arch=resnet18", "backbone.stem=cifar", "--random-init"]
    out = tmp_path / "knn.json"
    for resize, is_doubted in ((256, True), (40, False), ("null", False)):
        assert main(["knn", *words, f"data.eval_resize={resize}", "--out", str(out)]) == 0
        found = read_record(out).warnings
        assert (len(found) == 1) == is_doubted
        if is_doubted:
            text = "the central 32 x 32 pixels of images whose short side is resized to 256, 2 %"
            assert text in found[0]
            assert f"warning: {found[0]}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["knn", "timn:resnet18@w.pt"], "the nearest is 'timm:resnet18@w.pt'"),
        (["knn", "HF:folder"], "the nearest is 'hf:folder'"),
        (["transfer", "--sets", "a b", "own_sets.a b.name=imagefolder"], "the key of a setting"),
        (["suite", "--suite", "digits", "absent.pt"], "checkpoint 'absent.pt' does not exist"),
        (
            ["label-curve", "absent.pt", "--labels", "5,5"],
            "numbers of labels, found '5,5'",
        ),
        (["transfer", "--featurs", "a"], "unrecognised argument: --featurs (see rsa-eval transf"),
        *(
            ([name, "--features", "a", "b"], "--features is an option of knn, linear, logistic, ")
            for name in ("transfer", "label-curve", "features", "suite", "finetune")
        ),
    ],
)
def test_mistakes_on_the_command_line(
    error_of: Callable[..., str], words: list[str], message: str
) -> None:
    """Each is one line that says what was probably meant."""
    assert message in error_of(*words)


def test_a_folder_of_transformers(error_of: Callable[..., str], tmp_path: Path) -> None:
    """Without its prefix it is recognised by its files."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert error_of("knn", tmp_path).endswith(f"; write hf:{tmp_path}")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """As records state it."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rsa-eval {VERSION}\n"
