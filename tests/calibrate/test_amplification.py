"""Write amplification from counters that say what they are told to, and from those of this machine."""

import os

import pytest

from kvtier.calibrate.amplification import Counter, device_counter, measure_amplification, process_counter

BATCH = 1000


class Disk:
    """Writes so much for each byte stored; others write as well, and the process sees its own part."""

    def __init__(self, factors, others=0):
        self.factors, self.others = list(factors), others
        self.own = self.all = 12345

    def turn(self):
        self.own += round(self.factors.pop(0) * BATCH)
        self.all = self.own + self.others
        return BATCH

    def counters(self, process=True, device=True):
        return (
            Counter("own", (lambda: self.own) if process else (lambda: None)),
            Counter("all", (lambda: self.all) if device else (lambda: None)),
        )


FACTORS = [1.9, 1.2, 1.1, 1.3, 1.25]


def test_the_figure_is_the_median_of_what_the_process_wrote_for_each_byte_stored():
    disk = Disk(FACTORS)

    figure = measure_amplification(disk.turn, 5, *disk.counters(), "a test")

    assert figure.band == pytest.approx((1.1, 1.25, 1.9))
    assert (figure.unit, figure.kind) == ("ratio", "measured")
    assert figure.source == (
        "a test, by own; upper end by all, which is everybody's; the drive's own amplification cannot be seen"
    )


class Shared(Disk):
    """A device on which somebody else writes twice as much in every turn."""

    def turn(self):
        before = self.own
        stored = super().turn()
        self.others += 2 * (self.own - before)
        self.all = self.own + self.others
        return stored


def test_what_others_write_raises_the_upper_end_alone():
    disk = Shared(FACTORS)

    figure = measure_amplification(disk.turn, 5, *disk.counters(), "a test")

    assert figure.band == pytest.approx((1.1, 1.25, 3 * 1.25))


def test_the_device_gives_the_figure_where_the_process_cannot_be_asked():
    disk = Disk(FACTORS)

    figure = measure_amplification(disk.turn, 5, *disk.counters(process=False), "a test")

    assert figure.value == pytest.approx(1.25)
    assert figure.source == "a test, by all; the drive's own amplification cannot be seen"


def test_the_process_alone_gives_the_figure_where_the_device_cannot_be_asked():
    disk = Disk(FACTORS)

    figure = measure_amplification(disk.turn, 5, *disk.counters(device=False), "a test")

    assert figure.band == pytest.approx((1.1, 1.25, 1.9))


@pytest.mark.parametrize("disk", [Disk(FACTORS), Disk([0.0] * 5)])
def test_where_nothing_can_be_counted_it_is_assumed_and_says_so(disk):
    readable = disk.factors[0] == 0

    figure = measure_amplification(disk.turn, 5, *disk.counters(readable, readable), "a test")

    assert (figure.value, figure.kind, figure.lo) == (1.0, "assumed", None)
    assert figure.source.startswith("not measured: neither")


def test_the_counter_of_the_process_is_its_write_bytes(tmp_path):
    path = tmp_path / "io"
    path.write_text("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n")

    assert process_counter(path).read() == 4096


def test_the_counter_of_the_device_is_its_sectors_written(tmp_path):
    number = tmp_path.stat().st_dev
    place = tmp_path / f"{os.major(number)}:{os.minor(number)}"
    place.mkdir()
    (place / "stat").write_text("    11   12   13   14   15   16   17   18\n")

    assert device_counter(tmp_path, tmp_path).read() == 17 * 512


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_a_counter_that_cannot_be_read_gives_nothing(tmp_path, text):
    number = tmp_path.stat().st_dev
    place = tmp_path / f"{os.major(number)}:{os.minor(number)}"
    place.mkdir()
    for path in (place / "stat", place / "io"):
        if text is not None:
            path.write_text(text)

    assert device_counter(tmp_path, tmp_path).read() is None
    assert process_counter(place / "io").read() is None


def test_a_synced_file_is_counted_once_or_nearly(tmp_path):
    counter = process_counter()
    path, size = tmp_path / "data", 4 << 20

    def turn():
        path.write_bytes(os.urandom(size))
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return size

    before = counter.read()
    turn()
    if before is None or counter.read() == before:
        pytest.skip("this machine does not count what a process writes here")

    figure = measure_amplification(turn, 5, counter, Counter("none", lambda: None), "a test")

    assert 0.95 < figure.value < 1.5
