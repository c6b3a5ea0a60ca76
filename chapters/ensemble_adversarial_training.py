# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,mystnb
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does single-step adversarial training make a model robust, or its gradients useless?
#
# This chapter reproduces *Ensemble Adversarial Training: Attacks and Defenses*
# {cite}`tramer2018ensemble` on MNIST. The paper's claim: a model trained on single-step
# adversarial examples learns to make the single step fail. The loss around the data turns into a surface on which the
# gradient points nowhere useful: it is *masked*. Adversarial examples remain, and a step computed on *another* model
# reaches them.
#
# **Verdict at a glance.** Every row of the paper's tables is a claim with a criterion that was fixed before the run.
#
# ```{glue} at-a-glance
# ```

# %% [markdown]
# ## Why it matters
#
# A defence that breaks the attacker's compass looks robust in every evaluation that relies on that compass. If masking
# is mistaken for robustness, the number in the paper's table says little about the model in the field. This paper gave
# the field two instruments that tell them apart: a random step before the gradient step, and the transfer of examples
# from models that have nothing to hide.
#
# **Threat model.** The adversary knows the label of a test image, may move every pixel by at most $\epsilon$ and keep it
# in $[0, 1]$, wants any wrong class, and knows either the model with its weights (*white-box*) or only the training
# data, from which she trains a model of her own (*black-box*). On MNIST $\epsilon = 0.3$, as in the paper; the bound is
# a convention for a change that leaves the digit readable, not a model of what people perceive.
#
# **Notation.** As in the paper, $h$ is the model with its scores (in {doc}`background`, which explains the attacks, $h$ is
# the class), $L(h(x), y)$ the cross-entropy, $x^{adv}$ an adversarial example. $X$ stands for an architecture of the
# paper (A, B, B\*, C, D), $X_{adv}$, printed X_adv, for the model of that architecture trained on its own single-step
# examples; the standard model is its *twin*. *PGD* is the iterated attack from a random start. Error rates are over *all*
# test images, clean mistakes included, as in the paper.

# %% tags=["parameters"]
profile = "quick"  # quick, check, standard or paper: sets every None below
dataset = None  # digits, mnist or fashion_mnist
architectures = None  # some of "A, B, B*, C, D"
defended = None  # those of them that are also trained adversarially
ensembles = None  # static sources in training: "ens", "ens3" or both
epsilon = None  # linf radius of training and attack, in pixels of [0, 1]
epochs = None  # of standard models
epochs_adv = None  # of adversarially trained models
epochs_rfgsm = None  # of the model trained on R+FGSM examples
epochs_madry = None  # of the network of Madry et al.
n_train = None  # first training images used
n_test = None  # first test images attacked
ratio_points = None  # test images for the approximation ratio
ratio_steps = None  # of the strongest attacks; PGD takes at most 40
ratio_restarts = None  # restarts of its strongest attack
seed = None  # first training seed
n_seeds = None  # number of training seeds
n_seeds_large = None  # training seeds of A_adv, B_adv and input dropout
input_dropout = None  # of "A, C, D": those also trained with it
directions_points = None  # test images whose directions are counted
pixel_points = None  # test images attacked behind a threshold on the pixels
queries = None  # of the gradient-free attack
model = None  # your own model, package.module:function
weights = None  # its weights, a safetensors file
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
import dataclasses
import textwrap

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from myst_nb import glue
from robustutils import (
    artifacts,
    attacks,
    bounds,
    data,
    defences,
    evaluation,
    evidence,
    figures,
    flips,
    masking,
    models,
    networks,
    precision,
    provenance,
    runs,
    scoreboard,
    subspaces,
)
from robustutils.intervals import wilson
from robustutils.objectives import Adversarial, EnsembleAdversarial
from robustutils.threats import Linf

figures.use_style()

# %% [markdown]
# A profile is a set of defaults. `quick` runs anywhere in a minute, to show that the code works: on 768 small digits no
# masking sets in, and its numbers are *not evidence*. `standard` is the paper's protocol as far as two CPU cores go,
# `paper` all of it on a GPU; what is cut stands under *Where we deviate*. Unknown names and values out of range stop the
# chapter here.

# %% tags=["hide-input"]
ALL = ("A", "B", "B*", "C", "D")
run = runs.start(
    "ensemble_adversarial_training",
    globals(),
    {  # name: quick, standard, paper, what is allowed
        "dataset": (
            "digits",
            "mnist",
            "mnist",
            runs.OneOf(("digits", "mnist", "fashion_mnist")),
        ),
        "architectures": ("B*,D", ALL, ALL, runs.SomeOf(ALL)),
        "defended": (ALL, ALL, ALL, runs.SomeOf(ALL)),
        "ensembles": (
            "ens",
            "ens,ens3",
            "ens,ens3",
            runs.SomeOf(("ens", "ens3")),
        ),
        "epsilon": (0.3, 0.3, 0.3, runs.Between(0.01, 1.0)),
        "epochs": (4, 6, 6, runs.Between(1, 1000)),
        "epochs_adv": (4, 12, 12, runs.Between(1, 1000)),
        "epochs_rfgsm": (3, 6, 100, runs.Between(1, 1000)),
        "epochs_madry": (1, 5, 5, runs.Between(1, 1000)),
        "n_train": (768, 60000, 60000, runs.Between(64, 60000)),
        "n_test": (200, 10000, 10000, runs.Between(10, 10000)),
        "ratio_points": (100, 1000, 10000, runs.Between(10, 10000)),
        "ratio_steps": (10, 100, 100, runs.Between(1, 10000)),
        "ratio_restarts": (1, 5, 5, runs.Between(1, 100)),
        "seed": (0, 0, 0, runs.Between(0, 10**6)),
        "n_seeds": (1, 3, 3, runs.Between(1, 20)),
        "n_seeds_large": (1, 1, 3, runs.Between(1, 20)),
        "input_dropout": (
            "D",
            "A,C,D",
            "A,C,D",
            runs.SomeOf(("A", "C", "D")),
        ),
        "directions_points": (10, 500, 500, runs.Between(2, 10000)),
        "pixel_points": (50, 1000, 10000, runs.Between(2, 10000)),
        "queries": (20, 300, 5000, runs.Between(1, 10**6)),
        "model": (None, None, None, runs.Text()),
        "weights": (None, None, None, runs.Text()),
    },
    check={  # 500 is one batch: random starts are those of the published run
        "n_test": 500,
        "n_seeds": 1,
        "n_seeds_large": 1,
        "ratio_points": 500,
        "directions_points": 20,
        "pixel_points": 50,
        "queries": 20,
    },
)
STATIC = {"A": "ACD", "B": "BCD", "C": "ACD", "D": "ACD"}  # sources of ens3
sources = list(run.architectures)
targets = [name for name in sources if name in run.defended]
if not targets:
    raise runs.ParameterError(
        f"defended={','.join(run.defended)!r}: none of architectures={','.join(sources)!r}"
    )
for name in targets if "ens3" in run.ensembles else ():
    if missing := sorted(set(STATIC.get(name, ())) - set(sources)):
        raise runs.ParameterError(
            f"ensembles={','.join(run.ensembles)!r}: the static sources of {name}"
            f" are {', '.join(STATIC[name])};"
            f" architectures={','.join(sources)!r} lacks {', '.join(missing)}"
        )
if run.weights and not run.model:
    raise runs.ParameterError(f"weights={run.weights!r}: needs -p model")
own = models.load(run.model, run.weights) if run.model else None
dtype = torch.float32 if run.profile == "quick" else torch.bfloat16
seeds = list(run.seeds)
print(
    f"profile {run.profile}, {run.device}, training in"
    f" {precision.effective(run.device, dtype)}, seeds {seeds}"
)

# %% [markdown]
# ## What the paper says, and what would count as agreement
#
# The tables and lemmas, each row with the criterion that decides it; the claims file has the rest. *Within* asks for a
# value near the paper's; *greater* and *less* ask whether the 95% interval of an effect lies wholly on one side of zero
# or of the number named; *equivalent*, whether it stays within a margin; *exact*, for equality. T stands for the paper's
# tables, L for its lemmas, F for its figures, the other letters for statements of its text and appendices.

# %% tags=["nbval-check-output", "hide-output"]
claims = evidence.Claims.load(
    provenance.repository()
    / "chapters"
    / "ensemble_adversarial_training.claims.toml"
)
stated = {(row.id, row.row): row.paper for row in claims.rows}
scoreboard.criteria_table(
    claims, ["EAT-T6", "EAT-T7", "EAT-T8", "EAT-L6", "EAT-L7"]
)

# %% [markdown]
# ## Data and models

# %% tags=["nbval-check-output"]
train = data.load(run.dataset, "train")
test = data.load(run.dataset, "test")
train, test = (
    train.first(min(run.n_train, len(train))),
    test.first(min(run.n_test, len(test))),
)
for part in (train, test):
    print(
        f"{part.name} {part.split}: {tuple(part.images.shape)}, SHA-256 {part.fingerprint[:16]}"
    )

# %% [markdown]
# The paper has five MNIST architectures: **A** (two 5x5 convolutions), **B** (three strided convolutions behind a dropout
# of 0.2 on the pixels), **B\*** (B without that dropout), **C** (two convolutions with tanh and pooling) and **D** (four
# fully connected layers with dropout). Each is trained in several ways.
#
# *Standard* training minimises $L(h(x), y)$. *Adversarial* training minimises, on every batch,
#
# $$
# \begin{aligned}
# &\tfrac12 L(h(x), y) + \tfrac12 L(h(x^{adv}), y), \qquad \hat y = \arg\max h(x), \\
# &x^{adv} = \mathrm{clip}_{[0,1]}\bigl(x + \epsilon\,\mathrm{sign}\,\nabla_x L(h(x), \hat y)\bigr).
# \end{aligned}
# $$
#
# The attack aims away from the model's own prediction $\hat y$, not from the label, so that the label cannot leak into the
# example. Dropout stays active while the example is made, and training does not differentiate through it;
# $\mathrm{clip}$ cuts pixels to $[0, 1]$. Training uses Adam at $10^{-3}$, batches of 64, 6 epochs (12 adversarial).

