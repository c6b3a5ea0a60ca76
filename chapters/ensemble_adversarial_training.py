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
# **Useless: always on four of five architectures, on the fifth in one training of three.** Trained on single-step examples,
# C makes {glue:text}`EAT-T7-C_adv-FGSM-white-box` errors under that step, but {glue:text}`EAT-T7-C_adv-RplusFGSM-white-box` with
# a random step first and {glue:text}`EAT-T8-C_adv-max-black-box` under a step computed on another model: the gradient is
# *masked*, the examples are still there. Of {glue:text}`glance-measured` claims measured on MNIST, {glue:text}`glance-reproduced` are reproduced from *Ensemble Adversarial Training* {cite}`tramer2018ensemble`, and
# {glue:text}`glance-agrees` more agree with fewer seeds or a stand-in.

# %% tags=["remove-input"]
from robustutils.book.study import Study, describe, front, source

front("ensemble_adversarial_training")

# %% [markdown]
# ## Why it matters
#
# A defence that breaks the attacker's compass looks robust in every evaluation that relies on that compass, and its number
# says little about the model in the field. This paper gave the field two instruments that tell masking from robustness: a
# random step before the gradient step, and the transfer of examples from models that have nothing to hide.
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
# test images, clean mistakes included.

# %% tags=["parameters", "hide-input"]
profile = "quick"  # quick, check, standard or paper: sets every None below
dataset = None  # digits, mnist or fashion_mnist
architectures = None  # some of 'A, B, B*, C, D'
defended = None  # those of them that are also trained adversarially
ensembles = None  # static sources in training: 'ens', 'ens3' or both
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
input_dropout = None  # of 'A, C, D': those also trained with it
directions_points = None  # test images whose directions are counted
pixel_points = None  # test images attacked behind a threshold on the pixels
queries = None  # of the gradient-free attack
model = None  # your own model, package.module:function
weights = None  # its weights, a safetensors file
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
import functools

import numpy as np
import torch
from robustutils import attacks, data, evaluation, figures, masking, models, sanity
from robustutils.artifacts import composed, kept, later
from robustutils.book.parameters import ParameterError
from robustutils.evaluation import adversarial, correct
from robustutils.networks import Networks
from robustutils.outcomes import Measurement, Outcomes, highest
from robustutils.papers.ensemble import flips, objectives, ratios, subspaces
from robustutils.papers.ensemble.family import Family
from robustutils.papers.ensemble.models import Average
from robustutils.papers.ensemble.recipes import STATIC, by_name
from robustutils.tables import plain
from robustutils.threats import Linf

study = Study.begin("ensemble_adversarial_training", globals())
run = study.run
sources = list(run.architectures)
targets = [a for a in sources if a in run.defended]
static = sorted({a for name in targets for a in STATIC.get(name, "") if "ens3" in run.ensembles})
given, missing = (
    f"architectures={','.join(sources)!r}",
    ", ".join(a for a in static if a not in sources),
)
if not targets:
    raise ParameterError(f"defended={','.join(run.defended)!r}: none of {given}")
if missing:
    raise ParameterError(
        f"ensembles='ens3' takes {', '.join(static)} as sources: {given} lacks {missing}"
    )
describe(run)

# %% [markdown]
# A profile is a set of defaults. `quick` runs anywhere in a minute: on 768 small digits no masking sets in, and its numbers
# are *not evidence*. `standard` is the paper's protocol as far as two CPU cores go, `paper` all of it on a GPU. Each cell of
# the paper's tables is a row with a criterion that was committed before its run; the head of
# `chapters/ensemble_adversarial_training.toml` names those added or changed between editions. *Within* asks for a value near
# the paper's; *above* and *below* for an effect whose 95% interval lies wholly on one side of zero or of the number named; an
# interval that reaches to both sides leaves the row *undetermined*. *Checks* count neither for nor against the paper.

# %% tags=["nbval-check-output", "hide-output"]
study.criteria("EAT-T6", "EAT-T8", "EAT-L6", "EAT-L7")

# %% tags=["nbval-check-output"]
train = data.some(data.load(run.dataset, "train"), run.n_train)
test = data.some(data.load(run.dataset, "test"), run.n_test)
splits = [(part.name, part.split, len(part), part.fingerprint[:16]) for part in (train, test)]
plain("data set, split, images, SHA-256", splits)

# %% [markdown]
# ## Data and models
#
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
# example. Dropout stays active meanwhile, and training does not differentiate through it. It uses Adam at $10^{-3}$, batches of
# 64, 6 epochs (12 adversarial). The second line of the formula, as it runs:

# %% tags=["remove-input"]
source(objectives.single_step)

# %% tags=["hide-input"]
seeds = list(run.seeds)
first, large = seeds[0], seeds[: run.n_seeds_large]
nets = Family(train, seeds, device=run.device, side_by_side=run.profile != "quick")
recipe_of = functools.partial(by_name, settings=run, networks=nets)
nets.train(dict.fromkeys(sources, nets.roles), recipe_of)
nets.train({f"{a}_adv": large if a in "AB" else seeds for a in targets}, recipe_of)
sources = [a for a in sources if all(nets.there(a, nets.other(s)) for s in seeds)]
targets = [a for a in targets if a in sources and f"{a}_adv" in nets]
if not targets:
    raise ParameterError("profile='check' trains nothing, and no such network is published")
standard = "C" if "C" in targets else targets[-1]  # shown where one is enough
hardened = f"{standard}_adv"

# %% [markdown]
# Every number below is a mean over the training seeds, on the same test images for every model. A model attacked with
# examples from a standard one never shares that one's seed. What is subtracted from what stands in the TOML.


# %%
def name_of(architecture, training):
    return architecture if training == "standard" else f"{architecture}_{training}"


def error_under(name, attack):
    """Errors under an attack on the model itself: truth values [seeds, test images]."""
    return nets.outcomes(name, lambda s: ~evaluation.evaluate(nets[name, s], attack, test).attacked)


