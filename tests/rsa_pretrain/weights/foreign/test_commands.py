import pytest
import torch

from detection.job.trunk import load_trunk
from detection.recipe.architecture import ModelConfig
from rsa_eval.evaluators.knn.settings import KNNConfig
from rsa_eval.features.subject import load_subject
from rsa_eval.records.of_weights import read_records
from rsa_pretrain.commands import export, import_checkpoint, inspect_file
from rsa_pretrain.plumbing.command_line import Parser, run_command
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.weights.checkpoint import load_backbone

DIGITS = {"data": {"name": "digits", "image_size": 16}}


@pytest.fixture
def command():
    """Run a command line of the three commands, and return its exit code."""
    converted = []

    def run(*words):
        def dispatch():
            parser = Parser(prog="rsa-pretrain")
            commands = parser.add_subparsers(required=True)
            import_checkpoint.add(commands)
            inspect_file.add(commands)
            export.add(commands, lambda *paths: converted.append(paths), read_records)
            arguments = parser.parse_args([str(word) for word in words])
            return arguments.command(arguments)

        return run_command(dispatch)

    run.converted = converted
    return run


@pytest.fixture(scope="module")
def moco_file(example, tmp_path_factory):
    """A MoCo checkpoint."""
    path = tmp_path_factory.mktemp("moco") / "moco.pth.tar"
    example("moco").write(path)
    return path


def test_import_says_what_it_did(command, moco_file, tmp_path, capsys):
    """Layout, certainty, network, drops and statistics are printed; the exit code is 0."""
    out = tmp_path / "moco.safetensors"
    assert command("import", moco_file, out, "--data-set", "ImageNet-1K") == 0
    printed = capsys.readouterr().out
    assert (
        "layout    moco, unambiguous: it holds 'state_dict/module.encoder_q.conv1.weight'"
        in printed
    )
    assert "network   query, under 'state_dict/module.encoder_q.'" in printed
    assert "dropped   120 x key network" in printed
    assert out.is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--network", "teacher"], "moco has no network 'teacher'"),
        (
            ["--layout", "simsiam"],
            "no tensor is called state_dict/encoder.conv1.weight (wrappers aside)",
        ),
        (["--mean", "0,0,0"], "give both --mean and --std"),
        (["--mean", "0,0", "--std", "1,1,1"], "expected three numbers such as"),
        (["--mean", "0,0,0", "--std", "1,0,1"], "--std must be positive"),
    ],
)
def test_import_refuses_with_one_line(command, moco_file, tmp_path, capsys, words, message):
    """A mistake is one error line and exit code 2, and nothing is written."""
    assert command("import", moco_file, tmp_path / "x.safetensors", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_import_takes_the_network_under_a_prefix(command, network, tmp_path, capsys):
    """Several networks are an error that lists them; --prefix chooses, and all is reported."""
    state = {f"module.a.{name}": part for name, part in network(1).items()}
    state |= {f"module.b.{name}": part.half() for name, part in network(2).items()}
    torch.save({"state_dict": state, "head.weight": torch.ones(3, 3)}, tmp_path / "x.pth")
    out = tmp_path / "x.safetensors"
    assert command("import", tmp_path / "x.pth", out) == 2
    error = capsys.readouterr().err
    assert "has 2 networks, under 'state_dict/module.a.', 'state_dict/module.b.'" in error
    assert error.count("\n") == 1
    assert not out.exists()
    assert command("import", tmp_path / "x.pth", out, "--prefix", "state_dict/module.b.") == 0
    printed = capsys.readouterr().out
    for line in (
        "layout    torchvision, its prefix is stated",
        "network   model, under 'state_dict/module.b.'",
        "unwrapped module",
        "dropped   120 x 'state_dict/module.a'",
        "dropped   1 x 'head'",
        "converted 120 float16 tensors to the network's float32 and int64",
        "(ImageNet's: the file does not identify its project)",
    ):
        assert line in printed
    assert torch.equal(
        load_backbone(out).backbone.state_dict()["bn1.bias"], network(2)["bn1.bias"].half().float()
    )
    assert command("inspect", tmp_path / "x.pth") == 0
    assert "has 2 networks" in capsys.readouterr().out


def test_import_refuses_its_own_files_and_names(command, moco_file, own_backbone, tmp_path, capsys):
    """This toolkit's files need no import, and the file to write has its suffix."""
    assert command("import", own_backbone().path, tmp_path / "x.safetensors") == 2
    assert "is already in this toolkit's format" in capsys.readouterr().err
    assert command("import", moco_file, tmp_path / "x.pth") == 2
    assert "should end in .safetensors" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["", "__0_0.distcp", ".metadata"])
def test_a_distributed_checkpoint_is_to_be_joined_first(command, tmp_path, capsys, part):
    """The command that joins the parts is given, also if only one of them is named."""
    folder = tmp_path / "step"
    folder.mkdir()
    for name in ("__0_0.distcp", ".metadata"):
        (folder / name).write_bytes(b"\x80\x02}.")
    named = folder / part
    for words in (["import", named, tmp_path / "x.safetensors"], ["inspect", named]):
        assert command(*words) == 2
        said = capsys.readouterr().err
        assert f"'{folder}' is a checkpoint of torch.distributed in parts" in said
        assert f"dcp_to_torch '{folder}' checkpoint.pth" in said


