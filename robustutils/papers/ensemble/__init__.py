"""*Ensemble Adversarial Training* (Tramèr et al. 2018, EAT)."""

PROVIDES: dict[str, tuple[str, ...]] = {
    "models": (
        "eat_a",
        "eat_a_input_dropout",
        "eat_b",
        "eat_b_star",
        "eat_c",
        "eat_c_input_dropout",
        "eat_d",
        "eat_d_input_dropout",
    ),
    "recipes": (
        "eat_a",
        "eat_a_adv",
        "eat_b",
        "eat_b_adv",
        "eat_b_star",
        "eat_b_star_adv",
        "eat_c",
        "eat_c_adv",
        "eat_d",
        "eat_d_adv",
        "eat_a_input_dropout",
        "eat_a_input_dropout_adv",
        "eat_c_input_dropout",
        "eat_c_input_dropout_adv",
        "eat_d_input_dropout",
        "eat_d_input_dropout_adv",
        "madry_mnist_fast",
    ),
}
"""Names that :mod:`robustutils.registry` finds here, by the module that knows them."""
