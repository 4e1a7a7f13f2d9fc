"""Compare the nearest-neighbour vote with its bare matrix products and with scikit-learn."""

from typing import Annotated

import sklearn
import torch
from pydantic import Field
from sklearn.neighbors import NearestNeighbors

from benchmarks.measure import (
    Benchmark,
    BenchmarkSettings,
    Finding,
    Measurement,
    alternate,
    extra_memory,
    ratio,
)
from rsa_eval.evaluators.knn.settings import KNNSetting
from rsa_eval.evaluators.knn.vote import knn_answers
from rsa_eval.evaluators.shared.memory_plan import plan_chunks
from rsa_eval.evaluators.shared.neighbours import RowNorms, unit_rows
from rsa_eval.features.labelled import LabelledFeatures

_OURS, _BARE, _SKLEARN = "knn_answers", "products and top-k", "scikit-learn"
_NUM_CLASSES = 1000
_DRAWN_AT_ONCE = 4096


class KNNBenchmarkSettings(BenchmarkSettings):
    """Size of the search."""

    repeats: Annotated[int, Field(ge=1)] = 3
    """Timed runs of each candidate, after a warm-up run."""
    num_bank: Annotated[int, Field(ge=1)] = 200_000
    """Feature vectors that vote."""
    num_queries: Annotated[int, Field(ge=1)] = 10_000
    """Feature vectors to classify."""
    width: Annotated[int, Field(ge=1)] = 2048
    """Width of the features."""
    k: Annotated[int, Field(ge=1)] = 200
    """Neighbours; at most num_bank."""
    memory_budget_mib: Annotated[int, Field(ge=16)] = 512
    """As in the evaluation; also scikit-learn's working memory."""
    with_sklearn: bool = True
    """Also time scikit-learn, which searches on the CPU."""


def measure(settings: KNNBenchmarkSettings) -> Measurement:
    """Time the vote, its bare arithmetic and scikit-learn's search on the same features."""
    generator = torch.Generator().manual_seed(settings.seed)
    centres = torch.randn(_NUM_CLASSES, settings.width, generator=generator)
    bank = _draw(settings.num_bank, centres, generator)
    queries = _draw(settings.num_queries, centres, generator)
    device, budget = torch.device(settings.device), settings.memory_budget_mib
    vote = [KNNSetting(k=settings.k, temperature=0.1)]

    def ours() -> None:
        knn_answers(bank, queries, vote, _NUM_CLASSES, budget, device)

    def bare() -> None:
        _products_and_top_k(bank.features, queries.features, settings, device)

    def scikit_learn() -> None:
        search = NearestNeighbors(n_neighbors=settings.k, algorithm="brute", metric="cosine")
        with sklearn.config_context(working_memory=budget):
            search.fit(bank.features.numpy()).kneighbors(queries.features.numpy())

    memory = extra_memory(ours, settings.device)
    candidates = {_OURS: ours, _BARE: bare}
    if settings.with_sklearn:
        candidates[_SKLEARN] = scikit_learn
    seconds = alternate(candidates, settings.repeats, settings.device)
    size = f"{settings.num_queries:,} queries, {settings.num_bank:,} x {settings.width}"
    findings = [
        Finding(
            what=f"{size}: time over that of the matrix products and top-k of the same chunks",
            value=ratio(seconds, _OURS, _BARE),
            unit="×",
            bound="at most",
            limit=1.3,
        ),
        *(
            Finding(
                what="time over that of scikit-learn's brute force, cosine",
                value=ratio(seconds, _OURS, name),
                unit="×",
                bound="at most",
                limit=1,
            )
            for name in seconds
            if name == _SKLEARN
        ),
        Finding(
            what="memory beside the features",
            value=memory / 2**30,
            unit="GiB",
            bound="at most",
            limit=1,
        ),
    ]
    return Measurement(findings, seconds)


def _draw(count: int, centres: torch.Tensor, generator: torch.Generator) -> LabelledFeatures:
    """Draw noisy copies of class centres in place, since copies would raise the peak memory."""
    labels = torch.randint(len(centres), (count,), generator=generator)
    features = torch.empty(count, centres.shape[1])
    for start in range(0, count, _DRAWN_AT_ONCE):
        rows = features[start : start + _DRAWN_AT_ONCE]
        rows.normal_(0, 2, generator=generator).add_(centres[labels[start : start + len(rows)]])
    return LabelledFeatures(features, labels)


def _products_and_top_k(
    bank: torch.Tensor,
    queries: torch.Tensor,
    settings: KNNBenchmarkSettings,
    device: torch.device,
) -> None:
    """Compute only the similarities of the vote's chunks and the k largest of each row."""
    plan = plan_chunks(
        settings.memory_budget_mib, device, len(queries), settings.width, settings.k, _NUM_CLASSES
    )
    norms = RowNorms(device)
    for part in torch.split(queries, plan.num_queries):
        unit = unit_rows(part, norms, device)
        for chunk in torch.split(bank, plan.num_rows):
            (unit @ chunk.to(device).T).topk(min(settings.k, len(chunk)), dim=1)


BENCHMARK = Benchmark(
    settings=KNNBenchmarkSettings,
    measure=measure,
    summary="Nearest neighbours compared with bare arithmetic and scikit-learn's brute force.",
)
