"""Monitor pretraining on held-out training images: kNN by the others, and effective rank."""

from collections.abc import Callable, Mapping

import torch
from torch import nn

from rsa_eval.evaluators.diagnostics.geometry import rank_me
from rsa_eval.evaluators.knn.settings import KNNConfig, KNNSetting
from rsa_eval.evaluators.knn.vote import knn_answers
from rsa_eval.features.extract import extract_features
from rsa_eval.features.frozen import frozen
from rsa_eval.features.pixels import in_threads
from rsa_eval.features.transforms import evaluation_transform
from rsa_pretrain.config import PretrainConfig
from rsa_pretrain.data.image_set import ImageSet
from rsa_pretrain.data.open_images import normalisation


def make_online_knn(
    config: PretrainConfig, images: ImageSet, held_out: ImageSet, device: torch.device
) -> Callable[[nn.Module], Mapping[str, float]]:
    """Build the measures of a backbone during training: ``knn_top1``, in percent, and ``rankme``.

    The classified images take no part in training and are not from the test split, so decisions
    may rely on the numbers. RankMe is theirs, too; it depends on how many they are. The backbone
    keeps its mode, weights and BatchNorm statistics. An evaluation starts no process: images that
    are not in memory are read in threads.

    Args:
        config: The run; ``config.monitor`` sets the number of voting neighbours.
        images: Labelled training images; at most ``num_bank_images`` of them are searched.
        held_out: Labelled images to classify.
        device: The backbone's device.

    Raises:
        UserError: If the images are unlabelled.
    """
    monitor = config.monitor
    images = images.labelled()
    bank = images
    if len(images) > monitor.num_bank_images:
        bank = images.random_subset(monitor.num_bank_images, config.seed)
    settings = KNNConfig(
        data=config.data,
        settings=(KNNSetting(k=monitor.knn_k, temperature=monitor.knn_temperature),),
        precision=config.training.precision,
    )
    transform = evaluation_transform(config.data, *normalisation(config.data))

    def evaluate(backbone: nn.Module) -> Mapping[str, float]:
        with frozen(backbone):
            voters, queries = (
                extract_features(backbone, part, transform, settings, label, load=in_threads)
                for part, label in ((bank, "kNN bank"), (held_out, "kNN queries"))
            )
        (answers,) = knn_answers(
            voters,
            queries,
            settings.settings,
            len(images.class_names),
            settings.memory_budget_mib,
            device,
        )
        return {"knn_top1": answers.counts.top1_percent, "rankme": rank_me(queries.features)}

    return evaluate
