"""Numbers of the RSA paper's tables (Bai et al., NeurIPS 2022) and other sources, as printed."""

SMALL_SETS = ("cifar10", "cifar100", "stl10", "tiny_imagenet")

# Method, augmentation, beta; ResNet-18, 200 epochs (ImageNet-100: ResNet-50, 100 epochs).
TABLE_1 = {
    ("BYOL", "AA", "–"): ("90.2±0.0", "63.9±0.5", "91.3±0.1", "49.5±0.1", "80.9"),
    ("BYOL", "AW", "–"): ("90.5±0.2", "66.1±0.3", "90.7±0.0", "51.1±0.3", "81.2"),
    ("RSA", "MA", "fixed"): ("91.3±0.2", "66.5±0.0", "92.8±0.2", "53.9±0.2", "83.2"),
    ("RSA", "MA", "decay"): ("92.1±0.0", "67.6±0.3", "93.0±0.2", "54.7±0.3", "83.5"),
}

# 200 and 800 epochs for each of the four sets.
TABLE_2 = {
    "SimCLR": ("88.3±0.2 91.1", "59.5±0.3 63.8", "87.9±0.4 91.0", "46.7±0.1 48.4"),
    "MoCo v2": ("87.1±0.2 91.4", "60.3±0.4 65.0", "88.4±0.3 91.3", "47.8±0.4 50.1"),
    "SimSiam": ("86.9±0.1 91.1", "55.8±0.9 62.4", "85.0±0.4 89.7", "41.2±0.3 44.5"),
    "BYOL": ("90.2±0.0 92.7", "63.9±0.5 68.2", "91.3±0.1 93.4", "49.5±0.1 53.0"),
    "RSA": ("92.3±0.1 93.7", "68.1±0.5 70.4", "93.1±0.2 94.0", "54.8±0.4 55.5"),
}

# 100 and 200 epochs.
TABLE_3 = {
    "SimCLR": "79.1 82.4",
    "MoCo v2": "80.9 83.9",
    "SimSiam": "79.7 82.6",
    "BYOL": "80.9 83.6",
    "RSA": "83.7 85.5",
}

# Method, negative pairs, batch size, epochs, top-1.
TABLE_4 = (
    ("Supervised", "", 256, 100, "76.2"),
    ("InstDis", "✓", 256, 200, "56.5"),
    ("PIRL", "✓", 256, 200, "63.6"),
    ("SimCLR", "✓", 4096, 1000, "69.3"),
    ("MoCo v2", "✓", 256, 200, "67.5"),
    ("JCL", "✓", 256, 200, "68.7"),
    ("ReSSL", "✓", 256, 200, "69.6"),
    ("InfoMin Aug.", "✓", 256, 200, "70.1"),
    ("W-MSE 4", "", 4096, 400, "72.6"),
    ("SimSiam", "", 256, 200, "70.0"),
    ("SwAV", "", 4096, 200, "69.1"),
    ("BYOL", "", 4096, 100, "66.5"),
    ("BYOL", "", 4096, 200, "70.6"),
    ("BYOL", "", 2048, 300, "72.4"),
    ("RSA", "", 2048, 100, "71.4"),
    ("RSA", "", 2048, 200, "73.1"),
)

DETECTION_METRICS = ("bbox_AP", "bbox_AP50", "bbox_AP75", "segm_AP", "segm_AP50", "segm_AP75")

TABLE_5 = {
    "random init.": "32.8 50.9 35.3 29.9 47.9 32.0",
    "supervised": "39.7 59.5 43.3 35.9 56.6 38.6",
    "InstDis": "38.8 58.4 42.5 35.2 55.8 37.8",
    "PIRL": "38.6 58.2 42.1 35.1 55.5 37.7",
    "MoCo": "39.4 59.1 42.9 35.6 56.2 38.0",
    "MoCo v2": "40.1 59.8 44.1 36.3 56.9 39.1",
    "InfoMin Aug.": "40.6 60.6 44.6 36.7 57.7 39.4",
    "RSA": "41.1 61.4 45.1 37.3 58.6 40.1",
}

TABLE_6 = {
    "random init.": "38.4 57.5 42.0 34.7 54.8 37.2",
    "supervised": "41.6 61.7 45.3 37.6 58.7 40.4",
    "InstDis": "41.3 61.0 45.3 37.3 58.3 39.9",
    "PIRL": "41.2 61.2 45.2 37.4 58.5 40.3",
    "MoCo": "41.7 61.4 45.7 37.5 58.6 40.5",
    "MoCo v2": "41.7 61.6 45.6 37.6 58.7 40.5",
    "InfoMin Aug.": "42.5 62.7 46.8 38.4 59.7 41.4",
    "RSA": "42.7 62.9 47.1 38.5 60.0 41.4",
}

