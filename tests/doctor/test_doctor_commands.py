"""The doctor's commands: what they print, what their exit status says, and that JSON is all there is when asked for."""

import json
import re

import pytest
from doctor_helpers import (
    BLOCK,
    LONG,
    OTHER,
    OTHERS,
    PAGE,
    SIDE,
    all_held,
    destroy_trees,
    fill,
    flip,
    names_of,
    place_of,
)

from kvtier.cli import main
from kvtier.commands.progress import Meter, shown
from kvtier.doctor.copying import Source


def lines(capsys):
    return capsys.readouterr().out.splitlines()


# check


def test_a_check_of_a_good_store_says_so(store, capsys):
    assert main(["check", str(store)]) == 0

    said = lines(capsys)
    assert re.fullmatch(rf"{store}: 11 blocks, 44.0 KiB accounted, [\d.]+ KiB on disk, 64 slots", said[0])
    assert re.fullmatch(r"read 11 records, 88.0 KiB in [\d.]+ s \([\d.]+ GiB/s\)", said[1])
    assert said[-1] == "nothing wrong"


def test_a_check_of_a_damaged_store_names_the_blocks_and_the_way_out(store, capsys):
    chain = names_of(LONG)
    flip(store, place_of(store, chain[3]) + PAGE)

    assert main(["check", str(store)]) == 1

    said = lines(capsys)
    assert f"    {chain[3].hex()[:12]}  checksum mismatch: the stored bytes have changed" in said
    assert any(line.startswith(f"    {chain[4].hex()[:12]}  the block before it") for line in said)
    assert said[-1] == "kvtier check --repair puts it right"


def test_a_repair_ends_well(store, capsys):
    flip(store, place_of(store, names_of(LONG)[3]) + PAGE)

    assert main(["check", str(store), "--repair"]) == 0
    assert lines(capsys)[-1] == "repaired: 9 blocks kept, 2 removed"
    assert main(["check", str(store)]) == 0


def test_a_damaged_structure_is_repaired_by_the_same_command(store, capsys):
    destroy_trees(store)

    assert main(["check", str(store)]) == 1
    assert main(["check", str(store), "--repair"]) == 0
    assert lines(capsys)[-1] == "repaired: 11 blocks kept, 0 removed"


def test_what_cannot_be_repaired_is_not_said_to_be(tmp_path, capsys):
    (tmp_path / "data.mdb").write_bytes(bytes(8 * PAGE))

    assert main(["check", str(tmp_path), "--repair"]) == 1
    assert "start afresh" in lines(capsys)[-1]


def test_a_long_list_of_findings_is_cut(tmp_path, capsys):
    from doctor_helpers import prompt, set_entry

    tokens = prompt("long", blocks=30)
    fill(tmp_path / "s", tokens)
    set_entry(tmp_path / "s", names_of(tokens)[0], None)

    assert main(["check", str(tmp_path / "s")]) == 1
    assert "    and 24 more; --json has all of them" in lines(capsys)


