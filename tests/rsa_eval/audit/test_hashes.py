import numpy as np
import pytest
from numpy.typing import NDArray
from perceptual_hash import phash
from PIL import Image

from rsa_eval.audit.alignment import aligned_correlation
from rsa_eval.audit.fingerprints import fingerprint_images, grey_copy, has_detail, hash_grey
from rsa_eval.audit.near_hashes import count_by_table, near_pairs, num_differing_bits
from rsa_pretrain.data.image_set import ImageSet


def grey_images(count: int, seed: int = 0, low: int = 60, high: int = 180) -> NDArray[np.uint8]:
    """Random grey images, (N, 32, 32)."""
    generator = np.random.default_rng(seed)
    return generator.integers(low, high, (count, 32, 32)).astype(np.uint8)


def random_hashes(count: int, seed: int) -> NDArray[np.uint64]:
    """Random words."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 2**64, count, dtype=np.uint64)


def as_number(word: np.uint64) -> int:
    """A hash as its 64 bits in the order of the frequencies."""
    return int.from_bytes(np.array([word]).tobytes(), "big")


def test_the_hash_is_zauners() -> None:
    """As written in the paper, one coefficient at a time."""
    grey = grey_images(3)
    hashes, mirrored = hash_grey(grey)
    for image, own, mirror in zip(grey, hashes, mirrored, strict=True):
        assert as_number(own) == phash(image.astype(float).tolist())
        assert as_number(mirror) == phash(image[:, ::-1].astype(float).tolist())


def test_half_of_the_bits_are_set() -> None:
    """The threshold is the median of 64 frequencies."""
    hashes, _ = hash_grey(grey_images(5))
    assert count_by_table(hashes).tolist() == [32] * 5


def test_brightness_and_contrast_do_not_count() -> None:
    """The constant frequencies are left out, and the median scales with the rest."""
    grey = grey_images(4)
    hashes, _ = hash_grey(grey)
    brighter, _ = hash_grey(grey + np.uint8(40))
    np.testing.assert_array_equal(hashes, brighter)
    doubled, _ = hash_grey((grey - np.uint8(60)) * np.uint8(2))
    np.testing.assert_array_equal(hashes, doubled)
    negative, _ = hash_grey(255 - grey)
    np.testing.assert_array_equal(negative, ~hashes)


def test_the_size_hardly_counts() -> None:
    """A picture at four times the size has nearly the same hash, another picture has not."""
    pictures = [Image.fromarray(image).resize((64, 64)) for image in grey_images(2)]
    small = np.stack([grey_copy(picture.convert("RGB")) for picture in pictures])
    large = np.stack([grey_copy(picture.resize((256, 200)).convert("RGB")) for picture in pictures])
    distances = num_differing_bits(hash_grey(small)[0][:, None], hash_grey(large)[0][None])
    assert distances.diagonal().max() <= 4
    assert min(distances[0, 1], distances[1, 0]) >= 20


def test_bits_are_counted() -> None:
    """By NumPy's function and by the table that replaces it before NumPy 2.0."""
    words = random_hashes(50, 1)
    expected = [int(word).bit_count() for word in words]
    assert num_differing_bits(words, np.zeros_like(words)).tolist() == expected
    assert count_by_table(words).tolist() == expected
    assert count_by_table(words.reshape(5, 10)).shape == (5, 10)


def test_without_numpys_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 1.26 has no function for it."""
    first, second = random_hashes(8, 1)[:, None], random_hashes(9, 2)[None]
    expected = num_differing_bits(first, second)
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(num_differing_bits(first, second), expected)


@pytest.mark.parametrize("pairs_at_once", [1, 7, 40, 41, 10_000])
def test_chunks_do_not_change_the_pairs(pairs_at_once: int) -> None:
    """All pairs within the distance, whatever fits into memory at a time."""
    queries, bank = random_hashes(30, 1), random_hashes(40, 2)
    bank[5], bank[17] = queries[3] ^ np.uint64(0b101), queries[29]
    found = {
        (int(row), int(other))
        for part in near_pairs(queries, bank, 22, pairs_at_once)
        for row, other in zip(*part, strict=True)
    }
    expected = {
        (row, other)
        for row in range(30)
        for other in range(40)
        if (int(queries[row]) ^ int(bank[other])).bit_count() <= 22
    }
    assert found == expected
    assert {(3, 5), (29, 17)} <= found


def test_no_pairs_of_no_images() -> None:
    """Either side may be empty."""
    nothing = np.empty(0, np.uint64)
    assert list(near_pairs(nothing, random_hashes(3, 0), 64)) == []
    assert list(near_pairs(random_hashes(3, 0), nothing, 64)) == []


def test_correlation_at_the_best_shift() -> None:
    """Two pixels in any direction, and any brightness; unrelated images do not correlate."""
    large = np.random.default_rng(0).integers(60, 160, (3, 36, 36)).astype(np.uint8)
    middle, corner = large[:, 2:34, 2:34], large[:, 4:36, 0:32]
    np.testing.assert_allclose(aligned_correlation(middle, corner), 1, atol=1e-5)
    np.testing.assert_allclose(aligned_correlation(middle, corner + np.uint8(50)), 1, atol=1e-5)
    assert aligned_correlation(middle, corner[[1, 2, 0]]).max() < 0.3


def test_images_of_one_brightness_do_not_correlate() -> None:
    """Their correlation is undefined; 0 keeps them apart."""
    flat = np.full((1, 32, 32), 90, np.uint8)
    assert aligned_correlation(flat, grey_images(1)).tolist() == [0]


def test_pixels_and_images_have_the_same_fingerprints() -> None:
    """Sets in memory are hashed at once, files one by one."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3)).astype(np.uint8)
    prints = fingerprint_images(ImageSet.from_array("x", pixels, [0] * 5, ["a"]), "x")
    copies = np.stack([grey_copy(Image.fromarray(image)) for image in pixels])
    np.testing.assert_array_equal(prints.grey, copies)
    assert len(set(prints.digests)) == len(prints) == 5
    assert prints.is_rich.all()


def test_detail() -> None:
    """Noise has it; noise of little contrast, and noise enlarged from 8 pixels, have not."""
    noise = grey_images(4)
    small = [Image.fromarray(image[:8, :8]) for image in noise]
    enlarged = np.stack([np.asarray(image.resize((32, 32))) for image in small])
    assert has_detail(noise).all()
    assert not has_detail(noise // 20 + 80).any()
    assert not has_detail(enlarged).any()
