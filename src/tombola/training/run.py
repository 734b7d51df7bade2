"""A run: idempotent stages in a folder of their own, and the ledger of what they cost."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from torch import nn

from tombola.errors import TombolaError
from tombola.files import Lease, check_no_link, content_of, write_atomically
from tombola.scores import Forward, Inputs, Score, Scores, View, batch_size, check_takes, suited
from tombola.shrinking import flop_counter, ready_to_count
from tombola.structure import Granularity, Probe, UnitMap
from tombola.tickets import Mask, Ticket, device_of, put_values, tensors_of
from tombola.training.attacked_batches import attacked_batches
from tombola.training.checkpoint import Checkpoint, remove_stages
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.devices import chosen_device, now
from tombola.training.energy import Meter, Reading
from tombola.training.evaluation import evaluate
from tombola.training.loaders import first_of
from tombola.training.loop import Fit, fit
from tombola.training.memory import peak_memory, reset_peak_memory
from tombola.training.observers import GatheredScores, Observer
from tombola.training.placement import bring_along
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.task import Task

T = TypeVar("T")


class Run:
    """Carries out the stages of one search or training, and adds up what they cost.

    A finished stage is never repeated and a killed one goes on from its checkpoint, as long as the folder is the same.

    Args:
        seed: of the order of the data and of all that is random.
        folder: where stages are kept; None keeps everything in memory.
        device: where networks are trained; `auto` is CUDA if there is one, else the CPU.
        bars: show the progress, if they are given.
        checkpoint_seconds: least time between two checkpoints of a stage.
        meter: estimates the energy and carbon of each cost. For a stage that was killed it multiplies the mean power
            since then by the seconds of the whole stage.
        lease: the hold on the folder, which is checked before a stage is written; None if no other process can come.

    Examples:
        >>> from tombola.testing import toy_task
        >>> task, run = toy_task(epochs=2), Run(seed=0)
        >>> fitted = run.stage("train", task, task.build(seed=0))
        >>> run.cost.dense_epochs, [row["stage"] for row in run.history]
        (2.0, ['train', 'train'])
    """

    def __init__(
        self,
        seed: int = 0,
        folder: Path | None = None,
        device: torch.device | str = "auto",
        bars: Bars | None = None,
        checkpoint_seconds: float = 5.0,
        meter: Meter | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.seed = seed
        self.folder = folder
        self.device = chosen_device(device)
        self.cost = Cost()
        self.history: list[dict[str, Any]] = []
        self.bars = bars or Bars()
        self.meter = meter
        self.lease = lease
        self.checkpoint_seconds = checkpoint_seconds
        self._score_flops: list[tuple[Score, int]] = []
        self._dense_epoch: float | None = None

    def stage(
        self,
        name: str,
        task: Task,
        model: nn.Module,
        *,
        recipe: Recipe | None = None,
        attached: Mask | Ticket | None = None,
        observers: Sequence[Observer] = (),
    ) -> Fit:
        """Train `model` in place as a stage, or give it the values of that stage if it was finished before.

        Args:
            name: of the stage, once a run.
            task: gives batches, forward pass, loss and metric.
            model: the network, on the run's device.
            recipe: how it trains; the task's if None.
            attached: a mask or ticket whose dead weights stay dead.
            observers: look on; those of a finished stage get their state back.

        Returns:
            The stage's history and cost, which the run's ledger has too.

        Raises:
            Diverged: if the loss stops being finite.
        """
        end = self.file(f"{name}.end")
        if end is not None and (saved := end.load()) is not None:
            with end.fitting():
                put_values(model, saved["values"])
                for observer, observed in zip(observers, saved["observers"], strict=True):
                    observer.load_state_dict(observed)
                # Older files do not say how many networks trained together.
                result = Fit(tuple(saved["history"]), Cost(**saved["cost"]), saved.get("together", 1))
        else:
            going = self.file(f"{name}.going")
            reset_peak_memory(self.device)
            with self.reading() as reading:
                result = fit(
                    task,
                    model,
                    recipe or task.recipe,
                    seed=self.seed,
                    attached=attached,
                    observers=observers,
                    checkpoint=going,
                    bars=self.bars,
                    name=name,
                )
            result = replace(result, cost=reading.price(result.cost))
            for observer in (observer for observer in observers if observer.spent.flops):
                spent = observer.spent
                share = 0.0 if observer.is_measuring else spent.flops / self._flops_of_dense_epoch(task, model)
                result = replace(result, cost=result.cost + replace(spent, dense_epochs=share))
            self.keep(name, model, result, observers)
            if going is not None:  # only now: a kill in between finds the end, or the checkpoint, or both
                going.remove()
        self.cost += result.cost
        self.history += [{"stage": name, **row} for row in result.history]
        return result

    def keep(self, name: str, model: nn.Module, done: Fit, observers: Sequence[Observer] = ()) -> None:
        """Note a stage as finished, so that it is not trained again; without a folder this does nothing.

        Args:
            name: of the stage.
            model: the network at its end.
            done: its history and cost.
            observers: those that looked on.
        """
        end = self.file(f"{name}.end")
        if end is not None:
            observed = [observer.state_dict() for observer in observers]
            end.save({"values": tensors_of(model), "observers": observed} | asdict(done))

    def validate(self, task: Task, model: nn.Module, recipe: Recipe) -> float | None:
        """Measure a model on the validation split, and add that to the cost.

        Args:
            task: gives batches, forward pass and metric.
            model: the network, on the run's device.
            recipe: gives precision and memory layout.

        Returns:
            The metric; None without validation samples.
        """
        with self.reading() as reading:
            started = now(self.device)
            flops = SampleFlops.measure(task, model, first_of(task.batches("train", self.seed, 0))).forward
            with own_randomness(self.device, self.seed):
                metric, _, samples = evaluate(task, model, "validation", recipe)
            seconds = now(self.device) - started
        self.cost += reading.price(Cost(samples, 0, round(samples * flops), seconds))
        return metric if samples else None

    def score(
        self,
        score: Score,
        task: Task,
        model: nn.Module,
        noted: GatheredScores | None = None,
        *,
        epoch: int = 0,
        **view: Unpack[View],
    ) -> Scores:
        """Score a model on the task's training batches, and add that to the cost.

        Args:
            score: the score.
            task: gives batches, forward pass and loss.
            model: the network, on the run's device; it stays as it is.
            noted: what the score gathered in the stage before, for a score that needs training.
            epoch: whose order of batches.
            **view: how the score sees the model, as its mask; by default with the task's forward pass and the run's
                seed.

        Returns:
            The scores by parameter name.
        """

        def work(forward: Forward) -> Scores:
            options = View(forward=forward, seed=self.seed) | view
            check_takes(noted or score, options)
            batches = task.batches("train", self.seed, epoch)
            batches = attacked_batches(task, model, batches, options.get("mask"), forward)
            return (noted or score)(model, batches, task.loss, **options)

        # Counting is slow, so a score is counted once. A list and not a dictionary: a score need not be hashable.
        flops = next((flops for counted, flops in self._score_flops if counted is score), None)
        scores, cost = self._priced(task, model, work, flops)
        self._score_flops += [(score, cost.flops)] if flops is None else []
        self.cost += cost
        return scores

    def once(
        self, name: str, task: Task, model: nn.Module, work: Callable[[Forward], dict[str, Any]]
    ) -> dict[str, Any]:
        """Do a piece of a search that calls the network without training it; once, like a stage.

        Args:
            name: of the piece, once a run.
            task: gives the forward pass.
            model: the network, on the run's device.
            work: does it. It calls the model by the forward pass that it gets, which counts what that costs, and
                returns tensors and plain values.

        Returns:
            What `work` returns; its tensors are on the CPU if the piece was done before.
        """
        end = self.file(f"{name}.end")
        if end is not None and (saved := end.load()) is not None:
            with end.fitting():
                done, cost = saved["done"], Cost(**saved["cost"])
            self.cost += cost
            return done
        result, cost = self._priced(task, model, work)
        if end is not None:
            end.save({"done": result, "cost": asdict(cost)})
        self.cost += cost
        return result

    def _priced(
        self, task: Task, model: nn.Module, work: Callable[[Forward], T], flops: int | None = None
    ) -> tuple[T, Cost]:
        """The result of work on the model, and its cost; its FLOPs are counted if they are not given."""
        forward = backward = 0

        def counted_forward(model: nn.Module, inputs: Inputs) -> Any:
            nonlocal forward, backward
            samples = batch_size((inputs, None))
            # Whoever lets gradients be tracked goes backward too.
            forward, backward = forward + samples, backward + samples * torch.is_grad_enabled()
            return task.forward(model, inputs)

        counter = flop_counter() if flops is None else nullcontext()
        bring_along(task, device_of(model))
        reset_peak_memory(self.device)
        with self.reading() as reading:
            started = now(self.device)
            with own_randomness(self.device, self.seed), counter as counted:
                result = work(counted_forward)
            seconds = now(self.device) - started
        flops = flops if counted is None else counted.get_total_flops()
        assert flops is not None
        dense_epochs = flops / self._flops_of_dense_epoch(task, model) if flops else 0.0
        return result, reading.price(Cost(forward, backward, flops, seconds, peak_memory(self.device), dense_epochs))

    def units(self, granularity: Granularity, task: Task, model: nn.Module) -> UnitMap:
        """Find the units of a network on the first training batch, and add what that computes to the cost.

        Args:
            granularity: what is removed together.
            task: gives the batch and the forward pass.
            model: the network.
        """
        ready_to_count()
        probe, started = self.probe(task), now(self.device)
        forward = backward = flops = 0

        def counted_probe(twin: nn.Module) -> Any:
            nonlocal forward, backward, flops
            if device_of(twin).type == "meta":  # shapes alone, which cost nothing
                return probe(twin)
            samples = batch_size(first_of(task.batches("train", self.seed, 0)))
            forward, backward = forward + samples, backward + samples * torch.is_grad_enabled()
            with flop_counter() as counted:
                outputs = probe(twin)
            flops += counted.get_total_flops()
            return outputs

        units = granularity.units(model, counted_probe)
        if forward:
            seconds, dense_epochs = now(self.device) - started, flops / self._flops_of_dense_epoch(task, model)
            self.cost += Cost(forward, backward, flops, seconds, peak_memory(self.device), dense_epochs)
        return units

    def probe(self, task: Task) -> Probe:
        """What calls a model on the first training batch, on the model's device and in its precision."""
        inputs, _ = first_of(task.batches("train", self.seed, 0))
        return lambda model: task.forward(model, suited(inputs, model))

    def _flops_of_dense_epoch(self, task: Task, model: nn.Module) -> float:
        if self._dense_epoch is None:
            with own_randomness(self.device, self.seed):
                batches = task.batches("train", self.seed, 0)
                sample = SampleFlops.measure(task, model, first_of(batches)).training
                self._dense_epoch = sample * train_samples(batches)
        return self._dense_epoch

    def reading(self) -> AbstractContextManager[Reading]:
        """Read the meter while a block runs; without a meter the reading stays at zero."""
        return nullcontext(Reading()) if self.meter is None else self.meter.reading()

    def part(self, name: str, seed: int) -> Run:
        """A run for a part of this one's work: it has its own ledger, and its own folder among the stages.

        Args:
            name: of the part's folder.
            seed: the part's.
        """
        folder = None if self.folder is None else self.folder / "stages" / name
        if folder is not None:
            check_no_link(folder.parent)
            check_no_link(folder)
        return Run(seed, folder, self.device, self.bars, self.checkpoint_seconds, self.meter, self.lease)

    def clear(self) -> None:
        """Remove the stages' files, once their result is safe elsewhere."""
        if self.folder is not None:
            remove_stages(self.folder / "stages")

    def give(self, name: str, path: Path) -> None:
        """Move what a finished stage has kept to another place.

        Args:
            name: of the stage.
            path: where to.
        """
        end = self.file(f"{name}.end")
        if end is not None:
            os.replace(end.path, path)

    def take(self, name: str, path: Path) -> None:
        """Take what another run has kept of a stage, so that it is not done again; nothing if there is no such file.

        Args:
            name: of the stage.
            path: where `give` has put it.
        """
        end = self.file(f"{name}.end")
        if end is not None and path.is_file() and not end.path.exists():
            write_atomically(end.path, content_of(path))

    def file(self, name: str) -> Checkpoint | None:
        """The file in which a stage keeps something; None without a folder."""
        if self.folder is None:
            return None
        stages = self.folder / "stages"
        check_no_link(stages)
        return Checkpoint(stages / f"{name}.pt", self.checkpoint_seconds, self.lease)


def seed_of(seed: int | None, run: Run | None) -> int:
    """The seed to use: the one given, else the run's, else 0.

    Args:
        seed: what was asked for, if anything.
        run: the run, if there is one.

    Raises:
        TombolaError: if both are given and differ.

    Examples:
        >>> seed_of(3, None), seed_of(None, Run(seed=5)), seed_of(None, None)
        (3, 5, 0)
    """
    if run is None:
        return seed or 0
    if seed is not None and seed != run.seed:
        raise TombolaError(f"seed is {seed}, but the run has the seed {run.seed}; leave seed out, or give Run({seed})")
    return run.seed
