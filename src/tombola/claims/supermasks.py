"""The claims about tickets found by training scores: Gem-Miner, edge-popup and their kin."""

from __future__ import annotations

from tombola.claims.claim import Claim, ClaimArm, Protocol, before_training
from tombola.claims.first import BENCH, CIFAR, FULL, trained
from tombola.claims.outcome import Expectation
from tombola.methods import Iterative, method
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


def protocols(task: TaskOptions, full: TaskOptions, arms: dict[str, ClaimArm], minutes: str) -> dict:
    """Three seeds on the bench, two of one epoch for a look, five at the paper's size."""
    return {
        "quick": Protocol(trained(task, 1), arms, 2, "3"),
        "standard": Protocol(task, arms, 3, minutes),
        "full": Protocol(full, arms, 5, FULL),
    }


def ladder_arms(density: float) -> dict[str, ClaimArm]:
    own = {name: method(name, density=density) for name in LADDER}
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
    protocols=protocols(BENCH, CIFAR, ladder_arms(0.0059), "45"),
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


def accuracy_arms(density: float) -> dict[str, ClaimArm]:
    arms = {name: ClaimArm(method(name, density=density)) for name in ("gem-miner", "smart-ratio", "snip", "synflow")}
    arms["edge-popup"] = ClaimArm(method("edge-popup", density=density))
    arms["warm imp"] = ClaimArm(Iterative(density=density, share=0.38, rewind="1ep"))
    return arms | {"dense": ClaimArm(None)}


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
    protocols=protocols(BENCH, CIFAR, accuracy_arms(0.014), "60"),
    expected=BETTER,
)

ACCURACY_CONV4 = Claim(
    id="rare-gems-conv4",
    title="Gem-Miner against warm IMP and others, on a network without batch norm",
    statement=ACCURACY_STATEMENT,
    source=f"{RARE_GEMS}, figure 3 (other networks there)",
    differs=f"Conv-4 for the paper's networks. {IMP_DIFFERS}",
    protocols=protocols(CONV4, CONV4, accuracy_arms(0.014), "60"),
    expected=BETTER,
)


def sanity_arms(density: float, lrs: tuple[float | None, ...]) -> dict[str, ClaimArm]:
    own = method("gem-miner", density=density)
    named = {"gem-miner": "", "shuffled": "shuffle", "fresh-init": "fresh-init"}
    arms = {name: ClaimArm(own, control) for name, control in named.items()}
    return arms | {f"{name}, tuned": ClaimArm(own, control, lrs=lrs) for name, control in named.items()}


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
    protocols=protocols(BENCH, CIFAR, sanity_arms(0.014, (None, 0.03, 0.3)), "45"),
    expected=tuple(
        Expectation(f"gem-miner{tuned}", ">", f"{control}{tuned}")
        for tuned in ("", ", tuned")
        for control in ("shuffled", "fresh-init")
    ),
)


def shape_arms(density: float) -> dict[str, ClaimArm]:
    own = method("gem-miner", density=density)
    measured = {
        "before training": before_training,
        "chance": chance,
        "density of the first layer": kept_of("conv1."),
        "density of the last layer": kept_of("fc."),
        "density": kept_of(),
        "density of the last stage": kept_of("layer3."),
    }
    return {name: ClaimArm(own, measured=what) for name, what in measured.items()}


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
    protocols=protocols(BENCH, CIFAR, shape_arms(0.014), "10"),
    expected=(
        Expectation("before training", ">", "chance"),
        Expectation("density of the first layer", ">", "density"),
        Expectation("density of the last layer", ">", "density"),
        Expectation("density", ">", "density of the last stage"),
    ),
)


def others_arms(density: float) -> dict[str, ClaimArm]:
    names = ("gem-miner", "concrete-ticket-search", "continuous-sparsification")
    arms = {name: ClaimArm(method(name, density=density)) for name in names}
    return arms | {"warm imp": accuracy_arms(density)["warm imp"]}


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
    protocols=protocols(BENCH, CIFAR, others_arms(0.014), "60"),
    expected=(
        Expectation("concrete-ticket-search", ">", "warm imp"),
        Expectation("continuous-sparsification", "≥", "warm imp"),
    ),
)

SUPERMASKS = (LADDER_CLAIM, ACCURACY, ACCURACY_CONV4, SANITY, SHAPE, OTHERS)
