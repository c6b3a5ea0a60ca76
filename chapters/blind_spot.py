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
# **No.** A tenth less contrast and a lighter background leave the accuracy of a defended network where it was, and the same
# attack, which broke {glue:text}`BS-T2-MNIST-alpha-1-beta-0-success-at-eps` of the images before, breaks
# {glue:text}`BS-T2-MNIST-alpha-0.9-beta-0.05-success-at-eps` (Madry's network on MNIST). A certified network goes from
# {glue:text}`BS-T4-MNIST-alpha-1-beta-0-success-at-eps` to {glue:text}`BS-T4-MNIST-alpha-0.9-beta-0.05-success-at-eps`.
# Of {glue:text}`glance-measured` claims measured, {glue:text}`glance-agrees` agree with *The Limitations of Adversarial
# Training and the Blind-Spot Attack* {cite}`zhang2019limitations`, all with shortened training. What disagrees: C&W finds no
# nearer examples than PGD, and WRM on MNIST and every network on Fashion-MNIST are weaker here before any scaling.

# %% tags=["remove-input"]
from robustutils.book.study import Study, describe, front, source

front("blind_spot")

# %% [markdown]
# ## Why it matters
#
# The robustness of a model is measured on a test set, and a test set is drawn like the training set. A camera with another
# exposure, a scanner with another white point are not. If the measured robustness does not survive a change of contrast that
# no one would notice, the number says little about the model in the field.
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

# %% tags=["parameters", "hide-input"]
profile = "quick"  # quick, check, standard or paper: sets every None below
dataset = None  # some of mnist, fashion_mnist, cifar10, gtsrb, gtsrb_half
defences = None  # some of 'madry, kolter_wong, wrm'
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
import functools

import numpy as np
import torch
from IPython.display import display
from robustutils import attacks, bounds, data, evaluation, figures
from robustutils import models, networks, recipes, sanity, statistics
from robustutils.papers.blind_spot import blind_spots, carlini, feature_distance
from robustutils.papers.blind_spot.dual import dual_margins
from robustutils.papers.blind_spot.recipes import recipe_in_seconds
from robustutils.papers.blind_spot.objectives import ScaledAndShifted
from robustutils.artifacts import kept
from robustutils.outcomes import Measurement, Outcomes, Ranking
from robustutils.book.parameters import ParameterError
from robustutils.tables import plain
from robustutils.threats import L2, Linf

study = Study.begin("blind_spot", globals())
run = study.run
GREY = {"MNIST": 0.3, "Fashion-MNIST": 0.1}  # 28x28 sets and their radii
PAPER = {
    "digits": "MNIST",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
}
sets = {PAPER.get(name, "GTSRB"): name for name in run.dataset}
if len(sets) < len(run.dataset):
    raise ParameterError(f"dataset={','.join(run.dataset)!r}: two of them stand for the same set")
if run.epsilon > 1 and (run.model or set(run.defences) != {"wrm"}):
    raise ParameterError(
        f"epsilon={run.epsilon}: an linf radius is at most 1; -p defences wrm has an l2 radius"
    )
try:
    blind_spots.check_scale_shift(run.alpha, run.beta)
except ValueError as error:
    raise ParameterError(str(error)) from None
describe(run)

# %% [markdown]
# A profile is a set of defaults. `quick` runs anywhere in a minute, with networks of 768 small digits: its numbers are *not
# evidence*. `standard` measures every cell of the tables on MNIST and Fashion-MNIST with shortened training, on two CPU
# cores. `paper` trains at the papers' lengths and adds CIFAR-10 and traffic signs, on a GPU.
#
# Every cell of the paper's tables is a row with a criterion that was committed before its run; the head of
# `chapters/blind_spot.toml` names those added or changed between editions. These are Table 2's. *Inside* asks that the 95%
# interval of an effect stay within a margin, *within* for a value near the paper's, *above* for an effect whose interval lies
# wholly above zero, *increasing* for a sequence without a step back. An interval that reaches to both sides decides nothing:
# the row is *undetermined*. There is one training of each network, so that intervals are those over test images alone.

# %% tags=["nbval-check-output", "hide-output"]
study.criteria("BS-T2")

# %% [markdown]
# ## Data and defences

# %% tags=["nbval-check-output"]
train = {s: data.some(data.load(name, "train"), run.n_train) for s, name in sets.items()}
test = {s: data.some(data.load(name, "test"), run.n_test) for s, name in sets.items()}
fewest = min(map(len, train.values()))
if run.n_held_out >= fewest - 64:
    raise ParameterError(f"n_held_out={run.n_held_out}: leaves too few of {fewest} images")
