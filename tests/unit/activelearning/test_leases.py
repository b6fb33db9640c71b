from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.activelearning.leases import Annotator, LeaseBook
from tests.unit.activelearning.conftest import Clock

ANN, BOB = Annotator("client ann", True), Annotator("client bob", True)
WEB = Annotator("unnamed 10.0.0.7 Firefox", False)
ORDER = ["x", "y", "z"]


@pytest.fixture
def book(clock: Clock) -> LeaseBook:
    return LeaseBook(30, clock)


def test_two_annotators_get_two_images_in_the_order_of_worth(book: LeaseBook) -> None:
    assert book.take(ANN, ORDER) == "x"
    assert book.take(BOB, ORDER) == "y"
    assert book.held() == ["x", "y"]
    assert book.held(BOB) == ["y"]
    assert book.held_all(["y", "x"])
    assert not book.held_all(ORDER)
    assert book.held_all([])


def test_who_has_a_name_gets_the_same_again_also_when_something_better_comes_up(book: LeaseBook) -> None:
    assert book.take(ANN, ["y"]) == "y"
    assert book.take(ANN, ORDER) == "y"
    assert book.take(ANN, []) == "y"
    assert book.held(ANN) == ["y"]


def test_who_has_no_name_gets_another_each_time_and_at_last_the_first_again(book: LeaseBook) -> None:
    assert [book.take(WEB, ORDER) for _ in range(4)] == ["x", "y", "z", None]
    assert [book.take_again(WEB) for _ in range(4)] == ["x", "y", "z", "x"]
    assert book.take_again(BOB) is None


def test_a_lease_ends_after_its_minutes(book: LeaseBook, clock: Clock) -> None:
    assert book.take(ANN, ["x"]) == "x"
    clock.now += 29 * 60
    assert book.take(BOB, ["x"]) is None
    assert book.next_end_s() == pytest.approx(60)
    clock.now += 61
    assert book.next_end_s() is None
    assert book.take(BOB, ["x"]) == "x"
    assert book.take(ANN, ["x"]) is None


def test_asking_again_makes_the_lease_last(book: LeaseBook, clock: Clock) -> None:
    book.take(ANN, ["x"])
    for _ in range(5):
        clock.now += 29 * 60
        assert book.take(ANN, []) == "x"
    assert book.take(BOB, ["x"]) is None


def test_an_image_that_was_labelled_is_free_of_its_lease(book: LeaseBook) -> None:
    book.take(ANN, ["x"])
    book.end(["x", "never held"])
    assert book.held() == []
    assert book.take(ANN, ["y"]) == "y"


def test_what_was_passed_over_is_free_for_others_and_remembered_for_a_while(
    book: LeaseBook, clock: Clock
) -> None:
    book.take(ANN, ["x"])
    book.pass_over(ANN)
    assert book.passed_over(ANN) == {"x"}
    assert book.passed_over(BOB) == set()
    assert book.take(BOB, ["x"]) == "x"
    clock.now += 30 * 60 + 1
    assert book.passed_over(ANN) == set()


def test_what_was_passed_over_can_be_forgotten_by_one_alone(book: LeaseBook) -> None:
    for annotator in (ANN, BOB):
        book.take(annotator, ORDER)
        book.pass_over(annotator)
    book.forget_passed_over(ANN)
    assert book.passed_over(ANN) == set()
    assert book.passed_over(BOB) == {"x"}


def test_what_is_opened_by_hand_is_leased_unless_somebody_else_has_it(book: LeaseBook) -> None:
    assert book.open(ANN, "x")
    assert book.open(ANN, "x")
    assert not book.open(BOB, "x")
    assert book.held(ANN) == ["x"]


def test_without_minutes_nobody_is_kept_from_anything(clock: Clock) -> None:
    book = LeaseBook(0, clock)
    assert book.take(ANN, ORDER) == "x"
    assert book.take(BOB, ORDER) == "x"


def test_two_threads_that_ask_200_times_at_once_never_hold_the_same(clock: Clock) -> None:
    book = LeaseBook(30, clock)
    images = [f"image{number:03}" for number in range(200)]
    with ThreadPoolExecutor(2) as threads:
        given = list(threads.map(lambda n: book.take(Annotator(f"{n % 2}", False), images), range(200)))
    assert None not in given
    assert max(Counter(given).values()) == 1
    assert sorted(book.held()) == images


def test_a_named_client_of_many_threads_holds_one(clock: Clock) -> None:
    book = LeaseBook(30, clock)
    images = [f"image{number:03}" for number in range(50)]
    with ThreadPoolExecutor(8) as threads:
        given = set(threads.map(lambda _: book.take(ANN, images), range(200)))
    assert given == {"image000"}
