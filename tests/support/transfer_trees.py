"""Small trees of the transfer suite's data sets, each in its published layout."""

import io
import json
import os
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102


@cache
def encoded(number: int, file_format: str = "JPEG") -> bytes:
    """The bytes of a small image."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 27, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format)
    return buffer.getvalue()


def write_images(folder: Path, names: list[str], file_format: str = "JPEG") -> None:
    """Write an image for each path below a folder; a seventeenth is a link to the first."""
    for parent in {(folder / name).parent for name in names}:
        parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        if number < 16:
            (folder / name).write_bytes(encoded(number, file_format))
        else:
            os.link(folder / names[number % 16], folder / name)


def write_lines(path: Path, lines: list[str]) -> None:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def food101(root: Path) -> None:
    """Two training images and one test image of each dish; ``meta/`` lists them backwards."""
    folder = root / "food-101"
    dishes = ["waffles", *(f"dish_{number:03}" for number in reversed(range(100)))]
    for part, numbers in (("train", (11, 12)), ("test", (13,))):
        lists = {dish: [f"{dish}/{number}" for number in numbers] for dish in dishes}
        write_lines(folder / "meta" / f"{part}.json", [json.dumps(lists)])
        names = [f"{name}.jpg" for ids in lists.values() for name in ids]
        write_images(folder / "images", names)


def cub200(root: Path) -> None:
    """Two training images and one test image of each bird, numbered as published."""
    folder = root / "CUB_200_2011"
    birds = ["001.Black_footed_Albatross", *(f"{n:03}.Bird_{n}" for n in range(2, 201))]
    names = [f"{bird}/{bird[4:]}_{n:04}.jpg" for bird in birds for n in (1, 2, 3)]
    write_images(folder / "images", names)
    write_lines(folder / "classes.txt", [f"{n} {bird}" for n, bird in enumerate(birds, 1)])
    write_lines(folder / "images.txt", [f"{n} {name}" for n, name in enumerate(names, 1)])
    labels = [f"{n} {(n + 2) // 3}" for n in range(1, len(names) + 1)]
    write_lines(folder / "image_class_labels.txt", labels)
    marks = [f"{n} {int(n % 3 != 2)}" for n in range(1, len(names) + 1)]
    write_lines(folder / "train_test_split.txt", marks)


def sun397(root: Path) -> None:
    """One image of each part and kind of scene, and one that the partition leaves out."""
    folder = root / "SUN397"
    scenes = ["/a/abbey", "/c/church/indoor", "/c/church/outdoor"]
    scenes += [f"/s/scene_{number:03}" for number in range(394)]
    write_lines(folder / "ClassName.txt", scenes)
    for part, letter in (("Training", "a"), ("Testing", "b")):
        names = [f"{scene}/sun_{letter}.jpg" for scene in scenes]
        write_lines(folder / f"{part}_01.txt", names)
        write_images(folder, [name[1:] for name in names])
    write_images(folder, ["a/abbey/sun_unused.jpg"])


def stanford_cars(root: Path) -> None:
    """One image of each part and model; annotations in MATLAB's structures."""
    folder = root / "stanford_cars"
    cars = np.array(["AM General Hummer SUV 2000", *(f"Car {n}" for n in range(2, 197))], object)
    (folder / "devkit").mkdir(parents=True)
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": cars})
    lists = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for part, path in lists.items():
        rows = np.empty(196, [("bbox_x1", object), ("class", object), ("fname", object)])
        for number in range(196):
            rows[number] = (5, 196 - number, f"{number + 1:05}.jpg")
        savemat(folder / path, {"annotations": rows})
        write_images(folder / f"cars_{part}", list(rows["fname"]))


