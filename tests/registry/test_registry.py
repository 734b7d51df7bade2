"""What there is by name: listed without loading, added to by a decorator, a distribution, or a word of the command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import tombola as tb
from tombola.evidence import CHECKS, MANDATORY
from tombola.registry import CONTROLS, GRANULARITIES, KINDS, METHODS, SCORES, Registry, imported
from tombola.registry.registry import Entry
from tombola.structure import granularity_of
from tombola.training import identity

LOADED = [(kind, name) for kind, registry in KINDS.items() for name in registry.own]


@pytest.mark.parametrize(("kind", "name"), LOADED)
def test_every_entry_loads_and_says_what_it_is(kind, name):
    entry = KINDS[kind].own[name]
    assert callable(KINDS[kind][name]) or kind in ("methods", "granularities")
    assert entry.summary
    assert entry.where.startswith(("tombola.", "torch.nn.functional:"))


@pytest.mark.parametrize("name", METHODS.own)
def test_what_is_said_of_a_method_is_so(name):
    own, entry = METHODS[name], METHODS.own[name]
    assert own.density_kind == entry.density
    assert own.granularity.name.partition(":")[0].removeprefix("separate-") == entry.unit
    assert entry.paper
    assert entry.cost


@pytest.mark.parametrize("name", GRANULARITIES.own)
def test_a_ticket_says_its_granularity_so_that_it_can_be_made_again(name):
    own = GRANULARITIES[name]
    assert granularity_of(identity(own)) == own


@pytest.mark.parametrize("name", SCORES.own)
def test_what_is_said_of_a_score_is_so(name):
    own, entry = SCORES[name], SCORES.own[name]
    assert own.name == name
    assert own.needs == entry.needs or (name, own.needs) == ("weight-gradient", "data")
    assert own.kind == entry.unit or (own.kind, entry.unit) == ("unit", "channel")
    assert entry.paper


def test_classes_of_one_place_have_one_version():
    versions: dict[str, set[int]] = {}
    for entry in METHODS.own.values():
        versions.setdefault(entry.where, set()).add(entry.version)
    assert all(len(own) == 1 for own in versions.values())


def test_controls_say_what_it_means_where_they_do_as_well():
    assert all(entry.means for entry in CONTROLS.own.values())
    assert set(MANDATORY) <= CONTROLS.own.keys()
    assert set(CHECKS) == {name for name, entry in CONTROLS.own.items() if entry.matters}


@pytest.mark.parametrize("kind", KINDS)
def test_listing_imports_no_torch(kind):
    program = f"""
        import sys
        from tombola.cli import main
        assert main(["methods", "{kind}", "--json"]) == 0
        assert "torch" not in sys.modules, "torch was imported"
    """
    out = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert [row[KINDS[kind].kind] for row in json.loads(out.stdout)[kind]] == list(KINDS[kind].own)


def test_help_imports_no_torch():
    program = "import sys; from tombola.cli import main; main(['--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_no_function_hides_a_module():
    """`import tombola.a.b` and the attribute `tombola.a.b` are the same thing."""
    import importlib
    import pkgutil

    hidden = []
    for found in pkgutil.walk_packages(tb.__path__, "tombola."):
        if found.name.endswith("__main__") or found.name.startswith("tombola.integrations."):  # which need extras
            continue
        module = importlib.import_module(found.name)
        parent, _, name = found.name.rpartition(".")
        if getattr(sys.modules[parent], name) is not module:
            hidden.append(found.name)
    assert hidden == []


def test_only_commands_import_what_reproduces_a_paper():
    root = Path(tb.__path__[0])
    files = [own for own in root.rglob("*.py*") if own.suffix in (".py", ".pyi", ".toml")]
    core = [own for own in files if own.relative_to(root).parts[0] not in ("cli", "papers")]
    assert len(core) > 100
    assert [
        own.name for own in core if re.search(r"(from|import) (tombola)?\.?papers|tombola\.papers", own.read_text())
    ] == []


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setattr(SCORES, "_registered", {})
    monkeypatch.setattr(SCORES, "_objects", dict(SCORES._objects))
    return SCORES


def test_a_decorator_adds_a_score_of_ones_own(scores):
    @scores.register("cubed", summary="|w|³", unit="weight", paper="a thought")
    def cubed(model, batches=(), loss=None, **view):
        return {name: w.pow(3) for name, w in tb.scores.magnitude(model, **view).items()}

    assert scores["cubed"] is cubed
    assert scores.entries["cubed"].paper == "a thought"
    assert list(scores)[-1] == "cubed"
    with pytest.raises(tb.TombolaError, match="there already is a score 'snip'"):
        scores.register("snip")(cubed)


def test_a_registered_control_is_one_object(monkeypatch):
    from tombola.evidence import Arm, control_identity, control_obstacle

    monkeypatch.setattr(CONTROLS, "_registered", {})

    @CONTROLS.register("as-it-is", summary="nothing", means="nothing is as good as something", needs="data")
    def as_it_is(against):
        return Arm(against.task, against.ticket)

    assert (
        control_obstacle("as-it-is", tb.method("random"))
        == "changes the data of the search, and this one reads no data"
    )
    assert "source" in control_identity("as-it-is")
    verdict = tb.check(tb.testing.toy_task(epochs=1), tb.method("snip", density=0.5), seeds=2, controls=["as-it-is"])
    assert verdict.controls[0].against == "as-it-is"
    assert "as-it-is" in verdict.sentence


def test_a_name_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(tb.TombolaError, match="there is no method 'inp'; did you mean 'imp'"):
        METHODS["inp"]
    with pytest.raises(tb.TombolaError, match=r"cannot load the object 'nowhere:f'.*give package\.module:function"):
        imported("nowhere:f")


def test_settings_of_an_entry_may_name_other_entries():
    entry = Entry("x", "tombola.methods.one_shot:OneShot", settings={"score": {"score": "snip", "batches": 3}})
    assert entry.load() == tb.OneShot(score=tb.scores.Snip(batches=3))
    assert Registry("thing", [entry])["x"] == entry.load()


MINE = """
    from dataclasses import dataclass
    from typing import ClassVar
    import tombola as tb
    from tombola.tickets import Seed, digest_of, tensors_of

    def squared(model, batches=(), loss=None, **view):
        return {name: w.square() for name, w in tb.scores.magnitude(model, **view).items()}

    def reversed_(model, batches=(), loss=None, **view):
        return {name: -w for name, w in tb.scores.magnitude(model, **view).items()}

    @dataclass(frozen=True)
    class TrainOnce:
        density: float = 0.1
        density_kind: ClassVar = "exact"
        granularity: ClassVar = tb.structure.Weights()

        def find(self, task, run):
            model = task.build(run.seed)
            start = Seed(run.seed, digest_of(tensors_of(model)))
            run.stage("train", task, model)
            return tb.Ticket(tb.select(tb.scores.magnitude(model), self.density), start)
