"""The report: what it shows equals what was measured, and nothing in it can act on its own."""

from __future__ import annotations

import html
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from made_up import OFFSETS, QUALITY, ledger, run, study
from tombola.evidence import Verdict, interval, judge, ranking
from tombola.report import ranking_tables, results_table_for, saves, savings_table, too_brief, write_report
from tombola.report.arms import GatheredArms
from tombola.report.axis_range import near_the_best
from tombola.report.html_page import bundle
from tombola.report.prose import OWN_SEEDS, number, saved
from tombola.report.standings import headline
from tombola.report.words import words
from tombola.studies.latex import verdict_table
from tombola.studies.result import Result

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[list[Result], list[Verdict], Path]:
    results, verdicts = study()
    page = write_report(
        results,
        verdicts,
        tmp_path_factory.mktemp("report"),
        title="Three searches",
        command="tombola compare imp snip gem-miner",
        task={"data": "digits", "recipe": {"epochs": 8}},
    )
    return results, verdicts, page


def data_of(page: Path) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found.group(1))


def rows_of(specification: dict) -> list[dict]:
    """All rows of a chart: Altair keeps them in the layers or gathers them at the top."""
    if "datasets" in specification:
        return [row for rows in specification["datasets"].values() for row in rows]
    parts = [specification, *specification.get("layer", [])]
    return [row for part in parts for row in part.get("data", {}).get("values", [])]


def cells_of(page: Path) -> list[str]:
    return [html.unescape(cell) for cell in re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page.read_text())]


def without_scripts(page: Path) -> str:
    return re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)


def test_the_page_asks_nothing_of_the_network(whole):
    text = whole[2].read_text()
    markup = without_scripts(whole[2])
    assert not re.search(r"<(link|iframe|img|object|embed|base)\b", markup)
    assert not re.search(r"<script[^>]*\bsrc=", text)
    assert not re.search(r"@import|url\(", markup)
    assert not re.search(r"https?://", markup)
    assert not re.search(r"https?://", json.dumps(data_of(whole[2])))
    assert "default-src 'none'" in markup


def test_the_page_ends_each_script_where_it_should(whole):
    text = whole[2].read_text()
    assert text.count("</script") == 3
    assert text.count(bundle()) == 1


def test_charts_show_what_was_measured(whole):
    results, _, page = whole
    charts = data_of(page)["charts"]
    for index, method in enumerate(QUALITY):
        for density in (0.2, 0.05):
            metrics = [r.metric for r in results if (r.method, r.control, r.density) == (method, "", density)]
            mean, low, high = (100 * value for value in interval(metrics))
            for key in ("accuracy", "spending"):
                drawn = [r for r in rows_of(charts[key]) if (r["series"], r["density"]) == (method, density)]
                assert drawn
                for row in drawn:
                    assert (row["mean"], row["low"], row["high"]) == pytest.approx((mean, low, high))
                    assert row["seeds"] == 3
        layers = {(r["layer"], r["density"]): r["value"] for r in rows_of(charts[f"layers-{index}"])}
        kept, size = next(r for r in results if r.method == method and r.density == 0.05).layers["fc.weight"]
        assert layers["fc.weight", "5\u00a0%"] == pytest.approx(100 * kept / size)
    costs = {r["label"]: r["dense_epochs"] for r in rows_of(charts["cost-dense_epochs"])}
    assert costs["imp, 5\u00a0%"] == pytest.approx(18)


def test_differences_are_paired_with_dense(whole):
    results, verdicts, page = whole
    charts = data_of(page)["charts"]
    for place, density in enumerate((0.2, 0.05)):
        rows = rows_of(charts[f"differences-{place}"])
        for verdict in verdicts:
            if verdict.density == density:
                drawn = {r["mean"] for r in rows if (r.get("method"), r.get("series")) == (verdict.subject, "ticket")}
                assert list(drawn) == [pytest.approx(100 * verdict.dense.mean)]
        for method in QUALITY:
            for control in filter(None, OFFSETS):
                both = [
                    {r.seed: r.metric for r in results if (r.method, r.control, r.density) == arm}
                    for arm in ((method, control, density), ("", "", 1.0))
                ]
                mean = sum(both[0][seed] - both[1][seed] for seed in both[0]) / 3
                drawn = {r["mean"] for r in rows if (r.get("method"), r.get("series")) == (method, control)}
                assert list(drawn) == [pytest.approx(100 * mean)]


