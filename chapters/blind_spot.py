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
# # Does adversarial training protect images that lie far from its training set?
#
# This chapter reproduces *The Limitations of Adversarial Training and the Blind-Spot Attack* {cite}`zhang2019limitations`.
# The paper's claim: a defence that was trained on examples protects the neighbourhood of those examples. Test images
# farther from the training set fall more often; and images can be pushed into such *blind spots* by something as harmless
# as a little less contrast. They look the same, they are classified as before, and the defence is gone.
#
# **Verdict at a glance.** Every cell of the paper's tables is a claim with a criterion that was fixed before the run.
#
# ```{glue} at-a-glance
# ```

# %% [markdown]
# ## Why it matters
#
# The robustness of a model is measured on a test set, and a test set is drawn like the training set. A camera with another
# exposure, a scanner with another white point, a user with an old screen are not. If the measured robustness does not
# survive a change of contrast that no one would notice, the number says little about the model in the field.
#
# **Threat model.** The adversary knows the model and its weights and the label of a test image that the model classifies
# correctly, and wants any wrong class. She may move every pixel by at most $\epsilon$ within $[0, 1]$ (for WRM: the image
# by an l2 distance of at most 2). What is new: the image she starts from is not the test image $x$ but a scaled and shifted
# copy $x'$ of it, which anyone would still call the same and which the model still classifies correctly.
#
# **Notation.** As in the paper: $\alpha$ is the scale, $\beta$ the shift, $\epsilon$ the radius of the defence, $h(x)$ the
# features of a network (what enters its last layer; on MNIST the output of the first fully connected layer, after the
# ReLU). *Success* is the share of correctly classified images for which an adversarial example within the threshold was
# found. There are two thresholds: $\epsilon$, and the stricter $\alpha\epsilon$, which shrinks with the contrast.
# {doc}`background` explains the attacks.

# %% tags=["parameters"]
profile = "quick"  # quick, check, standard or paper: sets every None below
dataset = None  # some of mnist, fashion_mnist, cifar10, gtsrb, gtsrb_half
defences = None  # some of "madry, kolter_wong, wrm"
alpha = None  # one scale, with beta, instead of the paper's cells
beta = None  # its shift, at most (1 - alpha) / 2 either way
epsilon = None  # threshold of every defence, instead of its own
training = None  # "short", or "full": the papers' lengths
epochs = None  # of every training; 0: each as its recipe has it
n_train = None  # first training images used (of traffic signs an even choice)
n_held_out = None  # of these, the first are not trained on (Madry, natural)
n_test = None  # first test images used
n_attacked = None  # correctly classified images attacked in each cell
steps = None  # of the attack at a fixed radius
restarts = None  # its random starts, after the paper's two
trend_steps = None  # of the attack on all test images
n_embedded = None  # training and as many test images in each embedding
n_embeddings = None  # embeddings, each from its own seed
n_carlini = None  # images for the attacks of Carlini and Wagner
n_gallery = None  # of these, those that are also scaled and shifted
carlini_iterations = None  # in linf, for each constant
carlini_l2_iterations = None  # in l2, for each of nine constants
n_map = None  # images at each point of the (alpha, beta) plane
n_repair = None  # images attacked after training on scaled images; 0: none
n_autoattack = None  # images for AutoAttack (a peer library); 0: none
seed = None  # of the trainings
model = None  # your own model, package.module:function
weights = None  # its weights, a safetensors file
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
import dataclasses
import importlib.util

import numpy as np
import torch
from IPython.display import display
from myst_nb import glue
from robustutils import (
    attacks,
    blind_spots,
    bounds,
    carlini,
    data,
    evaluation,
    evidence,
    figures,
    manifolds,
    models,
    networks,
    objectives,
    precision,
    provenance,
    runs,
    scoreboard,
    square,
    trends,
)
from robustutils import defences as recipes
from robustutils.intervals import (
    independent_difference,
    mean_interval,
    median_interval,
    paired_difference,
)
from robustutils.threats import L2, Linf

figures.use_style()

# %% [markdown]
# A profile is a set of defaults. `quick` runs anywhere in a minute, on 768 small digits and with networks that are hardly
# trained: its numbers are *not evidence*. `standard` measures every cell of the tables on MNIST and Fashion-MNIST with
# networks of full width and shortened training, on two CPU cores. `paper` trains at the papers' lengths and adds CIFAR-10
# and traffic signs, on a GPU. What is cut stands under *Where we deviate*.

# %% tags=["hide-input"]
SETS = {  # data set -> what the paper calls it; digits stand in for MNIST
    "digits": "MNIST",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "gtsrb": "GTSRB",
    "gtsrb_half": "GTSRB",
}
BOTH = "mnist,fashion_mnist"
DEFENCES = ("madry", "kolter_wong", "wrm")
run = runs.start(
    "blind_spot",
    globals(),
    {  # name: quick, standard, paper, what is allowed
        "dataset": (
            "digits",
            BOTH,
            f"{BOTH},cifar10,gtsrb_half",
            runs.SomeOf(tuple(SETS)),
        ),
        "defences": (DEFENCES, DEFENCES, DEFENCES, runs.SomeOf(DEFENCES)),
        "alpha": (1.0, 1.0, 1.0, runs.Between(0.01, 1.0)),
        "beta": (0.0, 0.0, 0.0, runs.Between(-0.5, 0.5)),
        "epsilon": (0.0, 0.0, 0.0, runs.Between(0.0, 100.0)),
        "training": ("short", "short", "full", runs.OneOf(("short", "full"))),
        "epochs": (0, 0, 0, runs.Between(0, 1000)),
        "n_train": (768, 60000, 60000, runs.Between(64, 60000)),
        "n_held_out": (0, 5000, 5000, runs.Between(0, 30000)),
        "n_test": (200, 10000, 20000, runs.Between(40, 20000)),
        "n_attacked": (40, 2000, 2000, runs.Between(10, 20000)),
        "steps": (10, 100, 100, runs.Between(1, 10000)),
        "restarts": (0, 0, 5, runs.Between(0, 100)),
        "trend_steps": (10, 40, 100, runs.Between(1, 10000)),
        "n_embedded": (100, 4000, 10000, runs.Between(100, 20000)),
        "n_embeddings": (2, 3, 3, runs.Between(2, 20)),
        "n_carlini": (4, 200, 200, runs.Between(4, 10000)),
        "n_gallery": (4, 20, 50, runs.Between(2, 1000)),
        "carlini_iterations": (20, 300, 1000, runs.Between(10, 10000)),
        "carlini_l2_iterations": (20, 1000, 1000, runs.Between(10, 10000)),
        "n_map": (20, 200, 1000, runs.Between(4, 20000)),
        "n_repair": (30, 1000, 2000, runs.Between(0, 20000)),
        "n_autoattack": (0, 500, 500, runs.Between(0, 20000)),
        "seed": (0, 0, 0, runs.Between(0, 10**6)),
        "model": (None, None, None, runs.Text()),
        "weights": (None, None, None, runs.Text()),
    },
)
sets = list(run.dataset)
if len({SETS[name] for name in sets}) < len(sets):
    raise runs.ParameterError(
        f"dataset={','.join(sets)!r}: two of them stand for the same set of the paper"
    )
if run.weights and not run.model:
    raise runs.ParameterError(f"weights={run.weights!r}: needs -p model")
try:
    blind_spots.check_scale_shift(run.alpha, run.beta)
except ValueError as error:
    raise runs.ParameterError(str(error)) from None
if run.epsilon > 1 and (run.model or set(run.defences) != {"wrm"}):
    raise runs.ParameterError(
        f"epsilon={run.epsilon}: an linf radius is at most 1; -p defences wrm has an l2 radius"
    )
own = models.load(run.model, run.weights) if run.model else None
dtype = torch.float32 if run.profile == "quick" else torch.bfloat16
print(
    f"profile {run.profile}, {run.device}, attacks in"
    f" {precision.effective(run.device, dtype)}, seed {run.seed}"
)

# %% [markdown]
# ## What the paper says, and what would count as agreement
#
# The rows of Table 2 with the criterion that decides each; the claims file has the rest. *Equivalent* asks that the 95%
# interval of an effect stay within a margin, *within* for a value near the paper's, *above 0* for an effect whose interval
# lies wholly above zero, *increasing* for a sequence without a step back. T stands for the paper's tables, F for its
# figures, X for statements of its text.

# %% tags=["nbval-check-output", "hide-output"]
claims = evidence.Claims.load(
    provenance.repository() / "chapters" / "blind_spot.claims.toml"
)
stated = {(row.id, row.row): row.paper for row in claims.rows}
scoreboard.criteria_table(claims, ["BS-T2"])

# %% [markdown]
# ## Data and defences


# %% tags=["nbval-check-output"]
def at_most(images, n):
    """The first n, or all where there are fewer."""
    return images.first(min(n, len(images)))


def spread(images, n):
    """n images at even distances, or all: traffic signs come sorted by class."""
    places = torch.linspace(0, len(images) - 1, min(n, len(images)))
    return images.take(places.long())


train, test, fingerprints = {}, {}, {}
for name in sets:
    some = spread if SETS[name] == "GTSRB" else at_most
    train[name] = some(data.load(name, "train"), run.n_train)
    if run.n_held_out >= len(train[name]) - 64:
        raise runs.ParameterError(
            f"n_held_out={run.n_held_out}: leaves too few of {len(train[name])} images"
        )
    test[name] = at_most(data.load(name, "test"), run.n_test)
    for split in (train[name], test[name]):
        fingerprints[f"{name} {split.split}"] = split.fingerprint
        print(
            f"{name} {split.split}: {tuple(split.images.shape)}, SHA-256 {split.fingerprint[:16]}"
        )

# %% [markdown]
# Three defences, each the best of its kind in 2018, and a network without any for its features.
#
# **Madry** {cite}`madry2018towards` trains on the adversarial examples themselves,
# $\min_\theta \mathbb E\,\max_{\|\delta\|_\infty\le\epsilon} L(h_\theta(x+\delta), y)$, with projected gradient steps for
# the inner maximum; $\epsilon = 0.3$ on MNIST, 0.1 on Fashion-MNIST.
#
# **Kolter-Wong** {cite}`wong2018provable` trains on a *certificate*. Every ReLU whose input may have either sign is
# replaced by the triangle that contains it; what is left is linear, and its dual gives a lower bound $m_j$ of
# $z_y - z_j$ that no perturbation within $\epsilon = 0.1$ can undercut. The loss is $L(-m, y)$; an image with all
# $m_j > 0$ is *certified*.
#
# **WRM** {cite}`sinha2018certifying` trains against a change of the whole distribution by a small Wasserstein distance:
# on $x^\star = \arg\max_{x'} c\,L(h(x'), y) - \tfrac12\|x'-x\|_2^2$ with $c = 1.3$, found by 15 ascent steps. It promises
# robustness in l2, and is attacked in l2.


