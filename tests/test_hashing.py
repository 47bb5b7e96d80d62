"""Names are a function of the prompt and the model, and of nothing else; here they are, in hex."""

import hashlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvtier.errors import ConfigError, TokenError
from kvtier.hashing import MAX_TOKEN_ID, Label, Namespace, chain_hashes, name_block, name_chain, token_array
from kvtier.spec import KVSpec

SPEC = KVSpec(layers=2, kv_heads=3, head_dim=64, dtype="float16", block_tokens=4)
NAMESPACE = Namespace(
    spec=SPEC,
    weights="w" * 8,
    revision="c0ffee",
    adapter="lora:1",
    rope="base 10000",
    tokenizer="t" * 4,
    layout="kvtier-v1",
    salt=b"\x00tenant",
)
TOKENS = [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, MAX_TOKEN_ID, 144, 7]

#: A change of any of these digests makes every store on disk unreadable: it needs a new version of the format.
ROOT = "e076ec0b55d5bd9586e75f5766b52f9a8b9ef6b0615b4175b7d0f02ec49829aa"
CHAIN = [
    "cfc3bb8f670bb5841a11a2f6c5e06732a3e5fb588b5822b3a767f2d4ca7bc5da",
    "d272678e521d42e65881f331701619554ce3859b74eda4263672b198c08b1e4e",
    "b48c3761e421d7e8c0a4f1da2db89801bbfdc2190e2483a54c65a70df92b5c1d",
]

prompts = st.lists(st.integers(0, 3), max_size=24)


# The names themselves


def framed(name, value):
    return len(name).to_bytes(4, "little") + name + len(value).to_bytes(8, "little") + value


def expected_root():
    """The root of ``NAMESPACE``, written out again."""
    text = b"".join(
        [
            framed(b"weights", b"wwwwwwww"),
            framed(b"revision", b"c0ffee"),
            framed(b"adapter", b"lora:1"),
            framed(b"rope", b"base 10000"),
            framed(b"tokenizer", b"tttt"),
            framed(b"layout", b"kvtier-v1"),
            framed(b"dtype", b"float16"),
            framed(b"layers", b"2"),
            framed(b"kv_heads", b"3"),
            framed(b"head_dim", b"64"),
            framed(b"block_tokens", b"4"),
            framed(b"salt", b"\x00tenant"),
        ]
    )
    return hashlib.blake2b(text, digest_size=32, person=b"kvtier-root-v2").digest()


def expected_chain(parent):
    found = []
    for start in (0, 4, 8):
        text = parent + b"".join(token.to_bytes(4, "little") for token in TOKENS[start : start + 4])
        parent = hashlib.blake2b(text, digest_size=32, person=b"kvtier-block-v1").digest()
        found.append(parent)
    return found


def test_the_root_has_the_known_digest():
    assert NAMESPACE.root.hex() == ROOT


def test_the_chain_has_the_known_digests():
    assert [key.hex() for key in chain_hashes(NAMESPACE, TOKENS)] == CHAIN


def test_the_known_root_is_that_of_the_documented_framing():
    assert expected_root().hex() == ROOT


def test_the_known_chain_is_that_of_the_documented_formula():
    assert [key.hex() for key in expected_chain(bytes.fromhex(ROOT))] == CHAIN


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_names_are_the_same_in_another_process(seed):
    code = (
        "import pickle; from kvtier.hashing import chain_hashes\n"
        f"names = pickle.loads(bytes.fromhex('{pickle.dumps(NAMESPACE).hex()}'))\n"
        f"for key in chain_hashes(names, {TOKENS!r}): print(key.hex())"
    )
    environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)

    assert out.stdout.split() == CHAIN


# What a name depends on

CHANGES = {
    "weights": NAMESPACE.weights + "x",
    "revision": "c0ffef",
    "adapter": "lora:2",
    "rope": "base 500000",
    "tokenizer": "u",
    "layout": "kvtier-v2",
    "salt": b"\x00tenan",
    "spec.layers": 3,
    "spec.kv_heads": 2,
    "spec.head_dim": 65,
    "spec.dtype": "bfloat16",
    "spec.block_tokens": 5,
}


def changed(field, value):
    if field.startswith("spec."):
        return replace(NAMESPACE, spec=replace(SPEC, **{field[5:]: value}))
    return replace(NAMESPACE, **{field: value})


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_changes_the_root(field):
    assert changed(field, CHANGES[field]).root != NAMESPACE.root