def error_on(name, made):
    """Errors on given images; ``made(seed)`` are those for one seed of the model."""
    return nets.outcomes(name, lambda s: ~kept(correct, nets[name, s], made(s), test.labels))


# %% [markdown]
# ## One step, white-box: FGSM against R+FGSM
#
# The fast gradient sign method linearises the loss at $x$ and jumps to the corner of the $\epsilon$-cube where that
# linear model is largest. R+FGSM first spends $\alpha = \epsilon/2$ on a random step, and takes the gradient *there*:
#
# $$
# \begin{aligned} x' &= \mathrm{clip}_{[0,1]}\bigl(x + \alpha\,\mathrm{sign}(\mathcal N(0, I))\bigr), \\
# x^{adv} &= \mathrm{clip}_{[0,1]}\bigl(x' + (\epsilon - \alpha)\,\mathrm{sign}\,\nabla_{x'} L(h(x'), y)\bigr). \end{aligned}
# $$
#
# On a linear loss half of the step is wasted on noise, and R+FGSM can do no better than FGSM. In the paper's Table 7 the two
# differ by at most five points on standard models, by 12 to 36 on adversarially trained ones but B: what $x$ shows misleads.
# In the code `ascend` with one step is the step along the sign of the gradient:

# %% tags=["remove-input"]
source(attacks.RFGSM.__call__)

# %%
fgsm, rfgsm = attacks.FGSM(eps=run.epsilon), attacks.RFGSM(eps=run.epsilon)
steps = min(40, run.ratio_steps)


def pgd(eps, steps=steps, **settings):
    settings = {"step_size": max(2 * eps / steps, 1e-3), "dtype": run.dtype} | settings
    return attacks.PGD(threat=Linf(eps=eps), steps=steps, **settings)


ATTACKS = {"FGSM": attacks.FGSM, "R+FGSM": attacks.RFGSM, "PGD": pgd}
iterated = attacks.IFGSM(eps=run.epsilon)
WHITE_BOX = {
    "FGSM white-box": fgsm,
    "R+FGSM white-box": rfgsm,
    "two-step I-FGSM": attacks.IFGSM(eps=run.epsilon, steps=2),
    "PGD white-box": pgd(run.epsilon),
}

# %% mystnb={"figure": {"name": "eat-gallery", "caption": "The first test images and their adversarial examples at the run's radius: the single step on a standard model, the same on the model of that architecture trained adversarially, and on that one a random step first. The perturbations look alike; the next figure says what each achieves."}, "image": {"alt": "Four rows of eight digits: clean, FGSM on the standard model, FGSM on the adversarially trained model, R+FGSM on the adversarially trained model."}}
shown = test.first(8)
examples = {"clean": shown.images}
for label, name in (("FGSM", standard), ("FGSM", hardened), ("R+FGSM", hardened)):
    made = later(adversarial, nets[name, first], WHITE_BOX[f"{label} white-box"], shown)
    examples[f"{label}\non {name}"] = made()
figures.gallery(examples)

# %% [markdown]
# ## One step, black-box: transfer from a model that hides nothing
#
# The same FGSM examples, made on standard models and handed to the target. Whether there is an effect at all is decided by a
# paired difference on the same images: for a standard model its error under attack minus its clean error, for an
# adversarially trained one its error minus that of its twin under the same attack. *Masking gap* is the highest transferred
# minus the white-box error. In the paper B is the exception: on B_adv neither a transferred step (8.9%) nor a random step first
# (11.1%) beats the white-box step (11.6%); whether the dropout on its pixels is the reason is asked below.


# %%
def from_source(name, attack=fgsm):
    """The examples of a standard model, by the seed of the target that is to be given them."""
    return lambda s: later(adversarial, nets[name, nets.other(s)], attack, test)


@functools.cache
def error(architecture, training, quantity):
    """The errors of a model under an attack that the tables name."""
    name = name_of(architecture, training)
    kind, _, among = quantity.partition(", sources ")
    if kind == "clean":
        return error_on(name, lambda s: test.images)
    if kind in WHITE_BOX:
        return error_under(name, WHITE_BOX[kind])
    among = among.split(", ") if among else run.architectures
    if kind.startswith("FGSM from "):
        among = [kind.removeprefix("FGSM from ")]
    return highest([error_on(name, from_source(a)) for a in among])


pairs = [(a, t) for a in sources for t in ("standard", "adv") if name_of(a, t) in nets]
lines = {name_of(a, t): {"architecture": a, "training": t} for a, t in pairs}
study.measure("EAT-T7", by=error)
study.table("EAT-T7")

# %% mystnb={"figure": {"name": "eat-masking", "caption": "Error of standard and adversarially trained models under the white-box single step (FGSM), the same with a random step first (R+FGSM), and the strongest transferred single step. Filled: this run, one dot a training seed; hollow diamonds: the paper (its strongest transfer). On a model whose gradients can be trusted the FGSM dot lies to the right of the transferred one; on a masked one to the left."}, "image": {"alt": "Dot plot of error rates in percent for each model under three attacks, with the paper's numbers as diamonds."}}
series = {label: {"quantity": f"{label} white-box"} for label in ("FGSM", "R+FGSM")}
series["transferred"] = [{"quantity": f"FGSM from {a}"} for a in sources]
error_label = "error under attack (%), over all test images"
study.dots(["EAT-T7"], lines=lines, series=series, xlabel=error_label)

# %% tags=["hide-input"] mystnb={"figure": {"name": "eat-transfer", "caption": "Transferred single steps: error of each target (line) on FGSM examples from each standard source (column), the paper's Table 7 and this run, in percent. Empty cells do not exist in the paper."}, "image": {"alt": "Two annotated matrices of error rates in percent, one line for each target and one column for each source, the paper's on the left and this run's on the right; darker is higher."}}
cells = [[("EAT-T7", f"{name} | FGSM from {a}") for a in sources] for name in lines]
panels = {"paper": study.numbers(cells, paper=True), "this run": study.numbers(cells)}
figures.matrices(panels, list(lines), sources, xlabel="source of the examples", ylabel="target")

