"""Methods by the names of their papers."""

from __future__ import annotations

from tombola.methods.concrete import ConcreteTicketSearch
from tombola.methods.continuous import ContinuousSparsification
from tombola.methods.early_bird import EarlyBird, Slimming, Worm
from tombola.methods.gradual import Gradual
from tombola.methods.greedy_presets import GREEDY_PRESETS
from tombola.methods.iterative import Iterative
from tombola.methods.one_shot import OneShot
from tombola.methods.preset import Preset
from tombola.methods.rigl import RigL
from tombola.methods.supermask import EdgePopup, GemMiner
from tombola.scores import (
    FeatureSimilarity,
    FrontToBack,
    Grasp,
    GraspFirstOrder,
    Magnitude,
    Movement,
    OutputDivergence,
    ProsPr,
    Random,
    RandomBlocks,
    Snip,
    SquaredGradient,
    SynFlow,
    WeightGradient,
)
from tombola.structure import Blocks, Filters, QueryKey

GEM_MINER = "Sreenivasan et al., NeurIPS 2022"

METHODS: dict[str, Preset] = {
    "imp": Preset(
        Iterative(),
        "Frankle & Carbin, ICLR 2019",
        "train, remove the smallest 20 % of weights, rewind to the initialisation, again",
        "one full training a round",
    ),
    "imp-warm": Preset(
        Iterative(rewind="1ep"),
        "Frankle et al., ICML 2020",
        "as imp, rewinding to an early step of training instead of the initialisation",
        "one full training a round",
    ),
    "lrr": Preset(
        Iterative(rewind="learning-rate"),
        "Renda, Frankle, Carbin, ICLR 2020",
        "as imp, keeping the trained weights and rewinding only the learning rate",
        "one full training a round",
    ),
    "gradual": Preset(
        Gradual(),
        "Zhu & Gupta, 2017",
        "train, removing the smallest weights little by little meanwhile",
        "one full training, which is the ticket's own",
    ),
    "gem-miner": Preset(
        GemMiner(),
        GEM_MINER,
        "train scores over frozen initial weights, and freeze the lowest for good, period by period",
        "one training of scores",
    ),
    "gem-miner-long": Preset(
        GemMiner(length=20.0, periods=20),
        GEM_MINER,
        "as gem-miner, for as long as imp takes to 1.4 %",
        "twenty trainings of scores",
    ),
    "edge-popup": Preset(
        EdgePopup(),
        "Ramanujan et al., CVPR 2020",
        "train scores over frozen initial weights, of which each layer always uses the best",
        "one training of scores",
    ),
    "edge-popup-global": Preset(
        EdgePopup(scope="global"),
        GEM_MINER,
        "as edge-popup, ranking all layers together",
        "one training of scores",
    ),
    "edge-popup-gradual": Preset(
        EdgePopup(scope="global", gradual=True),
        GEM_MINER,
        "as edge-popup-global, with a density that falls over the search",
        "one training of scores",
    ),
    "edge-popup-regularised": Preset(
        EdgePopup(scope="global", gradual=True, penalty=2.5e-3),
        GEM_MINER,
        "as edge-popup-gradual, with ten times the penalty on the scores",
        "one training of scores",
    ),
    "continuous-sparsification": Preset(
        ContinuousSparsification(),
        "Savarese, Silva, Maire, NeurIPS 2020",
        "train weights and a soft mask that hardens, and rewind",
        "three full trainings",
    ),
    "concrete-ticket-search": Preset(
        ConcreteTicketSearch(),
        "arXiv 2512.07142",
        "learn each weight's probability of being kept, against a dense teacher",
        "one full training, one of probabilities",
    ),
    "early-bird": Preset(
        EarlyBird(),
        "You et al., ICLR 2020",
        "train until the channels with the largest batch-norm scales have settled, and draw the ticket there",
        "a few epochs, which count as training",
    ),
    "worm": Preset(
        Worm(),
        "Vasudev, ENLSP 2024",
        "as early-bird, holding back the channels to be dropped once they have nearly settled",
        "a few epochs, which count as training",
    ),
    "early-bird-transformer": Preset(
        EarlyBird(granularity=QueryKey(), epsilon=0.01, window=3),
        "Vasudev, ENLSP 2024",
        "as early-bird, for the largest single weights of attention's queries and keys, in a window of three",
        "a few epochs, which count as training",
    ),
    "worm-transformer": Preset(
        Worm(granularity=QueryKey(), epsilon=0.01, margin=0.005, window=3),
        "Vasudev, ENLSP 2024",
        "as early-bird-transformer, holding back the weights to be dropped once they have nearly settled",
        "a few epochs, which count as training",
    ),
    "rigl": Preset(
        RigL(),
        "Evci et al., ICML 2020",
        "train a random sparse network, moving its smallest weights to where the gradient is largest",
        "one full training, which is the ticket's own",
    ),
    "set": Preset(
        RigL(grow="random"),
        "Mocanu et al., Nature Communications 2018",
        "as rigl, moving its smallest weights anywhere",
        "one full training, which is the ticket's own",
    ),
    "network-slimming": Preset(
        Slimming(),
        "Liu et al., ICCV 2017",
        "train with a penalty on batch-norm scales, remove the channels with the smallest, train again",
        "one full training",
    ),
    **GREEDY_PRESETS,
    **{
        f"layer-{name}": Preset(
            OneShot(score=score, granularity=Blocks(1)),
            "Jordao et al., 2023" if score.needs_data else score.paper,
            f"remove the residual blocks that are worth least before training, by {what}",
            "one batch" if score.needs_data else "nothing",
        )
        for name, score, what in (
            ("snip", Snip(), "the sum of their weights' sensitivities"),
            ("grasp", Grasp(), "the sum of what their weights do for the gradient's norm"),
            ("cka", FeatureSimilarity(), "how little the features change without them"),
            ("kl", OutputDivergence(), "how little the outputs change without them"),
            ("random", RandomBlocks(), "a random number"),
            ("front-to-back", FrontToBack(), "their place, the first ones first"),
        )
    },
    **{
        f"filter-{score.name}": Preset(
            OneShot(score=score, granularity=Filters(1), scope="layerwise"),
            "Jordao et al., 2023",
            f"remove as many filters from inside the blocks as {of} would take with its block",
            "one batch",
        )
        for score, of in ((Snip(), "layer-snip"), (Grasp(), "layer-grasp"))
    },
    "layer-kl-trained": Preset(
        Iterative(score=OutputDivergence(), granularity=Blocks(1), count=1),
        "Jordao et al., 2023",
        "as layer-kl, after training; from the initialisation again, a step, or with the learning rate rewound",
        "one full training",
    ),
    "layer-cka-iterative": Preset(
        Iterative(score=FeatureSimilarity(), granularity=Blocks(1), schedule="linear", rewind="fine-tune"),
        "Pons et al., ICPR 2024",
        "train, remove the block without which the features change least, fine-tune, again",
        "one full training a block",
    ),
    "snip": Preset(
        OneShot(score=Snip()), Snip.paper, "keep the weights to which the loss is most sensitive", "one batch"
    ),
    "grasp": Preset(
        OneShot(score=Grasp()), Grasp.paper, "keep the weights that preserve the gradient's norm", "one batch"
    ),
    "grasp-first-order": Preset(
        OneShot(score=GraspFirstOrder()),
        GraspFirstOrder.paper,
        "keep the largest signed weight × gradient",
        "one batch",
    ),
    "weight-gradient": Preset(
        Iterative(score=WeightGradient(gather="all-steps"), share=0.5),
        WeightGradient.paper,
        "as imp, by weight × gradient summed over all steps of training, half of the weights a round",
        "one full training a round",
    ),
    "weight-gradient-init": Preset(
        OneShot(score=WeightGradient()),
        WeightGradient.paper,
        "keep the largest initial weight × gradient, summed over one pass",
        "one epoch",
    ),
    "weight-gradient-continue": Preset(
        OneShot(score=WeightGradient(gather="all-steps"), after=1),
        WeightGradient.paper,
        "train for an epoch, keep the largest weight × gradient summed over its steps, and go on",
        "one epoch, which counts as training",
    ),
    "weight-gradient-rewind": Preset(
        OneShot(score=WeightGradient(gather="all-steps"), after=1, weights="init"),
        WeightGradient.paper,
        "as weight-gradient-continue, rewinding to the initialisation",
        "one epoch",
    ),
    "movement": Preset(
        Iterative(score=Movement(), share=0.5, rewind="learning-rate"),
        Movement.paper,
        "train, remove the half of the weights that moved most towards 0, and train on with the learning rate rewound",
        "one full training a round",
    ),
    "iter-snip": Preset(
        OneShot(score=Snip(), rounds=60),
        SquaredGradient.paper,
        "as snip, in 60 rounds, each on what the last one left",
        "60 batches",
    ),
    "force": Preset(
        OneShot(score=Snip(), rounds=60, regrow=True),
        SquaredGradient.paper,
        "as iter-snip, but what was removed may come back, with its own value",
        "60 batches",
    ),
    "grasp-it": Preset(
        OneShot(score=SquaredGradient(), rounds=60),
        SquaredGradient.paper,
        "as iter-snip, keeping the weights with the largest gradients",
        "60 batches",
    ),
    "prospr": Preset(
        OneShot(score=ProsPr()),
        ProsPr.paper,
        "keep the weights to which the loss is most sensitive after three steps of training",
        "13 batches",
    ),
    "synflow": Preset(
        OneShot(score=SynFlow(), rounds=100),
        SynFlow.paper,
        "keep the weights that carry the most flow of an all-ones input, in 100 rounds, without data",
        "100 forward-backwards of one sample",
    ),
    "random": Preset(
        OneShot(score=Random(), scope="layerwise"),
        Random.paper,
        "a random mask of the same density in every layer",
        "nothing",
    ),
    "erk": Preset(
        OneShot(score=Random(), scope="erk"),
        "Evci et al., ICML 2020",
        "a random mask with Erdős–Rényi-kernel layer densities",
        "nothing",
    ),
    "smart-ratio": Preset(
        OneShot(score=Random(), scope="smart-ratio"),
        "Su et al., NeurIPS 2020",
        "a random mask whose layer densities fall towards the output",
        "nothing",
    ),
    "magnitude-init": Preset(
        OneShot(score=Magnitude()),
        "the baseline of Frankle et al., ICLR 2021",
        "keep the largest initial weights",
        "nothing",
    ),
}
