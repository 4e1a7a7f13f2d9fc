import pickle

import numpy as np
import pytest

from rsa_pretrain.data.image_set import UNLABELLED, ImageSet
from rsa_pretrain.plumbing.errors import UserError


def numbered(labels):
    """Images whose every pixel is their number, with these labels."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    classes = sorted(set(labels) - {UNLABELLED})
    return ImageSet.from_array(
        "numbered", np.broadcast_to(pixels, (len(labels), 2, 2, 3)).copy(), labels, classes
    )


def numbers(images):
    """The numbers of a set's images, in its order."""
    return [images[index].getpixel((0, 0))[0] for index in range(len(images))]


def test_hold_out_parts_the_set_in_its_order():
    """Each image is in one part, both keep the order, classes are balanced, labels follow."""
    images = numbered([number % 3 for number in range(30)])
    rest, held_out = images.hold_out(7, seed=1)
    assert sorted(numbers(rest) + numbers(held_out)) == list(range(30))
    assert numbers(rest) == sorted(numbers(rest))
    assert numbers(held_out) == sorted(numbers(held_out))
    assert np.bincount(held_out.labels).tolist() == [3, 2, 2]
    assert [number % 3 for number in numbers(rest)] == rest.labels


def test_hold_out_is_decided_by_the_seed():
    """The same seed takes the same images, another one others."""
    images = numbered([0, 1] * 20)
    first, again, other = (numbers(images.hold_out(10, seed)[1]) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_hold_out_spares_unlabelled_images():
    """Queries need a class; images without one stay in the rest."""
    images = numbered([0, UNLABELLED, 1, UNLABELLED, 0, 1])
    rest, held_out = images.hold_out(2, seed=0)
    assert UNLABELLED not in held_out.labels
    assert {1, 3} <= set(numbers(rest))
    assert set(rest.labelled().labels) == {0, 1}
    assert numbers(images.labelled()) == [0, 2, 4, 5]


@pytest.mark.parametrize(
    ("labels", "count", "message"),
    [
        ([UNLABELLED] * 4, 1, "none has a class"),
        ([0, 1, 0, 1], 4, "holding out 4 of 4 numbered images leaves nothing; hold out fewer"),
        ([0, 0, 0, 1, 1], 4, None),
        ([0, 0, 0, 0, 1], 4, "needs 2 images of each class of numbered, '1' has 1"),
        ([0, 1, UNLABELLED, UNLABELLED], 3, "asked for 3 images of numbered, which has 2"),
    ],
)
def test_impossible_slices_are_refused(labels, count, message):
    """Too few images, in all or of a class, is a user error; just enough is not."""
    images = numbered(labels)
    if message is None:
        assert len(images.hold_out(count, seed=0)[1]) == count
    else:
        with pytest.raises(UserError, match=message):
            images.hold_out(count, seed=0)


def test_a_subset_of_partly_labelled_images_is_a_plain_draw():
    """Unlabelled images are not balanced as a separate class."""
    images = numbered([0] * 10 + [UNLABELLED] * 190)
    subset = images.balanced_subset(100, seed=0)
    assert len(subset) == 100
    assert 0 < len(subset.labelled()) < 10
    with pytest.raises(UserError, match="have no classes"):
        images.require_labels()


def test_a_slice_shares_the_pixels():
    """Selecting copies no image, and a set survives pickling."""
    images = numbered([0, 1] * 20)
    rest, held_out = images.hold_out(10, seed=0)
    assert rest.sources is images.sources
    assert held_out.sources is images.sources
    copy = pickle.loads(pickle.dumps(held_out))
    assert copy.fingerprint() == held_out.fingerprint() != rest.fingerprint()
