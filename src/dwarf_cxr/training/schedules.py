"""Which findings a step trains."""

from dwarf_cxr.config import ScheduleName


def active_findings(
    schedule: ScheduleName, *, epoch: int, step: int, findings: int
) -> tuple[int, ...]:
    """Indices of the findings trained in global step `step` (from 0) of `epoch` (from 0).

    cyclic: one finding per epoch in fixed rotation, on all images (paper, Fig. 1 and Algorithm 1
    as read in "trained once per epoch"); interleaved: the same, one finding per step;
    joint: every finding in every step.
    """
    if schedule == "cyclic":
        return (epoch % findings,)
    if schedule == "interleaved":
        return (step % findings,)
    return tuple(range(findings))
