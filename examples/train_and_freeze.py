"""Train on the ORL faces for some seconds, verify people never trained on, and freeze the network."""

from facenet_fast.config import FreezeConfig, TrainConfig
from facenet_fast.export import freeze
from facenet_fast.training.loop import train

result = train(TrainConfig(epochs=2, epoch_size=20, image_size=40, baselines=False))
for name, verification in result.results["held_out"].items():
    print(f"{name}: AUC {verification.auc:.3f}, accuracy {verification.accuracy:.3f}")
freeze(FreezeConfig(model=result.run_dir, output_path="model.pb"))
