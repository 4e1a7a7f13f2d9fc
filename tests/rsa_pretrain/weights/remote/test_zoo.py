"""Published checkpoints: the registry, and downloads from a server on the loopback address."""

import hashlib
from pathlib import Path
from threading import Thread

import pytest
import torch
from file_server import FileServer

from rsa_pretrain.__main__ import main
from rsa_pretrain.weights.checkpoint import load_backbone
from rsa_pretrain.weights.foreign.layouts import LAYOUTS
from rsa_pretrain.weights.load import load_weights
from rsa_pretrain.weights.remote import registry
from rsa_pretrain.weights.remote.registry import PublishedCheckpoint, published_checkpoints

ROOT = Path(__file__).parents[4]
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def server(monkeypatch, network, torch_bytes, tmp_path):
    """A publisher with one MoCo file, and a registry that has it alone; the cache is empty."""
    state = network(3)
    content = torch_bytes(
        {"epoch": 7, "state_dict": {f"module.encoder_q.{k}": v for k, v in state.items()}}
    )
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("RSA_TOOLKIT_CACHE", str(tmp_path / "cache"))
    with FileServer() as running:
        running.state = state
        running.files["moco.pth"] = content
        running.entries = {}
        monkeypatch.setattr(registry, "published_checkpoints", lambda: running.entries)
        enter(running)
        Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def enter(server, **changes):
    """Enter the file into the registry, differently."""
    facts = {
        "name": "moco_r18",
        "url": server.url + "moco.pth",
        "checksum": "sha256:" + hashlib.sha256(server.files["moco.pth"]).hexdigest(),
        "arch": "resnet18",
        "layout": "moco",
        "network": "query",
        "method": "moco_v2",
        "data_set": "imagenet",
        "epochs": 200,
        "mean": MEAN,
        "std": STD,
        "project": "A publisher",
        "page": "https://publisher.test",
        "read": "README.md at 0123abc",
        "licence": "MIT",
    }
    server.entries["moco_r18"] = PublishedCheckpoint(**facts | changes)


def error_of(capsys, *words):
    """Run a command in vain; return its one line."""
    assert main([*map(str, words)]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("error:")]
    return line


def test_a_checkpoint_is_downloaded_verified_and_imported(server, tmp_path, capsys):
    """The backbone has the file's tensors and tells where they were published; no file stays."""
    out = tmp_path / "moco.safetensors"
    assert main(["zoo", "get", "moco_r18", str(out)]) == 0
    assert "checksum  sha256:" in capsys.readouterr().out
    loaded = load_backbone(out)
    state = loaded.backbone.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in server.state.items())
    metadata, origin = loaded.metadata, loaded.metadata.origin
    assert (metadata.method, metadata.data_set, metadata.epochs) == ("moco_v2", "imagenet", 200)
    assert (metadata.mean, metadata.std) == (MEAN, STD)
    assert metadata.parent == hashlib.sha256(server.files["moco.pth"]).hexdigest()
    assert origin.published.model_dump() == {
        "name": "moco_r18",
        "url": server.url + "moco.pth",
        "checksum": server.entries["moco_r18"].checksum,
    }
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_cut_download_resumes(server, tmp_path, capsys):
    """The second run asks for the rest alone."""
    server.cut_after = 1000
    assert "the connection was cut after 1,000 of" in error_of(capsys, "zoo", "get", "moco_r18")
    server.cut_after = None
    assert main(["zoo", "get", "moco_r18"]) == 0
    assert server.starts == [0, 1000]


def test_a_name_stands_for_the_weights_everywhere(server, capsys):
    """They are downloaded once, at the first use."""
    for _ in range(2):
        assert load_weights("zoo:moco_r18").metadata.origin.published.name == "moco_r18"
    assert main(["inspect", "zoo:moco_r18"]) == 0
    assert "resnet18" in capsys.readouterr().out
    assert server.asked == ["moco.pth"]


def test_other_bytes_are_refused(server, tmp_path, capsys):
    """Neither backbone nor download is left behind."""
    enter(server, checksum="sha256:00000000")
    assert "SHA-256 is" in (line := error_of(capsys, "zoo", "get", "moco_r18"))
    assert "expected 00000000" in line
    enter(server, checksum="md5:00000000")
    assert "MD5 is" in error_of(capsys, "inspect", "zoo:moco_r18")
    assert [path for path in (tmp_path / "cache").rglob("*.p*") if path.is_file()] == []


def test_without_a_checksum_the_one_found_is_told(server, capsys):
    """The user can compare it with anyone else's."""
    enter(server, checksum=None)
    assert main(["zoo", "get", "moco_r18"]) == 0
    found = hashlib.sha256(server.files["moco.pth"]).hexdigest()
    assert f"its publisher states none; the SHA-256 found is {found}" in capsys.readouterr().out