# %% [markdown]
# In the published run *the exception is one by chance*: two trainings of B_adv hide nothing, the third, with another seed and
# nothing else changed, is masked like B\*_adv. Over three its gap is {glue:text}`EAT-T7-B_adv-masking-gap-all-sources` (paper:
# {glue:text}`EAT-T7-B_adv-masking-gap-all-sources-paper`), and its rows that compare are undetermined.
#
# ### Do masked models make good attackers? Do random steps transfer?
#
# Two statements of sections 4.1 and D: an adversarially trained source gives *weaker* transferred examples, even against
# targets without any defence; and R+FGSM, stronger where it is computed, transfers *worse*. Both are means over all pairs of
# two architectures, the first to standard targets, with models trained on all seeds, on the same images.


# %%
def from_defended(a, s):
    """FGSM examples of an architecture's adversarially trained model, of another seed."""
    twins = nets.seeds_of(f"{a}_adv")
    return later(
        adversarial, nets[f"{a}_adv", twins[(twins.index(s) + 1) % len(twins)]], fgsm, test
    )


def change(examples, among, on):
    """Points of error that other examples add to a step carried over, over all pairs of two architectures."""
    pairs = [(name, a) for name in on for a in among if a != name.removesuffix("_adv")]
    apart = [
        100.0 * error_on(name, functools.partial(examples, a)).values
        - 100.0 * error_on(name, from_source(a)).values
        for name, a in pairs
    ]
    return Outcomes(np.mean(apart, axis=0), seeds) if apart else "needs two or more architectures"


every = list(run.architectures)
on = [name for a in every for name in (a, f"{a}_adv") if nets.seeds_of(name) == seeds]
defenders = [a for a in every if f"{a}_adv" in on]
study.measure("EAT-X1", by=lambda: change(from_defended, defenders, every))
study.measure("EAT-X2", by=lambda: change(lambda a, s: from_source(a, rfgsm)(s), every, on))
study.table("EAT-X1", "EAT-X2")

# %% [markdown]
# ## Watching it happen
#
# One model at several moments of its single-step adversarial training, alone and with a *static source*, a standard model
# trained beforehand that supplies half of the examples (section 3.4, below). Where masking sets in, the error under the
# single step falls away from that under the same step from a random point, and the multi-step attack goes on.

# %%
between = [] if run.profile == "quick" else [e for e in (2, 4) if e < run.epochs_adv]
moments = sorted({1, run.epochs_adv, *between})
films = [hardened, f"{hardened}-ens"]
stills = {f"{name}, epoch {e}": seeds if e == 1 else [first] for name in films for e in moments}
nets.train(stills, recipe_of)

# %% mystnb={"figure": {"name": "eat-epochs", "caption": "Error under white-box attacks at several moments of training, first seed, first 1,000 test images, PGD with at most 40 steps; with 95% Wilson intervals. Left: single-step adversarial training. Right: the same with a static source for half of the batches."}, "image": {"alt": "Two line plots of error rate over training epochs under FGSM, R+FGSM and PGD: adversarial training on the left, ensemble adversarial training on the right."}}
probe = data.some(test, 1000)


def error_rate(name, attack):
    return evaluation.evaluate(nets[name, first], attack, probe).error_rate()


film = {
    name: {
        label: [error_rate(f"{name}, epoch {e}", make(eps=run.epsilon)) for e in moments]
        for label, make in ATTACKS.items()
    }
    for name in films
    if all(f"{name}, epoch {e}" in nets for e in moments)
}
figures.lines(moments, film, xlabel="epochs of training", ylabel="error (%)")

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
# although strong examples exist. The paper does not say whether it averages ratios or divides averages: the ratio of mean
# losses is used, which no point with a tiny loss can dominate; its interval over the points is that of 1,000 bootstrap
# resamples, the same for a model and its twin.

# %%
points = data.some(test, run.ratio_points)


def strongest(restarts=run.ratio_restarts):
    """Projected ascent of the loss, the whole way: what the single step is measured against."""
    whole = {"step_size": run.epsilon / 30, "drop_fooled": False, "restarts": restarts}
    return pgd(run.epsilon, steps=run.ratio_steps, **whole)


def losses(name, attack, s):
    return evaluation.losses_under(nets[name, s], attack, points)


@functools.cache
def ratio(architecture, training, quantity="ratio"):
    """Losses under the single step and under the strongest attack, on the same points."""
    name = name_of(architecture, training)
    every = [functools.partial(losses, name, attack) for attack in (fgsm, strongest())]
    single, strong = (nets.outcomes(name, of) for of in every)
    note = f"strongest attack: {run.ratio_steps} steps, {run.ratio_restarts} restarts"
    return ratios.Ratios(single.values, strong.values, single.seeds, note)


study.measure("EAT-T6", by=ratio)
study.table("EAT-T6")

# %% mystnb={"figure": {"name": "eat-ratio", "caption": "Approximation ratio: the share of the reachable loss that one step reaches. Filled: this run, one dot a training seed; hollow diamonds: the paper's Table 6."}, "image": {"alt": "Dot plot of the approximation ratio in percent for each model, with the paper's numbers as diamonds."}}
share = "loss of the single step / loss of the strongest attack (%)"
study.dots(["EAT-T6"], lines=lines, series={"FGSM": {"quantity": "ratio"}}, xlabel=share)

# %% [markdown]
# Which reading do the paper's ten numbers follow, and how much does the strength of the attack weigh? Both averages over all
# seeds; then, on the first seed, the ratio of means with all starts of the strongest attack and with one. The last line is the
# mean distance to the paper. This decides nothing: the rows above keep the reading that was chosen before the run.

