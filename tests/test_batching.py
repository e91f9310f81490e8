from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lookalike.batching import at_least, up_to

SIZES = st.lists(st.integers(0, 20), max_size=30)


def test_what_the_examples_say() -> None:
    sized = [(size, size) for size in (3, 4, 2, 9)]
    assert list(up_to(sized, 6)) == [(3,), (4, 2), (9,)]
    assert list(at_least(sized, 6)) == [(3, 4), (2, 9)]


@given(SIZES, st.integers(1, 30))
def test_groups_are_a_partition_in_order_as_full_as_may_be(sizes: list[int], bound: int) -> None:
    items = [*enumerate(sizes)]
    for groups in (list(up_to(items, bound)), list(at_least(items, bound))):
        assert [one for group in groups for one in group] == [*range(len(sizes))]
        assert all(groups)
    most = [sum(sizes[one] for one in group) for group in up_to(items, bound)]
    pairs = zip(most, up_to(items, bound), strict=True)
    assert all(held <= bound or len(group) == 1 for held, group in pairs)
    firsts = [sizes[group[0]] for group in up_to(items, bound)]
    assert all(held + after > bound for held, after in zip(most, firsts[1:], strict=False))
    least = [sum(sizes[one] for one in group) for group in at_least(items, bound)]
    assert all(held >= bound for held in least[:-1])
    assert all(sum(sizes[one] for one in group[:-1]) < bound for group in at_least(items, bound))
