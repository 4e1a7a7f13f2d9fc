import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host_reads import HostReads
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from rsa_eval.evaluators import Workspace
from rsa_eval.evaluators.knn import vote as knn
from rsa_eval.evaluators.knn.evaluator import evaluate_knn
from rsa_eval.evaluators.knn.settings import KNNConfig, KNNSetting
from rsa_eval.evaluators.knn.vote import class_scores, knn_answers
from rsa_eval.evaluators.shared import neighbours, selection
from rsa_eval.evaluators.shared.memory_plan import ChunkPlan
from rsa_eval.evaluators.shared.metrics import Answers, TopKCounts, answer
from rsa_eval.evaluators.shared.neighbours import nearest_rows
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.features.share import ALONE
from rsa_eval.features.subject import Subject
from rsa_pretrain.plumbing.errors import UserError

CPU = torch.device("cpu")
BUDGET = 64


def _labelled(rows: list[list[float]], labels: list[int]) -> LabelledFeatures:
    return LabelledFeatures(torch.tensor(rows), torch.tensor(labels))


def _unit(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


def _random_problem(seed: int) -> tuple[LabelledFeatures, LabelledFeatures]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(7, 12, generator=generator)

    def draw(count: int) -> LabelledFeatures:
        labels = torch.randint(7, (count,), generator=generator)
        noise = torch.randn(count, 12, generator=generator)
        return LabelledFeatures(centres[labels] + 2 * noise, labels)

    return draw(150), draw(61)


def _normalised(features: Tensor) -> np.ndarray:
    array = features.double().numpy()
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def knn_counts(*arguments: Any) -> list[TopKCounts]:
    """The hits of each setting."""
    return [answers.counts for answers in knn_answers(*arguments)]


# One voter of class 0 close by, two of class 1 farther away.
BANK = _labelled([_unit(5), _unit(40), _unit(-40), _unit(90)], [0, 1, 1, 2])
QUERY = _labelled([_unit(0)], [0])


@pytest.mark.parametrize(
    ("setting", "right"),
    [
        (KNNSetting(k=1, temperature=None), 1),
        (KNNSetting(k=3, temperature=None), 0),  # one vote against two
        (KNNSetting(k=3, temperature=0.1), 1),  # exp(9.96) against 2 exp(7.66)
        (KNNSetting(k=3, temperature=1.0), 0),  # exp(0.996) against 2 exp(0.766)
    ],
)
def test_hand_worked_neighbours(setting: KNNSetting, right: int) -> None:
    """The nearest wins alone or by weight, and is outvoted without or with a flat weight."""
    (counts,) = knn_counts(BANK, QUERY, [setting], 3, BUDGET, CPU)
    assert counts == TopKCounts(right, 1, 1)


def test_scores_are_the_sum_of_weighted_votes() -> None:
    """Up to a factor exp(s_max / T), score_c = Σ exp(s / T)·1[y = c]; -inf without a vote."""
    similarities = torch.tensor([[0.9, 0.7, 0.2]])
    scores = class_scores(similarities, torch.tensor([[2, 0, 2]]), 4, 0.5)
    expected = [math.exp(1.4), -math.inf, math.exp(1.8) + math.exp(0.4), -math.inf]
    factor = math.exp(-1.8)
    assert scores[0].tolist() == pytest.approx([value * factor for value in expected])


def test_small_temperature_does_not_overflow() -> None:
    """At T = 1e-4 a bare exp(s / T) is infinite; the vote still goes to the nearest."""
    scores = class_scores(torch.tensor([[0.99, 0.98]]), torch.tensor([[1, 0]]), 2, 1e-4)
    assert scores.isfinite().all()
    assert scores.argmax().item() == 1


@pytest.mark.parametrize(("k", "temperature"), [(1, None), (20, None), (20, 0.07), (100, 0.1)])
def test_equal_to_scikit_learn(k: int, temperature: float | None) -> None:
    """Predictions are those of scikit-learn's brute force with the same weights."""
    bank, queries = _random_problem(0)

    def weights(distances: np.ndarray) -> np.ndarray:
        return (
            np.ones_like(distances)
            if temperature is None
            else np.exp((1 - distances) / temperature)
        )

    classifier = KNeighborsClassifier(k, weights=weights, algorithm="brute", metric="cosine")
    classifier.fit(_normalised(bank.features), bank.labels.numpy())
    right = classifier.predict(_normalised(queries.features)) == queries.labels.numpy()
    (counts,) = knn_counts(
        bank, queries, [KNNSetting(k=k, temperature=temperature)], 7, BUDGET, CPU
    )
    assert counts.top1 == right.sum()
    assert counts.total == len(queries.labels)


def test_all_settings_in_one_pass_equal_each_alone() -> None:
    """A smaller k takes a prefix of the neighbours of the largest."""
    bank, queries = _random_problem(1)
    settings = [KNNSetting(k=k, temperature=t) for k in (3, 50, 10) for t in (None, 0.1)]
    together = knn_counts(bank, queries, settings, 7, BUDGET, CPU)
    alone = [knn_counts(bank, queries, [setting], 7, BUDGET, CPU)[0] for setting in settings]
    assert together == alone


@pytest.fixture
def in_chunks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A function that makes the search go in chunks of so many queries and so many voters."""

    def use(num_queries: int, num_rows: int) -> None:
        plan = ChunkPlan(num_queries, num_rows)
        monkeypatch.setattr(knn, "plan_chunks", lambda *sizes: plan)

    return use


def test_chunks_do_not_matter(in_chunks: Callable[[int, int], None]) -> None:
    """Chunks of one, of sizes that leave partial last ones, and one for all agree."""
    bank, queries = _random_problem(2)
    settings = [KNNSetting(k=k, temperature=0.1) for k in (1, 10, 100)]
    expected = knn_counts(bank, queries, settings, 7, BUDGET, CPU)
    for sizes in ((1, 1), (7, 16), (16, 149), (1000, 30), (13, 1000)):
        in_chunks(*sizes)
        assert knn_counts(bank, queries, settings, 7, BUDGET, CPU) == expected


# M_MMAP_THRESHOLD = -3: a tensor's memory returns when it is freed; else the peak depends on how
# the C library's heap happens to lie.
_PEAK = """
import ctypes, resource, sys, torch
from rsa_eval.features.labelled import LabelledFeatures
from rsa_eval.evaluators.knn.vote import knn_answers
from rsa_eval.evaluators.knn.settings import KNNSetting

ctypes.CDLL(None).mallopt(-3, 2**16)
torch.set_num_threads(1)
def draw(count):
    rows = getattr(torch, sys.argv[1])(count, 64, dtype=torch.float16)
    return LabelledFeatures(rows, torch.zeros(count, dtype=torch.int64))
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
def count(bank, queries):
    knn_answers(bank, queries, [KNNSetting(k=20, temperature=0.1)], 10, 48, torch.device("cpu"))
bank = draw(100_000)
count(draw(100), draw(10))
before = peak()
count(bank, draw(1000))
print(before, peak())
"""


@pytest.mark.parametrize("rows", ["rand", "ones"])
def test_memory_stays_within_the_budget(rows: str, python: Any) -> None:
    """With 48 MiB, in place of 400 for all similarities, the peak rises by no more.

    Also where all rows are equal. 16 MiB beside them are the buffers of a matrix product.
    """
    done = python.run("-c", _PEAK, rows)
    done.check_returncode()
    before, after = map(int, done.stdout.split())
    assert after - before < 48 + 16


def test_half_precision_banks_are_converted(in_chunks: Callable[[int, int], None]) -> None:
    """Features kept in fp16 give the counts of their float32 values."""
    bank, queries = _random_problem(4)
    halves = [LabelledFeatures(x.features.half(), x.labels) for x in (bank, queries)]
    rounded = [LabelledFeatures(x.features.float(), x.labels) for x in halves]
    settings = [KNNSetting(k=10, temperature=0.1)]
    in_chunks(16, 40)
    found, expected = (knn_counts(*pair, settings, 7, BUDGET, CPU) for pair in (halves, rounded))
    assert found == expected


def test_features_are_left_as_they_were() -> None:
    """Normalisation works on copies; the caller's features may be mapped from a file."""
    bank, queries = _random_problem(5)
    before = bank.features.clone(), queries.features.clone()
    knn_counts(bank, queries, [KNNSetting(k=3, temperature=None)], 7, BUDGET, CPU)
    assert torch.equal(bank.features, before[0])
    assert torch.equal(queries.features, before[1])


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
@pytest.mark.parametrize("side", ["bank", "queries"])
def test_features_that_are_not_finite_are_refused(value: float, side: str) -> None:
    """NaN, infinity and what overflows when squared would be everybody's or nobody's neighbour."""
    bank, queries = _random_problem(6)
    {"bank": bank, "queries": queries}[side].features[5, 3] = value
    with pytest.raises(UserError, match="need finite features; 1 of"):
        knn_counts(bank, queries, [KNNSetting(k=3, temperature=None)], 7, BUDGET, CPU)


@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.1, 1e-5])
@pytest.mark.parametrize("k", [1, 3, 4, 6, 20, 200])
def test_top5_counts_only_classes_with_a_vote(
    k: int, temperature: float | None, leave_one_out: bool
) -> None:
    """Counts are those of a list of the voted classes by weight, which may name fewer than five."""
    bank, queries = _random_problem(10)
    asked = bank if leave_one_out else queries
    setting = KNNSetting(k=k, temperature=temperature)
    (counts,) = knn_counts(bank, None if leave_one_out else queries, [setting], 7, BUDGET, CPU)
    right = [0, 0]
    similarities = _normalised(asked.features) @ _normalised(bank.features).T
    if leave_one_out:
        np.fill_diagonal(similarities, -np.inf)
    for row, label in zip(similarities, asked.labels.tolist(), strict=True):
        nearest = np.argsort(-row, kind="stable")[: min(k, len(row) - leave_one_out)]
        votes = dict.fromkeys(sorted(bank.labels[nearest].tolist()), 0.0)
        for neighbour in nearest:
            shifted = row[neighbour] - row[nearest[0]]
            weight = 1.0 if temperature is None else math.exp(shifted / temperature)
            votes[int(bank.labels[neighbour])] += weight
        ranking = sorted(votes, key=lambda label: -votes[label])
        right[0] += label == ranking[0]
        right[1] += label in ranking[:5]
    assert counts == TopKCounts(*right, len(asked.labels))


