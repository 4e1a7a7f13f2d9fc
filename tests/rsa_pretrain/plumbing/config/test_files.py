import ast
import itertools
from pathlib import Path
from typing import Self

import pytest
from pydantic import model_validator

from rsa_pretrain.config import PretrainConfig, load_run, refuse_another_run
from rsa_pretrain.plumbing.config.files import (
    Section,
    config_hash,
    describe_keys,
    list_keys,
    load_config,
    parse_tree,
    write_config,
)
from rsa_pretrain.plumbing.config.layers import text_override
from rsa_pretrain.plumbing.errors import UserError

ROOT = Path(__file__).parents[4]
MINIMAL = """
output_dir: runs/x
data: {name: digits, image_size: 32}
backbone: {arch: resnet18, stem: cifar}
method: {name: rsa, hidden_dim: 8, output_dim: 4, beta_base: 0.3}
optimizer: {base_lr: 0.1, weight_decay: 1e-4}
training: {epochs: 4, global_batch_size: 8}
"""


@pytest.fixture
def minimal(tmp_path):
    """Path of the smallest valid run."""
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def test_defaults_fill_what_the_file_leaves_out(minimal):
    """Unset keys take the model's defaults; YAML 1.1 exponents are numbers."""
    config = load_config(PretrainConfig, minimal)
    assert config.seed == 0
    assert config.method.beta_mode == "decay"
    assert config.optimizer.weight_decay == 1e-4


def test_base_is_merged_key_by_key(minimal, tmp_path):
    """A file states only what differs from its base, sections deep, bases of bases too."""
    (tmp_path / "middle.yaml").write_text("base: minimal.yaml\nmethod: {beta_base: 0.4}\n")
    (tmp_path / "last.yaml").write_text("base: middle.yaml\ntraining: {epochs: 9}\n")
    config = load_config(PretrainConfig, tmp_path / "last.yaml")
    assert (config.method.beta_base, config.method.hidden_dim) == (0.4, 8)
    assert (config.training.epochs, config.training.global_batch_size) == (9, 8)


def test_of_several_bases_the_later_win(minimal, tmp_path):
    """Bases are merged in order, each over those before it, and the file over all of them."""
    (tmp_path / "one.yaml").write_text("seed: 1\nmethod: {beta_base: 0.1, output_dim: 5}\n")
    (tmp_path / "two.yaml").write_text("seed: 2\nmethod: {beta_base: 0.2}\n")
    path = tmp_path / "last.yaml"
    path.write_text("base: [minimal.yaml, one.yaml, two.yaml]\nseed: 3\n")
    config = load_config(PretrainConfig, path)
    assert config.seed == 3
    method = config.method
    assert (method.beta_base, method.output_dim, method.hidden_dim) == (0.2, 5, 8)


def test_overrides_win_in_order(minimal):
    """Overrides are YAML values; the last one counts."""
    config = load_config(
        PretrainConfig,
        minimal,
        ["training.epochs=5", "training.epochs=6", "views.weak.crop_scale=[0.5, 1]", "seed=3"],
    )
    assert config.training.epochs == 6
    assert config.views.weak.crop_scale == (0.5, 1.0)
    assert config.seed == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=5", "unknown key 'training.epoch'; .* 'training.epochs'"),
        ("optimzer.base_lr=5", "unknown key 'optimzer'; .* 'optimizer'"),
        ("method.beta_bse=0.1", "unknown key 'method.beta_bse'; .* 'method.beta_base'"),
        ("views.weak.flip=1", "unknown key 'views.weak.flip'; "),
        ("training.epochs=0", "'training.epochs': .*greater than or equal to 1"),
        ("seed=-1", "'seed': .*greater than or equal to 0"),
        (f"seed={2**32}", f"'seed': .*less than {2**32}"),
        ("data.subset_seed=-1", "'data.subset_seed': .*greater than or equal to 0"),
        ("training.epochs=two", r"'training.epochs': .*integer.*\(found 'two'\)"),
        ("backbone.arch=vgg", "'backbone.arch': .*'resnet18'"),
        ("method.beta_base=1.5", "'method.beta_base': .*less than or equal to 1"),
        ("views.weak.crop_scale=[1, 0.2]", r"crop_scale must .* <= high <= 1, found \[1, 0\.2\]"),
        ("optimizer.warmup_epochs=4", r"4 must be below training\.epochs 4; lower it or train"),
        ("data.name=cifar10", "'cifar10' needs data.root"),
        ("data.mean=[0, 0, 0]", "both data.mean and data.std"),
        ("seed", "'seed' is not of the form section.key=value"),
        ("seed.low=1", None),
        ("training={", "not valid YAML"),
        (
            "output_dir=[x]*",
            r"not valid YAML: .*; if it is a name, quote it: 'output_dir=\"\[x]\*\"'$",
        ),
        ("output_dir=a #b", r"YAML reads 'a'; quote the value: 'output_dir=\"a #b\"'$"),
        ("output_dir=a\nb", r"YAML reads 'a b'; quote the value: 'output_dir=\"a\\nb\"'$"),
        ("output_dir=\udcff", "not valid YAML: unacceptable character"),
        (
            r'output_dir="\ud83d\ude00"',
            r"not valid YAML: an escape of half a character; write the character itself in",
        ),
        (
            "output_dir=2020-01-01",
            "'output_dir': expected a path, in quotes within the value where",
        ),
    ],
)
def test_a_bad_override_is_named(minimal, override, message):
    """Each mistake is one UserError that names the key and, if misspelt, the nearest one."""
    with pytest.raises(UserError, match=message):
        load_config(PretrainConfig, minimal, [override])