@pytest.mark.parametrize("command", ["check", "inspect", "compact"])
def test_a_directory_without_a_store_is_bad_input(tmp_path, capsys, command):
    assert main([command, str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("kvtier: ")


@pytest.mark.parametrize("command", ["inspect", "compact"])
def test_a_damaged_structure_is_a_problem_of_the_store(store, capsys, command):
    destroy_trees(store)

    assert main([command, str(store)]) == 1
    assert "check --repair" in capsys.readouterr().err


# JSON


@pytest.mark.parametrize("command", ["check", "inspect", "compact"])
def test_with_json_standard_output_has_nothing_else(store, capsys, command):
    assert main([command, str(store), "--json", "-"]) == 0

    said = capsys.readouterr()
    assert json.loads(said.out)["blocks"] == 11
    assert str(store) in said.err


# inspect


def test_an_inspection_shows_namespaces_sizes_bars_and_prefixes(store, capsys):
    assert main(["inspect", str(store), "--top", "1"]) == 0

    said = "\n".join(lines(capsys))
    assert re.search(r"^blocks +11 of 16 tokens, 4.0 KiB$", said, re.MULTILINE)
    assert re.search(r"^slots +11 used, 53 free, 8.0 KiB each$", said, re.MULTILINE)
    assert re.search(rf"^5 +80 +{names_of(LONG)[4].hex()[:12]} +{LONG[0]} {LONG[1]} .*\.\.\.$", said, re.MULTILINE)
    assert re.search(rf"^7 +16 +{names_of(LONG)[0].hex()[:12]} +{LONG[0]} {LONG[1]} .*\d$", said, re.MULTILINE)
    assert "  1       3  ########################\n" in said


def test_text_too_long_for_a_line_is_cut_in_the_middle(store, capsys, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({f"word{i}": i for i in range(50_000)}, unk_token="word0"))
    words.save(str(tmp_path / "tokenizer.json"))

    assert main(["inspect", str(store), "--tokenizer", str(tmp_path)]) == 0

    (line,) = (line for line in lines(capsys) if line.startswith("5  "))
    assert f"word{LONG[0]} word{LONG[1]}" in line
    assert line.endswith(f"word{LONG[-1]}")
    assert len(line) < 150


# export and import


def test_a_bundle_is_carried_from_one_directory_to_another(store, tmp_path, capsys):
    bundle, new = str(tmp_path / "bundle"), str(tmp_path / "new")

    assert main(["export", str(store), bundle, "--all"]) == 0
    assert main(["import", new, bundle]) == 0
    assert lines(capsys)[-1] == f"{new}: 11 blocks imported, 0 were held already"
    assert all_held(tmp_path / "new", LONG, SIDE, OTHER) == [5, 4, 3]


@pytest.mark.parametrize("text", ["{0}", " {0} ", "[{1}]\n", "\n\n{1}\n"])
def test_prompts_are_read_one_a_line_as_numbers_or_json(store, tmp_path, capsys, text):
    (tmp_path / "tokens").write_text(text.format(" ".join(map(str, OTHER)), ", ".join(map(str, OTHER))))

    assert main(["export", str(store), str(tmp_path / "bundle"), "--tokens", str(tmp_path / "tokens")]) == 0
    assert lines(capsys)[-1] == "prompt 1: 48 tokens held"


def test_prompts_can_come_from_standard_input(store, tmp_path, capsys, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(f"{OTHER}\n{SIDE}\n"))

    assert main(["export", str(store), str(tmp_path / "bundle"), "--tokens", "-"]) == 0
    assert lines(capsys)[-2:] == ["prompt 1: 48 tokens held", "prompt 2: 64 tokens held"]


@pytest.mark.parametrize("text", ["one two", "[1, 2", '[1, "a"]', "[[1]]", "-5", "[1.5]"])
def test_what_is_no_list_of_token_ids_is_bad_input(store, tmp_path, text):
    (tmp_path / "tokens").write_text(text)

    assert main(["export", str(store), str(tmp_path / "bundle"), "--tokens", str(tmp_path / "tokens")]) == 2
    assert not (tmp_path / "bundle").exists()


def test_an_export_of_nothing_in_particular_is_bad_input(store, tmp_path, capsys):
    assert main(["export", str(store), str(tmp_path / "bundle")]) == 2
    assert "--tokens FILE, --prefix HEX or --all" in capsys.readouterr().err


def test_an_export_that_leaves_damaged_blocks_behind_says_so(store, tmp_path, capsys):
    flip(store, place_of(store, names_of(LONG)[4]) + PAGE)

    assert main(["export", str(store), str(tmp_path / "bundle"), "--all"]) == 1
    assert lines(capsys)[-1].startswith("1 blocks are damaged")


@pytest.mark.parametrize("option", ["--threads", "--limit"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_counts_are_whole_numbers_of_at_least_one(store, tmp_path, option, value):
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(store), str(tmp_path / "bundle"), "--all", option, value])

    assert stopped.value.code == 2


def test_a_bundle_that_was_changed_is_bad_input(store, tmp_path, capsys):
    bundle = tmp_path / "bundle"
    main(["export", str(store), str(bundle), "--all"])
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"?")

    assert main(["import", str(tmp_path / "new"), str(bundle)]) == 2
    assert "nothing was imported" in capsys.readouterr().err


def test_blocks_there_is_no_room_for_are_counted(store, tmp_path, capsys):
    bundle, new = str(tmp_path / "bundle"), str(tmp_path / "new")
    main(["export", str(store), bundle, "--all"])

    assert main(["import", new, bundle, "--capacity", str(4 * BLOCK)]) == 1
    assert lines(capsys)[-2:] == [f"{new}: 4 blocks imported, 0 were held already", "7 refused: no room"]


def test_a_new_namespace_is_taken_with_the_option_for_it(store, tmp_path):
    bundle, new = str(tmp_path / "bundle"), str(tmp_path / "new")
    main(["export", str(store), bundle, "--all"])
    fill(tmp_path / "new", LONG, namespace=OTHERS)

    assert main(["import", new, bundle]) == 1
    assert main(["import", new, bundle, "--new-namespaces"]) == 0


# compact


def test_a_compact_says_what_it_gained(store, capsys):
    assert main(["compact", str(store)]) == 0
    assert re.fullmatch(rf"{store}: [\d.]+ KiB on disk before, [\d.]+ KiB after, 11 blocks", lines(capsys)[0])


def test_a_compact_that_leaves_damaged_blocks_out_says_so(store, capsys):
    flip(store, place_of(store, names_of(LONG)[3]) + PAGE)

    assert main(["compact", str(store)]) == 1
    assert lines(capsys)[-1] == "left out: 1 damaged blocks, 1 without their prefix"


# The line on a terminal


def test_nothing_is_shown_where_nobody_watches(store, capsys):
    main(["check", str(store)])

    assert capsys.readouterr().err == ""


def test_a_terminal_sees_one_line_that_is_gone_at_the_end(capsys, monkeypatch):
    clock = iter([0.0, 1.0, 1.05, 2.0])
    monkeypatch.setattr("kvtier.commands.progress.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    with shown("checked") as meter:
        meter(1 << 30, 4 << 30)
        meter(2 << 30, 4 << 30)  # too soon to be read
        meter(3 << 30, 4 << 30)

    first, second = "checked 1.0 GiB of 4.0 GiB, 1.00 GiB/s", "checked 3.0 GiB of 4.0 GiB, 1.50 GiB/s"
    assert capsys.readouterr().err == f"\r{first}\r{second}\r{' ' * len(first)}\r"


def test_a_terminal_is_left_alone_until_there_is_something_to_say(capsys):
    Meter("checked").clear()

    assert capsys.readouterr().err == ""


def test_a_check_reads_with_as_many_threads_as_it_is_told(store, monkeypatch):
    made = []
    buffer = Source.buffer
    monkeypatch.setattr(Source, "buffer", lambda self: made.append(1) or buffer(self))

    assert main(["check", str(store), "--threads", "3"]) == 0
    assert len(made) == 3