# %% tags=["hide-input"]
rows = []
for name, at in lines.items() if run.profile != "check" else ():
    found, one_start = ratio(**at), losses(name, strongest(restarts=1), first).numpy()[None]
    starts = (found.strong[:1], one_start)
    of_first = [ratios.Ratios(found.single[:1], each, [first]).measured().value for each in starts]
    paper = study.paper("EAT-T6", f"{name} | ratio")
    rows.append((name, paper, found.measured().value, found.mean, *of_first))
apart = [[abs(number - paper) for number in read] for _, paper, *read in rows]
rows += [("mean distance to the paper", "", *np.mean(apart, axis=0).tolist())] if rows else []
header = "ratio (%) of, paper, ratio of means, mean of ratios"
plain(f"{header}, first seed: ratio of means, with one start", rows)

# %% [markdown]
# ### Is the gradient gone, or does it point the wrong way?
#
# A gradient can vanish or turn. On ImageNet the paper reports that it turns: the cosine between the perturbations of the
# single step and of an iterated attack falls, while the norm of the gradient grows. Here both are measured on MNIST:


# %%
@functools.cache
def turning(architecture, training, quantity):
    """Cosine of the single and the iterated perturbation, or norm of the gradient, at each point."""
    name = name_of(architecture, training)

    def cosine(s):
        made = [later(adversarial, nets[name, s], attack, points) for attack in (fgsm, iterated)]
        return kept(masking.perturbation_cosines, *made, points.images)

    def norm(s):
        return kept(evaluation.gradient_norms, nets[name, s], points.images, points.labels)

    return nets.outcomes(name, cosine if quantity == "cosine" else norm)


study.measure("EAT-C", by=turning)
study.table("EAT-C")

# %% [markdown]
# ## What the loss looks like around one image
#
# Figures 4 and 5 of the paper walk away from an image in two directions: the sign of the defended model's own gradient, and
# that of another model's, with a few signs flipped so that the two are orthogonal. If its own gradient is a local artefact,
# the loss grows fast along it for a short while, and then less than along the other. The first number is the share of test
# images where the other model's step raises the loss more than the model's own, minus the converse. The second counts the
# correctly classified images where, besides, the loss at the end of its own step is lower than a fifth of the way there.

# %%
bent = "A" if "A" in targets else standard
guide = "B" if "B" in sources else next((a for a in sources if a != bent), bent)
bent_name = f"{bent}_adv"


@functools.cache
def losses_on_steps(name, other):
    """Losses of a model on its own single step and on another model's: [seeds, test images] each."""

    def on_own(s):
        return evaluation.losses_under(nets[name, s], fgsm, test)

    def on_other(s):
        return kept(evaluation.losses, nets[name, s], from_source(other)(s), test.labels)

    return [nets.outcomes(name, of).values for of in (on_own, on_other)]


def artefact(architecture, training, quantity):
    name = name_of(architecture, training)
    own, other = losses_on_steps(name, "B")
    higher = other > own if quantity.startswith("the other") else own > other
    return Outcomes(higher, nets.seeds_of(name))


study.measure("EAT-F5", by=artefact)
study.table("EAT-F5")

# %% tags=["hide-input"]
bent_net, guide_net = nets[bent_name, first], nets[guide, nets.other(first)]
inner = attacks.FGSM(eps=round(run.epsilon / 5, 4))
hits = kept(correct, bent_net, probe.images, probe.labels).numpy()
near_own = evaluation.losses_under(bent_net, inner, probe).numpy()
whole_own, whole_other = (whole[0, : len(probe)] for whole in losses_on_steps(bent_name, guide))
leads_down = hits & (near_own > whole_own) & (whole_own < whole_other)
steepest = int((near_own * leads_down).argmax())  # 0 where there is none
x, y = test.images[steepest : steepest + 1], test.labels[steepest : steepest + 1]
along = ratios.gradient_sign(bent_net, x, y)
across = ratios.made_orthogonal(along, ratios.gradient_sign(guide_net, x, y))
panels = {}
for title, reach in {"whole ball": run.epsilon, "near": inner.eps}.items():
    grid = torch.linspace(0, reach, 51)
    surface = kept(ratios.loss_surface, bent_net, x, y, across, along, grid)
    panels[title] = (grid.numpy(), surface.numpy())
header = "model, other model, images whose own direction leads down again, of, image drawn"
plain(header, [(bent_name, guide, int(leads_down.sum()), len(probe), steepest)])

# %% mystnb={"figure": {"name": "eat-surface", "caption": "The loss of an adversarially trained model around one test image, classified correctly. Of those counted above it is the one whose loss is highest a fifth of the way along the model's own gradient (the first image where there is none). Horizontal along its own gradient sign, vertical along the other model's, made orthogonal to it. Left the whole radius, right its inner fifth."}, "image": {"alt": "Two filled contour plots of the loss, with the image at the lower left corner and each with its own colour scale: left the whole ball, right its inner fifth."}}
own_axis, other_axis = "along its own gradient", "along the other model's"
figures.contours(panels, xlabel=own_axis, ylabel=other_axis, value="loss")

# %% [markdown]
# ## How many directions can be aligned with a gradient?
#
# A direction is *adversarial* at $x$ if a step of $\epsilon$ along it fools the model. To find *many*, section 4.2 takes
# $k$ orthogonal directions that all climb the loss, that is, have a large cosine with its gradient. Lemma 6 bounds the
# smallest of these cosines: by Bessel's inequality their squares sum to at most one, so it is at most $k^{-1/2}$. Lemma 7
# says that the bound is attained. A *regular Hadamard matrix* has entries $\pm 1$, orthogonal rows and constant row sums
# $\sqrt k$; repeat each row over the pixels, multiply it pixel by pixel by the sign of the gradient, and every row has
# cosine exactly $k^{-1/2}$ with that sign vector. In the code `repeat` and the last line do so:

