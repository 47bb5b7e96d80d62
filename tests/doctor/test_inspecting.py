"""An inspection counts what is there, and names beginnings where prompts part."""

import json
import subprocess
import time

import numpy as np
import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    NAMES,
    OTHER,
    OTHERS,
    SIDE,
    SLOT,
    destroy_trees,
    entry_of,
    fill,
    names_of,
    prompt,
    set_entry,
)
from tier_helpers import python

from kvtier.doctor.inspecting import inspect, tokenizer_decoder
from kvtier.errors import ConfigError, TierUnavailableError


def test_blocks_and_bytes_are_counted(store):
    found = inspect(store)

    assert (found.blocks, found.orphans) == (11, 0)
    assert (found.block_bytes, found.block_tokens, found.slot_bytes) == (BLOCK, 16, SLOT)
    assert found.payload_bytes == 11 * BLOCK
    assert found.file_bytes == (store / "data.mdb").stat().st_blocks * 512
    assert (found.slots, found.slots_used) == (64, 11)


def test_each_namespace_has_its_blocks_and_prompts(store):
    fill(store, LONG, namespace=OTHERS)

    spaces = {space.root: (space.blocks, space.bytes, space.prompts) for space in inspect(store).spaces}

    assert spaces == {NAMES.root.hex(): (11, 11 * BLOCK, 3), OTHERS.root.hex(): (5, 5 * BLOCK, 1)}


def test_depths_are_counted_by_powers_of_two(store):
    bars = {bar.label: bar.blocks for bar in inspect(store).depths}

    assert bars == {"0": 2, "1": 3, "2 to 3": 5, "4 to 7": 1}


def test_every_block_has_an_age(store):
    assert sum(bar.blocks for bar in inspect(store).ages) == 11


def test_ages_are_those_of_the_clock(store):
    ages_s = {name: 5 * 60 for tokens in (LONG, SIDE, OTHER) for name in names_of(tokens)}
    ages_s |= {names_of(LONG)[4]: 2 * 3600, names_of(SIDE)[3]: 30 * 86400, names_of(OTHER)[0]: -3600}
    for name, age_s in ages_s.items():
        head, tokens = entry_of(store, name)
        head["time"] = int(time.time()) - age_s
        set_entry(store, name, head.tobytes() + tokens)

    assert {bar.label: bar.blocks for bar in inspect(store).ages if bar.blocks} == {
        "under 1 min": 1,
        "1 min to 10 min": 8,
        "1 h to 6 h": 1,
        "over 1 week": 1,
    }


def test_a_namespace_is_described_as_far_as_the_store_knows_it(store):
    assert [space.about for space in inspect(store).spaces] == [NAMES.record()]


def test_the_size_it_was_opened_for_is_told(store):
    assert (inspect(store).capacity_blocks, inspect(store).slots_quarantined) == (64, 0)


def test_the_longest_chains_come_first(store):
    assert [(each.blocks, each.tokens, each.block) for each in inspect(store).longest] == [
        (5, 80, names_of(LONG)[4].hex()),
        (4, 64, names_of(SIDE)[3].hex()),
        (3, 48, names_of(OTHER)[2].hex()),
    ]


def test_a_prefix_is_named_where_prompts_part(store):
    (top,) = inspect(store).top

    assert (top.block, top.blocks, top.below) == (names_of(LONG)[0].hex(), 1, 7)


def test_prefixes_with_more_below_them_come_first(store):
    fill(store, *(prompt("c", i, blocks=4) for i in range(4)))

    found = inspect(store).top

    assert [each.below for each in found] == [12, 7]
    assert found[0].block == names_of(prompt("c", blocks=1))[0].hex()


def test_only_so_many_prefixes_are_named_as_are_asked_for(store):
    assert len(inspect(store, num_top=2).longest) == 2


def test_without_a_tokenizer_a_prefix_is_shown_by_its_token_ids(store):
    longest = inspect(store).longest[0]

    assert longest.first_ids == LONG[:16]
    assert longest.last_ids == LONG[-16:]
    assert longest.text is None


def test_with_a_tokenizer_its_first_and_last_tokens_are_text(store):
    longest = inspect(store, decode=lambda ids: "+".join(map(str, ids))).longest[0]

    assert longest.text == "+".join(map(str, LONG[:16])) + " ... " + "+".join(map(str, LONG[-16:]))


def test_a_short_prefix_is_shown_once(store):
    (top,) = inspect(store, decode=lambda ids: str(len(ids))).top

    assert (top.text, top.last_ids) == ("16", [])


def test_orphans_are_counted_and_hang_nowhere(store):
    set_entry(store, names_of(LONG)[1], None)

    found = inspect(store)

    assert (found.blocks, found.orphans) == (10, 3)
    assert [each.blocks for each in found.longest] == [4, 3]


def test_a_store_that_holds_nothing_can_be_inspected(tmp_path):
    found = inspect(fill(tmp_path / "empty"))

    assert (found.blocks, found.spaces, found.ages, found.depths, found.longest, found.top) == (0, [], [], [], [], [])


def test_a_damaged_structure_is_not_opened(store):
    destroy_trees(store)

    with pytest.raises(TierUnavailableError, match="check --repair"):
        inspect(store)


def test_an_inspection_can_be_written_as_json(store):
    assert json.loads(json.dumps(inspect(store).as_dict()))["blocks"] == 11


HOLDER = """
import sys
from pathlib import Path
from doctor_helpers import opened
with opened(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_store_in_use_is_described_with_the_process_that_has_it(store):
    holder = subprocess.Popen(**python("-c", HOLDER, store, stdin=subprocess.PIPE))
    with holder:
        assert holder.stdout.readline() == "open\n"

        found = inspect(store)

        holder.stdin.close()
        holder.wait(timeout=60)

    assert (found.blocks, found.in_use_by) == (11, str(holder.pid))


# Tokenizers


def test_a_tokenizer_beside_a_model_is_used(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"so": 0, "what": 1}, unk_token="so"))
    words.save(str(tmp_path / "tokenizer.json"))

    assert tokenizer_decoder(tmp_path)([1, 0]) == "what so"
    assert tokenizer_decoder(tmp_path / "tokenizer.json")(np.array([1])) == "what"


def test_a_directory_without_a_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")

    with pytest.raises(ConfigError, match="there is no tokenizer"):
        tokenizer_decoder(tmp_path)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(ConfigError, match="is not a tokenizer"):
        tokenizer_decoder(tmp_path)


def test_without_the_library_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)

    with pytest.raises(ConfigError, match="pip install"):
        tokenizer_decoder(tmp_path)
