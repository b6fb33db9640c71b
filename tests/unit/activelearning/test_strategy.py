from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from lib.activelearning.leases import Annotator, LeaseBook
from lib.activelearning.selectors import Candidate, Choice, First, Random, Uncertainty
from lib.activelearning.strategy import (
    ANNOTATOR,
    NextImage,
    Pool,
    all_strategies,
    next_patch,
    read_candidates,
    read_pool,
)
from lib.errors import ImageNotFoundError, PromptError
from lib.pathology.opening import tissue_mask
from lib.scoring.store import ScoreStore
from lib.settings import STRATEGIES
from tests.unit.activelearning.conftest import Clock, image_score, make_datastore

Save = Callable[..., None]


def test_only_a_final_label_makes_an_image_labelled(datastore: LocalDatastore, label: Save) -> None:
    label("b", "original")
    label("c")
    pool = read_pool(datastore)
    assert sorted(pool.unlabelled) == ["a", "b"]
    assert pool.labelled == ("c",)


class Stale(LocalDatastore):
    """As MONAI Label's DICOMweb datastore, whose list of labelled images may be two hours old."""

    def get_unlabeled_images(self, label_tag=None, labels=None):  # type: ignore[no-untyped-def]
        return self.list_images()


def test_a_label_that_was_saved_here_counts_at_once_whatever_an_old_list_says(
    datastore: LocalDatastore, label: Save
) -> None:
    label("c")
    stale = Stale(datastore._datastore_path, extensions=("*.png",))
    assert read_pool(stale).labelled == ("c",)


def test_what_the_scorer_found_is_on_the_candidate(datastore: LocalDatastore, scores: ScoreStore) -> None:
    scores.put("a", image_score(0.7, (0.6, 0.8), labels=("liver",), slice_index=17))
    known = read_candidates(["a", "b"], datastore, scores)
    assert (known["a"].score, known["a"].labels, known["a"].slice_index) == (0.7, ("liver",), 17)
    np.testing.assert_allclose(known["a"].embedding, [0.6, 0.8])
    assert (known["b"].score, known["b"].embedding, known["b"].labels) == (None, None, ())


def test_what_a_person_drew_counts_before_what_the_model_found(
    datastore: LocalDatastore, scores: ScoreStore, label: Save
) -> None:
    for image in "abc":
        scores.put(image, image_score(0.5, labels=("liver", "cyst")))
    label("a", "final", "spleen", "spleen", "kidney")
    label("b", "original", "spleen")
    known = read_candidates("abc", datastore, scores)
    assert known["a"].labels == ("spleen", "kidney")
    assert known["b"].labels == known["c"].labels == ("liver", "cyst")


def test_embeddings_of_other_weights_are_unknown_and_their_scores_still_count(
    datastore: LocalDatastore, scores: ScoreStore
) -> None:
    scores.put("a", image_score(0.1, (1.0, 0.0), weights="v1"))
    scores.put("b", image_score(0.2, (0.0, 1.0), weights="v1"))
    scores.put("c", image_score(0.3, (0.0, 1.0, 0.0), weights="other"))
    known = read_candidates("abc", datastore, scores)
    assert [known[name].score for name in "abc"] == [0.1, 0.2, 0.3]
    assert [known[name].embedding is None for name in "abc"] == [False, False, True]


def test_a_datastore_over_the_network_is_asked_once(datastore: LocalDatastore, scores: ScoreStore) -> None:
    class Remote:
        """As DSA's and XNAT's: each question about one image would be a request."""

        def list_images(self) -> list[str]:
            return datastore.list_images()

        def get_unlabeled_images(self) -> list[str]:
            return ["a"]

    remote: Datastore = Remote()  # type: ignore[assignment]
    assert read_pool(remote) == Pool(("a",), tuple(name for name in datastore.list_images() if name != "a"))
    assert read_candidates(["a"], remote, scores)["a"].labels == ()


def test_tissue_glows_on_dark_ground() -> None:
    overview = np.full((100, 200, 3), 3, np.uint8)
    overview[30:50, 120:160] = 90
    tissue = tissue_mask(overview)
    assert tissue[40, 140]
    assert not tissue[80, 40]