@pytest.mark.parametrize("temperature", [None, 0.07])
def test_one_neighbour_names_one_class(temperature: float | None) -> None:
    """With k=1 top-5 is top-1: no class is added by its index."""
    bank, queries = _random_problem(11)
    (counts,) = knn_counts(
        bank, queries, [KNNSetting(k=1, temperature=temperature)], 7, BUDGET, CPU
    )
    assert 0 < counts.top1 == counts.top5 < counts.total


def test_a_vote_too_light_for_a_float_is_a_vote() -> None:
    """At T = 1e-4 the second neighbour weighs exp(-5000), 0 as a float: its class ranks second."""
    similarities, voters = torch.tensor([[0.9, 0.4]]), torch.tensor([[7, 9]])
    scores = class_scores(similarities, voters, 10, 1e-4)
    assert scores[0].isfinite().nonzero()[:, 0].tolist() == [7, 9]
    assert scores[0, 7] > scores[0, 9] == 0.0


def test_a_single_class_is_always_right() -> None:
    """Every vote goes to it, at any k."""
    bank, queries = _random_problem(7)
    one_class = [LabelledFeatures(x.features, torch.zeros_like(x.labels)) for x in (bank, queries)]
    settings = [KNNSetting(k=k, temperature=t) for k in (1, 500) for t in (None, 0.1)]
    assert set(knn_counts(*one_class, settings, 1, BUDGET, CPU)) == {TopKCounts(61, 61, 61)}


