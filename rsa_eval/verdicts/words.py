"""Put verdicts into tables and into sentences to quote."""

from collections import Counter
from collections.abc import Sequence

from rsa_eval.statistics.intervals import LEVEL, Interval
from rsa_eval.verdicts.compare import Comparison, Decision, Verdict
from rsa_pretrain.plumbing.text_table import TableFormat, render_table

_SHOWN_DIGITS = 2
_COLUMNS = (
    "evaluation",
    "metric",
    "A",
    "B",
    "A − B",
    "95 % interval",
    "p",
    "detectable",
    "A is",
)


def verdict_table(comparison: Comparison, table_format: TableFormat = "text") -> str:
    """Format a comparison as a table: a row per evaluation, differences in points."""
    columns = list(_COLUMNS)
    if len(comparison.verdicts) > 1:
        columns[columns.index("p")] = "p (Holm)"
    rows = [
        [
            verdict.title,
            verdict.metric,
            _scores(verdict.difference.first),
            _scores(verdict.difference.second),
            signed(verdict.difference.value),
            bounds(verdict.difference.interval),
            p_text(verdict.adjusted_p),
            _detectable(verdict),
            verdict.decision,
        ]
        for verdict in comparison.verdicts
    ]
    return render_table(columns, rows, table_format, columns[2:-1])


def sentences(comparison: Comparison) -> list[str]:
    """Return a sentence to quote for each evaluation and, for several, one for all of them."""
    found = [_sentence(verdict, comparison) for verdict in comparison.verdicts]
    if len(found) > 1:
        found.append(_overall(comparison))
    return found


def caveats(comparison: Comparison) -> list[str]:
    """Return a line for each setting that differs, and for each evaluation left out."""
    notes = [f"{own.title}: {note}" for own in comparison.verdicts for note in own.notes]
    return [*notes, *(f"left out: {reason}" for reason in comparison.left_out)]


def signed(value: float) -> str:
    """Return a difference in points with its sign."""
    return f"{value:+.{_SHOWN_DIGITS}f}".replace("-", "−")


def bounds(interval: Interval) -> str:
    """Return an interval of a difference as text."""
    return f"[{signed(interval.low)}, {signed(interval.high)}]"


def p_text(p: float) -> str:
    """Return a p-value as text."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def _scores(values: Sequence[float]) -> str:
    mean = f"{sum(values) / len(values):.{_SHOWN_DIGITS}f}"
    return mean if len(values) == 1 else f"{mean} ({len(values)} seeds)"


def _detectable(verdict: Verdict) -> str:
    smallest = None if verdict.needed is None else verdict.needed.smallest_difference
    return "–" if smallest is None else f"{smallest:.{_SHOWN_DIGITS}f}"


def _sentence(verdict: Verdict, comparison: Comparison) -> str:
    difference, (first, second) = verdict.difference, (comparison.first, comparison.second)
    where = f"in {verdict.metric} of {verdict.title}"
    adjusted = f", adjusted for {len(comparison.verdicts)} evaluations"
    adjusted = adjusted if len(comparison.verdicts) > 1 else ""
    evidence = (
        f"{signed(difference.value)} points, 95 % interval {signed(difference.interval.low)} to "
        f"{signed(difference.interval.high)}"
    )
    if verdict.decision == "equivalent":
        assert verdict.adjusted_equivalence_p is not None
        text = (
            f"{first} and {second} are equivalent within {comparison.margin:g} points {where} "
            f"({evidence}; two one-sided tests, p {_equals(verdict.adjusted_equivalence_p)}"
            f"{adjusted}){_real_all_the_same(verdict)}"
        )
    elif verdict.decision == "no difference shown":
        text = (
            f"No difference between {first} and {second} is shown {where} ({evidence}; "
            f"{difference.test}, p {_equals(verdict.adjusted_p)}{adjusted}); {_power(verdict)}"
        )
    else:
        text = (
            f"{first} is {verdict.decision} than {second} {where} ({evidence}; "
            f"{difference.test}, p {_equals(verdict.adjusted_p)}{adjusted})"
        )
    if verdict.decision != "equivalent" and verdict.adjusted_equivalence_p is not None:
        text += (
            f"; nor are they shown to be equivalent within {comparison.margin:g} points "
            f"(p {_equals(verdict.adjusted_equivalence_p)})"
        )
    return f"{text}.{_scope(verdict)}"


def _equals(p: float) -> str:
    return p_text(p) if p < 0.0001 else f"= {p_text(p)}"


def _power(verdict: Verdict) -> str:
    """Say what the design could have shown, and what would settle the question."""
    needed = verdict.needed
    assert needed is not None
    if needed.smallest_difference is None:
        return "no difference would be, as so little was measured"
    text = (
        f"one of {needed.smallest_difference:.{_SHOWN_DIGITS}f} points would be shown with a power "
        "of 80 %"
    )
    remedies = []
    if needed.seeds is not None:
        remedies.append(f"{needed.seeds} seeds of each")
    if needed.images is not None:
        remedies.append(f"{needed.images:,} test images")
    if not remedies:
        return text
    return f"{text}, and that found, if it is the true one, with about {' and '.join(remedies)}"


def _real_all_the_same(verdict: Verdict) -> str:
    """Say that an equivalent model differs, if that is shown."""
    difference = verdict.difference
    if verdict.adjusted_p > 1 - LEVEL or not difference.interval.excludes(0):
        return ""
    return f", although the difference itself is shown (p {_equals(verdict.adjusted_p)})"


def _scope(verdict: Verdict) -> str:
    """Say to what a verdict does not extend."""
    difference, scope = verdict.difference, ""
    if difference.seeds is None:
        are_single = max(map(len, verdict.seeds)) == 1
        few = "Each is one trained network" if are_single else "One of them has a single seed"
        scope = f" {few}: other seeds may differ."
    elif difference.num_images is None:
        scope = " It holds for these test images: no answers by image were kept."
    return scope


def _overall(comparison: Comparison) -> str:
    counts = Counter(verdict.decision for verdict in comparison.verdicts)
    first, second = comparison.first, comparison.second
    words: dict[Decision, str] = {
        "better": f"{first} is better than {second}",
        "worse": f"{first} is worse than {second}",
        "equivalent": f"they are equivalent within {comparison.margin or 0:g} points",
        "no difference shown": "no difference is shown",
    }
    parts = [f"in {counts[key]} {text}" for key, text in words.items() if counts[key]]
    return f"Of {len(comparison.verdicts)} evaluations, {', '.join(parts)}."
