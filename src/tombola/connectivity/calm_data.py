"""Training samples without augmentation, on which networks are compared."""

from __future__ import annotations

from dataclasses import replace

from tombola.scores import Batch, batch_size
from tombola.training import Task, pairs_of, with_recipe

SAMPLES = 2000
"""From so many training samples batch norms' statistics are taken, and units' activations."""


def without_augmentation(task: Task) -> Task:
    """The task whose training batches are the images as they are."""
    return with_recipe(task, replace(task.recipe, augment=()))


def first_samples(task: Task) -> list[Batch]:
    """Batches of the first pass over the training data, without augmentation, until there are enough samples."""
    batches, samples = [], 0
    for batch in pairs_of(without_augmentation(task).batches("train", 0, 0)):
        batches.append(batch)
        samples += batch_size(batch)
        if samples >= SAMPLES:
            break
    return batches
