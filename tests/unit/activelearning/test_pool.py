from __future__ import annotations

from collections.abc import Callable

import numpy as np
from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from lib.activelearning.pool import Pool, read_candidates, read_pool
from lib.scoring.store import ScoreStore
from tests.unit.activelearning.conftest import image_score

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
