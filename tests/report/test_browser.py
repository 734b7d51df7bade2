"""The report in a real browser: no error, no request, the figures that were measured, at two widths, light and dark."""

from __future__ import annotations

import csv
import itertools
import os
import re
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from made_up import study
from tombola.evidence import interval
from tombola.report import write_report
from tombola.report.arms import GatheredArms

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(not CHROMIUM and not os.environ.get("CI"), reason="needs apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Generator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> tuple[GatheredArms, Path]:
    results, verdicts = study()
    folder = tmp_path_factory.mktemp("browser")
    return GatheredArms.of(results, verdicts), write_report(results, verdicts, folder, title="Three searches")


WINDOWS = [(400, "light"), (1000, "dark"), (1400, "light")]


@pytest.fixture(scope="module", params=WINDOWS, ids=lambda own: f"{own[0]}-{own[1]}")
def page(request, browser, report) -> Generator:
    """The open page at a width and colour scheme, with what it asked for and complained of."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.complaints, opened.requests, opened.scheme, opened.wide = [], [], scheme, width
    opened.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda own: opened.requests.append(own.url))
    opened.goto(report[1].as_uri(), timeout=120_000)
    opened.evaluate("document.querySelectorAll('details').forEach(own => own.open = true)")
    opened.wait_for_function(
        "[...document.querySelectorAll('[data-chart]')].every(place => place.view)", timeout=120_000
    )
    yield opened
    context.close()


def test_the_page_draws_itself_without_complaint_or_request(page, report):
    assert page.complaints == []
    assert page.requests == [report[1].as_uri()]
    charts = page.locator("[data-chart]")
    assert charts.count() > 8
    assert page.locator("[data-chart] svg").count() == charts.count()


def test_nothing_is_wider_than_the_window(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= page.wide


def test_the_colours_follow_the_scheme(page):
    ink = page.evaluate("getComputedStyle(document.body).color")
    brightness = sum(int(value) for value in re.findall(r"\d+", ink)[:3]) / 3
    assert (brightness < 128) == (page.scheme == "light")


def test_the_figures_on_the_page_are_the_measured_ones(page, report):
    """Every arm's mean accuracy, read from the marks that the browser drew and from the table's cells."""
    gathered, _ = report
    shown = {
        round(value, 6)
        for value in page.evaluate(
            """[...document.querySelectorAll('[data-chart]')].flatMap(place =>
            Object.values(place.view.getState({data: () => true, signals: () => false}).data)
                .filter(Array.isArray).flatMap(rows => rows.map(row => row.mean)).filter(Number.isFinite))"""
        )
    }
    cells = " ".join(page.locator("td").all_inner_texts())
    for arm in gathered.arms:
        mean, _, _ = (100 * value for value in interval([result.metric for result in arm.results]))
        # Marks of controls stand at their difference to dense.
        if not arm.control:
            assert any(abs(mean - value) < 1e-6 for value in shown), f"no mark stands at {mean} of {arm.name}"
        assert f"{mean:.2f}" in cells


def test_marks_tell_what_they_are(page):
    labels = page.locator("[data-chart] [aria-roledescription='point']")
    assert labels.count() > 10
    assert "accuracy" in labels.first.get_attribute("aria-label")


def test_a_table_that_is_wider_than_the_window_says_so(page):
    hints = page.evaluate(
        """[...document.querySelectorAll('.table')].filter(own => own.offsetParent).map(own => {
            const scroll = own.querySelector('.scroll');
            return [scroll.scrollWidth > scroll.clientWidth + 1, !own.querySelector('.wider').hidden];
        })"""
    )
    assert all(wider == said for wider, said in hints)
    if page.wide == 400:
        assert any(said for _, said in hints)
    if page.wide == 1400:
        fits = page.evaluate(
            """['Verdicts', 'Results'].map(name => document.querySelector(`.scroll[aria-label="${name}"]`))
            .every(own => own.scrollWidth <= own.clientWidth + 1)"""
        )
        assert fits


def test_the_page_can_be_read_without_a_mouse_and_without_eyes(page):
    assert page.evaluate("document.querySelectorAll('main, h1, nav[aria-label]').length") == 3
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(own => +own.tagName[1])")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    nameless = page.evaluate(
        """[...document.querySelectorAll('[data-chart], .scroll, a, button, input')].filter(own =>
            !(own.getAttribute('aria-label') || own.textContent.trim() || own.labels?.[0]?.textContent.trim())
        ).length"""
    )
    assert nameless == 0
    page.evaluate("window.scrollTo(0, 0); document.activeElement.blur()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    assert page.evaluate("[...document.querySelectorAll('.scroll')].every(own => own.tabIndex === 0)")


@pytest.fixture
def fresh(browser, report) -> Generator:
    """A page of its own, which a test may change."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.goto(report[1].as_uri(), timeout=120_000)
    opened.wait_for_function("document.querySelector('[data-chart=accuracy]').view", timeout=120_000)
    yield opened
    context.close()


def test_the_filter_leaves_out_methods_and_densities(fresh):
    fresh.locator("input[value=snip]").uncheck()
    fresh.locator("input[name=kept]").last.uncheck()
    assert fresh.locator("[data-status]").inner_text() == "2 of 6 tickets"
    shown = fresh.locator(".verdicts tbody:visible > tr:first-child > th").all_inner_texts()
    assert set(shown) == {"imp", "gem-miner"}
    fresh.wait_for_function(
        """(() => { const view = document.querySelector('[data-chart=accuracy]').view;
        const held = view.getState({data: () => true, signals: () => false}).data;
        const named = Object.values(held).filter(Array.isArray).flat().filter(row => row.method);
        return named.length && named.every(row => row.method !== 'snip' && row.density === 0.2); })()""",
        timeout=60_000,
    )
    fresh.get_by_role("button", name="Show all").click()
    assert fresh.locator(".verdicts tbody:visible").count() == 6


def test_tables_and_figures_can_be_taken_along(fresh, report):
    with fresh.expect_download() as taken:
        fresh.get_by_role("button", name="CSV of the table Verdicts").click()
    rows = list(csv.reader(taken.value.path().read_text(encoding="utf-8-sig").splitlines()))
    assert rows[0][:2] == ["ticket", "verdict"]
    assert rows[0][-1] == "why"
    assert {row[0] for row in rows[1:]} == {"imp", "snip", "gem-miner"}
    assert {len(row) for row in rows} == {len(rows[0])}
    assert float(rows[1][rows[0].index("accuracy")].removesuffix(" %")) > 80
    with fresh.expect_download() as taken:
        fresh.get_by_role("button", name="PNG of the figure accuracy").click()
    assert taken.value.path().read_bytes().startswith(b"\x89PNG")
    with fresh.expect_download() as taken:
        fresh.get_by_role("link", name="PDF of the figure accuracy").click()
    assert taken.value.path().read_bytes() == report[1].with_name("accuracy.pdf").read_bytes()