# %%
RECIPES = {
    "A": "eat_a",
    "B": "eat_b",
    "B*": "eat_b_star",
    "C": "eat_c",
    "D": "eat_d",
}


def standard_recipe(name):
    return defences.recipe(RECIPES[name]).replace(
        epochs=run.epochs, dtype=dtype
    )


def adversarial_recipe(name):
    return defences.recipe(f"{RECIPES[name]}_adv").replace(
        epochs=run.epochs_adv,
        dtype=dtype,
        objective=EnsembleAdversarial(eps=run.epsilon),
    )


def train_models(jobs):
    """The models by (name, seed), trained as soon as one of them is needed."""
    workers = (
        run.profile != "quick"
    )  # there training is over before one starts
    return networks.train_all(
        jobs, train, device=run.device, side_by_side=workers
    )


role_seeds = list(range(run.seed, run.seed + max(3, run.n_seeds)))
other_seed = dict(  # of the models that attack a model of this seed
    zip(role_seeds, role_seeds[1:] + role_seeds[:1], strict=True)
)
third_seed = {  # of the static sources it is trained with
    s: other_seed[other_seed[s]] for s in role_seeds
}
names = [
    label
    for name in sources
    for label in ((name, f"{name}_adv") if name in targets else (name,))
]
seeds_large = seeds[: run.n_seeds_large]
seeds_of = {
    name: seeds_large if name in ("A_adv", "B_adv") else seeds
    for name in names
}
nets = train_models(
    {
        (name, s): adversarial_recipe(name.removesuffix("_adv"))
        if "_adv" in name
        else standard_recipe(name)
        for name in names
        for s in (seeds_of[name] if "_adv" in name else role_seeds)
    }
)


def trained(name):
    """Whether all models of a name are there; the profile `check` trains none."""
    return all((name, s) in nets for s in seeds_of[name])


names = [name for name in names if trained(name)]
targets = [name for name in targets if f"{name}_adv" in names]
if not targets:
    raise runs.ParameterError(
        f"profile={run.profile!r}: trains nothing, and no network of these parameters is published"
    )
standard = "C" if "C" in targets else targets[-1]  # shown where one is enough
hardened = f"{standard}_adv"

# %% [markdown]
# Every number below is a mean over the training seeds, on the same test images for every model. A model attacked with
# examples from a standard one never shares that one's seed.

# %% tags=["hide-input"]
ledger = evidence.Ledger(claims, run.profile)
settings = (len(train), len(test), run.epochs, run.epochs_adv, run.epsilon)
whole = settings == (60000, 10000, 6, 12, 0.3)
whole_ratio = min(run.ratio_points, len(test)) >= 1000 and (
    run.ratio_steps,
    run.ratio_restarts,
) == (100, 5)
errors = {}  # (model, attack) -> bool [seeds, test images]


def fidelity(name, stand_in=False, ratio=False):
    """How close a run is to the paper's protocol; D follows the authors' code.

    ``stand_in``: MNIST takes the place of the paper's ImageNet. ``ratio``: the row is
    measured on the points, and with the strongest attack, of the approximation ratio.
    """
    if not whole or len(seeds_of[name]) < 3 or (ratio and not whole_ratio):
        return "reduced"
    if stand_in or run.dataset != "mnist":
        return "substitution"
    return "code_variant" if name.startswith("D") else "exact"


def over_seeds(name, outcome):
    """Stack one tensor [N] for each seed of a model."""
    return np.stack([outcome(s).numpy() for s in seeds_of[name]])


def error_under(name, attack):
    """Errors under an attack on the model itself: bool [seeds, test images]."""
    return over_seeds(
        name,
        lambda s: ~evaluation.evaluate(nets[name, s], attack, test).attacked,
    )


def error_on(name, images_of):
    """Errors on given images; ``images_of(seed)`` are those for one seed of the model."""
    return over_seeds(
        name,
        lambda s: (
            ~evaluation.judged(nets[name, s], images_of(s), test.labels)
        ),
    )


def clean_errors(names):
    for name in names:
        errors[name, "clean"] = error_on(name, lambda s: test.images)
        print(
            f"{name:14} clean error {100 * errors[name, 'clean'].mean():5.2f}%"
        )


clean_errors(names)

# %% [markdown]
# ## One step, white-box: FGSM against R+FGSM
#
# The fast gradient sign method linearises the loss at $x$ and jumps to the corner of the $\epsilon$-cube where that
# linear model is largest. R+FGSM spends part of the budget, $\alpha = \epsilon/2$, on a random step first, and takes the
# gradient *there*:
#
# $$
# x' = \mathrm{clip}_{[0,1]}\bigl(x + \alpha\,\mathrm{sign}(\mathcal N(0, I))\bigr), \qquad
# x^{adv} = \mathrm{clip}_{[0,1]}\bigl(x' + (\epsilon - \alpha)\,\mathrm{sign}\,\nabla_{x'} L(h(x'), y)\bigr).
# $$
#
# On a linear loss half of the step is wasted on noise, and R+FGSM can do no better than FGSM. At this radius the loss of
# a standard model is not linear either: in the paper's Table 7 the two differ by at most five points there, and by 12 to
# 36 on every adversarially trained model but B. Where R+FGSM does *much* more, the gradient at $x$ itself is the problem.

# %%
fgsm = attacks.FGSM(eps=run.epsilon)
rfgsm = attacks.RFGSM(eps=run.epsilon)
for name in names:
    errors[name, "FGSM white-box"] = error_under(name, fgsm)
    errors[name, "R+FGSM white-box"] = error_under(name, rfgsm)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-gallery", "caption": "The first test images and their adversarial examples at the run's radius: the single step on a standard model, the same on the model of that architecture trained adversarially, and on that one a random step first. The perturbations look alike; the next figure says what each achieves."}, "image": {"alt": "Four rows of eight digits: clean, FGSM on the standard model, FGSM on the adversarially trained model, R+FGSM on the adversarially trained model."}}
shown = test.first(8)
examples = {
    "clean": shown.images,
    f"FGSM\non {standard}": evaluation.crafted(
        nets[standard, seeds[0]], fgsm, shown
    )(),
    f"FGSM\non {hardened}": evaluation.crafted(
        nets[hardened, seeds[0]], fgsm, shown
    )(),
    f"R+FGSM\non {hardened}": evaluation.crafted(
        nets[hardened, seeds[0]], rfgsm, shown
    )(),
}
figures.gallery(examples)
# %% [markdown]
# ## One step, black-box: transfer from a model that hides nothing
#
# The same FGSM examples, made on standard models and handed to the target.


# %%
def from_source(source, attack=fgsm):
    """The examples of a standard model, by the seed of the target that is to be given them."""
    return lambda s: evaluation.crafted(
        nets[source, other_seed[s]], attack, test
    )


for name in names:
    for src in sources:
        errors[name, f"FGSM from {src}"] = error_on(name, from_source(src))

# %% [markdown]
# Each cell of the paper's Table 7 becomes a row. Its size is compared with the paper's; whether there is an effect at all
# is decided by a paired difference on the same images: for a standard model its error under attack minus its clean error,
# for an adversarially trained one its error minus that of its twin under the same attack.

# %% [markdown]
# In the paper B is the exception: on B_adv neither a transferred step (8.9%) nor a random step first (11.1%) beats the
# white-box step (11.6%). Whether the dropout on its pixels is the reason is asked below.

# %% tags=["hide-input"]
columns = [
    "FGSM white-box",
    "R+FGSM white-box",
    *(f"FGSM from {src}" for src in sources),
]


def record(id, row, name, outcomes, reference=None, measure=evidence.rate):
    """One row of the claims: outcomes [seeds, test images] of a model, against others of the same shape."""
    ledger.record(
        id,
        f"{name} | {row}",
        measure(
            outcomes,
            *(() if reference is None else (reference[: len(outcomes)],)),
            seeds=seeds_of[name],
            fidelity=fidelity(name),
        ),
    )


def highest(outcomes):
    """Of several attacks [attacks, seeds, images] the one with most errors, per seed: the paper's maximum."""
    best = outcomes.mean(axis=2).argmax(axis=0)
    return outcomes[best, np.arange(outcomes.shape[1])]


for name in names:
    for column in columns:
        # the paper has no transfer from a standard model to its own architecture
        if column != f"FGSM from {name}":
            twin = name.removesuffix("_adv")
            reference = errors[twin, column if "_adv" in name else "clean"]
            record("EAT-T7", column, name, errors[name, column], reference)

