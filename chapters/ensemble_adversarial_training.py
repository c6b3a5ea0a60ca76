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
architectures = None  # some of "B*, C, D"
epsilon = None  # linf radius of training and attack, in pixels of [0, 1]
epochs = None  # of standard models
epochs_adv = None  # of adversarially trained models
n_train = None  # first training images used
n_test = None  # first test images attacked
ratio_points = None  # test images for the approximation ratio
ratio_steps = None  # steps of its strongest attack
ratio_restarts = None  # restarts of its strongest attack
seed = None  # first training seed
n_seeds = None  # number of training seeds
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
import dataclasses

import numpy as np
import torch
from IPython.display import display
from myst_nb import glue
from robustutils import (
    attacks,
    data,
    defences,
    evaluation,
    evidence,
    figures,
    runs,
    scoreboard,
    subspaces,
)
from robustutils.objectives import EnsembleAdversarial
from robustutils.threats import Linf

figures.use_style()

# %% [markdown]
# A profile is a set of defaults; `quick` runs anywhere in seconds and is *not evidence*, `standard` is the paper's
# protocol on two CPU cores. Unknown names and values out of range stop the chapter here.

# %%
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
        "architectures": ("B*,C,D", "B*,C,D", "B*,C,D", runs.SomeOf(("B*", "C", "D"))),
        "epsilon": (0.3, 0.3, 0.3, runs.Between(0.01, 1.0)),
        "epochs": (4, 6, 6, runs.Between(1, 1000)),
        "epochs_adv": (5, 12, 12, runs.Between(1, 1000)),
        "n_train": (960, 60000, 60000, runs.Between(64, 60000)),
        "n_test": (200, 10000, 10000, runs.Between(10, 10000)),
        "ratio_points": (100, 1000, 10000, runs.Between(10, 10000)),
        "ratio_steps": (10, 100, 100, runs.Between(1, 10000)),
        "ratio_restarts": (1, 5, 5, runs.Between(1, 100)),
        "seed": (0, 0, 0, runs.Between(0, 10**6)),
        "n_seeds": (1, 3, 3, runs.Between(1, 20)),
    },
)
dtype = torch.float32 if run.profile == "quick" else runs.fast_dtype(run.device)
seeds = list(run.seeds)
print(f"profile {run.profile}, {run.device}, training in {dtype}, seeds {seeds}")

# %% [markdown]
# ## What the paper says, and what would count as agreement
#
# The claims measured here, each with the criterion that decides it. *Within* compares a table cell with the paper's
# number; *greater* and *less* ask whether the 95% interval of an effect excludes none.

# %% tags=["nbval-check-output", "hide-output"]
claims = evidence.Claims.load(
    runs.repository() / "chapters" / "ensemble_adversarial_training.claims.toml"
)
scoreboard.criteria_table(claims, ["EAT-T6", "EAT-T7", "EAT-L6", "EAT-L7"])

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
# Three of the paper's five MNIST architectures are trained here: **B\*** (three strided convolutions), **C** (two
# convolutions with tanh and pooling) and **D** (four fully connected layers with dropout). Each is trained twice.
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
RECIPES = {"B*": "eat_b_star", "C": "eat_c", "D": "eat_d"}
recipes = {}
for name in run.architectures:
    recipes[name] = defences.recipe(RECIPES[name]).replace(
        epochs=run.epochs, dtype=dtype
    )
    recipes[f"{name}_adv"] = defences.recipe(f"{RECIPES[name]}_adv").replace(
        epochs=run.epochs_adv,
        dtype=dtype,
        objective=EnsembleAdversarial(eps=run.epsilon),
    )
models = defences.train_all(recipes, train, seeds=seeds, device=run.device)

# %% [markdown]
# Every number below is a mean over the training seeds, on the same test images for every model.

# %%
ledger = evidence.Ledger(claims, run.profile)
settings = (run.n_train, run.n_test, run.epochs, run.epochs_adv, run.epsilon)
whole = settings == (60000, 10000, 6, 12, 0.3) and run.n_seeds >= 3
strongest_attack = (run.ratio_steps, run.ratio_restarts) == (100, 5)  # for the ratio
errors = {}  # (model, attack) -> bool [seeds, test images]


def fidelity(name):
    """How close a run is to the paper's protocol; D follows the authors' code."""
    if not whole:
        return "reduced"
    if run.dataset != "mnist":
        return "substitution"
    return "code_variant" if name.startswith("D") else "exact"


def over_seeds(outcome):
    """Stack one bool tensor [N] for each seed."""
    return np.stack([outcome(s).numpy() for s in seeds])


