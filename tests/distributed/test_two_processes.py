"""The kinds of the other files of this folder, a case of each in one start of two processes."""

from __future__ import annotations

import pytest
import torch.distributed as dist
from test_attached import different_masks, replicated_networks, sharded_networks
from test_filterwise import filterwise
from test_rounds import rounds_are_those_of_one_process
from test_scores import scores_of_copies, scores_of_parts, tickets

from processes import in_two_processes


def essentials(folder: str) -> None:
    sharded_networks(["by layer"], ["adamw"])
    replicated_networks(["bucket view"])
    different_masks()
    scores_of_copies(["magnitude", "snip"])
    scores_of_parts()
    tickets(folder, ["by layer"])
    rounds_are_those_of_one_process(["step"], ["by layer"])
    filterwise([{}])


@pytest.mark.skipif(not dist.is_gloo_available(), reason="gloo is not in this build")
def test_masks_scores_tickets_and_rounds_are_those_of_one_process(tmp_path):
    in_two_processes(essentials, tmp_path, str(tmp_path))
