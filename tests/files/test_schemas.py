"""What files say is checked before it is believed, and safe to show."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from tombola.errors import DamagedError, FileError
from tombola.files import as_written, json_of, parsed, printable_text, read_as, text_of


@dataclass(frozen=True)
class Row:
    name: str
    share: float
    sides: tuple[int, ...] = ()


def test_a_file_that_fits_is_read_and_what_a_newer_version_adds_is_left_out():
    assert read_as(Row, {"name": "a", "share": 1, "sides": [2, 3], "more": {}}) == Row("a", 1.0, (2, 3))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"name": "a"}, "missing required field `share`"),
        ({"name": "a", "share": "x"}, "share: expected `float`, got `str`"),
        ({"name": "a", "share": None}, "share: expected `float`, got `null`"),
        ({"name": "a", "share": True}, "share: expected `float`, got `bool`"),
        ({"name": "a", "share": 1.0, "sides": [1, "x"]}, r"sides\[1\]: expected `int`, got `str`"),
        ([], "expected `object`, got `array`"),
        ({"name": "a", "share": 1.0, "format": 0}, "its format is 0"),
    ],
)
def test_what_does_not_fit_is_named(content, says):
    with pytest.raises(ValueError, match=says):
        read_as(Row, content)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": NaN}', "the number nan"),
        ('{"a": [-Infinity]}', "the number -inf"),
        ('{"a": 1e999}', "the number inf"),
        ('{"a": [1' + "0" * 40 + "]}", "larger than any"),
        ("[" * 100 + "]" * 100, "nested too deep"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("{", "Expecting"),
        ('{"a": ' + "9" * 5000 + "}", "integer string conversion"),
    ],
)
def test_what_no_file_of_ours_holds_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        json_of(text)


def test_a_newer_versions_file_is_not_called_damaged(tmp_path):
    path = tmp_path / "row.json"
    path.write_text(json.dumps({"format": 2, "name": "a", "share": 1.0}))
    with pytest.raises(FileError, match=r"row\.json was written by a newer Tombola \(format 2") as refusal:
        as_written(path, lambda text: read_as(Row, json_of(text)), "make it again")
    assert not isinstance(refusal.value, DamagedError)


def test_a_damaged_file_is_one_sentence_with_its_path(tmp_path):
    path = tmp_path / "row.json"
    assert as_written(path, json_of, "make it again") is None
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DamagedError, match=r"row\.json is damaged \(.*\); make it again$"):
        as_written(path, json_of, "make it again")
    path.unlink()
    path.mkdir()
    with pytest.raises(FileError, match=r"cannot read .*row\.json: Is a directory; make it again"):
        as_written(path, json_of, "make it again")


@pytest.mark.parametrize(
    "text", ["\x1b]0;title\x07", "a\x00b", "\u202egnp", "\ud800", "line\nline", "\u2028", "\x9b31m", "\u200b"]
)
def test_what_controls_a_terminal_does_not_go_through(text):
    shown = printable_text(text)
    assert shown.isprintable()
    assert len(shown) == len(text)
    shown.encode()
    assert json_of(json.dumps({text: [text]})) == {shown: [shown]}


def test_what_can_be_read_stays():
    assert printable_text("Prüfung ×2 · 日本語 🎟") == "Prüfung ×2 · 日本語 🎟"


@pytest.mark.parametrize("content", [b"\xff\xfe", b'{"a": 1}\n[]\n', b'{"a": "\xe2\x80\xa8"}\n"a"'])
def test_lines_that_cannot_be_read_are_one_sentence(tmp_path, content):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"lines\.jsonl is damaged"):
        list(parsed(path, text_of(path), lambda row: row["a"]))