def test_what_lies_far_off_stands_at_the_edge_with_its_figure(tmp_path):
    """A collapsed arm does not stretch the axis; nothing is left out."""
    results = [run("", "", 1.0, s) for s in range(3)]
    results += [run(name, "", 0.05, s) for name in ("imp", "snip") for s in range(3)]
    results += [run("random", "", 0.05, s, metric=0.2 + s / 100) for s in range(3)]
    page = write_report(results, [], tmp_path, title="Collapse")
    for key in ("accuracy", "spending"):
        chart = data_of(page)["charts"][key]
        (row,) = {tuple(sorted(r.items())) for r in rows_of(chart) if r.get("series") == "random" and r["said"]}
        row = dict(row)
        axes = [layer["encoding"]["y"].get("scale", {}) for layer in chart["layer"]]
        low, high = next(axis["domain"] for axis in axes if "domain" in axis)
        assert low > 85
        assert (row["place"], row["beyond"], row["said"]) == (low, "below", "21")
        assert all(low < r["mean"] < high for r in rows_of(chart) if r.get("series") in ("imp", "snip"))
    assert "21.00\u00a0%" in cells_of(page)


def test_a_loss_that_grows_is_as_far_off_as_an_accuracy_that_falls():
    from tombola.evidence import Measure

    loss = Measure("loss", lower=True, share=False)
    assert near_the_best([0.30, 0.31, 0.35, 9.0], loss) == [0.30, 0.31, 0.35]
    assert near_the_best([90.0, 84.0, 72.0, 50.0]) == [90.0, 84.0, 72.0, 50.0]
    assert near_the_best([]) == []


def test_curves_are_means_over_seeds(whole):
    results, _, page = whole
    rows = rows_of(data_of(page)["charts"]["training-0"])
    ticket = [r for r in results if r.arm == "imp" and r.density == 0.2]
    for epoch in range(1, 9):
        mean = sum(r.history[epoch - 1]["validation_metric"] for r in ticket) / len(ticket)
        drawn = [r["value"] for r in rows if r["series"] == "ticket" and r["epoch"] == epoch]
        assert drawn == pytest.approx([100 * mean])


def test_every_figure_of_a_chart_stands_in_a_table(whole):
    cells = set(cells_of(whole[2]))
    for key, specification in data_of(whole[2])["charts"].items():
        for row in rows_of(specification):
            if key in ("accuracy", "spending"):
                assert f"{row['mean']:.2f}\u00a0%" in cells
            elif key.startswith("differences"):
                assert not row.get("series") or f"{row['mean']:+.2f}".replace("-", "−") in cells
            elif key.startswith("training"):
                assert f"{row['value']:.2f}" in cells
            elif key.startswith("layers"):
                assert f"{row['value']:.4g}\u00a0%" in cells
            elif key.startswith("savings"):
                assert not row or saved(row[key.removeprefix("savings-")] / 100) in cells
            else:
                assert number(row["dense_epochs"]) in cells
                assert f"{row['seconds']:,.{0 if row['seconds'] >= 100 else 2}f}" in cells


def test_verdicts_are_told_in_words(whole):
    _, verdicts, page = whole
    text = page.read_text()
    for verdict in verdicts:
        assert html.escape(verdict.reason) in text
    counts = [text.count(f">{word}</span>") for word in ("✓ wins", "✗ does not win", "? undecided")]
    assert counts == [sum(v.wins is wins for v in verdicts) for wins in (True, False, None)]
    assert text.index('id="verdicts"') < text.index('id="accuracy"')


def test_pictures_lie_beside_the_page(whole):
    text = whole[2].read_text()
    for name in ("accuracy", "differences", "layers", "training", "cost"):
        for kind, start in (("png", PNG), ("pdf", b"%PDF"), ("svg", b"<svg")):
            picture = whole[2].with_name(f"{name}.{kind}").read_bytes()
            assert picture.startswith(start)
            assert len(picture) > 5000
            assert (f'download="{name}.{kind}"' in text) == (kind != "png")


