"""Next uses of a trace, against looking ahead by hand."""

import numpy as np
import pytest
from forests import random_prompts, requests

from kvtier.sim.future import Future


def by_hand(prompts, now, block):
    return next((number for number in range(now + 1, len(prompts)) if block in prompts[number]), len(prompts))


@pytest.mark.parametrize("seed", range(20))
def test_every_block_used_so_far_has_the_next_use_found_by_looking_ahead(seed):
    prompts = random_prompts(seed, max_blocks=20, max_requests=15)
    future, used = Future(requests(prompts)), set()

    for now, prompt in enumerate(prompts):
        future.advance()
        used.update(prompt)

        assert [future.next_use(block) for block in sorted(used)] == [
            by_hand(prompts, now, block) for block in sorted(used)
        ]


def test_ids_need_not_follow_each_other():
    prompts = [[7, 3, 9], [7, 3, 2], [7], [7, 3, 9]]
    future = Future(requests(prompts))

    future.advance()

    assert [future.next_use(block) for block in prompts[0]] == [1, 1, 3]


def test_never_is_the_number_of_requests():
    future = Future(requests([[0, 1], [0]]))
    future.advance()
    future.advance()

    assert (future.never, future.next_use(0), future.next_use(1)) == (2, 2, 2)


def test_a_request_without_blocks_takes_its_turn():
    future = Future(requests([[0], [], [0]]))

    future.advance()
    future.advance()

    assert future.next_use(0) == 2


def test_a_trace_without_requests_has_a_future():
    assert Future([]).never == 0


def test_long_prompts_are_kept_as_runs():
    prompts = [list(range(1000)) for _ in range(100)]

    future = Future(requests(prompts))

    assert len(future._prompts._first) == len(future._steps._first) == 100


def test_next_uses_are_plain_numbers():
    future = Future(requests([[0]]))
    future.advance()

    assert type(future.next_use(0)) is int
    assert not isinstance(future.next_use(0), np.integer)