# Hours of training: 800 epochs on one V100 (ImageNet-100: 200 epochs on four, mixed precision).
TABLE_7_SETS = ("cifar100", "stl10", "imagenet100")
TABLE_7 = {"BYOL": (11.3, 77.6, 9.5), "RSA": (11.5, 79.6, 10.4)}

TABLE_8_SETS = ("cifar100", "stl10", "imagenet100")
TABLE_8 = {
    "SimSiam": ("55.8±0.9", "85.0±0.4", "82.6"),
    "SimSiam + RSA": ("63.7±0.5", "89.2±0.5", "84.0"),
}

# Data set, evaluator, setting, source, then method and top-1.
OTHERS = (
    (
        ("cifar10", "linear", "ResNet-18, 1000 epochs", "solo-learn's results"),
        {"BYOL": "92.58", "MoCo v2+": "92.94", "SimSiam": "90.51", "SimCLR": "90.74"},
    ),
    (
        ("cifar100", "linear", "ResNet-18, 1000 epochs", "solo-learn's results"),
        {"BYOL": "70.46", "MoCo v2+": "69.89", "SimSiam": "66.04", "SimCLR": "65.78"},
    ),
    (
        ("imagenet100", "linear", "ResNet-18, 400 epochs, offline", "solo-learn's results"),
        {"BYOL": "80.3", "MoCo v2+": "79.3", "SimSiam": "78.7"},
    ),
    (  # a classifier trained beside the backbone; there is no offline result of SimCLR
        ("imagenet100", "linear", "ResNet-18, 400 epochs, online", "solo-learn's results"),
        {"SimCLR": "77.6"},
    ),
    (
        ("cifar10", "knn", "ResNet-18, 200 epochs, k=200, best epoch", "lightly's benchmarks"),
        {"BYOL": "86.9"},
    ),
    (
        ("cifar10", "knn", "ResNet-18, 800 epochs, k=200, best epoch", "lightly's benchmarks"),
        {"BYOL": "91.0", "MoCo": "89.9", "SimSiam": "90.4", "SimCLR": "87.9"},
    ),
    # Images of 128 px: methods that are here too, and the two others with the best ResNet-18. The
    # page of benchmarks prints 800 epochs; its script prints both, and keeps each run's maximum.
    (
        (
            "imagenette",
            "knn",
            "ResNet-18, 200 epochs, batch 256, k=200, best epoch",
            "lightly's imagenette_benchmark.py",
        ),
        {"BYOL": "70.5", "MoCo": "78.6", "SimSiam": "75.2", "SimCLR": "83.5"}
        | {"DINO": "87.3", "SwAV": "86.1"},
    ),
    (
        (
            "imagenette",
            "knn",
            "ResNet-18, 800 epochs, batch 256, k=200, best epoch",
            "lightly's benchmarks",
        ),
        {"BYOL": "88.7", "MoCo": "87.4", "SimSiam": "87.2", "SimCLR": "88.9"}
        | {"DINO": "88.8", "SwAV": "90.2"},
    ),
    (
        ("imagenet", "linear", "ResNet-50, 100 epochs, batch 256", "lightly's benchmarks"),
        {"BYOL": "62.5", "MoCo v2": "61.5", "SimCLR": "63.2"},
    ),
    (
        ("imagenet", "knn", "ResNet-50, 100 epochs, batch 256", "lightly's benchmarks"),
        {"BYOL": "46.0", "MoCo v2": "41.8", "SimCLR": "44.8"},
    ),
    (("imagenet", "linear", "ResNet-50, 200 epochs", "MoCo v2's paper"), {"MoCo v2": "67.5"}),
    (
        ("imagenet", "linear", "ResNet-50, 100 epochs", "SimSiam's paper"),
        {"SimSiam": "68.1"},
    ),
    (
        ("imagenet", "linear", "ResNet-50, 100 epochs, batch 256", "SimSiam's repository"),
        {"SimSiam": "68.3"},
    ),
    (("imagenet", "linear", "ResNet-50, 200 epochs", "Mean Shift's paper"), {"MSF": "72.4"}),
    # The repository's weights; the paper prints 62.0 and 64.9.
    (("imagenet", "knn", "200 epochs, 1-NN", "Mean Shift's repository"), {"MSF": "62.5"}),
    (("imagenet", "knn", "200 epochs, 20-NN", "Mean Shift's repository"), {"MSF": "65.7"}),
)
