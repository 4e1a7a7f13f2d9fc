import multiprocessing
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.shards.stream import ShardSet
from rsa_pretrain.plumbing.config.files import parse_tree
from rsa_pretrain.plumbing.errors import UserError
from rsa_pretrain.training import feed as module
from rsa_pretrain.training import in_memory
from rsa_pretrain.training.background import in_background
from rsa_pretrain.training.batch_plan import BatchPlan
from rsa_pretrain.training.feed import training_views
from rsa_pretrain.training.in_memory import InMemoryViews
from rsa_pretrain.views.plan import plan_views

CPU = torch.device("cpu")
WHOLE = BatchPlan(8, 8, world_size=1, rank=0)
NOT_RANDOM = {
    "weak": {"crop_scale": [1, 1], "crop_ratio": [1, 1], "flip_probability": 0},
    "aggressive": {"jitter_probability": 0, "grayscale_probability": 0, "blur_probability": 0},
}


@pytest.fixture
def tree(tiny_tree):
    """Settings of the tiny run with batched views."""
    tiny_tree["views"] = {"implementation": "batched"}
    return tiny_tree


@pytest.fixture
def photos(tree, tmp_path):
    """Settings of a run on 24 photographs of different sizes, one of them in gray, two not JPEG."""
    generator = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "photos" / "train" / ("ant" if number % 2 else "bee")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (20 + number, 40 - number, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        if number == 3:
            image = image.convert("L")
        image.save(folder / f"{number:02}.{'png' if number in (5, 8) else 'jpg'}")
    root = str(tmp_path / "photos")
    tree["data"] = {"name": "imagefolder", "root": root, "image_size": 16, "num_workers": 0}
    return tree


def brought(tree, steps, plan=WHOLE, images=None, needs_labels=True):
    """The batches of a run's steps."""
    config = parse_tree(PretrainConfig, tree, "tiny run")
    if images is None:
        images = open_images(config.data, "pretrain")
    return list(training_views(config, images, plan, steps, CPU, needs_labels, timed=iter))


def assert_same(batches, others):
    """Views and labels agree bitwise."""
    assert len(batches) == len(others) > 0
    for (views, labels), (views_other, labels_other) in zip(batches, others, strict=True):
        assert torch.equal(labels, labels_other)
        assert len(views) == len(views_other) > 0
        assert all(torch.equal(a, b) for a, b in zip(views, views_other, strict=True))


def test_both_implementations_bring_the_same_images(tree):
    """Without random operations the views of each pass are those that Pillow makes."""
    plan = BatchPlan(8, 4, world_size=1, rank=0)
    batched = brought(
        tree | {"views": {"implementation": "batched"} | NOT_RANDOM}, range(2, 6), plan
    )
    pillow = brought(tree | {"views": NOT_RANDOM}, range(2, 6), plan)
    assert len(batched) == len(pillow) == 8
    for (views, labels), (views_pillow, labels_pillow) in zip(batched, pillow, strict=True):
        assert torch.equal(labels, labels_pillow)
        for ours, theirs in zip(views, views_pillow, strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("method", "num_views"),
    [
        ({"name": "supervised", "num_classes": 2}, 1),
        ({"name": "byol", "views": "AW", "hidden_dim": 12, "output_dim": 6}, 2),
    ],
)
def test_every_recipe_is_brought(photos, method, num_views):
    """One weak view, or an aggressive and a weak one of different crops, and the labels."""
    photos["method"] = method
    images = open_images(parse_tree(PretrainConfig, photos, "run").data, "train")
    for views, labels in brought(photos, range(3)):
        assert [view.shape for view in views] == [(8, 3, 16, 16)] * num_views
        assert all(view.isfinite().all() for view in views)
        assert len(views) == 1 or not torch.equal(*views)
        assert set(labels.tolist()) <= set(images.labels)


def test_pixels_in_memory_need_no_loader(tree, monkeypatch):
    """No loader is made, and the pixels are not copied."""
    monkeypatch.setattr(module, "make_loader", None)
    monkeypatch.setattr(module, "make_batch_loader", None)
    config = parse_tree(PretrainConfig, tree, "tiny run")
    images = open_images(config.data.model_copy(update={"num_train_images": None}), "train")
    assert len(brought(tree, range(4), images=images)) == 4
    held = InMemoryViews(config, images, WHOLE, range(4), CPU, needs_labels=False)
    assert held.pixels.data_ptr() == images.sources.pixels.ctypes.data


def test_a_set_too_large_for_the_gpu_is_a_user_error(tree, monkeypatch):
    """It names the setting that keeps the set out of the GPU's memory."""

    def too_large(array):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.70 GiB. GPU 0 has")

    monkeypatch.setattr(module.torch, "from_numpy", too_large)
    with pytest.raises(UserError, match=r"\(CUDA out of memory\).*views\.implementation=pillow$"):
        brought(tree, range(1))


def in_blocks(monkeypatch, count):
    """Let a CPU make views as a GPU does: several batches together, planned in the background."""
    monkeypatch.setattr(in_memory, "batches_together", lambda views_bytes, device: count)
    for holder in (in_memory, module):
        monkeypatch.setattr(holder, "planned_ahead", lambda items, device: in_background(items))


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("first", [0, 3])
def test_blocks_are_made_of_the_same_batches(count, first, tree, monkeypatch):
    """Bitwise, from any step, over epochs, with several passes a step and a last block cut short.

    Of 9 or 6 steps with 2 passes of 4 images each, in epochs of 4 steps.
    """
    plan = BatchPlan(8, 4, world_size=1, rank=0)
    steps = range(first, 9)
    one_by_one = brought(tree, steps, plan)
    assert len(one_by_one) == 2 * len(steps)
    in_blocks(monkeypatch, count)
    assert_same(brought(tree, steps, plan), one_by_one)


def test_blocks_of_large_batches_are_the_same(tree, monkeypatch):
    """Bitwise, with batches of more images than a CPU makes views of at a time."""
    tree["data"] |= {"image_size": 32, "num_train_images": None}
    plan = BatchPlan(300, 300, world_size=1, rank=0)
    one_by_one = brought(tree, range(3), plan)
    in_blocks(monkeypatch, 2)
    assert_same(brought(tree, range(3), plan), one_by_one)


def test_blocks_are_limited_by_their_memory():
    """On a GPU eight batches of small views, fewer of larger ones, at least one; one on a CPU."""
    gpu, mebibytes = torch.device("cuda"), 2**20
    together = in_memory.batches_together
    sizes = [1, 16, 17, 60, 64, 65, 1000]
    assert [together(size * mebibytes, gpu) for size in sizes] == [8, 8, 7, 2, 2, 1, 1]
    assert together(1, CPU) == 1


def planning_threads():
    """Threads that plan views; those of torch's loaders end when they like."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("views")]


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_errors_in_the_background_are_raised(kind, request, tree, monkeypatch):
    """After the batches that come before them; no thread is left."""
    if kind == "files":
        request.getfixturevalue("photos")
    in_blocks(monkeypatch, 1)
    planned = []

    def failing(*args):
        planned.append(True)
        if len(planned) == 3:
            raise UserError("no more")
        return plan_views(*args)

    monkeypatch.setattr("rsa_pretrain.views.batch.plan_views", failing)
    config = parse_tree(PretrainConfig, tree, "tiny run")
    images = open_images(config.data, "train")
    batches = training_views(config, images, WHOLE, range(8), CPU, False, timed=iter)
    assert all(next(batches).views for _ in range(2))
    with pytest.raises(UserError, match="no more"):
        next(batches)
    assert not planning_threads()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_files_are_planned_in_the_background(num_workers, photos, monkeypatch):
    """The same views bitwise; ending early leaves neither thread nor loader process."""
    photos["data"]["num_workers"] = num_workers
    here = brought(photos, range(6))
    in_blocks(monkeypatch, 1)
    assert_same(brought(photos, range(6)), here)
    config = parse_tree(PretrainConfig, photos, "run")
    images = open_images(config.data, "train")
    batches = training_views(config, images, WHOLE, range(6), CPU, False, timed=iter)
    next(batches)
    assert len(multiprocessing.active_children()) == num_workers
    assert len(planning_threads()) == 1
    batches.close()
    assert not planning_threads()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("kind", ["in memory", "files", "pillow"])
def test_labels_are_brought_to_methods_that_read_them(kind, request, tree):
    """Others get None, and the same views."""
    if kind == "files":
        request.getfixturevalue("photos")
    if kind == "pillow":
        tree["views"] = {"implementation": "pillow"}
    labelled, unlabelled = (brought(tree, range(2), needs_labels=needs) for needs in (True, False))
    assert all(batch.labels.shape == (8,) for batch in labelled)
    assert all(batch.labels is None for batch in unlabelled)
    for one, other in zip(labelled, unlabelled, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one.views, other.views, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_a_gpu_makes_the_views_of_a_cpu(kind, request, tree):
    """Within 1e-5 of [0, 1], with the same labels, and without waiting once constants are sent."""
    if kind == "files":
        request.getfixturevalue("photos")
    tree["data"] |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    expected = brought(tree, range(40))
    config = parse_tree(PretrainConfig, tree, "tiny run")
    images = open_images(config.data, "pretrain")
    gpu = torch.device("cuda", torch.cuda.current_device())
    batches = training_views(config, images, WHOLE, range(40), gpu, True, timed=iter)
    found = [next(batches) for _ in range(4)]
    torch.cuda.set_sync_debug_mode("error")
    try:
        found.extend(batches)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (views, labels), (views_cpu, labels_cpu) in zip(found, expected, strict=True):
        assert torch.equal(labels.cpu(), labels_cpu)
        for view, other in zip(views, views_cpu, strict=True):
            torch.testing.assert_close(view.cpu(), other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_starting_anywhere_gives_the_same_views(kind, request, tree):
    """From any step on, also within an epoch, the batches are an uninterrupted run's."""
    if kind == "files":
        request.getfixturevalue("photos")
    whole = brought(tree, range(7))
    assert_same(brought(tree, range(2, 7)), whole[2:])
    first, other = whole[0][0], brought(tree | {"seed": 1}, range(1))[0][0]
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("kind", ["in memory", "files"])
def test_processes_see_what_one_sees(kind, request, tree):
    """The shares of two processes in two passes, put together, are one process's batch."""
    if kind == "files":
        request.getfixturevalue("photos")
    whole = brought(tree, range(4))
    shares = [brought(tree, range(4), BatchPlan(8, 2, 2, rank)) for rank in range(2)]
    for step, (views, labels) in enumerate(whole):
        parts = [part for share in shares for part in share[2 * step :][:2]]
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
        for number, view in enumerate(views):
            together = torch.cat([part[0][number] for part in parts])
            assert torch.equal(together, view)


def test_views_of_files_do_not_depend_on_the_workers(photos):
    """Two loader processes yield bitwise the batches of the main process."""
    here = brought(photos, range(6))
    photos["data"]["num_workers"] = 2
    assert_same(brought(photos, range(6)), here)


def test_crops_of_files_are_those_of_pixels_in_memory(photos):
    """Decoding and cropping in advance changes a weak view by the rounding of its crop alone."""
    photos["views"] |= {"aggressive": NOT_RANDOM["aggressive"]}
    photos["data"] |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    config = parse_tree(PretrainConfig, photos, "run")
    files = open_images(config.data, "train")
    square = np.stack([np.asarray(files[index].resize((32, 32))) for index in range(len(files))])
    for index, image in enumerate(square):
        Image.fromarray(image).save(files.sources.path(index), "PNG")
    in_memory = ImageSet.from_array("imagefolder", square, files.labels, files.class_names)
    for (views, labels), (views_other, labels_other) in zip(
        brought(photos, range(3)), brought(photos, range(3), images=in_memory), strict=True
    ):
        assert torch.equal(labels, labels_other)
        for view, other in zip(views, views_other, strict=True):
            # Half a grey level of the rounding, and half of torchvision's fixed-point weights.
            torch.testing.assert_close(view, other, rtol=0, atol=1.01 / 255)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_file_is_named(photos, tmp_path, num_workers):
    """From a worker too, in the words that Pillow's views have for it."""
    photos["data"] |= {"num_workers": num_workers, "on_broken": "unchecked"}
    path = tmp_path / "photos/train/ant/01.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=r"^cannot decode '.*ant/01\.jpg' .*on_broken=skip"):
        brought(photos, range(3))
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"^cannot decode '.*ant/01\.jpg' \(No such file"):
        brought(photos, range(3))


def test_shards_are_decoded_and_cropped(photos, tmp_path):
    """A stream yields the same views as files of its images, and can start anywhere."""
    pytest.importorskip("webdataset", reason="needs webdataset")
    config = parse_tree(PretrainConfig, photos, "run")
    files = open_images(config.data, "train")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for index in range(len(files)):
            name = files.sources.name(index)
            tar.add(files.sources.path(index), f"{index:02}{name[-4:]}")
    shards = ShardSet([str(tmp_path / "a.tar")], ["a.tar"], [24], 1)
    streamed = brought(photos, range(6), images=shards)
    assert all(labels.tolist() == [-1] * 8 for _, labels in streamed)
    assert_same(brought(photos, range(4, 6), images=shards), streamed[4:])
    drawn = [view for views, _ in brought(photos, range(3)) for view in views[2]]
    for view in streamed[0][0][2]:
        closest = min((view - other).abs().max().item() for other in drawn)
        assert closest < 1e-5
