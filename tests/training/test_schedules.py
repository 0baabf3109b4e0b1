from collections import Counter

import pytest

from dwarf_cxr.training.schedules import active_findings


def test_cycle_of_500_epochs_over_13_findings():
    # 500 = 38 · 13 + 6
    passes = Counter(
        active_findings("cyclic", epoch=epoch, step=7 * epoch, findings=13) for epoch in range(500)
    )
    assert passes == {(finding,): 39 if finding < 6 else 38 for finding in range(13)}


@pytest.mark.parametrize("epoch", [0, 1, 12, 13, 25])
def test_cyclic_keeps_its_finding_through_an_epoch(epoch):
    chosen = {active_findings("cyclic", epoch=epoch, step=step, findings=13) for step in range(30)}
    assert chosen == {(epoch % 13,)}


def test_interleaved_changes_every_step_whatever_the_epoch():
    chosen = [
        active_findings("interleaved", epoch=step // 5, step=step, findings=3) for step in range(7)
    ]
    assert chosen == [(0,), (1,), (2,), (0,), (1,), (2,), (0,)]


def test_joint_trains_all():
    assert active_findings("joint", epoch=4, step=9, findings=4) == (0, 1, 2, 3)


@pytest.mark.parametrize("schedule", ["cyclic", "interleaved", "joint"])
def test_one_finding_alone(schedule):
    assert active_findings(schedule, epoch=3, step=5, findings=1) == (0,)
