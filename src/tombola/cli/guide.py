"""What each command's help says beside its options: what it works on, and examples."""

from __future__ import annotations

METHOD = "a name from `tombola methods` or of a score (`tombola methods scores`), or your own as module:name"
TICKET = "the folder or file that `tombola find` wrote"

ARGUMENTS: dict[str, dict[str, str]] = {
    "find": {"METHOD": METHOD},
    "check": {"TICKET": f"{TICKET}: does this ticket win?", "METHOD": f"{METHOD}: does the method win?"},
    "stability": {"METHOD": METHOD, "TICKET": TICKET, "dense": "the whole network"},
    "transfer": {"TICKET": TICKET},
    "train": {"TICKET": TICKET, "METHOD": METHOD, "dense": "the whole network"},
    "shrink": {"TICKET": TICKET},
    "compare": {"METHOD…": f"one or more, separated by spaces, each {METHOD}"},
    "sanity": {"METHOD…": f"one or more, separated by spaces, each {METHOD}"},
    "robustness": {"TICKET": TICKET, "METHOD…": f"one or more, separated by spaces, each {METHOD}"},
    "sparsest": {"METHOD": f"{METHOD}; without one, the search for the sparsest network of a spiral"},
    "claims": {"ID…": "one or more, separated by spaces, or `all`; without one, the list of claims"},
}
"""What a command works on, by how its usage names it; of the others tyro's help says it."""

EXAMPLES: dict[str, dict[str, str]] = {
    "demo": {
        "tombola demo": "two to three minutes on two cores",
        "tombola demo --data fashion-mnist": "70,000 images of clothes, in less than fifteen minutes",
        "tombola demo --until-decided": "more seeds, for what is undecided",
    },
    "methods": {
        "tombola methods": "how tickets are searched",
        "tombola methods controls": "what a ticket must beat",
    },
    "find": {
        "tombola find imp --density 0.05 --out runs/imp": "a ticket that keeps 5 % of the weights",
        "tombola find snip --density 0.1 --data mine:data --model mine:Net": "of your own network, in mine.py",
        "tombola find imp --help": "all settings of imp",
    },
    "check": {
        "tombola check runs/imp": "does this ticket win?",
        "tombola check snip --density 0.1 --seeds 5": "does the method win? it searches anew for each seed",
        "tombola check imp --density 0.2 --until-decided --budget 20m": "as many seeds as it takes",
    },
    "stability": {
        "tombola stability imp --at 0it 1ep": "from the initialisation, and after an epoch",
        "tombola stability dense --earliest": "from where on it is stable",
    },
    "transfer": {"tombola transfer runs/imp": "the ticket's mask on another initialisation"},
    "train": {
        "tombola train dense": "the whole network, once",
        "tombola train runs/imp --seed 3": "the ticket, with another order of the data",
    },
    "shrink": {"tombola shrink runs/channels --out small": "train it, and write the smaller network"},
    "push": {"tombola push small ann/resnet20-half --license apache-2.0": "with a page of its origin"},
    "pull": {"tombola pull ann/resnet20-half --out resnet20-half": "fetch and check it"},
    "smaller": {
        "tombola smaller --model mine:Net --checkpoint trained.pt --data mine:data --flops 0.5 --out small": (
            "at most half of the FLOPs, trained on, checked and exported"
        ),
    },
    "sensitivity": {
        "tombola sensitivity --model mine:Net --checkpoint trained.pt --data mine:data": "which layers can lose some?"
    },
    "compare": {
        "tombola compare imp snip random --densities 0.2 0.05 --seeds 5": "three methods at two sizes",
        "tombola compare mine:my_score snip": "your own score beside another",
    },
    "sanity": {"tombola sanity snip synflow --densities 0.05": "do they use their data, labels and weights?"},
    "robustness": {"tombola robustness snip --densities 0.2": "attacked, corrupted and foreign images"},
    "sparsest": {"tombola sparsest imp --tolerance 0.5": "how few weights will do?"},
    "report": {
        "tombola report runs/demo": "the page again",
        "tombola report runs/demo --paper paper": "tables, figures, a paragraph and references for LaTeX",
    },
    "study": {"tombola study grid.toml --workers 2": "a grid of runs from a file"},
    "work": {"tombola work runs/grid": "one more worker of a study"},
    "results": {
        'tombola results runs/demo --where "density<=0.1" --sort metric': "what ran",
        "tombola results runs/demo --csv runs.csv": "all of it, for other programs",
    },
    "clean": {"tombola clean runs/demo": "what killed runs have left"},
    "claims": {
        "tombola claims": "the list",
        "tombola claims lottery-ticket --quick": "one of them, in three minutes",
    },
    "enough": {"tombola enough --data digits": "how long to train before a greedy search"},
}
"""Lines that can be typed as they are, each with what it does."""


def guide(command: str) -> str:
    """What a command works on, and examples of it, as lines.

    Args:
        command: its name.

    Examples:
        >>> print(guide("transfer"))
        Arguments:
          TICKET  the folder or file that `tombola find` wrote
        <BLANKLINE>
        For example:
          tombola transfer runs/imp
              the ticket's mask on another initialisation
    """
    parts = []
    if arguments := ARGUMENTS.get(command):
        width = max(map(len, arguments))
        parts.append("\n".join(["Arguments:", *(f"  {name:<{width}}  {what}" for name, what in arguments.items())]))
    if examples := EXAMPLES.get(command):
        parts.append("\n".join(["For example:", *(f"  {line}\n      {what}" for line, what in examples.items())]))
    return "\n\n".join(parts)