splits = [split for s in sets for split in (train[s], test[s])]
plain(
    "data set, split, images, SHA-256",
    [(part.name, part.split, len(part), part.fingerprint[:16]) for part in splits],
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
# on the $x'$ that maximises $c\,L(h(x'), y) - \tfrac12\|x'-x\|_2^2$ with $c = 1.3$, as 15 ascent steps find it. It promises
# robustness in l2, and is attacked in l2.

# %%
LABELS = dict(natural="natural", madry="Madry", kolter_wong="Kolter-Wong", wrm="WRM")
TRIED = {"CIFAR-10": ("madry", "kolter_wong"), "GTSRB": ("madry",)}  # else all three
in_seconds = [s for s in sets if sets[s] == "digits" or (run.profile == "quick" and s in GREY)]


def recipe(defence, s):
    """How a defence is trained on a data set."""
    if s in in_seconds:
        chosen = recipe_in_seconds(defence, GREY[s])
    else:
        chosen = recipes.recipe_of(defence, sets[s], in_full=run.training == "full")
    return chosen.replace(epochs=run.epochs) if run.epochs else chosen


not_held_out = {
    s: train[s].take(torch.arange(run.n_held_out, len(train[s]))) for s in GREY if s in sets
}


def trained_on(defence, s):
    """Madry's code holds the first 5,000 images back."""
    return not_held_out[s] if s in GREY and defence in ("natural", "madry") else train[s]


nets = networks.Networks()
for s in sets:
    for defence in ("natural", *(d for d in run.defences if d in TRIED.get(s, run.defences))):
        images = trained_on(defence, s)
        net = networks.Network(recipe(defence, s), images, seed=run.seed, device=run.device)
        if run.profile != "check" or net.is_there():  # a check is on what is published
            nets[defence, s] = net
if run.profile != "quick":  # there training is over before a worker starts
    networks.join(nets.values())
beyond_rows = {} if run.profile == "check" else nets  # for what no claimed row needs

# %% [markdown]
# What each is worth on the test set, before any blind spot: accuracy, accuracy under 40 steps of PGD at its radius, and for
# the certified defence the share of images that the dual bound certifies. Intervals must certify fewer where the training
# ends on the dual bound, and no attack of this chapter may break what is certified.


# %%
def threat(defence, s):
    """Where the adversary may move: an l2 ball for WRM, an linf ball for the others."""
    radii = {"kolter_wong": 0.1 if s in GREY else 8 / 255, "wrm": 2.0}
    ball = L2 if defence == "wrm" else Linf
    return ball(eps=run.epsilon or radii.get(defence, GREY.get(s, 8 / 255)))


@functools.cache
def correct(defence, s):
    """Whether each test image is classified correctly."""
    hits = kept(evaluation.correct, nets[defence, s], test[s].images, test[s].labels)
    sanity.hold(hits.sum() >= 4, f"{defence} on {sets[s]}: fewer than 4 images to attack")
    return hits


# %% tags=["hide-input"]
def percent(hits):
    return str(evaluation.Rate(int(hits.sum()), len(hits)))


certified, worth = {}, []
for (defence, s), net in beyond_rows.items():
    eps, full = threat(defence, s).eps, run.trend_steps >= 40
    size = {"steps": min(40, run.trend_steps), "step_size": eps / (30 if full else 4)}
    pgd = attacks.PGD(threat=threat(defence, s), dtype=run.dtype, **size)
    line = [s, LABELS[defence], percent(correct(defence, s)), "", "", ""]
    if defence != "natural":
        under = evaluation.evaluate(net, pgd, test[s])
        line[3] = str(under.robust_accuracy())
        of_the_book = (defence, s) == ("madry", "MNIST") and net.published() and not run.epsilon
        strong = not of_the_book or under.robust_accuracy().interval[1] >= 91
        sanity.hold(strong, "the book's Madry network does not stand 91% of PGD-40")
    if defence == "kolter_wong":
        dual, interval = (
            evaluation.certified(net, margins, test[s], eps=eps)
            for margins in (dual_margins, bounds.interval_margins)
        )
        line[4:] = [percent(dual), percent(interval)]
        sanity.hold(not (dual & ~under.attacked).any(), "PGD broke a certified image")
        fewer = s in in_seconds or interval.sum() <= dual.sum()
        sanity.hold(fewer, "intervals certify more than the dual bound")
        certified[s] = dual
    worth.append(line)
plain("data set, network, accuracy, under PGD, certified, by intervals", worth)

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
# there, until it fails. The paper adds two starts: the image with Gaussian noise of 0.2, and a plain grey image. For WRM it
# is their l2 attack: $\|\delta\|_2^2$ takes the place of the sum, and $c$ is found by bisection, in nine rounds. In the
# library every image of a batch has a $c$ and a $\tau$ of its own, which move on after each step on $w$:

# %%
source(carlini.LinfRows)

# %% [markdown]
# The tables ask less: only whether the distance is *below the threshold*. So their rates are measured with a cheaper
# attack: gradient ascent on the margin $\max_{j\ne y} z_j - z_y$ inside the ball of the threshold, 100 steps of
# $\epsilon/10$, from the paper's two starts (the grey image projected into the ball) and, at `paper`, from five random ones.

# %%
source(blind_spots.FixedRadius.__call__)


# %%
def at_radius(defence, s, **changes):
    """The attack that the rates are measured with."""
    settings = {"steps": run.steps, "restarts": run.restarts} | changes
    return blind_spots.FixedRadius(threat=threat(defence, s), dtype=run.dtype, **settings)


def nearest_attack(defence):
    """Carlini and Wagner's attack in the norm of the defence."""
    if defence == "wrm":
        return carlini.CarliniL2(iterations=run.carlini_l2_iterations, dtype=run.dtype)
    return carlini.CarliniLinf(iterations=run.carlini_iterations, dtype=run.dtype)


# %% [markdown]
# Whether the cheaper attack may stand in for C&W, at most 2 points from its rate, is looked at on the images that are
# classified correctly in every column of the paper's galleries. C&W's linf distance is that of the last $\tau$ that
# succeeded and can be a ninth too large: hence the column *a ninth nearer*. *Ascent* is the attack of the tables, *7 starts*
# gives it five random ones more. A positive difference is what ascent found and C&W missed, the last column the converse.

# %%
asked = (run.alpha, run.beta)
COLUMNS = {("madry", "MNIST"): [(1.0, 0.0), (0.8, 0.0), (0.8, 0.1)]}
ELSE = [(1.0, 0.0), (0.9, 0.0), (0.9, 0.05)]


def columns_of(defence, s):
    """(alpha, beta) of the paper's gallery, or the cell that was asked for."""
    return COLUMNS.get((defence, s), ELSE) if asked == (1, 0) else [(1.0, 0.0), asked]


wanted = beyond_rows or [("madry", "MNIST")]  # C&W is slow
wanted = [(d, s) for d, s in wanted if d != "natural" and s in GREY]
searched = networks.Networks({key: nets[key] for key in wanted if key in nets})


@functools.cache
def nearest(defence, s):
    """Of images correct in every column: their places, the nearest examples in each, and the batches of both."""
    which = (searched[defence, s], nearest_attack(defence), test[s], columns_of(defence, s))
    return blind_spots.nearest_in_cells(*which, n=run.n_carlini, n_moved=run.n_gallery)


# %% tags=["hide-input"]
beside = []
for defence, s in (key for key in searched if key in beyond_rows):
    picked, columns, _ = nearest(defence, s)
    few, eps, far = test[s].take(picked), threat(defence, s).eps, columns[0].distances
    tried = [at_radius(defence, s), at_radius(defence, s, restarts=5)]
    ascent, seven = (~evaluation.evaluate(nets[defence, s], a, few).attacked for a in tried)
    apart = Outcomes(ascent, [run.seed]) - Outcomes(far < eps, [run.seed])
    ends = "{:+.1f} [{:.1f}, {:.1f}]".format(apart.value, *apart.ci95)
    hits = (far < eps, far < eps / 0.9, ascent, seven)
    rates = [100 * found.double().mean().item() for found in hits]
    alone = int(((far < eps) & ~ascent).sum())
    beside.append((s, LABELS[defence], len(few), *rates, ends, alone))
    if defence == "kolter_wong":
        held = certified[s][picked] & (far <= eps)
        sanity.hold(not held.any(), "C&W broke an image that was certified")
header = "data set, network, n, C&W (%), a ninth nearer (linf), ascent (%), 7 starts"
plain(f"{header}, ascent - C&W [95% CI], C&W alone", beside)

# %% [markdown]
# The paper also says (section 4.1) that C&W finds *closer* examples than PGD. Here PGD climbs the cross-entropy for 100
# steps in balls of a ladder of radii, each a twentieth larger than the last; bisection finds the smallest that holds an
# example. Both stop a step short, C&W up to a tenth of the distance, PGD up to a twentieth. So their examples are then
# drawn towards the image on a straight line, again by bisection, as far as they still fool. Both readings are compared: the
# first was the criterion of the second edition, which C&W failed. This is how they are drawn near:

# %%
source(carlini.shortened)


# %%
@functools.cache
def distances_of_both(s):
    """Images that fall to both attacks, and C&W's and PGD's linf distances: as found, and drawn near."""
    where, _, cw = nearest("madry", s)
    few, pgd = test[s].take(where), {"steps": run.steps, "dtype": run.dtype}
    found = kept(carlini.beside_pgd, nets["madry", s], cw, few, **pgd)
    return where[found["fell"]], {how: found[how].numpy() for how in ("as found", "drawn near")}


def closer(dataset, quantity, examples="drawn near"):
    where, far = distances_of_both(dataset)
    apart = far[examples][0] - far[examples][1]
    if len(apart) < 4:
        return "fewer than 4 images fell to both attacks"
    if quantity == "mean":
        return Outcomes(apart, [run.seed], where, dataset)
    return Measurement(np.median(apart), statistics.median_interval(apart), len(apart), [run.seed])


study.measure("BS-X2", by=closer)
study.table("BS-X2")

# %% tags=["hide-input"]
means = [
    (s, how, len(cw), f"{cw.mean():.3f}", f"{pgd.mean():.3f}")
    for s in (s for defence, s in searched if defence == "madry")
    for how, (cw, pgd) in distances_of_both(s)[1].items()
]
plain("data set, examples, n, C&W: mean distance, PGD: mean distance", means)

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
# once with the features of the adversarially trained network and once with those of a naturally trained one, to all
# training images, with $\|a-b\|^2 = \|a\|^2 + \|b\|^2 - 2ab$ so that a matrix product does the work:

# %%
source(feature_distance.neighbour_distances)

# %% [markdown]
# Then every test image that is classified correctly is attacked. One number says how strong the relation is: the *AUROC*,
# the chance that an image that falls lies farther away than one that stands; one half is no relation.

# %%
FEATURES = OWN, NATURAL = "adversarially trained features", "natural features"
KS = [k for k in (5, 10, 100, 1000) if k <= fewest - run.n_held_out]


@functools.cache
def distances(defence, s):
    """Distances of all test images to what a network was trained on, in its own features, by their kind."""
    net = nets[defence, s]
    return kept(feature_distance.distances, net, test[s], trained_on(defence, s), KS)


@functools.cache
def fallen(defence, s):
    """Which of all test images fall."""
    attack = at_radius(defence, s, steps=run.trend_steps, restarts=0)
    return ~evaluation.evaluate(nets[defence, s], attack, test[s]).attacked


def farness(s, features, defence="madry", k=5):
    """Distances and successes of the correctly classified test images."""
    right = correct(defence, s).numpy()
    far = distances("natural" if features == NATURAL else defence, s)[str(k)].numpy()
    return far[right], fallen(defence, s).numpy()[right]


# %%
def trend(dataset, defence, features, k, quantity):
    if run.profile == "check" or k not in KS:  # a rank among fewer images is another number
        return None
    far, hits = farness(dataset, features, defence, k)
    if hits.all() or not hits.any():
        return "all or no image falls: nothing to tell apart"
    if quantity == "AUROC":
        return Ranking(far, hits, [run.seed])
    near, *_, away = (part.rate for part in statistics.equal_count_bins(far, hits, bins=10))
    rates = (away.percent, away.interval, near.percent, near.interval)
    gap, ends = statistics.independent_difference(*rates)
    return Measurement(gap, ends, near.n + away.n, [run.seed])


TRENDS = [f"BS-F{i}" for i in (1, 2, 3, 6, 7, 8, 9, 11)]
study.measure(*TRENDS, by=trend)
study.table(*TRENDS)


# %% mystnb={"figure": {"name": "bs-trend", "caption": "Success of the attack on the Madry network over the distance of a test image to its five nearest training images, in the features of the adversarially trained network itself. Points: equal-width bins with at least five attacked images, with 95% intervals; grey: how many images lie in each bin."}, "image": {"alt": "Success rates with interval bars over embedding distance, one panel for each data set, above a grey histogram of counts."}}
def bins(s, features, **which):
    """Success over distance in 30 bins of one width; the paper does not say how many."""
    far, hits = farness(s, features, **which)
    return {"at eps": statistics.equal_width_bins(far, hits, least=5)}


trended = [s for defence, s in beyond_rows if defence == "madry"]
figures.trends({s: bins(s, OWN) for s in trended}, xlabel="distance to the 5 nearest")

# %% mystnb={"figure": {"name": "bs-trend-natural", "caption": "The same with distances in the features of the naturally trained network."}, "image": {"alt": "Success rates with interval bars over embedding distance in natural features, one panel for each data set."}}
figures.trends({s: bins(s, NATURAL) for s in trended}, xlabel="distance to the 5 nearest")

# %% mystnb={"figure": {"name": "bs-trend-k", "caption": "The same with the mean distance to more neighbours, in the features of the adversarially trained network: on CIFAR-10 as in the paper where it is part of the run, else on the last data set."}, "image": {"alt": "Success rates with interval bars over the distance to more neighbours, one panel for each number of neighbours."}}
many = ["CIFAR-10"] if "CIFAR-10" in trended else trended[-1:]
further = {f"{s}, k = {k:,}": bins(s, OWN, k=k) for s in many for k in KS if k > 5}
figures.trends(further, xlabel="distance to the k nearest")

# %% mystnb={"figure": {"name": "bs-trend-certified", "caption": "The same for a network trained on a certificate, on CIFAR-10 (at `paper`)."}, "image": {"alt": "Success rates with interval bars over embedding distance, for two kinds of features."}}
key = ("kolter_wong", "CIFAR-10")
certified_trends = {f: bins(key[1], f, defence=key[0]) for f in FEATURES if key in beyond_rows}
figures.trends(certified_trends, xlabel="distance to the 5 nearest")

# %% [markdown]
# The same for every number of neighbours, as AUROC and as rank correlation. The paper does not say whether its features were
# taken before or after the ReLU; the last lines take them before it.


# %% tags=["hide-input"]
def strength(features, far, hits):
    """AUROC and Spearman's rho with their intervals."""
    if hits.all() or not hits.any():
        return (features, "-", "-")
    found = [statistics.auroc(far, hits), statistics.spearman(far, hits)]
    return (features, *(f"{x:.3f} [{low:.3f}, {high:.3f}]" for x, (low, high) in found))


lines = []
for s, features in ((s, f) for s in trended for f in FEATURES):
    lines += [(s, *strength(f"{features}, k = {k}", *farness(s, features, k=k))) for k in KS]
    if s in GREY:
        d = "natural" if features == NATURAL else "madry"
        where = (nets[d, s], test[s], trained_on(d, s), [5])
        before = kept(feature_distance.distances, *where, drop=2)["5"].numpy()
        far, hits = before[correct("madry", s).numpy()], farness(s, features)[1]
        lines.append((s, *strength(f"{features} before the ReLU, k = 5", far, hits)))
plain("data set, features, AUROC, rank correlation", lines)

# %% [markdown]
# ## How far apart are training and test set?
#
# Training and test features are embedded together in the plane by t-SNE (of 50 principal components), and for each class the
# densities $p_{\text{train}}$ and $p_{\text{test}}$ of the points are estimated with a Gaussian kernel. Their divergence,
#
# $$
# \int_V p_{\text{train}} \log \frac{p_{\text{train}}}{p_{\text{test}}},
# $$
#
# is averaged over the classes. $V$ is the box around all points, and the densities are not normalised over it: that is how
# the paper's value for Fashion-MNIST can be negative. The second table has the renormalised value, which cannot, and the
# divergence of one half of the training points from the other: estimated densities of points from one source differ too, so
# that zero is not the level to compare with. The seeds of this table are embeddings of one network.


# %%
KINDS = ("truncated", "renormalised", "itself")


@functools.cache
def embedded(s, features):
    """Divergences by kind, one for each embedding: arrays [embeddings]."""
    d = "natural" if features == NATURAL else "madry"
    where = (nets[d, s], test[s], trained_on(d, s), run.n_embedded)
    found = [kept(feature_distance.divergences, *where, seed) for seed in range(run.n_embeddings)]
    return {kind: np.array([each[kind].item() for each in found]) for kind in KINDS}


def apart(dataset, quantity):
    """Table 1, and the rates of the Madry network on whole test sets that the text compares."""
    kind, _, features = quantity.partition(", ")
    if kind == "KL divergence":
        if run.profile == "check":
            return "an embedding is not the same on two machines"
        values = embedded(dataset, features)["truncated"][:, None]
        n, note = min(run.n_embedded, len(test[dataset])), "seeds are embeddings of one network"
        return Outcomes(values, range(run.n_embeddings), n=n, note=note)
    right, fell = (found("madry", dataset).numpy() for found in (correct, fallen))
    if kind == "success":
        return Outcomes(fell[right], [run.seed], right.nonzero()[0], dataset)
    if kind == "normalised distance":
        values = distances("madry", dataset)["normalised"].numpy()
    elif kind == "accuracy under PGD-20":
        pgd = attacks.PGD(
            threat=threat("madry", dataset), steps=20, step_size=2 / 255, dtype=run.dtype
        )
        values = (
            evaluation.evaluate(nets["madry", dataset], pgd, test[dataset]).attacked.numpy() & right
        )
    else:
        values = {"accuracy": right, "accuracy under attack": right & ~fell}[kind]
    return Outcomes(values, [run.seed], dataset=dataset)


study.measure("BS-T1", "BS-X1", "BS-X3", by=apart)
study.table("BS-T1", "BS-X1", "BS-X3")

# %% tags=["hide-input"]
rows = []
for network, features in (("madry", OWN), ("natural", NATURAL)):
    for s in (s for defence, s in beyond_rows if defence == network):
        found = embedded(s, features)
        means = [f"{found[kind].mean():.3f}" for kind in KINDS]
        far = f"{distances(network, s)['normalised'].mean():.4f}"
        rows.append((s, features, *means, f"{np.ptp(found['truncated']):.3f}", far))
plain("data set, features, KL, renormalised, from itself, spread, normalised distance", rows)

# %% [markdown]
# The paper leaves much of this open. Which choice moves the divergence? Each line changes one, on at most 1,500 test points
# in one embedding of the adversarially trained network's features; the rows above keep the first line's choices, whatever
# comes out here. *Excess* is the divergence of the test points minus that of the training set from itself.

# %%
lines, flat = [], [s for s in GREY if ("madry", s) in beyond_rows and run.n_test >= 100]
for label, choices in feature_distance.VARIANTS.items() if flat else ():
    numbers = []
    for s in flat:
        where = (nets["madry", s], test[s], trained_on("madry", s), min(run.n_embedded, 1500))
        found = kept(feature_distance.divergences, *where, 0, **choices)
        far, noise = found["truncated"].item(), found["itself"].item()
        numbers += [f"{far:.3f}", f"{far - noise:.3f}"]
    lines.append((label, *numbers))
plain(", ".join(["changed", *(f"{s}{kind}" for s in flat for kind in ("", ": excess"))]), lines)

# %% [markdown]
# ## Blind spots: scale and shift
#
# Is there an image that a person would not tell from a test image, that is classified correctly, and that is not defended? The
# paper's candidates are $x' = \alpha x + \beta$ in pixels of $[-0.5, 0.5]$; in the $[0, 1]$ of this book
#
# $$
# x' = \alpha x + \beta + \frac{1 - \alpha}{2} .
# $$
#
# So already at $\beta = 0$ a black background turns dark grey, $(1-\alpha)/2$, and white pales by as much. The paper's
# shifts are the largest possible, $\beta = (1-\alpha)/2$: white stays white, and the background rises to $1 - \alpha$. The
# copy that the model still classifies correctly is then attacked as above.

# %%
source(blind_spots.scale_shift)

# %% mystnb={"figure": {"name": "bs-scaled", "caption": "The first test images, and the same scaled and shifted as in the paper's tables. Nothing has been attacked yet."}, "image": {"alt": "Rows of eight test images, each row a little paler and with a greyer background than the one above."}}
eight = test[next(iter(sets))].images[:8]
scaled = [(1, 0), (0.9, 0), (0.9, 0.05), (0.7, 0), (0.7, 0.15)]
figures.gallery(
    {f"alpha={a:g}\nbeta={b:g}": blind_spots.scale_shift(eight, a, b) for a, b in scaled}
)


# %%
TABLES = ["BS-T2", "BS-T3", "BS-T4", "BS-T5"]


def cells_of(defence, s):
    """(alpha, beta) of the paper's table, or the cell that was asked for."""
    paper = study.claims.coordinates(TABLES, ("alpha", "beta"), defence=defence, dataset=s)
    cells = set(paper if asked == (1, 0) else [asked]) - {(1, 0)}
    return [(1.0, 0.0), *sorted(cells, key=lambda c: (-c[0], c[1]))]


@functools.cache
def cell(defence, s, alpha, beta):
    """One cell of the paper's tables: what the attack achieves on scaled and shifted images."""
    attack, n = at_radius(defence, s), run.n_attacked
    return blind_spots.attack_cell(nets[defence, s], attack, test[s], alpha=alpha, beta=beta, n=n)


def blind_spot(dataset, defence, alpha, beta, quantity):
    if (alpha, beta) not in cells_of(defence, dataset):
        return None
    return cell(defence, dataset, alpha, beta).outcomes(quantity, [run.seed], dataset)


study.measure(*TABLES, by=blind_spot)
study.table(*TABLES)

# %% mystnb={"figure": {"name": "bs-cells", "caption": "Success in blind spots: every cell of the paper's tables, alpha and beta behind the network. Filled: this run, at the threshold of the defence and at the stricter one that shrinks with the contrast; hollow diamonds: the paper."}, "image": {"alt": "Dot plot of success rates in percent, one line for each defence, data set, scale and shift, with the paper's numbers as diamonds."}}
lines = {
    f"{s}, {LABELS[d]}, {a:g}, {b:g}": {"dataset": s, "defence": d, "alpha": a, "beta": b}
    for d, s in nets
    for a, b in cells_of(d, s)
}
series = {q: {"quantity": f"success {q}"} for q in ("at eps", "at alpha eps")}
study.dots(TABLES, lines=lines, series=series, xlabel="success (%), over attacked images")

# %% [markdown]
# A certificate holds for the image it was computed for. How many of the attacked copies have one of their own, at
# $\epsilon$? No attack may break those.

# %%
copies = []
for defence, s in (key for key in beyond_rows if key[0] == "kolter_wong"):
    for a, b in cells_of(defence, s):
        found, net = cell(defence, s, a, b), nets[defence, s]
        moved = blind_spots.transformed(test[s].take(found.attacked), a, b)
        eps = threat(defence, s).eps
        held = evaluation.certified(net, dual_margins, moved, eps=eps)
        sanity.hold(not (held & found.at_eps).any(), "the attack broke a certified image")
        copies.append((s, f"{a:g}", f"{b:g}", percent(held)))
plain("data set, alpha, beta, certified copies", copies)

# %% [markdown]
# ## What it looks like
#
# The nearest adversarial examples of C&W, of the same image in each column of the paper's galleries. The scaled image needs
# a smaller change. The rows compare mean distances from column to column; the paper prints those of one image.

# %%
drawn = min([run.n_gallery, *(len(nearest(*key)[0]) for key in searched)])
PARTS = {"first": slice(0, drawn // 2), "second": slice(drawn // 2, drawn)}


def gallery_distance(dataset, defence, part, column):
    """Distances in one column of the gallery, of the images that fell in every column."""
    if asked != (1, 0):
        return None
    places, columns, _ = nearest(defence, dataset)
    far = [found.distances[: run.n_gallery][PARTS[part]] for found in columns]
    fell = torch.stack(far).isfinite().all(0)
    if fell.sum() < 3:
        return "fewer than 3 images fell in every column"
    where = places[: run.n_gallery][PARTS[part]][fell]
    return Outcomes(far[column][fell], [run.seed], where, dataset)


study.measure("BS-F4", "BS-F10", "BS-F12", by=gallery_distance)
study.table("BS-F4", "BS-F10", "BS-F12")


# %% tags=["hide-input"]
def gallery(keys, part="first"):
    """Images and their adversarial examples in the columns of the paper, for the first network that there is."""
    rows, notes = {}, {}
    for defence, s in [key for key in keys if key in searched and drawn][:1]:
        some = slice(PARTS[part].start, min(PARTS[part].start + 8, PARTS[part].stop))
        places, columns, _ = nearest(defence, s)
        images = test[s].images[places[some]]
        for (a, b), found in zip(columns_of(defence, s), columns, strict=True):
            rows[f"{a:g}, {b:g}"] = blind_spots.scale_shift(images, a, b)
            rows[f"{a:g}, {b:g}\nattacked"] = found.images[some]
            notes[f"{a:g}, {b:g}\nattacked"] = [f"{x:.3f}" for x in found.distances[some].tolist()]
    return figures.gallery(rows, notes=notes)


# %% mystnb={"figure": {"name": "bs-gallery", "caption": "The first defence on the first data set of this run (Madry on MNIST in the published edition): test images as they are, scaled, and scaled and shifted (alpha and beta beside each row), and the nearest adversarial examples of C&W (lower row), each with its distance."}, "image": {"alt": "Six rows of images: for each column of the paper's gallery the images and their adversarial examples."}}
gallery(searched)

# %% mystnb={"figure": {"name": "bs-gallery-clothes", "caption": "The same for the Madry network on Fashion-MNIST, where it is part of the run."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
gallery([("madry", "Fashion-MNIST")])

# %% mystnb={"figure": {"name": "bs-gallery-more", "caption": "Another set of images for the Madry network on MNIST (the paper's Figure 10)."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
gallery([("madry", "MNIST")], "second")

# %% mystnb={"figure": {"name": "bs-gallery-kolter-wong", "caption": "The network trained on a certificate, on Fashion-MNIST, else on MNIST."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
gallery([("kolter_wong", "Fashion-MNIST"), ("kolter_wong", "MNIST")])

# %% mystnb={"figure": {"name": "bs-gallery-wrm", "caption": "WRM on MNIST, else on Fashion-MNIST, attacked in l2."}, "image": {"alt": "Rows of images in pairs: scaled and shifted images, and their adversarial examples."}}
gallery([("wrm", "MNIST"), ("wrm", "Fashion-MNIST")])

# %% [markdown]
# ## Could the shift be detected?
#
# If scaled images were far from the training set, a detector could refuse them. In the paper's Figure 5 the distances of
# original and scaled test images look alike. Here is the figure, and a detector's AUROC: the chance that a scaled image lies
# farther away than an image as it is, of one half of the test images as they are and the other half scaled.

# %%
SCALES = {"MNIST": 0.7, "Fashion-MNIST": 0.9}


@functools.cache
def as_they_are_and_scaled(s, alpha):
    stay = distances("madry", s)["5"].numpy()
    moved, near = blind_spots.transformed(test[s], alpha, 0.0), trained_on("madry", s)
    away = kept(feature_distance.distances, nets["madry", s], moved, near, [5])["5"].numpy()
    return stay, away


def detection(dataset, alpha):
    if run.profile == "check":  # as above
        return None
    stay, away = as_they_are_and_scaled(dataset, alpha)
    scores = np.concatenate([stay[::2], away[1::2]])
    scaled = np.repeat([False, True], [len(stay[::2]), len(away[1::2])])
    area, ends = statistics.auroc(scores, scaled)
    _, p = statistics.two_sample_test(stay[::2], away[1::2])
    note = f"Kolmogorov-Smirnov p = {p:.1g}"
    return Measurement(area, ends, len(stay[::2]), [run.seed], note=note)


study.measure("BS-F5", by=detection)
study.table("BS-F5")

# %% mystnb={"figure": {"name": "bs-detect", "caption": "Distance to the five nearest training images, features of the adversarially trained network: test images as they are, and scaled."}, "image": {"alt": "Two overlaid histograms of distances for each data set."}}
pairs = {s: as_they_are_and_scaled(s, a) for s, a in SCALES.items() if ("madry", s) in beyond_rows}
named = {s: {"as they are": a, f"alpha = {SCALES[s]:g}": b} for s, (a, b) in pairs.items()}
figures.histograms(named, xlabel="distance to the 5 nearest")

# %% [markdown]
# ## Beyond the paper: the whole plane
#
# Success over the plane of scale and shift; the shift is given as a share of the largest possible one, $(1-\alpha)/2$.

# %% mystnb={"figure": {"name": "bs-map", "caption": "Success (%) of the attack on the Madry network over scale (columns) and shift (lines, as a share of the largest possible), at the threshold of the defence, with fewer images and steps than in the tables: a cell at `standard` is good to 7 points. Empty where more than half of the images are misclassified before the attack."}, "image": {"alt": "Annotated heat maps of success rates; darker is higher; the column at scale one holds one value."}}
scales, shares = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7], [1.0, 0.5, 0.0, -0.5, -1.0]
grid = {"scales": scales, "shares": shares, "n": run.n_map}
defended = [s for s in sets if s in GREY and ("madry", s) in beyond_rows]
probes = {s: data.some(test[s], 2 * run.n_map) for s in defended}
quick_look = {"steps": run.trend_steps, "restarts": 0}
look = {s: at_radius("madry", s, **quick_look) for s in probes}
planes = {s: blind_spots.plane(nets["madry", s], look[s], probes[s], **grid) for s in probes}
on_the_plane = {"xlabel": "scale alpha", "ylabel": "share of the largest shift"}
on_the_plane |= {"lines": [f"{b:g}" for b in shares], "columns": [f"{a:g}" for a in scales]}
figures.matrices({s: success for s, (success, _) in planes.items()}, **on_the_plane)

# %% mystnb={"figure": {"name": "bs-map-accuracy", "caption": "Accuracy (%) on the same images before any attack. Only where it stays as it is are they blind spots; where it falls, the network is simply wrong about them."}, "image": {"alt": "Annotated heat maps of accuracies over the same plane."}}
figures.matrices({s: accuracy for s, (_, accuracy) in planes.items()}, **on_the_plane)

# %% [markdown]
# ## Beyond the paper: can training close the blind spots?
#
# The Madry network is trained again, each image scaled by a random $\alpha \in [0.7, 1]$ and shifted by a random $\beta$
# before its adversarial example is made, and attacked in the cells of the table, on the first `n_repair` images.

# %%
repairs = []
for s in defended[:1] if run.n_repair else ():
    usual = recipe("madry", s)
    scaled = ScaledAndShifted(objective=usual.objective, least=0.7)
    where = {"seed": run.seed, "device": run.device}
    repaired = networks.Network(usual.replace(objective=scaled), trained_on("madry", s), **where)
    attack, n = at_radius("madry", s), run.n_repair
    for a, b in cells_of("madry", s):
        after = blind_spots.attack_cell(repaired, attack, test[s], alpha=a, beta=b, n=n)
        both = {"Madry": cell("madry", s, a, b), "trained on scaled images": after}
        for who, found in both.items():
            hits = (found.at_eps[:n], found.at_alpha_eps[:n])
            rates = [100 * hit.double().mean().item() for hit in hits]
            repairs.append((s, f"{a:g}", f"{b:g}", who, *rates, found.accuracy().percent))
plain("data set, alpha, beta, network, at eps (%), at alpha eps (%), accuracy (%)", repairs)

# %% [markdown]
# ## Sanity: can these rates be trusted?
#
# On the first test images and the Madry networks: a larger radius never protects, and the undefended twin falls. Twice the
# steps, an attack without gradients (Square) and examples carried over from the undefended network must not be better than
# the attack of the tables: the chapter stops if the lower end of the 95% interval of their lead exceeds 2 points. AutoAttack
# {cite}`croce2020reliable`, where its library is installed, attacks the first network.

# %% mystnb={"figure": {"name": "bs-sanity", "caption": "Success of the attack over its radius, as a multiple of the threshold of the defence: the Madry network (adversarial) and the natural network of the same architecture (standard)."}, "image": {"alt": "Two curves of success over radius with interval bands, both rising to 100 percent."}}
factors = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0]


def success_over_radius(defence, s):
    """Success of a few steps at each multiple of the radius; a larger one must not be weaker."""
    eps = threat("madry", s).eps
    balls = [Linf(eps=min(1.0, factor * eps)) for factor in factors]
    tried = [blind_spots.FixedRadius(threat=ball, dtype=run.dtype, **quick_look) for ball in balls]
    found = [evaluation.evaluate(nets[defence, s], one, probes[s]).success_rate() for one in tried]
    sanity.check_rising(found, f"{defence} on {s}")
    return found


kinds = {"adversarial": "madry", "standard": "natural"}
sweeps = {s: {k: success_over_radius(d, s) for k, d in kinds.items()} for s in defended}
figures.lines(factors, sweeps, xlabel="radius / threshold", ylabel="success (%)")


# %%
for s, probe in probes.items():
    few = data.some(probe, run.n_map)
    net, attack = nets["madry", s], at_radius("madry", s)
    less = blind_spots.knowing_less(net, nets["natural", s], attack, few)
    named = {f"{s}: {who}": found for who, found in less.items()}
    display(sanity.check_not_beaten(evaluation.evaluate(net, attack, few), named))

# %% tags=["hide-input"]
for s in defended[:1] if run.n_autoattack and sanity.AutoAttack.is_installed() else ():
    net, subset = nets["madry", s], data.some(test[s], run.n_autoattack)
    auto = sanity.AutoAttack(threat=threat("madry", s), classes=len(subset.classes))
    mine = evaluation.evaluate(net, at_radius("madry", s, restarts=0), subset)
    seven = evaluation.evaluate(net, at_radius("madry", s, restarts=5), subset)
    peer = evaluation.evaluate(net, auto, subset, batch_size=100)
    others = {f"{s}: five random starts more": seven, f"{s}: AutoAttack": peer}
    display(sanity.check_not_beaten(mine, others, slack=100))  # shown, not judged

# %% [markdown]
# ## Where we deviate, and why
#
# | point | here | why | kind |
# | --- | --- | --- | --- |
# | seeds | one training of each network: verdicts rest on the interval over test images | a new training moves a number about six times as far (median over rows of {doc}`ensemble_adversarial_training`) | as in the paper |
# | Madry and natural networks | six epochs at a falling learning rate instead of 100,000 steps; Madry on 3, then 10, then 40 PGD steps | a day on two cores; what the network is worth under PGD-40 stands above | reduced |
# | Kolter-Wong | twelve epochs; interval bounds of a radius up to $\epsilon/2$ stand in for the dual bound in 95% of them, the exact one at $\epsilon$ follows for the last 0.6 | a step on the dual bound costs two hundred on intervals | substitution |
# | WRM | four epochs instead of 25 | 17 passes for each image and epoch: an hour and more on two cores for each data set | reduced |
# | held back | Madry and natural networks train on the last 55,000 images, as Madry's code does; distances are to these | the others have no such split | exact |
# | rates | margin ascent at a fixed radius, on the first 2,000 correctly classified test images: the paper's two starts, the grey one projected into the ball, and at `paper` five random ones | only "below the threshold" matters; shown beside C&W on the same images | code variant |
# | C&W | 300 iterations for each constant instead of 1,000, and an attempt whose loss stands still is given up; 200 images a defence | the second as in the authors' l2 attack; an hour for each defence otherwise | reduced |
# | C&W l2 for WRM | nine rounds of 1,000 iterations, the paper's two starts | the paper gives no settings; its code's default is 10,000 iterations | open choice |
# | WRM evaluation | pixels stay in $[0, 1]$ | the training does not clip them, the threat model does | exact |
# | trend | 40 steps from the paper's two starts on all 10,000 test images; 30 bins | the tables take 100 steps; the paper does not say how many bins | reduced |
# | features | after the ReLU, and the AUROC before it printed beside; normalised distances in those of the Madry network, the others printed beside | the paper does not say | open choice |
# | divergence | 4,000 training and 4,000 test images in each of three embeddings (all classes in one), beside 4,000 further training images | t-SNE of 70,000 points takes half an hour each; dimension, perplexity and kernel are not stated | reduced |
# | galleries | means over ten images | the paper shows one each | open choice |
# | CIFAR-10, traffic signs | PreActResNet-18, 30 epochs, batch statistics frozen while attacking; half of the frames of GTSRB, at 32x32; for the certificate the small network and the exact bound, not the large one and random projections | WRN-32-10 takes ten times as long; profile `paper` only | substitution |
# | step of the training attack on Fashion-MNIST | $\epsilon/6$, then $\epsilon/30$ = 0.0033, as on MNIST in proportion | "the same parameters" may also mean 0.01, a tenth of the radius | reduced |
# | batches | 128 for Madry and natural networks, not 50; Madry's gradient clipped to 5 | speed | reduced |
# | precision | passes of attacks, those in Madry's training too, and of the training of natural and WRM networks in bfloat16 where the processor has it | every success is confirmed in float32; an attack may miss one | open choice |
#
# One thing was changed after a look at test images: at a learning rate of 0.001 the Madry network fell short of 91% under
# PGD-40. The rate was raised to 0.005, chosen by the training loss of the first epochs, before any attack of this chapter
# had been run; the chapter stops if the book's network is weaker than 91%. Nothing else was tuned.

# %% [markdown]
# ### What did not match, and what we tried
#
# WRM and, on Fashion-MNIST, Madry's network fall more often than the paper's on the images as they are. Is it the length of
# training or the strength of the attack? Both lengths, on images that both classify correctly, under PGD-40, the ascent of
# the tables and, on the first `n_carlini`, C&W with a tenth of its iterations and with all. Empty without the book's networks.


# %%
def lengths(defence, s, *epochs):
    """The book's networks of a defence, trained for longer; none where one is not published."""
    usual, images = recipes.recipe_of(defence, sets[s]), trained_on(defence, s)
    found = [networks.Network(usual.replace(epochs=n), images, device=run.device) for n in epochs]
    return found if all(net.published() for net in found) else []


lines = []
for d, s, *epochs in (("wrm", "MNIST", 4, 8), ("madry", "Fashion-MNIST", 6, 24)):
    pair = lengths(d, s, *epochs) if run.is_evidence and (d, s) in nets else []
    places_of_both = evaluation.places_of_correct(pair, test[s], run.n_attacked) if pair else []
    for net in pair:
        both, ball = test[s].take(places_of_both), threat(d, s)
        pgd = attacks.PGD(threat=ball, steps=40, step_size=ball.eps / 30, dtype=run.dtype)
        fell = [~evaluation.evaluate(net, a, both).attacked for a in (pgd, at_radius(d, s))]
        for n in (run.carlini_l2_iterations // 10, run.carlini_l2_iterations) if d == "wrm" else ():
            search = carlini.CarliniL2(iterations=n, dtype=run.dtype)
            parts = carlini.batches(net, search, both.first(run.n_carlini))
            fell.append(kept(carlini.all_distances, parts) < ball.eps)
        rates = [*map(percent, fell), "", ""][:4]
        lines.append((LABELS[d], s, net.recipe.epochs, len(both), *rates))
plain("network, data set, epochs, n, PGD-40, ascent, C&W with few iterations, with many", lines)

# %% [markdown]
# ```{admonition} About the published run
# *Fashion-MNIST is not the safer set here.* The paper's network loses fewer images there than on MNIST, ours more
# ({glue:text}`BS-T1-Fashion-MNIST-success` against {glue:text}`BS-T1-MNIST-success`), at the paper's accuracy. Four times the
# training takes a quarter off, and does not turn the order. The strength of the attack explains little: on the same images
# C&W finds nearly as many as ascent (it falls behind by 4 points at most, of Madry's network on MNIST).
#
# *WRM falls far more often than the paper's* ({glue:text}`BS-T5-MNIST-alpha-1-beta-0-success-at-eps` against
# {glue:text}`BS-T5-MNIST-alpha-1-beta-0-success-at-eps-paper`), and the strength of the attack decides how often: C&W with a
# tenth of its iterations breaks fewer images than the paper says, with all of them nearly as many as ascent. Twice the
# training takes four points off. The paper does not say how its l2 attack was set.
#
# *The certified network is a stand-in*: 95% of its training is on interval bounds at $\epsilon/2$, not on the dual bound. That
# is the likely cause of its {glue:text}`BS-T4-MNIST-alpha-1-beta-0-accuracy` accuracy on MNIST (paper:
# {glue:text}`BS-T4-MNIST-alpha-1-beta-0-accuracy-paper`) and of its smaller moves there, and of what it lacks on clothes.
#
# *C&W is no nearer than PGD*, on either set, as found or drawn near: PGD at one radius stops at that radius, but a search over
# radii makes up for it. *The size of a divergence is a matter of choices*: a third of the points, half or twice the bandwidth,
# another floor each move it on MNIST by a factor of two and more, as far as ours lie from the paper's; where each class is
# embedded by itself, next to none is left. MNIST lies above Fashion-MNIST in every line of the table, as in the paper.
# ```

# %% [markdown]
# ## What we learned
#
# Robustness measured on a test set is robustness *there*: the protection thins out with the distance to the training set,
# in the farthest tenth by {glue:text}`BS-F1-MNIST-farthest-tenth-minus-nearest-tenth` on MNIST; on Fashion-MNIST images at
# middle distances fall as often as far ones, only near ones less often. A change of contrast that this distance hardly
# notices (AUROC {glue:text}`BS-F5-MNIST-alpha-0.7-beta-0-AUROC-of-distance-for-scaled`) is enough to leave it. A certificate
# does not help, because what it promises for one image it does not promise for its copy; recomputed for the copies it is
# honest, and holds for none of those at $\alpha=0.9$, $\beta=0.05$ on MNIST, whether they fall or not.
#
# What the paper did not see: the blind spot is mostly the *background*. With a black background ($\beta = -(1-\alpha)/2$, the
# lowest line of the map) a tenth less contrast does little, with a grey one it opens most images. And training on scaled
# images closes the spots near home, at the price of half a point of accuracy.

# %% [markdown]
# ## Your own model, or your own cell
#
# With `-p model package.module:function -p weights file.safetensors` your model takes the Madry network's place in the blind
# spots. The function takes no arguments and returns a network from images with pixels in $[0, 1]$ to logits of the data
# set's classes. Choose the set with `-p dataset` (the first counts) and the linf radius with `-p epsilon`, which holds for
# all defences (`-p defences madry` leaves the others out). A cell of your own (`-p alpha 0.85 -p beta 0.05`) takes the
# place of the paper's.

# %% tags=["hide-input"]
tried = [(LABELS[d], d, s, nets[d, s]) for d, s in nets if d != "natural" and asked != (1, 0)]
if run.model:
    own = models.load(run.model, run.weights).to(run.device)
    tried.append((run.model, "madry", next(iter(sets)), own))
lines = []
for label, defence, s, net in tried:
    for a, b in cells_of(defence, s):
        how = {"alpha": a, "beta": b, "n": run.n_attacked}
        found = blind_spots.attack_cell(net, at_radius(defence, s), test[s], **how)
        rates = (found.accuracy(), found.success(), found.success(strict=True))
        eps = f"{threat(defence, s).eps:.4g}"
        lines.append((label, s, eps, f"{a:g}", f"{b:g}", *map(str, rates)))
plain("network, data set, eps, alpha, beta, accuracy, success at eps, at alpha eps", lines)

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
# # your own MNIST model in its blind spots (my_models.py in the current folder, or on Python's path)
# papermill chapters/blind_spot.ipynb out.ipynb -p dataset mnist -p defences madry -p epsilon 0.3 \
#     -p n_attacked 500 -p n_test 10000 -p steps 100 -p model my_models:build -p weights mine.safetensors
# ```
#
# **Exercise 1.** Is it the contrast or the grey background that opens the blind spot?
#
# ```{dropdown} Solution
# Compare the lines of the map at one scale: at share -1 only white pales, at share 1 only the background rises. In the
# published run, on MNIST, it is mostly the background at 0.9; at 0.7 the pale white alone opens most of the images.
# ```
#
# **Exercise 2.** Would a brightness normalisation in front of the network help?
#
# ```{dropdown} Solution
# Stretch every image so that its darkest pixel is 0 and its brightest 1, as the first layer of a model of your own: with
# `low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)` it is `(x - low) / (high - low)`. Scale and
# shift are undone, but the stretch makes the adversary's $\epsilon$ larger by $1/\alpha$: judge by the stricter threshold
# $\alpha\epsilon$. And she can move the darkest and the brightest pixel too, and so the stretch itself.
# ```

# %% tags=["remove-cell"]
results = study.close(**{f"{part.name} {part.split}": part.fingerprint for part in splits})
