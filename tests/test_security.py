"""What docs/security.md says is defended: tenants kept apart by their salts, and nothing that runs what it reads."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from store_helpers import BLOCK, NAMESPACE, blank, fetch, keys, make, payload, saved, tokens, where

import kvtier
from kvtier.errors import CorruptBlockError
from kvtier.hashing import BlockHash, Chain, Label, name_block, name_chain
from kvtier.resting import Resting
from kvtier.tiers.disk import LMDBTier
from kvtier.tiers.memory import MemoryTier
from kvtier.tiers.volume import Volume

PACKAGE = Path(kvtier.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
ALICE = replace(NAMESPACE, salt=b"alice: 16 random bytes")
MALLORY = replace(NAMESPACE, salt=b"mallory: 16 other bytes")
WORD = "abc"


# Tenants that share a directory


@pytest.fixture
def directory(tmp_path):
    """Alice's prompt is in it."""
    with make(tmp_path, disk=16, namespace=ALICE) as store:
        saved(store, WORD)
    return tmp_path


def guesses(prompt):
    """Chains of a prompt under namespaces that somebody without Alice's salt may think of."""
    salts = [b"", MALLORY.salt, b"alice", ALICE.salt[:-1], ALICE.salt + b"\0", b"\0" + ALICE.salt, ALICE.salt.upper()]
    chains = [name_chain(replace(NAMESPACE, salt=salt), prompt) for salt in salts]
    for root in (BlockHash(bytes(32)), BlockHash(b"\xff" * 32), NAMESPACE.root):
        label = Label(root, 0, chains[0].labels[0].tokens)
        chains.append(Chain([name_block(label)], [label]))
    return chains


def test_no_guess_at_a_salt_leads_to_a_name_of_another_tenant(directory):
    with make(directory, disk=16, namespace=ALICE) as store:
        held = set(keys(store, WORD))

    assert held.isdisjoint(key for chain in guesses(tokens(WORD)) for key in chain.keys)


@pytest.mark.parametrize("salt", [b"", MALLORY.salt])
def test_another_tenant_matches_nothing(directory, salt):
    with make(directory, disk=16, namespace=replace(NAMESPACE, salt=salt)) as store:
        assert store.match(tokens(WORD)).num_blocks == 0
        assert [store.match_chain(chain.keys).num_blocks for chain in guesses(tokens(WORD))] == [0] * 10


@pytest.mark.parametrize("salt", [b"", MALLORY.salt])
def test_another_tenant_gets_nothing_and_no_payload_is_read_for_it(directory, salt, monkeypatch):
    with make(directory, disk=16, namespace=replace(NAMESPACE, salt=salt)) as store:
        monkeypatch.setattr(LMDBTier, "read", lambda *_: pytest.fail("a payload was read"))
        out = blank(len(WORD))

        assert store.get(tokens(WORD), out).num_blocks == 0
        assert [store.get_chain(chain, out).num_blocks for chain in guesses(tokens(WORD))] == [0] * 10
        assert not any(block.any() for block in out)


def test_another_tenants_put_of_the_same_prompt_is_all_new_and_changes_nothing(directory):
    with make(directory, disk=16, namespace=MALLORY) as store:
        chain = store.name(tokens(WORD))
        assert store.put_chain(chain, [torch.full((BLOCK,), 7, dtype=torch.uint8) for _ in WORD]).num_new == len(WORD)

    with make(directory, disk=16, namespace=ALICE) as store:
        assert fetch(store, WORD).num_blocks == len(WORD)


def test_tenants_of_one_store_object_are_kept_apart_by_their_names(tmp_path):
    """An engine that names blocks itself, each tenant's with its own salt."""
    theirs, own = (name_chain(namespace, tokens(WORD)) for namespace in (ALICE, MALLORY))
    with make(tmp_path, host=8, disk=16) as store:
        store.put_chain(theirs, [payload(key) for key in theirs.keys])

        assert store.match_chain(theirs.keys).num_blocks == len(WORD)
        assert store.match_chain(own.keys).num_blocks == 0
        assert store.get_chain(own, blank(len(WORD))).num_blocks == 0


@pytest.mark.parametrize("sizes", [{"host": 8}, {"disk": 8}], ids=str)
def test_a_name_without_its_token_ids_reads_nothing(tmp_path, sizes):
    """Who has seen a name, which is no secret on disk, but not the prompt."""
    with make(tmp_path if "disk" in sizes else None, **sizes) as store:
        saved(store, "a")
        key, label = keys(store, "a")[0], store.name(tokens("a")).labels[0]
        guess = label._replace(tokens=store.name(tokens("b")).labels[0].tokens)
        out = blank(1)

        assert store.get_chain(Chain([key], [guess]), out).num_blocks == 0
        assert not out[0].any()


