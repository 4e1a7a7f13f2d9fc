import io
import json
import tarfile

import pytest
from PIL import Image

from rsa_pretrain.commands import data_check
from rsa_pretrain.data.check import check_split
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.command_line import Parser, run_command
from rsa_pretrain.plumbing.config.files import write_config


@pytest.fixture
def run(tiny_config, tmp_path):
    """Call ``data-check`` with overrides on a run's settings; returns the exit code."""
    write_config(tiny_config, tmp_path / "run.yaml")

    def call(*words):
        parser = Parser(prog="rsa-pretrain")
        data_check.add(parser.add_subparsers(required=True))

        def command():
            arguments = parser.parse_args(["data-check", str(tmp_path / "run.yaml"), *words])
            return arguments.command(arguments)

        return run_command(command)

    return call


@pytest.fixture
def folder(tmp_path):
    """An image folder: three ants and two bees to train on, one of each to test on."""
    for path in ("train/ant/0", "train/ant/1", "train/ant/2", "train/bee/0", "train/bee/1"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(tmp_path / f"{path}.png")
    for name in ("ant", "bee"):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (20, 10), "white").save(tmp_path / "val" / name / "0.png")
    return tmp_path


def overrides(root):
    """Words that choose an image folder."""
    return "data.name=imagefolder", f"data.root={root}", "data.num_train_images=null"


def test_whole_digits_are_well(run, capsys):
    """The embedded set has its published numbers; subsets of the run do not matter."""
    assert run() == 0
    out = capsys.readouterr().out
    assert "train: 1,437 images in 10 classes\n  published: 1,437 images, 10 classes\n" in out
    assert "test: 360 images in 10 classes" in out
    assert out.endswith("no problems found\n")


def test_what_is_found_is_told(run, folder, capsys):
    """Sizes, modes and class balance are those of the files."""
    Image.new("L", (30, 40)).save(folder / "train/ant/3.png")
    Image.new("RGBA", (25, 12)).save(folder / "train/ant/4.png")
    assert run(*overrides(folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "train: 7 images in 2 classes",
        "  images per class: smallest 2 (bee), median 2 (bee), largest 5 (ant)",
        "  width in pixels: smallest 20, median 20, largest 30",
        "  height in pixels: smallest 10, median 10, largest 40",
        "  stored as RGB 5, L 1, RGBA 1 (all are read as RGB)",
    ]


def test_broken_files_are_named(run, folder, tmp_path, capsys):
    """Twenty are printed and counted, all are in the file; the exit code is 1."""
    for number in range(23):
        (folder / f"train/bee/broken{number:02}.jpg").write_bytes(b"no image")
    whole = (folder / "val/ant/0.png").read_bytes()
    (folder / "val/ant/cut.png").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "found.json"
    assert run(*overrides(folder), "--out", str(out)) == 1
    printed = capsys.readouterr().out
    assert printed.count("bee/broken") == 20
    assert "… and 3 more broken images" in printed
    assert "broken images: 23;" in printed
    assert "problems found: 2" in printed
    found = json.loads(out.read_text())
    assert len(found["train"]["broken"]) == 23
    assert found["train"]["num_images"] == 28
    assert found["train"]["class_sizes"] == {"ant": 3, "bee": 25}
    assert len(found["test"]["broken"]) == 1
    assert "val/ant/cut.png" in found["test"]["broken"][0]


def test_the_end_of_a_jpeg_is_decoded(run, folder, capsys):
    """A photograph cut within its last tenth is broken although its header is intact."""
    path = folder / "train/ant/cut.jpg"
    Image.effect_noise((200, 200), 80).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 10])
    assert run(*overrides(folder), "--split", "pretrain") == 1
    assert "cut.jpg" in capsys.readouterr().out


def test_a_class_without_images_is_a_problem(run, folder, capsys):
    """The test split lacks a class that training has."""
    (folder / "val/bee/0.png").unlink()
    assert run(*overrides(folder)) == 1
    assert "problem: classes without images (1): bee" in capsys.readouterr().out
    assert run(*overrides(folder), "--split", "pretrain") == 0


def test_photographs_without_test_split_are_well(run, folder, capsys):
    """To pretrain on them none is needed; asked for by name its absence is an error."""
    (folder / "val").rename(folder / "gone")
    assert run(*overrides(folder)) == 0
    out = capsys.readouterr().out
    assert out.endswith(
        f"test: none (data.test_dir=val, data.root={folder}); evaluations need one\n"
        "no problems found\n"
    )
    assert run(*overrides(folder), "--split", "test") == 2
    assert "val' (data.test_dir) is not a folder" in capsys.readouterr().err
    assert run(*overrides(folder / "nowhere")) == 2
    assert "error: " in capsys.readouterr().err


def test_unlabelled_photographs_are_well(run, folder, capsys):
    """Images in one folder have no classes, and need none to be pretrained on."""
    words = (*overrides(folder), "data.train_dir=train/ant", "data.test_dir=absent")
    assert run(*words) == 0
    assert "train: 3 images, 3 of them without a class\n" in capsys.readouterr().out


