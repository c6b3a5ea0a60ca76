"""*Ensemble Adversarial Training* (Tramèr et al. 2018, EAT)."""

_MODELS = (
    *("eat_a", "eat_b", "eat_b_star", "eat_c", "eat_d"),
    *("eat_a_input_dropout", "eat_c_input_dropout", "eat_d_input_dropout"),
)
PROVIDES: dict[str, tuple[str, ...]] = {
    "models": _MODELS,
    "recipes": (*_MODELS, *(f"{name}_adv" for name in _MODELS), "madry_mnist_fast"),
}
"""Names that :mod:`robustutils.registry` finds here, by the module that knows them."""
