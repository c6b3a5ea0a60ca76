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
# # Background
#
# What the chapters take for granted: who the adversary is, how she moves, how success is counted, and how to read a
# number with its interval. A reader of the field can skip to {ref}`denominators`.

# %% [markdown]
# ## The adversary
#
# A classifier maps an image $x \in [0,1]^d$ to a vector of scores, the *logits* $f(x) \in \mathbb{R}^K$, one for each of
# $K$ classes; its answer is the largest, $h(x) = \arg\max_k f_k(x)$. With the true label $y$, an *adversarial example* is
# an image $x'$ near $x$ with $h(x') \ne y$ {cite:p}`szegedy2014intriguing`. Everything hangs on what "near" allows and
# what the adversary knows. Together these are the **threat model**, and a robustness number without one means nothing.
#
# *What she may change.* The **threat set** $S(x)$ holds all images she may hand in. Most often it is a ball of radius
# $\varepsilon$ in some norm, cut off at the limits of a pixel:
#
# $$
# S_p(x) = \{\, x + \delta \;:\; \lVert\delta\rVert_p \le \varepsilon,\; x + \delta \in [0,1]^d \,\}.
# $$ (threat-set)
#
# ```{list-table}
# :header-rows: 1
# :widths: 12 34 54
#
# * - Norm
#   - Measures
#   - In words
# * - $\ell_\infty$
#   - $\max_i \lvert\delta_i\rvert$
#   - Every pixel may change a little. The norm of most of this book.
# * - $\ell_2$
#   - $\left(\sum_i \delta_i^2\right)^{1/2}$
#   - The whole image may change by a given length; a few pixels may take most of it.
# * - $\ell_0$
#   - $\lvert\{i : \delta_i \ne 0\}\rvert$
#   - A few pixels may change as much as they like.
# ```
#
# Not every threat set is a ball of pixels. The adversary may also rotate and shift the image, or move in the latent space
# of a generator, so that every $x'$ she can reach looks like data. The library writes all of these as one idea, a place
# where a perturbation may live, and attacks them with one loop.
#
# *How large $\varepsilon$ is* must be said with the scale of the pixels. Here pixels are in $[0,1]$, so $\varepsilon = 0.3$
# on MNIST lets black become a dark grey, and $\varepsilon = 8/255$ on colour photographs can hardly be seen. The bound is
# a stand-in for "the image still shows the same thing". It is a poor one in both directions, which is the subject of the
# fourth paper.
#
# *What she knows.* In the **white-box** setting she has the model and its gradients. In the **black-box transfer** setting
# she makes examples on a *source* model of her own and hands them to the target. The same example counts against both, so
# an honest defence should look *worse* in the white-box setting than under transfer. Where it looks better, something
# hides the gradient (see {ref}`gradient-masking`).
#
# *What she wants.* Any wrong answer will do, unless a chapter says otherwise: the attacks are *untargeted*.

