"""The examples of docs/frameworks.md run, each block by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "frameworks.md"
BLOCKS = dict(re.findall(r"## ([^\n]*)\n(?:(?!\n## ).)*?```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("title", BLOCKS)
def test_the_pages_example_runs(title, tmp_path, monkeypatch):
    for name in re.findall(r"^(?:import|from) (lightning|transformers|accelerate)", BLOCKS[title], flags=re.MULTILINE):
        pytest.importorskip(name)
        pytest.importorskip("accelerate" if name == "transformers" else name)  # which the Trainer needs
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[title], str(PAGE), "exec"), {"__name__": "__main__"})


def test_every_section_but_the_last_has_an_example():
    titles = re.findall(r"^## (.*)", PAGE.read_text(), flags=re.MULTILINE)
    assert list(BLOCKS) == titles[:-1]