def test_a_dead_link_names_the_mirror_or_says_that_there_is_none(server, tmp_path, capsys):
    """The mirror then gives the same file."""
    mirror = server.url + "moco.pth"
    enter(server, url=server.url + "gone.pth", mirrors=[mirror])
    line = error_of(capsys, "zoo", "get", "moco_r18")
    assert "answers 404" in line
    assert line.endswith(f"take its mirror with --url {mirror}")
    assert main(["zoo", "get", "moco_r18", "--url", mirror]) == 0
    enter(server, url=server.url + "gone.pth")
    line = error_of(capsys, "zoo", "get", "moco_r18", tmp_path / "x.safetensors")
    assert line.endswith(
        "; ask for another address at https://publisher.test, as no mirror is known, and give it "
        "with --url"
    )


def test_a_file_downloaded_by_hand_is_imported_as_the_registry_says(server, tmp_path, capsys):
    """Where only a browser gets the file, the error names the page and the next command."""
    enter(server, url=None, by_hand="https://drive.test/file")
    line = error_of(capsys, "zoo", "get", "moco_r18")
    assert "from https://drive.test/file and run rsa-pretrain zoo get moco_r18 --file FILE" in line
    file = tmp_path / "downloaded.pth"
    file.write_bytes(server.files["moco.pth"])
    assert main(["zoo", "get", "moco_r18", "--file", str(file)]) == 0
    assert load_weights("zoo:moco_r18").metadata.origin.published.url == "https://drive.test/file"
    assert file.exists()
    file.write_bytes(b"another")
    assert "is not moco_r18: its SHA-256 is" in error_of(
        capsys, "zoo", "get", "moco_r18", "--file", file
    )
    published = file.rename(tmp_path / "published.safetensors")
    assert "is the input file; write to another" in error_of(
        capsys, "zoo", "get", "moco_r18", published, "--file", published
    )
    assert published.read_bytes() == b"another"
    assert "is not a file" in error_of(capsys, "zoo", "get", "moco_r18", "--file", tmp_path)


def test_what_is_kept_is_the_published_file(server, tmp_path):
    """With --keep it stays in the cache, under its publisher's name."""
    assert main(["zoo", "get", "moco_r18", "--keep"]) == 0
    kept = tmp_path / "cache/zoo/downloads/moco_r18/moco.pth"
    assert kept.read_bytes() == server.files["moco.pth"]


def test_another_network_than_the_registry_names_is_refused(server, capsys):
    """A publisher may have replaced the file."""
    enter(server, arch="resnet50")
    line = error_of(capsys, "zoo", "get", "moco_r18")
    assert "is a resnet18 with the standard stem; expected moco_r18 to be a resnet50" in line


def test_mistakes_are_one_line(server, tmp_path, capsys):
    """Unknown names get the nearest ones."""
    assert "the nearest are moco_r18" in error_of(capsys, "zoo", "get", "moco_r50")
    assert "zoo lists all" in error_of(capsys, "inspect", "zoo:nothing")
    assert "no published checkpoint has 'dino' in its line" in error_of(
        capsys, "zoo", "list", "dino"
    )
    get = ["zoo", "get", "moco_r18"]
    assert "should end in .safetensors" in error_of(capsys, *get, tmp_path / "x.pth")
    assert "not both" in error_of(capsys, *get, "--url", "http://x", "--file", tmp_path)
    assert "invalid choice" in error_of(capsys, "zoo", "fetch")
    assert server.asked == []


def test_the_registry_is_whole():
    """Every entry names a layout's network, and a source of each number; no name is used twice."""
    networks = {layout.name: set(layout.networks) for layout in LAYOUTS}
    found = published_checkpoints()
    for page in ("README.md", "docs/published_checkpoints.md"):
        assert f"{len(found)} checkpoints" in (ROOT / page).read_text()
    for name, checkpoint in found.items():
        assert checkpoint.network in networks.get(checkpoint.layout, {None}), name
        addresses = (checkpoint.url or checkpoint.by_hand, checkpoint.page, *checkpoint.mirrors)
        assert all(address.startswith("https://") for address in addresses), name
        assert 0 < min(checkpoint.std) <= 1, name
        assert all(0 < number.value <= 100 for number in checkpoint.published), name
    assert len({one.url or one.name for one in found.values()}) == len(found)


@pytest.mark.parametrize("words", [[], ["list", "resnet18"], ["list", "MoCo", "resnet50"]])
def test_the_list_has_a_line_for_each(capsys, words):
    """All words must be in a line, in either case."""
    assert main(["zoo", *words]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    expected = [
        name
        for name, one in published_checkpoints().items()
        if all(word.lower() in f"{name} {one.arch} {one.project}".lower() for word in words[1:])
    ]
    assert [line.split()[0] for line in lines] == expected


def test_all_that_is_known_of_one_is_shown(capsys):
    """Facts and numbers, with sources."""
    name, checkpoint = next((k, v) for k, v in published_checkpoints().items() if v.published)
    assert main(["zoo", "show", name]) == 0
    text = capsys.readouterr().out
    for fact in (checkpoint.url, checkpoint.page, checkpoint.read, checkpoint.layout):
        assert fact in text
    assert main(["zoo", "show", "pycontrast_infomin_r50_800ep"]) == 0
    assert "InfoMin_800.pth by hand from https://www.dropbox.com/" in capsys.readouterr().out
    for number in checkpoint.published:
        assert f"{number.metric} {number.value:g} [{number.source}]" in text
