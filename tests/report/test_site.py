"""The documentation's own parts: the filter of claims in a real browser, the gallery, and pages that are found."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from test_browser import CHROMIUM, browser  # noqa: F401

from make_gallery import FOLDER, gathered
from tombola.report.exports import export, page_of
from tombola.report.panels import figures
from tombola.report.theme import LIGHT, vega_config

DOCS = Path(__file__).parents[2] / "docs"
SETTINGS = tomllib.loads((DOCS.parent / "zensical.toml").read_text())["project"]


def pages_of(nav) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return set().union(*map(pages_of, parts))


def test_every_page_is_in_the_navigation_but_those_of_single_claims():
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    shown = pages_of(SETTINGS["nav"])
    assert shown <= there
    assert {page for page in there - shown if not page.startswith("claims/")} == set()
    assert "claims/index.md" in shown
    assert not [page for page in shown if (DOCS / page).with_suffix(".jsonl").exists()]


def test_what_the_site_loads_is_there():
    for path in (*SETTINGS["extra_css"], *SETTINGS["extra_javascript"]):
        assert (DOCS / path).is_file()


def test_the_gallery_is_what_the_report_draws():
    shown = re.findall(r"images/gallery/(\w+)\.svg", (DOCS / "gallery.md").read_text())
    own = gathered()
    drawn = {name: figure for name, figure in figures(own).items() if figure.panels}
    assert set(shown) == drawn.keys() == {path.stem for path in FOLDER.glob("*.svg")}
    config = vega_config(LIGHT, len(own.densities)) | {"background": LIGHT.card}
    made = export(page_of("differences", drawn["differences"], config)).svg
    assert labels(made) == labels((FOLDER / "differences.svg").read_text()), "run python tests/make_gallery.py"


def labels(svg: str) -> list[str]:
    """What the marks of a picture say of themselves, with their figures."""
    return sorted(re.findall('aria-label="([^"]*)"', svg))


@pytest.mark.skipif(not CHROMIUM, reason="needs apt-get install chromium")
def test_claims_are_filtered_by_words_and_outcome(browser, tmp_path):  # noqa: F811
    claims = [("snip a", "agrees"), ("snip b", "too few seeds (could show 4 points)"), ("imp", "agrees")]
    rows = "".join(f"<tr><td>{name}</td><td>{answer}</td></tr>" for name, answer in claims * 2)
    script = (DOCS / "javascripts" / "claims.js").read_text()
    table = f"<table><thead><tr><th>claim</th><th>answer</th></tr></thead><tbody>{rows}</tbody></table>"
    (tmp_path / "page.html").write_text(f"<article>{table}</article><script>{script}</script>")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.get_by_role("status").inner_text() == "6 of 6 claims"
    page.get_by_role("searchbox").fill("SNIP")
    assert page.locator("tbody tr:visible").count() == 4
    page.get_by_label("too few seeds").uncheck()
    assert page.locator("tbody tr:visible").all_inner_texts() == ["snip a\tagrees"] * 2
    assert page.get_by_role("status").inner_text() == "2 of 6 claims"
    page.close()
