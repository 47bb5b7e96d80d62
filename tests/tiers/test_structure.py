"""The structure of LMDB's file: sound files pass, and what passes is sound by LMDB's own audit too."""

import random
import shutil
from contextlib import closing

import lmdb
import pytest
from lmdb.verify import VerifyError, verify
from tier_helpers import disk, put, raw

from kvtier.testing.blocks import chain
from kvtier.tiers.structure import structural_problem

PAGE = 4096


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A tier that has lived: several levels of tree, free pages, large values, dropped blocks."""
    path = tmp_path_factory.mktemp("structure") / "tier"
    with closing(disk(path, 700, 1)) as tier:
        for first in range(0, 600, 50):
            put(tier, *range(first, first + 50))
        tier.delete(chain(*range(0, 600, 3)).keys)
        put(tier, *range(600, 640))
    return path / "data.mdb"


@pytest.fixture
def data(filled, tmp_path):
    """A copy to be damaged; as long as its last page."""
    copy = tmp_path / "data.mdb"
    with raw(filled.parent) as env:
        pages = env.info()["last_pgno"] + 1
    with filled.open("rb") as source:
        copy.write_bytes(source.read(pages * PAGE))
    return copy


def by_lmdb(data):
    """Whether LMDB's own audit finds something."""
    try:
        return bool(verify(str(data), subdir=False))
    except VerifyError:
        return True


def tree_pages(data):
    """Numbers of the pages that belong to LMDB: no slots."""
    bytes_of = data.read_bytes()
    found = []
    number = 0
    while number * PAGE < len(bytes_of):
        page = bytes_of[number * PAGE : (number + 1) * PAGE]
        is_large = number > 1 and page[10] == 0x04 and int.from_bytes(page[:8], "little") == number
        found.append(number)
        number += int.from_bytes(page[12:16], "little") if is_large else 1
    return found


def test_a_tier_that_has_lived_is_sound(filled):
    assert structural_problem(filled) is None
    assert not by_lmdb(filled)


def test_a_file_that_has_just_been_made_is_sound(tmp_path):
    disk(tmp_path / "tier").close()

    assert structural_problem(tmp_path / "tier" / "data.mdb") is None


def test_an_environment_without_anything_is_sound(tmp_path):
    lmdb.open(str(tmp_path)).close()

    assert structural_problem(tmp_path / "data.mdb") is None


