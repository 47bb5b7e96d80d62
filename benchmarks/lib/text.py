"""Prompts of real English, any length, different from the first words on.

Random token ids would measure the same speed, but nobody would believe the tokens. CPython
ships some 465 kB of prose, the language reference behind ``help("topics")``; a prompt is a
heading with its number, and then those documents in an order drawn from the seed:

    seed 7   "7. A reading of the Python language reference ..."  doc 31  doc 4  doc 60  ...
    seed 8   "8. A reading of the Python language reference ..."  doc 12  doc 77  doc 4  ...

The text differs between CPython versions, so numbers are comparable only with the version
stated; ``lib.machine.conditions`` states it.
"""

import random
from collections.abc import Iterator
from itertools import count
from pydoc_data.topics import topics
from typing import Protocol


class Tokenizer(Protocol):
    """The one method of a transformers tokenizer that is needed."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Token ids of the text."""
        ...


def prompt_ids(tokenizer: Tokenizer, num_tokens: int, *, seed: int) -> list[int]:
    """A prompt of exactly ``num_tokens`` token ids.

    Args:
        tokenizer: Any transformers tokenizer. No special tokens are added.
        num_tokens: Length; 0 or more, without an upper limit: after all documents the prompt
            goes on with a new heading and a new order.
        seed: Equal seeds give equal prompts, and a shorter prompt is a prefix of a longer one.
            Different seeds part at the heading's number, that is within as many tokens as it
            has digits, so they share no block of a prefix cache.

    Raises:
        ValueError: A negative length.
    """
    if num_tokens < 0:
        raise ValueError(f"num_tokens must not be negative, got {num_tokens}")
    ids: list[int] = []
    pieces = _pieces(seed)
    while len(ids) < num_tokens:
        # Piece by piece, so that the length asked for does not change how the text is cut.
        ids.extend(tokenizer.encode(next(pieces), add_special_tokens=False))
    return ids[:num_tokens]


def _pieces(seed: int) -> Iterator[str]:
    """The endless text of a seed, a document at a time."""
    order = random.Random(seed)  # noqa: S311  (an order, not a secret)
    documents = [topics[name] for name in sorted(topics)]
    for part in count(1):
        order.shuffle(documents)
        yield f"{seed}. A reading of the Python language reference, part {part}.\n\n"
        for document in documents:
            yield document.strip() + "\n\n\n"