# %% [markdown]
# ## The attacks
#
# An attack looks for the $x' \in S(x)$ with the largest loss, usually the cross-entropy
# $L(x, y) = -\log \operatorname{softmax}(f(x))_y$:
#
# $$
# \max_{x' \in S(x)} L(x', y).
# $$ (inner-problem)
#
# This cannot be solved exactly for a network, so an attack that fails proves nothing. Attacks differ in how hard they try.
# Below, $\operatorname{clip}$ cuts pixels to $[0,1]$ and $g(x) = \nabla_x L(x, y)$.
#
# ### One step
#
# Suppose the loss were linear around $x$. Then {eq}`inner-problem` asks for the $\delta$ in the ball that is best aligned
# with $g$, and the answer has a closed form. In $\ell_\infty$ every pixel moves by $\varepsilon$ in the direction of its
# own gradient, whatever its size:
#
# $$
# \max_{\lVert\delta\rVert_\infty \le \varepsilon} g \cdot \delta = \varepsilon \lVert g\rVert_1
# \quad\text{at}\quad \delta = \varepsilon \operatorname{sign}(g),
# \qquad
# \max_{\lVert\delta\rVert_2 \le \varepsilon} g \cdot \delta = \varepsilon \lVert g\rVert_2
# \quad\text{at}\quad \delta = \varepsilon\, g / \lVert g\rVert_2 .
# $$ (dual-norm)
#
# The **fast gradient sign method** (FGSM) {cite:p}`goodfellow2015explaining` takes that step:
#
# $$
# x^{\text{FGSM}} = \operatorname{clip}\bigl(x + \varepsilon \operatorname{sign} g(x)\bigr).
# $$ (fgsm)
#
# On a linear model with two classes it is the exact optimum; the tests of the library use this.
#
# **Step-LL** {cite:p}`kurakin2017scale` walks *towards* the label that the model finds least likely,
# $y_{\text{LL}} = \arg\min_k f_k(x)$. It needs no true label, and avoids *label leaking*: a network trained with FGSM can
# learn to read the true label out of the perturbation, because the perturbation was made from it.
#
# $$
# x^{\text{LL}} = \operatorname{clip}\bigl(x - \varepsilon \operatorname{sign} \nabla_x L(x, y_{\text{LL}})\bigr).
# $$ (step-ll)
#
# **R+FGSM** {cite:p}`tramer2018ensemble` first takes a random step of size $\alpha < \varepsilon$, which leaves the
# immediate neighbourhood of $x$, and spends what is left of $\varepsilon$ on the gradient there:
#
# $$
# \tilde{x} = \operatorname{clip}\bigl(x + \alpha \operatorname{sign} \mathcal{N}(0, I)\bigr), \qquad
# x^{\text{R+FGSM}} = \operatorname{clip}\bigl(\tilde{x} + (\varepsilon - \alpha) \operatorname{sign} g(\tilde{x})\bigr).
# $$ (r-fgsm)
#
# On a linear loss the random step wastes part of the budget, so R+FGSM does no more than FGSM. Where it does much *more*,
# the gradient at $x$ itself was misleading.
#
# ### Many steps
#
# **I-FGSM**, the basic iterative method {cite:p}`kurakin2016physical`, repeats small steps of size $\alpha$ and returns to
# the threat set after each, with the projection $\Pi_S$:
#
# $$
# x^{(0)} = x, \qquad x^{(t+1)} = \Pi_{S(x)}\bigl(x^{(t)} + \alpha \operatorname{sign} g(x^{(t)})\bigr).
# $$ (i-fgsm)
#
# **PGD**, projected gradient descent {cite:p}`madry2018towards`, is the same loop from a random point of $S(x)$, usually
# restarted from several. For the $\ell_\infty$ ball the projection clips every pixel to $[x_i-\varepsilon, x_i+\varepsilon]$
# and $[0,1]$. For $\ell_2$ the step is $\alpha\, g/\lVert g\rVert_2$ and the projection scales $\delta$ back to length
# $\varepsilon$.
#
# Three choices matter more than the name of an attack.
#
# - *The loss.* Cross-entropy is flat where the model is very sure. The *margin loss*
#   $\max_{k\ne y} f_k(x) - f_y(x)$ {cite:p}`carlini2017towards` is not, and is positive exactly when the attack has won.
# - *What is kept.* The best image met on the way, rather than the last one. Then more steps can only help.
# - *Who counts.* Several attacks, or restarts, are combined per example: an image is robust if *none* of them fools the
#   model. Adaptive steps and an ensemble of different attacks make this reliable {cite:p}`croce2020reliable`.
#
# ### Training against them
#
# **Adversarial training** puts the attack inside the training loop and minimises
# $\mathbb{E}_{(x,y)} \max_{x' \in S(x)} L(x', y)$, with PGD for the inner maximum {cite:p}`madry2018towards` or, much
# cheaper, a single step. What goes wrong with the single step is the subject of the first paper. Two other families appear
# later: *certified* training, which minimises an upper bound of the inner maximum and so can prove its claim
# {cite:p}`wong2018provable`, and *distributionally robust* training, which pays for the distance moved rather than
# forbidding it {cite:p}`sinha2018certifying`.

# %% [markdown]
# (gradient-masking)=

# %% [markdown]
# ## Gradient masking
#
# An attack that follows the gradient finds nothing when the gradient says nothing: it is zero, random, or points away
# from the nearby mistakes. The model is then no more robust than before; it is harder to *attack in this way*. Many
# defences that were later broken worked like this {cite:p}`athalye2018obfuscated`. The signs, and the checks of every chapter
# {cite:p}`carlini2019evaluating`:
#
# ```{list-table}
# :header-rows: 1
# :widths: 50 50
#
# * - If gradients are honest
#   - The check
# * - many steps do at least as much as one
#   - iterative against single-step, same images
# * - a larger $\varepsilon$ never does less
#   - accuracy against $\varepsilon$
# * - with $\varepsilon$ large enough everything falls
#   - the curve reaches zero
# * - knowing the model helps
#   - white-box against transfer
# * - a random first step gains little
#   - R+FGSM against FGSM
# * - gradients help
#   - gradient-free against gradient-based attack
# * - the attack itself works
#   - it breaks an undefended twin of the model
# * - more effort changes nothing
#   - twice the steps, more restarts
# ```
#
# The first paper measures masking directly, by how much of the loss that a strong attack reaches is already reached by a
# single step: $L(x^{\text{FGSM}}, y) / L(x^{\text{strong}}, y)$. Near one, the loss is close to linear and the single step
# is a fair test; near zero, it is not.