def test_every_field_is_in_the_list_above():
    fields = {*Namespace.__dataclass_fields__, *(f"spec.{name}" for name in KVSpec.__dataclass_fields__)}

    assert set(CHANGES) == fields - {"spec"}


@pytest.mark.parametrize(("field", "value"), [("weights", "other"), ("salt", b"other"), ("adapter", "other")])
def test_another_namespace_shares_no_block(field, value):
    theirs = chain_hashes(changed(field, value), TOKENS)

    assert not set(theirs) & set(chain_hashes(NAMESPACE, TOKENS))


def test_equal_namespaces_share_every_block():
    assert chain_hashes(replace(NAMESPACE), TOKENS) == chain_hashes(NAMESPACE, TOKENS)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"revision": "ab", "adapter": "c"}, {"revision": "a", "adapter": "bc"}),
        ({"revision": "", "adapter": "ab"}, {"revision": "ab", "adapter": ""}),
        ({"adapter": "layout"}, {"adapter": "", "layout": "layoutkvtier-v1"}),
        ({"layout": "a", "salt": b"b"}, {"layout": "ab", "salt": b""}),
    ],
)
def test_no_field_runs_into_the_next(ours, theirs):
    assert replace(NAMESPACE, **ours).root != replace(NAMESPACE, **theirs).root


def test_a_block_depends_on_every_token_before_it():
    altered = [TOKENS[0] + 1, *TOKENS[1:]]

    pairs = zip(chain_hashes(NAMESPACE, altered), chain_hashes(NAMESPACE, TOKENS), strict=True)

    assert all(theirs != ours for theirs, ours in pairs)


def test_the_same_tokens_at_another_depth_have_another_name():
    first, second = chain_hashes(NAMESPACE, [1, 2, 3, 4] * 2)

    assert first != second


@pytest.mark.parametrize("position", range(4))
def test_each_token_of_a_block_counts(position):
    altered = [1, 2, 3, 4]
    altered[position] += 2**24

    assert chain_hashes(NAMESPACE, altered) != chain_hashes(NAMESPACE, [1, 2, 3, 4])


@given(prompts, prompts)
def test_names_agree_exactly_as_far_as_whole_blocks_of_tokens_do(one, other):
    same = 0
    while same < min(len(one), len(other)) // 4 and one[: 4 * same + 4] == other[: 4 * same + 4]:
        same += 1
    ours, theirs = chain_hashes(NAMESPACE, one), chain_hashes(NAMESPACE, other)

    assert ours[:same] == theirs[:same]
    assert not set(ours[same:]) & set(theirs[same:])


@given(prompts, prompts)
def test_a_prompts_chain_starts_with_that_of_its_prefix(head, tail):
    short = chain_hashes(NAMESPACE, head)

    assert chain_hashes(NAMESPACE, head + tail)[: len(short)] == short


@given(prompts)
def test_no_name_repeats_within_a_chain(tokens):
    keys = chain_hashes(NAMESPACE, tokens)

    assert len(set(keys)) == len(keys)


# Which blocks a prompt has


@pytest.mark.parametrize(("num_tokens", "blocks"), [(0, 0), (1, 0), (3, 0), (4, 1), (5, 1), (7, 1), (8, 2)])
def test_only_whole_blocks_are_named(num_tokens, blocks):
    assert len(name_chain(NAMESPACE, range(num_tokens))) == blocks


def test_a_partial_tail_does_not_change_the_names_before_it():
    assert chain_hashes(NAMESPACE, TOKENS[:12]) == chain_hashes(NAMESPACE, TOKENS)


def test_a_label_leads_to_its_name():
    chain = name_chain(NAMESPACE, TOKENS)

    assert [name_block(label) for label in chain.labels] == chain.keys


def test_a_first_blocks_parent_is_the_root():
    assert name_chain(NAMESPACE, TOKENS).labels[0].parent == NAMESPACE.root


def test_a_later_blocks_parent_is_the_block_before_it():
    chain = name_chain(NAMESPACE, TOKENS)

    assert [label.parent for label in chain.labels[1:]] == chain.keys[:-1]


def test_labels_count_the_blocks_before():
    assert [label.depth for label in name_chain(NAMESPACE, TOKENS).labels] == [0, 1, 2]


def test_a_label_holds_the_tokens_in_little_endian():
    assert name_chain(NAMESPACE, TOKENS).labels[2].tokens.hex() == "2200000037000000ffffffff90000000"


def test_depth_is_not_part_of_the_name():
    label = Label(NAMESPACE.root, 0, b"tokens")

    assert name_block(label._replace(depth=9)) == name_block(label)


