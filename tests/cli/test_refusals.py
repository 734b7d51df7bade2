"""Bad input is refused with one clear sentence, exit status 2, and nothing lost."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

import tombola as tb
from tombola.cli import main
from tombola.evidence import Checked, Comparison, Sanity, Verdict, judge, paired_comparison
from tombola.files import as_lines, read_as
from tombola.registry import METHODS
from tombola.robust import Robustness
from tombola.studies import RunFolder
from tombola.testing import toy_task
from tombola.training import Diverged, Run
from tombola.training.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words: str) -> str:
    """The one sentence with which a command is refused."""
    assert main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tombola: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("density", ["0", "-0.1", "1.5", "nan"])
@pytest.mark.parametrize("command", [["find", "imp"], ["find", "snip"], ["check", "snip"], ["train", "snip"]])
def test_a_density_that_is_no_share(capsys, command, density):
    assert "density" in refused(capsys, *command, "--density", density, "--recipe.epochs", "1")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["fnd", "imp"], "'find'"),
        (["find", "inp"], "'imp'"),
        (["check", "snipp"], "'snip'"),
        (["compare", "imp", "radom"], "'random'"),
        (["find", "imp", "--data", "digit"], "'digits'"),
        (["find", "imp", "--model", "lenet-300"], "'lenet-300-100'"),
        (["train", "snip", "--control", "shufle", "--recipe.epochs", "1"], "'shuffle'"),
        (["check", "snip", "--controls", "fresh", "--seeds", "1", "--recipe.epochs", "1"], "'fresh-init'"),
    ],
)
def test_an_unknown_name_offers_the_nearest(capsys, words, near):
    assert f"did you mean {near}" in refused(capsys, *words)


@pytest.mark.parametrize(
    "words", [["find", "snip", "--densty", "0.1"], ["demo", "--seed"], ["find", "imp", "--seed", "x"]]
)
def test_an_unknown_option_ends_with_status_2(capsys, words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_a_number_in_percent_is_told_as_a_share(capsys):
    assert "give the share, as 0.05" in refused(capsys, "find", "snip", "--density", "5%")
    assert "give the share, as 0.125" in refused(capsys, "compare", "snip", "--densities=12.5%")


def test_a_file_in_place_of_a_module_is_told_without_py(capsys):
    assert "give mine:data, without .py" in refused(capsys, "find", "imp", "--data", "mine.py:data")


@pytest.mark.parametrize("method", ["snip", "imp", "early-bird", "gem-miner"])
def test_a_density_that_is_refused_leaves_no_folder(capsys, method):
    assert "density is 1.5" in refused(capsys, "find", method, "--density", "1.5", "--out", "t")
    assert not Path("t").exists()


class Network(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


INPUTS, CLASSES = torch.ones(6, 4), torch.arange(6) % 2


def norm_alone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(64))


DATA = {"train": (INPUTS, CLASSES), "test": (INPUTS, CLASSES)}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda: tb.scores.magnitude(Network), r"not the class Network; call it: Network\(\)"),
        (lambda: tb.shrink(Network, tb.Mask.of({}), example=INPUTS), r"call it: Network\(\)"),
        (lambda: next(tb.Iterative().rounds(Network)), r"call it: Network\(\)"),
        (lambda: tb.SupervisedTask(Network(), DATA), "each seed needs a new one"),
        (lambda: tb.SupervisedTask(lambda width: Network(), DATA), "cannot be called without arguments .*'width'"),
        (
            lambda: tb.scores.snip(Network(), (INPUTS, CLASSES), nn.functional.cross_entropy),
            r"give pairs \(inputs, targets\)",
        ),
        (lambda: tb.shrink(Network(), tb.Mask.of({}), INPUTS), "give the inputs as example="),
        (lambda: tb.OneShot(granularity="channel"), r"give tb\.Channels\(\)"),
        (lambda: tb.Iterative(granularity="2:4"), r"give tb\.structure\.granularity\('2:4'\)"),
        (lambda: next(tb.Iterative(granularity=tb.Channels()).rounds(Network())), r"rounds\(model, batches=…\)"),
    ],
)
def test_a_thing_in_the_place_of_another_is_told_what_to_give(wrong, says):
    with pytest.raises(tb.TombolaError, match=says):
        wrong()


@pytest.mark.parametrize("words", [["find"], ["compare"], ["check"], ["train"]])
def test_a_missing_subject_says_what_to_type(capsys, words):
    assert f"tombola {words[0]}" in refused(capsys, *words)


def test_a_model_that_cannot_take_the_data(capsys):
    assert "lenet-300-100" in refused(capsys, "find", "imp", "--data", "mnist1d", "--model", "resnet20")


@pytest.mark.parametrize("name", ["nowhere:data", "json:nothing", "json:__doc__"])
def test_the_users_code_that_cannot_be_loaded(capsys, name):
    assert "package.module:function" in refused(capsys, "find", "imp", "--data", name)


def test_a_device_that_is_not_here(capsys):
    assert "give the device cpu" in refused(capsys, "find", "random", "--device", "foo")
    if not torch.cuda.is_available():
        assert "give the device cpu" in refused(capsys, "find", "random", "--device", "cuda")


def _found(capsys) -> Path:
    assert main(["find", "random", "--density", "0.5", "--out", "t", "--recipe.epochs", "1", "--json"]) == 0
    capsys.readouterr()
    return Path("t/ticket.safetensors")


@pytest.mark.parametrize("damage", ["cut", "flip", "pickle", "empty"])
def test_a_ticket_that_was_cut_off_or_altered(capsys, damage):
    path = _found(capsys)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"cut": bytes(data[:-9]), "flip": bytes(data), "pickle": pickle.dumps({}), "empty": b""}[damage])
    assert "not a whole, unaltered ticket" in refused(capsys, "check", str(path))


def test_a_ticket_that_is_missing(capsys):
    assert "cannot read the ticket" in refused(capsys, "train", "nowhere.safetensors")


def test_a_ticket_for_another_architecture_names_the_tensor(capsys):
    path = _found(capsys)
    assert "another architecture: '1.weight'" in refused(capsys, "train", str(path), "--width", "0.5")


def test_a_ticket_from_another_initialisation():
    task = toy_task()
    ticket = tb.find(task, tb.method("random", density=0.5))
    with pytest.raises(tb.TombolaError, match="starts from the initialisation with seed 0"):
        ticket.put_into(task.build(1))


def test_a_folder_that_holds_another_run(capsys):
    _found(capsys)
    message = refused(capsys, "find", "random", "--density", "0.4", "--out", "t", "--recipe.epochs", "1")
    assert "holds another run" in message
    assert tb.Ticket.load("t/ticket.safetensors").density == 0.5


def test_damaged_settings_of_a_run_are_named_and_made_anew_when_asked(capsys):
    words = ["train", "dense", "--recipe.epochs", "1", "--out", "r"]
    assert main([*words, "--json"]) == 0
    capsys.readouterr()
    path = Path("r/settings.json")
    path.write_text(path.read_text()[:20])
    assert "settings.json is damaged" in refused(capsys, *words)
    assert main([*words, "--fresh", "--json"]) == 0


@pytest.mark.parametrize("name", ["result.json", "history.jsonl"])
def test_a_damaged_file_of_a_run_is_set_aside_and_the_run_done_again(capsys, name):
    warnings.simplefilter("default")
    words = ["train", "dense", "--recipe.epochs", "1", "--out", "r", "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    path = Path("r") / name
    whole = path.read_text()
    path.write_text(whole[:20])
    if name != "result.json":
        Path("r/result.json").unlink()
    assert main(words) == 0
    told = capsys.readouterr()
    assert f"{name} is damaged" in told.err
    assert json.loads(told.out)["metric"] == first["metric"]
    assert Path(f"r/{name}.damaged").read_text() == whole[:20]


def _one_result(capsys):
    """A run of a ticket and what its result says."""
    assert main(["train", "random", "--density", "0.5", "--recipe.epochs", "1", "--out", "r", "--json"]) == 0
    capsys.readouterr()
    content = json.loads(Path("r/result.json").read_text())
    del content["check"]  # of which the first version knew nothing
    return RunFolder(Path("r")), content


def test_what_a_newer_version_adds_to_a_result_does_no_harm(capsys):
    folder, content = _one_result(capsys)
    result = folder.result()
    Path("r/result.json").write_text(json.dumps(content | {"from_the_future": [1, 2]}))
    assert folder.result() == result


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda content: {key: value for key, value in content.items() if key != "metric"},
            "missing required field `metric`",
        ),
        (lambda content: content | {"history": None}, "history: expected `array`"),
        (lambda content: content | {"layers": {"0.weight": 3}}, "layers.*expected `array`"),
        (lambda content: [content], "expected `object`"),
    ],
)
def test_a_result_that_lacks_something_is_one_sentence_with_the_file(capsys, spoil, says):
    folder, content = _one_result(capsys)
    Path("r/result.json").write_text(json.dumps(spoil(content)))
    with pytest.raises(
        tb.TombolaError, match=rf"^r/result\.json is damaged \(.*{says}.*\); remove the folder or use --fresh$"
    ):
        folder.result()


def test_what_a_newer_version_adds_to_a_study_does_no_harm(tmp_path):
    one = paired_comparison([0.9, 0.8], [0.7, 0.7], "dense")
    verdict = judge("m", 0.5, {"ticket": [0.9, 0.8], "dense": [0.7, 0.7], "random": [0.1, 0.2]}, [0, 1])
    sanity = Sanity("m", 0.5, (0, 1), (Checked("shuffle", one), Checked("later", None, "there is none")))

    def newer(value):
        if isinstance(value, dict):
            return {key: newer(own) for key, own in value.items()} | {"from_the_future": 1}
        return [newer(own) for own in value] if isinstance(value, list | tuple) else value

    def flat(own):  # what maps names to numbers has no fields
        return json.loads(json.dumps(newer(asdict(own))))

    assert read_as(Comparison, flat(one)) == one
    assert replace(read_as(Verdict, flat(verdict)), means=verdict.means) == verdict
    assert read_as(Sanity, flat(sanity)) == sanity


def test_a_command_called_from_python_leaves_warnings_as_they_were(capsys, monkeypatch):
    before = warnings.showwarning, list(warnings.filters)
    assert main(["methods"]) == 0
    assert main(["find", "no-such-method"]) == 2
    assert (warnings.showwarning, list(warnings.filters)) == before

    def told(words):
        warnings.warn("look here", stacklevel=2)
        return 0

    monkeypatch.setattr("tombola.cli.methods.run", told)
    warnings.simplefilter("default")
    assert main(["methods"]) == 0
    assert "tombola: note: look here" in capsys.readouterr().err


def test_a_damaged_history_is_named():
    folder = RunFolder(Path("r"))
    folder.path.mkdir()
    assert folder.history() == []
    (folder.path / "history.jsonl").write_text(as_lines([{"epoch": 0}, {"epoch": 1}]))
    assert folder.history() == [{"epoch": 0}, {"epoch": 1}]
    path = folder.path / "history.jsonl"
    path.write_text(path.read_text()[:-3])
    with pytest.raises(tb.TombolaError, match=r"history\.jsonl is damaged .* remove the folder or use --fresh"):
        folder.history()


def test_a_damaged_or_missing_study(capsys):
    assert "holds no study" in refused(capsys, "report", "nowhere")
    Path("s").mkdir()
    Path("s/study.json").write_text("{")
    assert "study.json is damaged" in refused(capsys, "report", "s")


HOLDER = """
import sys, time
from pathlib import Path
from tombola.studies import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_folder_in_use_by_another_process_names_it_and_is_free_after_a_kill(capsys):
    with subprocess.Popen([sys.executable, "-c", HOLDER, "t"], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = refused(capsys, "find", "random", "--out", "t")
        assert f"in use by another process (process {holder.pid})" in message
        holder.kill()
    assert main(["find", "random", "--out", "t", "--json"]) == 0


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from tombola.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on_when_there_is_room(capsys):
    words = ["find", "imp", "--density", "0.7", "--recipe.epochs", "1", "--out", "t", "--json"]
    full = subprocess.run([sys.executable, "-c", FULL, *words], capture_output=True, text=True, check=False)
    assert full.returncode == 2
    assert full.stderr.startswith("tombola: could not write t/stages/")
    assert full.stderr.count("\n") == 1
    assert not list(Path("t").rglob("*.part"))
    assert main(words) == 0
    roomy = json.loads(capsys.readouterr().out)
    assert main([*words[:-3], "--out", "u", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["digest"] == roomy["digest"]


def test_a_loss_that_becomes_nan_stops_names_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    seen = []

    def loss(outputs, targets):
        value = nn.functional.cross_entropy(outputs, targets)
        if outputs.requires_grad and outputs.device.type != "meta" and not tb.training.is_trial():
            seen.append(1)
        return value * float("nan") if len(seen) == 8 else value

    task = tb.SupervisedTask(**{**_fields(toy_task(epochs=4)), "loss": loss})
    run = Run(folder=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(Diverged, match="the loss became nan at step 8 of train"):
        tb.train(task, run=run)
    saved = Checkpoint(tmp_path / "stages" / "train.going.pt").load()
    assert saved is not None
    assert saved["epoch"] == 1
    assert all(value.isfinite().all() for value in saved["values"].values())


def test_nan_scores_name_the_layer():
    task = toy_task()
    with pytest.raises(tb.TombolaError, match=r"the scores of '0\.weight' contain NaN"):
        tb.find(
            task,
            tb.OneShot(
                score=lambda model, *_, **__: {n: w * torch.nan for n, w in tb.structure.prunable(model).items()}
            ),
        )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: tb.Recipe(epochs=0), "epochs is 0"),
        (lambda: tb.Recipe(lr=-1.0), "lr is -1.0"),
        (lambda: tb.Recipe(start="5"), "'5' is not a point in training"),
        (lambda: tb.Recipe(nesterov=True, momentum=0.0), "nesterov without momentum"),
        (lambda: tb.Recipe(optimizer="SGD"), r"no recipe with optimizer 'SGD'; did you mean 'sgd'\?"),
        (lambda: tb.Recipe(optimizer="rmsprob"), r"optimizer 'rmsprob'; did you mean 'rmsprop'\? \(known: adadelta, "),
        (lambda: tb.Recipe(optimizer="lbfgs"), "lbfgs calls the network several times a step"),
        (lambda: tb.Recipe(optimizer="rmsprop", momentum=0.5), "momentum is not for rmsprop"),
        (lambda: tb.Recipe(optimizer="nadam", nesterov=True), "nesterov is not for nadam"),
        (lambda: tb.Recipe(optimizer="rprop", weight_decay=0.1), "weight_decay is not for rprop"),
        (lambda: tb.Recipe(options={"betas": (0.9, 0.95)}), r"no option of sgd 'betas' \(known: dampening"),
        (lambda: tb.Recipe(options={"lr": 0.1}), "no option of sgd 'lr'"),
        (lambda: tb.Recipe(optimizer="adam", options={"betas": (0.9, 2.0)}), "options betas=0.9,2.0: Invalid beta"),
        (lambda: tb.Recipe(optimizer="adam", options={"betas": 0.9}), "adam cannot be made with the recipe's options"),
        (lambda: tb.Recipe(optimizer="adam", options={"eps": float("inf")}), "options hold inf; give finite numbers"),
        (lambda: tb.Recipe(optimizer="adam", options={"eps": [object()]}), "give numbers, True, False, None or one wo"),
        (lambda: tb.Recipe(optimizer="adam", options=["eps=1", "eps=2"]), "name one option twice"),
        (lambda: tb.Recipe(options="dampening=0.1"), "options are 'dampening=0.1'; give a mapping, or words"),
        (lambda: tb.Recipe(options=5), "options are 5; give a mapping"),
        (lambda: tb.Recipe(clip=-1.0), "clip is -1.0; give a number of at least 0"),
        (lambda: tb.Recipe(clip_value=float("inf")), "clip_value is inf; give a finite number"),
        (lambda: tb.Recipe(accumulate=0), "accumulate is 0; give at least 1"),
        (lambda: tb.Recipe(ema=1.0), "ema is 1.0; give less than 1, as 0.999"),
        (lambda: tb.train(replace(toy_task(), recipe=tb.Recipe(precision="fp16"))), "fp16 needs a GPU; give bf16 or"),
        (lambda: tb.Recipe(schedule="Cosine"), "did you mean 'cosine'"),
        (lambda: tb.Recipe(precision="fp32"), "did you mean 'float32'"),
        (lambda: tb.Recipe(channels_last=True), "channels_last is True; give 'auto' or 'on' or 'off'"),
        (lambda: tb.Recipe(augment=("Flip",)), "did you mean 'flip'"),
        (lambda: tb.Recipe(augment="flip"), "augment is 'flip'; give a tuple, each 'crop' or 'flip'"),
        (lambda: tb.Recipe(epochs=2.5), "epochs is 2.5; give a whole number"),
        (lambda: tb.Recipe(nesterov=1), "nesterov is 1; give True or False"),
        (lambda: tb.Recipe(lr=float("nan")), "lr is nan; give a finite number"),
        (lambda: tb.Recipe(gamma=-1.0), "gamma is -1.0"),
        (lambda: tb.Recipe(label_smoothing=1.5), "label_smoothing is 1.5; give at most 1"),
        (lambda: tb.Recipe(milestones=0.5), "milestones is 0.5; give a tuple, each a finite number"),
        (lambda: tb.Recipe(milestones=(80, 120)), "give shares of all epochs"),
        (lambda: tb.Iterative(schedule="linaer"), "no Iterative with schedule 'linaer'; did you mean 'linear'"),
        (lambda: tb.Iterative(scope="golbal"), "did you mean 'global'"),
        (lambda: tb.Iterative(count=2.5), "the Iterative's count is 2.5; give a whole number or None"),
        (lambda: tb.Channels("max"), "no Channels with reduction 'max'"),
        (lambda: tb.Iterative(rewind="soon"), "rewind is 'soon'"),
        (lambda: tb.find(toy_task(), tb.Iterative(rewind="99ep", density=0.5)), "training ended before 99ep"),
        (lambda: tb.find(toy_task(norm_alone), tb.method("random")), "nothing to prune"),
        (lambda: tb.find(toy_task(lambda: 3), tb.method("random")), "must return an nn.Module"),
        (lambda: tb.SupervisedTask(nn.Identity, {"train": ()}), "no 'test'"),
        (lambda: tb.SupervisedTask(nn.Identity, {"train": [1, 2, 3], "test": []}), "no 'validation'"),
        (lambda: tb.check(toy_task(), tb.method("random"), seeds=0), "seeds is 0"),
        (lambda: tb.scores.snip(nn.Linear(2, 2)), "needs a loss"),
        (lambda: tb.scores.snip(nn.Linear(2, 2), [], nn.functional.mse_loss), "got no batch"),
    ],
)
def test_wrong_values_in_python_are_named(make, words):
    with pytest.raises(tb.TombolaError, match=words):
        make()


def test_numbers_of_other_libraries_and_lists_become_pythons_own():
    numbers = {"epochs": np.int64(3), "lr": np.float32(0.5), "gamma": torch.tensor(0.25)}
    recipe = tb.Recipe(**numbers, milestones=[0.5], augment=["flip"])
    plain = tb.Recipe(epochs=3, lr=0.5, gamma=0.25, milestones=(0.5,), augment=("flip",))
    assert recipe == plain
    assert hash(recipe) == hash(plain)
    assert json.dumps(asdict(recipe))
    assert type(tb.Iterative(np.float64(0.25)).density) is float


@pytest.mark.parametrize(
    "kind", [tb.Recipe, Robustness, tb.Channels, *dict.fromkeys(type(own) for own in METHODS.values())]
)
def test_every_word_of_a_setting_is_checked(kind):
    hints = get_type_hints(kind)
    for field in fields(kind):
        if get_origin(hints[field.name]) is Literal:
            of_words = f"no .* with {field.name} 'certainly not'"
            of_numbers = f"{field.name} is 'certainly not'; give [0-9]"
            with pytest.raises(tb.TombolaError, match=f"{of_words}|{of_numbers}"):
                kind(**{field.name: "certainly not"})


@dataclass
class Unhashable:
    """A score as a plain dataclass, which has no hash."""

    factor: float = 1.0

    def __call__(self, model, batches=(), loss=None, **view):
        return {name: self.factor * worth for name, worth in tb.scores.snip(model, batches, loss, **view).items()}


def test_a_score_without_a_hash_searches_and_its_work_is_counted():
    own, plain = Run(), Run()
    ticket = tb.find(toy_task(), tb.OneShot(0.5, Unhashable(), rounds=3), run=own)
    assert ticket.mask == tb.find(toy_task(), tb.OneShot(0.5, tb.scores.snip, rounds=3), run=plain).mask
    assert own.cost.flops == plain.cost.flops


class OwnTask:
    """A task of a user's own, which is no dataclass."""

    def __init__(self):
        self._task = toy_task()
        self.recipe = self._task.recipe

    def __getattr__(self, name):
        if name in ("build", "batches", "forward", "loss", "metric"):
            return getattr(self._task, name)
        raise AttributeError(name)


@pytest.mark.parametrize("density", [None, 0.5])
def test_a_task_of_ones_own_trains_at_another_rate(density, tmp_path):
    subject = None if density is None else tb.method("random", density=density)
    own, known = (
        tb.execute([tb.RunSpec(task, subject, lr=0.3)], tb.Store(tmp_path / type(task).__name__))[0]
        for task in (OwnTask(), toy_task())
    )
    assert own.metric == known.metric
    assert [row["lr"] for row in own.history] == [row["lr"] for row in known.history]


def _fields(task):
    return {name: value for name, value in vars(task).items() if not name.startswith("_")}


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on():
    words = [
        sys.executable,
        "-m",
        "tombola.cli",
        "find",
        "imp",
        "--density",
        "0.05",
        "--recipe.epochs",
        "2",
        "--out",
        "t",
        "--json",
    ]
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # where a background shell ignores it
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True, **heard) as process:
        while not list(Path("t/stages").glob("*.end.pt")) and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, 2)
        assert process.stderr is not None
        assert "run the same command again and it goes on where it was" in process.stderr.read()
    assert process.returncode == 130


def test_a_control_that_does_not_exist_leaves_no_folder_behind(tmp_path):
    from tombola.testing import toy_task

    store = tb.Store(tmp_path)
    with pytest.raises(tb.TombolaError, match="did you mean 'shuffle'"):
        tb.studies.execute([tb.RunSpec(toy_task(epochs=1), tb.method("snip"), "shufle")], store)
    assert not list(tmp_path.glob("*shufle*"))


def test_a_module_that_cannot_be_read_is_one_sentence(tmp_path, monkeypatch):
    from tombola.registry import imported

    (tmp_path / "torn.py").write_text("def score(:\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tb.TombolaError, match="cannot load the score 'torn:score': SyntaxError"):
        imported("torn:score", "the score")


def test_the_command_that_find_prints_is_quoted(tmp_path, monkeypatch, capsys):
    from tombola.cli import find

    monkeypatch.chdir(tmp_path)
    words = ["snip", "--density", "0.5", "--model", "lenet-300-100", "--data", "digits", "--recipe.epochs", "1"]
    find.run([*words, "--out", "my out"])
    assert "tombola check 'my out/ticket.safetensors'" in " ".join(capsys.readouterr().out.split())
