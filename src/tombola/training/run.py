"""A run: idempotent stages in a folder of their own, and the ledger of what they cost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tombola.errors import TombolaError
from tombola.files import Lease
from tombola.scores import Forward, Inputs, Score, Scores, View, batch_size, suited
from tombola.structure import Granularity, Probe, UnitMap
from tombola.tickets import Mask, Ticket, device_of, put_values, tensors_of
from tombola.training.checkpoint import Checkpoint
from tombola.training.cost import Cost, SampleFlops, train_samples
from tombola.training.energy import Meter, Reading
from tombola.training.loop import Fit, evaluate, fit
from tombola.training.memory import peak_memory, reset_peak_memory
from tombola.training.observers import GatheredScores, Observer
from tombola.training.progress import Bars
from tombola.training.randomness import own_randomness
from tombola.training.recipe import Recipe
from tombola.training.task import Task

T = TypeVar("T")


class Run:
    """Carries out the stages of one search or training.

    A finished stage is never repeated and a killed one goes on from its checkpoint, as long as the folder is the
    same; without a folder everything stays in memory. meter: estimates the energy and carbon of each cost; those of a
    stage that was killed are its mean power since then × the seconds of the whole stage. lease: the hold on the folder,
    which is checked before a stage is written.
    """

    def __init__(
        self,
        seed: int = 0,
        folder: Path | None = None,
        device: torch.device | str = "cpu",
        bars: Bars | None = None,
        checkpoint_seconds: float = 5.0,
        meter: Meter | None = None,
        lease: Lease | None = None,
    ) -> None:
        self.seed = seed
        self.folder = folder
        self.device = torch.device(device)
        self.cost = Cost()
        self.history: list[dict[str, Any]] = []
        self.bars = bars or Bars()
        self.meter = meter
        self.lease = lease
        self._checkpoint_seconds = checkpoint_seconds
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
        """Train `model` in place as the stage `name`, or put there what that stage came to when it was done before."""
        end = self.file(f"{name}.end")
        if end is not None and (saved := end.load()) is not None:
            put_values(model, saved["values"])
            for observer, own in zip(observers, saved["observers"], strict=True):
                observer.load_state_dict(own)
            done = Fit(tuple(saved["history"]), Cost(**saved["cost"]), saved.get("together", 1))
        else:
            going = self.file(f"{name}.going")
            reset_peak_memory(self.device)
            with self.reading() as reading:
                done = fit(
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
            done = replace(done, cost=reading.price(done.cost))
            for spent in (observer.spent for observer in observers if observer.spent.flops):
                share = spent.flops / self._flops_of_dense_epoch(task, model)
                done = replace(done, cost=done.cost + replace(spent, dense_epochs=share))
            self.keep(name, model, done, observers)
            if going is not None:
                going.remove()
        self.cost += done.cost
        self.history += [{"stage": name, **row} for row in done.history]
        return done

    def keep(self, name: str, model: nn.Module, done: Fit, observers: Sequence[Observer] = ()) -> None:
        """Note the stage `name` as finished with this network, so that it is not trained again."""
        end = self.file(f"{name}.end")
        if end is not None:
            watched = [observer.state_dict() for observer in observers]
            end.save({"values": tensors_of(model), "observers": watched} | asdict(done))

    def validate(self, task: Task, model: nn.Module, recipe: Recipe) -> float | None:
        """The model's metric on the validation split, entered into the cost; None without validation samples."""
        with self.reading() as reading:
            started = time.perf_counter()
            flops = SampleFlops.measure(task, model, next(iter(task.batches("train", self.seed, 0)))).forward
            with own_randomness(self.device, self.seed):
                metric, _, samples = evaluate(task, model, "validation", recipe)
            seconds = time.perf_counter() - started
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
        """Score the model on the task's training batches, from the run's seed, and enter the cost.

        noted: what the score gathered in the stage before, where it needs training. epoch: whose order of batches.
        """

        def scored(forward: Forward) -> Scores:
            seen = View(forward=forward, seed=self.seed) | view
            return (noted or score)(model, task.batches("train", self.seed, epoch), task.loss, **seen)

        known = next((flops for own, flops in self._score_flops if own is score), None)  # a score need not be hashable
        scores, cost = self._priced(task, model, scored, known)
        self._score_flops += [(score, cost.flops)] if known is None else []
        self.cost += cost
        return scores

    def once(
        self, name: str, task: Task, model: nn.Module, work: Callable[[Forward], dict[str, Any]]
    ) -> dict[str, Any]:
        """What a piece of a search comes to that calls the network and does not train it; done once, as a stage is.

        work: calls the model by the forward that it is given, so that its cost can be entered; what it gives, tensors
        and plain values, comes back on the CPU.
        """
        end = self.file(f"{name}.end")
        if end is not None and (saved := end.load()) is not None:
            self.cost += Cost(**saved["cost"])
            return saved["done"]
        done, cost = self._priced(task, model, work)
        if end is not None:
            end.save({"done": done, "cost": asdict(cost)})
        self.cost += cost
        return done

    def _priced(
        self, task: Task, model: nn.Module, work: Callable[[Forward], T], flops: int | None = None
    ) -> tuple[T, Cost]:
        """What work on the model comes to, and its cost; its FLOPs are counted unless they are known."""
        forwarded = backward = 0

        def counting(model: nn.Module, inputs: Inputs) -> Any:
            nonlocal forwarded, backward
            samples = batch_size((inputs, None))
            forwarded, backward = forwarded + samples, backward + samples * torch.is_grad_enabled()
            return task.forward(model, inputs)

        counter = FlopCounterMode(display=False) if flops is None else nullcontext()
        reset_peak_memory(self.device)
        with self.reading() as reading:
            started = time.perf_counter()
            with own_randomness(self.device, self.seed), counter as counted:
                done = work(counting)
            seconds = time.perf_counter() - started
        flops = flops if counted is None else counted.get_total_flops()
        assert flops is not None
        dense_epochs = flops / self._flops_of_dense_epoch(task, model) if flops else 0.0
        return done, reading.price(Cost(forwarded, backward, flops, seconds, peak_memory(self.device), dense_epochs))

    def units(self, granularity: Granularity, task: Task, model: nn.Module) -> UnitMap:
        """The units of a network, found on the first training batch; what that computes, unless on meta, is entered."""
        probe, started = self.probe(task), time.perf_counter()
        forwarded = backward = flops = 0

        def counting(twin: nn.Module) -> Any:
            nonlocal forwarded, backward, flops
            if device_of(twin).type == "meta":
                return probe(twin)
            samples = batch_size(next(iter(task.batches("train", self.seed, 0))))
            forwarded, backward = forwarded + samples, backward + samples * torch.is_grad_enabled()
            with FlopCounterMode(display=False) as counted:
                outputs = probe(twin)
            flops += counted.get_total_flops()
            return outputs

        units = granularity.units(model, counting)
        if forwarded:
            seconds, dense_epochs = time.perf_counter() - started, flops / self._flops_of_dense_epoch(task, model)
            self.cost += Cost(forwarded, backward, flops, seconds, peak_memory(self.device), dense_epochs)
        return units

    def probe(self, task: Task) -> Probe:
        """Calls a model on the first training batch, wherever the model is and in its precision."""
        inputs, _ = next(iter(task.batches("train", self.seed, 0)))
        return lambda model: task.forward(model, suited(inputs, model))

    def _flops_of_dense_epoch(self, task: Task, model: nn.Module) -> float:
        if self._dense_epoch is None:
            with own_randomness(self.device, self.seed):
                batches = task.batches("train", self.seed, 0)
                sample = SampleFlops.measure(task, model, next(iter(batches))).training
                self._dense_epoch = sample * train_samples(batches)
        return self._dense_epoch

    def reading(self) -> AbstractContextManager[Reading]:
        """Read the meter, if there is one."""
        return nullcontext(Reading()) if self.meter is None else self.meter.reading()

    def part(self, name: str, seed: int) -> Run:
        """A run for a part of this one's work, with a folder of its own among the stages and a ledger of its own."""
        folder = None if self.folder is None else self.folder / "stages" / name
        return Run(seed, folder, self.device, self.bars, self._checkpoint_seconds, self.meter, self.lease)

    def clear(self) -> None:
        """Remove the stages' files, once what they were for is safe elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder / "stages", ignore_errors=True)

    def file(self, name: str) -> Checkpoint | None:
        """Where a stage keeps something; None without a folder."""
        if self.folder is None:
            return None
        return Checkpoint(self.folder / "stages" / f"{name}.pt", self._checkpoint_seconds, self.lease)


def seed_of(seed: int | None, run: Run | None) -> int:
    """The one seed of all that is asked for: the one given or else the run's, 0 if neither is there.

    TombolaError where both are and differ.
    """
    if run is None:
        return seed or 0
    if seed is not None and seed != run.seed:
        raise TombolaError(f"seed is {seed}, but the run has the seed {run.seed}; leave seed out, or give Run({seed})")
    return run.seed