def test_the_patch_is_of_its_size_inside_the_image_and_on_tissue(rng: np.random.Generator) -> None:
    places = set()
    for _ in range(400):
        found = next_patch({"patch_size": [60, 20], "image_size": [64, 22]}, rng)
        assert found is not None
        x, y, width, height = found
        assert (width, height) == (60, 20)
        places.add((x, y))
    assert places == {(x, y) for x in range(5) for y in range(3)}

    # A patch has tissue in its middle.
    overview = np.full((100, 200, 3), 243, np.uint8)
    overview[30:50, 120:160] = (220, 160, 200)
    tissue = tissue_mask(overview)
    assert tissue[40, 140]
    assert tissue.sum() < 2 * 20 * 40
    assert not tissue_mask(np.full((50, 50, 3), 243, np.uint8)).any()
    places = set()
    for _ in range(100):
        found = next_patch({"patch_size": [40, 40], "image_size": [2000, 1000]}, rng, tissue)
        assert found is not None
        x, y, width, height = found
        assert (width, height) == (40, 40)
        assert 1150 < x + 20 < 1650
        assert 250 < y + 20 < 550
        places.add((x, y))
    assert len(places) > 50

    # A patch larger than the image is the image.
    asked = {"patch_size": [1024, 1024], "image_size": [640, 2000]}
    found = next_patch(asked, rng)
    assert found is not None
    assert (found[0], found[2], found[3]) == (0, 640, 1024)


def test_sizes_that_are_missing_give_no_patch_and_wrong_ones_are_refused(rng: np.random.Generator) -> None:
    for request_ in [
        {},
        {"patch_size": [64, 64]},
        {"patch_size": [64, 64], "image_size": [0, 0]},
        {"patch_size": None},
    ]:
        assert next_patch(request_, rng) is None

    # What is no size is refused.
    for wrong in [[64], [64, -1], ["64", 64], [True, 64], "64", [1.5, 2], {"w": 1}]:
        with pytest.raises(PromptError, match=r"image_size is .*\[width, height\]"):
            next_patch({"patch_size": [8, 8], "image_size": wrong}, rng)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


ANN, BOB = {"client_id": "ann"}, {"client_id": "bob"}
WEB = {ANNOTATOR: "10.0.0.7 Firefox"}


@pytest.fixture
def leases(clock: Clock) -> LeaseBook:
    return LeaseBook(30, clock)


@pytest.fixture
def first(scores: ScoreStore, leases: LeaseBook) -> NextImage:
    return NextImage("first", First(), "by name", scores, leases)


def given(strategy: NextImage, request: dict[str, Any], datastore: LocalDatastore) -> str | None:
    answer = strategy(request, datastore)
    return None if answer is None else answer["id"]


def test_the_answer_says_why(datastore: LocalDatastore, scores: ScoreStore, leases: LeaseBook) -> None:
    for name, score in zip("abc", (0.2, 0.9, 0.4), strict=True):
        scores.put(name, image_score(score, slice_index=11))
    strategy = NextImage("uncertainty", Uncertainty(), "", scores, leases)
    assert strategy(ANN, datastore) == {
        "id": "b",
        "choice": {
            "score": 0.9,
            "rank": 0,
            "strategy": "uncertainty",
            "why": "uncertainty 0.90, rank 1 of 3",
            "slice": 11,
        },
    }
    again = strategy(ANN, datastore)
    assert again is not None
    assert again["id"] == "b"
    assert again["choice"]["why"] == "already assigned to you and without a final label"
    assert (again["choice"]["score"], again["choice"]["slice"]) == (0.9, 11)


def test_two_clients_get_two_cases_and_a_saved_label_frees_the_client(
    first: NextImage, datastore: LocalDatastore, label: Callable[..., None]
) -> None:
    assert [given(first, who, datastore) for who in (ANN, BOB, ANN, BOB)] == ["a", "b", "a", "b"]
    label("a", "original")
    assert given(first, ANN, datastore) == "a"
    label("a")
    assert given(first, ANN, datastore) == "c"
    label("b")
    assert given(first, BOB, datastore) is None
    label("c")
    assert given(first, BOB, datastore) is None


