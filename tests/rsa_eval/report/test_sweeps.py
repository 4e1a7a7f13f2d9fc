from collections.abc import Callable
from pathlib import Path

from rsa_eval.records.groups import Group, group_records
from rsa_eval.records.record import Record
from rsa_eval.report.sweeps import find_sweeps

MakeTrial = Callable[..., Record]
RSA = "cifar100/rsa"


def _groups(*records: Record) -> list[Group]:
    return group_records([(Path(f"{n}.json"), record) for n, record in enumerate(records)])


def test_points_of_a_sweep_rise_with_their_value(make_trial: MakeTrial) -> None:
    """Mean and deviation per value, and the paper's number where a table prints one."""
    trials = [
        make_trial(RSA, f"method.beta_base={beta}", seed=seed, values={"top1": 70 - beta + seed})
        for beta in (0.5, 0, 0.3)
        for seed in (0, 1)
    ]
    (sweep,) = find_sweeps(_groups(*trials))
    means = [(beta, point.mean) for beta, point in sweep.points]
    assert means == [(0.0, 70.5), (0.3, 70.2), (0.5, 70.0)]
    assert sweep.title == "RSA on CIFAR-100"
    printed = {beta: row.scores["top1"].text for beta, row in sweep.published}
    assert printed == {0.3: "68.1±0.5", 0.5: "67.6±0.3"}
    assert "paper" in sweep.picture.svg


def test_one_value_is_no_sweep(make_trial: MakeTrial) -> None:
    """Two seeds of one value, or runs that differ in more, make no curve."""
    rate = make_trial(RSA, "method.beta_base=0.5", "optimizer.base_lr=0.2")
    assert find_sweeps(_groups(make_trial(RSA), make_trial(RSA, seed=1), rate)) == []


def test_methods_without_the_weight_are_left_alone(
    make_trial: MakeTrial, make_result: MakeTrial
) -> None:
    """BYOL has none, and of older records none is known."""
    assert find_sweeps(_groups(make_trial("cifar100/byol"), make_result())) == []


def test_both_of_table_1_and_3_stand_beside_imagenet100(make_trial: MakeTrial) -> None:
    """The paper prints beta 0.5 in Table 1 and 0.4 in Table 3 for the same training."""
    trials = [make_trial("imagenet100/rsa", f"method.beta_base={beta}") for beta in (0.1, 0.7)]
    (sweep,) = find_sweeps(_groups(*trials))
    printed = {beta: row.scores["top1"].text for beta, row in sweep.published}
    assert printed == {0.4: "83.7", 0.5: "83.5"}


def test_names_are_escaped_in_the_drawing(make_trial: MakeTrial) -> None:
    """A data set cannot leave the label of its picture."""
    evil = '"><script>alert(1)</script>'
    trials = [make_trial(RSA, f"method.beta_base={beta}", data_set=evil) for beta in (0, 0.5)]
    (sweep,) = find_sweeps(_groups(*trials))
    assert "<script" not in sweep.picture.svg
    assert 'aria-label="RSA on &quot;&gt;&lt;script&gt;' in sweep.picture.svg


def test_extended_runs_have_no_published_number(
    make_trial: MakeTrial, extending: Callable[..., list[str]]
) -> None:
    """The paper trained 200 epochs by one schedule."""
    words = extending(100)
    trials = [make_trial(RSA, f"method.beta_base={beta}", *words) for beta in (0.3, 0.5)]
    (sweep,) = find_sweeps(_groups(*trials))
    assert sweep.published == ()