def test_import_does_not_take_any_folder_for_its_own(command, tmp_path, capsys):
    """A folder without this toolkit's weights is not said to be in its format."""
    assert command("import", tmp_path, tmp_path / "x.safetensors") == 2
    assert "contains neither backbone.safetensors nor" in capsys.readouterr().err


def test_inspect_shows_what_a_file_holds(command, moco_file, own_backbone, capsys):
    """Layout, networks, groups, statistics and values of a foreign file; metadata of our own."""
    assert command("inspect", moco_file) == 0
    printed = capsys.readouterr().out
    for part in (
        "written   torch.save, ",
        "layout    moco (MoCo v1 and v2)",
        "network   query, under 'state_dict/module.encoder_q.', taken by default: resnet18",
        "network   key, under 'state_dict/module.encoder_k.': resnet18, standard stem, 120 tensors",
        "dropped   3 x projection head",
        "finite    every value",
        "value     epoch: 200",
    ):
        assert part in printed
    assert command("inspect", own_backbone().path, "--tensors") == 0
    printed = capsys.readouterr().out
    assert "layout    this toolkit's" in printed
    assert "  layer4.1.bn2.running_var  " in printed


def test_inspect_shows_damage_and_unknown_files(command, tmp_path, capsys):
    """NaNs are counted where they are, and a file of no layout is described all the same."""
    values = torch.tensor([1.0, float("nan"), 3.0, float("inf")])
    torch.save({"decoder.weight": values, "steps": 5}, tmp_path / "x.pth")
    assert command("inspect", tmp_path / "x.pth") == 0
    printed = capsys.readouterr().out
    assert "layout    none: " in printed
    assert "NaN/Inf   2 values in 'decoder.weight'" in printed
    assert "1 to 3, 2 ± 1" in printed
    assert "value     steps: 5" in printed
    assert command("inspect", tmp_path) == 2
    assert "contains neither backbone.safetensors nor" in capsys.readouterr().err


def test_export_writes_and_says_how_to_load(command, moco_file, tmp_path, capsys):
    """A foreign file goes straight to another tool; detectron2 is handed on."""
    out = tmp_path / "x.pth"
    assert command("export", moco_file, out, "--to", "torchvision") == 0
    printed = capsys.readouterr().out
    assert "proof     imported again, it equals the backbone bitwise" in printed
    assert "torchvision.models.resnet18()" in printed
    assert command("export", moco_file, tmp_path / "x.pkl", "--to", "detectron2") == 0
    assert command.converted == [(moco_file, tmp_path / "x.pkl")]


def test_a_rivals_file_is_evaluated_directly(example, moco_file, tmp_path):
    """rsa-eval loads it in memory, and the record's model states layout, network and hash."""
    config = parse_tree(KNNConfig, DIGITS, "test")
    subject = load_subject(moco_file, config)
    made = example("moco")
    assert torch.equal(subject.backbone.state_dict()["bn1.bias"], made.wanted["bn1.bias"])
    assert subject.mean == (0.485, 0.456, 0.406)
    assert subject.model.metadata.origin.layout == "moco"
    assert subject.model.metadata.origin.network == "query"
    assert subject.model.sha256 == subject.model.metadata.parent


def test_a_detector_starts_from_a_rivals_file(moco_file):
    """rsa-detect takes it too, with its statistics and its layout in the record's model."""
    trunk = load_trunk(moco_file, ModelConfig())
    assert trunk.backbone.arch == "resnet18"
    assert trunk.std == (0.229, 0.224, 0.225)
    assert trunk.subject.metadata.origin.layout == "moco"


def test_damage_leaves_no_file(command, moco_file, tmp_path, capsys):
    """A checkpoint cut short, or changed in one byte, is one error line and no output."""
    data = moco_file.read_bytes()
    middle = len(data) // 2
    for damaged in (data[:middle], data[:middle] + b"~" + data[middle + 1 :]):
        (tmp_path / "damaged.pth").write_bytes(damaged)
        assert command("import", tmp_path / "damaged.pth", tmp_path / "x.safetensors") == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["damaged.pth"]


def test_statistics_a_file_does_not_tell_are_the_data_sets(example, tmp_path):
    """RSA's small networks are judged with the evaluation's statistics, and the record says so."""
    path = tmp_path / "rsa.pth"
    example("rsa_release", stem="cifar").write(path)
    config = parse_tree(
        KNNConfig, {"data": DIGITS["data"] | {"mean": (0.1, 0.2, 0.3), "std": (1, 1, 1)}}, "test"
    )
    subject = load_subject(path, config)
    assert subject.mean == (0.1, 0.2, 0.3)
    assert subject.model.metadata.origin.pixels == "the evaluation's data set's"
