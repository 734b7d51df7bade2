"""How a network of the zoo is built again by its name, for the file of a smaller one."""

from __future__ import annotations

from typing import Any

from tombola.registry import MODELS
from tombola.shrinking import Origin
from tombola.studies.task_options import TaskOptions
from tombola.studies.tasks import sizes_of


def zoo_origin(options: TaskOptions, task: Any) -> Origin | None:
    """The origin of a task's network; None if it is no network of the zoo, or one of transformers.

    Args:
        options: name the network and its width.
        task: what `make_task` made of them.
    """
    entry = MODELS.own.get(options.model)
    if entry is None or entry.where.startswith("tombola.zoo.minilm"):
        return None
    shape, classes = sizes_of(task.data)
    return Origin("tombola", options.model, {"input_shape": shape, "classes": classes, "width": options.width})