@pytest.mark.parametrize(
    ("results", "verdicts"),
    [
        ([], []),
        ([run("", "", 1.0, 0)], []),
        ([run("imp", "", 0.1, 0)], []),
        pytest.param(*study(("imp",), (0.1,), 1), marks=pytest.mark.slow),
        ([run("imp", "", 0.1, s, history=(), layers={}, search={}, training={}) for s in range(2)], []),
        ([run("imp", "", 0.1, s, metric=math.nan, validation=math.nan) for s in range(2)], []),
        pytest.param(
            [run("", "", 1.0, 0, epochs=8), run("", "", 1.0, 0, epochs=16), run("imp", "", 0.1, 1)],
            [],
            marks=pytest.mark.slow,
        ),
        ([run("imp", "", 0.1, 0, history=({"epoch": 1.0, "validation_metric": 0.5}, {"epoch": 2.0}))], []),
    ],
)
def test_odd_inputs_make_a_page(tmp_path, without_pictures, results, verdicts):
    page = write_report(results, verdicts, tmp_path / "new" / "folder", title="Odd")
    assert "NaN" not in json.dumps(data_of(page))
    assert "report.html" in {p.name for p in page.parent.iterdir()}
    assert all(p.suffix in (".html", ".svg", ".pdf", ".png") for p in page.parent.iterdir())
    Console(file=io.StringIO()).print(results_table_for(results, verdicts))


def test_a_figure_is_rounded_alike_wherever_it_stands(tmp_path, without_pictures, capsys):
    """84.925 lies between two roundings, and floats of it on either side."""
    metrics = (0.8491, 0.8492, 0.8494, 0.8493)
    tickets = [run("imp", "", 0.1, seed, metric=metric) for seed, metric in enumerate(metrics)]
    dense = [run("", "", 1.0, seed, metric=0.85) for seed in range(4)]
    results = [*dense, *tickets]
    verdict = judge("imp", 0.1, {"ticket": list(metrics), "dense": [0.85] * 4}, range(4))
    page = write_report(results, [verdict], tmp_path, title="Halves")
    Console().print(results_table_for(results, [verdict]))
    (text,) = {row["mean"] for row in rows_of(data_of(page)["charts"]["accuracy"]) if row["series"] == "imp"}
    ranked = ranking({"imp": dict(enumerate(metrics)), "a": dict(enumerate(metrics))}, {}, 0.005)
    places = [
        *re.findall(r"84\.9\d(?=\u00a0%)", without_scripts(page)),
        *re.findall(r"84\.9\d", capsys.readouterr().out),
        *re.findall(r"84\.9\d", verdict_table([verdict], results)),
        *re.findall(r"84\.9\d", ranking_tables.order_grid(ranked).rows[0][1]),
        f"{text:.2f}",
    ]
    assert len(places) > 5
    assert len(set(places) - {"84.91", "84.94"}) == 1


def test_a_win_over_a_dense_network_that_still_learns_is_called_a_matter_of_training_time(tmp_path, without_pictures):
    def gathered(rise: float, ticket: float) -> GatheredArms:
        curve = tuple({"epoch": e, "validation_metric": 0.8 + rise * (e > 6)} for e in range(1, 9))
        dense = [run("", "", 1.0, seed, metric=0.9 + seed / 1000, history=curve) for seed in range(3)]
        arms = {"ticket": [ticket + seed / 999 for seed in range(3)], "dense": [r.metric for r in dense]}
        return GatheredArms.of(dense, [judge("imp", 0.1, arms, range(3))])

    assert too_brief(gathered(0.0, 0.9)) == ""
    assert too_brief(gathered(0.004, 0.9)) == ""
    assert "rose by 2.00 points in the last 2 epochs of 8." in too_brief(gathered(0.02, 0.9))
    assert "imp at 10\u00a0% is surely better than it" in too_brief(gathered(0.0, 0.95))
    study = gathered(0.02, 0.95)
    page = write_report(study.arms[0].results, study.verdicts, tmp_path, title="Brief")
    assert html.escape(too_brief(study)) in page.read_text()
    assert "--equal-cost" in page.read_text()