def fgvc_aircraft(root: Path) -> None:
    """One image of each part and variant; ``trainval`` alternates between its parts."""
    folder = root / "fgvc-aircraft-2013b" / "data"
    variants = ["707-320", "Boeing 717", "F/A-18", *(f"Jet {number:02}" for number in range(97))]
    write_lines(folder / "variants.txt", variants)
    for start, part in ((1000000, "train"), (2000000, "val"), (3000000, "test")):
        rows = [f"{start + number} {variant}" for number, variant in enumerate(variants)]
        write_lines(folder / f"images_variant_{part}.txt", rows)
        write_images(folder / "images", [f"{row.split()[0]}.jpg" for row in rows])
    parts = [(folder / f"images_variant_{part}.txt").read_text() for part in ("train", "val")]
    pairs = zip(*(part.splitlines() for part in parts), strict=True)
    write_lines(folder / "images_variant_trainval.txt", [row for pair in pairs for row in pair])


def dtd(root: Path) -> None:
    """One image of each part and texture in the first split; another split has others."""
    folder = root / "dtd"
    textures = ["banded", "zigzagged", *(f"texture{number:02}" for number in range(45))]
    for number, part in enumerate(("train", "val", "test")):
        names = [f"{texture}/{texture}_{number:04}.jpg" for texture in textures]
        write_lines(folder / "labels" / f"{part}1.txt", names)
        write_lines(folder / "labels" / f"{part}2.txt", names[:1])
        write_images(folder / "images", names)


def oxford_pets(root: Path) -> None:
    """Two training images and one test image of each breed."""
    folder = root / "oxford-iiit-pet"
    breeds = ["Abyssinian", "american_bulldog", *(f"breed_x_{number:02}" for number in range(35))]
    for part, numbers in (("trainval", (7, 107)), ("test", (9,))):
        rows = [
            f"{breed}_{n} {label} 1 1" for n in numbers for label, breed in enumerate(breeds, 1)
        ]
        write_lines(folder / "annotations" / f"{part}.txt", rows)
        write_images(folder / "images", [f"{row.split()[0]}.jpg" for row in rows])


def caltech101(root: Path) -> None:
    """33 images of each class, of which 30 are for training, and of the background."""
    folder = root / "caltech101" / "101_ObjectCategories"
    classes = ["BACKGROUND_Google", "Faces", "accordion"]
    classes += [f"thing_{number:02}" for number in range(99)]
    names = [f"{name}/image_{number:04}.jpg" for name in classes for number in range(1, 34)]
    write_images(folder, names)
    (folder / "BACKGROUND_Google" / "tmp").write_text("http://\n")


def flowers102(root: Path) -> None:
    """One image of each part and flower, the test part with two; numbered in reverse."""
    folder = root / "flowers-102"
    numbers = np.arange(1, 409)
    folder.mkdir(parents=True)
    savemat(folder / "imagelabels.mat", {"labels": 102 - (numbers - 1) % 102})
    parts = {"trnid": numbers[:102], "valid": numbers[102:204], "tstid": numbers[204:]}
    savemat(folder / "setid.mat", parts)
    write_images(folder / "jpg", [f"image_{number:05}.jpg" for number in numbers])
    assert len(Flowers102.classes) == 102


def eurosat(root: Path) -> None:
    """Two training images, one of validation and one test image of each class."""
    classes = ["AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture"]
    classes += ["PermanentCrop", "Residential", "River", "SeaLake"]
    remote_sensing(root / "eurosat_rgb", "eurosat", "2750", classes, "{}_{}.jpg")


def resisc45(root: Path) -> None:
    """The same of RESISC45."""
    classes = ["airplane", "baseball_diamond", *(f"kind_of_{number:02}" for number in range(43))]
    remote_sensing(root / "resisc45", "resisc45", "NWPU-RESISC45", classes, "{}_{:03}.jpg")


def remote_sensing(folder: Path, name: str, images: str, classes: list[str], form: str) -> None:
    """Write images in folders of classes, and lists of their files' names."""
    for part, numbers in (("train", (1, 4)), ("val", (2,)), ("test", (3,))):
        files = [(kind, form.format(kind, number)) for number in numbers for kind in classes]
        write_lines(folder / f"{name}-{part}.txt", [file for _, file in reversed(files)])
        write_images(folder / images, [f"{kind}/{file}" for kind, file in files])


