import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rsa_eval.report.comparison import compare_runs
from rsa_eval.report.inputs import collect

WriteLog = Callable[..., None]
RSA, BYOL = "cifar10/rsa", "cifar10/byol"


def _lines(*accuracies: float) -> list[dict[str, Any]]:
    return [
        {"step": 9 * n, "epoch": n, "knn_top1": a, "rankme": 2 * a}
        for n, a in enumerate(accuracies, start=1)
    ]


def test_rows_of_the_same_images_stand_in_one_picture(tmp_path: Path, write_log: WriteLog) -> None:
    """Per measure, one line per row, averaging its seeds; no run on another subset."""
    for seed in (0, 1):
        write_log(tmp_path / f"rsa/seed-{seed}", RSA, lines=_lines(30.0, 40.0 + seed))
    write_log(tmp_path / "byol/seed-0", BYOL, lines=_lines(20.0, math.nan))
    write_log(tmp_path / "silent/seed-0", BYOL, lines=[{"step": 1, "loss": 1.0}])
    write_log(tmp_path / "subset", BYOL, "data.num_train_images=100", lines=_lines(10.0))
    pictures = compare_runs(collect([tmp_path]).runs)
    family = "CIFAR-10, resnet18, cifar stem"
    assert [picture.title for picture in pictures] == [
        f"{family}: kNN top-1 (%)",
        f"{family}: effective rank (RankMe)",
    ]
    for picture in pictures:
        assert ">rsa</text>" in picture.svg
        assert ">byol</text>" in picture.svg
        assert "silent" not in picture.svg
        assert "subset" not in picture.svg


def test_a_single_row_is_not_compared(tmp_path: Path, write_log: WriteLog) -> None:
    """A single row needs no comparison."""
    write_log(tmp_path / "rsa/seed-0", RSA, lines=_lines(30.0, 40.0))
    assert compare_runs(collect([tmp_path]).runs) == []
