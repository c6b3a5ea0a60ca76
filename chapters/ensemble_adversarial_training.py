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
# gradient points nowhere useful, while adversarial examples remain, and examples made on *another* model find them.
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
# **Notation.** $h$ is the model, $L(h(x), y)$ the cross-entropy, $x^{adv}$ an adversarial example. $X$ stands for an
# architecture of the paper (A, B, B\*, C, D), $X_{adv}$ for the model of that architecture trained on its own single-step
# examples. Error rates are over *all* test images, clean mistakes included, as in the paper.

# %% tags=["parameters"]
profile = "quick"  # quick, standard or paper: sets every None below
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
ratio_steps = None  # steps of the strongest attacks
ratio_restarts = None  # restarts of its strongest attack
seed = None  # first training seed
n_seeds = None  # number of training seeds
n_seeds_large = None  # of the adversarially trained A and B
input_dropout = (
    None  # some of "A, C, D": those also trained with input dropout
)
directions_points = None  # test images whose directions are counted
pixel_points = None  # test images attacked behind a threshold on the pixels
queries = None  # of the gradient-free attack
model = None  # your own model, package.module:function
weights = None  # its weights, a safetensors file
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
import dataclasses

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from myst_nb import glue
from robustutils import (
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
    runs,
    scoreboard,
    subspaces,
)
from robustutils.intervals import wilson
from robustutils.objectives import Adversarial, EnsembleAdversarial
from robustutils.threats import Linf

figures.use_style()

# %% [markdown]
# A profile is a set of defaults; `quick` runs anywhere in seconds and is *not evidence*, `standard` is the paper's
# protocol on two CPU cores. Unknown names and values out of range stop the chapter here.

# %%
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
        "epochs_adv": (5, 12, 12, runs.Between(1, 1000)),
        "epochs_rfgsm": (3, 6, 100, runs.Between(1, 1000)),
        "epochs_madry": (1, 5, 5, runs.Between(1, 1000)),
        "n_train": (960, 60000, 60000, runs.Between(64, 60000)),
        "n_test": (200, 10000, 10000, runs.Between(10, 10000)),
        "ratio_points": (100, 1000, 10000, runs.Between(10, 10000)),
        "ratio_steps": (10, 100, 100, runs.Between(1, 10000)),
        "ratio_restarts": (1, 5, 5, runs.Between(1, 100)),
        "seed": (0, 0, 0, runs.Between(0, 10**6)),
        "n_seeds": (1, 3, 3, runs.Between(1, 20)),
        "n_seeds_large": (1, 1, 3, runs.Between(1, 20)),
        "input_dropout": ("D", "C,D", "A,C,D", runs.SomeOf(("A", "C", "D"))),
        "directions_points": (10, 500, 500, runs.Between(1, 10000)),
        "pixel_points": (50, 1000, 10000, runs.Between(2, 10000)),
        "queries": (20, 300, 5000, runs.Between(1, 10**6)),
        "model": (None, None, None, runs.Text()),
        "weights": (None, None, None, runs.Text()),
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
standard = "C" if "C" in targets else targets[-1]  # shown where one is enough
hardened = f"{standard}_adv"
own = models.load(run.model, run.weights) if run.model else None
dtype = (
    torch.float32 if run.profile == "quick" else runs.fast_dtype(run.device)
)
seeds = list(run.seeds)
print(
    f"profile {run.profile}, {run.device}, training in {dtype}, seeds {seeds}"
)

# %% [markdown]
# ## What the paper says, and what would count as agreement
#
# The claims measured here, each with the criterion that decides it. *Within* compares a table cell with the paper's
# number; *greater* and *less* ask whether the 95% interval of an effect excludes none.

