"""The audit of FER2013's splits, on small drawn data and on the real ones."""

import json

import numpy as np
import pytest
from drawn_fer2013 import draw, write_parquet
from launch import REAL, ROOT

from fer_zoo.data import load_fer2013
from train.audit import audit, table
from train.dataset import Fer2013


def test_audit(source):
    found = audit(Fer2013.of(load_fer2013(source, check_counts=False)))
    assert found["splits"]["train"]["images"] == 280
    assert found["splits"]["train"]["repeats"] == found["splits"]["train"]["conflicts"] == 0
    train_test = next(row for row in found["overlaps"] if row["splits"] == ["train", "test"])
    assert train_test == {
        "splits": ["train", "test"],
        "images": {"train": 1, "test": 1},
        "of_another_label": 0,
    }
    assert "1 images of test stand in train" in table(found)
    assert found["ferplus"]["test"].keys() == {"decided", "agreed"}
    assert f"FER+ decides {found['ferplus']['test']['decided']:,} images of test" in table(found)


def test_audit_counts_repeats_and_conflicts(tmp_path):
    drawn = draw(per_class=6)
    images, labels = drawn["train"]
    images[7] = images[0]  # the same label
    images[1] = images[0]  # another one
    drawn["test"] = (drawn["test"][0], np.roll(labels, 1))
    found = audit(Fer2013.of(load_fer2013(write_parquet(tmp_path / "f", drawn), check_counts=False)))
    train_split = found["splits"]["train"]
    assert (train_split["repeats"], train_split["conflicts"]) == (2, 3)
    train_test = next(row for row in found["overlaps"] if row["splits"] == ["train", "test"])
    assert train_test["images"] == {"train": 3, "test": 1} and train_test["of_another_label"] == 1
    assert found["leaking"]["leak_free"] == 0


@pytest.mark.skipif(not REAL.exists(), reason=f"no FER2013 at {REAL}")
def test_the_stored_audit_is_that_of_fer2013():
    stored = json.loads((ROOT / "model_cards" / "results" / "audit.json").read_text())
    assert audit(Fer2013.of(load_fer2013(REAL))) == stored
