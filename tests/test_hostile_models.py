"""Models of one's own that would fool, break or be broken: each is attacked rightly, refused in a sentence, or flagged."""

import contextlib
import copy
import logging
import sys
import types
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from robustutils import __main__, data, evaluation, figures, flags, models
from robustutils.attacks import FGSM, PGD, Attack, try_out
from robustutils.square import Square
from robustutils.threats import L2, Linf, check_inside
from robustutils.tools import examine as examine_module
from robustutils.tools.examine import examine

EPS = 0.05
FOLLOWED: dict[str, Attack] = {
    "FGSM": FGSM(eps=EPS),
    "PGD": PGD(threat=Linf(eps=EPS), steps=3, step_size=0.03, restarts=2),
}
ASKED: dict[str, Attack] = {"square": Square(eps=EPS, queries=5)}


@pytest.fixture(scope="module")
def test() -> data.Dataset:
    return data.load("digits", "test").first(40)


class Around(nn.Module):
    """The small network with something done to its pixels before and to its logits behind it."""

    def __init__(self, *, before=lambda x: x, behind=lambda z: z) -> None:
        super().__init__()
        self.net, self.before, self.behind = models.published("small_cnn"), before, behind

    def forward(self, x: Tensor):
        return self.behind(self.net(self.before(x)))


def plain() -> nn.Module:
    return models.published("small_cnn")


# ---- images that a model changes ----


def by_numpy(x: Tensor) -> Tensor:
    x.detach().numpy()[:] *= 0.5
    return x


def by_slices(x: Tensor) -> Tensor:
    x[:, :, ::2] = 0
    return x


IN_PLACE = {
    "mul_": lambda x: x.mul_(0.5),
    "-=": lambda x: x.sub_(x.mean()),
    "clamp_": lambda x: x.clamp_(0.2, 0.7),
    "data": lambda x: (x.data.mul_(0.5), x)[1],
    "numpy": by_numpy,
    "slices": by_slices,
    "out": lambda x: torch.mul(x.detach(), 0.5, out=x.detach()),
}


@pytest.mark.parametrize("attack", [*FOLLOWED.values(), *ASKED.values()], ids=[*FOLLOWED, *ASKED])
@pytest.mark.parametrize("change", IN_PLACE.values(), ids=IN_PLACE)
def test_a_model_that_changes_its_images_changes_a_copy(test, change, attack):
    changing, pure = Around(before=change), Around(before=lambda x: change(x.clone()))
    images = test.images.clone()
    with contextlib.suppress(flags.NoGradient):
        x_adv = attack(changing, images, test.labels)
        check_inside(Linf(eps=EPS), test.images, x_adv)
        assert torch.equal(x_adv, attack(pure, test.images, test.labels))
    assert torch.equal(images, test.images)
    found, expected = (evaluation.correct(model, images, test.labels) for model in (changing, pure))
    assert torch.equal(found, expected)
    flags.observed(changing, images, test.labels)
    assert torch.equal(images, test.images)


def test_a_hook_of_its_own_that_changes_images_changes_the_copy(test):
    net, images = plain(), test.images.clone()
    net.register_forward_pre_hook(lambda module, given: (given[0].mul_(0.5),))
    FOLLOWED["FGSM"](net, images, test.labels)
    assert torch.equal(images, test.images)
    assert len(net._forward_pre_hooks) == 1


class Bare(nn.Module):
    """Without ``forward``, so that no hook is run."""

    def __call__(self, x: Tensor) -> Tensor:
        return x.mul_(0.5).flatten(1)[:, :10]


def test_a_model_that_takes_no_copy_is_refused_and_the_images_stay(test):
    images = test.images.clone()
    with pytest.raises(ValueError, match="changes its images in place"):
        ASKED["square"](Bare(), images, test.labels)
    assert torch.equal(images, test.images)