# %% tags=["remove-input"]
source(subspaces.aligned_directions)

# %% [markdown]
# Both lemmas are checked at the orders $k$ of the paper's experiment: the bound on 50 random and 50 nearly optimal orthogonal sets,
# the equality on the signs of one random gradient.

# %%
generator = torch.Generator().manual_seed(0)


@functools.cache
def lemma(k, quantity):
    """Sets of 100 that violate the bound, or the cosine that the construction attains, times sqrt(k)."""
    size = 784 // k * k
    vector = torch.randn(size, generator=generator, dtype=torch.float64).sign()
    optimal = subspaces.aligned_directions(vector, k, generator)
    if quantity == "attained":
        return Measurement(subspaces.least_cosine(optimal, vector) * k**0.5, None, k, [0])
    return Measurement(subspaces.violations(vector, optimal, generator), None, 100, [0])


study.measure("EAT-L6", "EAT-L7", by=lemma)
study.table("EAT-L6", "EAT-L7")

# %% [markdown]
# At each of the first test images that both models classify correctly, the largest number of directions that fool the model
# is kept. On a masked model it is a lower bound, since the directions follow the very gradient that is masked.

# %%
radii = [round(run.epsilon * share / 3, 4) for share in (1, 2, 3)]
counted = [a for a in ("A", "C") if a in targets] or [standard]


@functools.cache
def directions(architecture, training, eps, quantity="directions"):
    if eps not in radii:
        return None
    pair = [nets[name_of(architecture, t), first] for t in ("standard", "adv")]
    chosen = evaluation.places_of_correct(pair, test, run.directions_points)
    net = nets[name_of(architecture, training), first]
    found = kept(subspaces.count_adversarial_directions, net, test.take(chosen), eps)
    return Outcomes(found, [first], chosen)


study.measure("EAT-F2", by=directions)
study.table("EAT-F2")

# %% mystnb={"figure": {"name": "eat-directions", "caption": "Adversarial directions: the share of the images that both models classify correctly which have at least so many orthogonal adversarial directions, at the radius of training, first seed."}, "image": {"alt": "Step plot of the percentage of images over the least number of orthogonal adversarial directions, one line for each model."}}
kinds = [(a, t) for a in counted for t in ("standard", "adv")]
counts = {name_of(*kind): directions(*kind, radii[-1]).values[0] for kind in kinds}
at_least = "orthogonal adversarial directions, at least"
figures.survival(counts, xlabel=at_least, ylabel="test images (%)")

# %% [markdown]
# ## The remedy: ensemble adversarial training
#
# Section 3.4 lets half or more of the adversarial examples come from *static* models, which training cannot bend. Each batch
# draws one source uniformly from the static ones and the model itself. **ens** has one static source, of the same
# architecture; **ens3** has A, C and D, for B instead B, C and D. Their seed is neither the model's nor that of its attackers.
# This is the loss of a batch, which also draws the source:

# %% tags=["remove-input"]
source(objectives.EnsembleAdversarial.__call__)

# %%
kinds = [(a, kind) for a in targets if a in STATIC for kind in run.ensembles]
nets.train({f"{a}_adv-{kind}": nets.seeds_of(f"{a}_adv") for a, kind in kinds}, recipe_of)

# %% [markdown]
# Table 8 attacks with twelve black boxes: FGSM, iterated FGSM and PGD on the margin, each made on a standard A, B, C and D.
# The paper's maximum is over attacks: the strongest *one* of the twelve. The second table has the stricter reading, an image
# that *any* of the twelve fools; it decides nothing.

# %%
HOLDOUTS = ("A", "B", "C", "D")
margins = {"loss": attacks.Hinge(50), "drop_fooled": False, "keep_best": False}
pgd_cw = pgd(run.epsilon, steps=40, step_size=run.epsilon / 30, **margins)
suite = {"FGSM": fgsm, "I-FGSM": iterated, "PGD-CW": pgd_cw}


@functools.cache
def boxed(name, among=HOLDOUTS):
    """Errors under each black-box attack."""
    return [error_on(name, from_source(a, attack)) for a in among for attack in suite.values()]


def boxes(architecture, training, quantity):
    """Errors in a box of either colour."""
    name = name_of(architecture, training)
    if quantity == "max black-box":
        return highest(boxed(name))
    if quantity == "mean black-box":
        mean = 100.0 * np.mean([box.values for box in boxed(name)], axis=0)
        return Outcomes(mean, nets.seeds_of(name))
    if quantity == "ensemble of holdouts":
        return from_all_holdouts(name)
    return error(architecture, training, quantity)


study.measure("EAT-T8", by=boxes)
study.table("EAT-T8")

# %% tags=["hide-input"]
lines = {
    f"{a}_{training}": {"architecture": a, "training": training}
    for a in targets
    for training in ("adv", *(f"adv-{kind}" for kind in run.ensembles))
    if f"{a}_{training}" in nets
}
holdouts = tuple(a for a in HOLDOUTS if a in sources) or tuple(sources)
rows = []
for name in lines:
    found = boxed(name, holdouts)
    any_of_them = 100 * np.any([box.values for box in found], axis=0).mean()
    rows.append((name, highest(found).share, any_of_them))
plain("error (%) of, the strongest of the black boxes, any of them", rows)

# %% mystnb={"figure": {"name": "eat-ensembles", "caption": "Error of adversarially trained models without and with static sources, under the white-box single step and under the strongest of the black-box attacks. Filled: this run, one dot a training seed; hollow diamonds: the paper's Table 8."}, "image": {"alt": "Dot plot of error rates in percent for each defended model under white-box FGSM and the strongest transferred attack, with the paper's numbers as diamonds."}}
series = {"FGSM": {"quantity": "FGSM white-box"}, "transferred": {"quantity": "max black-box"}}
study.dots(["EAT-T8"], lines=lines, series=series, xlabel=error_label)