best_transfer = {
    name: highest(
        np.stack([errors[name, f"FGSM from {src}"] for src in sources])
    )
    for name in names
}
gap = evidence.difference
for name in (n for n in names if "_adv" in n):
    white_box = errors[name, "FGSM white-box"]
    two_steps = errors[name, "R+FGSM white-box"]
    record("EAT-T7", "R+FGSM minus FGSM", name, two_steps, white_box, gap)
    for label, some in {
        "masking gap, sources B*, C, D": ["B*", "C", "D"],
        "masking gap, all sources": list(ALL),
    }.items():
        if (
            set(some) <= set(sources)
            and ("EAT-T7", f"{name} | {label}") in stated
        ):
            transferred = np.stack(
                [errors[name, f"FGSM from {src}"] for src in some]
            )
            record(
                "EAT-T7", label, name, highest(transferred), white_box, gap
            )

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-masking", "caption": "Error of standard and adversarially trained models under the white-box single step (FGSM), the same with a random step first (R+FGSM), and the strongest transferred single step. Filled: this run, one dot a training seed; hollow diamonds: the paper (its strongest transfer among the same sources). On a model whose gradients can be trusted the FGSM dot lies to the right of the transferred one; on a masked one to the left."}, "image": {"alt": "Dot plot of error rates in percent for each model under three attacks, with the paper's numbers as diamonds."}}
others = {name: [src for src in sources if src != name] for name in names}
strongest = {
    name: [
        errors[name, f"FGSM from {src}"].mean(axis=1) for src in others[name]
    ]
    for name in names
}
cells = {"FGSM": "FGSM white-box", "R+FGSM": "R+FGSM white-box"}
ours = {
    key: [list(100 * errors[name, column].mean(axis=1)) for name in names]
    for key, column in cells.items()
}
ours["transferred"] = [
    list(100 * np.max(strongest[name], axis=0)) if others[name] else []
    for name in names
]
theirs = {
    key: [stated["EAT-T7", f"{name} | {column}"] for name in names]
    for key, column in cells.items()
}
theirs["transferred"] = [
    max(
        (
            stated["EAT-T7", f"{name} | FGSM from {src}"]
            for src in others[name]
        ),
        default=np.nan,
    )
    for name in names
]
figures.dots(
    names, ours, theirs, xlabel="error under attack (%), over all test images"
)
# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-transfer", "caption": "Transferred single steps: error of each target (line) on FGSM examples from each standard source (column), the paper's Table 7 and this run, in percent. Empty cells do not exist in the paper."}, "image": {"alt": "Two annotated matrices of error rates in percent, one line for each target and one column for each source, the paper's on the left and this run's on the right; darker is higher."}}
shape = [[f"{name} | FGSM from {src}" for src in sources] for name in names]
paper = np.array(
    [
        [stated.get(("EAT-T7", cell), np.nan) for cell in line]
        for line in shape
    ]
)
measured = np.array(
    [
        [100 * errors[name, f"FGSM from {src}"].mean() for src in sources]
        for name in names
    ]
)
measured[np.isnan(paper)] = np.nan
panels = {"paper": paper, f"this run ({run.profile})": measured}
figures.matrices(
    panels, names, sources, xlabel="source of the examples", ylabel="target"
)
# %% [markdown]
# ### Do masked models make good attackers? Do random steps transfer?
#
# Two statements of sections 4.1 and D: an adversarially trained source gives *weaker* transferred examples, even against
# targets without any defence; and R+FGSM, stronger where it is computed, transfers *worse*. The first is the mean over all
# pairs of such a source and a standard target of another architecture, the second over all pairs of a standard source
# and a target of another architecture; both only with models that were trained on all seeds, paired on the same images.


# %% tags=["hide-input"]
def transfer_differences(change, among, on):
    """Error under changed minus unchanged examples of each pair: a list of points [seeds, test images]."""
    return [
        100.0 * error_on(name, lambda s, a=src: change(a, s))
        - 100.0 * errors[name, f"FGSM from {src}"]
        for name in on
        if seeds_of[name] == seeds
        for src in among
        if src != name.removesuffix("_adv")
    ]


def from_defended(source, s):
    """FGSM examples of the source's adversarially trained twin."""
    twins = seeds_of[f"{source}_adv"]
    seed = twins[(twins.index(s) + 1) % len(twins)]
    return evaluation.crafted(nets[f"{source}_adv", seed], fgsm, test)


everywhere = [a for a in targets if seeds_of[f"{a}_adv"] == seeds]
for id, row, change, among, on in (
    (
        "EAT-X1",
        "mean transferred FGSM error, adversarially trained minus standard sources",
        from_defended,
        everywhere,
        sources,
    ),
    (
        "EAT-X2",
        "mean transferred error, R+FGSM minus FGSM",
        lambda source, s: from_source(source, rfgsm)(s),
        sources,
        names,
    ),
):
    pairs = transfer_differences(change, among, on)
    if not pairs:
        print(f"{row.split(', ')[1]}: needs a second architecture")
        continue
    found = evidence.mean(
        np.mean(pairs, axis=0),
        seeds=seeds,
        fidelity=fidelity(sources[0], stand_in=True)
        if targets == list(ALL)
        else "reduced",
    )
    ledger.record(id, row, found)
    print(f"{row.split(', ')[1]}: {found.value:+.1f} points")

# %% [markdown]
# ## Watching it happen
#
# A picture that the paper does not have: one model at several moments of its single-step adversarial training, alone and
# with a *static source*, a standard model trained beforehand that supplies half of the examples (section 3.4, below).
# Where masking sets in, the error under the single step falls away from the error under the same step from a random
# point, while the multi-step attack goes on as if nothing had happened.

# %%
stages = (1,) if run.profile == "quick" else (1, 2, 4)
moments = sorted(
    {*(e for e in stages if e < run.epochs_adv), 1, run.epochs_adv}
)
films = [hardened, f"{hardened}-ens"]


def filmed(name, s):
    recipe = adversarial_recipe(standard)
    if name == hardened:
        return recipe
    return defences.with_sources(recipe, [nets[standard, third_seed[s]]])


stills = train_models(
    {
        (f"{name}, epoch {epochs}", s): filmed(name, s).replace(epochs=epochs)
        for name in films
        for epochs in moments
        for s in (seeds if epochs == 1 else seeds[:1])
    }
)
films = [
    name
    for name in films
    if all((f"{name}, epoch {e}", seeds[0]) in stills for e in moments)
]
probe = test.first(min(1000, len(test)))


def pgd(eps):
    steps = min(40, run.ratio_steps)
    return attacks.PGD(
        threat=Linf(eps=eps),
        steps=steps,
        step_size=max(2 * eps / steps, 1e-3),
        dtype=dtype,
    )