def test_labels_need_not_be_contiguous() -> None:
    """Classes 0, 10, 20, … of 61 count as classes 0, 1, 2, … of 7 do."""
    bank, queries = _random_problem(8)
    spread = [LabelledFeatures(x.features, 10 * x.labels) for x in (bank, queries)]
    settings = [KNNSetting(k=10, temperature=0.1)]
    (found,) = knn_counts(*spread, settings, 61, BUDGET, CPU)
    (expected,) = knn_counts(bank, queries, settings, 7, BUDGET, CPU)
    assert found.top1 == expected.top1


@pytest.mark.parametrize("sizes", [(1000, 1000), (7, 16), (1, 1)])
def test_leave_one_out_equals_removing_each_voter(
    sizes: tuple[int, int], in_chunks: Callable[[int, int], None]
) -> None:
    """Each image is classified by the bank without it, also where k takes all others."""
    bank, _ = _random_problem(9)
    settings = [KNNSetting(k=k, temperature=0.1) for k in (1, 20, 149, 400)]
    in_chunks(*sizes)
    found = knn_counts(bank, None, settings, 7, BUDGET, CPU)
    expected = [[0, 0, 0] for _ in settings]
    for row in range(len(bank.labels)):
        others = torch.arange(len(bank.labels)) != row
        rest = LabelledFeatures(bank.features[others], bank.labels[others])
        one = LabelledFeatures(bank.features[row : row + 1], bank.labels[row : row + 1])
        alone = knn_counts(rest, one, settings, 7, BUDGET, CPU)
        for total, counts in zip(expected, alone, strict=True):
            total[:] = np.add(total, [counts.top1, counts.top5, counts.total])
    assert found == [TopKCounts(*total) for total in expected]


