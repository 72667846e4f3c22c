"""The demo on real faces, cut short: it must already tell people apart that it never saw."""

import pytest

from facenet_fast.config import TrainConfig
from facenet_fast.training.loop import train


@pytest.mark.slow
def test_half_of_the_demo_beats_plain_pixels(orl_dir, tmp_path, caplog):
    demo = TrainConfig()
    epochs = demo.epochs // 2
    result = train(
        TrainConfig(data_dir=str(orl_dir), runs_dir=str(tmp_path), epochs=epochs, evaluate_every=0)
    )
    assert not [one for one in caplog.records if one.name == "facenet_fast"]  # healthy, says the doctor
    results = result.results["held_out"]
    assert len(results["network after"].is_same) == 100 * 99 // 2
    assert 0.93 <= results["plain pixels"].auc <= 0.97
    assert 0.96 <= results["PCA, whitened"].auc <= 0.99
    assert results["network after"].auc >= 0.97
    assert results["network after"].accuracy > results["plain pixels"].accuracy
