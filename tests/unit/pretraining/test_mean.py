import torch

from pretraining.mean import SCORE_BIAS, main


def test_the_mean_of_files_keeps_their_format_and_shifts_the_object_score(tmp_path):
    for name, value in (("one", 1.0), ("other", 2.0), ("third", 6.0)):
        weights = {
            "layer": torch.full((2, 3), value, dtype=torch.float16),
            SCORE_BIAS: torch.tensor([value]),
            "count": torch.tensor(7),
        }
        torch.save({"model": weights}, tmp_path / f"{name}.pt")
    paths = [str(tmp_path / f"{name}.pt") for name in ("one", "other", "third", "out")]
    main([*paths, "--object-score", "0.25"])
    found = torch.load(tmp_path / "out.pt", weights_only=True)["model"]
    assert torch.equal(found["layer"], torch.full((2, 3), 3.0, dtype=torch.float16))
    assert (found[SCORE_BIAS].item(), found["count"].item()) == (3.25, 7)
