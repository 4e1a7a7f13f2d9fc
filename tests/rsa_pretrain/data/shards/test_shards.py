import io
import itertools
import json
import os
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_pretrain.data.decode import EncodedImage
from rsa_pretrain.data.image_set import UNLABELLED
from rsa_pretrain.data.loader import iterate
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.order import ShardOrder
from rsa_pretrain.data.shards.stream import ShardSet, TransformedBatch, read_shard, shard_loader
from rsa_pretrain.plumbing.errors import UserError

SIZES = (7, 1, 12, 5, 9)
CPU = torch.device("cpu")


def encoded(number, form="PNG"):
    """An image file whose pixels are a number."""
    buffer = io.BytesIO()
    Image.new("L", (3, 2), number).save(buffer, form)
    return buffer.getvalue()


def write_tar(path, members, mode="w"):
    """Write a tar of (name, bytes) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def write_shards(folder, sizes=SIZES):
    """Write shards whose images are numbered through; every third one has no class."""
    numbers = itertools.count()
    for shard, size in enumerate(sizes):
        members = []
        for number in itertools.islice(numbers, size):
            members.append((f"{number:04}.png", encoded(number)))
            members.append((f"{number:04}.json", b"{}"))
            if number % 3:
                members.append((f"{number:04}.cls", str(number % 3).encode()))
        write_tar(folder / f"part-{shard:03}.tar", members)


@pytest.fixture
def root(tmp_path):
    """A root with 34 images in five training shards, and eight in two test shards."""
    write_shards(tmp_path / "train")
    write_shards(tmp_path / "val", (5, 3))
    return tmp_path


def configure(root=None, **settings):
    """Settings of a webdataset."""
    settings = {"name": "webdataset", "root": root, "image_size": 8} | settings
    return DataConfig(**settings)


def number_and_draw(image):
    """A transform: the number an image shows, and a random draw."""
    return torch.tensor(image.getpixel((0, 0))[0]), torch.rand(())


def load(shards, batches, *, rank=0, world_size=1, num_workers=0, per_epoch=3, seed=1):
    """The batches of one rank, three images each, as (numbers, draws, labels) lists."""
    loader = shard_loader(
        shards,
        TransformedBatch(number_and_draw, seed),
        seed=seed,
        batch_size=3,
        batches=batches,
        batches_per_epoch=per_epoch,
        rank=rank,
        world_size=world_size,
        num_workers=num_workers,
        device=CPU,
    )
    return [
        (numbers.tolist(), draws.tolist(), labels.tolist())
        for (numbers, draws), labels in iterate(loader)
    ]


def small_buffer(root):
    """The shards of a root under a buffer smaller than what a process reads."""
    return open_images(configure(root, shuffle_buffer=4), "pretrain")


# The order


@pytest.mark.parametrize("world_size", [1, 2, 5])
@pytest.mark.parametrize("num_streams", [1, 2, 3, 7])
def test_ranges_part_an_epoch(world_size, num_streams):
    """No image is in two ranges, each rank has its batches, and less than one batch is left."""
    batch_size = 2
    per_epoch = sum(SIZES) // (batch_size * world_size)
    order = ShardOrder(SIZES, 0, batch_size, per_epoch, world_size, num_streams)
    for epoch in range(4):
        seen = []
        for rank in range(world_size):
            own = [
                (piece.shard, image)
                for stream in range(num_streams)
                for piece in order.pieces(epoch, rank, stream)
                for image in range(piece.first, piece.stop)
            ]
            assert len(own) == per_epoch * batch_size
            seen += own
        assert len(set(seen)) == len(seen)
        assert all(image < SIZES[shard] for shard, image in seen)
        assert 0 <= sum(SIZES) - len(seen) < batch_size * world_size


def test_streams_take_batches_in_turn():
    """Batch b is stream b mod 3's in every epoch, though 3 does not divide the epoch."""
    order = ShardOrder(SIZES, 0, 2, 5, 1, 3)
    for epoch in range(4):
        for stream in range(3):
            assert all(batch % 3 == stream for batch in order.batches(epoch, stream))
        together = sorted(batch for stream in range(3) for batch in order.batches(epoch, stream))
        assert together == list(range(5 * epoch, 5 * epoch + 5))


