import os
import re
import shutil
import signal
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from rsa_pretrain.data.loader import AugmentedImages, iterate, make_loader
from rsa_pretrain.data.open_images import normalisation, open_images
from rsa_pretrain.data.sets import data_set
from rsa_pretrain.data.sets.folders import refuse_among_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training.batch_plan import BatchPlan, StepSampler
from rsa_pretrain.views.one_image import Views
from rsa_pretrain.views.settings import ViewsConfig

DIGITS = DataConfig(name="digits", image_size=32)


def folder_config(root, **settings):
    """Settings of an image folder."""
    return DataConfig(**{"name": "imagefolder", "root": root, "image_size": 32} | settings)


@pytest.fixture
def tree(tmp_path):
    """A small ImageFolder: two classes, three training and one validation image each."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for name in ("ant", "bee"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.jpg")
    (tmp_path / "train" / ".DS_Store").write_text("hidden")
    return tmp_path


def test_digits_split_is_whole_and_disjoint():
    """1,437 and 360 images, every class in the same share, no image in both."""
    train, test = open_images(DIGITS, "train"), open_images(DIGITS, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert np.bincount(test.require_labels()).min() >= 34
    assert train[0].size == (32, 32)
    assert train[0].mode == "RGB"
    assert open_images(DIGITS, "train").fingerprint() == train.fingerprint()
    assert test.fingerprint() != train.fingerprint()


def test_digits_statistics_are_those_of_its_training_pixels():
    """The listed mean and standard deviation are measured ones."""
    pixels = open_images(DIGITS, "train").sources.pixels / 255
    mean, std = data_set("digits").normalisation
    assert pixels.mean() == pytest.approx(mean[0], abs=5e-5)
    assert pixels.std() == pytest.approx(std[0], abs=5e-5)


def test_configured_statistics_win():
    """A user's data set needs its own mean and standard deviation."""
    own = DIGITS.model_copy(update={"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)})
    assert normalisation(own) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert normalisation(DIGITS) == data_set("digits").normalisation


def test_sampler_reads_each_image_once_an_epoch():
    """Ten images in batches of three: three batches an epoch, no image twice, epochs differ."""
    plan = BatchPlan(3, 3, world_size=1, rank=0)
    batches = list(StepSampler(10, plan, seed=0, steps=range(6)))
    epochs = [
        [index for batch in batches[start : start + 3] for _, index in batch] for start in (0, 3)
    ]
    assert [epoch for batch in batches for epoch, _ in batch] == [0] * 9 + [1] * 9
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_sampler_starts_anywhere():
    """Starting at step 4 gives the same batches as reaching it."""
    plan = BatchPlan(3, 3, world_size=1, rank=0)
    whole = list(StepSampler(10, plan, seed=5, steps=range(9)))
    assert list(StepSampler(10, plan, seed=5, steps=range(4, 9))) == whole[4:]
    assert list(StepSampler(10, plan, seed=6, steps=range(9))) != whole


@pytest.mark.parametrize("num_workers", [1, 3])
def test_views_do_not_depend_on_the_workers(num_workers):
    """The same seed gives bitwise the same batches in the main process and in workers."""
    views = Views("multi_stage", ViewsConfig(), 32, *normalisation(DIGITS))
    dataset = AugmentedImages(open_images(DIGITS, "train"), views, seed=1)
    plan = BatchPlan(8, 8, world_size=1, rank=0)
    batches = StepSampler(len(dataset), plan, seed=1, steps=range(4))
    device = torch.device("cpu")
    here = list(iterate(make_loader(dataset, batches, 0, device)))
    there = list(iterate(make_loader(dataset, batches, num_workers, device)))
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_augmentation_leaves_the_global_generator_alone():
    """Loading in the main process does not change what else is random."""
    dataset = AugmentedImages(open_images(DIGITS, "train"), lambda _: torch.rand(()), seed=1)
    before = torch.get_rng_state()
    draws = {dataset[(epoch, index)].item() for epoch in range(2) for index in range(2)}
    assert torch.equal(torch.get_rng_state(), before)
    assert len(draws) == 4


def test_subset_is_balanced_and_fixed():
    """105 of ten classes are ten or eleven of each, the same for the same seed."""
    subset = open_images(DIGITS.model_copy(update={"num_train_images": 105}), "train")
    counts = np.bincount(subset.require_labels())
    assert counts.tolist() == [11] * 5 + [10] * 5
    again = open_images(DIGITS.model_copy(update={"num_train_images": 105}), "train")
    assert again.fingerprint() == subset.fingerprint()
    with pytest.raises(UserError, match="asked for 2000 images of digits, which has 1437"):
        open_images(DIGITS.model_copy(update={"num_train_images": 2000}), "train")


def test_image_folder_labels_follow_the_folder_names(tree):
    """Classes are sorted by name; hidden files do not count; the splits share the numbering."""
    train, test = (open_images(folder_config(tree), split) for split in ("train", "test"))
    assert train.class_names == ["ant", "bee"]
    assert train.labels == [0, 0, 0, 1, 1, 1]
    assert test.labels == [0, 1]
    assert train[0].size == (50, 40)


def test_any_tree_can_be_pretrained_on(tree):
    """The root as training folder takes every image below it, at any depth."""
    images = open_images(folder_config(tree, train_dir="."), "train")
    assert len(images) == 8


def test_images_without_class_folders_are_unlabelled(tree):
    """A flat folder can be pretrained on; evaluating on it is refused."""
    images = open_images(folder_config(tree, train_dir="train/ant"), "train")
    assert len(images) == 3
    with pytest.raises(UserError, match="have no classes"):
        images.require_labels()


def test_broken_files_are_named_in_one_error(tree):
    """A truncated JPEG and a text file are both in the message."""
    whole = (tree / "train/ant/0.jpg").read_bytes()
    (tree / "train/ant/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tree / "train/bee/notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"2 of 8 files .*ant/cut\.jpg.*bee/notes\.txt.*skip"):
        open_images(folder_config(tree), "train")


def test_broken_files_are_skipped_with_a_counted_warning(tree, caplog):
    """on_broken=skip leaves exactly them out."""
    (tree / "train/ant/empty.png").write_bytes(b"")
    images = open_images(folder_config(tree, on_broken="skip"), "train")
    assert len(images) == 6
    assert "skipping 1 of 7 files" in caplog.text
    assert "empty.png" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unchecked_files_fail_at_the_first_read(tree, num_workers):
    """Without the check a broken image is one clear error, from a worker too."""
    (tree / "train/ant/9.jpg").write_bytes(b"not a jpeg")
    images = open_images(folder_config(tree, on_broken="unchecked"), "train")
    dataset = AugmentedImages(images, lambda image: np.asarray(image).sum(), seed=0)
    loader = make_loader(dataset, [[(0, 3)]], num_workers, torch.device("cpu"))
    with pytest.raises(UserError, match=r"^cannot decode '.*ant/9\.jpg' .*on_broken=skip"):
        list(iterate(loader))


def fail_as(kind):
    """Fail in a loader process: by a fault of the program, for lack of memory, or by dying."""
    if kind == "fault":
        raise RuntimeError("shapes differ")
    if kind == "memory":
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_7>: (28)")
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("kind", "expected", "message"),
    [
        ("fault", RuntimeError, r"(?s)in fail_as\n.*shapes differ"),
        ("memory", UserError, r"\(RuntimeError: unable to allocate .*\(28\)\); .*num_workers$"),
        ("death", UserError, r"^a loader process ended \(DataLoader worker .*num_workers$"),
    ],
)
def test_only_lack_of_memory_is_blamed_on_the_number_of_workers(tree, kind, expected, message):
    """A fault of the program keeps its own words and its traceback."""
    images = open_images(folder_config(tree), "train")
    dataset = AugmentedImages(images, lambda image: fail_as(kind), seed=0)
    with pytest.raises(expected, match=message):
        list(iterate(make_loader(dataset, [[(0, 0)]], 1, torch.device("cpu"))))


def test_links_back_up_the_tree_end(tree):
    """A folder that links to its parent does not loop and adds nothing."""
    os.symlink(tree / "train", tree / "train" / "ant" / "again")
    assert len(open_images(folder_config(tree), "train")) == 6


def broken_class(train):
    """A class of files that are not images."""
    (train / "hat").mkdir()
    (train / "hat" / "0.jpg").write_bytes(b"no image")


def hidden_file(train):
    """A class folder that version control keeps."""
    (train / "cat").mkdir()
    (train / "cat" / ".gitkeep").touch()


def archiver(train):
    """Files that macOS's archiver leaves, images among them, and Windows's thumbnails."""
    (train / "__MACOSX").mkdir()
    Image.new("RGB", (8, 8)).save(train / "__MACOSX" / "x.png")
    for name in ("Thumbs.db", "desktop.ini"):
        (train / "bee" / name).write_bytes(b"system")


def thumbnails(train):
    """Small copies that network storage leaves beside photographs."""
    (train / "ant" / "@eaDir").mkdir()
    Image.new("RGB", (8, 8)).save(train / "ant" / "@eaDir" / "SYNOPHOTO_THUMB_M.jpg")


INTRUDERS = {
    "empty": (lambda train: (train / "alp").mkdir(), "alp (no image in it can be read)"),
    "gitkeep": (hidden_file, "cat (no image in it can be read)"),
    "broken": (broken_class, "hat (no image in it can be read)"),
    "link": (lambda train: os.symlink("bee", train / "aaa"), "aaa (a link to 'bee', which is"),
    "link up": (lambda train: os.symlink("..", train / "aaa"), "aaa (a link to '..', which is"),
    "nested link": (
        lambda train: os.symlink("../bee", train / "ant" / "more"),
        "ant/more (a link to '../bee', which is there already)",
    ),
    "system": (archiver, "__MACOSX (hidden, or made by a system)"),
    "thumbnails": (thumbnails, "ant/@eaDir (hidden, or made by a system)"),
    "checkpoints": (
        lambda train: (train / ".ipynb_checkpoints").mkdir(),
        ".ipynb_checkpoints (hidden, or made by a system)",
    ),
    **{
        name: (
            lambda train, name=name: (train / name).mkdir(),
            f"{name} (hidden, or made by a system)",
        )
        for name in ("$RECYCLE.BIN", "System Volume Information", "lost+found", "#recycle")
    },
}


@pytest.mark.parametrize("kind", INTRUDERS)
def test_what_is_no_class_moves_no_label(tree, kind, caplog):
    """Folders without images, system folders and links change neither split; one line says so."""
    config = folder_config(tree, on_broken="skip")
    before = [open_images(config, split) for split in ("train", "test")]
    make, message = INTRUDERS[kind]
    make(tree / "train")
    for images, split in zip(before, ("train", "test"), strict=True):
        again = open_images(config, split)
        assert again.class_names == images.class_names == ["ant", "bee"]
        assert again.labels == images.labels
        assert again.fingerprint() == images.fingerprint()
    told = [text for text in caplog.messages if text.startswith("folders left out")]
    assert len(told) == 1
    assert message in told[0]


@pytest.mark.parametrize("name", ["Thumbs.db", "desktop.ini", ".DS_Store", "._0.jpg"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_files_of_systems_are_no_images(tree, name, split):
    """They are left out of both splits without a setting."""
    before = open_images(folder_config(tree), split)
    for folder in ("train", "val"):
        (tree / folder / "bee" / name).write_bytes(b"system")
    again = open_images(folder_config(tree), split)
    assert again.labels == before.labels
    assert again.fingerprint() == before.fingerprint()


def test_a_folder_that_cannot_be_listed_is_an_error(tree, monkeypatch):
    """Its images are not silently missing."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="bee"):
        open_images(folder_config(tree), "train")


@pytest.mark.parametrize("on_broken", ["error", "skip", "unchecked"])
def test_classes_are_training_s_where_test_has_fewer(tree, on_broken):
    """A class that only training has keeps its number."""
    shutil.rmtree(tree / "val" / "ant")
    images = open_images(folder_config(tree, on_broken=on_broken), "test")
    assert images.class_names == ["ant", "bee"]
    assert images.labels == [1]


def test_a_link_out_of_the_tree_is_followed_once(tree, tmp_path_factory, caplog):
    """Two classes that link to the same folder are one, and the other is named."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (8, 8)).save(elsewhere / "0.png")
    for name in ("cat", "dog"):
        os.symlink(elsewhere, tree / "train" / name)
    assert open_images(folder_config(tree), "train").class_names == ["ant", "bee", "cat"]
    assert re.search(r"dog \(a link to '.*', which is there already\)", caplog.text)


def test_a_stray_photograph_has_no_class(tree):
    """The others keep theirs; what needs classes names it."""
    Image.new("RGB", (8, 8)).save(tree / "train" / "photo.png")
    images = open_images(folder_config(tree), "train")
    assert images.class_names == ["ant", "bee"]
    assert sorted(images.labels) == [-1, 0, 0, 0, 1, 1, 1]
    with pytest.raises(UserError, match=r"1 of 7 .* no classes: .*train/photo\.png; "):
        images.require_labels()


def test_test_photographs_in_no_folder_have_no_class(tree):
    """Beside labelled training images each is named where classes are needed; none is ``None``."""
    images = open_images(folder_config(tree, test_dir="val/ant"), "test")
    assert images.class_names == ["ant", "bee"]
    assert images.labels == [-1]
    with pytest.raises(UserError, match=r"1 of 1 .* no classes: .*val/ant/0\.jpg; "):
        images.require_labels()


def test_photographs_without_classes_may_be_both_splits(tree):
    """Nothing is compared by class, so one folder serves to train on and to look at."""
    config = folder_config(tree, train_dir="train/ant", test_dir="train/ant")
    train, test = (open_images(config, split) for split in ("train", "test"))
    assert train.labels is test.labels is None
    assert train.fingerprint() == test.fingerprint()


def test_names_of_macos_are_the_same_classes(tree):
    """An accent stored apart, as macOS does, and one letter are the same name."""
    apart, one = unicodedata.normalize("NFD", "café"), unicodedata.normalize("NFC", "café")
    assert apart != one
    (tree / "train" / "ant").rename(tree / "train" / one)
    (tree / "val" / "ant").rename(tree / "val" / apart)
    images = open_images(folder_config(tree), "test")
    assert images.class_names == ["bee", one]
    assert sorted(images.labels) == [0, 1]


def test_another_case_is_named(tree):
    """A test class that differs in case alone is refused beside training's spelling."""
    (tree / "val" / "ant").rename(tree / "val" / "Ant")
    with pytest.raises(UserError, match=r"lacks \(1\): Ant \(training has ant\); training has ant"):
        open_images(folder_config(tree), "test")


def test_images_to_train_on_are_not_tested_on(tree):
    """The same folder as both splits is refused."""
    with pytest.raises(UserError, match=r"is both data\.train_dir and data\.test_dir"):
        open_images(folder_config(tree, test_dir="val/../train"), "test")


def test_nothing_is_written_among_the_images(tree):
    """A run folder or picture below a split would be taken for images; beside them it is not."""
    config = folder_config(tree, train_dir=".")
    for path in (tree / "views.png", tree / "runs" / "x", tree / "val" / "ant" / "views.png"):
        with pytest.raises(UserError, match=r"is below .*, where every file is taken for an"):
            refuse_among_images(config, path)
    refuse_among_images(folder_config(tree), tree / "runs" / "x")
    refuse_among_images(DIGITS, tree / "train" / "x")


@pytest.mark.parametrize(
    ("name", "base"),
    [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")],
)
def test_cifar_hints(tmp_path, name, base):
    """A root one level off, files left compressed and others amiss are told."""

    def match_error(root, hint):
        with pytest.raises(UserError, match=hint):
            open_images(DataConfig(name=name, root=root, image_size=32), "train")

    root = tmp_path / "cifar"
    (root / base).mkdir(parents=True)
    match_error(root / base, rf"the folder that contains '{base}': '{root}'$")
    match_error(tmp_path, rf"the folder that contains '{base}': '{root}'$")
    match_error(root, rf"move that folder away and run `rsa-pretrain download {name} {root}`$")
    facts = getattr(datasets, name.upper())
    for file, _ in (*facts.train_list, *facts.test_list):
        (root / base / file).touch()
    match_error(root, r"it lacks (batches\.)?meta: move that folder away and run")
    (root / base / "train.xz").touch()
    match_error(root, r"are compressed \(train\.xz, …\): .*unxz --keep")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_dir": "nowhere"}, "nowhere' .data.train_dir. is not a folder"),
        ({"train_dir": "empty"}, r"no image below .*/CLASS/IMAGE files; correct data\.root or"),
    ],
)
def test_missing_images_say_what_is_expected(tree, settings, message):
    """An absent or empty folder is a user error."""
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        open_images(folder_config(tree, **settings), "train")


def test_unknown_test_classes_are_refused(tree):
    """A class that training never saw cannot be numbered."""
    (tree / "val" / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tree / "val" / "cat" / "0.png")
    with pytest.raises(
        UserError, match=r"class folders that .* lacks \(1\): cat; training has ant, bee; rename or"
    ):
        open_images(folder_config(tree), "test")


def test_missing_cifar_says_where_to_get_it(tmp_path):
    """The error names the folder and the command."""
    config = DataConfig(name="cifar10", root=tmp_path, image_size=32)
    with pytest.raises(UserError, match=rf"-py'; run `rsa-pretrain download cifar10 {tmp_path}`$"):
        open_images(config, "train")


@pytest.mark.real_data
def test_real_photos(rsa_data):
    """600 photographs in ten classes, all intact."""
    images = open_images(folder_config(rsa_data / "clothing_mini"), "train")
    assert len(images) == 600
    assert np.bincount(images.require_labels()).tolist() == [60] * 10
    assert min(images[0].size) >= 400


def test_too_many_loader_processes_are_said_once(python):
    """More than there are cores is one note of ours, and none of torch's."""
    script = """
import torch
from rsa_pretrain.data import loader
loader.usable_cores = lambda: 3
for num_workers in (3, 999, 999):
    loader.make_loader(range(9), [[0]], num_workers, torch.device("cpu"))
"""
    assert python.run("-c", script).stderr.splitlines() == [
        "999 loader processes share 3 CPU cores: fewer (num_workers) may be faster"
    ]