# %% [markdown]
# (denominators)=

# %% [markdown]
# ## Three rates, three denominators
#
# Papers report the strength of an attack in three ways. They differ in what they divide by, and are easily confused.
#
# ```{list-table}
# :header-rows: 1
# :widths: 20 40 18 22
#
# * - Rate
#   - Counts
#   - Divides by
#   - Papers
# * - **error rate**
#   - inputs misclassified under *one* attack, clean mistakes included
#   - all inputs
#   - ensemble adversarial training
# * - **success rate**
#   - attacks that turn a correct answer into a wrong one; averaged over attempts, or the worst of them
#   - inputs classified correctly without attack
#   - blind-spot, disentangling
# * - **robust accuracy**
#   - inputs classified correctly without attack *and* under every attack
#   - all inputs
#   - most of the later literature
# ```
#
# An invented example: of 1,000 test images a model classifies 980 correctly, and an attack fools it on 98 of those. The
# error rate is $(20+98)/1000 = 11.8\%$, the success rate $98/980 = 10\%$, the robust accuracy $88.2\%$.
#
# With one attack, and a clean mistake counted as a mistake whatever the attack makes of it, error rate and robust accuracy
# add up to one. With several attacks they no longer do. The *largest error rate of any attack* takes the maximum
# over attacks after averaging over images; the worst case per image takes it before averaging:
#
# $$
# \underbrace{\max_a \frac{1}{N}\sum_{i=1}^{N} \mathbb{1}[\text{attack } a \text{ fools image } i]}_{\text{strongest attack}}
# \;\le\;
# \underbrace{\frac{1}{N}\sum_{i=1}^{N} \max_a \mathbb{1}[\text{attack } a \text{ fools image } i]}_{\text{worst case per image}} .
# $$ (max-mean)
#
# The first paper reports the left side. The right side is what an adversary with all the attacks would reach, and the one
# to compare with robust accuracy elsewhere. The library returns a verdict per image and names the denominator of every
# rate, so that they are never mixed.

# %% [markdown]
# ## How to read an interval
#
# A rate measured on $n$ images is an estimate. With $k$ of $n$ counted, $\hat p = k/n$ and $z = 1.96$, the book gives the
# **Wilson interval** {cite:p}`wilson1927probable`:
#
# $$
# \frac{1}{1+z^2/n}\left(\hat p + \frac{z^2}{2n} \pm z\sqrt{\frac{\hat p(1-\hat p)}{n} + \frac{z^2}{4n^2}}\,\right).
# $$ (wilson)
#
# It stays inside $[0,1]$ and makes sense at the ends: nothing found among 1,000 images means a rate of at most 0.4%, not
# of zero. Near one half, 1,000 images give about $\pm 3$ percentage points and 10,000 about $\pm 1$. A difference of one
# point between two defences, measured on 1,000 images each, is therefore no difference; on the *same* images, compared
# image by image, it may be.
#
# The interval covers the choice of test images and nothing else. It does not cover the luck of training: another seed
# gives another model, and for defences that mask gradients, often a very different one. A claim about a *training method*
# is therefore tested on at least three seeds. The chapters keep the spread over seeds and the interval over images apart.
#
# Nor does an interval cover the attack. A measured robust accuracy is an upper bound: a better attack can only lower it.