watching = {"FGSM": fgsm, "R+FGSM": rfgsm, "PGD": pgd(run.epsilon)}
film = {
    name: {
        label: [
            evaluation.evaluate(
                stills[f"{name}, epoch {epochs}", seeds[0]], attack, probe
            ).error_rate()
            for epochs in moments
        ]
        for label, attack in watching.items()
    }
    for name in films
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-epochs", "caption": "Error under white-box attacks at several moments of training, first seed, first 1,000 test images, PGD with at most 40 steps; with 95% Wilson intervals. Left: single-step adversarial training. Right: the same with a static source for half of the batches."}, "image": {"alt": "Two line plots of error rate over training epochs under FGSM, R+FGSM and PGD: adversarial training on the left, ensemble adversarial training on the right."}}
figures.curves(moments, film, xlabel="epochs of training", ylabel="error (%)")
# %% [markdown]
# ## How good is one step? The approximation ratio
#
# Table 6 asks how much of the reachable loss the single step reaches:
#
# $$
# \frac{\mathbb E\, L\bigl(h(x^{FGSM}), y\bigr)}{\mathbb E\, L\bigl(h(x^{strong}), y\bigr)}
# $$
#
# where $x^{strong}$ maximises the loss over the FGSM example and several restarts of projected gradient ascent. A ratio
# near one means that the loss is close to linear around the data; near zero, that the single step has lost its way
# although strong examples exist. On MNIST at $\epsilon = 0.3$ the paper's standard models reach 17 to 49%. The paper does not say whether it averages ratios or divides averages: the ratio of
# mean losses is used, which no point with a tiny loss can dominate.

# %%
points = test.first(min(run.ratio_points, len(test)))
strong_attack = attacks.PGD(
    threat=Linf(eps=run.epsilon),
    steps=run.ratio_steps,
    step_size=run.epsilon / 30,
    restarts=run.ratio_restarts,
    drop_fooled=False,
    dtype=dtype,
)
resamples = np.random.default_rng(0).integers(
    len(points), size=(1000, len(points))
)
ratios, boot = {}, {}  # in percent: [seeds], [resamples, seeds]
reached = {}  # the losses behind them: two arrays [seeds, points]


def measure_ratio(name):
    """The approximation ratio of each seed, over all points and over each resample of them; returns a line of text."""
    single, strong = (
        over_seeds(
            name,
            lambda s, a=attack: evaluation.losses_under(
                nets[name, s], a, points
            ),
        )
        for attack in (fgsm, strong_attack)
    )
    reached[name] = {"single-step loss": single, "strong loss": strong}
    strong = np.maximum(single, strong)

    def ratio(chosen):
        return 100 * single[:, chosen].mean(1) / strong[:, chosen].mean(1)

    ratios[name] = ratio(slice(None))
    unmoved = strong == 0  # no attack raises a loss that rounds to zero
    each = np.where(unmoved, 1.0, single / np.where(unmoved, 1.0, strong))
    median = 100 * np.median(each, axis=1).mean()
    boot[name] = np.stack([ratio(chosen) for chosen in resamples])
    return (
        f"{name:14} ratio of the means {ratios[name].mean():5.1f}%,"
        f" median over the points {median:5.1f}%"
    )


def interval(values):
    """The central 95% of bootstrap values, averaged over seeds first."""
    return tuple(np.percentile(np.mean(values, axis=1), [2.5, 97.5]))


# %% [markdown]
# Intervals over the test points come from 1,000 bootstrap resamples; the effect of an adversarially trained model is
# its ratio minus that of its standard twin, on the same resamples.


# %% tags=["hide-input"]
def record_ratio(name):
    each = ratios[name]
    measurement = evidence.Measurement(
        each.mean(),
        interval(boot[name]),
        len(points),
        seeds_of[name],
        per_seed=each,
        fidelity=fidelity(name, ratio=True),
        note=f"strongest attack: {run.ratio_steps} steps, {run.ratio_restarts} restarts",
        outcomes=reached[name],
    )
    if "_adv" in name:
        twin, k = name.removesuffix("_adv"), len(each)
        measurement = dataclasses.replace(
            measurement,
            effect=(each - ratios[twin][:k]).mean(),
            effect_ci95=interval(boot[name] - boot[twin][:, :k]),
            effect_per_seed=each - ratios[twin][:k],
        )
    ledger.record("EAT-T6", f"{name} | ratio", measurement)


for name in names:
    print(measure_ratio(name))
    record_ratio(name)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-ratio", "caption": "Approximation ratio: the share of the reachable loss that one step reaches. Filled: this run, one dot a training seed; hollow diamonds: the paper's Table 6."}, "image": {"alt": "Dot plot of the approximation ratio in percent for each model, with the paper's numbers as diamonds."}}
figures.dots(
    names,
    {"FGSM": [list(ratios[name]) for name in names]},
    {"FGSM": [stated["EAT-T6", f"{name} | ratio"] for name in names]},
    xlabel="loss of the single step / loss of the strongest attack (%)",
)
# %% [markdown]
# ### Is the gradient gone, or does it point the wrong way?
#
# A gradient can be useless by vanishing or by turning. On ImageNet the paper reports that it turns: the cosine between
# the perturbations of the single step and of an iterated attack falls, while the norm of the gradient grows. Both are
# measured here on MNIST, on the points of the approximation ratio:

# %% tags=["hide-input"]
iterated = attacks.IFGSM(eps=run.epsilon)


def turning(name):
    """Cosines and gradient norms of each point: two arrays [seeds, points]."""
    cosines = [
        artifacts.kept(
            masking.perturbation_cosines,
            evaluation.crafted(nets[name, s], fgsm, points),
            evaluation.crafted(nets[name, s], iterated, points),
            points.images,
        )
        for s in seeds_of[name]
    ]
    norms = over_seeds(
        name,
        lambda s: artifacts.kept(
            evaluation.gradient_norms,
            nets[name, s],
            points.images,
            points.labels,
        ),
    )
    return np.stack(cosines), norms


print("               cosine   gradient norm")
turned = {name: turning(name) for name in names}
for name in names:
    cosines, norms = turned[name]
    print(f"{name:14} {cosines.mean():6.3f} {norms.mean():13.4f}")
    if "_adv" in name:
        twin = name.removesuffix("_adv")
        for row, here, there in zip(
            ("cosine, MNIST", "mean gradient norm, MNIST"),
            turned[name],
            turned[twin],
            strict=True,
        ):
            change = here - there[: len(here)]
            found = evidence.mean(
                change,
                seeds=seeds_of[name],
                fidelity=fidelity(name, stand_in=True, ratio=True),
            )
            ledger.record("EAT-C", f"{name} minus {twin} | {row}", found)

# %% [markdown]
# ## What the loss looks like around one image
#
# Figures 4 and 5 of the paper walk away from an image in two directions: the sign of the defended model's own gradient,
# and that of another model's, with a few signs flipped so that the two are orthogonal. If the model's own gradient is a
# local artefact, its loss grows fast along it for a short while, and then less than along the other. The first number
# counts this at the full radius: the share of test images where the other model's step raises the loss more than the
# model's own, minus the share where it is the other way round. The second counts the correctly
# classified images where, besides, the loss at the end of the model's own step is lower than a fifth of the way there.

# %% tags=["hide-input"]
bent = "A" if "A" in targets else standard
guide = (
    "B" if "B" in sources else next((a for a in sources if a != bent), bent)
)
bent_net = nets[f"{bent}_adv", seeds[0]]
guide_net = nets[guide, other_seed[seeds[0]]]
on_own = over_seeds(
    f"{bent}_adv",
    lambda s: evaluation.losses_under(nets[f"{bent}_adv", s], fgsm, test),
)
on_other = over_seeds(
    f"{bent}_adv",
    lambda s: artifacts.kept(
        evaluation.losses,
        nets[f"{bent}_adv", s],
        from_source(guide)(s),
        test.labels,
    ),
)
higher = evidence.difference(
    on_other > on_own,
    on_own > on_other,
    seeds=seeds_of[f"{bent}_adv"],
    fidelity=fidelity(f"{bent}_adv"),
)
row = "points at which model B's direction raises the loss more than the model's own, minus the converse"
if (bent, guide) == ("A", "B"):
    ledger.record("EAT-F5", f"A_adv | {row}", higher)
print(
    f"images where {guide}'s step raises the loss of {bent}_adv more"
    f" than its own,\nminus the converse: {higher.value:+.1f} points"
)


def gradient_sign(net, x, y):
    sign = artifacts.kept(evaluation.loss_gradients, net, x, y).sign()
    return torch.where(sign == 0, 1.0, sign)


hits = evaluation.judged(bent_net, probe.images, probe.labels).numpy()
inner = attacks.FGSM(eps=round(run.epsilon / 5, 4))
near_own = evaluation.losses_under(bent_net, inner, probe).numpy()
whole_own, whole_other = on_own[0, : len(probe)], on_other[0, : len(probe)]
artefact = hits & (near_own > whole_own) & (whole_own < whole_other)
steepest = int((near_own * artefact).argmax())  # 0 where there is none
x = test.images[steepest : steepest + 1]
y = test.labels[steepest : steepest + 1]
along, across = gradient_sign(bent_net, x, y), gradient_sign(guide_net, x, y)
agreement = (
    along * across
).flatten()  # signs are flipped until the two are orthogonal
excess = int(agreement.sum()) // 2
agreeing = (agreement == np.sign(excess)).nonzero().flatten()
shuffled = torch.randperm(
    len(agreeing), generator=torch.Generator().manual_seed(0)
)
flipped = agreeing[shuffled[: abs(excess)]]
across = (
    across.flatten()
    .index_copy(0, flipped, -across.flatten()[flipped])
    .view_as(x)
)
panels = {}
for title, reach in {
    "whole ball": run.epsilon,
    "near": inner.eps,
}.items():
    steps = torch.linspace(0, reach, 51)
    surface = artifacts.kept(
        masking.loss_surface, bent_net, x, y, across, along, steps
    )
    panels[title] = (steps.numpy(), surface.numpy())
cosine = F.cosine_similarity(along.flatten(), across.flatten(), 0)
print(
    f"images where its own direction leads down again: {artefact.sum()} of {len(probe)}\n"
    f"drawn: test image {steepest}, cosine of the two directions {cosine:.3f}"
)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-surface", "caption": "The loss of an adversarially trained model around one test image, classified correctly. Of those counted above it is the one whose loss is highest a fifth of the way along the model's own gradient (the first image where there is none). Horizontal along its own gradient sign, vertical along the other model's, made orthogonal to it. Left the whole radius, right its inner fifth."}, "image": {"alt": "Two filled contour plots of the loss, with the image at the lower left corner and each with its own colour scale: left the whole ball, right its inner fifth."}}
figures.contours(
    panels,
    xlabel="along its own gradient",
    ylabel="along the other model's",
    value="loss",
)
# %% [markdown]
# ## How many directions can be aligned with a gradient?
#
# A direction is *adversarial* at $x$ if a step of $\epsilon$ along it fools the model. To find *many*, section 4.3 takes
# $k$ orthogonal directions that all climb the loss, that is, have a large cosine with its gradient. Lemma 6 bounds the
# smallest of these cosines: by Bessel's inequality their squares sum to at most one, so it is at most $k^{-1/2}$. Lemma 7
# says that the bound is attained. A *regular Hadamard matrix* has entries $\pm 1$, orthogonal rows and constant row sums
# $\sqrt k$; repeat each row over the pixels, multiply it pixel by pixel by the sign of the gradient, and every row has
# cosine exactly $k^{-1/2}$ with that sign vector.
#
# Both are tried numerically, at the orders $k$ of the paper's experiment: the bound on 50 random and 50 nearly optimal
# orthogonal sets, the equality on the signs of one random gradient $g$. With $g$ itself the directions $r_i$, entries
# $\pm 1$, should align by $g^\top r_i = \lVert g\rVert_1/\sqrt k$ on average.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
print(
    "   k   sets beyond    cosine of the   mean alignment\n"
    "         the bound     construction    with gradient   x sqrt(k)"
)
for k in subspaces.ORDERS:
    size = 784 // k * k
    gradient = torch.randn(size, generator=generator, dtype=torch.float64)
    vector = gradient.sign()
    optimal = subspaces.aligned_directions(vector, k, generator)
    violations = 0
    for noise_only in (True, False):
        for _ in range(50):
            noise = torch.randn(
                size, k, generator=generator, dtype=torch.float64
            )
            basis = torch.linalg.qr(
                noise if noise_only else optimal.T + 0.1 * noise
            ).Q
            cosine = (
                basis.T @ vector
            ).abs().min().item() / vector.norm().item()
            violations += cosine > k**-0.5 + 1e-12
    attained = subspaces.least_cosine(optimal, vector) * k**0.5
    ledger.record(
        "EAT-L6",
        f"k = {k}",
        evidence.Measurement(violations, None, 100, [0], fidelity="exact"),
    )
    ledger.record(
        "EAT-L7",
        f"k = {k}",
        evidence.Measurement(attained, None, k, [0], fidelity="exact"),
    )
    aligned = (optimal.sign() @ gradient).mean() / gradient.abs().sum()
    print(
        f"{k:4} {violations:6} of 100 {attained:16.9f}"
        f" {aligned.item() * k**0.5:16.9f}"
    )

# %% [markdown]
# Now the experiment. At each of the first test images that both models classify correctly, the $k$ directions are tried
# for every order $k$, and the largest number that fool the model is kept. On a masked model the count is a lower bound,
# since the directions follow the very gradient that is masked.

# %%
counted = [a for a in ("A", "C") if a in targets] or [standard]
directions = {}
print("mean number of orthogonal adversarial directions")
for plain in counted:
    pair = (plain, f"{plain}_adv")
    hits = [
        evaluation.judged(nets[name, seeds[0]], test.images, test.labels)
        for name in pair
    ]
    chosen = (hits[0] & hits[1]).nonzero().squeeze(1)[: run.directions_points]
    if len(chosen) == 0:
        raise ValueError(
            f"{pair[0]} and {pair[1]} classify no image correctly"
        )
    some = test.take(chosen)
    for eps in (
        round(run.epsilon / 3, 4),
        round(run.epsilon * 2 / 3, 4),
        run.epsilon,
    ):
        for name in pair:
            directions[name, eps] = artifacts.kept(
                subspaces.count_adversarial_directions,
                nets[name, seeds[0]],
                some,
                eps,
            ).numpy()
        theirs, ours = (directions[name, eps] for name in pair)
        print(
            f"eps {eps:5g}  {pair[0]:4} {theirs.mean():5.1f}   {pair[1]:8} {ours.mean():5.1f}"
        )
        row = f"{pair[1]} minus {pair[0]} | mean number of orthogonal adversarial directions, eps {eps:g}"
        if ("EAT-F2", row) in stated:
            found = evidence.mean(
                1.0 * ours - theirs,
                seeds=seeds[:1],
                fidelity="reduced"
                if not whole or len(some) < 500
                else "substitution",
            )
            ledger.record("EAT-F2", row, found)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-directions", "caption": "Adversarial directions: the share of the images that both models classify correctly which have at least so many orthogonal adversarial directions, at the radius of training, first seed."}, "image": {"alt": "Step plot of the percentage of images over the least number of orthogonal adversarial directions, one line for each model."}}
figures.survival(
    {
        name: found
        for (name, eps), found in directions.items()
        if eps == run.epsilon
    },
    xlabel="orthogonal adversarial directions, at least",
    ylabel="test images (%)",
)
# %% [markdown]
# ## The remedy: ensemble adversarial training
#
# Section 3.4 lets half or more of the adversarial examples come from *static* models, which training cannot bend. Each
# batch draws one source uniformly from the static ones and the model itself. **ens** has one static source, a standard
# model of the same architecture; **ens3** has three: A, C and D, for B instead B, C and D. Static models have another
# seed than the model, and another one than the models that attack it afterwards (with three seeds or more).

# %%
jobs = {}
for name in (a for a in targets if a in STATIC):
    for kind in run.ensembles:
        label = f"{name}_adv-{kind}"
        seeds_of[label] = seeds_of[f"{name}_adv"]
        for s in seeds_of[label]:
            static = name if kind == "ens" else STATIC[name]
            jobs[label, s] = defences.with_sources(
                adversarial_recipe(name),
                [nets[a, third_seed[s]] for a in static],
            )
nets |= train_models(jobs)
ensembles = [
    label
    for label in dict.fromkeys(label for label, _ in jobs)
    if trained(label)
]
clean_errors(ensembles)

# %% [markdown]
# Table 8 attacks with twelve black boxes: FGSM, iterated FGSM and PGD on the margin, each made on a standard A, B, C and D.
# Every set of examples is made once and given to every target.

# %%
holdouts = [a for a in sources if a != "B*"] or sources
complete = holdouts == ["A", "B", "C", "D"]
suite = {
    "FGSM": fgsm,
    "I-FGSM": attacks.IFGSM(eps=run.epsilon),
    "PGD-CW": attacks.PGD(
        threat=Linf(eps=run.epsilon),
        steps=40,
        step_size=run.epsilon / 30,
        loss=attacks.Hinge(50),
        drop_fooled=False,
        keep_best=False,
        dtype=dtype,
    ),
}
boxed = [f"{a}_adv" for a in targets] + ensembles
black = {  # target -> bool [attacks, seeds, test images]
    name: np.stack(
        [
            error_on(name, from_source(src, attack))
            for src in holdouts
            for attack in suite.values()
        ]
    )
    for name in boxed
}

# %% tags=["hide-input"]
print("error (%)       clean   FGSM   black box: max   mean   any of them")
for name in sorted(boxed):
    if name in ensembles:
        errors[name, "FGSM white-box"] = error_under(name, fgsm)
    clean, white_box = errors[name, "clean"], errors[name, "FGSM white-box"]
    print(
        f"{name:14} {100 * clean.mean():6.2f} {100 * white_box.mean():6.1f}"
        f" {100 * highest(black[name]).mean():16.1f} {100 * black[name].mean():6.1f}"
        f" {100 * black[name].any(axis=0).mean():12.1f}"
    )
    if complete and ("EAT-T8", f"{name} | clean") in stated:
        record("EAT-T8", "clean", name, clean)
        record("EAT-T8", "FGSM white-box", name, white_box)
        record("EAT-T8", "max black-box", name, highest(black[name]), clean)
        found = evidence.mean(
            100.0 * black[name].mean(axis=0),
            seeds=seeds_of[name],
            fidelity=fidelity(name),
        )
        ledger.record("EAT-T8", f"{name} | mean black-box", found)

# %% [markdown]
# The paper's maximum is over attacks: the strongest *one* of the twelve. The last column is the stricter reading, an image
# that *any* of the twelve fools; it is shown for comparison and decides nothing.

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-ensembles", "caption": "Error of adversarially trained models without and with static sources, under the white-box single step and under the strongest of the black-box attacks. Filled: this run, one dot a training seed; hollow diamonds: the paper's Table 8."}, "image": {"alt": "Dot plot of error rates in percent for each defended model under white-box FGSM and the strongest transferred attack, with the paper's numbers as diamonds."}}
shown_names = sorted(boxed)
figures.dots(
    shown_names,
    {
        "FGSM": [
            list(100 * errors[name, "FGSM white-box"].mean(axis=1))
            for name in shown_names
        ],
        "transferred": [
            list(100 * highest(black[name]).mean(axis=1))
            for name in shown_names
        ],
    },
    {
        "FGSM": [
            stated.get(("EAT-T8", f"{name} | FGSM white-box"), np.nan)
            for name in shown_names
        ],
        "transferred": [
            stated.get(("EAT-T8", f"{name} | max black-box"), np.nan)
            for name in shown_names
        ],
    },
    xlabel="error under attack (%), over all test images",
)
# %% [markdown]
# ### What it restores, and what it does not cure
#
# With static sources the approximation ratio should come back. Three more statements of the paper are tested: the models
# stay weak to white-box iterated attacks (section 4.2); on them I-FGSM with two steps beats R+FGSM, as it should where the
# gradient at $x$ can be trusted; and examples made on all holdout models at once are no stronger than those of the best
# single one.

# %% tags=["hide-input"]
two_steps, many_steps = (
    attacks.IFGSM(eps=run.epsilon, steps=2),
    pgd(run.epsilon),
)
for name in ensembles:
    print(measure_ratio(name))
if complete and "ens3" in run.ensembles:
    print(
        "\n                          two-step        all holdouts minus\n"
        "error (%)       R+FGSM     I-FGSM    PGD   the best of them"
    )
everyone = {
    s: artifacts.composed(
        models.Average, *[nets[a, other_seed[s]] for a in holdouts]
    )
    for s in seeds[:1]
}
for name in ensembles:
    twin, kind = name.split("-")
    errors[name, "R+FGSM white-box"] = error_under(name, rfgsm)
    if complete:
        found = evidence.difference(
            highest(black[name]),
            highest(black[twin]),
            seeds=seeds_of[name],
            fidelity=fidelity(name),
        )
        ledger.record("EAT-T8", f"{name} minus {twin} | max black-box", found)
    if kind == "ens3":
        gain = ratios[name] - ratios[twin]
        found = evidence.Measurement(
            gain.mean(),
            interval(boot[name] - boot[twin]),
            len(points),
            seeds_of[name],
            per_seed=gain,
            fidelity=fidelity(name, stand_in=True, ratio=True),
        )
        ledger.record("EAT-R", f"{name} minus {twin} | ratio, MNIST", found)
        row = "two-step I-FGSM minus R+FGSM"
        one_random = errors[name, "R+FGSM white-box"]
        two_honest = error_under(name, two_steps)
        record("EAT-X3", row, name, two_honest, one_random, gap)
    if kind == "ens3" and complete:
        iterated_errors = error_under(name, many_steps)
        for row, white_box in {
            "white-box PGD minus strongest black-box error": iterated_errors,
            "white-box R+FGSM minus strongest black-box error": one_random,
        }.items():
            record("EAT-X3", row, name, white_box, highest(black[name]), gap)
        s = seeds[0]
        from_all = [
            ~evaluation.judged(
                nets[name, s],
                evaluation.crafted(everyone[s], attack, test),
                test.labels,
            ).numpy()
            for attack in suite.values()
        ]
        found = evidence.difference(
            highest(np.stack(from_all)[:, None]),
            highest(black[name][:, :1]),
            seeds=[s],
            fidelity="reduced",
            note="one seed",
        )
        row = "ensemble of holdouts minus best single holdout"
        ledger.record("EAT-X4", f"{name} | {row}", found)
        print(
            f"{name:14} {100 * one_random.mean():7.1f}"
            f" {100 * two_honest.mean():10.1f} {100 * iterated_errors.mean():6.1f}"
            f" {found.value:+18.1f}"
        )

# %% [markdown]
# ### What it costs, and what an input dropout does instead
#
# With $n - 1$ static sources only one batch in $n$ needs the gradient of the current model, but training converges more
# slowly. Appendix C.2 asks whether B owes its trustworthy gradients to the dropout on its pixels, and finds that the same
# dropout helps A, C and D only marginally.


# %% tags=["hide-input"]
class Counting(torch.nn.Linear):
    """A linear model that counts how often it is run."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x.flatten(1))


torch.manual_seed(0)
batches, counting = 4000, Counting(784, 10)
static = [Counting(784, 10), Counting(784, 10), Counting(784, 10)]
objective = EnsembleAdversarial(eps=run.epsilon, sources=tuple(static))
for _ in range(batches):
    objective(counting, train.images[:1], train.labels[:1], 0.0)
drawn = (
    counting.calls - batches
)  # a batch runs the model once, and once more as a source
share = evidence.Measurement(
    drawn / batches, wilson(drawn, batches), batches, [0], fidelity="exact"
)
row = "batches that need the current model's attack gradient"
ledger.record("EAT-X6", f"A_adv-ens3 | {row}", share)
print(
    f"share of batches that need the current model's gradient: {share.value:.3f}"
)

# %% tags=["hide-input"]
if film:
    first_epoch = {
        name: np.stack(
            [
                ~evaluation.judged(
                    stills[f"{name}, epoch 1", s], test.images, test.labels
                ).numpy()
                for s in seeds
            ]
        )
        for name in films
    }
    slower = evidence.difference(
        first_epoch[f"{hardened}-ens"],
        first_epoch[hardened],
        seeds=seeds,
        fidelity=fidelity(hardened),
    )
    if standard == "C":
        ledger.record(
            "EAT-X6",
            "C_adv-ens minus C_adv | clean error after one epoch",
            slower,
        )
    print(
        f"clean error after one epoch: {slower.value:+.2f} points with a static source"
    )

# %% tags=["hide-input"]
jobs = {}
for name in (a for a in run.input_dropout if a in targets):
    label = f"{name}_adv-input-dropout"
    seeds_of[label] = seeds_large
    for s in seeds_of[label]:
        jobs[label, s] = adversarial_recipe(name).replace(
            architecture=f"{RECIPES[name]}_input_dropout"
        )
nets |= train_models(jobs)
row = "highest transferred FGSM error, with minus without input dropout"
for label in filter(trained, dict.fromkeys(label for label, _ in jobs)):
    twin = label.removesuffix("-input-dropout")
    transferred = highest(
        np.stack([error_on(label, from_source(src)) for src in sources])
    )
    without = best_transfer[twin][: len(transferred)]
    found = gap(
        transferred,
        without,
        seeds=seeds_of[label],
        fidelity=fidelity(label),
    )
    ledger.record("EAT-X5", f"{twin} | {row}", found)
    print(
        f"{label}: transferred error {100 * transferred.mean():.1f}%,"
        f" without it {100 * without.mean():.1f}%"
    )

# %% [markdown]
# ### What theory says
#
# Theorem 1 bounds what a defender can hope for. Let training see attacks from a set of sources, and let the holdout attack
# be another distribution over perturbations. The risk under the holdout attack is at most the training risk, plus a
# complexity term that shrinks with the sample, plus the distance between the holdout attack and the mixture of attacks
# seen in training. It says why *diverse* static sources help, and it says nothing about white-box attacks: no mixture of
# static sources is near an attack that reads the model's own weights. A bound with unknown distances has no number to
# measure, so it stands here as text.

# %% [markdown]
# ## A trap: training on the random step
#
# If R+FGSM sees through masking, why not train on it? Appendix C.2 does: the model becomes robust to R+FGSM and
# not to PGD. Both numbers are accuracies, as in the paper.

# %%
trapped = "A" if "A" in targets else standard
seeds_of["R+FGSM"] = seeds[:1]
nets |= train_models(
    {
        ("R+FGSM", seeds[0]): standard_recipe(trapped).replace(
            objective=Adversarial(
                attack=attacks.RFGSM(eps=run.epsilon, dtype=dtype)
            ),
            epochs=run.epochs_rfgsm,
        )
    }
)
pgd20 = attacks.PGD(
    threat=Linf(eps=run.epsilon),
    steps=20,
    step_size=run.epsilon / 15,
    dtype=dtype,
)
accuracies = {
    "accuracy under R+FGSM": rfgsm,
    "accuracy under PGD-20": pgd20,
}
for row, attack in accuracies.items() if trained("R+FGSM") else ():
    found = evidence.rate(
        evaluation.evaluate(
            nets["R+FGSM", seeds[0]], attack, test
        ).attacked.numpy(),
        seeds=seeds[:1],
        fidelity="reduced",
        note=f"{run.epochs_rfgsm} epochs, one seed",
    )
    if trapped == "A":
        ledger.record("EAT-RF", f"A_R+FGSM | {row}", found)
    print(
        f"{trapped} after {run.epochs_rfgsm} epochs on R+FGSM: {row} {found.value:.1f}%"
    )

# %% [markdown]
# ## Is MNIST the right place to look?
#
# Appendix E: most pixels of MNIST are black or white. A model that first rounds them at 0.5 sees a perturbation of
# $\epsilon = 0.3$ only where a pixel lies between 0.2 and 0.8, and those are few; no adversarial training is needed. A
# rotation by 20 degrees makes pixels grey and undoes the defence; five pixels chosen at random and inverted add to it.
# What looks like robustness is a property of the pixels. (The embedded digits of `quick` are grey: there this shows
# nothing.)

# %%
pixels = train.images.flatten().numpy()
shares = {
    "training pixels equal to 0 or 1": (pixels == 0) | (pixels == 1),
    "training pixels in [0.2, 0.8]": (pixels >= 0.2) & (pixels <= 0.8),
}
on_mnist = run.dataset == "mnist" and whole
for row, found in shares.items():
    share = evidence.rate(
        found, seeds=[0], fidelity="exact" if on_mnist else "reduced"
    )
    ledger.record("EAT-C1", row, share)
    print(f"{row}: {share.value:.1f}%")

# %% [markdown]
# Two models are compared: A, trained on rounded images, behind the threshold (where A is left out, D stands in and
# decides nothing), and the network of Madry et al. {cite:p}`madry2018towards`, trained on PGD examples. The threshold has
# gradient zero, so the attack pretends, once that it is not there, once that it is a steep sigmoid, and the better of the
# two counts for each image. All the adversary can do is to flip pixels near 0.5: a greedy search over flips bounds the
# error from below, verification with interval bounds from above. As in the paper, some rows are errors, some accuracies.


# %%
def binary(images):
    return (images >= 0.5).to(images.dtype)


def rotated(images, degrees):
    """Rotated about the centre, bilinearly, with black corners."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = torch.tensor([[c, -s, 0.0], [s, c, 0.0]], dtype=torch.float32)
    grid = F.affine_grid(turn.expand(len(images), 2, 3), images.shape, False)
    return F.grid_sample(images, grid, align_corners=False).clamp(0, 1)


def with_flips(images, count):
    """Inverted at randomly chosen pixels: x becomes 1 - x."""
    scores = torch.rand(
        images.shape, generator=torch.Generator().manual_seed(0)
    )
    picked = scores.flatten(1).topk(count, dim=1).indices
    return (
        images.flatten(1)
        .scatter(1, picked, 1 - images.flatten(1).gather(1, picked))
        .view_as(images)
    )


core = "A" if "A" in sources else "D"
rounded = networks.train_all(
    {("core", seeds[0]): standard_recipe(core)},
    train.changed(binary(train.images)),
    device=run.device,
)
madry_recipe = defences.recipe("madry_mnist_fast")
rounded |= networks.train_all(
    {
        ("Madry net", seeds[0]): madry_recipe.replace(
            epochs=run.epochs_madry,
            objective=dataclasses.replace(
                madry_recipe.objective,
                eps=run.epsilon,
                step_size=run.epsilon / 2,
                dtype=dtype,
            ),
            batch_size=min(madry_recipe.batch_size, len(train)),
            dtype=dtype,
        )
    },
    train,
    device=run.device,
)
pixel_nets = {name: net for (name, _), net in rounded.items()}
core_net = pixel_nets.pop("core", None)
threshold = "binarised CNN"
behind = {}  # the core behind the threshold, by what replaces its gradient
if core_net is not None:
    behind = {
        slope: artifacts.composed(
            torch.nn.Sequential, models.Binarise(slope), core_net
        )
        for slope in (None, 20.0)
    }
    pixel_nets = {threshold: behind[None], **pixel_nets}


# %% tags=["hide-input"]
few = test.first(min(run.pixel_points, len(test)))
rotated_few = few.changed(rotated(few.images, 20))
rotated_flipped = rotated_few.changed(with_flips(rotated_few.images, 5))
persistent = attacks.IFGSM(
    eps=run.epsilon, steps=run.ratio_steps, dtype=dtype
)


def stands(net, images):
    """Which examples withstand I-FGSM; the thresholded model under either surrogate gradient."""
    twins = behind.values() if net is behind.get(None) else (net,)
    return np.all(
        [
            evaluation.evaluate(twin, persistent, images).attacked.numpy()
            for twin in twins
        ],
        axis=0,
    )


def right(net, images):
    return evaluation.judged(net, images.images, images.labels).numpy()


measured = {  # model -> what -> bool [images]
    label: {
        "clean error, rotated by 20 degrees": ~right(net, rotated_few),
        "accuracy, rotated by 20 degrees, I-FGSM": stands(net, rotated_few),
        "accuracy, rotated, 5 flipped pixels, I-FGSM": stands(
            net, rotated_flipped
        ),
    }
    for label, net in pixel_nets.items()
}
if core_net is not None:
    x, y = few.images, few.labels
    greedy = artifacts.later(flips.greedy_flips, core_net, x, y, run.epsilon)
    low, high = (
        (x + shift).clamp(0, 1) for shift in (-run.epsilon, run.epsilon)
    )
    verified = artifacts.kept(
        bounds.verified, core_net, binary(low), binary(high), y
    )
    measured[threshold] |= {
        "error under white-box I-FGSM, eps 0.3": ~stands(behind[None], few),
        "error under a greedy search of flips, eps 0.3 (a lower bound)": ~(
            evaluation.judged(core_net, greedy, y).numpy()
        ),
        "verified error, eps 0.3 (an upper bound)": ~verified.numpy(),
    }
for label, rows in measured.items():
    print(label)
    for row, outcomes in rows.items():
        found = evidence.rate(
            outcomes,
            seeds=seeds[:1],
            fidelity="reduced",
            note="one seed",
        )
        if core == "A" or label != threshold:
            ledger.record("EAT-C1", f"{label} | {row}", found)
        print(f"  {row}: {found.value:.1f}%")

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-pixels", "caption": "What the threshold sees. From top: test images; their FGSM examples on the model behind the threshold; those after rounding; the images rotated by 20 degrees; the rotated images rounded."}, "image": {"alt": "Five rows of eight digits: clean, attacked, attacked and rounded, rotated, rotated and rounded."}}
rows = {"clean": shown.images}
if core_net is not None:
    attacked = evaluation.crafted(behind[None], fgsm, shown)()
    rows |= {"attacked": attacked, "attacked,\nrounded": binary(attacked)}
rows["rotated"] = rotated(shown.images, 20)
rows["rotated,\nrounded"] = binary(rows["rotated"])
figures.gallery(rows)
# %% [markdown]
# ## Can these numbers be trusted? Sanity
#
# Robust accuracy must never rise with $\epsilon$, and an undefended model must fall to iterated attacks. Multi-step PGD and R+FGSM are compared with FGSM over a range of radii, on the first seed.

# %%
radii = [
    round(run.epsilon * share, 3)
    for share in (0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3)
    if run.epsilon * share <= 1
]


def error_rate(name, attack):
    return evaluation.evaluate(
        nets[name, seeds[0]], attack, probe
    ).error_rate()


sweep = {
    name: {
        "FGSM": [error_rate(name, attacks.FGSM(eps=eps)) for eps in radii],
        "R+FGSM": [error_rate(name, attacks.RFGSM(eps=eps)) for eps in radii],
        "PGD": [error_rate(name, pgd(eps)) for eps in radii],
    }
    for name in (standard, hardened)
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-sweep", "caption": "Error over the radius of the attack for a standard model and its adversarially trained twin, first seed, with 95% Wilson intervals. PGD lies on top in both; on a masked model FGSM stays low while the other two climb."}, "image": {"alt": "Two line plots of error rate over epsilon for FGSM, R+FGSM and PGD: the standard model on the left, the adversarially trained one on the right."}}
figures.curves(radii, sweep, xlabel=r"radius $\epsilon$", ylabel="error (%)")
# %% [markdown]
# ### A diagnosis for every model
#
# The same question for every model: is there an attack that knows less and still finds more errors? Transferred examples
# know nothing of the model; the square attack {cite:p}`andriushchenko2020square` asks for its outputs only. Where one of
# them beats the gradient, the verdict is *masked*; where only a random step first does, *suspicious*; else *not masked*,
# which says no more than that these attacks found nothing. The ratio is a quick one, in percent: one restart, on the
# first images, first seed.

# %% tags=["hide-input"]
strangers = {
    src: evaluation.crafted(nets[src, other_seed[seeds[0]]], fgsm, probe)
    for src in sources
}


def diagnose(net, apart_from=()):
    return masking.diagnose(
        net,
        probe,
        eps=run.epsilon,
        transferred={
            f"transfer from {src}": images
            for src, images in strangers.items()
            if src not in apart_from
        },
        steps=min(40, run.ratio_steps),
        queries=run.queries,
        dtype=dtype,
    )


diagnoses = {
    name: diagnose(nets[name, seeds[0]], [name])
    for name in (*names, *ensembles)
}
print("error (%)        FGSM  R+FGSM     PGD  square   ratio  verdict")
for name, seen in diagnoses.items():
    rates = [
        verdicts.error_rate().percent
        for verdicts in (
            seen.single_step,
            seen.random_step,
            seen.iterated,
            seen.gradient_free,
        )
    ]
    print(
        f"{name:13} {''.join(f'{rate:8.1f}' for rate in rates)}{seen.ratio:8.1f}  {seen.sentence().split(':')[0]}"
    )
verdict = f"{hardened} is {diagnoses[hardened].sentence()}"
print(f"\n{textwrap.fill(verdict, 70)}")

# %% [markdown]
# What must hold in any sound evaluation is asserted; a small slack covers images that happen to be lucky.

# %% tags=["hide-input"]
for name in sources:
    assert errors[name, "clean"].mean() < 0.6, (
        f"{name} has not learned its task"
    )
    fallen = diagnoses[name].iterated.error_rate()
    assert (
        fallen.percent >= diagnoses[name].single_step.error_rate().percent - 2
    ), f"{name}: PGD is weaker than FGSM"
    assert run.epsilon < 0.3 or fallen.percent > 90, (
        f"{name} is undefended and yet {fallen} under PGD"
    )
for name, curve in sweep.items():
    climb = np.diff([found_.percent for found_ in curve["PGD"]])
    assert (climb >= -2).all(), (
        f"{name}: a larger radius made PGD weaker, {climb}"
    )

# %% [markdown]
# ## Results

# %% tags=["hide-input"]
results = ledger.results(
    not_run_note="next: not trained in this edition yet",
    **run.provenance(train=train.fingerprint, test=test.fingerprint),
)
published = (
    evidence.published("ensemble_adversarial_training")
    if not run.is_evidence
    else results
)
this_run = None if run.is_evidence else results
scoreboard.comparison_table(
    this_run,
    published,
    ["EAT-T6", "EAT-R", "EAT-C"],
    select=lambda row: "v3" not in row and "IRv2" not in row,
)

# %% [markdown]
# Standard models of Table 7, and how far each attack gets:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    this_run, published, ["EAT-T7"], select=lambda row: "_adv" not in row
)

# %% [markdown]
# Adversarially trained models of Table 7, and the two gaps that show masking:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    this_run, published, ["EAT-T7"], select=lambda row: "_adv |" in row
)