def test_leave_one_out_of_one_is_refused() -> None:
    """Nobody is left to ask."""
    with pytest.raises(UserError, match="two or more"):
        knn_counts(QUERY, None, [KNNSetting(k=1, temperature=None)], 1, BUDGET, CPU)


def test_leave_one_out_is_said_in_the_record(
    subject: Subject, knn_config: KNNConfig, workspace: Workspace
) -> None:
    """It counts the training images, reads no test image, and is a departure."""
    config = knn_config.model_copy(update={"leave_one_out": True})
    result = evaluate_knn(subject, config, workspace)
    assert result.num_samples == 60
    assert result.details["images"]["test"] is None
    assert result.details["votes"][0]["neighbours"] == 59
    assert "each training image classified by the others (protocol: test images)" in (
        result.deviations
    )


def test_k_beyond_the_bank_takes_the_whole_bank() -> None:
    """K = 200 of a bank of 150 equals k = 150."""
    bank, queries = _random_problem(3)
    settings = [KNNSetting(k=k, temperature=0.1) for k in (150, 200)]
    whole, beyond = knn_counts(bank, queries, settings, 7, BUDGET, CPU)
    assert whole == beyond


def test_tied_classes_go_to_the_lower_index() -> None:
    """One vote each for class 2 and class 1 makes class 1 the prediction."""
    bank = _labelled([_unit(10), _unit(-10)], [2, 1])
    (counts,) = knn_counts(
        bank, _labelled([_unit(0)], [1]), [KNNSetting(k=2, temperature=None)], 3, BUDGET, CPU
    )
    assert counts.top1 == 1