def test_epochs_and_seeds_permute_the_shards():
    """Another epoch and another seed read the shards in another order."""
    sizes = (3,) * 20
    orders = [
        [piece.shard for piece in ShardOrder(sizes, seed, 3, 20, 1, 1).pieces(epoch, 0, 0)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]


def test_an_epoch_longer_than_the_set_is_refused():
    """No image may come twice."""
    with pytest.raises(ValueError, match="an epoch of 36 images from 34"):
        ShardOrder(SIZES, 0, 3, 6, 2, 1)


# The stream


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (1, 2), (2, 3)])
def test_every_image_comes_once_an_epoch(root, world_size, num_workers):
    """Over ranks and processes no image comes twice; only the incomplete rest stays away."""
    shards = small_buffer(root)
    per_epoch = len(shards) // (3 * world_size)
    epochs = ([], [])
    for rank in range(world_size):
        batches = load(
            shards,
            range(2 * per_epoch),
            rank=rank,
            world_size=world_size,
            num_workers=num_workers,
            per_epoch=per_epoch,
        )
        assert len(batches) == 2 * per_epoch
        for position, (numbers, _, labels) in enumerate(batches):
            assert len(numbers) == 3
            assert labels == [number % 3 or UNLABELLED for number in numbers]
            epochs[position // per_epoch].extend(numbers)
    for numbers in epochs:
        assert len(numbers) == len(set(numbers)) == 3 * world_size * per_epoch
        assert set(numbers) <= set(range(34))
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("num_workers", [0, 3])
def test_starting_anywhere_gives_the_same_batches(root, num_workers):
    """From any batch on, images, draws and labels are an uninterrupted run's."""
    shards = small_buffer(root)
    whole = load(shards, range(10), num_workers=num_workers, per_epoch=4)
    for start in (1, 4, 7):
        rest = load(shards, range(start, 10), num_workers=num_workers, per_epoch=4)
        assert rest == whole[start:]


def test_skipped_images_are_not_decoded(root, monkeypatch):
    """Starting late decodes exactly the images that it yields."""
    shards = small_buffer(root)
    decoded = []
    read = EncodedImage.read
    monkeypatch.setattr(EncodedImage, "read", lambda image: decoded.append(image) or read(image))
    load(shards, range(9, 11), per_epoch=11)
    assert len(decoded) == 2 * 3


def test_draws_belong_to_image_and_epoch(root):
    """An image's draw in an epoch is the same for any number of ranks and processes."""
    shards = small_buffer(root)
    alone = load(shards, range(22), per_epoch=11)
    shared = [
        batch
        for rank in range(2)
        for batch in load(shards, range(5), rank=rank, world_size=2, num_workers=2, per_epoch=5)
    ]
    first, second = (
        {
            number: draw
            for numbers, draws, _ in batches
            for number, draw in zip(numbers, draws, strict=True)
        }
        for batches in (alone[:11], alone[11:])
    )
    common = [
        (draw, first[number])
        for numbers, draws, _ in shared
        for number, draw in zip(numbers, draws, strict=True)
        if number in first
    ]
    assert len(common) >= 26
    assert all(draw == expected for draw, expected in common)
    assert all(first[number] != second[number] for number in first.keys() & second.keys())


def test_images_are_mixed_beyond_their_shard(root):
    """Under a buffer for all, the first batch holds images of several shards."""
    shards = open_images(configure(root), "pretrain")
    bounds = np.cumsum(SIZES)
    numbers = load(shards, range(11), per_epoch=11)[0][0]
    in_order = [numbers == sorted(numbers)]
    for seed in range(2, 8):
        numbers = load(shards, range(1), per_epoch=11, seed=seed)[0][0]
        in_order.append(numbers == sorted(numbers))
        if len({int(np.searchsorted(bounds, number, side="right")) for number in numbers}) > 1:
            break
    else:
        pytest.fail("seven first batches of one shard each")
    assert not all(in_order)


def test_the_global_generator_is_left_alone(root):
    """Loading does not change what else is random."""
    before = torch.get_rng_state()
    load(small_buffer(root), range(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_pipes_and_urls_are_streamed(root):
    """A shell command that writes a tar is a shard like any other."""
    sizes = {f"part-{shard:03}.tar": size for shard, size in enumerate(SIZES)}
    (root / "sizes.json").write_text(json.dumps(sizes))
    piped = configure(
        shards=f"pipe:cat {root}/train/part-{{000..004}}.tar", shard_sizes=root / "sizes.json"
    )
    shards = open_images(piped, "pretrain")
    local = open_images(configure(root), "pretrain")
    assert shards.fingerprint() == local.fingerprint()
    assert load(shards, range(11), per_epoch=11) == load(local, range(11), per_epoch=11)


# Its faults


def one_shard(path, size):
    """A set of a single shard of a stated size."""
    return ShardSet([str(path)], [path.name], [size], 4)


@pytest.mark.parametrize(("stated", "found"), [(9, "7"), (6, "more")])
def test_wrong_sizes_are_noticed(root, stated, found):
    """A shard with fewer or more images than stated stops the run: images would be lost."""
    shards = one_shard(root / "train/part-000.tar", stated)
    with pytest.raises(UserError, match=rf"^shard '.*part-000\.tar' has {found} images.*{stated};"):
        load(shards, range(stated // 3), per_epoch=stated // 3)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.txt", b"x")], r"sample 'a' .*should have one image .*found \.txt"),
        ([("a.png", encoded(1)), ("a.jpg", encoded(1, "JPEG"))], r"one image .*\.png, \.jpg"),
        ([("a.png", encoded(1)), ("a.cls", b"-1")], r"'a\.cls' .*class index.*found '-1'"),
        ([("a.png", encoded(1)), ("a.PNG", encoded(1))], r"(duplicate|twice)"),
    ],
)
def test_malformed_samples_are_refused_by_both_readers(tmp_path, members, message):
    """The stream and the index name the sample; nothing is left out in silence."""
    write_tar(tmp_path / "train" / "a.tar", members)
    with pytest.raises(UserError, match=message):
        list(read_shard(str(tmp_path / "train" / "a.tar")))
    with pytest.raises(UserError, match=message):
        open_images(configure(tmp_path), "train")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_is_named(tmp_path, num_workers):
    """Key and shard are in the one line, from a worker too."""
    contents = {"one": encoded(1), "two": encoded(2)[:40], "three": encoded(3)}
    write_tar(tmp_path / "a.tar", [(f"{key}.png", content) for key, content in contents.items()])
    shards = ShardSet([str(tmp_path / "a.tar")], ["a.tar"], [3], 4)
    with pytest.raises(UserError, match=r"^cannot decode 'two' of shard '.*a\.tar'.*data-check"):
        load(shards, range(1), per_epoch=1, num_workers=num_workers)


@pytest.mark.parametrize(
    "url",
    ["{}/cut.tar", "{}/nowhere.tar", "{}/fifo.tar", "pipe:cat {}/nowhere.tar", "s3://bucket/a.tar"],
)
def test_unreadable_shards_are_named(root, url):
    """A cut or absent tar, a failing command and an unknown scheme are one line each."""
    whole = (root / "train/part-002.tar").read_bytes()
    (root / "cut.tar").write_bytes(whole[:3000])
    os.mkfifo(root / "fifo.tar")
    url = url.format(root)
    with pytest.raises(UserError, match=rf"^cannot read shard '{url}' \(.+\); check"):
        load(ShardSet([url], ["a"], [12], 4), range(4), per_epoch=4)


def test_the_library_is_asked_for(root, monkeypatch):
    """Without webdataset the error says what to install."""
    monkeypatch.setitem(sys.modules, "webdataset", None)
    with pytest.raises(UserError, match=r"pip install 'rsa-toolkit\[shards\]'"):
        load(small_buffer(root), range(1))


# Finding and counting


def test_sizes_are_counted_or_read(root):
    """Local shards are counted by their headers; sizes.json beside them is believed."""
    counted = open_images(configure(root), "pretrain")
    assert counted.sizes == SIZES
    assert len(counted) == 34
    assert counted.labels is None
    stated = {f"part-{shard:03}.tar": size + 1 for shard, size in enumerate(SIZES)}
    (root / "train" / "sizes.json").write_text(json.dumps(stated))
    believed = open_images(configure(root), "pretrain")
    assert believed.sizes == tuple(size + 1 for size in SIZES)
    assert believed.fingerprint() != counted.fingerprint()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"should be like"),
        ('{"part-000.tar": "7"}', r"should be like"),
        ('{"part-000.tar": -7}', r"should be like"),
        ("{", r"is not valid JSON"),
        ("[" * 100_000, r"is not valid JSON: it is nested too deeply"),
        ('{"part-000.tar": 7}', r"lacks the sizes of 4 shards, the first is 'part-001\.tar'"),
    ],
)
def test_malformed_sizes_are_refused(root, text, message):
    """Each fault of the file is a user error."""
    (root / "train" / "sizes.json").write_text(text)
    with pytest.raises(UserError, match=message):
        open_images(configure(root), "pretrain")