# %% [markdown]
# ### What it restores, and what it does not cure
#
# With static sources the approximation ratio should come back. Three more statements of section 4.2: the models stay weak to
# white-box iterated attacks; on them I-FGSM with two steps beats R+FGSM, as it should where the gradient at $x$ can be
# trusted; and examples made on all holdout models at once are no stronger than those of the best single one.


# %%
def from_all_holdouts(name):
    """The strongest of the attacks on the mean of all holdouts, on the first seed."""
    everyone = composed(Average, *(nets[a, nets.other(first)] for a in HOLDOUTS))
    made = [later(adversarial, everyone, attack, test) for attack in suite.values()]
    stands = [kept(correct, nets[name, first], images, test.labels) for images in made]
    return highest([Outcomes(~found.numpy(), [first]) for found in stands])


study.measure("EAT-R", by=ratio)
study.measure("EAT-X3", "EAT-X4", by=boxes)
study.table("EAT-R", "EAT-X3", "EAT-X4")

# %% [markdown]
# ### What it costs, and what an input dropout does instead
#
# With $n - 1$ static sources only one batch in $n$ needs the gradient of the current model (a check of our code), but
# training converges more slowly. Appendix C.2 asks whether B owes its trustworthy gradients to the dropout on its pixels, and
# finds that the same dropout helps A, C and D only marginally, and less than ensemble training does.

# %%
droppers = [f"{a}_adv-input-dropout" for a in run.input_dropout if a in targets]
nets.train(dict.fromkeys(droppers, large), recipe_of)


def cost(quantity, architecture="", training=""):
    if quantity == "clean":  # after one epoch
        return error(architecture, training, quantity)
    return objectives.share_of_own_steps(3, train.images[:1], train.labels[:1])


study.measure("EAT-X5", by=error)
study.measure("EAT-X6", by=cost)
study.table("EAT-X5", "EAT-X6")

# %% [markdown]
# ### What theory says
#
# Theorem 1 bounds the risk under a holdout attack, another distribution over perturbations: at most the training risk, plus a
# complexity term that shrinks with the sample, plus the distance between the holdout attack and the mixture of attacks seen in
# training. It says why *diverse* static sources help, and nothing about white-box attacks: no mixture of static sources is near
# an attack that reads the model's own weights. It has no number to measure.
#
# ## A trap: training on the random step
#
# If R+FGSM sees through masking, why not train on it? Section 4.1 does: robust to R+FGSM and not to PGD (accuracies).

# %%
nets.train({"R+FGSM": [first] if "A" in targets else []}, recipe_of)
pgd20 = pgd(run.epsilon, steps=20, step_size=run.epsilon / 15)


def trap(quantity):
    attack = rfgsm if quantity == "accuracy under R+FGSM" else pgd20
    found = evaluation.evaluate(nets["R+FGSM", first], attack, test)
    return Outcomes(found.attacked, [first], note=f"{run.epochs_rfgsm} epochs")


study.measure("EAT-RF", by=trap)
study.table("EAT-RF")

# %% [markdown]
# ## Is MNIST the right place to look?
#
# Appendix C.1: most pixels of MNIST are black or white. A model that first rounds them at 0.5 sees a perturbation of
# $\epsilon = 0.3$ only where a pixel lies between 0.2 and 0.8, and those are few; no adversarial training is needed. A
# rotation by 20 degrees makes pixels grey and undoes the defence; five pixels chosen at random and inverted add to it.
# What looks like robustness is a property of the pixels (not of the grey digits of `quick`).
#
# Two models are compared: A, trained on rounded images, behind the threshold (where A is left out, D stands in and
# decides nothing), and the network of Madry et al. {cite:p}`madry2018towards`, trained on PGD examples. The threshold has
# gradient zero, so the attack pretends, once that it is not there, once that it is a steep sigmoid, and the better of the
# two counts for each image. All the adversary can do is to flip pixels near 0.5: a greedy search over flips bounds the
# error from below, verification with interval bounds from above (checks: the paper has neither). Some rows are accuracies.

# %%
core = "A" if "A" in sources else "D"
on_rounded = Family(train.changed(flips.binary(train.images)), [first], device=run.device)
on_rounded.train({core: [first]}, recipe_of)
nets.train({"Madry net": [first]}, recipe_of)
pixel_nets = Networks()  # what is attacked, for each surrogate of the gradient
if core in on_rounded:
    steep, inner = [models.Binarise(slope) for slope in (None, 20.0)], on_rounded[core, first]
    behind = [composed(torch.nn.Sequential, layer, inner) for layer in steep]
    pixel_nets["binarised CNN" if core == "A" else "binarised D"] = behind
if "Madry net" in nets:
    pixel_nets["Madry net"] = [nets["Madry net", first]]

# %%
few = data.some(test, run.pixel_points)
turned = few.changed(flips.rotated(few.images, 20))
flipped = turned.changed(flips.inverted(turned.images, flips.random_pixels(turned.images, 5)))
persistent = attacks.IFGSM(eps=run.epsilon, steps=run.ratio_steps, dtype=run.dtype)


def stands(name, images):
    """Which examples withstand I-FGSM, under every surrogate gradient."""
    tried = [evaluation.evaluate(net, persistent, images).attacked for net in pixel_nets[name]]
    return np.all([found.numpy() for found in tried], axis=0)


def right(name, images):
    return kept(correct, pixel_nets[name][0], images.images, images.labels).numpy()


