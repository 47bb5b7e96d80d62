"""Prefill within a budget, on a clock that moves only when a model computes."""

import pytest

from kvtier.calibrate.prefill import measure_prefill, prefill_points


class Model:
    """Takes what a quadratic says, twice as long the first time that it sees a length."""

    def __init__(self):
        self.now = 0.0
        self.asked = []

    def clock(self):
        return self.now

    def true_s(self, tokens):
        return 0.1 + 0.001 * tokens

    def compute(self, tokens):
        self.now += self.true_s(tokens) * (1 if tokens in self.asked else 2)
        self.asked.append(tokens)


def measured(lengths, budget_s, runs=5):
    model = Model()
    samples = measure_prefill(model.compute, lengths, budget_s=budget_s, runs=runs, clock=model.clock, progress=False)
    return model, samples


def test_every_length_gets_its_runs_and_the_first_pass_does_not_count():
    model, samples = measured((100, 200), budget_s=100)

    assert {n: pytest.approx(seconds) for n, seconds in samples.items()} == {
        n: [model.true_s(n)] * 5 for n in (1, 100, 200)
    }


def test_lengths_take_turns():
    model, _ = measured((100, 200), budget_s=100, runs=3)

    assert model.asked[-9:] == [1, 100, 200, 100, 200, 1, 200, 1, 100]


def test_a_length_for_which_there_is_no_time_is_not_begun():
    model, samples = measured((100, 1000, 100_000), budget_s=60)

    assert list(samples) == [1, 100, 1000]
    assert 100_000 not in model.asked


def test_a_trial_that_was_held_up_does_not_end_the_search():
    class Held(Model):
        def compute(self, tokens):
            self.now += 50 * (tokens not in self.asked and tokens in {1, 100, 200})
            super().compute(tokens)

    model = Held()
    samples = measure_prefill(model.compute, (100, 200, 300), budget_s=160, runs=5, clock=model.clock, progress=False)

    assert list(samples) == [1, 100, 200, 300]


@pytest.mark.parametrize("budget_s", [8.0, 15.0, 30.0, 100.0])
def test_the_budget_is_kept(budget_s):
    model, samples = measured((64, 128, 256, 512, 1024, 2048, 4096), budget_s)

    assert len(samples) > 2
    assert model.now <= budget_s + 0.5  # the warm-up of the first pass


def test_a_longer_budget_measures_longer_prompts():
    short, long = (max(measured((64, 256, 1024, 4096), budget)[1]) for budget in (6, 100))

    assert short < long == 4096


def test_the_shortest_length_is_measured_at_any_price():
    assert list(measured((64, 128), budget_s=0.01)[1]) == [1, 64]


def test_one_token_is_measured_once_even_if_it_is_asked_for():
    assert list(measured((1, 64), budget_s=10)[1]) == [1, 64]


def test_points_have_medians_and_bands():
    points = prefill_points({1: [1.0, 2.0, 3.0], 64: [4.0, 6.0, 5.0]})

    assert [(p.tokens, p.lo, p.mid, p.hi) for p in points] == [(1, 1.0, 2.0, 3.0), (64, 4.0, 5.0, 6.0)]


def test_no_point_is_below_that_of_a_shorter_prompt():
    points = prefill_points({1: [3.0, 4.0, 9.0], 64: [1.0, 2.0, 3.0], 128: [8.0, 8.0, 8.0]})

    assert [(p.lo, p.mid, p.hi) for p in points] == [(3.0, 4.0, 9.0), (3.0, 4.0, 9.0), (8.0, 8.0, 9.0)]
