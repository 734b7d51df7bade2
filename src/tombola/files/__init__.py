"""Files: written whole or not at all, held by one process, checked before they are believed."""

from tombola.files.atomic_files import (
    DAMAGED,
    append,
    check_no_link,
    remove_empty,
    set_aside,
    unwritable,
    write_atomically,
    write_once,
)
from tombola.files.json_lines import as_lines, parsed, text_of
from tombola.files.lease import InUse, Lease, LeaseLost, held
from tombola.files.reading import content_of
from tombola.files.schemas import FORMAT, NewerFormat, as_written, check_format, json_of, read_as, strict_json
from tombola.files.shown_text import printable, printable_text

__all__ = [
    "DAMAGED",
    "FORMAT",
    "InUse",
    "Lease",
    "LeaseLost",
    "NewerFormat",
    "append",
    "as_lines",
    "as_written",
    "check_format",
    "check_no_link",
    "content_of",
    "held",
    "json_of",
    "parsed",
    "printable",
    "printable_text",
    "read_as",
    "remove_empty",
    "set_aside",
    "strict_json",
    "text_of",
    "unwritable",
    "write_atomically",
    "write_once",
]