def test_remote_shards_need_their_sizes(root):
    """The error shows what the file looks like and how it is made."""
    config = configure(shards="https://example.org/part-{000..002}.tar")
    with pytest.raises(UserError, match=r'\{"part-000\.tar": 1000, …\}.*--write-sizes'):
        open_images(config, "pretrain")
    with pytest.raises(UserError, match=r"can only be streamed.*imagefolder"):
        open_images(config, "train")
    missing = config.model_copy(update={"shard_sizes": root / "nowhere.json"})
    with pytest.raises(UserError, match=r"cannot read data\.shard_sizes"):
        open_images(missing, "pretrain")


def test_patterns_name_local_shards(root):
    """Braces expand, relative names are below the root, several patterns join."""
    config = configure(root, shards=["train/part-{003..004}.tar", str(root / "train/part-000.tar")])
    assert open_images(config, "pretrain").sizes == (5, 9, 7)


@pytest.mark.parametrize(
    ("settings", "split", "message"),
    [
        ({"train_dir": "nowhere"}, "pretrain", r"no \*\.tar in '.*nowhere'; expected shards"),
        ({"shards": "train/part-{000..009}.tar"}, "pretrain", r"5 of 10 shards are missing"),
        ({"shards": ["train/part-000.tar"] * 2}, "pretrain", r"named 2 times"),
        ({"shards": "train/part-{0.tar"}, "pretrain", r"cannot expand the braces"),
        ({"root": None, "shards": "x.tar"}, "test", r"set data\.test_shards, or data\.root"),
        ({"num_train_images": 5}, "pretrain", r"num_train_images 5 has no meaning"),
    ],
)
def test_missing_shards_say_what_is_expected(root, settings, split, message):
    """Absent, repeated and unnamed shards are user errors."""
    with pytest.raises(UserError, match=message):
        open_images(configure(**{"root": root} | settings), split)


