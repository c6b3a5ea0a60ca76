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
# # Examine a model of your own
#
# A robustness number can be wrong without looking wrong: the gradient vanished, the model answers at random, its classes are
# not those of the data. This page does what a careful reviewer would do before believing one, to any model that takes pixels in
# $[0, 1]$ and returns logits. What speaks against the number is raised as a *flag*. Here it looks at one of the book's own
# networks. For yours there are three ways:
#
# ```bash
# # one command: a page of HTML and a JSON file
# python -m robustutils examine my_models:build --weights mine.safetensors --data mnist --eps 0.3
#
# # this notebook
# papermill chapters/examine.ipynb out.ipynb -p model my_models:build -p weights mine.safetensors \
#     -p dataset mnist -p epsilon 0.3 -p n_test 1000
# ```
#
# ```python
# from robustutils.tools.examine import examine
# found = examine(model, dataset, eps=0.3)
# print(found.answer(), found.flags, found.json())
# ```
#
# `my_models.py` lies in the current folder or on Python's path; its function `build` takes no arguments and returns a
# `torch.nn.Module`. The data are a set of the book, a folder that holds a folder of images for each class, or an `.npz` file
# with the arrays `images` and `labels`.

# %% tags=["parameters", "hide-input"]
profile = "quick"  # quick, check, standard or paper: sets every None below
model = None  # package.module:function, or a published network's name
weights = None  # of the function's model, a safetensors file
dataset = None  # a data set's name, a folder of folders, or an .npz file
epsilon = None  # linf radius, in pixels of [0, 1]
n_test = None  # first test images attacked
seed = None  # of the random starts
device = None  # cpu or cuda; None takes a GPU where there is one

# %%
from robustutils import models
from robustutils.book.study import Study
from robustutils.tools import own_data
from robustutils.tools.examine import examine

study = Study.begin("examine", globals())
run = study.run
network = models.find(run.model, run.weights).to(run.device)
test = own_data.test_images(run.dataset)
found = examine(
    network, test, eps=run.epsilon, n=min(run.n_test, len(test)), seed=run.seed, label=run.model
)

# %% [markdown]
# ## The answer

# %%
found

# %% [markdown]
# ## Rates
#
# Accuracy and the default attack are measured on all images asked for, everything else on at most the first 250. The default attack
# ({py:class}`robustutils.default_attack.DefaultAttack`) climbs the margin by large steps that decay to zero, most often on the images that
# nearly fall, and hands what still stands to the square attack {cite}`andriushchenko2020square`, which needs no gradient. The other
# lines are the diagnosis of {doc}`ensemble_adversarial_training`: where an attack that knows less does better, the gradient is
# masked.

# %%
found.rates()

# %% [markdown]
# ## Over the radius
#
# Robust accuracy must not rise with the radius, and must reach zero where every pixel may take every value. Where it does not, the
# attack has failed, not the adversary.

# %% mystnb={"figure": {"name": "examine-radius", "caption": "Robust accuracy over the radius of a short attack, with 95% Wilson intervals."}, "image": {"alt": "A falling curve of robust accuracy in percent over the radius of the attack."}}
found.radius_curve()

# %% [markdown]
# ## Blind spots
#
# The same attack on images of less contrast and on a lighter background, which the model still classifies correctly
# ({doc}`blind_spot`).

# %%
found.blind_spots()

# %% [markdown]
# ## What it looks like

# %% mystnb={"figure": {"name": "examine-gallery", "caption": "The first images, and the same after two runs of margin ascent; below each what the model says."}, "image": {"alt": "Two rows of images, clean above and attacked below, each with the class that the model names."}}
found.gallery()
