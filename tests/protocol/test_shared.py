"""Shared memory between real processes: what is written is read, what is written over is noticed, nothing is left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fer_stream.errors import WireError
from fer_stream.protocol import messages, shared
from fer_stream.protocol.messages import Encoding, Kind, Message
from fer_stream.protocol.shared import DESCRIPTOR, MappedFrames, Ring, Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

HEIGHT, WIDTH = 24, 32


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


def lent(descriptor: bytes, height: int = HEIGHT, width: int = WIDTH) -> Message:
    return Message(Kind.FRAME, descriptor, height=height, width=width, encoding=Encoding.SHARED)


def view(reader: MappedFrames, descriptor: bytes, height: int, width: int) -> np.ndarray:
    return reader.view(lent(descriptor, height, width)).reshape(height, width, 3)


def mapped() -> int:
    """How many rings this process has mapped."""
    return Path("/proc/self/maps").read_text().count("memfd:fer_stream")


@pytest.fixture
def writer() -> Iterator[Writer]:
    made = Writer(3)
    yield made
    made.close()


def put(writer: Writer, number: int, resolved: int = 0, **size: int) -> bytes | None:
    return writer.put(picture(number, **size), number, resolved)


def test_another_process_sees_what_was_written(writer: Writer) -> None:
    descriptor = put(writer, 1)
    assert descriptor is not None
    code = (
        "import sys; from fer_stream.protocol.messages import Encoding, Kind, Message\n"
        "from fer_stream.protocol.shared import MappedFrames\n"
        "height, width = int(sys.argv[2]), int(sys.argv[3])\n"
        "descriptor, encoding = bytes.fromhex(sys.argv[1]), Encoding.SHARED\n"
        "frame = Message(Kind.FRAME, descriptor, height=height, width=width, encoding=encoding)\n"
        "sys.stdout.buffer.write(MappedFrames().view(frame).tobytes())"
    )
    command = [sys.executable, "-c", code, descriptor.hex(), str(HEIGHT), str(WIDTH)]
    assert subprocess.run(command, capture_output=True, check=True).stdout == picture(1).tobytes()


def test_a_slot_is_used_again_only_when_its_frame_is_resolved(writer: Writer) -> None:
    reader = MappedFrames()
    descriptors = [put(writer, number) for number in (1, 2, 3)]
    assert put(writer, 4) is None, "three slots, none resolved"
    for number, descriptor in enumerate(descriptors, 1):
        assert descriptor is not None
        np.testing.assert_array_equal(view(reader, descriptor, HEIGHT, WIDTH), picture(number))
    fifth = put(writer, 5, resolved=1)
    assert fifth is not None
    assert put(writer, 6, resolved=1) is None
    np.testing.assert_array_equal(view(reader, fifth, HEIGHT, WIDTH), picture(5))


def test_a_frame_that_was_written_over_is_noticed() -> None:
    ring, reader = Ring(2, HEIGHT * WIDTH * 3), MappedFrames()
    first = ring.put(picture(1), 0, 1)
    view(reader, first, HEIGHT, WIDTH)
    assert reader.intact(lent(first))
    ring.put(picture(2), 1, 2)
    assert reader.intact(lent(first))
    ring.put(picture(3), 0, 3)
    assert not reader.intact(lent(first))
    with pytest.raises(WireError, match="overwritten"):
        view(reader, first, HEIGHT, WIDTH)
    ring.close()


def test_frames_of_another_size_go_into_another_ring(writer: Writer) -> None:
    reader = MappedFrames()
    before = mapped()
    small = put(writer, 1)
    large = put(writer, 2, height=48)
    assert small is not None
    assert large is not None
    np.testing.assert_array_equal(view(reader, small, HEIGHT, WIDTH), picture(1))
    np.testing.assert_array_equal(view(reader, large, 48, WIDTH), picture(2, 48))
    put(writer, 3, resolved=2, height=48)
    assert mapped() == before + 1 + 2, "the small ring is gone with its frame, and this reader's mappings are there"


def lend(writer: Writer, number: int) -> np.ndarray:
    """Borrow a place, and write a picture there."""
    place = writer.lend((HEIGHT, WIDTH, 3))
    assert place is not None
    place[:] = picture(number)
    return place


def test_what_lies_there_already_is_not_copied(writer: Writer) -> None:
    place = lend(writer, 1)
    descriptor = writer.put(place, 1, resolved=0)
    assert descriptor is not None
    seen = view(MappedFrames(), descriptor, HEIGHT, WIDTH)
    np.testing.assert_array_equal(seen, picture(1))
    place[0, 0, 0] ^= 255
    assert seen[0, 0, 0] == place[0, 0, 0], "it is the same memory"


def test_a_place_is_taken_while_anything_refers_to_it(writer: Writer) -> None:
    slots = [lend(writer, number) for number in (1, 2, 3)]
    assert writer.lend((HEIGHT, WIDTH, 3)) is None
    assert put(writer, 1) is None, "nor is there room for a copy"
    raw = slots.pop().reshape(-1).data
    assert writer.lend((HEIGHT, WIDTH, 3)) is None, "as while it is sent"
    del raw
    assert writer.lend((HEIGHT, WIDTH, 3)) is not None, "superseded: it was never sent"
    assert writer.put(slots[0], 1, resolved=0) is not None
    slots.clear()
    kept = lend(writer, 4)
    assert [writer.put(lend(writer, 5), 2, resolved=0) is not None, writer.lend((HEIGHT, WIDTH, 3))] == [True, None]
    np.testing.assert_array_equal(kept, picture(4))
    del kept


def test_a_part_of_a_place_is_not_taken_for_the_whole(writer: Writer) -> None:
    part = lend(writer, 1)[:12]
    descriptor = writer.put(part, 1, resolved=0)
    assert descriptor is not None
    np.testing.assert_array_equal(view(MappedFrames(), descriptor, 12, WIDTH), picture(1)[:12])


def test_a_view_of_a_place_in_another_order_is_not_taken_for_it(writer: Writer) -> None:
    """As of a source that has RGB, or pictures upside down."""
    for number in (1, 2):
        place = lend(writer, number)
        image = place[::-1] if number == 1 else place[:, :, ::-1]
        descriptor = writer.put(image, number, resolved=number - 1)
        assert descriptor is not None
        np.testing.assert_array_equal(view(MappedFrames(), descriptor, HEIGHT, WIDTH), image)


def test_a_picture_that_is_sent_again_does_not_disturb_the_first(writer: Writer) -> None:
    """As by a source that gives its last picture once more while its camera stalls."""
    place, reader = lend(writer, 1), MappedFrames()
    descriptors = [writer.put(place, number, resolved=0) for number in (1, 2, 3)]
    for descriptor in descriptors:
        assert descriptor is not None
        np.testing.assert_array_equal(view(reader, descriptor, HEIGHT, WIDTH), picture(1))
    assert writer.put(place, 4, resolved=0) is None
    assert writer.put(place, 4, resolved=1) is not None


def test_who_still_reads_a_place_that_is_written_to_again_knows(writer: Writer) -> None:
    reader = MappedFrames()
    descriptors = [put(writer, number) for number in (1, 2, 3)]
    assert descriptors[0] is not None
    view(reader, descriptors[0], HEIGHT, WIDTH)
    put(writer, 4, resolved=1)  # which takes the place of the first one
    assert not reader.intact(lent(descriptors[0]))
    assert descriptors[1] is not None
    writer.put(np.zeros(3, np.uint8), 5, resolved=4)  # another size: nothing is written, what is resolved is known
    third = put(writer, 6, resolved=5)
    assert third is not None
    place = writer.lend((HEIGHT, WIDTH, 3))
    assert place is not None
    place[:] = 0
    np.testing.assert_array_equal(view(reader, third, HEIGHT, WIDTH), picture(6))


def test_memory_that_is_lent_outlives_its_writer() -> None:
    began, writer = mapped(), Writer(2)
    place = lend(writer, 1)
    writer.close()
    np.testing.assert_array_equal(place, picture(1))
    assert writer.lend((HEIGHT, WIDTH, 3)) is None
    assert put(writer, 1) is None
    assert mapped() == began + 1
    del place
    assert mapped() == began


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(["lend", "drop", "send", "copy", "resolve", "other"]), max_size=60))
def test_frames_in_flight_stay_as_they_are_in_any_order(steps: list[str]) -> None:
    writer, reader = Writer(3), MappedFrames()
    held: list[tuple[int, np.ndarray]] = []
    flying: dict[int, tuple[bytes, np.ndarray]] = {}
    sent = resolved = 0
    for made, step in enumerate(steps):
        height = 48 if step == "other" else HEIGHT
        if step == "lend" and (place := writer.lend((HEIGHT, WIDTH, 3))) is not None:
            place[:] = picture(made)
            held.append((made, place))
            del place
        elif step == "drop" and held:
            held.pop(0)
        elif step == "resolve" and flying:
            resolved = min(flying)
            del flying[resolved]
        elif step in ("send", "copy", "other") and (step != "send" or held):
            image = held.pop()[1] if step == "send" else picture(made, height)
            sent += 1
            seen = image.copy()
            descriptor = writer.put(image, sent, resolved)
            assert step != "send" or descriptor is not None, "it lies there already"
            if descriptor is None:
                sent -= 1
            else:
                flying[sent] = descriptor, seen
            del image
        for descriptor, seen in flying.values():
            np.testing.assert_array_equal(view(reader, descriptor, *seen.shape[:2]), seen)
        for number, place in held:
            np.testing.assert_array_equal(place, picture(number))
        place = None
    writer.close()


def test_memory_goes_with_its_last_reader() -> None:
    began, reader = mapped(), MappedFrames()
    for number in range(5):
        writer = Writer(2)
        descriptor = put(writer, number)
        assert descriptor is not None
        view(reader, descriptor, HEIGHT, WIDTH)
        writer.close()
    del writer
    assert mapped() - began == 1, "the rings of the writers that are gone are not kept"


def test_nothing_lies_in_shared_memory_by_a_name(writer: Writer) -> None:
    def named() -> list[str]:
        return re.findall(r"/dev/shm/\S+", Path("/proc/self/maps").read_text())

    before = named()
    put(writer, 1)
    assert named() == before


def test_two_processes_of_one_user_share_an_identity() -> None:
    code = "from fer_stream.protocol import shared; print(shared.identity())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.strip()
    assert other == shared.identity() != ""


def descriptor(**changes: int) -> bytes:
    fields = {"process": os.getpid(), "file": 0, "token": 0, "slot": 0, "size": 6, "generation": 1} | changes
    return DESCRIPTOR.pack(*fields.values())


def test_what_is_no_ring_is_refused(tmp_path: Path) -> None:
    """A file, a pipe that would block, memory that may shrink, a ring with another token."""
    (tmp_path / "file").write_bytes(bytes(8192))
    os.mkfifo(tmp_path / "pipe")
    ring = Ring(1, 6)
    files = [
        os.open(tmp_path / "file", os.O_RDONLY),
        os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK),
        os.memfd_create("fer_stream"),
        ring._file,
    ]
    os.ftruncate(files[2], 8192)
    reader = MappedFrames()
    for file in files:
        with pytest.raises(WireError):
            view(reader, descriptor(file=file), 1, 2)
    for wrong in (descriptor(process=2**32 - 1), descriptor(file=2**31), b"", bytes(7)):
        with pytest.raises(WireError):
            view(reader, wrong, 1, 2)
    for file in files[:3]:
        os.close(file)
    ring.close()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, DESCRIPTOR.size - 1), change=st.integers(1, 255))
def test_a_mutated_descriptor_is_read_or_refused(writer: Writer, at: int, change: int) -> None:
    real = bytearray(put(writer, 1, resolved=10**6) or b"")
    real[at] ^= change
    try:
        seen = view(MappedFrames(), bytes(real), HEIGHT, WIDTH)
    except WireError:
        return
    assert seen.shape == (HEIGHT, WIDTH, 3)


def frame(payload: bytes, encoding: Encoding) -> Message:
    fields = {"seq": 7, "width": WIDTH, "height": HEIGHT, "encoding": encoding}
    return messages.unpack(messages.pack(Message(Kind.FRAME, payload, **fields)))


def test_pixels_are_copied_for_a_peer_that_cannot_open_them(writer: Writer) -> None:
    descriptor = put(writer, 1)
    assert descriptor is not None
    copied = MappedFrames().copied(frame(descriptor, Encoding.SHARED))
    assert (copied.encoding, copied.seq) == (Encoding.RAW, 7)
    assert bytes(copied.payload) == picture(1).tobytes()
    sent = messages.unpack(messages.forwarded(copied, epoch=1, ticket=2, age=3))
    assert bytes(sent.payload) == picture(1).tobytes(), "the descriptor's checksum is not sent with the pixels"


def test_frames_that_need_no_copy_or_cannot_be_read_are_passed_on(writer: Writer) -> None:
    mapped = MappedFrames()
    raw, gone = frame(picture(1).tobytes(), Encoding.RAW), frame(descriptor(), Encoding.SHARED)
    assert mapped.copied(raw) is raw
    assert mapped.copied(gone) is gone


def test_without_memory_a_frame_is_not_shared(monkeypatch: pytest.MonkeyPatch, writer: Writer) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", full)
    assert put(writer, 1) is None


def test_a_descriptor_names_its_owner(writer: Writer) -> None:
    assert shared.owner(put(writer, 1) or b"") == os.getpid()
    assert shared.owner(b"no descriptor") == 0


def test_memory_that_may_not_be_opened_is_told_apart(monkeypatch: pytest.MonkeyPatch, writer: Writer) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    lying = put(writer, 1)
    assert lying is not None
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(shared.UnreachableError, match="may not be opened"):
        view(MappedFrames(), lying, HEIGHT, WIDTH)


def test_a_reader_cannot_write(writer: Writer) -> None:
    lying = put(writer, 1)
    assert lying is not None
    seen = view(MappedFrames(), lying, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="read-only"):
        seen[0, 0, 0] = 1