# In any order


def test_local_shards_can_be_evaluated_on(root):
    """Images by index agree with the stream; the test shards are their own."""
    streamed = [
        (image.encoded.read()[0].getpixel((0, 0))[0], image.label)
        for shard in range(len(SIZES))
        for image in read_shard(str(root / f"train/part-{shard:03}.tar"))
    ]
    train, test = (open_images(configure(root), split) for split in ("train", "test"))
    indexed = [(train[index].getpixel((0, 0))[0], train.labels[index]) for index in range(34)]
    assert indexed == streamed
    assert train.class_names == ["0", "1", "2"]
    assert len(test) == 8
    assert len(train.labelled().balanced_subset(4, seed=0)) == 4
    with pytest.raises(UserError, match="have no classes"):
        train.require_labels()


def test_shards_without_classes_are_unlabelled(tmp_path):
    """No .cls anywhere: the set has no labels."""
    write_tar(tmp_path / "train" / "a.tar", [("x/a.jpg", encoded(7, "JPEG")), ("y/a.webp", b"")])
    images = open_images(configure(tmp_path), "train")
    assert (images.labels, images.class_names, len(images)) == (None, [], 2)
    with pytest.raises(UserError, match=r"cannot decode '.*a\.tar, image 1'"):
        images[1]


def test_compressed_shards_cannot_be_indexed(tmp_path):
    """Only an uncompressed tar has images at byte positions."""
    write_tar(tmp_path / "train" / "a.tar", [("a.png", encoded(1))], mode="w:gz")
    with pytest.raises(UserError, match=r"is compressed with gzip.*unpack it"):
        open_images(configure(tmp_path), "train")
    sizes = tmp_path / "train" / "sizes.json"
    sizes.write_text('{"a.tar": 1}')
    assert len(list(read_shard(str(tmp_path / "train" / "a.tar")))) == 1