"""
SMALL = ("--model", "lenet-300-100", "--width", "0.05", "--recipe.epochs", "1")


def answered(folder, *words, **more):
    """What the command says, typed in a folder."""
    done = subprocess.run(
        [sys.executable, "-m", "tombola.cli", *words, "--json"], cwd=folder, capture_output=True, text=True, **more
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_the_command_takes_a_score_and_a_method_of_ones_own_and_searches_anew_when_they_are_edited(tmp_path):
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    asked = ("mine:squared", "mine:reversed_", "mine:TrainOnce", "magnitude", "--densities", "0.2", "--seeds", "1")
    first = answered(tmp_path, "compare", *asked, "--controls", "random", "--out", "c", *SMALL)
    assert [own["subject"] for own in first["verdicts"]] == ["squared", "reversed_", "TrainOnce", "magnitude-init"]
    assert first["verdicts"][0]["means"]["ticket"] == first["verdicts"][3]["means"]["ticket"]
    made = sorted((tmp_path / "c").glob("*/result.json"))
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE).replace("w.square()", "-w.square()") + "# edited\n")
    again = answered(tmp_path, "compare", *asked, "--controls", "random", "--out", "c", *SMALL)
    new = set((tmp_path / "c").glob("*/result.json")) - set(made)
    assert {path.parent.name.split("-")[0] for path in new} == {"squared"}
    assert again["verdicts"][0]["means"]["ticket"] == again["verdicts"][1]["means"]["ticket"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A distribution that adds a score and a method, built as a wheel and installed into a folder of its own."""
    place = tmp_path_factory.mktemp("third")
    wheel, site = place / "thirdparty-1.0-py3-none-any.whl", place / "site-packages"
    info = "thirdparty-1.0.dist-info"
    points = "[tombola.scores]\nthird-score=thirdparty:squared\n[tombola.methods]\nthird-method=thirdparty:TrainOnce\n"
    contents = {
        "thirdparty.py": textwrap.dedent(MINE),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: thirdparty\nVersion: 1.0\nSummary: A third party's ideas\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    with zipfile.ZipFile(wheel, "w") as file:
        for name, text in contents.items():
            file.writestr(name, text)
        file.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in (*contents, f"{info}/RECORD")))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    return site


@pytest.mark.slow
def test_an_installed_distribution_adds_a_score_and_a_method(installed, tmp_path):
    import os

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *filter(None, sys.path)])}
    row = answered(tmp_path, "methods", env=environment)["methods"][-1]
    assert (row["method"], row["origin"], row["summary"]) == ("third-method", "thirdparty 1.0", "A third party's ideas")
    asked = ("third-score", "third-method", "--densities", "0.2", "--seeds", "1", "--controls", "random")
    study = answered(tmp_path, "compare", *asked, "--out", "c", *SMALL, env=environment)
    assert [own["subject"] for own in study["verdicts"]] == ["third-score", "third-method"]
    laws = """
        from tombola.registry import METHODS, SCORES
        from tombola.testing import check_method, check_score
        check_score(SCORES["third-score"])
        check_method(METHODS["third-method"])
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(laws)], env=environment, cwd=tmp_path, check=True)


@dataclass(frozen=True)
class Ours:
    """A score of a test's own."""

    name: ClassVar[str] = "ours"
    needs_data: ClassVar[bool] = False
    gain: float = 1.0

    def __call__(self, model, batches=(), loss=None, **view):
        return {name: self.gain * w for name, w in tb.scores.magnitude(model, **view).items()}
