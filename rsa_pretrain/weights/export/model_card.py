"""Write the card of an exported model: its use, training, evaluation and limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rsa_pretrain.plumbing.text_table import escape_markdown, render_table
from rsa_pretrain.weights.checkpoint import LoadedBackbone
from rsa_pretrain.weights.metadata import BackboneMetadata

UNNAMED = "USER/NAME"
"""Stands for the repository where it is not known."""
_COLUMNS = ("data set", "protocol", "metric", "value", "test images", "seeds", "measured")


@dataclass(frozen=True)
class RecordOfWeights:
    """The part of one evaluation record that the card reports."""

    rows: tuple[tuple[str, ...], ...]
    """One per metric: a cell for each column of the card's table."""
    deviations: tuple[str, ...]
    """Deviations of the run from the published protocol."""
    result: dict[str, Any]
    """The same numbers as one of the hub's ``model-index`` results."""


_USE = f"""\
```python
from transformers import AutoModel

backbone = AutoModel.from_pretrained("{UNNAMED}")  # features: backbone(images).pooler_output
```

```python
import timm

backbone = timm.create_model("hf-hub:{UNNAMED}", pretrained=True)  # features: backbone(images)
```

```sh
pip install 'rsa-toolkit[hub]'
rsa-eval knn hf://{UNNAMED} --config data/imagefolder data.root=FOLDER
```"""


def model_card(
    loaded: LoadedBackbone, records: Sequence[RecordOfWeights], repository: str = UNNAMED
) -> str:
    """Write the card as Markdown with the header the Hugging Face hub reads.

    Args:
        loaded: The backbone.
        records: Its evaluations.
        repository: USER/NAME of the model on the hub.
    """
    metadata = loaded.metadata
    name = f"{metadata.arch}, {metadata.method}"
    parts = [
        f"---\n{_header(name, records)}---",
        f"# {escape_markdown(name)}",
        "An image backbone without classifier: it maps an image to pooled features.",
        "## Use\n\n" + _USE.replace(UNNAMED, repository),
        "## Input\n\n"
        f"RGB, pixels in [0, 1], normalised by mean {list(metadata.mean)} and standard deviation "
        f"{list(metadata.std)}. {_image_size(metadata)}",
        "## Training\n\n" + _listed(_training(metadata)),
        "## Evaluation\n\n" + _evaluation(records),
        "## Limits\n\n" + _listed(_limits(loaded, records)),
    ]
    return "\n\n".join(parts) + "\n"


def _header(name: str, records: Sequence[RecordOfWeights]) -> str:
    """Return the hub's metadata in YAML."""
    tree: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["self-supervised-learning", "resnet", "timm"],
    }
    if records:
        results = [record.result for record in records]
        tree["model-index"] = [{"name": name, "results": results}]
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1000))


def _image_size(metadata: BackboneMetadata) -> str:
    if metadata.image_size is None:
        return "The training image size is not known."
    return f"Trained on images of {metadata.image_size} x {metadata.image_size} pixels."


def _training(metadata: BackboneMetadata) -> list[str]:
    known = {
        "method": metadata.method,
        "data set": metadata.data_set,
        "epochs": None if metadata.epochs is None else f"{metadata.epochs:g}",
        "optimizer steps": metadata.step,
        "seed": metadata.seed,
        "hash of the run's settings": metadata.config_hash,
    }
    lines = [f"{name}: {'not known' if value is None else value}" for name, value in known.items()]
    if metadata.origin is not None:
        origin = metadata.origin
        lines.append(
            f"imported from another project's file {origin.file} (SHA-256 {metadata.parent}), "
            f"layout {origin.layout}, network {origin.network}"
        )
        if origin.published is not None:
            lines.append(f"published at {origin.published.url}; its licence holds for this copy")
    return lines


def _evaluation(records: Sequence[RecordOfWeights]) -> str:
    if not records:
        return "Not evaluated: no record of these weights was given."
    rows = [row for record in records for row in record.rows]
    return render_table(_COLUMNS, rows, "markdown", ("value", "test images"))


def _limits(loaded: LoadedBackbone, records: Sequence[RecordOfWeights]) -> list[str]:
    lines = [text for record in records for text in record.deviations]
    if records:
        lines.append("Numbers are single runs unless several seeds are listed.")
    lines.append("Features may be poor for images unlike those the network was trained on.")
    lines.append(f"SHA-256 of the weights this export was made from: {loaded.sha256}.")
    return lines


def _listed(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escape_markdown(line)}" for line in lines)
