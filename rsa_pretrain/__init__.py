"""Self-supervised pretraining of ResNets with RSA."""

from typing import TYPE_CHECKING

from rsa_pretrain.plumbing.lazy_names import lazy_names

if TYPE_CHECKING:
    from rsa_pretrain.config import PretrainConfig as PretrainConfig
    from rsa_pretrain.config import load_run as load_run
    from rsa_pretrain.data.open_images import open_images as open_images
    from rsa_pretrain.data.settings import DataConfig as DataConfig
    from rsa_pretrain.plumbing.config.files import load_config as load_config
    from rsa_pretrain.plumbing.errors import UserError as UserError
    from rsa_pretrain.training.pretraining import pretrain as pretrain
    from rsa_pretrain.weights.checkpoint import LoadedBackbone as LoadedBackbone
    from rsa_pretrain.weights.checkpoint import load_backbone as load_backbone
    from rsa_pretrain.weights.export.export import export_backbone as export_backbone
    from rsa_pretrain.weights.export.export import find_target as find_target
    from rsa_pretrain.weights.foreign.load import ImportOptions as ImportOptions
    from rsa_pretrain.weights.foreign.load import write_import as write_import
    from rsa_pretrain.weights.load import load_weights as load_weights
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "rsa_pretrain.config": "PretrainConfig load_run",
            "rsa_pretrain.data.open_images": "open_images",
            "rsa_pretrain.data.settings": "DataConfig",
            "rsa_pretrain.plumbing.config.files": "load_config",
            "rsa_pretrain.plumbing.errors": "UserError",
            "rsa_pretrain.training.pretraining": "pretrain",
            "rsa_pretrain.weights.checkpoint": "LoadedBackbone load_backbone",
            "rsa_pretrain.weights.export.export": "export_backbone find_target",
            "rsa_pretrain.weights.foreign.load": "ImportOptions write_import",
            "rsa_pretrain.weights.load": "load_weights",
        },
    )
