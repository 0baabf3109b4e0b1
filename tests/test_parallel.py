import threading
import time

import pytest

from dwarf_cxr.parallel import in_order


def test_results_come_in_the_order_of_the_items():
    def work(number):
        time.sleep(0.01 * (number % 3 == 0))
        return number * number

    assert list(in_order(work, range(20), workers=3, ahead=5)) == [n * n for n in range(20)]
    assert list(in_order(work, [], workers=2, ahead=2)) == []


def test_only_a_few_items_are_taken_ahead_and_in_the_callers_thread():
    taken, threads = [], set()

    def items():
        for number in range(30):
            taken.append(number)
            threads.add(threading.get_ident())
            yield number

    ahead = [
        len(taken) - done - 1
        for done in in_order(lambda number: number, items(), workers=2, ahead=4)
    ]
    assert max(ahead) == 4
    assert threads == {threading.get_ident()}


def test_several_are_at_work_at_once():
    both = threading.Barrier(2, timeout=10)
    assert len(list(in_order(lambda _: both.wait(), range(4), workers=2, ahead=3))) == 4


def test_a_fault_comes_at_its_place():
    results = in_order(lambda number: 6 // number, (3, 2, 0, 1), workers=2, ahead=3)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
