from hypothesis import given
from hypothesis import strategies as st

from dwarf_cxr.review.history import reach


@given(st.lists(st.sampled_from(["edit", "undo", "redo", "import"]), max_size=40))
def test_reach_is_what_a_document_with_undo_has(actions):
    """The oracle keeps the whole document at every point, as editors do."""
    versions, at, number = [()], 0, 0
    steps = []
    for step, action in enumerate(actions, start=1):
        steps.append((step, action))
        if action == "undo":
            at = max(0, at - 1)
        elif action == "redo":
            at = min(len(versions) - 1, at + 1)
        else:
            number += 1
            versions[at + 1 :] = [(*versions[at], step)]
            at += 1
    found = reach(steps)
    assert found.undoable == versions[at]
    assert found.redoable == tuple(reversed(versions[-1][at:]))


def test_nothing_is_undone_twice():
    assert reach([]).undoable == ()
    assert reach([(1, "edit"), (2, "undo")]).undoable == ()
    assert reach([(1, "edit"), (2, "undo")]).redoable == (1,)
    assert reach([(1, "edit"), (2, "undo"), (3, "redo")]).undoable == (1,)
    assert reach([(1, "edit"), (2, "undo"), (3, "edit")]).redoable == ()
