"""Prompts: exact length, the same for a seed, different between seeds."""

import pytest
from lib.text import prompt_ids


class Words:
    """A tokenizer that numbers words, as they come, and knows them again."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}
        self.asked_for_special_tokens = False

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        self.asked_for_special_tokens |= add_special_tokens
        return [self.ids.setdefault(word, len(self.ids)) for word in text.split()]


class Characters:
    """A tokenizer that splits digits, like SmolLM2's: the worst case for telling seeds apart."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [ord(character) for character in text]


@pytest.mark.parametrize("num_tokens", [0, 1, 17, 4096])
def test_a_prompt_has_exactly_the_length_asked_for(num_tokens: int) -> None:
    assert len(prompt_ids(Words(), num_tokens, seed=3)) == num_tokens


def test_a_prompt_may_be_longer_than_all_documents_and_does_not_repeat_their_order() -> None:
    tokenizer = Words()

    ids = prompt_ids(tokenizer, 200_000, seed=0)

    assert len(ids) == 200_000
    headings = [i for i in range(len(ids)) if ids[i : i + 3] == ids[:3]]
    assert len(headings) >= 2, "a new heading marks each time round"
    start = headings[1]
    assert ids[start : start + 200] != ids[:200]


def test_a_seed_gives_the_same_prompt_again() -> None:
    tokenizer = Words()

    assert prompt_ids(tokenizer, 3000, seed=5) == prompt_ids(tokenizer, 3000, seed=5)


def test_a_short_prompt_is_a_prefix_of_a_long_one() -> None:
    tokenizer = Words()

    assert prompt_ids(tokenizer, 5000, seed=5)[:100] == prompt_ids(tokenizer, 100, seed=5)


def test_prompts_of_different_seeds_differ_from_the_first_word_on() -> None:
    tokenizer = Words()

    first = {prompt_ids(tokenizer, 1, seed=seed)[0] for seed in range(200)}

    assert len(first) == 200


def test_prompts_of_different_seeds_share_no_block_even_where_digits_are_tokens() -> None:
    blocks = {tuple(prompt_ids(Characters(), 5, seed=seed)) for seed in range(1000)}

    assert len(blocks) == 1000


def test_the_order_of_documents_depends_on_the_seed() -> None:
    tokenizer = Words()
    heading = 10  # words

    bodies = {tuple(prompt_ids(tokenizer, 40, seed=seed)[heading:]) for seed in range(20)}

    assert len(bodies) > 10


def test_no_special_tokens_are_added() -> None:
    tokenizer = Words()

    prompt_ids(tokenizer, 10, seed=0)

    assert not tokenizer.asked_for_special_tokens


def test_a_negative_length_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        prompt_ids(Words(), -1, seed=0)
