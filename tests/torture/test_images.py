"""Files in pages, and what a power cut may leave of two of them."""

import random

import lmdb

from torture.images import Image, cut_in_between, live_pages

PAGE = 4096


def image(size_pages, **pages):
    return Image(size_pages * PAGE, {int(name[1:]): bytes([value]) * PAGE for name, value in pages.items()})


def cuts(old, new):
    return [cut_in_between(old, new, random.Random(seed)) for seed in range(300)]


def test_a_file_is_the_same_after_a_round_through_an_image(tmp_path):
    data = random.Random(0).randbytes(3 * PAGE) + bytes(5 * PAGE) + b"end"
    (tmp_path / "file").write_bytes(data)

    Image.of(tmp_path / "file").write(tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == data


def test_every_mixture_of_pages_may_be_left_by_a_cut():
    found = {(cut.page(1)[0], cut.page(2)[0]) for cut in cuts(image(4, p1=1, p2=1), image(4, p1=2, p2=2))}

    assert found == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_a_torn_page_has_whole_sectors_of_both():
    torn = [cut.page(1) for cut in cuts(image(4, p1=1), image(4, p1=2)) if len(set(cut.page(1))) > 1]

    assert torn
    assert all(len(set(page[at : at + 512])) == 1 for page in torn for at in range(0, PAGE, 512))


def test_a_cut_may_leave_a_file_as_short_as_it_was():
    found = {(cut.size // PAGE, 7 in cut.pages) for cut in cuts(image(4), image(8, p7=1))}

    assert found == {(4, False), (8, False), (8, True)}


def test_the_pages_of_all_trees_are_found(tmp_path):
    with lmdb.open(str(tmp_path), max_dbs=2, map_size=16 << 20) as env:
        other = env.open_db(b"other")
        with env.begin(write=True) as txn:
            for number in range(3000):
                txn.put(b"%d" % number, bytes(20))
                txn.put(b"%d" % number, bytes(50), db=other)
        with env.begin() as txn:
            stats = [txn.stat(), txn.stat(other)]
    found = Image.of(tmp_path / "data.mdb")

    pages = live_pages(found)

    counted = sum(stat["branch_pages"] + stat["leaf_pages"] for stat in stats)
    assert counted <= len(pages) <= counted + 2, "what is left over is the tree of free pages"
    assert all(int.from_bytes(found.page(page)[:8], "little") == page for page in pages)