def test_two_processes_equal_one(tmp_path: Path, run_two_processes: Any) -> None:
    """Each searches its half of the bank, and both count what one process counts."""
    bank, queries = _random_problem(10)
    settings = [KNNSetting(k=k, temperature=t) for k in (1, 20, 149) for t in (None, 0.1)]
    expected = knn_counts(bank, queries, settings, 7, BUDGET, CPU)
    expected += knn_counts(bank, None, settings, 7, BUDGET, CPU)
    task = {
        "bank": [bank.features.tolist(), bank.labels.tolist()],
        "queries": [queries.features.tolist(), queries.labels.tolist()],
        "settings": [setting.model_dump() for setting in settings],
    }
    (tmp_path / "task.json").write_text(json.dumps(task))
    program = Path(__file__).parents[2] / "two_processes.py"
    run_two_processes(program, "knn", tmp_path / "task.json").check_returncode()
    for rank in (0, 1):
        found = json.loads((tmp_path / f"knn-{rank}.json").read_text())
        assert [TopKCounts(**counts) for counts in found] == expected


def _signs(count: int) -> LabelledFeatures:
    """Rows of ±1 of sixteen columns, whose cosines no summation rounds, so that many tie."""
    rows = torch.randint(0, 2, (count, 16)).float() * 2 - 1
    return LabelledFeatures(rows, torch.randint(7, (count,)))


@pytest.mark.parametrize("settings", [1, 3])
@pytest.mark.parametrize("sizes", [(61, 150), (7, 16)])
def test_on_a_gpu_the_vote_reads_two_numbers(
    sizes: tuple[int, int],
    settings: int,
    in_chunks: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the chunks: one of all norms, and the hits of each setting, at the end."""
    bank, queries = _random_problem(2)
    votes = [KNNSetting(k=k, temperature=0.1) for k in (1, 10, 100)[:settings]]
    expected = knn_counts(bank, queries, votes, 7, BUDGET, CPU)
    for module in (neighbours, selection):
        monkeypatch.setattr(module, "reads_are_free", lambda device: False)
    in_chunks(*sizes)
    with HostReads() as reads:
        found = knn_counts(bank, queries, votes, 7, BUDGET, CPU)
    assert found == expected
    assert reads.count <= 1 + settings


@pytest.mark.parametrize("budget", [16, None])
def test_the_budget_does_not_matter(budget: int | None) -> None:
    """Chunks of any size find the same neighbours, ties included."""
    bank, queries = _signs(20_000), _signs(500)
    settings = [KNNSetting(k=k, temperature=0.1) for k in (1, 200)]
    expected = knn_counts(bank, queries, settings, 7, 512, CPU)
    assert knn_counts(bank, queries, settings, 7, budget, CPU) == expected


@pytest.mark.gpu
@pytest.mark.parametrize("leave_one_out", [False, True])
@pytest.mark.parametrize("budget", [16, 512, None])
def test_a_gpu_counts_as_a_cpu_does(budget: int | None, leave_one_out: bool) -> None:
    """With features on either, at any budget, where no product rounds."""
    bank, queries = _signs(20_000), _signs(500)
    asked = None if leave_one_out else queries
    settings = [KNNSetting(k=k, temperature=0.1) for k in (1, 200)]
    gpu = torch.device("cuda")
    expected = knn_counts(bank, asked, settings, 7, 512, CPU)
    assert knn_counts(bank, asked, settings, 7, budget, gpu) == expected
    there = LabelledFeatures(bank.features.to(gpu), bank.labels)
    assert knn_counts(there, asked, settings, 7, budget, gpu) == expected


@pytest.mark.gpu
def test_a_gpu_is_not_waited_for() -> None:
    """CUDA itself refuses a wait while the chunks are compared and counted."""
    gpu, plan = torch.device("cuda"), ChunkPlan(100, 900)
    bank, queries = (problem.features.to(gpu) for problem in (_signs(5000), _signs(500)))
    labels, parts = torch.randint(7, (5000,), device=gpu), []
    found = nearest_rows(bank, queries, 20, plan, gpu, ALONE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            chunk, nearest = next(found)
            scores = class_scores(nearest.similarities, labels[nearest.indices], 7, 0.1)
            parts.append(answer(scores, labels[:500][chunk]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert next(found, None) is None
    assert Answers.sound(parts).counts.total == 500