# %% [markdown]
# ## How to read a verdict
#
# Before a run, a chapter's TOML file fixes for each claim the statement, the paper's numbers, how many images and seeds are
# needed, and a criterion from a short list: a value lies within a band, one value is greater than another, values are
# ordered. After the run the library evaluates it.
#
# The rule is one, for every chapter, and every page is judged by it whenever it is made.
#
# *Direction.* The 95% interval of the effect decides. Where it lies wholly on the paper's side, the direction holds. Where it
# lies wholly on the other, the row *disagrees*. Where it reaches to both, the row is *undetermined*, even if the point estimate
# looks right: the run has not shown it.
#
# *Size.* The number must lie in a band fixed beforehand. An interval wider than the band cannot say so: the row is
# *undetermined*. A direction that holds with another size is *direction only*.
#
# *Fidelity.* How far was the run from the paper's protocol? A run as the paper says (*exact*), with what it leaves open chosen by
# us (*open choice*), or as its code does where the two differ (*code variant*), *reproduces* what agrees. With *fewer seeds or
# images*, *reduced* training or attack, or a *stand-in* it only *agrees*, and the verdict names the departure.
#
# The interval is over training seeds where there are several, else over test images. It stays on its scale: a rate between 0
# and 100%, a correlation between -1 and 1, for a Student interval over three seeds would leave it. So it is made on the logit
# scale of rates and, which is the same, on Fisher's z of correlations ({func}`robustutils.statistics.seeds_interval`). All
# verdicts stand in {ref}`what-a-verdict-is`.
#
# A verdict says that a number came out again under the stated conditions. It does not say that the paper's explanation is
# right, that the defence would survive a stronger attack, or that it matters outside the data set. And with many claims, a
# few intervals will miss by chance: at 95%, about one in twenty. Read a group of claims together before a single row.

# %% [markdown]
# ## A live example
#
# Everything above in a minute: a small network, handwritten digits, and the attacks of this page at growing strength.
# This page is executed like the chapters, on the digits that come with scikit-learn {cite:p}`alpaydin1998optical`.

# %% tags=["parameters", "hide-input"]
profile = "quick"  # quick, check, standard or paper: sets every None below
dataset = None  # digits, mnist or fashion_mnist
epsilon = None  # linf radius of the attacks, in pixels of [0, 1]
epochs = None  # of training
n_train = None  # first training images used
n_test = None  # first test images attacked
device = None  # cpu or cuda; None takes a GPU where there is one

# %% tags=["hide-input"]
from robustutils import attacks, data, evaluation, figures, networks, recipes, sanity, tables
from robustutils.artifacts import kept, later
from robustutils.book.study import Study
from robustutils.threats import Linf

study = Study.begin("background", globals())
run = study.run

# %% [markdown]
# A model takes pixels and returns logits; an attack is an object with its hyperparameters that is called with model,
# images and labels.

# %%
train = data.some(data.load(run.dataset, "train"), run.n_train)
test = data.some(data.load(run.dataset, "test"), run.n_test)
model = networks.Network(
    recipes.recipe("small_cnn").replace(epochs=run.epochs), train, device=run.device
)

ladder = {
    "FGSM": attacks.FGSM(eps=run.epsilon),
    "R+FGSM": attacks.RFGSM(eps=run.epsilon),
    "I-FGSM": attacks.IFGSM(eps=run.epsilon, steps=10),
    "PGD": attacks.PGD(
        threat=Linf(eps=run.epsilon), steps=20, step_size=run.epsilon / 8, dtype=run.dtype
    ),
}
verdicts = {name: evaluation.evaluate(model, attack, test) for name, attack in ladder.items()}

# %% [markdown]
# The same verdicts give all three rates. Here the success rate differs from the error rate by the images that the model
# gets wrong without any attack.

# %%
tables.plain(
    ("attack", "error rate", "success rate", "robust accuracy"),
    [
        (name, found.error_rate(), found.success_rate(), found.robust_accuracy())
        for name, found in verdicts.items()
    ],
)

# %% [markdown]
# An undefended model has honest gradients, so more steps find more errors; the single step with a random step first is
# the weakest.

# %% tags=["hide-input"] mystnb={"figure": {"name": "background-gallery", "caption": "Digits and their adversarial examples: the perturbation looks like noise and is computed, not drawn. A title names what the small network sees."}, "image": {"alt": "Two rows of eight handwritten digits, clean above and attacked below, each titled with the network's prediction."}}
shown = test.first(8)
adversarial = later(evaluation.adversarial, model, ladder["PGD"], shown)
seen = kept(evaluation.predicted, model, adversarial).tolist()
titles = [f"{label} → {answer}" for label, answer in zip(shown.labels.tolist(), seen, strict=True)]
figures.gallery({"clean": shown.images, "PGD": adversarial()}, titles)
# %% tags=["remove-cell"]
sanity.check_rising([verdicts["FGSM"].error_rate(), verdicts["PGD"].error_rate()], "PGD after FGSM")
learned = verdicts["FGSM"].clean.float().mean() > 0.8
sanity.hold(run.dataset != "digits" or learned, "the small network learns the digits")