# %%
def behind_a_threshold(quantity, model=""):
    if not model:  # a share of all training pixels
        pixels = train.images.flatten().numpy()
        low, high = (pixels == 0) | (pixels == 1), (pixels >= 0.2) & (pixels <= 0.8)
        return Outcomes(low if "equal" in quantity else high, [0])
    lower_bound = "error under a greedy search of flips, eps 0.3 (a lower bound)"
    upper_bound = "verified error, eps 0.3 (an upper bound)"
    measured = {
        "error under white-box I-FGSM, eps 0.3": lambda: ~stands(model, few),
        lower_bound: lambda: flips.errors_by_flips(on_rounded["A", first], few, run.epsilon),
        upper_bound: lambda: flips.unverified(on_rounded["A", first], few, run.epsilon),
        "clean error, rotated by 20 degrees": lambda: ~right(model, turned),
        "accuracy, rotated by 20 degrees, I-FGSM": lambda: stands(model, turned),
        "accuracy, rotated, 5 flipped pixels, I-FGSM": lambda: stands(model, flipped),
    }
    return Outcomes(measured[quantity](), [first])


study.measure("EAT-C1", by=behind_a_threshold)
study.table("EAT-C1")

# %% mystnb={"figure": {"name": "eat-pixels", "caption": "What the threshold sees. From top: test images; their FGSM examples on the model behind the threshold; those after rounding; the images rotated by 20 degrees; the rotated images rounded."}, "image": {"alt": "Five rows of eight digits: clean, attacked, attacked and rounded, rotated, rotated and rounded."}}
rows = {"clean": shown.images}
for net in [behind[0]] if core in on_rounded else []:
    attacked = later(adversarial, net, fgsm, shown)()
    rows |= {"attacked": attacked, "attacked,\nrounded": flips.binary(attacked)}
rotated = flips.rotated(shown.images, 20)
figures.gallery(rows | {"rotated": rotated, "rotated,\nrounded": flips.binary(rotated)})

# %% [markdown]
# The paper does not say how the five flipped pixels are chosen. Chance was fixed before the run and decides the verdicts. An
# adversary would choose: here are the five whose inversion raises the loss most, to first order in the pixel.

# %% tags=["hide-input"]
rows = []
for name, (net, *_) in pixel_nets.items():
    picked = kept(flips.most_promising, net, turned.images, turned.labels, 5)
    chosen = turned.changed(flips.inverted(turned.images, picked))
    rows.append((name, 100.0 * right(name, chosen).mean(), 100.0 * stands(name, chosen).mean()))
plain("model, accuracy with 5 chosen pixels (%), under I-FGSM (%)", rows)

# %% [markdown]
# ## Sanity: can these numbers be trusted?
#
# Robust accuracy must never rise with $\epsilon$, and an undefended model must fall to iterated attacks (first seed).

# %% mystnb={"figure": {"name": "eat-sweep", "caption": "Error over the radius of the attack for a standard model and its adversarially trained twin, first seed, with 95% Wilson intervals. PGD lies on top in both; on a masked model FGSM stays low while the other two climb."}, "image": {"alt": "Two line plots of error rate over epsilon for FGSM, R+FGSM and PGD: the standard model on the left, the adversarially trained one on the right."}}
swept = [round(run.epsilon * k / 3, 3) for k in range(6) if run.epsilon * k / 3 <= 1]
sweep = {
    name: {label: [error_rate(name, of(eps=e)) for e in swept] for label, of in ATTACKS.items()}
    for name in (standard, hardened)
}
for name, curve in sweep.items():
    sanity.check_rising(curve["PGD"], f"PGD on {name}")
figures.lines(swept, sweep, xlabel=r"radius $\epsilon$", ylabel="error (%)")

# %% [markdown]
# ### A diagnosis of every model and its twin
#
# Is there an attack that knows less and still finds more errors? Transferred examples know nothing of the model; the square
# attack {cite:p}`andriushchenko2020square` asks for its outputs only. Where one of them beats the gradient, the verdict is
# *masked*; where only a random step first does, *suspicious*; else *not masked*, which says no more than that these attacks
# found nothing. The ratio is a quick one, in percent: one restart, on the first images. First seed, whose networks are published.

# %% tags=["hide-input"]
strangers = {a: later(adversarial, nets[a, nets.other(first)], fgsm, probe) for a in sources}


def diagnose(net, apart_from=""):
    carried = {f"transfer from {a}": x for a, x in strangers.items() if a != apart_from}
    settings = {"steps": steps, "queries": run.queries, "dtype": run.dtype}
    return masking.diagnose(net, probe, eps=run.epsilon, transferred=carried, **settings)


trained = [f"{a}{t}" for a in sources for t in ("", "_adv") if f"{a}{t}" in nets]
diagnoses = {name: diagnose(nets[name, first], name) for name in trained}
for name in sources:
    single, seen = diagnoses[name].single_step.error_rate(), diagnoses[name].iterated.error_rate()
    sanity.hold(error(name, "standard", "clean").share < 60, f"{name} has not learned its task")
    sanity.check_rising([single, seen], f"{name}, FGSM and then PGD")
    sanity.hold(run.epsilon < 0.3 or seen.percent > 90, f"{name}, undefended: {seen} under PGD")
masking.table(diagnoses)

# %% [markdown]
# ### What did not match, and what we tried
#
# *The size of the random step.* The paper's formula for R+FGSM has $\alpha = \epsilon/2$, stated for ImageNet; for MNIST it
# names no value, and the authors' code has 0.05 as its default ($\epsilon/6$). The formula was chosen before the run and decides
# the verdicts. On A_adv, C_adv and D_adv it uncovers more than the paper reports; the code's default, here on the first seed,
# comes nearer there and falls short on B\*_adv. That a random step defeats the masking does not depend on it.
#
# *The ratio of D* is {glue:text}`EAT-T6-D-ratio` (paper: {glue:text}`EAT-T6-D-ratio-paper`). Another average and a weaker
# strongest attack bring it nearer and not there (the table under Table 6); all ten numbers together fit both averages alike.