# %% tags=["hide-input"]
LABELS = {
    "natural": "natural",
    "madry": "Madry",
    "kolter_wong": "Kolter-Wong",
    "wrm": "WRM",
}
MADRY_EPS = {"MNIST": 0.3, "Fashion-MNIST": 0.1}
small_sets = [n for n in sets if SETS[n] in MADRY_EPS]


def recipe_in_seconds(defence, name):
    """Training of a few seconds, so that `quick` has something to attack."""
    small, eps = recipes.recipe("small_cnn"), MADRY_EPS[SETS[name]]
    return {
        "natural": small.replace(learning_rate=3e-3),
        "madry": small.replace(
            objective=objectives.RampedAdversarial(
                eps=eps, steps=3, step_size=eps / 2, ramp=0.8
            ),
            epochs=12,
            learning_rate=3e-3,
        ),
        "kolter_wong": recipes.recipe("kolter_wong").replace(
            objective=objectives.Certified(
                margins=bounds.interval_margins, eps=0.1, start=0.0
            ),
            epochs=15,
            learning_rate=3e-3,
        ),
        "wrm": recipes.wrm(epochs=1).replace(
            objective=objectives.Wasserstein(steps=5), batch_size=64
        ),
    }[defence]


def in_seconds(name):
    """Whether the networks of a data set are those of `quick`."""
    quick = run.profile == "quick" and name in small_sets
    return quick or name == "digits"


def recipe(defence, name):
    """How a defence is trained on a data set."""
    if in_seconds(name):
        chosen = recipe_in_seconds(defence, name)
    else:
        chosen = recipes.recipe_of(
            defence, name, in_full=run.training == "full"
        )
    return chosen.replace(epochs=run.epochs) if run.epochs else chosen


def defended(name):
    """The defences that the paper tries on a data set."""
    known = {"CIFAR-10": ("madry", "kolter_wong"), "GTSRB": ("madry",)}
    return [d for d in run.defences if d in known.get(SETS[name], DEFENCES)]


# %%
def own_training_set(name):
    """Madry's code holds the first 5,000 images back."""
    first = run.n_held_out if name in small_sets else 0
    return train[name].take(torch.arange(first, len(train[name])))


defended_by = {}
for name in sets:
    for defence in ("natural", *defended(name)):
        images = (
            own_training_set(name)
            if defence in ("natural", "madry")
            else train[name]
        )
        defended_by[defence, name] = networks.Network(
            recipe(defence, name), images, seed=run.seed, device=run.device
        )
if run.profile != "quick":  # there training is over before a worker starts
    networks.join(defended_by.values())
nets = {key: network() for key, network in defended_by.items()}

# %% [markdown]
# What each is worth on the test set, before any blind spot: accuracy, accuracy under 40 steps of PGD at its radius, and for
# the certified defence the share of images that the dual bound certifies. Where the training ends on the dual bound, an
# independent bound, intervals, must certify fewer; and no attack of this chapter may break what is certified.


# %% tags=["hide-input"]
def radius(defence, name):
    """The threshold of the paper's tables, or the one asked for."""
    paper = {"kolter_wong": 0.1, "wrm": 2.0}.get(
        defence, MADRY_EPS.get(SETS[name], 8 / 255)
    )
    if SETS[name] == "CIFAR-10":
        paper = 8 / 255
    return run.epsilon or paper


def threat(defence, name):
    """Where the adversary may move: an l2 ball for WRM, an linf ball for the others."""
    kind = L2 if defence == "wrm" else Linf
    return kind(eps=radius(defence, name))


def percent(values):
    """A rate with its 95% interval, as text."""
    return str(
        evaluation.Rate(
            int(np.asarray(values).sum()), len(np.asarray(values))
        )
    )


correct, certified = {}, {}
for (defence, name), net in nets.items():
    images = test[name]
    correct[defence, name] = evaluation.judged(
        net, images.images, images.labels
    )
    if correct[defence, name].sum() < 4:
        raise RuntimeError(
            f"{defence} on {name}: fewer than 4 of {len(images)} test images"
            " are classified correctly, there is nothing to attack"
        )
    line = f"{SETS[name]:14}{LABELS[defence]:12} accuracy {percent(correct[defence, name])}"
    if defence != "natural":
        where = threat(defence, name)
        pgd = attacks.PGD(
            threat=where,
            steps=min(40, run.trend_steps),
            step_size=where.eps / 30
            if run.trend_steps >= 40
            else where.eps / 4,
            dtype=dtype,
        )
        under_pgd = evaluation.evaluate(net, pgd, images)
        line += f"\n{'':27}under PGD {under_pgd.robust_accuracy()}"
    print(line)
    if defence == "kolter_wong":
        dual, interval = (
            evaluation.certified(net, margins, images, eps=where.eps)
            for margins in (bounds.dual_margins, bounds.interval_margins)
        )
        certified[name] = dual
        broken = dual & ~under_pgd.attacked
        print(
            f"{'':27}certified {percent(dual)}\n"
            f"{'':27}by intervals {percent(interval)}\n"
            f"{'':27}certified and broken by PGD: {int(broken.sum())}"
        )
        assert not broken.any(), "PGD broke an image that was certified"
        if not in_seconds(name):  # there training is on intervals alone
            assert interval.sum() <= dual.sum(), (
                "intervals certify more than the dual bound"
            )

# %% [markdown]
# ## The attack: as close as possible, or close enough?
#
# The paper attacks with Carlini and Wagner's linf attack {cite}`carlini2017towards`. It looks for the *smallest* change:
# with $x' + \delta = \tfrac12(\tanh w + 1)$ inside the box, it minimises
#
# $$
# c\,\max\bigl(0,\; z_y - \max_{j\ne y} z_j\bigr) + \sum_i \max(0, |\delta_i| - \tau)
# $$
#
# by Adam on $w$, doubles $c$ until the label changes, then lowers $\tau$ below what was achieved and starts again from
# there, until it fails. Every image runs through its own $c$ and $\tau$. The paper adds two starts: the image with Gaussian
# noise of 0.2, and a plain grey image. For WRM it is their l2 attack: $\|\delta\|_2^2$ takes the place of the sum, and $c$
# is found by bisection, in nine rounds.
#
# The tables ask less: only whether the distance is *below the threshold*. So their rates are measured with a cheaper
# attack: gradient ascent on the margin $\max_{j\ne y} z_j - z_y$ inside the ball of the threshold, 100 steps of
# $\epsilon/10$, from the paper's two starts (the grey image projected into the ball) and, at `paper`, from five random ones.
# Whether it may stand in for C&W, at most 2 points from its rate, is looked at here on the same images: those that are
# classified correctly in every column of the paper's galleries. At `standard` C&W runs for 300 iterations at each constant
# in linf, not for 1,000.


# %%
def at_radius(defence, name, **changes):
    """The attack that the rates are measured with."""
    settings = {"steps": run.steps, "restarts": run.restarts} | changes
    return blind_spots.FixedRadius(
        threat=threat(defence, name), dtype=dtype, **settings
    )


def nearest_attack(defence):
    """Carlini and Wagner's attack in the norm of the defence."""
    if defence == "wrm":
        return carlini.CarliniL2(
            iterations=run.carlini_l2_iterations, dtype=dtype
        )
    return carlini.CarliniLinf(iterations=run.carlini_iterations, dtype=dtype)


# %% tags=["hide-input"]
COLUMNS = {  # (alpha, beta) of the paper's galleries
    ("madry", "MNIST"): [(1.0, 0.0), (0.8, 0.0), (0.8, 0.1)],
    ("madry", "Fashion-MNIST"): [(1.0, 0.0), (0.9, 0.0), (0.9, 0.05)],
}


def columns_of(defence, name):
    """Columns of the paper's gallery, or the cell that was asked for."""
    if (run.alpha, run.beta) != (1.0, 0.0):
        return [(1.0, 0.0), (run.alpha, run.beta)]
    small = [(1.0, 0.0), (0.9, 0.0), (0.9, 0.05)]
    return COLUMNS.get((defence, SETS[name]), small)


shown = {}  # images that are classified correctly in every column
places = {}  # where they stand in the test set
closest = {}  # (defence, data set, column) -> Carlini and Wagner's result
for name in small_sets:
    for defence in defended(name):
        net, columns = (
            nets[defence, name],
            columns_of(defence, name),
        )
        stays = correct[defence, name].clone()
        for a, b in columns:
            moved = blind_spots.transformed(test[name], a, b)
            stays &= evaluation.judged(net, moved.images, moved.labels)
        picked = stays.nonzero().squeeze(1)[: run.n_carlini]
        if len(picked) < 4:
            raise RuntimeError(
                f"{defence} on {name}: fewer than 4 images stay correctly classified"
            )
        shown[defence, name] = test[name].take(picked)
        places[defence, name] = picked
        few = picked[: run.n_gallery]
        chosen = [picked if cell == (1, 0) else few for cell in columns]
        together = test[name].take(torch.cat(chosen))
        moved = [
            blind_spots.scale_shift(test[name].images[part], a, b)
            for part, (a, b) in zip(chosen, columns, strict=True)
        ]
        found = carlini.nearest(
            net,
            nearest_attack(defence),
            together.changed(torch.cat(moved)),
            batch_size=60,
        )
        sizes = [len(part) for part in chosen]
        for (a, b), images, far in zip(
            columns,
            found.images.split(sizes),
            found.distances.split(sizes),
            strict=True,
        ):
            closest[defence, name, a, b] = carlini.Nearest(images, far)