def test_other_seeds_are_said_wherever_means_of_dense_differ(tmp_path, without_pictures, capsys):
    results = [run("", "", 1.0, seed, metric=0.8 + seed / 100) for seed in range(5)]
    results += [run("imp", control, 0.2, seed) for control in OFFSETS for seed in range(3)]
    results += [run("snip", "", 0.2, seed) for seed in range(5)]
    arms = {control or "ticket": [run("imp", control, 0.2, seed).metric for seed in range(3)] for control in OFFSETS}
    verdict = judge("imp", 0.2, arms | {"dense": [0.80, 0.81, 0.82]}, range(3))
    study = GatheredArms.of(results, [verdict])
    said = " ".join(headline(study))
    assert verdict.wins
    assert "has 81.00\u00a0% over the same 3 seeds" in said
    assert "over 3 to 5 seeds" in said
    Console(width=100).print(results_table_for(results, [verdict]))
    printed = " ".join(capsys.readouterr().out.split())
    assert "seeds" in printed
    assert OWN_SEEDS in printed
    assert OWN_SEEDS in write_report(results, [verdict], tmp_path, title="Seeds").read_text()


def test_words_methods_and_controls_are_explained_once_each(whole):
    gathered = GatheredArms.of(whole[0], whole[1])
    said = words(gathered)
    assert {"imp (method)", "snip (method)", "random (control)", "points", "seed", "dense epoch"} <= said.keys()
    assert "mean rank" not in said
    assert not {name for name in words(GatheredArms.of([run("mine", "", 0.1, 0)], [])) if name.startswith("mine")}
    assert all(html.escape(text) in whole[2].read_text().replace("&#39;", "&#x27;") for text in said.values())


def test_one_seed_has_no_interval_and_no_verdict(tmp_path):
    results, verdicts = study(("imp",), (0.1,), 1)
    page = write_report(results, verdicts, tmp_path, title="One seed")
    rows = rows_of(data_of(page)["charts"]["accuracy"])
    assert {(row["low"], row["high"]) for row in rows} == {(None, None)}
    assert "One seed shows nothing" in page.read_text()
    assert "inf" not in cells_of(page)


def test_hostile_names_stay_text(tmp_path):
    hostile = "</script><b>x</b>{{ 7 * 7 }}<!--"
    results = [
        run("", "", 1.0, 0),
        run(hostile, "", 0.1, 0, command=hostile, source=hostile, layers={hostile: (0, 5)}, collapsed=(hostile,)),
        run(hostile, hostile, 0.1, 0, settings={hostile: hostile}),
    ]
    verdict = judge(hostile, 0.1, {"ticket": [0.9], "dense": [0.9], hostile: [0.9]}, [0], collapsed=(hostile,))
    page = write_report(results, [verdict], tmp_path, title=hostile, command=hostile, task={hostile: hostile})
    text = page.read_text()
    assert "<b>" not in text.replace(bundle(), "")
    assert hostile not in text
    assert "{{ 7 * 7 }}" in text
    assert data_of(page)["charts"]["layers-0"]
    Console(file=io.StringIO()).print(results_table_for(results, [verdict]))


def test_collapsed_arms_are_marked(tmp_path):
    results = [run("imp", "", 0.05, s, collapsed=("fc.weight",) if s else ()) for s in range(2)]
    page = write_report(results, [], tmp_path, title="Collapse")
    assert "imp (collapsed)" in cells_of(page)
    assert "fc.weight" in cells_of(page)


def test_the_terminal_table_fits_eighty_columns(whole):
    results, verdicts, _ = whole
    output = io.StringIO()
    Console(file=output, width=80).print(results_table_for(results, verdicts))
    text = output.getvalue()
    arms = GatheredArms.of(results, verdicts).arms
    assert max(map(len, text.splitlines())) <= 80
    for arm in arms:
        mean, _, high = arm.accuracy
        assert high is not None
        assert f"{mean:.2f} ± {high - mean:.2f}" in text
    assert text.count("wins") == sum(v.wins is True for v in verdicts)