# %% [markdown]
# Table 8, training on static sources:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(this_run, published, ["EAT-T8"])

# %% [markdown]
# Everything else that MNIST can answer:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    this_run,
    published,
    [
        "EAT-L6",
        "EAT-L7",
        "EAT-F2",
        "EAT-F5",
        "EAT-RF",
        "EAT-C1",
        *(f"EAT-X{i}" for i in range(1, 7)),
    ],
)

# %% [markdown]
# ````{admonition} About the published run
# The published edition was made at the profile {glue:text}`profile`. Of its rows, {glue:text}`glance`. The heart of it,
# the paper's numbers in brackets:
#
# ```{glue} heart
# ```
#
# *Masking, seen from outside.* The second line is how many more errors the strongest transferred step makes than the
# white-box single step. *Seen from inside:* the third line is how many more a random step adds, the fourth the share of
# the reachable loss that the single step reaches. The cosine of single and iterated step falls (fifth line); the norm of
# the gradient, which the paper reports not to shrink on ImageNet, shrinks here on all but B\* (sixth).
#
# *Transfer.* The transferred error on standard targets changes by
# {glue:text}`EAT-X1-mean-transferred-FGSM-error-adversarially-trained-minus-standard-sources` when the source is an
# adversarially trained model, and over all targets by {glue:text}`EAT-X2-mean-transferred-error-RplusFGSM-minus-FGSM`
# when a random step comes first.
#
# *Static sources.* The last lines are the error under the strongest of the twelve transferred attacks, what static
# sources change in it, what three of them change in the approximation ratio, and how many more errors the white-box PGD
# makes even then. On A and C static sources lower the strongest transferred error, three of them more than one (the
# three seeds of C_adv-ens lie too far apart to be sure of one); on B and D there is no such gain. One source changes
# the clean error of C after one epoch by {glue:text}`EAT-X6-C_adv-ens-minus-C_adv-clean-error-after-one-epoch`: if it
# slows training down, one epoch is too long to show it. A single static source of the model's own architecture does not
# end the masking of C_adv: the diagnosis above finds it in C_adv-ens as well.
#
# *The trap.* A, trained on R+FGSM examples, keeps {glue:text}`EAT-RF-A_RplusFGSM-accuracy-under-RplusFGSM` of the test
# images under R+FGSM and {glue:text}`EAT-RF-A_RplusFGSM-accuracy-under-PGD-20` under PGD.
#
# *Input dropout* changes the highest transferred error of A_adv by
# {glue:text}`EAT-X5-A_adv-highest-transferred-FGSM-error-with-minus-without-input-dropout`, of C_adv by
# {glue:text}`EAT-X5-C_adv-highest-transferred-FGSM-error-with-minus-without-input-dropout` and of D_adv by
# {glue:text}`EAT-X5-D_adv-highest-transferred-FGSM-error-with-minus-without-input-dropout`: far more than marginal on C,
# though on one training of each only.
#
# *Pixels.* Behind the threshold A makes
# {glue:text}`EAT-C1-binarised-CNN-error-under-white-box-I-FGSM-eps-0.3` errors under I-FGSM without any adversarial
# training; rotated by 20 degrees it keeps {glue:text}`EAT-C1-binarised-CNN-accuracy-rotated-by-20-degrees-I-FGSM`, and the
# Madry network {glue:text}`EAT-C1-Madry-net-accuracy-rotated-by-20-degrees-I-FGSM`.
# ````