@pytest.mark.parametrize(
    "text", ["x #y", "[x]*", "a: b", "null", "q\"'", "a\\b\n", "😀 é", "\udcff", " ", "long " * 40]
)
def test_any_text_is_an_override(minimal, text):
    """A folder's name arrives as it is, whatever YAML makes of it without quotes."""
    override = text_override("output_dir", f"runs/{text}")
    assert str(load_config(PretrainConfig, minimal, [override]).output_dir) == f"runs/{text}"


def test_the_command_line_is_not_blamed_on_the_file(minimal):
    """The file's name precedes only mistakes that may be its own."""
    with pytest.raises(UserError, match=r"^'seed': expected a number greater .*\(found -1\)$"):
        load_config(PretrainConfig, minimal, ["seed=-1"])
    with pytest.raises(UserError, match=r"^unknown key 'training\.epoch'"):
        load_config(PretrainConfig, minimal, ["seed=1", "training.epoch=2"])
    broken = minimal.with_name("broken.yaml")
    broken.write_text(f"{minimal.read_text()}\nseed: -1\n")
    with pytest.raises(UserError, match=r"broken\.yaml: 'seed': "):
        load_config(PretrainConfig, broken, ["training.epochs=2"])
    with pytest.raises(UserError, match=r"^'training': expected a section of settings, section"):
        load_config(PretrainConfig, minimal, ["training=5"])


class _Pair(Section):
    low: int = 0
    high: int = 1
    count: int = 1

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class _Paired(Section):
    pair: _Pair = _Pair()
    single: tuple[int, ...] = ()
    seed: int = 0

    @model_validator(mode="after")
    def _check_single(self) -> Self:
        if 13 in self.single:
            raise ValueError("single has 13")
        return self