# %%
small_step = attacks.RFGSM(eps=run.epsilon, alpha=round(run.epsilon / 6, 4))
rows = []
for name in (f"{a}_adv" for a in targets):
    paper = study.paper("EAT-T7", f"{name} | R+FGSM white-box")
    under = (evaluation.evaluate(nets[name, first], step, test) for step in (rfgsm, small_step))
    rows.append((name, paper, *(found.error_rate().percent for found in under)))
plain("R+FGSM error (%) of, paper, alpha = eps/2, alpha = eps/6", rows)

# %% [markdown]
# ## Where we deviate, and why
#
# | point | here | why | kind |
# | --- | --- | --- | --- |
# | seeds | three trainings of every model of Tables 6 to 8 and of those with input dropout (at `standard` one of A_adv, B_adv and these, unless `n_seeds_large` says 3, as in the published run); one for directions, rounding, R+FGSM training and the ensemble of holdouts; means are reported | the paper reports one number and does not say of how many runs; A and B need hours on two cores. With one seed the interval over images decides alone, and a new training moves a number about six times as far (median of 88 rows of the second edition) | fewer seeds |
# | machine | seeds 1 and 2 trained and measured on a GPU; the published networks of seed 0 trained on a CPU and measured on the GPU, single steps on C's networks again on the CPU; R+FGSM training, rounding and sanity on two CPU cores | where neighbours tie in a pooling window (only C pools), each library moves another: made on the GPU, the single step on C_adv fools 12 of 500 images more, and steps from C fool 2 to 6% of images otherwise, as many less as more; elsewhere at most 1% | open choice |
# | statements on ImageNet | cosine, norm, gain in ratio, weaker and random transfer, remaining weakness, directions (A and C, 500 images): measured on MNIST | ImageNet cannot be had here | substitution |
# | static sources | A, C and D for A, C and D; B, C and D for B; another seed than the model and its attackers | the text names both sets and not which model has which | open choice |
# | PGD-CW | 40 steps of $\epsilon/30$ from a random start on the margin up to 50 | the number of steps is not stated; as Madry et al. | open choice |
# | ensemble of holdouts | the mean of their softmax outputs is attacked, on the first seed | the paper does not say how they are combined | reduced |
# | R+FGSM-trained model | adversarial images only, no clean ones; epochs as printed | the paper refers to Madry et al.; 100 epochs are hours on two cores | reduced below 100 epochs |
# | rounding | first 1,000 test images; the gradient of the step function is replaced by that of $x$ and by that of a sigmoid, either may win | its own gradient is zero everywhere | open choice |
# | transfer | the source has another seed than its target | a source that shares initialisation and data order with its target would not be a black box | exact |
# | Madry network | 5 epochs on examples of 3 steps and a growing radius, first seed | 100 epochs on 40 steps are a day on two cores | reduced |
# | precision | forward and backward passes in bfloat16 where the processor has it, weights and updates in float32 | speed. Single steps are attacked in float32 and every verdict is float32's; the robust accuracy of PGD differs by at most 0.2 points on 10,000 paired images (`benchmarks/`); of trainings this is not shown | open choice |
# | C | tanh after pooling instead of before | the same function, since tanh is monotone; a quarter of the work | exact |
# | D | dropout after each of the four layers, He initialisation | the table's brace is ambiguous, the authors' code is not | code variant |
# | R+FGSM | $\alpha = \epsilon/2$ | the paper's formula, which it states for ImageNet; the code's default for MNIST is measured beside it | open choice |
# | ratio | first 1,000 test images, 100 steps of $\epsilon/30$, 5 restarts, ratio of means | number of points, step and kind of average are not stated; other readings stand beside it | open choice |
#
# Nothing was tuned on the test set.

# %% [markdown]
# ## What we learned
#
# Single-step adversarial training taught four of five architectures to defeat the step, not the attack: seen from outside by
# a transferred step that beats the white-box one, from inside by an approximation ratio near zero
# ({glue:text}`EAT-T6-C_adv-ratio` on C_adv), and by a random step that undoes it. Static sources in training lower the
# strongest black-box error of A and C (C: {glue:text}`EAT-T8-C_adv-ens3-minus-C_adv-max-black-box` with three of them), raise
# that of D with one source, as in the paper, and leave B's undecided. After it, a white-box PGD still makes
# {glue:text}`EAT-X3-C_adv-ens3-white-box-PGD-minus-strongest-black-box-error` more errors on C than the strongest black box.
#
# What the paper did not see: its exception B is masked or not by the luck of a seed. On MNIST neither does the ratio come back
# with static sources nor the norm of the gradient grow, as on ImageNet. And an input dropout, "only marginal" there, changes
# C_adv's strongest transfer by {glue:text}`EAT-X5-C_adv-highest-transferred-FGSM-error-with-minus-without-input-dropout`.

# %% [markdown]
# ## Your own model
#
# With `-p model package.module:function -p weights file.safetensors` the diagnosis of the sanity section is made of your
# model. The function takes no arguments and returns a network from 28x28 images, pixels in $[0, 1]$, to logits of the
# data set's classes. Choose the set it was trained on with `-p dataset`.

# %% tags=["hide-input"]
own = models.load(run.model, run.weights).to(run.device) if run.model else None
masking.table({run.model: diagnose(own)} if own else {})

# %% [markdown]
# ## Try it yourself
#
# ```bash
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
# At the standard profile: `error_rate(hardened, attacks.RFGSM(eps=run.epsilon, alpha=alpha))`, and with `standard`, for a few
# `alpha` up to `run.epsilon`. On a masked model the error rises first: the random step must leave the bent neighbourhood.
# ```
#
# **Exercise 2.** Is the masked model robust once it is attacked properly?
#
# ```{dropdown} Solution
# PGD starts at a random point and takes many steps: the bend at $x$ does not fool it. The sanity section draws its error over
# the radius beside that of the single step: what lies between the two curves is robustness that was only apparent.
# ```

# %% tags=["remove-cell"]
study.close(train=train.fingerprint, test=test.fingerprint)