class Halving(nn.Module):
    """For scripts: it changes its images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        return self.net(x)


def test_a_script_that_changes_its_images_is_refused_and_they_stay(test):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(Halving())
    images = test.images.clone()
    with pytest.raises(ValueError, match="changes its images in place"):
        FOLLOWED["FGSM"](script, images, test.labels)
    with pytest.raises(ValueError, match="changes its images in place"):
        evaluation.correct(script, images, test.labels)
    assert torch.equal(images, test.images)


# ---- answers that depend on the batch ----


class BatchNormalised(nn.Module):
    """The small network behind a batch normalisation without running statistics."""

    def __init__(self, *, last: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(1, affine=False, track_running_stats=False)
        self.parts = (
            nn.Sequential(plain(), nn.Unflatten(1, (1, 1, 10)), norm, nn.Flatten())
            if last
            else (nn.Sequential(norm, plain()))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x)


MIXED = {
    "batch norm of pixels": BatchNormalised,
    "batch norm of logits": lambda: BatchNormalised(last=True),
    "minus the mean": lambda: Around(behind=lambda z: z - z.mean(0)),
    "over the largest": lambda: Around(behind=lambda z: z / z.abs().max() * len(z)),
    "sorted": lambda: Around(behind=lambda z: z.sort(0).values),
}


@pytest.mark.parametrize("build", MIXED.values(), ids=MIXED)
def test_an_answer_that_depends_on_the_batch_is_a_flag(test, build):
    found = evaluation.evaluate(build(), FOLLOWED["FGSM"], test)
    assert any("depends on the other images of the batch" in flag for flag in found.flags), found.flags


def test_a_function_of_an_image_has_no_such_flag_and_no_entry(test):
    assert flags.observed(plain(), test.images, test.labels).keys() == {"blind", "unsteady", "searching"}
    noisy = flags.observed(Around(behind=lambda z: z + torch.randn_like(z)), test.images, test.labels)
    assert noisy["unsteady"].all()
    assert "mixed" not in noisy, "said once, by its cause"


# ---- optimisations that fail ----


class Viewing(nn.Module):
    """The network of many tutorials: a view behind a pooling."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.features = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2))
            self.head = nn.Linear(8 * 13 * 13, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).view(-1, 8 * 13 * 13))


class Strided(Viewing):
    """It relies on the order in memory."""

    def forward(self, x: Tensor) -> Tensor:
        seen = self.features(x)
        return self.head(
            torch.as_strided(seen, (len(x), 1352), (1352, 1)) if seen.is_contiguous() else seen[0]
        )


class Asserting(Viewing):
    """It insists on the order in memory."""

    def forward(self, x: Tensor) -> Tensor:
        seen = self.features(x)
        assert seen.is_contiguous()
        return self.head(seen.flatten(1))


@pytest.mark.parametrize("kind", [Viewing, Strided, Asserting])
def test_a_layout_that_a_model_cannot_take_is_not_its_fault(test, kind):
    net, attack = kind(), FOLLOWED["PGD"]
    same = Viewing()
    same.forward = lambda x: same.head(same.features(x).flatten(1))
    assert torch.equal(evaluation.predicted(net, test.images), evaluation.predicted(same, test.images))
    x_adv = attack(net, test.images, test.labels)
    torch.testing.assert_close(x_adv, attack(same, test.images, test.labels))
    assert net.features[0].weight.is_contiguous()
    assert not net._forward_pre_hooks