# %% [markdown]
# ### What did not match, and what we tried: the size of the random step
#
# The paper's formula for R+FGSM has $\alpha = \epsilon/2$, stated for ImageNet; for MNIST it names no value, and the
# authors' code has 0.05 as its default. The formula was chosen before the run and decides the verdicts. This is the
# other reading, measured on the same models and images, scaled with the radius ($\epsilon/6$ is 0.05 at 0.3):

# %%
small_step = attacks.RFGSM(eps=run.epsilon, alpha=round(run.epsilon / 6, 4))
print("R+FGSM error (%)   paper   alpha = eps/2   alpha = eps/6")
for name in (n for n in names if "_adv" in n):
    variant = 100 * error_under(name, small_step).mean()
    half = 100 * errors[name, "R+FGSM white-box"].mean()
    row = stated["EAT-T7", f"{name} | R+FGSM white-box"]
    print(f"{name:17} {row:6.1f} {half:15.1f} {variant:15.1f}")

# %% [markdown]
# ```{admonition} About the published run
# With $\alpha = \epsilon/2$ the random step uncovers more on A_adv, C_adv and D_adv than the paper reports; with the
# default of the authors' code all rows but one come within three points of the paper's, and B\*_adv falls below its own.
# The MNIST column of the paper was most likely made with the code's default. The finding itself, that a random step
# defeats the masking, does not depend on it.
# ```

