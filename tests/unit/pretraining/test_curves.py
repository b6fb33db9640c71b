"""A log becomes a picture."""

from PIL import Image

from pretraining.curves import draw


def test_a_log_with_gaps_is_drawn(tmp_path):
    log = tmp_path / "log.csv"
    rows = ["step,loss,box,click,clicks,corrected,tracked", "25,2.0,0.5,0.3,,0.4,", "50,1.5,0.7,,0.5,,0.2"]
    log.write_text("\n".join(rows) + "\n")
    draw(log, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (800, 288)