# %% tags=["hide-input"]
print(f"{'':28}success at eps (%)              ascent - C&W")
print(f"{'':28}n   C&W  ninth  ascent  7 starts  [95% CI]          C&W alone")
for (defence, name), few in shown.items():
    eps = radius(defence, name)
    far = closest[defence, name, 1.0, 0.0].distances
    ascent, seven = (
        ~evaluation.evaluate(nets[defence, name], attack, few).attacked
        for attack in (
            at_radius(defence, name),
            at_radius(defence, name, restarts=5),
        )
    )
    rates = [
        100 * hits.float().mean().item()
        for hits in (far < eps, far < eps / 0.9, ascent, seven)
    ]
    more = "-" if defence == "wrm" else f"{rates[1]:.1f}"
    apart = evidence.difference(
        ascent.numpy(),
        (far < eps).numpy(),
        seeds=[run.seed],
        fidelity="reduced",
    )
    low, high = apart.ci95
    print(
        f"{SETS[name]:14}{LABELS[defence]:11}{len(few):4}{rates[0]:6.1f}{more:>7}{rates[2]:8.1f}{rates[3]:10.1f}"
        f"  {f'{apart.value:+.1f} [{low:.1f}, {high:.1f}]':<20}{int(((far < eps) & ~ascent).sum()):>7}"
    )
    if defence == "kolter_wong":
        held = certified[name][places[defence, name]]
        assert not (held & (far <= eps)).any(), (
            "C&W broke an image that was certified"
        )

# %% [markdown]
# C&W's linf distance is that of the last $\tau$ that succeeded: it can be a ninth too large, which is what the column
# *ninth* allows for. *Ascent* is the attack of the tables, *7 starts* gives it five random ones more. Where the difference
# is positive the tables' rates are higher than C&W's would be: ascent found what C&W missed. The last column counts the
# images of the opposite kind.
#
# The paper also says (section 4.1) that C&W finds *closer* examples than PGD. Here PGD climbs the cross-entropy for 100 steps
# in balls of a ladder of radii, each a twentieth larger than the last; bisection finds the smallest that holds an example.
# Both stop a step short, C&W up to a tenth of the distance, PGD up to a twentieth. So their examples are then drawn towards
# the image on a straight line, again by bisection, as far as they still fool, and these distances are compared.

# %%
LADDER = 0.02 * 1.05 ** torch.arange(80, dtype=torch.float64)


def pgd_nearest(net, few):
    """PGD's example in the smallest ball that holds one, else the image."""
    images = few.images.clone()
    withstood = torch.full((len(few),), -1)
    fooled = torch.full((len(few),), len(LADDER))
    while (open_ := fooled - withstood > 1).any():
        middle = (withstood + fooled) // 2
        for level in middle[open_].unique().tolist():
            tried = (open_ & (middle == level)).nonzero().squeeze(1)
            eps = LADDER[level].item()
            pgd = attacks.PGD(
                threat=Linf(eps=eps),
                steps=run.steps,
                step_size=eps / 10,
                dtype=dtype,
            )
            made = evaluation.crafted(net, pgd, few.take(tried))()
            stands = evaluation.judged(net, made, few.labels[tried])
            withstood[tried[stands]] = level
            fooled[tried[~stands]] = level
            images[tried[~stands]] = made[~stands]
    return images


# %% tags=["hide-input"]
ledger = evidence.Ledger(claims, run.profile)
PROTOCOL = {
    "n_train": 60000,
    "n_held_out": 5000,
    "n_test": 20000,
    "n_attacked": 2000,
    "steps": 100,
    "restarts": 5,
    "trend_steps": 100,
    "carlini_iterations": 1000,
    "carlini_l2_iterations": 1000,
    "epsilon": 0.0,
    "training": "full",
    "epochs": 0,
}
whole = all(run.parameters[key] == value for key, value in PROTOCOL.items())


def measuring(*names):
    """Seeds and fidelity of a measurement on some of the data sets."""
    if not whole:
        fidelity = "reduced"
    elif all(name in small_sets for name in names):
        fidelity = "code_variant"  # ascent at a fixed radius for C&W
    else:
        fidelity = "substitution"  # of PreActResNet-18 for WRN-32-10
    return {"seeds": [run.seed], "fidelity": fidelity}


def record(id, row, measurement):
    """A row of the claims; parameters of one's own may lead to rows that the paper does not have."""
    if (id, row) in stated:
        ledger.record(id, row, measurement)


print(
    "mean linf distance               n    C&W    PGD  C&W - PGD [95% CI]          median"
)
for name in (n for n in small_sets if "madry" in defended(n)):
    few, net = shown["madry", name], nets["madry", name]
    x, y = few.images.to(run.device), few.labels.to(run.device)
    as_found = [
        closest["madry", name, 1.0, 0.0].images.to(run.device),
        pgd_nearest(net, few).to(run.device),
    ]
    fell = [(made != x).flatten(1).any(1) for made in as_found]
    both_fell = torch.stack(fell).all(0).cpu().numpy()
    if both_fell.sum() < 4:
        print(f"{SETS[name]:14} fewer than 4 images fell to both")
        continue
    drawn_near = [carlini.shortened(net, x, y, made) for made in as_found]
    for text, pair in (("as found", as_found), ("drawn near", drawn_near)):
        far = [
            Linf(eps=1.0).size(x, made).cpu().numpy()[both_fell]
            for made in pair
        ]
        apart = far[0] - far[1]
        low, high = mean_interval(apart)
        print(
            f"{SETS[name]:14}{text:14}{len(apart):6}{far[0].mean():7.3f}{far[1].mean():7.3f}"
            f"{apart.mean():+9.4f} [{low:+.4f}, {high:+.4f}]{np.median(apart):+9.4f}"
        )
    label = f"{SETS[name]}, Madry |"
    record(
        "BS-X2",
        f"{label} mean linf distance, C&W minus PGD",
        evidence.mean(apart, **measuring(name)),
    )
    record(
        "BS-X2",
        f"{label} median linf distance, C&W minus PGD",
        evidence.Measurement(
            np.median(apart),
            median_interval(apart),
            len(apart),
            **measuring(name),
        ),
    )

# %% [markdown]
# ## Does failure grow with the distance to the training set?
#
# The paper measures how far a test image $x$ lies from the training set by the mean distance of its features to those of
# its $k = 5$ nearest training images,
#
# $$
# D(x) = \tfrac1k \sum_{i \le k} \bigl\| h(x) - h(x_{\pi_i(x)}) \bigr\|_2 ,
# $$
#
# once with the features of the adversarially trained network and once with those of a naturally trained one. Then every
# test image that is classified correctly is attacked. If failure grows with distance, the images that fall are farther away
# than those that stand. The figure shows the rate in 30 bins (the paper does not say how many). One number says how strong the relation is:
# the *AUROC*, the chance that an image that falls lies farther away than one that stands; one half is no relation.

# %%
FEATURES = {
    "adversarially trained features": "madry",
    "natural features": "natural",
}
adversarial = "adversarially trained features"
fewest = min(len(own_training_set(name)) for name in sets)
KS = [k for k in (5, 10, 100, 1000) if k <= fewest]
if KS[-1] < 1000:
    print(f"k above {KS[-1]} is left out: there are {fewest} training images")


def features(defence, name, images, drop=1):
    """Output of all but the last layers; with ``drop`` 2 before the ReLU."""
    return manifolds.features(nets[defence, name], images, drop=drop)


distances, normalised = {}, {}  # by (network, data set)
for defence, name in nets:
    certificate = defence == "kolter_wong" and name == "cifar10"
    if defence in FEATURES.values() or certificate:
        source = train[name] if certificate else own_training_set(name)
        trained_on = features(defence, name, source.images)
        seen = features(defence, name, test[name].images)
        distances[defence, name] = manifolds.neighbour_distances(
            seen, trained_on, KS
        )
        normalised[defence, name] = manifolds.normalised_distance(
            seen, trained_on
        )

# %%
fallen = {}  # on all test images: who falls at the radius of the defence
for (defence, name), net in nets.items():
    if defence == "madry" or (defence == "kolter_wong" and name == "cifar10"):
        attack = at_radius(defence, name, steps=run.trend_steps, restarts=0)
        fallen[defence, name] = ~evaluation.evaluate(
            net, attack, test[name]
        ).attacked


# %% tags=["hide-input"]
def success_and_distance(name, label, defence="madry", k=5):
    """Distances and successes of the correctly classified test images; a defence has features of its own."""
    kept = correct[defence, name].numpy()
    features_of = "natural" if FEATURES[label] == "natural" else defence
    return (
        distances[features_of, name][k].numpy()[kept],
        fallen[defence, name].numpy()[kept],
    )


def bins(name, label, **which):
    """Success over distance in 30 bins of one width."""
    return {
        "at eps": trends.equal_width_bins(
            *success_and_distance(name, label, **which), least=5
        )
    }


trended = [name for name in sets if ("madry", name) in fallen]

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-trend", "caption": "Success of the attack on the Madry network over the distance of a test image to its five nearest training images, in the features of the adversarially trained network itself. Points: equal-width bins with at least five attacked images, with 95% intervals; grey: how many images lie in each bin."}, "image": {"alt": "Success rates with interval bars over embedding distance, one panel for each data set, above a grey histogram of counts."}}
figures.trends(
    {SETS[name]: bins(name, adversarial) for name in trended},
    xlabel="distance to the 5 nearest",
) if trended else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-trend-natural", "caption": "The same with distances in the features of the naturally trained network."}, "image": {"alt": "Success rates with interval bars over embedding distance in natural features, one panel for each data set."}}
figures.trends(
    {SETS[name]: bins(name, "natural features") for name in trended},
    xlabel="distance to the 5 nearest",
) if trended else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-trend-k", "caption": "The same with the mean distance to more neighbours, in the features of the adversarially trained network: on CIFAR-10 as in the paper where it is part of the run, else on the last data set."}, "image": {"alt": "Success rates with interval bars over the distance to more neighbours, one panel for each number of neighbours."}}
many = "cifar10" if "cifar10" in trended else trended[-1] if trended else None
figures.trends(
    {
        f"{SETS[many]}, k = {k:,}": bins(many, adversarial, k=k)
        for k in KS
        if k > 5
    },
    xlabel="distance to the k nearest",
) if many else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-trend-certified", "caption": "The same for a network trained on a certificate, on CIFAR-10 (at `paper`)."}, "image": {"alt": "Success rates with interval bars over embedding distance, for two kinds of features."}}
figures.trends(
    {
        label: bins("cifar10", label, defence="kolter_wong")
        for label in FEATURES
    },
    xlabel="distance to the 5 nearest",
) if ("kolter_wong", "cifar10") in fallen else None

# %% tags=["hide-input"]
FIGURE = {
    "MNIST": "BS-F1",
    "Fashion-MNIST": "BS-F2",
    "CIFAR-10": "BS-F3",
    "GTSRB": "BS-F9",
}


def unpaired(one, other):
    """Difference of two rates on different images in points, with its 95% interval."""
    return independent_difference(
        one.percent, one.interval, other.percent, other.interval
    )


