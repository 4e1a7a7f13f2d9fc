"""Files of images and of what is known of them: shards, sizes, annotations, pictures, lists."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.damage.mutants import mutate, mutate_json, mutate_text
from benchmarks.faults.damage.trials import Kind
from detection.coco.evaluation import evaluate_in_detail
from detection.coco.image_list import list_files
from detection.coco.images import read_image
from detection.coco.importers.class_names import read_class_names
from detection.coco.masks import has_mask, render_mask
from detection.coco.results import iou_types_of, read_predictions
from detection.coco.sets import check_objects, mask_gap, open_coco, training_images
from detection.coco.shapes import MIN_IMAGE_SIZE_PIXELS, ShapesConfig, write_shapes
from rsa_eval.evaluators.shared.settings import Subset
from rsa_eval.evaluators.shared.subsets import subset_rows
from rsa_pretrain.data.open_images import open_images
from rsa_pretrain.data.read_settings import DEFAULT_RULES
from rsa_pretrain.data.settings import DataConfig
from rsa_pretrain.data.shards.locate import open_stream
from rsa_pretrain.data.shards.stream import read_shard

_SIDE = MIN_IMAGE_SIZE_PIXELS


def data_kinds() -> list[Kind]:
    """Return the kinds of files of images, and of lists of them."""
    return [
        Kind("sizes.json", _write_sizes, _read_sizes, mutate_json),
        Kind("tar shard, indexed", _write_shard, _read_indexed, mutate),
        Kind("tar shard, streamed", _write_shard, _read_streamed, mutate),
        Kind("gzipped shard, streamed", _write_gzipped, _read_streamed, mutate),
        Kind("picture in a folder", _write_picture, _read_folder, mutate, harmless=("folder",)),
        Kind("picture of a detector", _write_picture, _read_picture, mutate),
        Kind("COCO annotations", _write_annotations, _read_annotations, mutate_json),
        Kind("COCO predictions", _write_predictions, _read_predictions, mutate_json),
        Kind("class names in YAML", _write_names, read_class_names, mutate_text),
        Kind("list of images", _write_list, _read_list, mutate_text),
    ]


def _picture(number: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(256, size=(_SIDE, _SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def _write_tar(path: Path, mode: str) -> Path:
    path.parent.mkdir()
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for number in range(4):
            label = json.dumps({"label": number % 2}).encode()
            for suffix, content in (("png", _picture(number)), ("json", label)):
                info = tarfile.TarInfo(f"{number:04}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def _write_shard(folder: Path) -> Path:
    return _write_tar(folder / "train" / "part-0.tar", "w")


def _write_gzipped(folder: Path) -> Path:
    return _write_tar(folder / "train" / "part-0.tar.gz", "w:gz")


def _write_sizes(folder: Path) -> Path:
    path = _write_shard(folder).with_name("sizes.json")
    path.write_text('{"part-0.tar": 4}\n')
    return path


def _config(root: Path) -> DataConfig:
    return DataConfig(name="webdataset", root=root, image_size=16, label_key="label")


def _read_sizes(path: Path) -> object:
    return open_stream(_config(path.parents[1])).sizes


def _read_indexed(path: Path) -> object:
    images = open_images(_config(path.parents[1]), "train")
    pictures = [images.sources.read(row)[0].tobytes() for row in range(len(images))]
    return pictures, list(images.require_labels())


def _read_streamed(path: Path) -> object:
    config = _config(path.parents[1])
    shards = open_stream(config)
    samples = [sample for url in shards.urls for sample in read_shard(url, config, shards.samples)]
    return [(sample.encoded.read()[0].tobytes(), sample.label) for sample in samples]


def _write_picture(folder: Path) -> Path:
    for number in range(3):
        path = folder / "train" / "ant" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(number, "JPEG"))
    return path


def _read_folder(path: Path) -> object:
    config = DataConfig(name="imagefolder", root=path.parents[2], image_size=16)
    images = open_images(config, "train")
    return [images.sources.read(row)[0].tobytes() for row in range(len(images))]


def _read_picture(path: Path) -> object:
    return list_files([path], DEFAULT_RULES), read_image(path, DEFAULT_RULES).tobytes()


def _write_annotations(folder: Path) -> Path:
    write_shapes(folder / "set", ShapesConfig(num_train=2, num_test=1, image_size=_SIDE, seed=3))
    return folder / "set" / "annotations" / "instances_train.json"


def _read_annotations(path: Path) -> object:
    coco = open_coco(path, path.parents[1] / "train")
    images = training_images(coco)
    masks = [
        render_mask(entry["segmentation"], (image.height, image.width), (15, 30)).tobytes()
        for image in images
        for entry in image.annotations
        if has_mask(entry.get("segmentation"))
    ]
    check_objects(path, coco.tree)
    return repr((coco.tree, masks))


def _write_predictions(folder: Path) -> Path:
    annotations = _write_annotations(folder)
    entries: list[dict[str, Any]] = json.loads(annotations.read_text())["annotations"]
    keys = ("image_id", "category_id", "bbox", "segmentation")
    path = folder / "predictions.json"
    path.write_text(json.dumps([{key: e[key] for key in keys} | {"score": 0.9} for e in entries]))
    return path


def _read_predictions(path: Path) -> object:
    folder = path.parent / "set"
    coco = open_coco(folder / "annotations" / "instances_train.json", folder / "train")
    found = read_predictions(path, coco.tree)
    kinds = iou_types_of(found) if mask_gap(coco.tree) is None else ["bbox"]
    return repr((found, evaluate_in_detail(coco.tree, found, kinds).metrics))


def _write_names(folder: Path) -> Path:
    path = folder / "data.yaml"
    path.write_text("# classes\nnames: {0: ant, 1: bee}\nnc: 2\n")
    return path


def _write_list(folder: Path) -> Path:
    _write_picture(folder)
    path = folder / "list.txt"
    path.write_text("0.jpg\n2.jpg\n")
    return path


def _read_list(path: Path) -> object:
    images = open_images(DataConfig(name="imagefolder", root=path.parent, image_size=16), "train")
    return subset_rows(images, Subset(list_file=path), seed=0).tolist()
