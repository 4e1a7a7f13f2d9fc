"""SimSiam, BYOL and SimCLR: one project's code per layout."""

from rsa_pretrain.weights.foreign.layout import UNNORMALISED, Layout
from rsa_pretrain.weights.foreign.names import NUMBERED

SIMSIAM = Layout(
    name="simsiam",
    made_by="SimSiam",
    source="facebookresearch/simsiam simsiam/builder.py, main_simsiam.py (a7bc177)",
    markers=(r"state_dict/encoder\.conv1\.", r"state_dict/encoder\.fc\."),
    networks={"encoder": ("state_dict/encoder.",)},
    drops={
        r"state_dict/encoder\.fc\.": "projector",
        r"state_dict/predictor\.": "predictor",
    },
)

BYOL_PYTORCH = Layout(
    name="byol_pytorch",
    made_by="byol-pytorch, the whole learner",
    source="lucidrains/byol-pytorch byol_pytorch/byol_pytorch.py (2993126)",
    markers=(r"online_encoder\.net\.conv1\.",),
    networks={"online": ("online_encoder.net.",), "target": ("target_encoder.net.",)},
    drops={
        r"(online_encoder\.|target_encoder\.)?net\.fc\.": "classifier",
        r"net\.": "the online network under a second name",
        r"(online|target)_encoder\.projector\.": "projector",
        r"online_predictor\.": "predictor",
    },
)

BYOL_STHALLES = Layout(
    name="byol_sthalles",
    made_by="PyTorch-BYOL",
    source="sthalles/PyTorch-BYOL models/resnet_base_network.py, trainer.py, data/transforms.py "
    "(f007ed6); it feeds pixels in [0, 1] without mean or std",
    markers=(r"online_network_state_dict/encoder\.0\.weight",),
    networks={
        "online": ("online_network_state_dict/encoder.",),
        "target": ("target_network_state_dict/encoder.",),
    },
    drops={r"(online|target)_network_state_dict/projetion\.": "projector"},
    names=NUMBERED,
    pixels=UNNORMALISED,
)

BYOL_YAOX12 = Layout(
    name="byol_yaox12",
    made_by="BYOL-PyTorch",
    source="yaox12/BYOL-PyTorch model/byol_model.py, model/basic_modules.py, "
    "trainer/byol_trainer.py (edefc01)",
    markers=(r"model/online_network\.encoder\.0\.weight",),
    networks={
        "online": ("model/online_network.encoder.",),
        "target": ("model/target_network.encoder.",),
    },
    drops={
        r"model/(online|target)_network\.projetion\.": "projector",
        r"model/predictor\.": "predictor",
    },
    names=NUMBERED,
)

SIMCLR_STHALLES = Layout(
    name="simclr_sthalles",
    made_by="SimCLR by sthalles",
    source="sthalles/SimCLR models/resnet_simclr.py, simclr.py, "
    "data_aug/contrastive_learning_dataset.py (1848fc9); it feeds pixels in [0, 1] without mean "
    "or std",
    markers=(r"state_dict/backbone\.conv1\.", r"state_dict/backbone\.fc\.[02]\."),
    networks={"backbone": ("state_dict/backbone.",)},
    drops={r"state_dict/backbone\.fc\.": "projector"},
    pixels=UNNORMALISED,
)

SIMCLR_SPIJKERVET = Layout(
    name="simclr_spijkervet",
    made_by="SimCLR by Spijkervet",
    source="Spijkervet/SimCLR simclr/simclr.py, model.py, "
    "simclr/modules/transformations/simclr.py (2738efa); it feeds pixels in [0, 1] without mean "
    "or std",
    markers=(r"encoder\.conv1\.", r"projector\.[02]\."),
    networks={"encoder": ("encoder.",)},
    drops={r"projector\.": "projector"},
    pixels=UNNORMALISED,
)

SIMCLR_ATANOV = Layout(
    name="simclr_atanov",
    made_by="simclr-pytorch",
    source="AndrewAtanov/simclr-pytorch models/encoder.py, models/ssl.py, train.py (85e5d54); it "
    "feeds pixels in [0, 1] without mean or std",
    markers=(r"state_dict/convnet\.conv1\.",),
    networks={"convnet": ("state_dict/convnet.",)},
    drops={
        r"state_dict/convnet\.fc\.": "classifier",
        r"state_dict/projection\.": "projector",
    },
    pixels=UNNORMALISED,
    has_cifar_stem=True,
    cifar_pixels=UNNORMALISED,
)