# %% [markdown]
# ### What did not match, and what we tried: which five pixels
#
# The paper does not say how the five flipped pixels are chosen. Chance was fixed before the run and decides the verdicts.
# An adversary would choose: here are the five whose inversion raises the loss most, to first order in the pixel.


# %%
def with_chosen_flips(net, images, count):
    """Inverted where the gradient promises most: x becomes 1 - x."""
    x = images.images.flatten(1)
    picked = artifacts.kept(
        flips.most_promising, net, images.images, images.labels, count
    )
    flipped = x.scatter(1, picked, 1 - x.gather(1, picked))
    return images.changed(flipped.view_as(images.images))


for label, net in pixel_nets.items():
    chosen_flips = with_chosen_flips(net, rotated_few, 5)
    print(
        f"{label:13} with 5 chosen pixels: accuracy"
        f" {100 * right(net, chosen_flips).mean():.1f}%,"
        f" under I-FGSM {100 * stands(net, chosen_flips).mean():.1f}%"
    )

# %% [markdown]
# ## Where we deviate, and why
#
# | point | here | why | kind |
# | --- | --- | --- | --- |
# | seeds | three trainings of every model, of the adversarially trained A and B one, and one for input dropout, directions, rounding, R+FGSM training and the ensemble of holdouts; means are reported | the paper reports one number and does not say of how many runs; A and B need hours on two cores | exact; with one seed reduced |
# | statements on ImageNet | cosine, norm, gain in ratio, weaker and random transfer, remaining weakness: measured on MNIST | ImageNet cannot be had here | substitution |
# | B and B\* | strides 2, 2, 1 | the table does not give them, the authors' code does | exact |
# | static sources | A, C and D for A, C and D; B, C and D for B; another seed than the model and its attackers | the text names both sets and not which model has which | exact |
# | PGD-CW | 40 steps of $\epsilon/30$ from a random start on the margin up to 50 | the number of steps is not stated; as Madry et al. | exact |
# | ensemble of holdouts | the mean of their softmax outputs is attacked, on the first seed | the paper does not say how they are combined | reduced |
# | directions | MNIST, models A and C, 500 images | ImageNet cannot be had here | substitution |
# | R+FGSM-trained model | adversarial images only, no clean ones; epochs as printed | the paper refers to Madry et al.; 100 epochs are hours on two cores | reduced below 100 epochs |
# | rounding | first 1,000 test images; the gradient of the step function is replaced by that of $x$ and by that of a sigmoid, either may win | its own gradient is zero everywhere | exact |
# | transfer | the source has another seed than its target | a source that shares initialisation and data order with its target would not be a black box | exact |
# | Madry network | 5 epochs on examples of 3 steps and a growing radius, first seed | 100 epochs on 40 steps are a day on two cores | reduced |
# | precision | forward and backward passes in bfloat16 where the processor has it, weights and updates in float32 | speed. Single steps are attacked in float32 and every verdict is float32's; the robust accuracy of PGD differs by at most 0.2 points on 10,000 paired images (`benchmarks/`) | exact |
# | C | tanh after pooling instead of before | the same function, since tanh is monotone; a quarter of the work | exact |
# | D | dropout after each of the four layers, He initialisation | the table's brace is ambiguous, the authors' code is not | code variant |
# | R+FGSM | $\alpha = \epsilon/2$ | the paper's formula; the code's default for MNIST is measured beside it | exact |
# | ratio | first 1,000 test images, 100 steps of $\epsilon/30$, 5 restarts, ratio of means | number of points, step and kind of average are not stated | exact |
# | last batch | topped up from the start of the epoch's order | as in the authors' code | exact |
#
# Rows that are *not run* name what they need. Nothing was tuned on the test set. Architectures, batch size and radius
# are the paper's, and so are the epochs, except where the table says otherwise.

