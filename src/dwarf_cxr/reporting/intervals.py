"""What an interval tells: its ends as they are written, and when a difference is better or worse.

One rule for all pages and tables.
"""

from dwarf_cxr.evaluation.bootstrap import excludes_zero

VERDICT_RULE = (
    "“better” and “worse” mark differences whose 95 % interval excludes 0; “not clear” all others: "
    "the interval holds 0, or there is none."
)
NO_INTERVAL_RULE = (
    "A dash in the place of an interval: too few draws define the value, or all give the same one, "
    "as with a single film."
)
"""Both are said wherever verdicts and intervals stand."""
DASH = "—"


def verdict(
    value: float, low: float | None, high: float | None, *, lower_is_better: bool = False
) -> str:
    """`better`, `worse` or `not clear`, by `VERDICT_RULE`."""
    if not excludes_zero(low, high):
        return "not clear"
    return "better" if (value > 0) != lower_is_better else "worse"


def why_no_interval(low: float | None, high: float | None) -> str:
    """Of ends that are no interval."""
    if low is None or high is None:
        return "no interval: undefined in most draws"
    return "no interval: the same in every draw, as with a single film"


def signed_ends(low: float, high: float) -> tuple[str, str]:
    """The ends of a difference's interval, with signs; of one without 0 neither end reads as 0."""
    digits = 3
    while (
        digits < 6
        and excludes_zero(low, high)
        and not all(round(one, digits) for one in (low, high))
    ):
        digits += 1
    return f"{low:+.{digits}f}", f"{high:+.{digits}f}"


def counted(findings: int, of: int) -> str:
    """What a macro mean is over, for its cell: empty where it is over all findings."""
    return f"{findings} of {of}" if findings < of else ""
