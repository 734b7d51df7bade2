"""The report in a real browser: no error, no request, the figures that were measured, at two widths, light and dark."""

from __future__ import annotations

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


@pytest.fixture(scope="module", params=[(400, "light"), (1400, "dark")], ids=lambda own: f"{own[0]}-{own[1]}")
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
        assert any(abs(mean - value) < 1e-6 for value in shown), f"no mark stands at {mean} of {arm.name}"
        assert f"{mean:.2f}" in cells


def test_marks_tell_what_they_are(page):
    labels = page.locator("[data-chart] [aria-roledescription='point']")
    assert labels.count() > 10
    assert "accuracy" in labels.first.get_attribute("aria-label")