class Filling(nn.Module):
    """Fills the answers into float32, column by column."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        out, answers = torch.zeros(len(x), 10), self.net(x)
        out[:, torch.arange(10)] = answers
        return out


LOW = {
    "index put": Filling,
    "scatter": lambda: Around(
        behind=lambda z: torch.zeros(len(z), 10).scatter(1, torch.arange(10).expand_as(z), z)
    ),
    "checked": lambda: Around(behind=lambda z: z if z.dtype == torch.float32 else 1 / 0),
}  # fmt: skip


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("build", LOW.values(), ids=LOW)
def test_a_model_that_fails_in_bfloat16_runs_in_float32_and_this_is_said_once(test, build, caplog):
    net, attack = build(), FOLLOWED["PGD"]
    with caplog.at_level(logging.WARNING):
        found = attack(net, test.images, test.labels)
        attack(net, test.images, test.labels)
    assert torch.equal(
        found, PGD(**{**vars(attack), "dtype": torch.float32})(plain(), test.images, test.labels)
    )
    (said,) = (record.message for record in caplog.records)
    assert "runs without torch.bfloat16" in said


# ---- refused before any work, in a sentence ----


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.net, x, use_reentrant=True)


class Leaving(nn.Module):
    """Works for some calls, then does something else."""

    def __init__(self, calls: int, error: BaseException) -> None:
        super().__init__()
        self.net, self.left, self.error = plain(), calls, error

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return self.net(x)


class Quantised(nn.Module):
    """Dynamic quantisation: without gradients."""

    def __init__(self) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.net = torch.ao.quantization.quantize_dynamic(
                nn.Sequential(nn.Flatten(), nn.Linear(784, 10)), {nn.Linear}
            )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def half(z: Tensor) -> Tensor:
    return z.half().softmax(1)


REFUSED = {
    "softmax": (lambda: Around(behind=lambda z: z.softmax(1)), "probabilities"),
    "softmax in half precision": (lambda: Around(behind=half), "probabilities"),
    "softmax in bfloat16": (lambda: Around(behind=lambda z: z.bfloat16().softmax(1)), "probabilities"),
    "rounded softmax": (lambda: Around(behind=lambda z: z.softmax(1).mul(100).round() / 100), "probabilities"),
    "one-hot": (lambda: Around(behind=lambda z: nn.functional.one_hot(z.argmax(1), 10) * 1.0), "probabilities"),
    "squeeze": (lambda: Around(behind=lambda z: z.squeeze()), r"logits \[1, K\].*shape \(10,\)"),
    "one image as a vector": (lambda: Around(behind=lambda z: z[0] if len(z) == 1 else z), r"\[1, K\]"),
    "a fixed batch": (lambda: Around(before=lambda x: x.view(40, 1, 28, 28)), r"fails on images.*\[8, 1, 28, 28\]"),
    "even batches": (lambda: Around(before=lambda x: x.view(-1, 2, 1, 28, 28).flatten(0, 1)), r"\[1, 1, 28, 28\]"),
    "batch norm of features": (
        lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784, track_running_stats=False), nn.Linear(784, 10)),
        "more than 1 value",
    ),
    "reentrant checkpoint": (Checkpointed, "gradient by the images cannot be computed.*use_reentrant=False"),
    "dynamic quantisation": (Quantised, "no gradient reaches the images"),
    "numpy": (lambda: Around(before=lambda x: torch.from_numpy(x.detach().numpy().copy())), "no gradient"),
    "meta": (lambda: plain().to("meta"), "fails on images.*meta"),
    "sys.exit(0)": (lambda: Leaving(0, SystemExit(0)), "SystemExit: 0"),
    "exit later": (lambda: Leaving(6, SystemExit(0)), "SystemExit: 0"),
    "an error later": (lambda: Leaving(7, RuntimeError("now\nand then")), "RuntimeError: now$"),
    "an assertion": (lambda: Leaving(0, AssertionError("no")), "AssertionError: no"),
    "recursion": (lambda: Leaving(2, RecursionError("deep")), "RecursionError: deep"),
    "double": (lambda: plain().double(), r"fails on images torch.float32.*RuntimeError"),
    "five classes": (lambda: Around(behind=lambda z: z[:, :5]), "5 classes"),
    "no classes": (lambda: Around(behind=lambda z: z[:, :0]), r"K >= 2"),
    "images of other sizes": (lambda: nn.Linear(32, 10), r"fails on images.*\[\d+, 1, 28, 28\]"),
    "colour": (lambda: nn.Conv2d(3, 10, 28), "3 channels"),
    "None": (lambda: Around(behind=lambda z: None), "NoneType"),
    "numpy answers": (lambda: Around(behind=lambda z: z.detach().numpy()), "ndarray"),
    "complex": (lambda: Around(behind=lambda z: z + 0j), "complex|fails"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about checkpoints and quantisation
@pytest.mark.parametrize(("build", "message"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_cannot_be_examined_is_refused_in_a_sentence(test, build, message):
    net = build()
    with pytest.raises(ValueError, match=message) as refused:
        examine(net, test, eps=EPS, n=40, report=str)
    assert "\n" not in str(refused.value)


TRUE_LOGITS = {
    "of two classes": torch.rand(20, 2, generator=torch.Generator().manual_seed(0)),
    "centred": torch.randn(20, 10, generator=torch.Generator().manual_seed(0)),
    "that sum to one": torch.tensor([[1.5, -0.5], [0.25, 0.75]]).repeat(8, 1),
    "of one image": torch.tensor([[0.3, 0.697]]),
    "zero": torch.zeros(9, 10),
}


@pytest.mark.parametrize("logits", TRUE_LOGITS.values(), ids=TRUE_LOGITS)
def test_true_logits_are_no_probabilities(logits):
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return logits[: len(x)]

    assert torch.equal(try_out(Fixed(), torch.rand(len(logits), 1, 2, 2)), logits)


# ---- models that others refuse ----


class Stacked(nn.Module):
    """An ensemble whose members' weights are stacked, on a base without any."""

    def __init__(self) -> None:
        super().__init__()
        members = [plain(), plain()]
        self.weights, _ = torch.func.stack_module_state(members)
        self.base = copy.deepcopy(members[0]).to("meta")

    def forward(self, x: Tensor) -> Tensor:
        def of(weights: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(self.base, weights, (x,))

        return torch.vmap(of)(self.weights).mean(0)


def exported() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = {0: torch.export.Dim("batch")}
        return torch.export.export(plain(), (torch.rand(3, 1, 28, 28),), dynamic_shapes=(batch,)).module()


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(plain(), torch.rand(3, 1, 28, 28))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(plain())


@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch, about the checkpoint
@pytest.mark.parametrize("build", [Stacked, exported, traced, scripted, Checkpointed])
def test_what_is_no_common_module_is_attacked_as_the_network_that_it_is(test, build):
    net = build()
    assert torch.equal(evaluation.predicted(net, test.images), evaluation.predicted(plain(), test.images))
    attack = ASKED["square"] if build is Checkpointed else FOLLOWED["PGD"]
    found, expected = (evaluation.evaluate(model, attack, test) for model in (net, plain()))
    assert torch.equal(found.attacked, expected.attacked)


# ---- pixels in another scale ----

SCALES = {
    "2x - 1": lambda x: (x + 1) / 2,
    "255x": lambda x: x / 255,
    "1 - x": lambda x: 1 - x,
    "MNIST": lambda x: x * 0.3081 + 0.1307,
}


@pytest.mark.parametrize("name", SCALES)
def test_a_model_that_wants_other_pixels_is_told_which(test, name):
    net = Around(before=SCALES[name])
    (flag,) = flags.scaled(net, test.images, test.labels)
    assert (
        f"pixels x are given as {name}" in flag.replace("(x - mean) / deviation of ", "") or name == "MNIST"
    )
    assert name in flag
    assert flags.scaled(plain(), test.images, test.labels) == ()


def test_the_flag_stands_with_the_rate_and_in_the_refusal(test):
    rate = evaluation.robust_accuracy(Around(before=SCALES["1 - x"]), test.first(30), eps=0.01)
    assert any("1 - x" in flag for flag in rate.flags), rate.flags
    wide = Around(before=SCALES["255x"])
    (said,) = evaluation.predicted(wide, test.images).unique().tolist()
    others = test.take((test.labels != said).nonzero().squeeze(1))
    with pytest.raises(ValueError, match=r"nothing to attack.*255x"):
        examine(wide, others, eps=EPS, n=30, report=str)


# ---- what is no model, no data, no radius ----


def loader(test: data.Dataset) -> torch.utils.data.DataLoader:
    return torch.utils.data.DataLoader(list(zip(test.images, test.labels, strict=True)))


ARGUMENTS = {
    "a lambda": (lambda test: evaluation.evaluate(lambda x: x, FGSM(eps=EPS), test), "model must be a Module.*function"),
    "a class": (lambda test: evaluation.evaluate(Around, FGSM(eps=EPS), test), "model must be a Module, got a type"),
    "a loader": (lambda test: evaluation.evaluate(plain(), FGSM(eps=EPS), loader(test)), "dataset.*DataLoader"),
    "a pair": (lambda test: evaluation.robust_accuracy(plain(), (test.images, test.labels), eps=EPS), "dataset.*tuple"),
    "a name": (lambda test: examine("small_cnn", test, report=str), "model must be a Module, got a str"),
    "no attack": (lambda test: evaluation.evaluate(plain(), "FGSM", test), "attack must be a Callable, got a str"),
    "arrays": (lambda test: FGSM(eps=EPS)(plain(), test.images.numpy(), test.labels), "x must be a Tensor.*ndarray"),
    "a list": (lambda test: FGSM(eps=EPS)(plain(), test.images, [1] * 40), "y must be a Tensor, got a list"),
    "arrays to judge": (lambda test: evaluation.correct(plain(), test.images.numpy(), test.labels), "ndarray"),
    "a function to attack": (lambda test: FGSM(eps=EPS)(lambda x: x, test.images, test.labels), "model must be"),
    "eps='8/255'": (lambda test: evaluation.robust_accuracy(plain(), test, eps="8/255"), "eps='8/255'.*number"),
    "FGSM of '8/255'": (lambda test: FGSM(eps="8/255"), "eps='8/255'.*number"),
    "square of None": (lambda test: Square(eps=None), "eps=None.*number"),
    "l2 of '1'": (lambda test: L2(eps="1"), "eps='1'.*number"),
    "examine of '8/255'": (lambda test: examine(plain(), test, eps="8/255", report=str), "eps='8/255'"),
    "n of 0.5": (lambda test: examine(plain(), test, n=20.5, report=str), "n=20.5"),
    "a seed of 77 bits": (lambda test: evaluation.robust_accuracy(plain(), test, eps=EPS, seed=10**23), "seed=1000"),
    "a seed of NumPy": (lambda test: examine(plain(), test, seed=np.float64(1), report=str), "seed must be a int"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_of_another_kind_are_refused_at_the_door(test, call, message):
    with pytest.raises(ValueError, match=message):
        call(test)


def test_another_default_dtype_is_named(test, monkeypatch):
    net = plain()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match=r"default dtype is torch.float64.*set_default_dtype"):
            FOLLOWED["FGSM"](net, test.images, test.labels)
    finally:
        torch.set_default_dtype(torch.float32)


# ---- the command ----


def leave() -> nn.Module:
    sys.exit(0)


def wide() -> nn.Module:
    torch.set_default_dtype(torch.float64)
    return plain()


def odd() -> nn.Module:
    return Leaving(6, SystemExit(0))


@pytest.fixture
def mine(monkeypatch) -> str:
    """A module with builders of models, by name."""
    module = types.ModuleType("my_models")
    module.__dict__.update(leave=leave, wide=wide, odd=odd, plain=plain)
    monkeypatch.setitem(sys.modules, "my_models", module)
    return "my_models"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["leave"], "SystemExit: 0"),
        (["odd"], "SystemExit: 0"),
        (["wide"], "float64"),
        (["nothing"], "AttributeError"),
        (["plain", "--seed", str(10**23)], "seed=1000"),
        (["plain", "--out", "/dev/null/there"], "--out /dev/null/there: no files"),
        (["plain", "--out", "/proc/there"], "--out /proc/there: no files"),
        (["plain", "--eps", "nan"], "eps=nan"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else None,
)
def test_the_command_ends_with_a_sentence_and_exit_1(tmp_path, capsys, mine, asked, message):
    name, *options = asked
    out = [] if "--out" in options else ["--out", str(tmp_path)]
    try:
        assert (
            __main__.main(["examine", f"{mine}:{name}", "--data", "digits", "--n", "20", *options, *out]) == 1
        )
    finally:
        torch.set_default_dtype(torch.float32)
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("*.html"))


def test_a_class_may_be_called_anything(test):
    names = ("$a_$b^{", "<b>", "\\frac{", "%", "_", "^", "{", "}", "$")
    figure = figures.gallery({"clean": test.images[:9]}, notes={"clean": names})
    assert "data:image/png" in figures.html(figure, "a caption")


def test_the_page_is_drawn_where_no_window_can_be_opened(tmp_path, monkeypatch, mine):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "backend", "module://no.such_backend")
    monkeypatch.setattr(
        examine_module, "examine", lambda *given, **settings: pytest.fail(matplotlib.get_backend())
    )
    with pytest.raises(pytest.fail.Exception, match="agg"):
        __main__.main(["examine", f"{mine}:plain", "--data", "digits", "--out", str(tmp_path)])