for name in recipes:
    errors[name, "clean"] = over_seeds(
        lambda s, n=name: ~evaluation.correct(models[n, s], test.images, test.labels)
    )
    print(f"{name:7} clean error {100 * errors[name, 'clean'].mean():5.2f}%")

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
for name in recipes:
    for label, attack in {"FGSM white-box": fgsm, "R+FGSM white-box": rfgsm}.items():
        errors[name, label] = over_seeds(
            lambda s, n=name, a=attack: (
                ~evaluation.evaluate(models[n, s], a, test).attacked
            )
        )

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-gallery", "caption": "Test images and their adversarial examples at the run's radius. The single step on the standard model and on its adversarially trained twin, and the twin's answer to a random step first: the perturbations look alike, what they achieve does not."}, "image": {"alt": "Four rows of eight digits: clean, FGSM on the standard model, FGSM on the adversarially trained model, R+FGSM on the adversarially trained model."}}
shown = test.first(8)
standard = "C" if "C" in run.architectures else run.architectures[0]
defended = f"{standard}_adv"
examples = {
    "clean": shown.images,
    f"FGSM\non {standard}": evaluation.adversarial(
        models[standard, seeds[0]], fgsm, shown
    ),
    f"FGSM\non {defended}": evaluation.adversarial(
        models[defended, seeds[0]], fgsm, shown
    ),
    f"R+FGSM\non {defended}": evaluation.adversarial(
        models[defended, seeds[0]], rfgsm, shown
    ),
}
figures.gallery(examples)
# %% [markdown]
# ## One step, black-box: transfer from a model that hides nothing
#
# The same FGSM examples, made on standard models and handed to the target. A source never shares its seed with its
# target (with a single seed, as in `quick`, it has to).

# %%
sources = list(run.architectures)
other_seed = dict(zip(seeds, seeds[1:] + seeds[:1], strict=True))
crafted = {
    (src, s): evaluation.adversarial(models[src, s], fgsm, test)
    for src in sources
    for s in seeds
}
for name in recipes:
    for src in sources:
        errors[name, f"FGSM from {src}"] = over_seeds(
            lambda s, n=name, o=src: (
                ~evaluation.correct(
                    models[n, s], crafted[o, other_seed[s]], test.labels
                )
            )
        )

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
for name in recipes:
    for column in columns:
        # the paper has no transfer from a standard model to its own architecture
        if column != f"FGSM from {name}":
            reference = (
                errors[name.removesuffix("_adv"), column]
                if "_adv" in name
                else errors[name, "clean"]
            )
            ledger.record(
                "EAT-T7",
                f"{name} | {column}",
                evidence.rate(
                    errors[name, column],
                    reference,
                    seeds=seeds,
                    fidelity=fidelity(name),
                ),
            )

best_transfer = {}  # per seed the source with the highest error: the paper's attack-level maximum
for name in (n for n in recipes if "_adv" in n):
    transfers = np.stack([errors[name, f"FGSM from {src}"] for src in sources])
    best = transfers.mean(axis=2).argmax(axis=0)
    best_transfer[name] = transfers[best, np.arange(len(seeds))]
    white_box = errors[name, "FGSM white-box"]
    two_steps = errors[name, "R+FGSM white-box"]
    step_gap = evidence.difference(
        two_steps, white_box, seeds=seeds, fidelity=fidelity(name)
    )
    ledger.record("EAT-T7", f"{name} | R+FGSM minus FGSM", step_gap)
    if sources == ["B*", "C", "D"]:
        transfer_gap = evidence.difference(
            best_transfer[name], white_box, seeds=seeds, fidelity=fidelity(name)
        )
        ledger.record("EAT-T7", f"{name} | masking gap, sources B*, C, D", transfer_gap)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-masking", "caption": "Error of standard and adversarially trained models under the white-box single step (FGSM), the same with a random step first (R+FGSM), and the strongest transferred single step. Filled: this run, one dot a training seed; hollow diamonds: the paper (its strongest transfer among the same sources). A model whose gradients can be trusted has its FGSM dot on the right; a masked one has it on the left."}, "image": {"alt": "Dot plot of error rates in percent for each model under three attacks, with the paper's numbers as diamonds."}}