# %% [markdown]
# ## Your own model
#
# With `-p model package.module:function -p weights file.safetensors` the diagnosis of the sanity section is made of your
# model. The function takes no arguments and returns a network from 28x28 images, pixels in $[0, 1]$, to logits of the
# data set's classes. Choose the set it was trained on with `-p dataset`.

# %% tags=["hide-input"]
if own is None:
    print("no model was given")
else:
    seen = diagnose(own.to(run.device))
    found = (
        f"{run.model} on {len(probe)} images of {run.dataset}, PGD of"
        f" {min(40, run.ratio_steps)} steps, square attack of {run.queries}"
        f" queries: {seen.sentence()}"
    )
    print(textwrap.fill(found, 70))
    print(
        f"approximation ratio {seen.ratio:.1f}%,"
        f" cosine of single and iterated step {seen.cosine:.3f},\n"
        f"gradient norm {seen.gradient_norm:.4f}"
    )
    for label, verdicts in {
        "FGSM": seen.single_step,
        "R+FGSM": seen.random_step,
        "PGD": seen.iterated,
        "square attack": seen.gradient_free,
        **seen.transferred,
    }.items():
        print(f"  {label:18} {verdicts.error_rate()}")

# %% [markdown]
# ## Try it yourself
#
# ```bash
# # everything at a smaller radius (a minute; embedded digits, which show no masking)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p epsilon 0.1
#
# # does masking set in at a smaller radius? (15 minutes on two cores)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p profile standard \
#     -p architectures D -p ensembles ens -p epsilon 0.1
#
# # clothes instead of digits
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p profile standard \
#     -p dataset fashion_mnist -p architectures D -p ensembles ens -p epsilon 0.1
#
# # can the gradients of your own MNIST model be trusted? (my_models.py in the current folder, or on Python's path)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p dataset mnist -p n_test 1000 \
#     -p n_train 60000 -p ratio_steps 40 -p queries 1000 -p model my_models:build -p weights mine.safetensors
# ```
#
# **Exercise 1.** Which $\alpha$ makes R+FGSM strongest on a masked model, and which on a standard one?
#
# ```{dropdown} Solution
# In the notebook, at the standard profile: `error_rate(hardened, attacks.RFGSM(eps=run.epsilon, alpha=alpha))`, and the
# same with `standard`, for a few `alpha` from 0 to `run.epsilon`. Noise costs a standard model's attacker nothing at
# first, then the gradient step gets too short. On a masked model the error rises first: the random step must leave the
# neighbourhood that training has bent, and what is left must still reach the boundary.
# ```
#
# **Exercise 2.** Is the masked model robust once it is attacked properly?
#
# ```{dropdown} Solution
# `attacks.PGD(threat=Linf(eps=0.3), steps=40, step_size=0.02)` starts at a random point and takes many steps, so
# it is not fooled by the bend at $x$. The sanity section draws its error over the radius beside that of the single
# step: what lies between the two curves is the robustness that was only apparent.
# ```

# %% tags=["remove-cell"]
quotable = published or results
glue("at-a-glance", scoreboard.glance_table(quotable), display=False)
quoted = scoreboard.glue_values(quotable)
for key in ("profile", "glance"):
    glue(key, quoted[key], display=False)
for row in (
    "EAT-X1-mean-transferred-FGSM-error-adversarially-trained-minus-standard-sources",
    "EAT-X2-mean-transferred-error-RplusFGSM-minus-FGSM",
    "EAT-X6-C_adv-ens-minus-C_adv-clean-error-after-one-epoch",
    "EAT-RF-A_RplusFGSM-accuracy-under-RplusFGSM",
    "EAT-RF-A_RplusFGSM-accuracy-under-PGD-20",
    *(
        f"EAT-X5-{a}_adv-highest-transferred-FGSM-error-with-minus-without-input-dropout"
        for a in "ACD"
    ),
    "EAT-C1-binarised-CNN-error-under-white-box-I-FGSM-eps-0.3",
    "EAT-C1-binarised-CNN-accuracy-rotated-by-20-degrees-I-FGSM",
    "EAT-C1-Madry-net-accuracy-rotated-by-20-degrees-I-FGSM",
):
    glue(row, quoted[row], display=False)
heart = {
    "FGSM, white-box": ("EAT-T7", "{0}_adv | FGSM white-box"),
    "transferred minus white-box": (
        "EAT-T7",
        "{0}_adv | masking gap, all sources",
    ),
    "R+FGSM minus FGSM": ("EAT-T7", "{0}_adv | R+FGSM minus FGSM"),
    "approximation ratio": ("EAT-T6", "{0}_adv | ratio"),
    "single against iterated step, minus its twin's": (
        "EAT-C",
        "{0}_adv minus {0} | cosine, MNIST",
    ),
    "gradient, minus its twin's": (
        "EAT-C",
        "{0}_adv minus {0} | mean gradient norm, MNIST",
    ),
    "strongest black box": ("EAT-T8", "{0}_adv | max black-box"),
    "the same, ens minus adv": (
        "EAT-T8",
        "{0}_adv-ens minus {0}_adv | max black-box",
    ),
    "the same, ens3 minus adv": (
        "EAT-T8",
        "{0}_adv-ens3 minus {0}_adv | max black-box",
    ),
    "approximation ratio, ens3 minus adv": (
        "EAT-R",
        "{0}_adv-ens3 minus {0}_adv | ratio, MNIST",
    ),
    "white-box PGD minus black box, ens3": (
        "EAT-X3",
        "{0}_adv-ens3 | white-box PGD minus strongest black-box error",
    ),
}
glue(
    "heart",
    scoreboard.grid_table(quotable, "adversarially trained", heart, ALL),
    display=False,
)
display({"application/vnd.robustutils.results+json": results}, raw=True)
