from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lib.activelearning.leases import Annotator, LeaseBook
from tests.unit.activelearning.conftest import Clock

ANN, BOB = Annotator("client ann", True), Annotator("client bob", True)
WEB = Annotator("unnamed 10.0.0.7 Firefox", False)
ORDER = ["x", "y", "z"]


@pytest.fixture
def book(clock: Clock) -> LeaseBook:
    return LeaseBook(30, clock)


def take(book: LeaseBook, annotator: Annotator, images: Sequence[str] = ORDER) -> str | None:
    """The next image, where the candidates stand in the order of their worth."""
    return book.take(annotator, images, lambda free, held: free)


def test_two_annotators_get_two_images_in_the_order_of_worth(book: LeaseBook) -> None:
    asked: list[tuple[list[str], list[str]]] = []

    def backwards(free: Sequence[str], held: Sequence[str]) -> list[str]:
        asked.append((list(free), list(held)))
        return sorted(free, reverse=True)

    assert [book.take(who, ORDER, backwards) for who in (ANN, BOB)] == ["z", "y"]
    assert asked == [(["x", "y", "z"], []), (["x", "y"], ["z"])]


def test_who_has_a_name_gets_the_same_again_also_when_something_better_comes_up(book: LeaseBook) -> None:
    assert take(book, ANN, ["y"]) == "y"
    assert take(book, ANN) == "y"
    assert take(book, BOB) == "x"


def test_who_has_no_name_gets_another_each_time_and_at_last_the_first_again(book: LeaseBook) -> None:
    assert [take(book, WEB) for _ in range(7)] == ["x", "y", "z", "x", "y", "z", "x"]
    assert take(book, BOB) is None


def test_what_the_order_leaves_out_is_given_to_nobody(book: LeaseBook) -> None:
    assert book.take(ANN, ORDER, lambda free, held: iter(())) is None
    assert take(book, BOB) == "x"


def test_a_lease_ends_after_its_minutes(book: LeaseBook, clock: Clock) -> None:
    assert take(book, ANN, ["x"]) == "x"
    clock.now += 29 * 60
    assert take(book, BOB, ["x"]) is None
    assert book.next_end_s(["x", "y"]) == pytest.approx(60)
    assert book.next_end_s(["y"]) is None
    clock.now += 61
    assert book.next_end_s(["x"]) is None
    assert take(book, BOB, ["x"]) == "x"
    assert take(book, ANN, ["x"]) is None


def test_asking_again_makes_the_lease_last(book: LeaseBook, clock: Clock) -> None:
    take(book, ANN, ["x"])
    for _ in range(5):
        clock.now += 29 * 60
        assert take(book, ANN, ["x"]) == "x"
    assert take(book, BOB, ["x"]) is None


def test_who_holds_what_is_no_candidate_any_more_gets_the_next(book: LeaseBook) -> None:
    assert take(book, ANN) == "x"
    assert take(book, ANN, ["y", "z"]) == "y"
    assert [take(book, WEB, images) for images in (["z"], [], ["z"])] == ["z", None, "z"]


def test_what_was_passed_over_is_free_for_others_and_remembered_for_a_while(
    book: LeaseBook, clock: Clock
) -> None:
    assert take(book, ANN) == "x"
    book.skip(ANN)
    assert take(book, ANN) == "y"
    assert take(book, BOB) == "x"
    for annotator in (ANN, BOB):
        book.skip(annotator)
    clock.now += 30 * 60 + 1
    assert take(book, ANN) == "x"


def test_who_passed_over_all_that_is_free_may_have_it_again_and_others_remember_theirs(
    book: LeaseBook,
) -> None:
    for annotator in (ANN, BOB):
        assert take(book, annotator) == "x"
        book.skip(annotator)
    assert take(book, ANN, ["x"]) == "x"
    book.skip(ANN)
    assert take(book, BOB) == "y"


def test_one_image_is_passed_over_and_the_others_stay(book: LeaseBook) -> None:
    assert [take(book, WEB) for _ in range(2)] == ["x", "y"]
    book.skip(WEB, "y")
    # While they hold anything else they are not given it again.
    assert [take(book, WEB) for _ in range(3)] == ["z", "x", "z"]
    assert take(book, BOB) == "y"
    # What somebody else holds stays theirs.
    book.skip(WEB, "y")
    assert take(book, ANN) is None


def test_what_is_opened_by_hand_is_leased_unless_somebody_else_has_it(book: LeaseBook) -> None:
    assert book.open(ANN, "x")
    assert book.open(ANN, "x")
    assert not book.open(BOB, "x")
    assert take(book, ANN) == "x"


def test_without_minutes_nobody_is_kept_from_anything(clock: Clock) -> None:
    book = LeaseBook(0, clock)
    assert [take(book, who) for who in (ANN, BOB)] == ["x", "x"]
    # What cannot be had is not given again at once.
    book.skip(ANN, "x")
    assert [take(book, who) for who in (ANN, BOB)] == ["y", "x"]


def test_while_an_order_is_made_nobody_else_is_served(book: LeaseBook) -> None:
    begun, over = threading.Event(), threading.Event()

    def slow(free: Sequence[str], held: Sequence[str]) -> Sequence[str]:
        begun.set()
        over.wait(10)
        return free

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(book.take, ANN, ORDER, slow)
        assert begun.wait(10)
        second = threads.submit(take, book, BOB)
        over.set()
        assert (first.result(), second.result()) == ("x", "y")


def test_two_threads_that_ask_200_times_at_once_never_hold_the_same(clock: Clock) -> None:
    book = LeaseBook(30, clock)
    images = [f"image{number:03}" for number in range(200)]
    with ThreadPoolExecutor(2) as threads:
        given = list(threads.map(lambda n: take(book, Annotator(f"{n % 2}", False), images), range(200)))
    assert None not in given
    assert max(Counter(given).values()) == 1


def test_a_named_client_of_many_threads_holds_one(clock: Clock) -> None:
    book = LeaseBook(30, clock)
    images = [f"image{number:03}" for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        given = set(threads.map(lambda _: take(book, ANN, images), range(200)))
    assert given == {"image000"}


def test_servers_that_share_a_file_share_leases_and_skips_until_they_end(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "scores" / "leases.json"
    odd = "a \udcff é"  # a file name that is no UTF-8
    first, second = (LeaseBook(30, clock, file) for _ in range(2))
    assert take(first, ANN, [odd, *ORDER]) == odd
    assert (take(second, BOB, [odd, *ORDER]), take(second, ANN, [odd, *ORDER])) == ("x", odd)
    second.skip(ANN)
    assert take(first, ANN, [odd, *ORDER]) == "y"
    # A server that starts later, as after a crash of another one.
    assert take(LeaseBook(30, clock, file), ANN, ORDER) == "y"
    clock.now += 31 * 60
    assert take(LeaseBook(30, clock, file), BOB, ["y"]) == "y"
    for damaged in ("{", "[]", '[[["x", "ann"]], []]', "null", "[[1], []]"):
        file.write_text(damaged)
        assert take(first, WEB, ["z"]) == "z"
    assert "cannot be read" in caplog.text