def test_skip_goes_on_and_comes_back_when_all_were_seen(first: NextImage, datastore: LocalDatastore) -> None:
    assert given(first, ANN, datastore) == "a"
    skipping = {**ANN, "skip": True}
    assert [given(first, skipping, datastore) for _ in range(4)] == ["b", "c", "a", "b"]
    # What ann passed over is there for bob.
    assert given(first, BOB, datastore) == "a"


def test_who_skips_what_is_the_last_free_one_gets_it_again(
    first: NextImage, datastore: LocalDatastore
) -> None:
    assert [given(first, who, datastore) for who in (BOB, {"client_id": "eve"}, ANN)] == ["a", "b", "c"]
    assert given(first, {**ANN, "skip": True}, datastore) == "c"


def test_without_a_name_each_request_gets_another_and_then_its_own_oldest(
    first: NextImage, datastore: LocalDatastore
) -> None:
    assert given(first, BOB, datastore) == "a"
    assert [given(first, WEB, datastore) for _ in range(4)] == ["b", "c", "b", "c"]
    assert given(first, {ANNOTATOR: "10.0.0.8 Firefox"}, datastore) is None


def test_when_all_are_with_others_the_log_says_so_and_when_it_ends(
    first: NextImage, datastore: LocalDatastore, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    for _ in range(3):
        given(first, WEB, datastore)
    clock.now += 600
    with caplog.at_level(logging.INFO):
        assert given(first, ANN, datastore) is None
    assert "all 3 without a final label are with annotators" in caplog.text
    assert "a lease ends in 20 minutes" in caplog.text
    clock.now += 1201
    assert given(first, ANN, datastore) == "a"


def test_an_empty_datastore_gives_none(first: NextImage, tmp_path: Path) -> None:
    assert first(ANN, make_datastore(tmp_path / "empty", [])) is None


def test_asked_for_again_within_a_second_is_no_failure(
    datastore: LocalDatastore, scores: ScoreStore, leases: LeaseBook
) -> None:
    """MONAI Label's own random draws by seconds since the last time, and fails when all are zero."""
    strategy = NextImage("random", Random(), "", scores, leases)
    assert all(given(strategy, WEB, datastore) in ("a", "b", "c") for _ in range(20))


def test_labelled_and_leased_ones_are_what_a_choice_is_made_beside(
    datastore: LocalDatastore, scores: ScoreStore, leases: LeaseBook, label: Callable[..., None]
) -> None:
    seen: list[tuple[set[str], set[str]]] = []

    class Spy(First):
        def rank(self, candidates: Any, labelled: Any, rng: np.random.Generator) -> list[Choice]:
            seen.append(({c.id for c in candidates}, {c.id for c in labelled}))
            return super().rank(candidates, labelled, rng)

    strategy = NextImage("first", Spy(), "", scores, leases)
    label("b")
    strategy(ANN, datastore)
    strategy(BOB, datastore)
    assert seen == [({"a", "c"}, {"b"}), ({"c"}, {"a", "b"})]


def test_a_case_that_is_labelled_while_the_order_is_made_is_not_given(
    datastore: LocalDatastore, scores: ScoreStore, leases: LeaseBook, label: Callable[..., None]
) -> None:
    class Slow(First):
        def rank(
            self, candidates: Sequence[Candidate], labelled: Sequence[Candidate], rng: np.random.Generator
        ) -> list[Choice]:
            order = super().rank(candidates, labelled, rng)
            if order[0].id == "a":
                label("a")
            return order

    assert given(NextImage("first", Slow(), "", scores, leases), ANN, datastore) == "b"


def test_a_case_that_was_removed_is_not_given_again(first: NextImage, datastore: LocalDatastore) -> None:
    assert given(first, ANN, datastore) == "a"
    datastore.remove_image("a")
    assert given(first, ANN, datastore) == "b"


def test_qupath_asks_for_the_next_patch_of_the_picture_that_is_open(
    first: NextImage, datastore: LocalDatastore, leases: LeaseBook
) -> None:
    body = {"image": "b", "patch_size": [64, 32], "image_size": [64, 32], **WEB}
    answer = first(body, datastore)
    assert answer is not None
    assert answer["id"] == "b"
    assert answer["bbox"] == [0, 0, 64, 32]
    assert answer["choice"]["why"] == "requested by name"
    assert [given(first, who, datastore) for who in (ANN, BOB)] == ["a", "c"]
    assert given(first, {**ANN, "skip": True}, datastore) == "a"
    leases.skip(Annotator("client bob", True))
    # With an empty name it is the next picture.
    assert given(first, {**body, "image": ""}, datastore) == "c"
    with pytest.raises(ImageNotFoundError, match="Unknown image 'nowhere'"):
        first({**body, "image": "nowhere"}, datastore)


def test_a_picture_that_somebody_else_works_on_is_given_to_who_names_it_and_stays_theirs(
    first: NextImage, datastore: LocalDatastore, leases: LeaseBook, caplog: pytest.LogCaptureFixture
) -> None:
    assert given(first, ANN, datastore) == "a"
    answer = first({"image": "a", **WEB}, datastore)
    assert answer is not None
    assert answer["id"] == "a"
    assert "bbox" not in answer
    assert "open in two viewers" in caplog.text
    assert given(first, ANN, datastore) == "a"


def test_two_threads_that_ask_200_times_at_once_never_get_the_same_case(
    tmp_path: Path, scores: ScoreStore, leases: LeaseBook
) -> None:
    datastore = make_datastore(tmp_path / "many", [f"case{number:03}" for number in range(200)])
    strategy = NextImage("random", Random(), "", scores, leases)

    def ask(number: int) -> str | None:
        return given(strategy, {ANNOTATOR: str(number % 2)}, datastore)

    with ThreadPoolExecutor(2) as threads:
        cases = list(threads.map(ask, range(200)))
    assert None not in cases
    assert max(Counter(cases).values()) == 1


def test_two_threads_that_skip_never_hold_the_same_case_at_one_time(
    datastore: LocalDatastore, scores: ScoreStore, leases: LeaseBook
) -> None:
    strategy = NextImage("random", Random(), "", scores, leases)

    def work(client: str) -> list[str]:
        own = {"client_id": client}
        cases = []
        for _ in range(100):
            case = given(strategy, {**own, "skip": True}, datastore)
            assert case is not None
            # Nobody took it since.
            assert given(strategy, own, datastore) == case
            cases.append(case)
        return cases

    with ThreadPoolExecutor(2) as threads:
        for cases in threads.map(work, ("ann", "bob")):
            # Who comes second may find one of the three with the other all the time.
            assert len(set(cases)) >= 2


def test_viewers_are_told_of_the_option() -> None:
    strategy = NextImage("first", First(), "by name", ScoreStore(Path("nowhere")), LeaseBook(30))
    assert strategy.info() == {"description": "by name", "config": {"skip": False}}


def test_every_name_of_the_setting_is_there_and_random_is_what_the_setting_says(
    datastore: LocalDatastore, scores: ScoreStore
) -> None:
    for default in STRATEGIES:
        assert tuple(all_strategies(default, 30, scores)) == STRATEGIES
        for name in STRATEGIES:
            answer = all_strategies(default, 30, scores)[name]({}, datastore)
            assert answer is not None
            assert answer["choice"]["strategy"] == (default if name == "random" else name)
    described = all_strategies("hybrid", 30, scores)["random"].info()["description"]
    assert described.endswith("(--conf strategy hybrid)")
    assert all_strategies("random", 30, scores)["random"].info()["description"] == "Any image, by chance"


def test_a_case_that_one_strategy_gave_no_other_gives(datastore: LocalDatastore, scores: ScoreStore) -> None:
    for name, score in zip("abc", (0.1, 0.5, 0.9), strict=True):
        scores.put(name, image_score(score))
    strategies = all_strategies("random", 30, scores)
    answers = [
        strategies[name]({"client_id": name}, datastore)
        for name in ("uncertainty", "last", "first", "random")
    ]
    assert [answer and answer["id"] for answer in answers] == ["c", "b", "a", None]
