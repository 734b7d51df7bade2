"""The programs of the page on several processes, as torchrun runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist

import tombola as tb

PAGE = (Path(__file__).parents[2] / "docs" / "distributed.md").read_text()
PROGRAMS = re.findall(r"```py\n(.*?)```", PAGE, flags=re.DOTALL)
ROUNDS = next(index for index, program in enumerate(PROGRAMS) if ".rounds(" in program)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build"),
]


def started(program: str, folder: Path) -> subprocess.Popen[str]:
    (folder / "train.py").write_text(program)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "train.py"]
    return subprocess.Popen(words, cwd=folder, env=os.environ, text=True, stderr=subprocess.PIPE)


@pytest.mark.parametrize("program", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_page_runs(program, tmp_path):
    process = started(program, tmp_path)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said


def test_the_killed_program_of_the_page_ends_as_the_undisturbed_one(tmp_path):
    tickets = []
    for kills in (0, 2):
        folder = tmp_path / str(kills)
        folder.mkdir()
        for kill in range(kills):
            process = started(PROGRAMS[ROUNDS], folder)
            while process.poll() is None and len([*folder.glob("checkpoints/*")]) < 2 + 5 * kill:
                time.sleep(0.01)
            process.terminate()  # torchrun ends its workers
            said = process.communicate(timeout=300)[1]
            assert not (folder / "ticket.safetensors").exists(), said
        process = started(PROGRAMS[ROUNDS], folder)
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        tickets.append((folder / "ticket.safetensors").read_bytes())
        values = [path.read_bytes() for path in sorted((folder / "checkpoints" / "03-04").glob("*.distcp"))]
        tickets.append(values)
    assert tickets[0] == tickets[2]
    assert tickets[1] == tickets[3]
    assert tb.Ticket.load(tmp_path / "0" / "ticket.safetensors").density == pytest.approx(0.2, abs=1e-3)