def test_two_seeds_have_no_interval_in_the_terminal_table():
    output = io.StringIO()
    Console(file=output, width=80).print(results_table_for([run("imp", "", 0.05, s, metric=0.9) for s in range(2)], []))
    assert "90.00 ± –" in output.getvalue()
    assert "± is half of the 95 % interval of the mean" in output.getvalue()


def test_dense_is_the_one_that_the_verdict_used():
    short, long = (
        [run("", "", 1.0, s, epochs=e, metric=m + s / 1000) for s in range(3)] for e, m in ((8, 0.9), (16, 0.92))
    )
    ticket = [run("lrr", "", 0.1, s, metric=0.925 + s / 999) for s in range(3)]
    verdict = judge("lrr", 0.1, {"ticket": [r.metric for r in ticket], "dense": [r.metric for r in long]}, range(3))
    arms = GatheredArms.of([*short, *long, *ticket], [verdict])
    assert [arm.name for arm in arms.arms] == ["dense, 8 epochs", "dense, 16 epochs", "lrr"]
    difference = arms.difference(arms.arms[-1])
    assert difference is not None
    assert difference.mean == pytest.approx(verdict.dense.mean)


def test_without_a_verdict_dense_is_the_one_trained_as_long():
    short, long = (run("", "", 1.0, 0, epochs=epochs) for epochs in (8, 16))
    rewound, plain = run("lrr", "", 0.1, 0, epochs=8, epochs_spent=8.0), run("imp", "", 0.1, 0, epochs=8)
    arms = GatheredArms.of([short, long, rewound, plain], [])
    used = {arm.name: arms.dense(arm) for arm in arms.arms if arm.method}
    assert {name: dense.epochs for name, dense in used.items() if dense} == {"lrr": 16, "imp": 8}


def spent(**changes: float) -> dict[str, float]:
    return ledger(8) | changes


def metered(seed: int, ticket: float, dense: float, search: float) -> list[Result]:
    """One seed's dense run and ticket, whose training takes so many seconds and a hundredth as many kWh."""
    work = [{"seconds": own, "energy": own / 100, "carbon": own / 250} for own in (dense, ticket, search)]
    return [
        run("", "", 1.0, seed, training=spent(**work[0]), country="DEU"),
        run(
            "snip",
            "",
            0.1,
            seed,
            training=spent(**work[1], flops=6e12, step_memory=1.5e6),
            search=spent(**work[2], flops=0),
            country="DEU",
        ),
    ]


def test_savings_are_medians_over_the_seeds_that_both_have(tmp_path):
    results = [own for seed, work in enumerate([(5, 10, 1), (6, 10, 2), (30, 10, 100)]) for own in metered(seed, *work)]
    results.append(run("snip", "", 0.1, 3))
    gathered = GatheredArms.of(results, [])
    (own,) = gathered.saved
    assert (own.subject, own.density, own.seeds) == ("snip", 0.1, (0, 1, 2))
    time = pytest.approx(0.4)
    assert own.training == {
        "seconds": time,
        "flops": pytest.approx(0.75),
        "step_memory": pytest.approx(0.25),
        "peak_memory": 0,
        "energy": time,
        "carbon": time,
    }
    net = pytest.approx(0.2)
    assert own.net == {"seconds": net, "flops": pytest.approx(0.75), "energy": net, "carbon": net}
    page = write_report(results, [], tmp_path, title="Savings")
    assert "kWh = mean power × seconds, kg CO₂e = kWh × the intensity of the grid of DEU." in page.read_text()
    assert '<a href="#savings">Savings</a>' in page.read_text()
    charts = data_of(page)["charts"]
    assert {key for key in charts if key.startswith("savings")} == {
        f"savings-{key}" for key in ("seconds", "flops", "step_memory", "energy", "carbon")
    }
    assert {"40.0\u00a0%", "75.0\u00a0%", "25.0\u00a0%", "20.0\u00a0%"} <= set(cells_of(page))
    output = io.StringIO()
    Console(file=output, width=80).print(savings_table(gathered))
    assert "20.0" in output.getvalue()
    assert max(map(len, output.getvalue().splitlines())) <= 80


