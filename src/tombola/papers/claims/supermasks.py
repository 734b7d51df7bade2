"""The claims about tickets found by training scores: Gem-Miner, edge-popup and their kin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tombola.methods import ContinuousSparsification, GemMiner, Iterative, method, rare_gems
from tombola.papers.claims.claim import Claim, ClaimArm, Protocol, before_training
from tombola.papers.claims.first import BENCH, CIFAR, FULL, trained
from tombola.papers.claims.outcome import Expectation
from tombola.studies import Result, TaskOptions

RARE_GEMS = "Sreenivasan et al., Rare Gems: Finding Lottery Tickets at Initialization, NeurIPS 2022"
DIFFERS = (
    "Fashion-MNIST at 14×14 with 20,000 images for CIFAR-10; 10 epochs (1,410 steps) for 150 (58,650), the scores' "
    "learning rate as much higher; norms and biases held in the searched networks and the network's own in the others."
)
LADDER = ("edge-popup", "edge-popup-global", "edge-popup-gradual", "edge-popup-regularised", "gem-miner")
CONV4 = TaskOptions(data="fashion-mnist-14", model="conv4", recipe=BENCH.recipe)


def chance(result: Result) -> float:
    """Guessing among ten classes."""
    return 0.1


def kept_of(*layers: str):
    """The share of weights that a ticket keeps in the layers whose names begin so; of all layers if none is named."""

    def kept(result: Result) -> float:
        own = [count for name, count in result.layers.items() if name.startswith(layers or "")]
        return sum(kept for kept, _ in own) / sum(size for _, size in own)

    return kept


Arms = dict[str, ClaimArm]


@dataclass(frozen=True)
class Size:
    """What the arms of a claim take from the size of its protocol: see `protocols`."""

    density: float
    share: float = 0.38
    rewind: str = "1ep"
    published: GemMiner | None = None

    @property
    def gem(self) -> GemMiner:
        return self.published or GemMiner(self.density)

    @property
    def warm_imp(self) -> ClaimArm:
        return ClaimArm(Iterative(density=self.density, share=self.share, rewind=self.rewind))


def protocols(task: TaskOptions, arms: Callable[[Size], Arms], minutes: str, density: float = 0.014) -> dict:
    """Three seeds on the bench; two of one epoch for a look; five as the paper did it, with its own settings."""
    published = replace(rare_gems("resnet20", 0.0059 if density < 0.01 else 0.0144)[0], finetune_lr=0.01)
    full = Size(published.density, 0.2, "1000it", published)
    return {
        "quick": Protocol(trained(task, 1), arms(Size(density, rewind="40it")), 2, "3"),
        "standard": Protocol(task, arms(Size(density)), 3, minutes),
        "full": Protocol(replace(CIFAR, model=task.model), arms(full), 5, FULL),
    }


def ladder_arms(size: Size) -> Arms:
    own = {name: method(name, density=size.density) for name in LADDER[:-1]} | {LADDER[-1]: size.gem}
    before = {f"{name}, untrained": ClaimArm(own[name], measured=before_training) for name in LADDER}
    return before | {name: ClaimArm(own[name]) for name in LADDER}


LADDER_CLAIM = Claim(
    id="rare-gems-ladder",
    title="From edge-popup to Gem-Miner, rung by rung",
    statement=(
        "Ranking globally, letting the density fall, penalising the scores, and rounding with freezing (Gem-Miner) "
        "each make edge-popup's tickets better at 0.59 % density, before and after fine-tuning (the penalty after "
        "it only)."
    ),
    source=f"{RARE_GEMS}, table 3",
    differs=DIFFERS,
    protocols=protocols(BENCH, ladder_arms, "45", 0.0059),
    expected=(
        Expectation("edge-popup-global", ">", "edge-popup"),
        Expectation("edge-popup-gradual", ">", "edge-popup-global"),
        Expectation("edge-popup-regularised", "≥", "edge-popup-gradual"),
        Expectation("gem-miner", ">", "edge-popup-regularised"),
        Expectation("edge-popup-global, untrained", ">", "edge-popup, untrained"),
        Expectation("edge-popup-gradual, untrained", ">", "edge-popup-global, untrained"),
        Expectation("gem-miner, untrained", ">", "edge-popup-gradual, untrained"),
    ),
)


def accuracy_arms(size: Size) -> Arms:
    rivals = {
        name: ClaimArm(method(name, density=size.density)) for name in ("smart-ratio", "snip", "synflow", "edge-popup")
    }
    return {"gem-miner": ClaimArm(size.gem), **rivals, "warm imp": size.warm_imp, "dense": ClaimArm(None)}


BETTER = (
    Expectation("gem-miner", "≥", "warm imp"),
    *(Expectation("gem-miner", ">", rival) for rival in ("smart-ratio", "snip", "synflow", "edge-popup")),
)
ACCURACY_STATEMENT = (
    "At 1.4 % density and below, Gem-Miner's tickets train to at least the accuracy of iterative magnitude pruning "
    "with rewinding to an early step, and to more than smart-ratio, SNIP, SynFlow and edge-popup tickets."
)
IMP_DIFFERS = f"{DIFFERS} Iterative pruning removes 38 % a round, in 9 rounds of 10 epochs, for 20 % in 19."

ACCURACY = Claim(
    id="rare-gems",
    title="Gem-Miner's tickets are no worse than warm IMP's, and better than others found at initialisation",
    statement=ACCURACY_STATEMENT,
    source=f"{RARE_GEMS}, table 4 and figure 3",
    differs=IMP_DIFFERS,
    protocols=protocols(BENCH, accuracy_arms, "60"),
    expected=BETTER,
)

ACCURACY_CONV4 = Claim(
    id="rare-gems-conv4",
    title="Gem-Miner against warm IMP and others, on a network without batch norm",
    statement=ACCURACY_STATEMENT,
    source=f"{RARE_GEMS}, figure 3 (other networks there)",
    differs=f"Conv-4 for the paper's networks. {IMP_DIFFERS}",
    protocols=protocols(CONV4, accuracy_arms, "60"),
    expected=BETTER,
)


def sanity_arms(size: Size) -> Arms:
    named = {"gem-miner": "", "shuffled": "shuffle", "fresh-init": "fresh-init"}
    arms = {name: ClaimArm(size.gem, control) for name, control in named.items()}
    rates = (None, 0.03, 0.3)
    return arms | {f"{name}, tuned": ClaimArm(size.gem, control, lrs=rates) for name, control in named.items()}


SANITY = Claim(
    id="rare-gems-sanity",
    title="Shuffling or re-initialising a Gem-Miner ticket costs accuracy, also with its own learning rate",
    statement=(
        "Gem-Miner passes the sanity checks: its tickets lose several points when their mask is shuffled within the "
        "layers, or their weights are drawn anew. (The paper trains the controls at the ticket's learning rate; here "
        "they get their own as well.)"
    ),
    source=f"{RARE_GEMS}, tables 1 and 2",
    differs=f"{DIFFERS} Weights are drawn anew from the same distribution (the public code draws from another).",
    protocols=protocols(BENCH, sanity_arms, "45"),
    expected=tuple(
        Expectation(f"gem-miner{tuned}", ">", f"{control}{tuned}")
        for tuned in ("", ", tuned")
        for control in ("shuffled", "fresh-init")
    ),
)


def shape_arms(size: Size) -> Arms:
    measured = {
        "before training": before_training,
        "chance": chance,
        "density of the first layer": kept_of("conv1."),
        "density of the last layer": kept_of("fc."),
        "density": kept_of(),
        "density of the last stage": kept_of("layer3."),
    }
    return {name: ClaimArm(size.gem, measured=what) for name, what in measured.items()}


SHAPE = Claim(
    id="rare-gems-shape",
    title="Gem-Miner's tickets know something before training, and are dense where they begin and end",
    statement=(
        "Before any training of its weights a Gem-Miner ticket is far better than chance; its first and last layers "
        "are dense and its deep layers nearly empty (ResNet-20 at 1.44 %: 34.5 % of the first layer, 25.9 % of the "
        "last, 0.3 to 0.7 % of the last stage)."
    ),
    source=f"{RARE_GEMS}, figures 6 and 7",
    differs=DIFFERS,
    protocols=protocols(BENCH, shape_arms, "10"),
    expected=(
        Expectation("before training", ">", "chance"),
        Expectation("density of the first layer", ">", "density"),
        Expectation("density of the last layer", ">", "density"),
        Expectation("density", ">", "density of the last stage"),
    ),
)


def others_arms(size: Size) -> Arms:
    soft = ContinuousSparsification(size.density, rewind=size.rewind)
    others = {"concrete-ticket-search": method("concrete-ticket-search", density=size.density)}
    arms = {name: ClaimArm(own) for name, own in (others | {"continuous-sparsification": soft}).items()}
    return {"gem-miner": ClaimArm(size.gem), **arms, "warm imp": size.warm_imp}


OTHERS = Claim(
    id="concrete-continuous",
    title="Concrete Ticket Search and Continuous Sparsification beside Gem-Miner and IMP",
    statement=(
        "Concrete Ticket Search finds better tickets at high sparsity than iterative pruning with rewinding, in a "
        "twelfth of its time (74.0 % in 7.9 minutes against 68.3 % in 95.2 at 0.7 % density); Continuous "
        "Sparsification finds tickets that are no worse than those of iterative pruning."
    ),
    source="Concrete Ticket Search, arXiv 2512.07142, abstract; Savarese, Silva, Maire, NeurIPS 2020",
    differs=f"{IMP_DIFFERS} Continuous Sparsification's tickets are cut to the density by their scores.",
    protocols=protocols(BENCH, others_arms, "60"),
    expected=(
        Expectation("concrete-ticket-search", ">", "warm imp"),
        Expectation("continuous-sparsification", "≥", "warm imp"),
    ),
)

SUPERMASKS = (LADDER_CLAIM, ACCURACY, ACCURACY_CONV4, SANITY, SHAPE, OTHERS)
