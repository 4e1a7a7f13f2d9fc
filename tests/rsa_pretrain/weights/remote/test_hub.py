"""Pulls and pushes, against a hub on the loopback address."""

import json
import subprocess
import sys
from threading import Thread

import pytest
import torch

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="huggingface_hub is not installed"
)

from hub_server import TOKEN, HubServer  # noqa: E402

from rsa_eval.evaluators.knn.settings import KNNConfig  # noqa: E402
from rsa_eval.features.subject import load_subject  # noqa: E402
from rsa_pretrain.__main__ import main  # noqa: E402
from rsa_pretrain.plumbing.config.files import load_config  # noqa: E402
from rsa_pretrain.plumbing.errors import UserError  # noqa: E402
from rsa_pretrain.weights.export.export import export_backbone, find_target  # noqa: E402
from rsa_pretrain.weights.load import load_weights  # noqa: E402
from rsa_pretrain.weights.remote.hub import pull  # noqa: E402

KNN = load_config(KNNConfig, start={"data": {"name": "digits", "image_size": 64}})


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub, with an empty cache beside it; this process and those it starts know no other."""
    with HubServer() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name, value in {
            "HF_ENDPOINT": server.url,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "no_proxy": "*",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "".join(template[1:])
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server
        server.shutdown()


def error_of(capsys, *words):
    """Run a command in vain; return its one line."""
    assert main([*map(str, words)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error:")]
    return line


def test_an_export_is_pushed_and_pulled(hub, own_backbone, tmp_path, capsys):
    """The pulled file is this toolkit's own file again: the same tensors and provenance."""
    own = own_backbone()
    out = tmp_path / "export"
    words = ["export", own.path, out, "--to", "huggingface", "--push", "user/model", "--private"]
    assert main([*map(str, words)]) == 0
    assert f"pushed    {hub.url}/user/model/commit/" in capsys.readouterr().out
    assert hub.private == {"user/model": True}
    files = hub.repositories["user/model"]
    pushed = files["commits"][files["main"]]
    assert pushed == {path.name: path.read_bytes() for path in out.iterdir()}
    pulled = load_weights("hf://user/model")
    assert pulled.metadata == own.metadata
    state = own.backbone.state_dict()
    assert all(torch.equal(state[name], got) for name, got in pulled.backbone.state_dict().items())
    assert 'from_pretrained("user/model")' in pushed["README.md"].decode()
    assert pull("hf://user/model").address == f"hf://user/model@{files['main']}"


LOADED_BY_THE_LIBRARIES = """
import sys, timm, torch, transformers
images = torch.load(sys.argv[1])
place = sys.argv[2]
with torch.inference_mode():
    found = transformers.AutoModel.from_pretrained(place).eval()(images).pooler_output.flatten(1)
    name = dict(checkpoint_path=f"{place}/backbone.safetensors") if place[0] == "/" else {}
    model = "resnet18" if name else f"hf-hub:{place}"
    timm_model = timm.create_model(model, pretrained=not name, num_classes=0, **name).eval()
    config = timm.data.resolve_data_config(model=timm_model)
    torch.save((found, timm_model(images), config["mean"], config["std"]), sys.argv[3])
assert not any(name.startswith("rsa_") for name in sys.modules)
"""


