"""Evaluate frozen features: kNN, linear probes and other protocols, records and reports."""

from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.lazy_names import lazy_names

if TYPE_CHECKING:
    from rsa_eval.campaigns.run_records import make_record_of as make_record_of
    from rsa_eval.evaluators import EVALUATORS as EVALUATORS
    from rsa_eval.evaluators import Evaluator as Evaluator
    from rsa_eval.evaluators.diagnostics.geometry import alignment as alignment
    from rsa_eval.evaluators.diagnostics.geometry import rank_me as rank_me
    from rsa_eval.evaluators.diagnostics.geometry import uniformity as uniformity
    from rsa_eval.evaluators.diagnostics.lidar import lidar as lidar
    from rsa_eval.evaluators.diagnostics.settings import DiagnosticsConfig as DiagnosticsConfig
    from rsa_eval.evaluators.diagnostics.similarity import linear_cka as linear_cka
    from rsa_eval.evaluators.diagnostics.similarity import (
        unbiased_linear_cka as unbiased_linear_cka,
    )
    from rsa_eval.evaluators.diagnostics.spectrum import alpha_req as alpha_req
    from rsa_eval.evaluators.finetune.settings import FinetuneConfig as FinetuneConfig
    from rsa_eval.evaluators.knn.evaluator import knn as knn
    from rsa_eval.evaluators.knn.online import make_online_knn as make_online_knn
    from rsa_eval.evaluators.knn.settings import KNNConfig as KNNConfig
    from rsa_eval.evaluators.knn.settings import KNNSetting as KNNSetting
    from rsa_eval.evaluators.linear.evaluator import linear_probe as linear_probe
    from rsa_eval.evaluators.linear.settings import LinearConfig as LinearConfig
    from rsa_eval.evaluators.linear.settings import ProbeConfig as ProbeConfig
    from rsa_eval.evaluators.logistic.evaluator import logistic_regression as logistic_regression
    from rsa_eval.evaluators.logistic.settings import LogisticConfig as LogisticConfig
    from rsa_eval.evaluators.logistic.settings import SearchConfig as SearchConfig
    from rsa_eval.evaluators.low_shot.evaluator import low_shot as low_shot
    from rsa_eval.evaluators.low_shot.settings import ClassifierConfig as ClassifierConfig
    from rsa_eval.evaluators.low_shot.settings import LowShotConfig as LowShotConfig
    from rsa_eval.evaluators.shared.settings import Subset as Subset
    from rsa_eval.evaluators.svm.evaluator import linear_svm as linear_svm
    from rsa_eval.evaluators.svm.settings import MachineConfig as MachineConfig
    from rsa_eval.evaluators.svm.settings import SVMConfig as SVMConfig
    from rsa_eval.features.given import read_features as read_features
    from rsa_eval.features.labelled import LabelledFeatures as LabelledFeatures
    from rsa_eval.features.networks.load import load_network as load_network
    from rsa_eval.features.networks.preprocessing import Preprocessing as Preprocessing
    from rsa_eval.features.torch_dataset import extract as extract
    from rsa_eval.features.torch_dataset import transform_for as transform_for
    from rsa_eval.records.predictions import read_predictions as read_predictions
    from rsa_eval.records.record import Record as Record
    from rsa_eval.records.record import Scores as Scores
    from rsa_eval.records.record import read_record as read_record
    from rsa_eval.verdicts.compare import compare_sides as compare_sides
    from rsa_eval.verdicts.sides import read_side as read_side
    from rsa_eval.verdicts.words import sentences as sentences
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "rsa_eval.campaigns.run_records": "make_record_of",
            "rsa_eval.evaluators": "EVALUATORS Evaluator",
            "rsa_eval.evaluators.diagnostics.geometry": "alignment rank_me uniformity",
            "rsa_eval.evaluators.diagnostics.lidar": "lidar",
            "rsa_eval.evaluators.diagnostics.settings": "DiagnosticsConfig",
            "rsa_eval.evaluators.diagnostics.similarity": "linear_cka unbiased_linear_cka",
            "rsa_eval.evaluators.diagnostics.spectrum": "alpha_req",
            "rsa_eval.evaluators.finetune.settings": "FinetuneConfig",
            "rsa_eval.evaluators.knn.evaluator": "knn",
            "rsa_eval.evaluators.knn.online": "make_online_knn",
            "rsa_eval.evaluators.knn.settings": "KNNConfig KNNSetting",
            "rsa_eval.evaluators.linear.evaluator": "linear_probe",
            "rsa_eval.evaluators.linear.settings": "LinearConfig ProbeConfig",
            "rsa_eval.evaluators.logistic.evaluator": "logistic_regression",
            "rsa_eval.evaluators.logistic.settings": "LogisticConfig SearchConfig",
            "rsa_eval.evaluators.low_shot.evaluator": "low_shot",
            "rsa_eval.evaluators.low_shot.settings": "ClassifierConfig LowShotConfig",
            "rsa_eval.evaluators.shared.settings": "Subset",
            "rsa_eval.evaluators.svm.evaluator": "linear_svm",
            "rsa_eval.evaluators.svm.settings": "MachineConfig SVMConfig",
            "rsa_eval.features.given": "read_features",
            "rsa_eval.features.labelled": "LabelledFeatures",
            "rsa_eval.features.networks.load": "load_network",
            "rsa_eval.features.networks.preprocessing": "Preprocessing",
            "rsa_eval.features.torch_dataset": "extract transform_for",
            "rsa_eval.records.predictions": "read_predictions",
            "rsa_eval.records.record": "Record Scores read_record",
            "rsa_eval.verdicts.compare": "compare_sides",
            "rsa_eval.verdicts.sides": "read_side",
            "rsa_eval.verdicts.words": "sentences",
        },
    )