def test_what_training_could_save_is_told_though_nothing_was_saved(tmp_path):
    shares = {0: 0.25, 1: 0.375, 2: 1.0}
    results = [run("snip", "", 0.02, seed, training=ledger(8), alive_flops=share) for seed, share in shares.items()]
    results += [run("", "", 1.0, seed, training=ledger(8)) for seed in shares]
    gathered = GatheredArms.of(results, [])
    (own,) = gathered.saved
    assert (own.training["flops"], own.could) == (0, 0.625)
    assert saves(gathered)
    output = io.StringIO()
    Console(file=output, width=80).print(savings_table(gathered))
    assert "62.5" in output.getvalue()
    page = write_report(results, [], tmp_path, title="Could")
    assert {"FLOPs, if cut", "62.5\u00a0%"} <= set(cells_of(page))


def test_a_share_of_what_many_took_together_is_no_saving():
    dense, ticket = metered(0, 5, 10, 1)
    (own,) = GatheredArms.of([replace(dense, together=3), replace(ticket, together=3)], []).saved
    for key in ("seconds", "energy", "carbon", "peak_memory"):
        assert own.training[key] is own.net.get(key) is None
    assert own.training["flops"] == own.net["flops"] == pytest.approx(0.75)
    (own,) = GatheredArms.of([replace(dense, together=3), ticket], []).saved
    assert own.training["seconds"] is own.net["seconds"] is None


def test_what_was_not_metered_is_not_known(tmp_path):
    dense, ticket = metered(0, 5, 10, 1)
    unmetered = replace(ticket, search=spent(energy=0.0, carbon=0.0))
    (own,) = GatheredArms.of([dense, unmetered], []).saved
    assert own.training["energy"] == own.training["carbon"] == 0.5
    assert own.net["energy"] is own.net["carbon"] is None
    free = replace(ticket, search=dict.fromkeys(spent(), 0.0) | {"energy": 0.0, "carbon": 0.0})
    (own,) = GatheredArms.of([dense, free], []).saved
    assert own.net["energy"] == own.training["energy"]
    (own,) = GatheredArms.of([run("", "", 1.0, 0, training={}), replace(ticket, search={})], []).saved
    assert {*own.training.values(), *own.net.values()} == {None}
    page = write_report([run("", "", 1.0, 0), run("snip", "", 0.1, 0)], [], tmp_path, title="Unmetered")
    assert not re.search("energy|carbon|CO₂e", without_scripts(page))
    assert not any(key.startswith("savings") for key in data_of(page)["charts"])


def test_what_saves_nothing_and_was_not_measured_is_not_shown(whole):
    results, verdicts, page = whole
    assert not saves(GatheredArms.of(results, verdicts))
    markup = without_scripts(page)
    assert not re.search('id="(savings|robustness|sanity|ranking)"', markup)
    for head, *rows in tables_of(markup):
        for place in range(len(head)):
            cells = {row[place] for row in rows if len(row) == len(head)}
            assert not cells <= {"0", "–", "", "0.0\u00a0%"} or not cells, f"nothing but {cells} below {head[place]}"


def tables_of(markup: str) -> list[list[list[str]]]:
    found = []
    for table in re.findall(r"<table.*?</table>", markup, re.DOTALL):
        rows = [re.findall(r"<t[hd][^>]*>(?:<span[^>]*>)?([^<]*)<", row) for row in re.findall(r"<tr.*?</tr>", table)]
        if "<thead>" in table:
            found.append(rows)
    return found


def test_the_headline_tells_who_wins_why_and_at_what_cost():
    results, verdicts = study()
    said = headline(GatheredArms.of(results, verdicts))
    best = min((v for v in verdicts if v.wins), key=lambda v: v.density)
    assert said[0].startswith(f"{best.subject} wins with {100 * best.density:g}\u00a0% kept, by a search that cost ")
    assert best.reasons[0] in said[0]
    assert " its training: " in said[0]
    assert said[-1].startswith("Of 6 tickets (3 methods at 2 densities over 3 seeds), ")
    loser = next(v for v in verdicts if v.wins is False)
    assert f"{loser.subject} with" in said[1]
    assert "does not win: " in said[1]
    assert "nothing is proven" in headline(GatheredArms.of(results, []))[0]
    losers = [v for v in verdicts if not v.wins]
    assert headline(GatheredArms.of(results, losers))[0].startswith("No ticket was shown")