@pytest.mark.parametrize(
    ("text", "override", "message"),
    [
        ("pair: {low: 3}", "pair.count=2", r"mine\.yaml: 'pair': low 3 is above high 1$"),
        ("pair: {low: 3}", "seed=2", r"mine\.yaml: 'pair': low 3 is above high 1$"),
        ("single: [13]", "seed=2", r"mine\.yaml: single has 13$"),
        ("pair: {high: 2}", "pair.low=3", r"mine\.yaml: 'pair': low 3 is above high 2$"),
        ("seed: 1", "pair.low=3", r"^'pair': low 3 is above high 1$"),
        ("pair: {low: 3}", "pair={low: 4}", r"^'pair': low 4 is above high 1$"),
        ("", "single=[13]", r"^single has 13$"),
        ("seed: 1", "single=3", r"^'single': expected a list \(found 3\)$"),
    ],
)
def test_a_contradiction_is_blamed_on_a_file_with_a_part_in_it(tmp_path, text, override, message):
    """Unless the command line states all of the section, or of the settings, the file is named."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(_Paired, path, [override])


# Nine values, of which nine, and so on: a billion when they are written out.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 11)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "duplicate key 'seed' in line 2"),
        ("- 1\n", "expected 'key: value' lines, found list"),
        ("a: [\n", "not valid YAML"),
        ("base: missing.yaml\n", "cannot read config .*missing.yaml"),
        ("base: itself.yaml\n", "leads back to itself"),
        ("base: 3\n", "'base' must be a config or a list of them, found 3"),
        ("base: [a.yaml, {b: 1}]\n", "'base' must be a config or a list of them"),
        ("base: [missing.yaml]\n", "cannot read config .*missing.yaml"),
        ("base: [itself.yaml]\n", "leads back to itself"),
        ("seed: 1\n", "'data' is required and not set"),
        ("!!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("seed: \0\n", "itself.yaml: not valid YAML: unacceptable character"),
        ("seed: 2026-13-45\n", "not valid YAML: month must be in"),
        ("seed: !!int x\n", "not valid YAML: invalid literal"),
        ("seed: !!bool x\n", "not valid YAML: 'x'"),
        ("seed: !!timestamp x\n", "not valid YAML"),
        (f"seed: {'9' * 5000}\n", "not valid YAML: Exceeds the limit"),
        ("? [a]\n: 1\n", "not valid YAML: unhashable"),
        ("- " * 20_000, "not valid YAML: maximum recursion depth"),
        ("seed: " + "[" * 50_000, "more than 64 brackets within one another"),
        (BOMB, "its aliases stand for too many values"),
        ("#" * 2**20 + "\n", "cannot read config '.*': it is larger than 1 MiB"),
    ],
)
def test_a_bad_file_is_named(tmp_path, text, message):
    """Unreadable, circular, duplicate and unsafe files are refused."""
    path = tmp_path / "itself.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(PretrainConfig, path)


def test_settings_are_frozen(tiny_config):
    """A run's description cannot change under way."""
    with pytest.raises(ValueError, match="frozen"):
        tiny_config.training.epochs = 7


def test_resolved_config_reads_back_equal(tiny_config, tmp_path):
    """The config written beside the outputs describes the complete run."""
    path = tmp_path / "config.yaml"
    write_config(tiny_config, path)
    again = load_config(PretrainConfig, path)
    assert again == tiny_config
    assert config_hash(again) == config_hash(tiny_config)


def test_hash_tells_runs_apart(tiny_tree, tiny_config):
    """One changed setting changes the hash."""
    tiny_tree["seed"] = 1
    assert config_hash(parse_tree(PretrainConfig, tiny_tree, "")) != config_hash(tiny_config)


def test_help_lists_every_key_with_its_meaning():
    """No key is without a sentence."""
    lines = describe_keys(PretrainConfig).splitlines()
    is_key = [not line.startswith("      ") for line in lines]
    assert any(line.startswith("  training.epochs  (required)") for line in lines)
    assert is_key[0]
    assert not is_key[-1]
    assert not any(key and following for key, following in itertools.pairwise(is_key))
    assert all(line.strip() for line in lines)


def test_a_key_is_listed_with_the_methods_that_have_it():
    """Once for each meaning, without names where all have it."""
    keys = list_keys(PretrainConfig)
    momenta = [key for key in keys if key.name == "method.ema_momentum"]
    assert [key.variants for key in momenta] == [("rsa", "byol"), ("moco_v2",)]
    assert "constant" in momenta[1].meaning
    assert [key.variants for key in keys if key.name in ("method.name", "seed")] == [(), ()]
    assert "  method.queue_size  (moco_v2; required)" in describe_keys(PretrainConfig).splitlines()


def test_every_setting_is_read_somewhere():
    """No field of the pretraining config is accepted and then ignored."""
    sources = [*(ROOT / "rsa_pretrain").rglob("*.py"), *(ROOT / "rsa_eval").rglob("*.py")]
    read = {
        node.attr
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }

    def fields(model):
        for name, field in model.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from fields(kind)
            yield name

    assert set(fields(PretrainConfig)) <= read


@pytest.mark.parametrize(
    ("data", "turned"),
    [
        ("{name: imagefolder, root: photos, image_size: 32}", False),
        ("{name: imagefolder, root: photos, image_size: 32, exif_orientation: true}", True),
        ("{name: cifar10, root: data, image_size: 32}", True),
    ],
)
def test_the_folder_of_an_older_run_says_what_it_did(tmp_path, data, turned):
    """Without the setting image files were not turned; where there are none, nothing differs."""
    text = MINIMAL.replace("{name: digits, image_size: 32}", data)
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("runs/x", str(tmp_path)))
    assert load_run(tmp_path).data.exif_orientation is turned
    now = load_config(PretrainConfig, path)
    if turned:
        refuse_another_run(now)
    else:
        with pytest.raises(UserError, match=r"data\.exif_orientation \(was False, is True\)"):
            refuse_another_run(now)