def gtsrb(root: Path) -> None:
    """Two training images and one test image of each sign, with the tables of boxes."""
    folder = root / "gtsrb"
    kinds = [f"{number:05}" for number in range(43)]
    names = [f"{kind}/00000_{number:05}.ppm" for kind in kinds for number in (0, 1)]
    write_images(folder / "GTSRB" / "Training", names, "PPM")
    for kind in kinds:
        write_lines(folder / "GTSRB" / "Training" / kind / f"GT-{kind}.csv", ["Filename;Width"])
    files = [f"{number:05}.ppm" for number in range(43)]
    write_images(folder / "GTSRB" / "Final_Test" / "Images", files, "PPM")
    rows = [f"{file};27;20;5;5;20;15;{42 - number}" for number, file in enumerate(files)]
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    write_lines(folder / "GT-final_test.csv", [header, *rows])


def svhn(root: Path) -> None:
    """Thirty training and ten test images; MATLAB's order of axes, and 10 for zero."""
    (root / "svhn").mkdir(parents=True)
    for part, count in (("train", 30), ("test", 10)):
        pixels = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        digits = (np.arange(count, dtype=np.uint8) % 10 + 1).reshape(-1, 1)
        savemat(root / "svhn" / f"{part}_32x32.mat", {"X": pixels, "y": digits})


def pcam(root: Path) -> None:
    """Six training images, four of validation and four test images; needs h5py."""
    import h5py

    (root / "pcam").mkdir(parents=True)
    for part, count in (("train", 6), ("valid", 4), ("test", 4)):
        pixels = np.random.default_rng(count).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        labels = (np.arange(count, dtype=np.uint8) % 2).reshape(-1, 1, 1, 1)
        for axis, array in (("x", pixels), ("y", labels)):
            path = root / "pcam" / f"camelyonpatch_level_2_split_{part}_{axis}.h5"
            with h5py.File(path, "w") as file:
                file.create_dataset(axis, data=array, chunks=True, compression="gzip")


def voc2007(root: Path) -> None:
    """Twelve images each of train, val and test, with none, one or both of two classes."""
    folder = root / "VOCdevkit" / "VOC2007"
    parts = {"trainval": range(24), "val": range(12, 24), "test": range(24, 36)}
    for part, numbers in parts.items():
        for name, period in (("cat", 2), ("dog", 3)):
            values = [0 if n % 11 == 0 else 1 if n % period == 0 else -1 for n in numbers]
            lines = [f"{n:06} {value:2}" for n, value in zip(numbers, values, strict=True)]
            write_lines(folder / "ImageSets" / "Main" / f"{name}_{part}.txt", lines)
    write_images(folder / "JPEGImages", [f"{n:06}.jpg" for n in range(36)])


# Images of each split in what the functions write; validation is a part of training.
COUNTS = {
    "food101": {"train": 202, "test": 101},
    "cub200": {"train": 400, "test": 200},
    "sun397": {"train": 397, "test": 397},
    "stanford_cars": {"train": 196, "test": 196},
    "fgvc_aircraft": {"train": 200, "val": 100, "test": 100},
    "dtd": {"train": 94, "val": 47, "test": 47},
    "oxford_pets": {"train": 74, "test": 37},
    "caltech101": {"train": 3_030, "test": 303},
    "caltech101_background": {"train": 3_060, "test": 306},
    "flowers102": {"train": 204, "val": 102, "test": 204},
    "eurosat": {"train": 30, "val": 10, "test": 10},
    "resisc45": {"train": 135, "val": 45, "test": 45},
    "gtsrb": {"train": 86, "test": 43},
    "svhn": {"train": 30, "test": 10},
    "pcam": {"train": 10, "val": 4, "test": 4},
}

VOC2007_COUNTS = {"trainval": 24, "val": 12, "test": 12}

# Functions that write below a root, by ``data.name``.
WRITERS = {
    "food101": food101,
    "cub200": cub200,
    "sun397": sun397,
    "stanford_cars": stanford_cars,
    "fgvc_aircraft": fgvc_aircraft,
    "dtd": dtd,
    "oxford_pets": oxford_pets,
    "caltech101": caltech101,
    "caltech101_background": caltech101,
    "flowers102": flowers102,
    "eurosat": eurosat,
    "resisc45": resisc45,
    "gtsrb": gtsrb,
    "svhn": svhn,
    "pcam": pcam,
}