@pytest.mark.parametrize("seed", range(4))
def test_a_tier_is_sound_after_every_commit(tmp_path, seed):
    rng = random.Random(seed)
    with closing(disk(tmp_path / "tier", 400, 1)) as tier:
        held = []
        for _ in range(12):
            news = rng.sample(range(10_000), rng.randrange(1, 40))
            if len(held) + len(news) > 380 or rng.random() < 0.3:
                rng.shuffle(held)
                gone, held = held[: len(held) // 2], held[len(held) // 2 :]
                tier.delete(chain(*gone).keys)
            put(tier, *news)
            held = list({*held, *news})

            assert structural_problem(tmp_path / "tier" / "data.mdb") is None


def damage(rng, data, pages):
    kind = rng.choice(["bit", "bytes", "zeros", "swap", "stale", "field"])
    number = rng.choice(pages)
    with data.open("r+b") as file:
        at = number * PAGE + (rng.randrange(PAGE) if kind != "field" else rng.randrange(48))
        file.seek(at)
        old = file.read(1)[0]
        file.seek(at)
        if kind in {"bit", "field"}:
            file.write(bytes([old ^ (1 << rng.randrange(8))]))
        elif kind == "bytes":
            file.write(rng.randbytes(rng.choice([2, 8, 64])))
        elif kind == "zeros":
            file.write(bytes(rng.choice([8, 512])))
        else:
            other = rng.choice(pages)
            file.seek(other * PAGE)
            page = file.read(PAGE)
            file.seek(number * PAGE)
            file.write(page)
    return kind


@pytest.mark.parametrize("seed", range(20))
def test_what_passes_is_safe_by_lmdbs_own_audit(data, seed):
    """Ours may refuse what theirs lets pass; the other way round only for what a reader and a writer survive."""
    rng, pages, whole = random.Random(seed), tree_pages(data), data.read_bytes()
    for _ in range(10):
        data.write_bytes(whole)
        for _ in range(rng.choice([1, 1, 3])):
            damage(rng, data, pages)
        if structural_problem(data) is None and by_lmdb(data):
            said = verify(str(data), subdir=False)
            assert all("leak" in problem for problem in said), said


@pytest.mark.parametrize("size", [0, 1, 100, PAGE, 2 * PAGE - 1, 2 * PAGE, 5 * PAGE])
def test_a_file_cut_short_is_not_sound(data, size):
    with data.open("r+b") as file:
        file.truncate(size)

    assert structural_problem(data) is not None


def test_a_page_that_is_in_use_twice_is_found(data):
    """The first child of a branch page is also its second; some branch pages are free, and do not matter."""
    whole = data.read_bytes()
    branches = [n for n in tree_pages(data) if n > 1 and whole[n * PAGE + 10] == 0x01]

    def doubled(number):
        page = bytearray(whole)
        first, second = (number * PAGE + int.from_bytes(page[number * PAGE + at :][:2], "little") for at in (16, 18))
        page[first : first + 4] = page[second : second + 4]
        data.write_bytes(page)
        return structural_problem(data)

    found = [problem for problem in map(doubled, branches) if problem is not None]
    assert "tree 'index': keys are out of order" in found


@pytest.mark.parametrize("options", [{"dupsort": True}, {"integerkey": True}, {"reverse_key": True}])
def test_trees_of_a_kind_that_kvtier_does_not_make_are_refused(tmp_path, options):
    with lmdb.open(str(tmp_path), max_dbs=1) as env, env.begin(write=True) as txn:
        txn.put(bytes(8), b"value", db=env.open_db(b"other", txn=txn, **options))

    assert "flags" in structural_problem(tmp_path / "data.mdb")


def test_a_whole_copy_is_as_sound_as_the_file(filled, tmp_path):
    shutil.copy(filled, tmp_path / "copy")

    assert structural_problem(tmp_path / "copy") is None


def nodes_of(page):
    """Where the nodes of a leaf page begin, with size and kind; an independent reading."""
    count = (int.from_bytes(page[12:14], "little") - 16) // 2
    for turn in range(count):
        at = int.from_bytes(page[16 + 2 * turn : 18 + 2 * turn], "little")
        low, high, kind, key_bytes = (int.from_bytes(page[at + i : at + i + 2], "little") for i in (0, 2, 4, 6))
        yield at, low | high << 16, kind, key_bytes


def leaves(data):
    whole = data.read_bytes()
    for number in tree_pages(data):
        page = whole[number * PAGE : (number + 1) * PAGE]
        if number > 1 and page[10] == 0x02 and int.from_bytes(page[:8], "little") == number:
            yield number, page


def patch(data, at, value):
    with data.open("r+b") as file:
        file.seek(at)
        file.write(value)


def test_pages_that_the_file_has_not_got_are_missed_though_nothing_refers_to_them(data):
    for meta in (0, 1):
        at = meta * PAGE + 16 + 24 + 2 * 48
        last = int.from_bytes(data.read_bytes()[at : at + 8], "little")
        patch(data, at, (last + 10).to_bytes(8, "little"))

    assert "cut short" in structural_problem(data)


def test_a_value_that_runs_out_of_its_page_is_found(data):
    """The last node of a page of the tree, longer by eight bytes; some leaf pages are free, and do not matter."""
    whole, found = data.read_bytes(), []
    for number, page in leaves(data):
        at, size, kind, _ = max(nodes_of(page))
        if kind == 0:
            patch(data, number * PAGE + at, (size + 8).to_bytes(2, "little"))
            found.append(structural_problem(data))
            data.write_bytes(whole)

    assert any(problem is not None and "runs out of its page" in problem for problem in found)


def test_two_values_on_the_same_pages_are_found(tmp_path):
    with closing(disk(tmp_path / "tier", 600, 1)) as tier:
        put(tier, *range(400))
        for first in (0, 200):  # two lines of the journal, each too long for a page of the tree
            tier.delete(chain(*range(first, first + 200)).keys)
    data = tmp_path / "tier" / "data.mdb"
    lines = [
        number * PAGE + at + 8 + key_bytes
        for number, page in leaves(data)
        for at, size, kind, key_bytes in nodes_of(page)
        if kind == 1 and size == 16 + 200 * 37
    ]
    whole = data.read_bytes()
    first, second = dict.fromkeys(whole[at : at + 8] for at in lines)
    for at in lines:
        if whole[at : at + 8] == second:
            patch(data, at, first)

    assert "in use twice" in structural_problem(data)