names = list(recipes)
others = {name: [src for src in sources if src != name] for name in names}
strongest = {
    name: [errors[name, f"FGSM from {src}"].mean(axis=1) for src in others[name]]
    for name in names
}
stated = {(row.id, row.row): row.paper for row in claims.rows}
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
        (stated["EAT-T7", f"{name} | FGSM from {src}"] for src in others[name]),
        default=np.nan,
    )
    for name in names
]
figures.dots(names, ours, theirs, xlabel="error under attack (%), over all test images")
# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-transfer", "caption": "Transferred single steps: error of each target (line) on FGSM examples from each standard source (column), the paper's Table 7 and this run, in percent. Empty cells do not exist in the paper."}, "image": {"alt": "Two annotated matrices of error rates, six targets by three sources, the paper's on the left and this run's on the right."}}
shape = [[f"{name} | FGSM from {src}" for src in sources] for name in names]
paper = np.array(
    [[stated.get(("EAT-T7", cell), np.nan) for cell in line] for line in shape]
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
single, strong = {}, {}  # loss of every point: [seeds, points]
for name in recipes:
    single[name] = np.stack(
        [
            evaluation.evaluate(models[name, s], fgsm, points).losses.numpy()
            for s in seeds
        ]
    )
    reached = [
        evaluation.evaluate(models[name, s], strong_attack, points).losses.numpy()
        for s in seeds
    ]
    strong[name] = np.maximum(single[name], np.stack(reached))


def ratio(name, chosen=slice(None)):
    """The approximation ratio of each seed in percent, over the chosen points."""
    return (
        100
        * single[name][:, chosen].mean(axis=1)
        / strong[name][:, chosen].mean(axis=1)
    )


# %% [markdown]
# Intervals over the test points come from 1,000 bootstrap resamples; the effect of an adversarially trained model is
# its ratio minus that of its standard twin, on the same resamples.

# %%
resamples = np.random.default_rng(0).integers(len(points), size=(1000, len(points)))


def interval(values):
    """The central 95% of bootstrap values, averaged over seeds first."""
    return tuple(np.percentile(np.mean(values, axis=1), [2.5, 97.5]))


ratios = {name: ratio(name) for name in recipes}
boot = {
    name: np.stack([ratio(name, chosen) for chosen in resamples]) for name in recipes
}
for name in recipes:
    each = ratios[name]
    measurement = evidence.Measurement(
        each.mean(),
        interval(boot[name]),
        len(points),
        seeds,
        per_seed=each,
        fidelity=fidelity(name) if strongest_attack else "reduced",
        note=f"strongest attack: {run.ratio_steps} steps, {run.ratio_restarts} restarts",
    )
    if "_adv" in name:
        twin = name.removesuffix("_adv")
        measurement = dataclasses.replace(
            measurement,
            effect=(each - ratios[twin]).mean(),
            effect_ci95=interval(boot[name] - boot[twin]),
            effect_per_seed=each - ratios[twin],
        )
    ledger.record("EAT-T6", f"{name} | ratio", measurement)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-ratio", "caption": "Approximation ratio: the share of the reachable loss that one step reaches. Filled: this run, one dot a training seed; hollow diamonds: the paper's Table 6."}, "image": {"alt": "Dot plot of the approximation ratio in percent for each model, with the paper's numbers as diamonds."}}
figures.dots(
    names,
    {"FGSM": [list(ratios[name]) for name in names]},
    {"FGSM": [stated["EAT-T6", f"{name} | ratio"] for name in names]},
    xlabel="loss of the single step / loss of the strongest attack (%)",
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
    vector = torch.randn(size, generator=generator, dtype=torch.float64).sign()
    optimal = subspaces.aligned_directions(vector, k, generator)
    violations = 0
    for noise_only in (True, False):
        for _ in range(50):
            noise = torch.randn(size, k, generator=generator, dtype=torch.float64)
            basis = torch.linalg.qr(noise if noise_only else optimal.T + 0.1 * noise).Q
            cosine = (basis.T @ vector).abs().min().item() / vector.norm().item()
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
# ## Can these numbers be trusted? Sanity
#
# Robust accuracy must fall to nothing as $\epsilon$ grows, never rise with it, and an undefended model must fall to
# iterated attacks. Multi-step PGD and R+FGSM are compared with FGSM over a range of radii, on the first seed.

# %%
probe = test.first(min(1000, len(test)))
radii = [
    round(run.epsilon * share, 3)
    for share in (0, 1 / 3, 2 / 3, 1, 4 / 3, 5 / 3)
    if run.epsilon * share <= 1
]


def verdicts(name, attack):
    return evaluation.evaluate(models[name, seeds[0]], attack, probe)


def pgd(eps):
    steps = min(40, run.ratio_steps)
    return attacks.PGD(
        threat=Linf(eps=eps),
        steps=steps,
        step_size=max(2 * eps / steps, 1e-3),
        dtype=dtype,
    )


sweep = {
    name: {
        "FGSM": [verdicts(name, attacks.FGSM(eps=eps)).error_rate() for eps in radii],
        "R+FGSM": [
            verdicts(name, attacks.RFGSM(eps=eps)).error_rate() for eps in radii
        ],
        "PGD": [verdicts(name, pgd(eps)).error_rate() for eps in radii],
    }
    for name in (standard, defended)
}

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-sweep", "caption": "Error over the radius of the attack for a standard model and its adversarially trained twin, first seed, with 95% Wilson intervals. For a model with honest gradients the three attacks are ordered; for a masked one FGSM stays low while the others climb."}, "image": {"alt": "Two line plots of error rate over epsilon for FGSM, R+FGSM and PGD: the standard model on the left, the adversarially trained one on the right."}}
figures.curves(radii, sweep, xlabel=r"radius $\epsilon$", ylabel="error (%)")
# %% [markdown]
# The same question for every model: is there an attack that knows less, or steps at random, and still finds more errors
# than the white-box single step? Where there is, its gradients are masked.

# %%
at_radius = {
    name: {"FGSM": verdicts(name, fgsm), "PGD": verdicts(name, pgd(run.epsilon))}
    for name in recipes
}
for name, found in at_radius.items():
    clean = found["FGSM"].clean
    suspects = {"R+FGSM": verdicts(name, rfgsm)}
    for src in sources:
        if src != name:
            images = crafted[src, other_seed[seeds[0]]][: len(probe)]
            hit = evaluation.correct(models[name, seeds[0]], images, probe.labels)
            suspects[f"transfer from {src}"] = evaluation.Verdicts(
                clean, hit, found["FGSM"].losses
            )
    beaten = evaluation.masked(found["FGSM"], suspects)
    said = (
        f"masked: FGSM is beaten by {', '.join(beaten)}"
        if beaten
        else "nothing beats the white-box gradient"
    )
    print(
        f"{name:7} FGSM {found['FGSM'].error_rate()!s:22} PGD {found['PGD'].error_rate()!s:22} {said}"
    )

# %% [markdown]
# What must hold in any sound evaluation is asserted; a small slack covers images that happen to be lucky.

# %%
for name in sources:
    assert errors[name, "clean"].mean() < 0.6, f"{name} has not learned its task"
    fallen = at_radius[name]["PGD"].error_rate()
    assert fallen.percent >= at_radius[name]["FGSM"].error_rate().percent - 2, (
        f"{name}: PGD is weaker than FGSM"
    )
    assert run.epsilon < 0.3 or fallen.percent > 90, (
        f"{name} is undefended and yet {fallen} under PGD"
    )
for name, curve in sweep.items():
    climb = np.diff([found.percent for found in curve["PGD"]])
    assert (climb >= -2).all(), f"{name}: a larger radius made PGD weaker, {climb}"

# %% [markdown]
# ## Results

# %% tags=["hide-input"]
results = ledger.results(
    not_run_note="next: architectures A and B and ensemble training are not in this edition yet",
    **run.provenance(train=train.fingerprint, test=test.fingerprint),
)
published = (
    evidence.published("ensemble_adversarial_training")
    if run.profile == "quick"
    else results
)
scoreboard.comparison_table(results, published, ["EAT-T6", "EAT-L6", "EAT-L7"])

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
print("R+FGSM error (%)   paper   alpha = eps/2   alpha = eps/6 (0.05 at eps = 0.3)")
for name in (n for n in recipes if "_adv" in n):
    variant = over_seeds(
        lambda s, n=name: ~evaluation.evaluate(models[n, s], small_step, test).attacked
    )
    row = stated["EAT-T7", f"{name} | R+FGSM white-box"]
    half = 100 * errors[name, "R+FGSM white-box"].mean()
    print(f"{name:17} {row:6.1f} {half:15.1f} {100 * variant.mean():15.1f}")

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
# | architectures | B\*, C, D and their adversarially trained twins | A, B and ensemble training follow in the next edition | scope |
# | seeds | three trainings of every model, mean reported | the paper reports one number and does not say of how many runs | exact |
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
#     -p dataset fashion_mnist -p architectures C -p n_seeds 1
#
# # five more seeds of the fully connected model (about 10 minutes)
# papermill chapters/ensemble_adversarial_training.ipynb out.ipynb -p profile standard \
#     -p architectures D -p seed 10 -p n_seeds 5
# ```
#
# **Exercise 1.** Which $\alpha$ makes R+FGSM strongest on a masked model, and which on a standard one?
#
# ```{dropdown} Solution
# Call `attacks.RFGSM(eps=0.3, alpha=alpha)` on `models["C_adv", 0]` and `models["C", 0]` for a few values from 0 to 0.3.
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