@pytest.mark.process
@pytest.mark.parametrize("from_hub", [False, True], ids=["folder", "hub"])
def test_timm_and_transformers_load_it_without_this_toolkit(hub, own_backbone, tmp_path, from_hub):
    """Both compute the same features, from the folder and from the hub."""
    pytest.importorskip("timm", reason="timm is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    own, out = own_backbone(), tmp_path / "export"
    words = ["export", own.path, out, "--to", "huggingface"]
    words += ["--push", "user/model"] if from_hub else []
    assert main([*map(str, words)]) == 0
    images = torch.rand(2, 3, 64, 64)
    torch.save(images, tmp_path / "images.pt")
    program = tmp_path / "program.py"
    program.write_text(LOADED_BY_THE_LIBRARIES)
    place = "user/model" if from_hub else out
    found = tmp_path / "found.pt"
    subprocess.run(
        [sys.executable, "-I", program, tmp_path / "images.pt", place, found], check=True
    )
    by_transformers, by_timm, mean, std = torch.load(found)
    with torch.inference_mode():
        wanted = own.backbone(images)
    assert torch.equal(by_transformers, wanted)
    assert torch.equal(by_timm, wanted)
    if from_hub:
        assert (tuple(mean), tuple(std)) == (own.metadata.mean, own.metadata.std)


def test_evaluations_take_models_of_other_libraries(hub, own_backbone, tmp_path):
    """A model of transformers or timm on the hub is evaluated with the input its files state."""
    pytest.importorskip("timm", reason="timm is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    own, out = own_backbone(), tmp_path / "export"
    export_backbone(own, find_target("huggingface"), out)
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    own_file = files.pop("backbone.safetensors")
    config = json.loads(files["config.json"])
    timm_keys = ("architecture", "num_classes", "num_features", "pretrained_cfg")
    of_timm = {key: config.pop(key) for key in timm_keys}
    del of_timm["pretrained_cfg"]["hf_hub_filename"]
    of_timm["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    commit = hub.commit("user/theirs", files | {"config.json": json.dumps(config).encode()})
    hub.commit(
        "user/timm", {"config.json": json.dumps(of_timm).encode(), "model.safetensors": own_file}
    )
    by_transformers = load_subject("hf://user/theirs", KNN)
    assert by_transformers.model.other_network == "hf://user/theirs"
    assert by_transformers.model.checkpoint == f"hf://user/theirs@{commit}"
    by_timm = load_subject("hf://user/timm@main", KNN)
    assert by_timm.mean == (0.1, 0.2, 0.3)
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        wanted = own.backbone(images)
        assert torch.equal(by_transformers.backbone(images), wanted)
        assert torch.equal(by_timm.backbone(images), wanted)


def test_each_refusal_of_the_hub_is_one_line(hub, own_backbone, tmp_path, capsys, monkeypatch):
    """Every error says what to do."""
    own = own_backbone()
    hub.commit("user/empty", {"README.md": b"nothing"})
    hub.commit("user/gated", {"README.md": b"nothing"})
    hub.gated.add("user/gated")
    inspect = ["inspect"]
    assert "is not of the form hf://USER/NAME[@REVISION]" in error_of(capsys, *inspect, "hf://x")
    assert "no such repository that you may see" in error_of(capsys, *inspect, "hf://user/none")
    assert "no such revision" in error_of(capsys, *inspect, "hf://user/empty@v1")
    assert "has neither backbone.safetensors nor" in error_of(capsys, *inspect, "hf://user/empty")
    assert "gives access on request" in error_of(capsys, *inspect, "hf://user/gated")
    export = ["export", own.path, tmp_path / "export", "--to"]
    assert "--to huggingface writes" in error_of(capsys, *export, "timm", "--push", "user/x")
    assert "form USER/NAME" in error_of(capsys, *export, "huggingface", "--push", "x")
    assert "give --push" in error_of(capsys, *export, "huggingface", "--private")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert "hf auth login" in error_of(capsys, *export, "huggingface", "--push", "user/x")
    hub.shutdown()
    hub.server_close()
    assert "cannot be reached" in error_of(capsys, *inspect, "hf://user/other")


def test_a_pulled_model_is_kept_and_a_damaged_one_is_refused(hub, own_backbone, tmp_path):
    """Without a connection the hub's cache serves; a flipped bit is found by the stated hash."""
    export_backbone(own_backbone(), find_target("huggingface"), tmp_path / "export")
    commit = hub.commit(
        "user/model", {path.name: path.read_bytes() for path in (tmp_path / "export").iterdir()}
    )
    pulled = pull("hf://user/model")
    hub.shutdown()
    hub.server_close()
    assert pull("hf://user/model") == pulled
    assert pull(f"hf://user/model@{commit}") == pulled
    blob = pulled.file.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    with pytest.raises(UserError, match=r"its SHA-256 is not the [0-9a-f]{64} that the"):
        pull("hf://user/model")
