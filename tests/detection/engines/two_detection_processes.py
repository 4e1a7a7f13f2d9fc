"""Run by test_torchvision_processes.py under torchrun, with the path of a recipe's tree."""

import json
import os
import sys
from pathlib import Path

import torch

from detection.engines.torchvision import trainer
from detection.job.trunk import random_trunk
from detection.recipe.recipe import Recipe
from detection.run import run_recipe
from rsa_pretrain.plumbing.config.files import parse_tree


def main(path):
    """Train and evaluate; note what each process found."""
    torch.set_num_threads(1)
    recipe = parse_tree(Recipe, json.loads(path.read_text()), "run")
    counts = []
    buffers = []
    predict = trainer.predict

    def predict_and_count(detector, job):
        predictions = predict(detector, job)
        counts.append(len(predictions))
        buffers.append(sum(buffer.double().sum().item() for buffer in detector.buffers()))
        return predictions

    trainer.predict = predict_and_count
    code, record = run_recipe(recipe, random_trunk(recipe.model, recipe.seed), resume=False)
    process = os.environ["RANK"]
    assert (record is not None) == (process == "0")
    note = {"code": code, "predictions": counts, "buffers": buffers}
    (path.parent / f"process-{process}.json").write_text(json.dumps(note))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