def test_a_part_of_a_chain_keeps_names_and_labels_together():
    chain = name_chain(NAMESPACE, TOKENS)

    part = chain.part(1, 3)

    assert (part.keys, part.labels) == (chain.keys[1:3], chain.labels[1:3])


# Which tokens can be named


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        np.array,
        lambda ids: np.array(ids, np.int64),
        lambda ids: np.array(ids, np.uint32),
        lambda ids: np.array(ids, np.uint64),
        lambda ids: np.array(ids, ">i8"),
        lambda ids: np.array(ids, ">u4"),
        lambda ids: np.array([ids, ids]).T[:, 0],
        torch.tensor,
    ],
    ids=["tuple", "numpy", "int64", "uint32", "uint64", "big-endian int64", "big-endian uint32", "strided", "torch"],
)
def test_the_type_of_the_tokens_does_not_matter(kind):
    assert [key.hex() for key in chain_hashes(NAMESPACE, kind(TOKENS))] == CHAIN


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
def test_narrow_integers_are_the_same_tokens(dtype):
    small = [1, 2, 3, 100]

    assert chain_hashes(NAMESPACE, np.array(small, dtype)) == chain_hashes(NAMESPACE, small)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8])
def test_narrow_tensors_are_the_same_tokens(dtype):
    small = [1, 2, 3, 100]

    assert chain_hashes(NAMESPACE, torch.tensor(small, dtype=dtype)) == chain_hashes(NAMESPACE, small)


@pytest.mark.parametrize("empty", [[], (), np.empty(0), np.empty(0, np.int64), torch.empty(0)])
def test_an_empty_prompt_has_an_empty_chain(empty):
    assert chain_hashes(NAMESPACE, empty) == []


def test_the_largest_id_is_allowed():
    assert token_array([MAX_TOKEN_ID]).tolist() == [2**32 - 1]


def test_naming_does_not_change_the_callers_array():
    ids = np.array(TOKENS)

    chain_hashes(NAMESPACE, ids)

    assert ids.tolist() == TOKENS


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 2, -100, -1], r"token id -100 at position 2 is outside 0\.\.4294967295"),
        (np.array([-1], np.int8), "token id -1 at position 0"),
        ([0, 2**32], "token id 4294967296 at position 1"),
        ([2**63], "token id 9223372036854775808 at position 0"),
        ([2**64], "whole numbers"),
        ([1.0, 2.0], "token ids must be whole numbers, got float64; tokenize the text first"),
        (torch.ones(2), "token ids must be whole numbers, got float32"),
        ([True, False], "token ids must be whole numbers, got bool"),
        (["a", "b"], "token ids must be whole numbers"),
        ("text", "a flat sequence of ids"),
        (b"text", "a flat sequence of ids"),
        (None, "a flat sequence of ids"),
        (7, r"a flat sequence of ids; got shape \(\)$"),
        ([[1, 2], [3, 4]], r"got shape \(2, 2\); pass ids\[0\] for a batch of one"),
        (torch.zeros(1, 4, dtype=torch.long), r"got shape \(1, 4\); pass ids\[0\]"),
        (np.empty((0, 4)), r"got shape \(0, 4\)"),
        (np.zeros((1, 1, 4), int), r"got shape \(1, 1, 4\)$"),
        ([[1, 2], [3]], "a flat sequence of whole numbers"),
        ([None, 1], "token ids must be whole numbers"),
    ],
)
def test_tokens_that_cannot_be_named_are_refused(tokens, message):
    with pytest.raises(TokenError, match=message):
        chain_hashes(NAMESPACE, tokens)


# Which namespaces there can be


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", "", "two models of one shape would share blocks"),
        ("revision", "main", "'main' moves; pass the commit"),
        ("salt", "text", "salt must be bytes, got str"),
        ("salt", bytearray(b"x"), "salt must be bytes, got bytearray"),
    ],
)
def test_a_namespace_that_would_mix_users_up_is_refused(field, value, message):
    with pytest.raises(ConfigError, match=message):
        replace(NAMESPACE, **{field: value})


def test_a_namespace_needs_only_a_spec_and_weights():
    namespace = Namespace(spec=SPEC, weights="w")

    assert (namespace.revision, namespace.adapter, namespace.layout, namespace.salt) == ("", "", "kvtier-v1", b"")


def test_a_tenants_secret_is_not_in_the_repr():
    assert "tenant secret" not in repr(replace(NAMESPACE, salt=b"tenant secret"))