@pytest.mark.parametrize("tier", ["memory", "disk"])
def test_two_prompts_under_one_name_are_told_apart_by_their_token_ids(tmp_path, tier):
    """A collision of BLAKE2b-256, if there were one: the name is found, the ids differ, nothing is served."""
    own, other = (name_chain(NAMESPACE, tokens(word)) for word in ("a", "b"))
    tiers = {
        "memory": lambda: MemoryTier("dram", capacity_bytes=4 * BLOCK, block_bytes=BLOCK),
        "disk": lambda: LMDBTier("nvme", tmp_path, capacity_bytes=4 * BLOCK, block_bytes=BLOCK, min_free_bytes=0),
    }
    held = tiers[tier]()
    held.write(own.keys, [payload(own.keys[0])], own.labels)
    out = blank(1)

    with pytest.raises(CorruptBlockError, match="token ids"):
        held.read(own.keys, out, other.labels)

    assert not out[0].any()
    held.close()


# What an answer to a stranger depends on


class Counted(dict):
    """The index's nodes, counting every look at them."""

    def __init__(self, nodes, looks):
        super().__init__(nodes)
        self.looks = looks

    def get(self, key, default=None):
        self.looks.append(key)
        return super().get(key, default)

    def __getitem__(self, key):
        self.looks.append(key)
        return super().__getitem__(key)

    def __contains__(self, key):
        self.looks.append(key)
        return super().__contains__(key)


def looks_of_a_match(store, prompt, monkeypatch):
    """Names looked up, in order, while a store answers ``match``."""
    looks, find = [], Resting.find
    index = store._core.placement.index
    with monkeypatch.context() as patch:
        patch.setattr(index, "nodes", Counted(index.nodes, looks))
        patch.setattr(Resting, "find", lambda self, key: (looks.append(key), find(self, key))[1])
        store.match(prompt)
    return looks


@pytest.mark.parametrize("awake", [False, True], ids=["resting", "awake"])
def test_a_match_under_an_unknown_salt_looks_up_the_same_whether_or_not_another_tenant_holds_the_prompt(
    tmp_path, monkeypatch, awake
):
    looks = {}
    for held in (WORD, "xyz"):
        with make(tmp_path / held, disk=16, namespace=ALICE) as store:
            saved(store, held)
        with make(tmp_path / held, disk=16, namespace=ALICE if awake else MALLORY) as store:
            if awake:
                fetch(store, held)  # wakes what the restart found
                store.namespace = MALLORY
            looks[held] = looks_of_a_match(store, tokens(WORD), monkeypatch)
            first = keys(store, WORD)[0]

    assert looks[WORD] == looks["xyz"]
    assert set(looks[WORD]) == {first}


def test_the_count_of_lookups_sees_a_prompt_that_is_held(tmp_path, monkeypatch):
    with make(tmp_path, disk=16) as store:
        saved(store, WORD)

        assert len(looks_of_a_match(store, tokens(WORD), monkeypatch)) == len(WORD)


@pytest.mark.parametrize("word", [WORD, "xyz"])
def test_a_match_asks_no_tier(directory, monkeypatch, word):
    with make(directory, disk=16, namespace=ALICE) as store:
        for kind, call in ((LMDBTier, "contains"), (LMDBTier, "read"), (LMDBTier, "scan"), (Volume, "places")):
            monkeypatch.setattr(kind, call, lambda *_, call=call: pytest.fail(f"{call} was called"))

        assert len(where(store, word)) == (len(WORD) if word == WORD else 0)


# Nothing runs what it reads

LOADERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle", "yaml"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
SHELLS = {"subprocess", "pty", "runpy", "code"}


def dangers(source, *, shells=True):
    """What in a piece of Python could run, or make objects of, what it reads."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        banned = LOADERS | (SHELLS if shells else set())
        found |= {name for name in names if name.split(".")[0] in banned or name in {"torch.load", "numpy.load"}}
        if isinstance(node, ast.Name) and node.id in RUNNERS:
            found.add(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            dotted = f"{node.value.id}.{node.attr}"
            if dotted in {"torch.load", "np.load", "numpy.load", "os.system", "os.popen", "builtins.eval"}:
                found.add(dotted)
        if isinstance(node, ast.keyword) and node.arg in {"allow_pickle", "shell"}:
            found.add(node.arg)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_unpickles_or_evaluates_anything(path):
    assert dangers(path.read_text(), shells="testing" not in path.parts) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import numpy, pickle as p",
        "from pickle import loads",
        "def f():\n    import marshal",
        "from torch import load",
        "import torch\nx = torch.load('f')",
        "np.load(f, allow_pickle=True)",
        "import subprocess",
        "eval('1')",
        "exec(source)",
        "__import__(name)",
    ],
)
def test_the_scan_for_what_unpickles_or_evaluates_finds_it(source):
    assert dangers(source)