def test_unlabelled_photographs_may_be_both_splits(run, folder, capsys):
    """Without classes there is no accuracy that shared images could flatter."""
    words = (*overrides(folder), "data.train_dir=train/ant", "data.test_dir=train/ant")
    assert run(*words) == 0
    assert "test: 3 images, 3 of them without a class\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("train_dir", "test_dir", "problem"),
    [
        ("train", "val/bee", "images in no class folder, beside class folders (1): "),
        (
            "train/ant",
            "val",
            "lacks (2): ant, bee; training has no class folders; rename or remove",
        ),
    ],
)
def test_classes_in_one_split_alone_are_a_problem(
    run, folder, train_dir, test_dir, problem, capsys
):
    """A split whose labels the other cannot number is not fit for evaluation."""
    words = (*overrides(folder), f"data.train_dir={train_dir}", f"data.test_dir={test_dir}")
    assert run(*words) == 1
    assert problem in capsys.readouterr().out


def test_a_stray_photograph_is_a_problem(run, folder, capsys):
    """Beside class folders an image in none is named."""
    Image.new("RGB", (20, 10)).save(folder / "train/photo.png")
    assert run(*overrides(folder)) == 1
    out = capsys.readouterr().out
    assert "train: 6 images in 2 classes, 1 of them without a class" in out
    assert "problem: images in no class folder, beside class folders (1): " in out
    assert "train/photo.png" in out


def test_images_of_both_splits_are_a_problem(run, folder, capsys):
    """The same pixels under another name and in another format are found in the test split."""
    Image.effect_noise((20, 10), 50).convert("RGB").save(folder / "train/ant/9.png")
    Image.open(folder / "train/ant/9.png").save(folder / "val/ant/other.bmp")
    assert run(*overrides(folder)) == 1
    out = capsys.readouterr().out
    assert "problem: images that are also in training (1), which make accuracy look better" in out
    assert "val/ant/other.bmp" in out


def test_published_numbers_are_compared(tmp_path):
    """A Tiny ImageNet of one image per class has neither 100,000 images nor 500 per class."""
    for number in range(200):
        path = tmp_path / "train" / f"n{number:08}" / "0.JPEG"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(path)
    config = DataConfig(name="tiny_imagenet", root=tmp_path, image_size=8)
    check = check_split(config, "pretrain")
    assert check.problems[0] == "200 images, published 100,000"
    assert check.problems[1].startswith(
        "classes that should have 500 images each (200): n00000000 1, n00000001 1,"
    )
    assert len(check.problems) == 2


# Shards


def write_shard(path, contents):
    """Write a tar of images (bytes), each of class 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for number, content in enumerate(contents):
            for name, data in ((f"{number}.png", content), (f"{number}.cls", b"1")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path):
    """Two training shards with three and two images, a test shard with one."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10)).save(buffer, "PNG")
    for name, count in (("train/a.tar", 3), ("train/b.tar", 2), ("val/c.tar", 1)):
        write_shard(tmp_path / name, [buffer.getvalue()] * count)
    return tmp_path


def shard_overrides(root):
    """Words that choose shards."""
    return "data.name=webdataset", f"data.root={root}"


def test_shards_are_counted_for_the_loader(run, shards, tmp_path, capsys):
    """--write-sizes makes the file that data.shard_sizes takes; class 0 is seen to be empty."""
    sizes = tmp_path / "sizes.json"
    assert run(*shard_overrides(shards), "--write-sizes", str(sizes)) == 1
    assert json.loads(sizes.read_text()) == {"a.tar": 3, "b.tar": 2, "c.tar": 1}
    out = capsys.readouterr().out
    assert "train: 5 images in 2 classes" in out
    assert "classes without images (1): 0" in out
    assert run(*shard_overrides(shards), f"data.shard_sizes={sizes}") == 1
    assert "says" not in capsys.readouterr().out


def test_faults_of_shards_are_told_apart(run, shards, tmp_path, capsys):
    """A wrong stated size, a broken image and a cut tar are three separate problems."""
    (shards / "train/sizes.json").write_text('{"a.tar": 4, "b.tar": 2, "d.tar": 2}')
    whole = (shards / "train/b.tar").read_bytes()
    write_shard(shards / "train/b.tar", [b"no image", b"none either"])
    (shards / "train/d.tar").write_bytes(whole[:700])
    sizes = tmp_path / "sizes.json"
    words = (*shard_overrides(shards), "--split", "pretrain", "--write-sizes", str(sizes))
    assert run(*words) == 1
    out = capsys.readouterr().out
    assert "shard 'a.tar' contains 3 images" in out
    assert "says 4" in out
    assert "broken: cannot decode '0' of shard" in out
    assert "broken images: 2;" in out
    assert "cannot read shard" in out
    assert json.loads(sizes.read_text()) == {"a.tar": 3, "b.tar": 2}


def test_sizes_are_for_shards_alone(run, folder, tmp_path, capsys):
    """The option is refused for other data sets."""
    assert run(*overrides(folder), "--write-sizes", str(tmp_path / "sizes.json")) == 2
    assert "--write-sizes is for data.name=webdataset" in capsys.readouterr().err


@pytest.mark.real_data
def test_real_photos_are_whole(run, rsa_data, capsys):
    """All 600 training and 186 test photographs decode to their ends."""
    assert run(*overrides(rsa_data / "clothing_mini")) == 0
    out = capsys.readouterr().out
    assert "train: 600 images in 10 classes" in out
    assert "test: 186 images in 10 classes" in out