OTHER_K = {10: "BS-F6", 100: "BS-F7", 1000: "BS-F8"}


def tell_apart(name, label, defence="madry", k=5):
    """AUROC of the distance for success, as a measurement; None where all or none fall."""
    far, hits = success_and_distance(name, label, defence, k)
    if hits.all() or not hits.any():
        return None
    area, interval = trends.auroc(far, hits)
    return evidence.Measurement(area, interval, len(hits), **measuring(name))


print(f"{'':43}AUROC of distance for success, Spearman's rho, [95% CI]")
for name in trended:
    for label in FEATURES:
        for k in KS:
            found = tell_apart(name, label, k=k)
            if found is None:
                print(
                    f"{SETS[name]}: all or no image falls, nothing to tell apart"
                )
                continue
            rho, ends = trends.spearman(
                *success_and_distance(name, label, k=k)
            )
            area = f"{found.value:.3f} [{found.ci95[0]:.3f}, {found.ci95[1]:.3f}]"
            rank = f"{rho:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]"
            print(
                f"{SETS[name]:14}{label.removesuffix(' features'):22}k={k:<5}{area}  {rank}"
            )
            row = f"{SETS[name]}, {label}"
            if k == 5:
                id = FIGURE[SETS[name]]
            else:
                id, row = OTHER_K[k], f"{row}, k={k}"
            record(id, f"{row} | AUROC of distance for success", found)

# %% [markdown]
# The same without bins of a width: success in the tenths of the correctly classified test images from the nearest to the
# farthest.

# %% tags=["hide-input"]
print(f"{'':14}success (%) by tenths of distance, [95% CI], features:")
for name in trended:
    tenths = {
        label: trends.equal_count_bins(
            *success_and_distance(name, label), bins=10
        )
        for label in FEATURES
    }
    print(f"{SETS[name]:14}adversarially trained   natural")
    for line in zip(*tenths.values(), strict=False):
        cells_ = [
            f"{part.percent:5.1f} [{part.interval[0]:.1f}, {part.interval[1]:.1f}]"
            for part in line
        ]
        print(f"{'':14}{cells_[0]:24}{cells_[1]}")
    nearest, *_, farthest = tenths[adversarial]
    gap, interval = unpaired(farthest, nearest)
    record(
        FIGURE[SETS[name]],
        f"{SETS[name]} | farthest tenth minus nearest tenth",
        evidence.Measurement(
            gap, interval, nearest.count + farthest.count, **measuring(name)
        ),
    )

# %% [markdown]
# The paper does not say whether its features were taken before or after the ReLU. Before it:

# %% tags=["hide-input"]
for name in (n for n in trended if n in small_sets):
    kept = correct["madry", name].numpy()
    hits = fallen["madry", name].numpy()[kept]
    for label, defence in FEATURES.items():
        before = manifolds.neighbour_distances(
            features(defence, name, test[name].images, drop=2),
            features(defence, name, own_training_set(name).images, drop=2),
            [5],
        )[5].numpy()
        if hits.any() and not hits.all():
            area, (low, high) = trends.auroc(before[kept], hits)
            print(
                f"{SETS[name]:14}{label:31}AUROC {area:.3f} [{low:.3f}, {high:.3f}]"
            )

# %% [markdown]
# ## How far apart are training and test set?
#
# Table 1 compares data sets by one number each. Training and test features are embedded together in the plane by t-SNE
# (of 50 principal components), and for each class the density of the training points $p_{\text{train}}$ and of the test
# points $p_{\text{test}}$ is estimated with a Gaussian kernel. Their divergence,
#
# $$
# \int_V p_{\text{train}} \log \frac{p_{\text{train}}}{p_{\text{test}}},
# $$
#
# is averaged over the classes. $V$ is the box around all points, and the densities are not normalised over it: that is how
# the paper's value for Fashion-MNIST can be negative. The renormalised value, which cannot, stands beside it, and so does
# the divergence of one half of the training points from the other: estimated densities differ even where the points come
# from one source, so that zero is not the level to compare with. The seeds of this table are embeddings of one network.


