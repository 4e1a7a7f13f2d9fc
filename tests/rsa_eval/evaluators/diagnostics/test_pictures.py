import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rsa_eval.evaluators.diagnostics.confusion import (
    confusion_rows,
    count_confusions,
    draw_confusions,
    most_frequent_mistakes,
)
from rsa_eval.evaluators.diagnostics.embedding_plot import coloured_classes, draw_embedding, embed
from rsa_eval.evaluators.diagnostics.retrieval import classify, find_neighbours
from rsa_eval.evaluators.diagnostics.retrieval_page import (
    draw_retrieval,
    retrieval_rows,
    write_retrieval_page,
)
from rsa_eval.evaluators.diagnostics.settings import EmbeddingConfig
from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.shared.figures import CLASS_COLOURS, CLASS_MARKERS, short_name
from rsa_eval.evaluators.shared.neighbours import Neighbours
from rsa_pretrain.data.image_set import ImageSet

CPU = torch.device("cpu")
HOSTILE = "<script>alert(1)</script> $x_1$"


@pytest.fixture
def images() -> ImageSet:
    """Six noisy images of two classes, one of which has a name full of markup."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), dtype=np.uint8)
    return ImageSet.from_array("noise", pixels, [0, 1, 0, 1, 0, 1], ["plain", HOSTILE])


def test_neighbours_by_hand() -> None:
    """The cosine decides, not the length; chunks and a bank below k change nothing else."""
    bank = torch.tensor([[5.0, 0.0], [0.1, 0.1], [0.0, 2.0]])
    queries = torch.tensor([[1.0, 0.2], [0.0, 1.0], [2.0, 2.0]])
    for memory_budget_mib in (0, 16):
        found = find_neighbours(bank, queries, 2, memory_budget_mib, CPU)
        assert found.indices.tolist() == [[0, 1], [2, 1], [1, 0]]
        assert found.similarities[2].tolist() == pytest.approx([1, 0.5**0.5])
    assert find_neighbours(bank, queries, 9, 16, CPU).indices.shape == (3, 3)


def test_neighbours_do_not_depend_on_the_memory() -> None:
    """Row by row or at once, the neighbours are the same, the first of equal ones too."""
    # Unit vectors of halves, whose products no order of summation rounds.
    bank = torch.randint(0, 2, (40, 4)).float() * 2 - 1
    queries = torch.randint(0, 2, (9, 4)).float() * 2 - 1
    order = (queries @ bank.T).sort(dim=1, descending=True, stable=True).indices[:, :12]
    for memory_budget_mib in (0, 16):
        found = find_neighbours(bank, queries, 12, memory_budget_mib, CPU)
        assert torch.equal(found.indices, order)


def test_vote_by_hand() -> None:
    """Two far neighbours outvote a near one, unless the temperature makes it count more."""
    neighbours = Neighbours(torch.tensor([[0.9, 0.5, 0.5, 0.1]]), torch.tensor([[0, 1, 2, 3]]))
    labels, asked = torch.tensor([2, 1, 1, 0]), torch.tensor([1])

    def voted(vote: KNNSetting) -> list[int]:
        return classify(neighbours, labels, asked, vote, 3).predicted.tolist()

    assert voted(KNNSetting(k=3, temperature=None)) == [1]
    assert voted(KNNSetting(k=3, temperature=0.1)) == [2]
    assert voted(KNNSetting(k=2, temperature=None)) == [1]


def test_confusions_by_hand() -> None:
    """Rows are true classes, columns predicted ones."""
    labels, predictions = torch.tensor([0, 0, 1, 2, 2, 2]), torch.tensor([0, 1, 1, 0, 0, 2])
    counts = count_confusions(labels, predictions, 4)
    assert counts.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [2, 0, 1, 0], [0, 0, 0, 0]]
    names = ["a", "b", "c", "d"]
    mistakes = most_frequent_mistakes(counts, names)
    assert [(m.true, m.predicted, m.count, m.num_images) for m in mistakes] == [
        ("c", "a", 2, 3),
        ("a", "b", 1, 2),
    ]
    assert confusion_rows(counts, names)[1] == ["a", "b", 1]
    assert most_frequent_mistakes(torch.eye(3).long(), names[:3]) == []


@pytest.mark.parametrize("num_classes", [1, 2, 10, 300])
def test_pictures_of_any_number_of_classes(num_classes: int, tmp_path: Path) -> None:
    """One class, few and many are drawn without a warning, whatever their names."""
    labels = torch.arange(num_classes).repeat_interleave(4)
    predictions = torch.where(torch.arange(len(labels)) % 3 == 0, 0, labels)
    names = [f"{HOSTILE}\n{number}" for number in range(num_classes)]
    counts = count_confusions(labels, predictions, num_classes)
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusions(counts, names, "a vote", tmp_path / "confusion.png")
        draw_embedding(points, labels.numpy(), names, "points", 0, tmp_path / "embedding.png")
    for path in tmp_path.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert max(picture.size) < 2500


def test_at_most_as_many_classes_are_coloured_as_there_are_colours() -> None:
    """Each coloured class has a distinct colour and marker; the choice depends on the seed."""
    assert len(set(CLASS_COLOURS)) == len(set(CLASS_MARKERS)) == len(CLASS_COLOURS)
    labels = np.arange(300)
    drawn = coloured_classes(labels, seed=0)
    assert len(set(drawn)) == len(CLASS_COLOURS)
    assert drawn == coloured_classes(labels, seed=0) != coloured_classes(labels, seed=1)
    assert coloured_classes(np.array([5, 2, 5]), seed=0) == [2, 5]


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_embedding_separates_clusters(method: str) -> None:
    """Two opposite clusters stay apart in the plane, and the same seed gives the same plane."""
    centre = torch.zeros(12, 8)
    centre[:6, 0], centre[6:, 0] = 5, -5
    features = centre + 0.1 * torch.randn(12, 8)
    config = EmbeddingConfig(method=method)  # type: ignore[arg-type]
    points = embed(features, config, seed=0)
    assert points.shape == (12, 2)
    spread = max(np.ptp(points[:6], axis=0).max(), np.ptp(points[6:], axis=0).max())
    apart = np.linalg.norm(points[:6].mean(axis=0) - points[6:].mean(axis=0))
    assert apart > spread
    assert np.array_equal(points, embed(features, config, seed=0))


def test_retrieval_page_is_whole_and_escaped(images: ImageSet, tmp_path: Path) -> None:
    """Thumbnails are embedded, right and wrong marked, and a class's name stays text."""
    neighbours = Neighbours(torch.tensor([[0.9, 0.8]]), torch.tensor([[1, 2]]))
    rows = retrieval_rows(images, images, images.class_names, [0], neighbours)
    assert [shown.is_right for shown in rows[0].neighbours] == [False, True]
    assert rows[0].num_right == 1
    write_retrieval_page(rows, "noise <b>", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x_1$" in text
    assert "noise &lt;b&gt;" in text
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 3
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert re.findall(r'class="(right|wrong)"', text) == ["wrong", "right"]


def test_retrieval_picture_grows_with_its_rows(images: ImageSet, tmp_path: Path) -> None:
    """Rows and columns are as wide and high in a large picture as in a small one."""
    sizes = []
    for count in (1, 3):
        neighbours = Neighbours(torch.full((count, 2), 0.5), torch.tensor([[1, 2]] * count))
        rows = retrieval_rows(images, images, ["a", HOSTILE], range(count), neighbours)
        draw_retrieval(rows, HOSTILE, tmp_path / "rows.png")
        with Image.open(tmp_path / "rows.png") as picture:
            sizes.append(picture.size)
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] - sizes[0][1] == pytest.approx(2 * 1.48 * 0.92 * 100, abs=2)


def test_large_photos_become_small_thumbnails() -> None:
    """The centre square, at most 128 pixels wide, as JPEG."""
    pixels = np.zeros((1, 300, 500, 3), np.uint8)
    pixels[:, :, 150:350] = 255
    photos = ImageSet.from_array("photo", pixels, [0], ["a"])
    (row,) = retrieval_rows(
        photos,
        photos,
        ["a"],
        [0],
        Neighbours(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64)),
    )
    assert row.query.thumbnail.size == (128, 128)
    assert row.query.thumbnail.getpixel((64, 5)) == (255, 255, 255)
    assert row.query.data_uri.startswith("data:image/jpeg;base64,")


def test_short_names_are_one_line() -> None:
    """Line breaks go, and what is cut is marked."""
    assert short_name("a\n b", 5) == "a b"
    assert short_name("abcdefgh", 5) == "abcd…"