# %% tags=["nbval-check-output", "hide-output"]
claims = evidence.Claims.load(
    runs.repository()
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
# The attack aims away from the model's own prediction $\hat y$, not from the label, so that the label cannot leak into
# the example; dropout stays active while it is made, and no gradient flows through it. Adam at $10^{-3}$, batches of
# 64, 6 epochs (12 adversarial).

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
    """The trained models by (name, seed); tiny trainings are over before a worker has started."""
    workers = 1 if run.profile == "quick" else None
    return defences.train_all(jobs, train, device=run.device, workers=workers)


names = [
    label
    for name in sources
    for label in ((name, f"{name}_adv") if name in targets else (name,))
]
large = min(run.n_seeds_large, run.n_seeds)
seeds_of = {
    name: seeds[:large] if name in ("A_adv", "B_adv") else seeds
    for name in names
}
nets = train_models(
    {
        (name, s): adversarial_recipe(name[:-4])
        if "_adv" in name
        else standard_recipe(name)
        for name in names
        for s in seeds_of[name]
    }
)

# %% [markdown]
# Every number below is a mean over the training seeds, on the same test images for every model. A model attacked with
# examples from another one never shares that one's seed (with a single seed, as in `quick`, it has to).

# %%
ledger = evidence.Ledger(claims, run.profile)
settings = (run.n_train, run.n_test, run.epochs, run.epochs_adv, run.epsilon)
whole = settings == (60000, 10000, 6, 12, 0.3)
strongest_attack = (run.ratio_steps, run.ratio_restarts) == (
    100,
    5,
)  # for the ratio
other_seed = dict(zip(seeds, seeds[1:] + seeds[:1], strict=True))
third_seed = {
    s: other_seed[other_seed[s]] for s in seeds
}  # of static training sources
errors = {}  # (model, attack) -> bool [seeds, test images]


def fidelity(name):
    """How close a run is to the paper's protocol; D follows the authors' code."""
    if not whole or len(seeds_of[name]) < 3:
        return "reduced"
    if run.dataset != "mnist":
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
            ~evaluation.correct(nets[name, s], images_of(s), test.labels)
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
# x' = x + \alpha\,\mathrm{sign}(\mathcal N(0, I)), \qquad
# x^{adv} = x' + (\epsilon - \alpha)\,\mathrm{sign}\,\nabla_{x'} L(h(x'), y).
# $$
#
# Half of the step is wasted on noise, so on an honest model R+FGSM is the weaker attack. If it is *stronger*, the
# gradient at $x$ itself is the problem.

# %%
fgsm = attacks.FGSM(eps=run.epsilon)
rfgsm = attacks.RFGSM(eps=run.epsilon)
for name in names:
    errors[name, "FGSM white-box"] = error_under(name, fgsm)
    errors[name, "R+FGSM white-box"] = error_under(name, rfgsm)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-gallery", "caption": "Test images and their adversarial examples at the run's radius. The single step on the standard model and on its adversarially trained twin, and the twin's answer to a random step first: the perturbations look alike, what they achieve does not."}, "image": {"alt": "Four rows of eight digits: clean, FGSM on the standard model, FGSM on the adversarially trained model, R+FGSM on the adversarially trained model."}}
shown = test.first(8)
examples = {
    "clean": shown.images,
    f"FGSM\non {standard}": evaluation.adversarial(
        nets[standard, seeds[0]], fgsm, shown
    ),
    f"FGSM\non {hardened}": evaluation.adversarial(
        nets[hardened, seeds[0]], fgsm, shown
    ),
    f"R+FGSM\non {hardened}": evaluation.adversarial(
        nets[hardened, seeds[0]], rfgsm, shown
    ),
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
# Each cell of the paper's Table 7 becomes a row. The effect that decides its direction is paired on the same images:
# for a standard model the attack's error minus its clean error, for an adversarially trained one its error minus that
# of its standard twin under the same attack.

# %%
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-masking", "caption": "Error of standard and adversarially trained models under the white-box single step (FGSM), the same with a random step first (R+FGSM), and the strongest transferred single step. Filled: this run, one dot a training seed; hollow diamonds: the paper (its strongest transfer among the same sources). A model whose gradients can be trusted has its FGSM dot on the right; a masked one has it on the left."}, "image": {"alt": "Dot plot of error rates in percent for each model under three attacks, with the paper's numbers as diamonds."}}
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
# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-transfer", "caption": "Transferred single steps: error of each target (line) on FGSM examples from each standard source (column), the paper's Table 7 and this run, in percent. Empty cells do not exist in the paper."}, "image": {"alt": "Two annotated matrices of error rates, six targets by three sources, the paper's on the left and this run's on the right."}}
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
# targets without any defence; and R+FGSM, stronger where it is computed, transfers *worse*. Each is the mean over all pairs
# of a standard source and another target, paired on the same images.


# %%
def transfer_differences(change, among):
    """Error under changed minus unchanged examples of each pair: a list of points [seeds, test images]."""
    return [
        100.0 * error_on(name, lambda s, a=src: change(a, s))
        - 100.0 * errors[name, f"FGSM from {src}"]
        for name in names
        if seeds_of[name] == seeds
        for src in among
        if src != name.removesuffix("_adv")
    ]


def from_defended(source, s):
    """FGSM examples of the source's adversarially trained twin, of the same seed where it was trained."""
    trained = seeds_of[f"{source}_adv"]
    seed = other_seed[s] if other_seed[s] in trained else trained[0]
    return evaluation.crafted(nets[f"{source}_adv", seed], fgsm, test)


fidelity_of_all = (
    "exact"
    if whole and len(seeds) >= 3 and targets == list(ALL)
    else "reduced"
)
for id, row, change, among in (
    (
        "EAT-X1",
        "mean transferred FGSM error, adversarially trained minus standard sources",
        from_defended,
        targets,
    ),
    (
        "EAT-X2",
        "mean transferred error, R+FGSM minus FGSM",
        lambda source, s: from_source(source, rfgsm)(s),
        sources,
    ),
):
    pairs = transfer_differences(change, among)
    if not pairs:
        print(f"{row}: needs a second architecture")
        continue
    found = evidence.mean(
        np.mean(pairs, axis=0), seeds=seeds, fidelity=fidelity_of_all
    )
    ledger.record(id, row, found)
    print(f"{row}: {found.value:+.1f} points")

# %% [markdown]
# ## Watching it happen
#
# A picture that the paper does not have: one model at several moments of its single-step adversarial training, without and
# with a static source. Where masking sets in, the error under the single step falls away from the error under the same
# step from a random point, while the multi-step attack goes on as if nothing had happened.

# %%
stages = (1,) if run.profile == "quick" else (1, 2, 4)
moments = [e for e in stages if e < run.epochs_adv] + [run.epochs_adv]
films = {
    hardened: adversarial_recipe(standard),
    f"{hardened}-ens": defences.with_sources(
        adversarial_recipe(standard), [nets[standard, third_seed[seeds[0]]]]
    ),
}
stills = train_models(
    {
        (f"{name}, epoch {epochs}", seeds[0]): recipe.replace(epochs=epochs)
        for name, recipe in films.items()
        for epochs in moments
    }
)
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-epochs", "caption": "Error under white-box attacks at several moments of training, first seed, with 95% Wilson intervals. Left: single-step adversarial training. Right: the same with a static source for half of the batches."}, "image": {"alt": "Two line plots of error rate over training epochs under FGSM, R+FGSM and PGD: adversarial training on the left, ensemble adversarial training on the right."}}
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
# although strong examples exist. The paper does not say whether it averages ratios or divides averages: the ratio of
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


def measure_ratio(name):
    """The approximation ratio of each seed, over all points and over each resample of them."""
    single, strong = (
        over_seeds(
            name,
            lambda s, a=attack: (
                evaluation.evaluate(nets[name, s], a, points).losses
            ),
        )
        for attack in (fgsm, strong_attack)
    )
    strong = np.maximum(single, strong)

    def ratio(chosen):
        return 100 * single[:, chosen].mean(1) / strong[:, chosen].mean(1)

    ratios[name] = ratio(slice(None))
    boot[name] = np.stack([ratio(chosen) for chosen in resamples])


def interval(values):
    """The central 95% of bootstrap values, averaged over seeds first."""
    return tuple(np.percentile(np.mean(values, axis=1), [2.5, 97.5]))


# %% [markdown]
# Intervals over the test points come from 1,000 bootstrap resamples; the effect of an adversarially trained model is
# its ratio minus that of its standard twin, on the same resamples.


# %%
def record_ratio(name):
    each = ratios[name]
    measurement = evidence.Measurement(
        each.mean(),
        interval(boot[name]),
        len(points),
        seeds_of[name],
        per_seed=each,
        fidelity=fidelity(name) if strongest_attack else "reduced",
        note=f"strongest attack: {run.ratio_steps} steps, {run.ratio_restarts} restarts",
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
    measure_ratio(name)
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
# A gradient can be useless by vanishing or by turning. On ImageNet the paper reports that the cosine between the
# perturbations of the single step and of an iterated attack falls, while the norm of the gradient grows: it turns. The
# same on MNIST, on the points of the approximation ratio:

# %%
iterated = attacks.IFGSM(eps=run.epsilon)


def turning(name):
    """Cosines and gradient norms of each point: two arrays [seeds, points]."""
    cosines = [
        masking.perturbation_cosines(
            evaluation.crafted(nets[name, s], fgsm, points),
            evaluation.crafted(nets[name, s], iterated, points),
            points.images,
        )
        for s in seeds_of[name]
    ]
    norms = [
        masking.gradient_norms(nets[name, s], points) for s in seeds_of[name]
    ]
    return np.stack(cosines), np.stack(norms)


print("               cosine   gradient norm")
turned = {name: turning(name) for name in names}
for name in names:
    cosines, norms = turned[name]
    print(f"{name:14} {cosines.mean():6.3f} {norms.mean():13.4f}")
    if "_adv" in name:
        twin = name.removesuffix("_adv")
        for row, ours, theirs in zip(
            ("cosine, MNIST", "mean gradient norm, MNIST"),
            turned[name],
            turned[twin],
            strict=True,
        ):
            change = ours - theirs[: len(ours)]
            found = evidence.mean(
                change, seeds=seeds_of[name], fidelity=fidelity(name)
            )
            ledger.record("EAT-C", f"{name} minus {twin} | {row}", found)

# %% [markdown]
# ## What the loss looks like around one image
#
# Figures 4 and 5 of the paper walk away from an image along two orthogonal signs: the gradient sign of the defended model
# itself, and that of another model. If the defended model's gradient is a local artefact, its loss grows fast along it for a
# short while and then less than along the other model's direction.

# %%
bent = "A" if "A" in targets else standard
guide = (
    "B" if "B" in sources else next((a for a in sources if a != bent), bent)
)
bent_net = nets[f"{bent}_adv", seeds[0]]
guide_net = nets[guide, other_seed[seeds[0]]]
on_own = over_seeds(
    f"{bent}_adv",
    lambda s: evaluation.evaluate(nets[f"{bent}_adv", s], fgsm, test).losses,
)
on_other = over_seeds(
    f"{bent}_adv",
    lambda s: evaluation.losses(
        nets[f"{bent}_adv", s], from_source(guide)(s), test.labels
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
print(f"{bent}_adv against {guide}: {higher.value:+.1f} points")


def gradient_sign(net, x, y):
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)
    return torch.where(gradient == 0, 1.0, gradient.sign())


def surface(net, x, y, along, across, steps):
    """The loss at clip(x + i along + j across) for all pairs of steps: [steps, steps]."""
    i, j = torch.meshgrid(steps, steps, indexing="ij")
    images = (
        x + i.reshape(-1, 1, 1, 1) * along + j.reshape(-1, 1, 1, 1) * across
    )
    images, labels = images.clamp(0, 1), y.expand(len(images))
    return (
        evaluation.losses(net, images, labels)
        .view(len(steps), len(steps))
        .numpy()
    )


hits = evaluation.correct(bent_net, probe.images, probe.labels).numpy()
wrong_turn = hits & (on_other[0, : len(probe)] > on_own[0, : len(probe)])
typical = int(wrong_turn.argmax())  # the first; image 0 where there is none
x = test.images[typical : typical + 1].to(run.device)
y = test.labels[typical : typical + 1].to(run.device)
along, across = gradient_sign(bent_net, x, y), gradient_sign(guide_net, x, y)
agreement = (
    along * across
).flatten()  # signs are flipped until the two are orthogonal
excess = int(agreement.sum()) // 2
flipped = (agreement == np.sign(excess)).nonzero().flatten()[: abs(excess)]
across = (
    across.flatten()
    .index_copy(0, flipped, -across.flatten()[flipped])
    .view_as(x)
)
panels = {}
for title, reach in {
    "whole ball": run.epsilon,
    "near": run.epsilon / 5,
}.items():
    steps = torch.linspace(0, reach, 51, device=run.device)
    panels[title] = (
        steps.cpu().numpy(),
        surface(bent_net, x, y, across, along, steps),
    )
cosine = F.cosine_similarity(along.flatten(), across.flatten(), 0)
print(f"test image {typical}, cosine of the two directions {cosine:.3f}")

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-surface", "caption": "The loss of an adversarially trained model around the first test image, classified correctly, where another model's direction raises it more (the first image where there is none): horizontal along its own gradient sign, vertical along the other model's, made orthogonal to it. Left the whole ball, right its inner fifth."}, "image": {"alt": "Two contour plots of the loss over two step sizes, for the whole ball and close to the image."}}
figures.contours(
    panels,
    xlabel="along its own gradient",
    ylabel="along the other model's",
    value="loss",
)
# %% [markdown]
# ## How many directions can be aligned with a gradient?
#
# To see whether a model has *many* adversarial directions, section 4.3 needs $k$ orthogonal perturbations that all climb
# the loss. Lemma 6 bounds how well they can all be aligned with one vector: by Bessel's inequality the squared
# cosines of orthogonal directions with a unit vector sum to at most one, so the smallest cosine is at most $k^{-1/2}$.
# Lemma 7 attains it. A *regular Hadamard matrix* has entries $\pm 1$, orthogonal rows and constant row sums
# $\sqrt k$; repeat each row over the coordinates, multiply by the sign of the gradient, and every row has cosine
# exactly $k^{-1/2}$ with that sign.
#
# Both are checked exactly: 50 random and 50 nearly optimal orthogonal sets for the bound, one construction on a random
# gradient for the equality, at the orders $k$ that the paper's experiment uses.

# %% tags=["nbval-check-output"]
generator = torch.Generator().manual_seed(0)
print("   k  sets beyond the bound   cosine of the construction x sqrt(k)")
for k in subspaces.ORDERS:
    size = 784 // k * k
    vector = torch.randn(
        size, generator=generator, dtype=torch.float64
    ).sign()
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
    print(f"{k:4}  {violations:3} of 100             {attained:.9f}")

# %% [markdown]
# With the construction in hand, the experiment: at each of the first correctly classified test images, how many of $k$
# orthogonal steps of size $\epsilon$ along aligned directions fool the model, at best over the orders $k$? Many directions
# mean that the adversarial region is no needle that masking happens to hide.

# %%
counted = [a for a in ("A", "C") if a in targets] or [standard]
directions = {}
print("mean number of orthogonal adversarial directions")
for plain in counted:
    pair = (plain, f"{plain}_adv")
    hits = [
        evaluation.correct(nets[name, seeds[0]], test.images, test.labels)
        for name in pair
    ]
    chosen = (hits[0] & hits[1]).nonzero().squeeze(1)[: run.directions_points]
    if len(chosen) == 0:
        raise ValueError(
            f"{pair[0]} and {pair[1]} classify no image correctly"
        )
    some = test.take(chosen)
    for eps in (round(run.epsilon * share, 3) for share in (1 / 3, 2 / 3, 1)):
        for name in pair:
            directions[name, eps] = subspaces.count_adversarial_directions(
                nets[name, seeds[0]], some, eps
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

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-directions", "caption": "Adversarial directions: the share of test images that have at least so many orthogonal adversarial directions, at the radius of training, first seed."}, "image": {"alt": "Step plot of the percentage of images over the least number of orthogonal adversarial directions, one line for each model."}}
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
ensembles = list(dict.fromkeys(label for label, _ in jobs))
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
print(
    "error (%)       clean   FGSM   black box: max   mean   worst for each image"
)
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
# With static sources the approximation ratio should come back. The models stay weak to white-box iterated attacks (section
# 4.2); on them two honest steps beat a random one followed by an honest one again; and attacking all holdout models at once
# is no stronger than the best of them.

# %%
two_steps, many_steps = (
    attacks.IFGSM(eps=run.epsilon, steps=2),
    pgd(run.epsilon),
)
everyone = {
    s: models.Average(*[nets[a, other_seed[s]] for a in holdouts])
    for s in seeds[:1]
}
for name in ensembles:
    twin, kind = name.split("-")
    measure_ratio(name)
    errors[name, "R+FGSM white-box"] = error_under(name, rfgsm)
    print(f"{name:14} approximation ratio {ratios[name].mean():5.1f}%")
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
            fidelity=fidelity(name) if strongest_attack else "reduced",
        )
        ledger.record("EAT-R", f"{name} minus {twin} | ratio, MNIST", found)
        row = "two-step I-FGSM minus R+FGSM"
        one_random = errors[name, "R+FGSM white-box"]
        record(
            "EAT-X3", row, name, error_under(name, two_steps), one_random, gap
        )
    if kind == "ens3" and complete:
        row = "white-box PGD minus strongest black-box error"
        iterated_errors = error_under(name, many_steps)
        record(
            "EAT-X3", row, name, iterated_errors, highest(black[name]), gap
        )
        s = seeds[0]
        from_all = [
            ~evaluation.correct(
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

# %% [markdown]
# ### What it costs, and what an input dropout does instead
#
# The current model's gradient is needed only in every $n$-th batch, and training converges more slowly. Appendix C.2 asks
# whether B owes its honest gradients to the dropout on its input, and finds only a marginal benefit of one on A, C and D.


# %%
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

first_epoch = {
    name: ~evaluation.correct(
        stills[f"{name}, epoch {moments[0]}", seeds[0]],
        test.images,
        test.labels,
    ).numpy()
    for name in films
}
slower = evidence.difference(
    first_epoch[f"{hardened}-ens"],
    first_epoch[hardened],
    seeds=seeds[:1],
    fidelity="reduced" if not whole else "exact",
)
if standard == "C":
    ledger.record(
        "EAT-X6",
        "C_adv-ens minus C_adv | clean error after one epoch",
        slower,
    )
print(
    f"clean error after one epoch, with minus without a static source: {slower.value:+.2f} points"
)

wet = [a for a in run.input_dropout if a in targets]
dropped = train_models(
    {
        (name, s): adversarial_recipe(name).replace(
            architecture=f"{RECIPES[name]}_input_dropout"
        )
        for name in wet
        for s in seeds_of[f"{name}_adv"]
    }
)
for name in wet:
    twin = f"{name}_adv"
    behind = np.stack(
        [
            over_seeds(
                twin,
                lambda s, n=name, a=src: (
                    ~evaluation.correct(
                        dropped[n, s], from_source(a)(s), test.labels
                    )
                ),
            )
            for src in sources
        ]
    )
    row = "highest transferred FGSM error, with minus without input dropout"
    record("EAT-X5", row, twin, highest(behind), best_transfer[twin], gap)
    print(f"{twin} with input dropout: {100 * highest(behind).mean():.1f}%")

# %% [markdown]
# ## A trap: training on the random step
#
# If R+FGSM sees through masking, why not train on it? Appendix C.2 does: the model becomes robust to R+FGSM and to
# little else.

# %%
trapped = "A" if "A" in targets else standard
trap = train_models(
    {
        ("R+FGSM", seeds[0]): standard_recipe(trapped).replace(
            objective=Adversarial(
                attack=attacks.RFGSM(eps=run.epsilon, dtype=dtype)
            ),
            epochs=run.epochs_rfgsm,
        )
    }
)["R+FGSM", seeds[0]]
pgd20 = attacks.PGD(
    threat=Linf(eps=run.epsilon),
    steps=20,
    step_size=run.epsilon / 15,
    dtype=dtype,
)
for row, attack in {
    "accuracy under R+FGSM": rfgsm,
    "accuracy under PGD-20": pgd20,
}.items():
    found = evidence.rate(
        evaluation.evaluate(trap, attack, test).attacked.numpy(),
        seeds=seeds[:1],
        fidelity="exact" if whole and run.epochs_rfgsm >= 100 else "reduced",
        note=f"{run.epochs_rfgsm} epochs",
    )
    if trapped == "A":
        ledger.record("EAT-RF", f"A_R+FGSM | {row}", found)
    print(f"{trapped} trained on R+FGSM: {row} {found.value:.1f}%")

# %% [markdown]
# ## Is MNIST the right place to look?
#
# Appendix E: most pixels of MNIST are black or white. Rounding them at 0.5 needs no training and undoes nearly every
# perturbation of $\epsilon = 0.3$; a small rotation, which makes pixels grey, undoes the defence. What looks like
# robustness is a property of the pixels.

# %%
pixels = train.images.flatten().numpy()
shares = {
    "training pixels equal to 0 or 1": (pixels == 0) | (pixels == 1),
    "training pixels in [0.2, 0.8]": (pixels >= 0.2) & (pixels <= 0.8),
}
on_mnist = run.dataset == "mnist" and whole
for row, found in shares.items():
    measured = evidence.rate(
        found, seeds=[0], fidelity="exact" if on_mnist else "reduced"
    )
    ledger.record("EAT-C1", row, measured)
    print(f"{row}: {measured.value:.1f}%")

# %% [markdown]
# The convolutional model behind the threshold is A (where A is left out, D stands in and decides nothing). Its own
# gradient is zero, so it is attacked through two surrogates: as if the threshold were not there, and as if it were a steep
# sigmoid. Because the threshold leaves only pixels that can flip, its error is also bounded from below by a greedy search
# over flips and from above by verification with interval bounds.


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


core = next(a for a in (*"AD", *sources) if a in sources)
core_net = defences.train(
    standard_recipe(core),
    train.changed(binary(train.images)),
    seed=seeds[0],
    device=run.device,
)
straight = torch.nn.Sequential(models.Binarise(), core_net).eval()
smooth = torch.nn.Sequential(models.Binarise(slope=20.0), core_net).eval()
madry_recipe = defences.recipe("madry_mnist_fast")
madry = defences.train(
    madry_recipe.replace(
        epochs=run.epochs_madry,
        objective=dataclasses.replace(
            madry_recipe.objective, eps=run.epsilon, dtype=dtype
        ),
        dtype=dtype,
    ),
    train,
    seed=seeds[0],
    device=run.device,
)


# %%
few = test.first(min(run.pixel_points, len(test)))
turned_few = few.changed(rotated(few.images, 20))
flipped_few = turned_few.changed(with_flips(turned_few.images, 5))
persistent = attacks.IFGSM(
    eps=run.epsilon, steps=run.ratio_steps, dtype=dtype
)


def stands(net, images):
    """Which examples withstand I-FGSM; the thresholded model under either surrogate gradient."""
    twins = (straight, smooth) if net is straight else (net,)
    return np.all(
        [
            evaluation.evaluate(twin, persistent, images).attacked.numpy()
            for twin in twins
        ],
        axis=0,
    )


def right(net, images):
    return evaluation.correct(net, images.images, images.labels).numpy()


x, y = few.images.to(run.device), few.labels.to(run.device)
greedy = flips.greedy_flips(core_net, x, y, run.epsilon)
low, high = ((x + shift).clamp(0, 1) for shift in (-run.epsilon, run.epsilon))
flipped_right = (core_net(greedy).argmax(1) == y).cpu().numpy()
verified = (
    bounds.verified(core_net, binary(low), binary(high), y).cpu().numpy()
)
threshold = "binarised CNN"
measured = {
    f"{threshold} | error under white-box I-FGSM, eps 0.3": ~stands(
        straight, few
    ),
    f"{threshold} | error under a greedy search of flips, eps 0.3 (a lower bound)": ~flipped_right,
    f"{threshold} | verified error, eps 0.3 (an upper bound)": ~verified,
}
for label, net in {threshold: straight, "Madry net": madry}.items():
    measured |= {
        f"{label} | clean error, rotated by 20 degrees": ~right(
            net, turned_few
        ),
        f"{label} | accuracy, rotated by 20 degrees, I-FGSM": stands(
            net, turned_few
        ),
        f"{label} | accuracy, rotated, 5 flipped pixels, I-FGSM": stands(
            net, flipped_few
        ),
    }
enough = whole and len(few) >= 1000 and run.epochs_madry >= 5
for row, outcomes in measured.items():
    found = evidence.rate(
        outcomes,
        seeds=seeds[:1],
        fidelity="exact"
        if enough and row.startswith(threshold)
        else "reduced",
    )
    if core == "A" or not row.startswith(threshold):
        ledger.record("EAT-C1", row, found)
    print(f"{row}: {found.value:.1f}%")

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-pixels", "caption": "What the threshold sees. From top: test images; their FGSM examples on the model behind the threshold; those after rounding; the images rotated by 20 degrees; the rotated images rounded."}, "image": {"alt": "Five rows of eight digits: clean, attacked, attacked and rounded, rotated, rotated and rounded."}}
attacked = evaluation.adversarial(straight, fgsm, shown)
figures.gallery(
    {
        "clean": shown.images,
        "attacked": attacked,
        "attacked,\nrounded": binary(attacked),
        "rotated": rotated(shown.images, 20),
        "rotated,\nrounded": binary(rotated(shown.images, 20)),
    }
)
# %% [markdown]
# ## What theory says
#
# Theorem 1 bounds what a defender can hope for. Let training see attacks from a set of sources, and let the holdout attack
# be another distribution over perturbations. The risk under the holdout attack is at most the training risk, plus a
# complexity term that shrinks with the sample, plus the distance between the holdout attack and the nearest mixture of
# training attacks. It says why *diverse* static sources help, and it says nothing about white-box attacks: no mixture of
# static sources is near an attack that reads the model's own weights. A bound with unknown distances has no number to
# measure, so it stands here as text.

# %% [markdown]
# ## Can these numbers be trusted? Sanity
#
# Robust accuracy must fall to nothing as $\epsilon$ grows, never rise with it, and an undefended model must fall to
# iterated attacks. Multi-step PGD and R+FGSM are compared with FGSM over a range of radii, on the first seed.

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

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-sweep", "caption": "Error over the radius of the attack for a standard model and its adversarially trained twin, first seed, with 95% Wilson intervals. For a model with honest gradients the three attacks are ordered; for a masked one FGSM stays low while the others climb."}, "image": {"alt": "Two line plots of error rate over epsilon for FGSM, R+FGSM and PGD: the standard model on the left, the adversarially trained one on the right."}}
figures.curves(radii, sweep, xlabel=r"radius $\epsilon$", ylabel="error (%)")
# %% [markdown]
# ### A diagnosis for every model
#
# The same question for every model: is there an attack that knows less and still finds more errors? Transferred examples
# know nothing of the model; the square attack asks for its outputs only. Where one of them beats the gradient, the gradient
# is masked, and the chapter says so by itself.

# %%
strangers = {
    src: evaluation.crafted(nets[src, other_seed[seeds[0]]], fgsm, test)[
        : len(probe)
    ]
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
print(f"\n{hardened} is {diagnoses[hardened].sentence()}")

# %% [markdown]
# ### Your own model
#
# `-p model package.module:function -p weights file.safetensors` has this diagnosis made of a model of yours: a function
# that returns a network for 28x28 images, pixels in $[0, 1]$, logits of the data set's classes.

# %%
if own is None:
    print("no model was given")
else:
    seen = diagnose(own.to(run.device))
    print(f"{run.model}: {seen.sentence()}")
    print(
        f"approximation ratio {seen.ratio:.1f}%, cosine of single and iterated step {seen.cosine:.3f}, "
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
# What must hold in any sound evaluation is asserted; a small slack covers images that happen to be lucky.

# %%
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
    if run.profile == "quick"
    else results
)
scoreboard.comparison_table(
    results,
    published,
    ["EAT-T6", "EAT-R", "EAT-C"],
    select=lambda row: "v3" not in row and "IRv2" not in row,
)

# %% [markdown]
# Standard models of Table 7, and how far each attack gets:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    results, published, ["EAT-T7"], select=lambda row: "_adv" not in row
)

# %% [markdown]
# Adversarially trained models of Table 7, and the two gaps that show masking:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    results, published, ["EAT-T7"], select=lambda row: "_adv |" in row
)

# %% [markdown]
# Table 8, training on static sources:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(results, published, ["EAT-T8"])

# %% [markdown]
# Everything else that MNIST can answer:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    results,
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
# ```{admonition} About the published run
# The published edition was made at the profile {glue:text}`profile`. Of its rows, {glue:text}`glance`.
#
# *Masking, seen from outside.* The white-box single step makes {glue:text}`EAT-T7-Bstar_adv-FGSM-white-box` errors on
# B\*_adv, {glue:text}`EAT-T7-C_adv-FGSM-white-box` on C_adv and {glue:text}`EAT-T7-D_adv-FGSM-white-box` on D_adv. The
# strongest transferred step makes more by {glue:text}`EAT-T7-Bstar_adv-masking-gap-sources-Bstar-C-D`,
# {glue:text}`EAT-T7-C_adv-masking-gap-sources-Bstar-C-D` and {glue:text}`EAT-T7-D_adv-masking-gap-sources-Bstar-C-D`
# (paper: {glue:text}`EAT-T7-Bstar_adv-masking-gap-sources-Bstar-C-D-paper`,
# {glue:text}`EAT-T7-C_adv-masking-gap-sources-Bstar-C-D-paper` and
# {glue:text}`EAT-T7-D_adv-masking-gap-sources-Bstar-C-D-paper`).
#
# *Masking, seen from inside.* A random step first adds {glue:text}`EAT-T7-Bstar_adv-RplusFGSM-minus-FGSM`,
# {glue:text}`EAT-T7-C_adv-RplusFGSM-minus-FGSM` and {glue:text}`EAT-T7-D_adv-RplusFGSM-minus-FGSM`; the single step
# reaches {glue:text}`EAT-T6-Bstar_adv-ratio`, {glue:text}`EAT-T6-C_adv-ratio` and {glue:text}`EAT-T6-D_adv-ratio` of the
# loss that is there to be had.
# ```

# %% [markdown]
# ### What did not match, and what we tried: the size of the random step
#
# The paper's formula for R+FGSM has $\alpha = \epsilon/2$, stated for ImageNet; for MNIST it names no value, and the
# authors' code has 0.05 as its default. The formula was chosen before the run and decides the verdicts. This is the
# other reading, measured on the same models and images, scaled with the radius:

# %%
small_step = attacks.RFGSM(eps=run.epsilon, alpha=round(run.epsilon / 6, 4))
print(
    "R+FGSM error (%)   paper   alpha = eps/2   alpha = eps/6 (0.05 at eps = 0.3)"
)
for name in (n for n in names if "_adv" in n):
    variant = 100 * error_under(name, small_step).mean()
    half = 100 * errors[name, "R+FGSM white-box"].mean()
    row = stated["EAT-T7", f"{name} | R+FGSM white-box"]
    print(f"{name:17} {row:6.1f} {half:15.1f} {variant:15.1f}")

# %% [markdown]
# ```{admonition} About the published run
# With $\alpha = \epsilon/2$ the random step uncovers far more on C_adv and D_adv than the paper reports; with the default
# of the authors' code both rows meet the paper's numbers, and B\*_adv falls below its own. The MNIST column of
# the paper was most likely made with the code's default. The finding itself, that a random step defeats the masking, does
# not depend on it.
# ```

# %% [markdown]
# ## Where we deviate, and why
#
# | point | here | why | kind |
# | --- | --- | --- | --- |
# | seeds | three trainings of every model, of the adversarially trained A and B one; means are reported | the paper reports one number and does not say of how many runs; A and B need hours on two cores | exact; A_adv and B_adv reduced |
# | static sources | A, C and D for A, C and D; B, C and D for B; another seed than the model and its attackers | the text names both sets and not which model has which | exact |
# | PGD-CW | 40 steps of $\epsilon/30$ from a random start on the margin up to 50 | the number of steps is not stated; as Madry et al. | exact |
# | ensemble of holdouts | the mean of their softmax outputs is attacked, on the first seed | the paper does not say how they are combined | reduced |
# | directions | MNIST, models A and C, 500 images | ImageNet cannot be had here | substitution |
# | R+FGSM-trained model | adversarial images only, no clean ones; epochs as printed | the paper refers to Madry et al.; 100 epochs are hours on two cores | reduced below 100 epochs |
# | rounding | first 1,000 test images; the gradient of the step function is replaced by that of $x$ and by that of a sigmoid, either may win | its own gradient is zero everywhere | exact |
# | transfer | the source has another seed than its target | a source that shares initialisation and data order with its target would not be a black box | exact |
# | precision | forward and backward passes in bfloat16 where the processor has it, weights and updates in float32 | speed. Single steps are attacked in float32 and every verdict is float32's; the robust accuracy of PGD differs by at most 0.2 points on 10,000 paired images (`benchmarks/`) | exact |
# | C | tanh after pooling instead of before | the same function, since tanh is monotone; a quarter of the work | exact |
# | D | dropout after each of the four layers, He initialisation | the table's brace is ambiguous, the authors' code is not | code variant |
# | R+FGSM | $\alpha = \epsilon/2$ | the paper's formula; the code's default for MNIST is measured beside it | exact |
# | ratio | first 1,000 test images, 100 steps of $\epsilon/30$, 5 restarts, ratio of means | number of points, step and kind of average are not stated | exact |
# | last batch | topped up from the start of the epoch's order | as in the authors' code | exact |
#
# Rows that are *not run* name what they need. Nothing was tuned: architectures, epochs, batch size and radius are the
# paper's, and the first complete run is the one that is published.

# %% [markdown]
# ## Try it yourself
#
# ```bash
# # does masking set in at a smaller radius? (seconds, embedded digits)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p epsilon 0.1
#
# # clothes instead of digits: one seed of C at the paper's protocol (about 30 minutes on two cores)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p profile standard \
#     -p dataset fashion_mnist -p architectures C -p ensembles ens -p n_seeds 1
#
# # five more seeds of the fully connected model (about 10 minutes)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p profile standard \
#     -p architectures D -p ensembles ens -p seed 10 -p n_seeds 5
#
# # can the gradients of your own model be trusted? (seconds; my_models.py on Python's path)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p model my_models:build -p weights mine.safetensors
# ```
#
# **Exercise 1.** Which $\alpha$ makes R+FGSM strongest on a masked model, and which on a standard one?
#
# ```{dropdown} Solution
# Call `attacks.RFGSM(eps=0.3, alpha=alpha)` on `nets["C_adv", 0]` and `nets["C", 0]` for a few values from 0 to 0.3.
# On the standard model every bit of budget spent on noise is lost, so the error falls with $\alpha$. On the masked
# model it first rises: the step must leave the neighbourhood that training has bent, and what is left must still reach
# the boundary.
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
shown = published or results
glue("at-a-glance", scoreboard.glance_table(shown), display=False)
quoted = scoreboard.glue_values(shown)
for key in ("profile", "glance"):
    glue(key, quoted[key], display=False)
for name in ("Bstar_adv", "C_adv", "D_adv"):
    for row in (
        f"EAT-T6-{name}-ratio",
        f"EAT-T7-{name}-FGSM-white-box",
        f"EAT-T7-{name}-RplusFGSM-minus-FGSM",
        f"EAT-T7-{name}-masking-gap-sources-Bstar-C-D",
        f"EAT-T7-{name}-masking-gap-sources-Bstar-C-D-paper",
    ):
        glue(row, quoted[row], display=False)
display({"application/vnd.robustutils.results+json": results}, raw=True)