# %%
def divergences(name, label, embedding):
    """Test from training points, and training points from others."""
    defence = FEATURES[label]
    source = own_training_set(name)
    n = min(run.n_embedded, len(test[name]), len(source) // 2)
    generator = torch.Generator().manual_seed(embedding)
    drawn = torch.randperm(len(source), generator=generator)[: 2 * n]
    chosen = torch.randperm(len(test[name]), generator=generator)[:n]
    mine, others = source.take(drawn[:n]), source.take(drawn[n:])
    held = test[name].take(chosen)
    points, far = manifolds.embed(
        features(defence, name, torch.cat([mine.images, others.images])),
        features(defence, name, held.images),
        seed=embedding,
        perplexity=min(30.0, n / 4),
    )
    return (
        manifolds.divergence(points[:n], far, mine.labels, held.labels),
        manifolds.divergence(
            points[:n], points[n:], mine.labels, others.labels
        ),
    )


# %% tags=["hide-input"]
print("KL divergence of test from training set, mean over embeddings;")
print("itself: of one half of the training points from the other")
print(f"{'':43}truncated  spread  renormalised  itself")
embeddings = list(range(run.n_embeddings))
kl = {}
for name in sets:
    for label, defence in FEATURES.items():
        if (defence, name) not in nets or len(test[name].classes) > 10:
            continue
        pairs = [divergences(name, label, seed) for seed in embeddings]
        kl[name, label] = np.array([ours.truncated for ours, _ in pairs])
        other = np.mean([own.truncated for _, own in pairs])
        normal = np.mean([ours.renormalised for ours, _ in pairs])
        print(
            f"{SETS[name]:14}{label:31}{kl[name, label].mean():7.3f}"
            f"{np.ptp(kl[name, label]):8.3f}{normal:14.3f}{other:8.3f}"
        )
        left_out = sorted({c for ours, _ in pairs for c in ours.left_out})
        if left_out:
            print(f"{'':14}classes without enough points: {left_out}")
        record(
            "BS-T1",
            f"{SETS[name]} | KL divergence, {label}",
            evidence.Measurement(
                kl[name, label].mean(),
                None,
                min(run.n_embedded, len(test[name])),
                embeddings,
                per_seed=kl[name, label],
                fidelity="reduced",
                note="seeds are embeddings of one network",
            ),
        )
by_paper_name = {SETS[name]: name for name in sets}
print("\nnormalised distance to the 5 nearest, mean over test images")
for (defence, name), values in normalised.items():
    low, high = mean_interval(values.numpy())
    print(
        f"{SETS[name]:14}{f'{LABELS[defence]} features':31}{values.mean():.4f} [{low:.4f}, {high:.4f}]"
    )
    if defence == "madry":
        record(
            "BS-T1",
            f"{SETS[name]} | normalised distance",
            evidence.mean(values.numpy(), **measuring(name)),
        )

# %% tags=["hide-input"]
rates = {}  # accuracy and success of the Madry network on the whole test set
for name in (n for n in sets if ("madry", n) in fallen):
    right = correct["madry", name].numpy()
    hits = fallen["madry", name].numpy()[right]
    rates[SETS[name]] = (
        evaluation.Rate(int(right.sum()), len(right)),
        evaluation.Rate(int(hits.sum()), len(hits)),
    )
    label = SETS[name]
    print(
        f"{label:14}accuracy {rates[label][0]}, success {rates[label][1]} of {len(hits)} correct images"
    )
    record(
        "BS-T1",
        f"{label} | accuracy",
        evidence.rate(right, **measuring(name)),
    )
    record(
        "BS-T1", f"{label} | success", evidence.rate(hits, **measuring(name))
    )
    if label == "MNIST":
        stands = right & ~fallen["madry", name].numpy()
        record(
            "BS-X1",
            "MNIST | accuracy minus accuracy under attack",
            evidence.difference(right, stands, **measuring(name)),
        )
    if label == "CIFAR-10":
        twenty = evaluation.evaluate(
            nets["madry", name],
            attacks.PGD(
                threat=threat("madry", name),
                steps=20,
                step_size=2 / 255,
                dtype=dtype,
            ),
            test[name],
        )
        stands = (twenty.clean & twenty.attacked).numpy()
        record(
            "BS-X1",
            "CIFAR-10 | accuracy under PGD-20",
            evidence.rate(stands, **measuring(name)),
        )
if {"MNIST", "Fashion-MNIST"} <= rates.keys():
    digits, clothes = (by_paper_name[n] for n in ("MNIST", "Fashion-MNIST"))
    record(
        "BS-T1",
        "MNIST minus Fashion-MNIST | KL divergence",
        evidence.Measurement(
            (kl[digits, adversarial] - kl[clothes, adversarial]).mean(),
            None,
            min(run.n_embedded, len(test[digits])),
            embeddings,
            per_seed=kl[digits, adversarial] - kl[clothes, adversarial],
            fidelity="reduced",
        ),
    )
    gap, interval = unpaired(rates["MNIST"][1], rates["Fashion-MNIST"][1])
    record(
        "BS-T1",
        "MNIST minus Fashion-MNIST | success",
        evidence.Measurement(
            gap, interval, rates["Fashion-MNIST"][1].n, **measuring()
        ),
    )
    for column, position in (("accuracy", 0), ("success at eps", 1)):
        pair = [rates[n][position] for n in ("Fashion-MNIST", "MNIST")]
        gap, interval = unpaired(*pair)
        record(
            "BS-X3",
            f"Fashion-MNIST minus MNIST | {column}",
            evidence.Measurement(gap, interval, pair[0].n, **measuring()),
        )
if {"MNIST", "Fashion-MNIST", "CIFAR-10"} <= rates.keys():
    order = [by_paper_name[n] for n in ("Fashion-MNIST", "MNIST", "CIFAR-10")]
    for column, values in {
        "KL divergence": [kl[n, adversarial].mean() for n in order],
        "success": [rates[SETS[n]][1].percent for n in order],
        "normalised distance": [
            normalised["madry", n].mean().item() for n in order
        ],
    }.items():
        record(
            "BS-T1",
            f"order | {column}",
            evidence.Measurement(
                values, None, len(test[order[0]]), **measuring("cifar10")
            ),
        )
    pair = [
        tell_apart(by_paper_name[n], adversarial)
        for n in ("CIFAR-10", "MNIST")
    ]
    if all(pair):
        colour, grey = pair
        gap, interval = independent_difference(
            colour.value, colour.ci95, grey.value, grey.ci95
        )
        record(
            "BS-F3",
            "CIFAR-10 minus MNIST | AUROC of distance for success",
            evidence.Measurement(
                gap, interval, colour.n, **measuring("cifar10")
            ),
        )
if ("kolter_wong", "cifar10") in fallen:
    for label in FEATURES:
        found = tell_apart("cifar10", label, defence="kolter_wong")
        if found is not None:
            record(
                "BS-F11",
                f"CIFAR-10, certified defence, {label} | AUROC of distance for success",
                found,
            )

# %% [markdown]
# ## Blind spots: scale and shift
#
# Is there an image that a person would not tell from a test image, that the model classifies correctly, and that is not
# defended? The paper's candidates are scaled and shifted test images. In pixels of $[-0.5, 0.5]$ they are
# $x' = \alpha x + \beta$; in the $[0, 1]$ of this book
#
# $$
# x' = \alpha x + \beta + \frac{1 - \alpha}{2} .
# $$
#
# So already at $\beta = 0$ a black background turns dark grey, $(1-\alpha)/2$, and white pales by as much. The paper's
# shifts are the largest possible, $\beta = (1-\alpha)/2$: white stays white, and the background rises to $1 - \alpha$.

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-scaled", "caption": "The first test images, and the same scaled and shifted as in the paper's tables. Nothing has been attacked yet."}, "image": {"alt": "Rows of eight test images, each row a little paler and with a greyer background than the one above."}}
first_name = sets[0]
TABLES = {
    ("madry", "MNIST"): [(0.9, 0.05), (0.8, 0.1), (0.7, 0.15)],
    ("madry", "Fashion-MNIST"): [(0.95, 0.025), (0.9, 0.05)],
    ("kolter_wong", "MNIST"): [(0.95, 0.025), (0.9, 0.05)],
    ("kolter_wong", "Fashion-MNIST"): [(0.95, 0.025), (0.9, 0.05)],
    ("wrm", "MNIST"): [(0.95, 0.025), (0.9, 0.05)],
    ("wrm", "Fashion-MNIST"): [(0.95, 0.025), (0.9, 0.05)],
}
figures.gallery(
    {
        f"alpha={a:g}\nbeta={b:g}": blind_spots.scale_shift(
            test[first_name].images[:8], a, b
        )
        for a, b in [(1, 0), (0.9, 0), (0.9, 0.05), (0.7, 0), (0.7, 0.15)]
    }
)


# %%
def cells_of(defence, name):
    """Cells of the paper's table, or the one that was asked for."""
    if (run.alpha, run.beta) != (1.0, 0.0):
        return [(1.0, 0.0), (run.alpha, run.beta)]
    paper = TABLES.get((defence, SETS[name]), [])
    return [
        (1.0, 0.0),
        *(cell for a, b in paper for cell in ((a, 0.0), (a, b))),
    ]


cells = {}  # (defence, data set) -> (alpha, beta) -> what the attack achieved
for (defence, name), net in nets.items():
    if defence != "natural":
        cells[defence, name] = {
            (a, b): blind_spots.attack_cell(
                net,
                at_radius(defence, name),
                test[name],
                alpha=a,
                beta=b,
                n=run.n_attacked,
            )
            for a, b in cells_of(defence, name)
        }

# which of the attacked copies have a certificate of their own
copies_certified = {}
for name in (n for d, n in cells if d == "kolter_wong"):
    for (a, b), cell in cells["kolter_wong", name].items():
        copies = test[name].take(cell.attacked)
        copies_certified[name, a, b] = evaluation.certified(
            nets["kolter_wong", name],
            bounds.dual_margins,
            blind_spots.transformed(copies, a, b),
            eps=radius("kolter_wong", name),
        )
        assert not (copies_certified[name, a, b] & cell.at_eps).any(), (
            "the attack broke an image that was certified"
        )

# %% [markdown]
# Every cell, with the accuracy on all test images. For the network that was trained on a certificate the last column says
# how many of the attacked copies have a certificate of their own, at $\epsilon$.

# %% tags=["hide-input"]
TABLE = {
    ("madry", "MNIST"): "BS-T2",
    ("madry", "Fashion-MNIST"): "BS-T3",
    "kolter_wong": "BS-T4",
    "wrm": "BS-T5",
}


def on_common(cell, hits, other, theirs):
    """Paired difference of successes in points, on the images that both cells attacked."""
    _, mine, yours = np.intersect1d(
        cell.attacked, other.attacked, return_indices=True
    )
    return evidence.difference(
        hits.numpy()[mine], theirs.numpy()[yours], **measuring()
    )


def with_effect(hits, apart):
    """A success rate whose effect is a paired difference."""
    return dataclasses.replace(
        evidence.rate(hits.numpy(), **measuring()),
        effect=apart.value,
        effect_ci95=apart.ci95,
    )


def record_table(id, name, table):
    """All rows of a table on one data set."""
    first = table[1.0, 0.0]
    kinds = {
        "success at eps": lambda cell: cell.at_eps,
        "success at alpha eps": lambda cell: cell.at_alpha_eps,
    }
    for (a, b), cell in table.items():
        label = f"{name} alpha={a:g} beta={b:g}"
        reference = None if cell is first else first.correct.numpy()
        record(
            id,
            f"{label} | accuracy",
            evidence.rate(cell.correct.numpy(), reference, **measuring()),
        )
        for column, hits in kinds.items():
            if cell is first:
                measured = evidence.rate(hits(cell).numpy(), **measuring())
            else:
                measured = with_effect(
                    hits(cell),
                    on_common(cell, hits(cell), first, first.at_eps),
                )
            record(id, f"{label} | {column}", measured)
        if b > 0 and (a, 0.0) in table:
            straight = table[a, 0.0]
            for column, hits in kinds.items():
                record(
                    id,
                    f"{name} alpha={a:g}, beta={b:g} minus beta=0 | {column}",
                    on_common(cell, hits(cell), straight, hits(straight)),
                )
    falling = [
        cell for (_, b), cell in sorted(table.items(), reverse=True) if b == 0
    ]
    for column, hits in kinds.items():
        strict = column == "success at alpha eps"
        steps_down = [cell.success(strict=strict) for cell in falling]
        if len(steps_down) > 2:
            last = falling[-1]
            apart = on_common(last, hits(last), first, first.at_eps)
            record(
                id,
                f"{name} beta=0, alpha falling | {column}",
                evidence.Measurement(
                    [rate.percent for rate in steps_down],
                    [rate.interval for rate in steps_down],
                    min(rate.n for rate in steps_down),
                    effect=apart.value,
                    effect_ci95=apart.ci95,
                    **measuring(),
                ),
            )


for (defence, name), table in cells.items():
    id = TABLE.get((defence, SETS[name]), TABLE.get(defence))
    if id:
        record_table(id, SETS[name], table)
    where = threat(defence, name)
    norm = "l2" if defence == "wrm" else "linf"
    print(f"\n{SETS[name]}, {LABELS[defence]}, {norm} eps = {where.eps:.4g}")
    more = "         certified" if defence == "kolter_wong" else ""
    print(f"alpha   beta  accuracy  success at eps       at alpha eps{more}")
    for (a, b), cell in table.items():
        strict = "" if a == 1 else str(cell.success(strict=True))
        share = percent(copies_certified[name, a, b]) if more else ""
        line = f"{a:<6g}{b:>6g}{cell.accuracy().percent:>9.1f}%"
        line += f"  {cell.success()!s:<20} {strict:<20} {share}"
        print(line.rstrip())

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-cells", "caption": "Success in blind spots: every cell of the paper's tables. Filled: this run, at the threshold of the defence and at the stricter one that shrinks with the contrast; hollow diamonds: the paper. The accuracies stand in the tables above."}, "image": {"alt": "Dot plot of success rates in percent, one line for each defence, data set, scale and shift, with the paper's numbers as diamonds."}}
lines, ours, theirs = (
    [],
    {"at eps": [], "at alpha eps": []},
    {"at eps": [], "at alpha eps": []},
)
for (defence, name), table in cells.items():
    id = TABLE.get((defence, SETS[name]), TABLE.get(defence))
    for (a, b), cell in table.items():
        lines.append(f"{SETS[name]}, {LABELS[defence]}  {a:g}, {b:g}")
        key = f"{SETS[name]} alpha={a:g} beta={b:g} | success"
        for strict, column in enumerate(ours):
            hidden = strict and a == 1
            ours[column].append(
                [
                    np.nan
                    if hidden
                    else cell.success(strict=bool(strict)).percent
                ]
            )
            paper = stated.get((id, f"{key} {column}"))
            theirs[column].append(np.nan if paper is None else paper)
figures.dots(
    lines, ours, theirs, xlabel="success (%), over attacked images"
) if lines else None

# %% [markdown]
# ## What it looks like
#
# The nearest adversarial examples that Carlini and Wagner's attack finds, of the same image in each column of the paper's
# galleries. The scaled image needs a smaller change, although the change has to be seen on a paler digit.


# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery", "caption": "The first defence on the first data set of this run (Madry on MNIST in the published edition): test images as they are, scaled, and scaled and shifted (alpha and beta beside each row), and the nearest adversarial examples of C&W (lower row), each with its distance."}, "image": {"alt": "Six rows of images: for each column of the paper's gallery the images and their adversarial examples."}}
def column_distances(defence, name, kept):
    """Distances of the gallery's images in its columns [columns, images]; only images that fell in each."""
    columns = columns_of(defence, name)
    far = np.stack(
        [
            closest[defence, name, a, b].distances.numpy()[: run.n_gallery][
                kept
            ]
            for a, b in columns
        ]
    )
    return far[:, np.isfinite(far).all(axis=0)]


def record_gallery(id, row, far):
    """Mean distances from column to column, decided by the paired difference of the last and the first."""
    if far.shape[1] > 2 and (run.alpha, run.beta) == (1.0, 0.0):
        record(
            id,
            row,
            evidence.Measurement(
                far.mean(axis=1),
                [mean_interval(column) for column in far],
                far.shape[1],
                effect=(far[-1] - far[0]).mean(),
                effect_ci95=mean_interval(far[-1] - far[0]),
                **measuring(),
            ),
        )


def column_means(far):
    """A line of text."""
    if far.shape[1] < 2:
        return "fewer than 2 images fell in every column"
    low, high = mean_interval(far[-1] - far[0])
    means = " ".join(f"{value:.3f}" for value in far.mean(axis=1))
    return f"n={far.shape[1]:<4}{means}  [{low:.3f}, {high:.3f}]"


drawn = min([run.n_gallery, *map(len, shown.values())])
half, rest = slice(0, drawn // 2), slice(drawn // 2, drawn)
print(
    "mean distance of C&W's examples from column to column, [95% CI] of last - first"
)
for defence, name in shown:
    headings = "; ".join(
        f"{a:g}, {b:g}" for a, b in columns_of(defence, name)
    )
    norm = "l2" if defence == "wrm" else "linf"
    far = column_distances(defence, name, half)
    record_gallery(
        "BS-F4" if defence == "madry" else "BS-F12",
        f"{SETS[name]}, {LABELS[defence]}, alpha, beta = {headings} | {norm} distance",
        far,
    )
    print(f"{SETS[name]:14}{LABELS[defence]:13}{column_means(far)}")
    if defence == "madry":
        more = column_distances(defence, name, rest)
        record_gallery(
            "BS-F10",
            f"{SETS[name]}, Madry, another set of images | linf distance",
            more,
        )
        print(f"{'':14}{'another set':13}{column_means(more)}")


def gallery(defence, name, part=half):
    """Images and their adversarial examples in the columns of the paper."""
    rows, notes = {}, {}
    eight = slice(part.start, min(part.start + 8, part.stop))
    for a, b in columns_of(defence, name):
        found = closest[defence, name, a, b]
        attacked = f"{a:g}, {b:g}\nattacked"
        rows[f"{a:g}, {b:g}"] = blind_spots.scale_shift(
            shown[defence, name].images[eight], a, b
        )
        rows[attacked] = found.images[eight]
        notes[attacked] = [
            f"{far:.3f}" for far in found.distances[eight].tolist()
        ]
    return {"rows": rows, "notes": notes}


pairs = list(shown)
first_shown, last_shown = (
    (small_sets or [None])[0],
    (small_sets or [None])[-1],
)
figures.gallery(**gallery(*pairs[0])) if pairs else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery-clothes", "caption": "The same for the Madry network on the last data set of this run (Fashion-MNIST in the published edition; with a single data set these are the images above)."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
figures.gallery(**gallery("madry", last_shown)) if (
    "madry",
    last_shown,
) in shown else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery-more", "caption": "Another set of images for the Madry network on the first data set (the paper's Figure 10)."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
figures.gallery(**gallery("madry", first_shown, rest)) if (
    "madry",
    first_shown,
) in shown else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery-more-clothes", "caption": "Another set of images for the Madry network on the last data set."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
figures.gallery(**gallery("madry", last_shown, rest)) if (
    "madry",
    last_shown,
) in shown and last_shown != first_shown else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery-kolter-wong", "caption": "The same for the network trained on a certificate, on the last data set of this run."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
figures.gallery(**gallery("kolter_wong", last_shown)) if (
    "kolter_wong",
    last_shown,
) in shown else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-gallery-wrm", "caption": "The same for WRM on the first data set, attacked in l2."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
figures.gallery(**gallery("wrm", first_shown)) if (
    "wrm",
    first_shown,
) in shown else None

# %% [markdown]
# ## Could the shift be detected?
#
# If scaled images were far from the training set, a detector could refuse them. The paper's Figure 5 shows the distances of
# original and scaled test images: the histograms look alike. Here is the figure, and a detector's AUROC: the chance that a
# scaled image lies farther from the training set than an image as it is. The test and the AUROC compare one half of the
# test images as they are with the other half scaled, so that the two samples are independent.

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-detect", "caption": "Distance to the five nearest training images, features of the adversarially trained network: test images as they are, and scaled."}, "image": {"alt": "Two overlaid histograms of distances for each data set."}}
SCALES = {"MNIST": 0.7, "Fashion-MNIST": 0.9}
both = {}
for name in (n for n in small_sets if ("madry", n) in nets):
    scale = SCALES[SETS[name]]
    moved = blind_spots.transformed(test[name], scale, 0.0)
    away = manifolds.neighbour_distances(
        features("madry", name, moved.images),
        features("madry", name, own_training_set(name).images),
        [5],
    )[5].numpy()
    stay = distances["madry", name][5].numpy()
    both[SETS[name]] = {"as they are": stay, f"alpha = {scale:g}": away}
    stay, away = stay[::2], away[1::2]
    area, interval = trends.auroc(
        np.concatenate([stay, away]),
        np.repeat([False, True], [len(stay), len(away)]),
    )
    statistic, p = trends.two_sample_test(stay, away)
    print(
        f"{SETS[name]:14}alpha={scale:g}: AUROC {area:.3f} [{interval[0]:.3f}, {interval[1]:.3f}],"
        f" Kolmogorov-Smirnov {statistic:.3f}, p = {p:.1g}"
    )
    record(
        "BS-F5",
        f"{SETS[name]} alpha={scale:g} beta=0 | AUROC of distance for scaled",
        evidence.Measurement(area, interval, len(stay), **measuring(name)),
    )
figures.histograms(both, xlabel="distance to the 5 nearest") if both else None

# %% [markdown]
# ## Beyond the paper: the whole plane
#
# The paper tries a handful of cells. This is the success rate over the plane of scale and shift, at the threshold of the
# defence; the shift is given as a share of the largest possible one, $(1-\alpha)/2$.

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-map", "caption": "Success (%) of the attack on the Madry network over scale (columns) and shift (lines, as a share of the largest possible), at the threshold of the defence, with fewer images and steps than in the tables: a cell at `standard` is good to 7 points. Empty where more than half of the images are misclassified before the attack."}, "image": {"alt": "Annotated heat maps of success rates; darker is higher; the column at scale one holds one value."}}
MAP_SCALES = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7]
SHARES = [1.0, 0.5, 0.0, -0.5, -1.0]


def over_the_plane(name):
    """Success and accuracy over the plane: two arrays [shares, scales].

    Both are NaN where scale 1 leaves no room for a shift, success also where
    more than half of the images are misclassified.
    """
    few = at_most(test[name], 2 * run.n_map)
    attack = at_radius("madry", name, steps=run.trend_steps, restarts=0)
    success, accuracy = np.full((2, len(SHARES), len(MAP_SCALES)), np.nan)
    for column, a in enumerate(MAP_SCALES):
        for line, share in enumerate(SHARES):
            if a == 1 and share != 0:
                continue
            net, b = nets["madry", name], share * (1 - a) / 2
            moved = blind_spots.transformed(few, a, b)
            right = evaluation.judged(net, moved.images, moved.labels)
            accuracy[line, column] = 100 * right.float().mean().item()
            if accuracy[line, column] >= 50:
                cell = blind_spots.attack_cell(
                    net, attack, few, alpha=a, beta=b, n=run.n_map
                )
                success[line, column] = cell.success().percent
    return success, accuracy


planes = {
    SETS[name]: over_the_plane(name)
    for name in small_sets
    if ("madry", name) in nets
}


def of_all_sets(which):
    """Success (0) or accuracy (1) over the plane, for each data set."""
    return {
        "panels": {name: plane[which] for name, plane in planes.items()},
        "lines": [f"{share:g}" for share in SHARES],
        "columns": [f"{a:g}" for a in MAP_SCALES],
        "xlabel": "scale alpha",
        "ylabel": "share of the largest shift",
    }


figures.matrices(**of_all_sets(0)) if planes else None

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-map-accuracy", "caption": "Accuracy (%) on the same images before any attack. Only where it stays as it is are they blind spots; where it falls, the network is simply wrong about them."}, "image": {"alt": "Annotated heat maps of accuracies over the same plane."}}
figures.matrices(**of_all_sets(1)) if planes else None

# %% [markdown]
# ## Beyond the paper: can training close the blind spots?
#
# If a defence protects what it was trained on, it can be trained on scaled images. Here the Madry network is trained again,
# each image scaled by a random $\alpha \in [0.7, 1]$ and shifted by a random $\beta$ before its adversarial example is made,
# and the cells of the table are attacked once more.

# %% tags=["hide-input"]
repaired = None
if run.n_repair and small_sets and ("madry", small_sets[0]) in nets:
    name = small_sets[0]
    plain = recipe("madry", name)
    repaired = networks.train(
        plain.replace(
            objective=objectives.ScaledAndShifted(
                objective=plain.objective, least=0.7
            )
        ),
        own_training_set(name),
        seed=run.seed,
        device=run.device,
    )
    print(
        f"{SETS[name]}, success at eps (at alpha eps) on {run.n_repair} images or those there are, accuracy on all"
    )
    print("alpha   beta   Madry                   trained on scaled images")
    for (a, b), before in cells["madry", name].items():
        after = blind_spots.attack_cell(
            repaired,
            at_radius("madry", name),
            test[name],
            alpha=a,
            beta=b,
            n=run.n_repair,
        )
        texts = []
        for cell in (before, after):
            rates_ = [
                100 * hits[: run.n_repair].float().mean().item()
                for hits in (cell.at_eps, cell.at_alpha_eps)
            ]
            texts.append(
                f"{rates_[0]:5.1f} ({rates_[1]:5.1f})  {cell.accuracy().percent:5.1f}%"
            )
        print(f"{a:<6g}{b:>6g}   {texts[0]:<24}{texts[1]}")
else:
    print("not run: n_repair = 0, or no Madry network in this run")

# %% [markdown]
# ## Sanity: can these rates be trusted?
#
# On the first test images and the Madry networks: a larger radius never protects, and the undefended twin falls. Twice the
# steps, an attack without gradients (Square) and examples carried over from the undefended network must not be better than
# the attack of the tables: the chapter stops if the lower end of the 95% interval of their lead exceeds 2 points. At the
# end AutoAttack {cite}`croce2020reliable`, from a peer library where one is installed, attacks the first network. The
# other two defences have their certificate and the comparison with C&W above.

# %% tags=["hide-input"] mystnb={"figure": {"name": "bs-sanity", "caption": "Success of the attack over its radius, as a multiple of the threshold of the defence: the Madry network (adversarial) and the natural network of the same architecture (standard)."}, "image": {"alt": "Two curves of success over radius with interval bands, both rising to 100 percent."}}
sane = [name for name in small_sets if ("madry", name) in nets]
probes = {name: at_most(test[name], 2 * run.n_map) for name in sane}
FACTORS = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0]
sweeps = {}
for name, probe in probes.items():
    sweeps[SETS[name]] = sweep = {"adversarial": [], "standard": []}
    for label, defence in (("adversarial", "madry"), ("standard", "natural")):
        for factor in FACTORS:
            attack = blind_spots.FixedRadius(
                threat=Linf(eps=min(1.0, factor * radius("madry", name))),
                steps=run.trend_steps,
                restarts=0,
                dtype=dtype,
            )
            sweep[label].append(
                evaluation.evaluate(
                    nets[defence, name], attack, probe
                ).success_rate()
            )
        climb = np.diff([rate.percent for rate in sweep[label]])
        assert (climb >= -2).all(), (
            f"{defence}: a larger radius made the attack weaker, {climb}"
        )
figures.curves(
    FACTORS, sweeps, xlabel="radius / threshold", ylabel="success (%)"
) if sweeps else None


# %% tags=["hide-input"]
@dataclasses.dataclass(frozen=True, kw_only=True)
class PeerAutoAttack:
    """AutoAttack of torchattacks with 100 steps a stage (it ships with 10) and 5,000 queries."""

    threat: Linf
    classes: int

    def __call__(self, model, x, y, generator=None):
        import torchattacks

        eps, classes = self.threat.eps, self.classes
        stages = [
            torchattacks.APGD(model, eps=eps, steps=100, loss="ce"),
            torchattacks.APGDT(model, eps=eps, steps=100, n_classes=classes),
            torchattacks.FAB(
                model,
                eps=eps,
                steps=100,
                multi_targeted=True,
                n_classes=classes,
            ),
            torchattacks.Square(model, eps=eps, n_queries=5000),
        ]
        x_adv = torchattacks.MultiAttack(stages)(x, y)
        return (x + (x_adv - x).clamp(-eps, eps)).clamp(0, 1)


for name, probe in probes.items():
    net, where = nets["madry", name], threat("madry", name)
    ascent = at_radius("madry", name)
    few = at_most(probe, run.n_map)
    white = evaluation.evaluate(net, ascent, few)
    print(f"{SETS[name]}\n{'white box':35}success {white.success_rate()}")
    others = {
        "twice the steps": at_radius("madry", name, steps=2 * run.steps),
        "gradient-free (Square)": square.Square(
            eps=where.eps, queries=10 * run.steps
        ),
        "transfer from the natural network": attacks.Transfer(
            source=nets["natural", name],
            attack=attacks.PGD(
                threat=where,
                steps=run.steps,
                step_size=where.eps / 10,
                loss=attacks.margin,
                drop_fooled=False,  # the whole way, not to the first success
                dtype=dtype,
            ),
        ),
    }
    for label, other in others.items():
        verdicts = evaluation.evaluate(net, other, few)
        print(f"{label:35}success {verdicts.success_rate()}")
        lead, (low, _) = paired_difference(
            (~verdicts.attacked).numpy(), (~white.attacked).numpy()
        )
        assert low <= 0.02, (
            f"{label} does better than the white-box attack by {lead:.3f}"
        )
if not run.n_autoattack:
    print("AutoAttack: not asked for (n_autoattack = 0)")
elif importlib.util.find_spec("torchattacks") is None:
    print(
        "AutoAttack: not run, the peer library torchattacks is not installed"
    )
elif sane:
    name = sane[0]
    subset = at_most(test[name], run.n_autoattack)
    peer_attack = PeerAutoAttack(
        threat=threat("madry", name), classes=len(subset.classes)
    )
    peer = evaluation.evaluate(
        nets["madry", name], peer_attack, subset, batch_size=100
    )
    print(f"{SETS[name]}, the first {len(subset)} test images")
    print(f"{'AutoAttack':35}success {peer.success_rate()}")
    for label, restarts in (("two", 0), ("seven", 5)):
        ascent = at_radius("madry", name, restarts=restarts)
        mine = evaluation.evaluate(nets["madry", name], ascent, subset)
        lead, ends = paired_difference(
            (~peer.attacked).numpy(), (~mine.attacked).numpy()
        )
        print(
            f"{f'margin ascent, {label} starts':35}success {mine.success_rate()}\n"
            f"{'':10}AutoAttack breaks {100 * lead:+.1f} [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}] points more"
        )

# %% [markdown]
# ## Results

# %% tags=["hide-input"]
results = ledger.results(
    not_run_note=f"this run is on {', '.join(SETS[n] for n in sets)};"
    " CIFAR-10 and GTSRB need a GPU",
    **run.provenance(**fingerprints),
)
published = (
    evidence.published("blind_spot") if not run.is_evidence else results
)
this_run = None if run.is_evidence else results
scoreboard.comparison_table(
    this_run,
    published,
    ["BS-T1", *(f"BS-F{i}" for i in (1, 2, 3, 5, 6, 7, 8, 9, 11))],
)

# %% [markdown]
# Table 2, the Madry network on MNIST:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(this_run, published, ["BS-T2"])

# %% [markdown]
# Table 3, the Madry network on Fashion-MNIST:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(this_run, published, ["BS-T3"])

# %% [markdown]
# Table 4, the network trained on a certificate:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(this_run, published, ["BS-T4"])

# %% [markdown]
# Table 5, WRM:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(this_run, published, ["BS-T5"])

# %% [markdown]
# Galleries and statements:

# %% tags=["hide-input", "hide-output"]
scoreboard.comparison_table(
    this_run,
    published,
    ["BS-F4", "BS-F10", "BS-F12", "BS-X1", "BS-X2", "BS-X3"],
)

# %% [markdown]
# ````{admonition} About the published run
# The published edition was made at the profile {glue:text}`profile`, on MNIST and Fashion-MNIST, with one training of each
# network. Of its rows, {glue:text}`glance`. Every row is *reduced*: the networks were trained for a fraction of the paper's
# time, so that *partly* is the most a row can earn, and the paper's numbers beside ours are those of other networks. The
# heart of it, success in the three cells that all four tables share, the paper's numbers in brackets:
#
# ```{glue} heart
# ```
#
# *Failure grows with distance.* The attack breaks {glue:text}`BS-T1-MNIST-success` of the correctly classified test images
# of MNIST and {glue:text}`BS-T1-Fashion-MNIST-success` of those of Fashion-MNIST, and where they lie matters: an image
# that falls is farther from the training set than one that stands with a chance of
# {glue:text}`BS-F1-MNIST-adversarially-trained-features-AUROC-of-distance-for-success` and
# {glue:text}`BS-F2-Fashion-MNIST-adversarially-trained-features-AUROC-of-distance-for-success` in the network's own features,
# and of {glue:text}`BS-F1-MNIST-natural-features-AUROC-of-distance-for-success` and
# {glue:text}`BS-F2-Fashion-MNIST-natural-features-AUROC-of-distance-for-success` in natural ones. In the farthest tenth of the
# test images success is {glue:text}`BS-F1-MNIST-farthest-tenth-minus-nearest-tenth` and
# {glue:text}`BS-F2-Fashion-MNIST-farthest-tenth-minus-nearest-tenth` higher than in the nearest. On Fashion-MNIST the
# relation is the weaker one, and over the farthest tenths success rises no more. It fades as $k$ grows: what counts are
# the nearest neighbours.
#
# *Fashion-MNIST is not the safer set here.* The paper's network loses fewer images there than on MNIST, ours more, at the
# paper's accuracy. The attack is not the reason: on the same images C&W finds nearly as many. The shorter training is part
# of it at most: with three epochs instead of six (tried after this run, on another processor and in float32, as
# `-p profile standard -p dataset fashion_mnist -p defences madry -p epochs 3` does it) 19.6% [17.9, 21.3] of 2,000 images fall
# at an accuracy of 84.5%, so that doubling the training gained 2.4 points where eleven are missing. So the statement that
# robustness does not follow accuracy has no support from this run.
#
# *The divergence says little here.* Three embeddings of one network's features, each of images of its own draw, differ by
# more on MNIST than the paper's data sets do, and in the network's own features one half of the training points diverges
# from the other about as much as the test points do: a density estimated from 150 points a class is mostly its own noise.
#
# *Blind spots.* Less contrast leaves the accuracy where it was and opens all six networks at $\epsilon$; a shift that keeps
# white white opens them further. The certified network is no exception: what a certificate promises for one image it does
# not promise for its copy. At $\alpha\epsilon$ one of the scales is too near to one to tell: the certified network on
# MNIST at 0.95 falls no more often than as it stands. One corner of the map of Fashion-MNIST says little: at scale 0.7 and
# share 0.5 fewer than half of the images are still classified correctly, and the rate is that of what is left. The next
# edition leaves such places empty and maps the accuracy too.
#
# *Two of the defences are not the authors' networks.* Ours on a certificate is more accurate than theirs on MNIST and moves
# less there, less accurate on Fashion-MNIST and more easily broken. It was trained on intervals for most of its time and on
# the exact bound at the end, theirs on the bound throughout. How long matters: with six epochs instead of twelve
# (`-p profile standard -p dataset mnist -p defences kolter_wong -p epochs 6`, tried likewise) the accuracy on MNIST is
# 97.9%, nearer to theirs, and in the cell 0.9, 0.05 success rises from 49 to 60.8% [58.6, 62.9] at $\epsilon$ and from 31 to
# 44.4% [42.2, 46.5] at $\alpha\epsilon$, towards the paper's 86 and 81.
#
# WRM is weaker than theirs from the start. Four epochs instead of 25 seem to explain little of it: with two
# (`-p profile standard -p dataset mnist -p defences wrm -p epochs 2`, tried likewise) 58.9% [56.7, 61.0] fall as they are,
# 3.4 points more. The attack may explain more: forty steps of plain PGD break a quarter of the MNIST images that the network
# classifies correctly, margin ascent more than half, and the paper does not say how its l2 attack was set. The table shows
# the direction of the effect and not its size.
#
# *C&W is not closer than PGD, and not clearly farther.* Its mean distance differs from PGD's by
# {glue:text}`BS-X2-MNIST-Madry-mean-linf-distance-C-W-minus-PGD` and
# {glue:text}`BS-X2-Fashion-MNIST-Madry-mean-linf-distance-C-W-minus-PGD`, less than the resolution of either: C&W lowers
# $\tau$ by a tenth at a time and can end that much too far, PGD's ladder is half as coarse. Half a step off both would turn
# the sign on MNIST. This edition compares them as they were found; the next one draws both towards the image first.
#
# *Could the shift be seen?* By this distance hardly: a scaled image is farther from the training set than an image as it
# is with a chance of {glue:text}`BS-F5-MNIST-alpha-0.7-beta-0-AUROC-of-distance-for-scaled` on MNIST and
# {glue:text}`BS-F5-Fashion-MNIST-alpha-0.9-beta-0-AUROC-of-distance-for-scaled` on Fashion-MNIST. There the two distributions do
# differ by the Kolmogorov-Smirnov test, but it is the scaled images that lie nearer. (A look at the darkest pixel would tell
# at once; the paper's point is that this distance, which predicts failure, does not.)
#
# *Can training close the blind spots?* Mostly, near home. With scaled and shifted images in its training (one network, MNIST)
# the success at scale 0.9 falls from more than half of the images to 15% at most, for half a point of accuracy; at
# scale 0.7 and $\epsilon$ most images still fall, and at $\alpha\epsilon$ about a quarter at most.
#
# *Are the rates right?* AutoAttack finds half a point more than margin ascent on 500 images, less than its interval. C&W
# finds hardly any image that ascent does not. On four of the six networks the two differ by less than the 2 points asked
# of a substitute; on the Madry network for MNIST ascent finds 4.5 points more, on the certified one for Fashion-MNIST 2.5
# (an interval that includes none). The step of $\tau$ is enough to account for the first: the column beside C&W's allows for
# it, and lies above ascent there. More iterations account for the second: with 1,000 instead of 300, tried after this run on
# the same network (`-p profile standard -p defences kolter_wong -p carlini_iterations 1000`), C&W comes to 11.5 against
# 12.0%. The tables' rates are not too low for it.
#
# *Errata.* An audit after the run found what changes no number but the reading of two. The row *Fashion-MNIST beta=0,
# alpha falling | success at alpha eps* of Table 5 is judged by an interval that takes its cells for independent. They share
# their images, and the paired difference that decides the row *Fashion-MNIST alpha=0.9 beta=0 | success at alpha eps* is of
# the same two cells and lies above zero: *partly*, not *not reproduced*. And the examples that were carried over from the
# natural network had been stopped at their first success on it, barely across its border, so that the low rates of transfer
# prove little. Both are mended in the code. Nor does *partly* say much of an accuracy here: its margin of a quarter of the
# paper's value lets everything pass. Within the 3 points of the next edition four of six would stand; on Fashion-MNIST the
# certified network and WRM are farther off.
#
# So, to the question of the title: no. The protection thins out with the distance to the training set, and a change of
# contrast that this distance does not notice is enough to leave it.
# ````

# %% [markdown]
# ## Where we deviate, and why
#
# | point | here | why | kind |
# | --- | --- | --- | --- |
# | Madry and natural networks | six epochs at a falling learning rate instead of 100,000 steps; Madry on 3, then 10, then 40 PGD steps | a day on two cores; what the network is worth under PGD-40 is printed above, and must be at least 91% on MNIST | reduced |
# | Kolter-Wong | twelve epochs; interval bounds of a radius up to $\epsilon/2$, then the exact dual bound at $\epsilon$ for the last 0.6 epochs | a step on the dual bound costs two hundred on intervals | reduced |
# | WRM | four epochs instead of 25 | 17 passes for each image and epoch: an hour and more on two cores for each data set | reduced |
# | held back | Madry and natural networks train on the last 55,000 images, as Madry's code does; distances are to these | the others have no such split | exact |
# | rates | margin ascent at a fixed radius, on the first 2,000 correctly classified test images: the paper's two starts, the grey one projected into the ball, and at `paper` five random ones | only "below the threshold" matters; shown beside C&W on the same images | code variant |
# | C&W | 300 iterations for each constant instead of 1,000, and an attempt whose loss stands still is given up; 200 images a defence | the second as in the authors' l2 attack; an hour for each defence otherwise | reduced |
# | C&W l2 for WRM | nine rounds of 1,000 iterations, the paper's two starts | the paper gives no settings; its code's default is 10,000 iterations | code variant |
# | WRM evaluation | pixels stay in $[0, 1]$ | the training does not clip them, the threat model does | exact |
# | trend | 40 steps from the paper's two starts on all 10,000 test images; 30 bins | the tables take 100 steps; the paper does not say how many bins | reduced |
# | features | after the ReLU, and the AUROC before it printed beside; normalised distances in those of the Madry network, the others printed beside | the paper does not say | exact |
# | divergence | 4,000 training and 4,000 test images in each of three embeddings (all classes in one), beside 4,000 further training images | t-SNE of 70,000 points takes half an hour each; dimension, perplexity and kernel are not stated | reduced |
# | galleries | means over ten images | the paper shows one each | exact |
# | CIFAR-10, traffic signs | PreActResNet-18, 30 epochs, batch statistics frozen while attacking; half of the frames of GTSRB, at 32x32; for the certificate the small network and the exact bound, not the large one and random projections | WRN-32-10 takes ten times as long; profile `paper` only | substitution |
# | step of the training attack on Fashion-MNIST | $\epsilon/6$, then $\epsilon/30$ = 0.0033, as on MNIST in proportion | "the same parameters" may also mean 0.01, a tenth of the radius | reduced |
# | batches | 128 for Madry and natural networks, not 50; Madry's gradient clipped to 5 | speed | reduced |
# | precision | passes of attacks, those in Madry's training too, and of the training of natural and WRM networks in bfloat16 where the processor has it | every success is confirmed in float32; an attack may miss one | code variant |
#
# Rows that are *not run* say what they need. One thing was changed after a look at test images: at a learning rate of 0.001
# the Madry network fell short of 91% under PGD-40. The rate was raised to 0.005, chosen by the training loss of the first
# epochs, before any attack of this chapter had been run. Nothing else was tuned.
#
# Criteria that changed after the published edition, for the next one, because they were wrong: the accuracy of a network as
# it stands had a margin of 25% of the paper's value, which nothing could miss, and has 3 points; success along a sequence of
# scales was decided by an interval of two independent rates, and is decided by the paired difference of its ends; C&W and
# PGD were compared as they ended, each a step of its own too far, and are compared after both are drawn near.

# %% [markdown]
# ## Your own model
#
# With `-p model package.module:function -p weights file.safetensors` your model takes the Madry network's place in the blind
# spots: accuracy, and success at both thresholds in each cell. The function takes no arguments and returns a network from
# images with pixels in $[0, 1]$ to logits of the data set's classes. Choose the set with `-p dataset` and the linf radius with
# `-p epsilon`, which holds for all defences of the run: `-p defences madry` leaves the others out.

# %% tags=["hide-input"]
if own is None:
    print("no model was given")
else:
    name = sets[0]
    where = threat("madry", name)
    if len(sets) > 1:
        print(f"on the first of {len(sets)} data sets")
    print(
        f"{run.model} on {SETS[name]}, linf eps = {where.eps:.4g}\n"
        "alpha   beta  accuracy  success at eps       at alpha eps"
    )
    for a, b in cells_of("madry", name):
        cell = blind_spots.attack_cell(
            own.to(run.device),
            at_radius("madry", name),
            test[name],
            alpha=a,
            beta=b,
            n=run.n_attacked,
        )
        strict = "" if a == 1 else str(cell.success(strict=True))
        print(
            f"{a:<6g}{b:>6g}{cell.accuracy().percent:>9.1f}%  {cell.success()!s:<20} {strict}"
        )

# %% [markdown]
# ## Try it yourself
#
# ```bash
# # one cell of the plane and its gallery, on clothes (embedded digits without -p dataset)
# papermill chapters/blind_spot.ipynb out.ipynb -p alpha 0.85 -p beta 0.05 \
#     -p dataset fashion_mnist -p defences madry
#
# # a larger threshold
# papermill chapters/blind_spot.ipynb out.ipynb -p epsilon 0.2 -p defences madry
#
# # everything on MNIST at the standard profile
# papermill chapters/blind_spot.ipynb out.ipynb -p profile standard -p dataset mnist
#
# # your own MNIST model in its blind spots (my_models.py in the current folder, or on Python's path)
# papermill chapters/blind_spot.ipynb out.ipynb -p dataset mnist -p defences madry -p epsilon 0.3 \
#     -p n_attacked 500 -p n_test 10000 -p steps 100 -p model my_models:build -p weights mine.safetensors
# ```
#
# **Exercise 1.** Is it the contrast or the grey background that opens the blind spot?
#
# ```{dropdown} Solution
# The map above has both: at share -1 the background stays black and only white pales, $\beta = -(1-\alpha)/2$; at share 1
# white stays and the background rises; along the middle line each does half of it. Compare the three lines at one scale. In
# the published run, on MNIST, it is mostly the background at 0.9: with a black one success about doubles, with a grey one
# it comes close to all images. At 0.7 the pale white alone opens most of them.
# ```
#
# **Exercise 2.** Would a brightness normalisation in front of the network help?
#
# ```{dropdown} Solution
# Stretch every image so that its darkest pixel is 0 and its brightest 1, as the first layer of a model of your own: with
# `low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)` it is `(x - low) / (high - low)`. Scale and
# shift are undone, but the adversary moves pixels by $\epsilon$ of the *unstretched* image, which the stretch makes larger
# by $1/\alpha$: judge by the stricter threshold $\alpha\epsilon$. And she can move the darkest and the brightest pixel too,
# and so the stretch itself.
# ```

# %% tags=["remove-cell"]
quotable = published or results
glue("at-a-glance", scoreboard.glance_table(quotable), display=False)
quoted = scoreboard.glue_values(quotable)
for key in (
    "profile",
    "glance",
    *(
        f"{prefix}-{name}-{row}"
        for name in MADRY_EPS
        for prefix, row in (
            ("BS-T1", "success"),
            (
                FIGURE[name],
                "adversarially-trained-features-AUROC-of-distance-for-success",
            ),
            (
                FIGURE[name],
                "natural-features-AUROC-of-distance-for-success",
            ),
            (FIGURE[name], "farthest-tenth-minus-nearest-tenth"),
            ("BS-X2", "Madry-mean-linf-distance-C-W-minus-PGD"),
        )
    ),
    "BS-F5-MNIST-alpha-0.7-beta-0-AUROC-of-distance-for-scaled",
    "BS-F5-Fashion-MNIST-alpha-0.9-beta-0-AUROC-of-distance-for-scaled",
):
    glue(key, quoted[key], display=False)
heart = {
    f"{data_set}, {LABELS[defence]}, {column}": (
        TABLE.get((defence, data_set), TABLE.get(defence)),
        f"{data_set} {{0}} | success {column}",
    )
    for data_set in MADRY_EPS
    for defence in DEFENCES
    for column in ("at eps", "at alpha eps")
}
grid = scoreboard.grid_table(
    quotable,
    "success",
    heart,
    ["alpha=1 beta=0", "alpha=0.9 beta=0", "alpha=0.9 beta=0.05"],
)
glue("heart", grid, display=False)
display({"application/vnd.robustutils.results+json": results}, raw=True)
