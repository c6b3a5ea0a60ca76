"""Published outcomes: what is written is read again, in few bytes, and what is damaged or too large is named."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from robustutils import evaluation, storage
from robustutils.artifacts import kept, shelf
from robustutils.book import outcomes_files
from robustutils.book.outcomes_files import Piece, RowOutcomes
from robustutils.outcomes import Measurement, Outcomes

ABOUT = {"parameters": {"profile": "standard", "epsilon": 0.3}, "date": "2026-01-31"}
CERTIFICATE = {"commit": "abc", "torch": "2", "seconds": 3.5}


def row(values: np.ndarray, seeds: tuple[int, ...] = (0,), **changes: object) -> RowOutcomes:
    arrays = {"outcomes": np.atleast_2d(values)}
    whole = RowOutcomes(arrays, np.arange(arrays["outcomes"].shape[1]), seeds, 4.5, len(values))
    return replace(whole, **changes)


def bits(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.5


def back(tmp_path, *some: Piece) -> list[Piece]:
    path = tmp_path / "spots.outcomes.safetensors"
    outcomes_files.write(path, some)
    return outcomes_files.read(path)


# ---- there and back ----


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (1, 8), (1, 9), (3, 5), (3, 1000), (5, 1001)])
def test_truth_values_come_back_and_take_a_bit_each(shape, tmp_path):
    values = bits(*shape)
    (piece,) = back(tmp_path, Piece(ABOUT, {("T1", "FGSM"): row(values)}))
    found = piece.rows["T1", "FGSM"].arrays["outcomes"]
    assert found.dtype == bool
    assert np.array_equal(found, values)
    stored, _ = storage.read(tmp_path / "spots.outcomes.safetensors")
    assert [tensor.nbytes for tensor in stored.values()] == [-(-values.size // 8)]


def test_numbers_come_back_as_close_as_a_comparison_needs(tmp_path):
    losses = np.random.default_rng(0).random((2, 33)) * 10
    counts = np.array([[0, 1, 100, 2047]])
    far = np.array([[1e-3, 70_000.0, np.inf]])
    rows = {("T1", name): row(a) for name, a in (("losses", losses), ("counts", counts), ("far", far))}
    (piece,) = back(tmp_path, Piece(ABOUT, rows))
    found = {name: read.arrays["outcomes"] for (_, name), read in piece.rows.items()}
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-3)
    assert np.array_equal(found["counts"], counts), "whole numbers come back whole"
    np.testing.assert_allclose(found["far"], far, rtol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.array([5, 3, 8])},
        {"images": np.array([1, 0, 2])},
        {"seeds": (4, 7), "arrays": {"outcomes": bits(2, 3), "reference": bits(2, 3, seed=1)}},
        {"value": (1.5, 2.5, float("nan")), "n": 7},
        {"value": -3.25},
        {"arrays": {}, "images": np.arange(0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_places_seeds_values_and_names_come_back(changes, tmp_path):
    before = row(bits(3), **changes)
    (piece,) = back(tmp_path, Piece(ABOUT, {("T1", "FGSM"): before}))
    after = piece.rows["T1", "FGSM"]
    assert after.images.tolist() == before.images.tolist()
    assert (after.seeds, after.n) == (before.seeds, before.n)
    np.testing.assert_equal(after.value, before.value)
    assert type(after.value) is type(before.value)
    assert after.arrays.keys() == before.arrays.keys()
    for name, values in before.arrays.items():
        assert np.array_equal(after.arrays[name], values)


def test_artifacts_come_back_exactly_with_their_certificates(tmp_path):
    small = {
        "verdicts-1": {
            "clean": torch.tensor([True, False, True]),
            "attacked": torch.tensor([[True], [False]]),
        },
        "losses-2": {"value": torch.tensor([1.0000001, 1e9])},
        "counts-3": {"value": torch.tensor([2**40, -1])},
        "points-4": {"value": torch.rand(4, 2, dtype=torch.float64)},
    }
    certificates = {name: CERTIFICATE | {"seconds": i} for i, name in enumerate([*small, "model-5"])}
    (piece,) = back(tmp_path, Piece(ABOUT, {}, small, certificates))
    assert piece.about == ABOUT
    assert piece.parameters == ABOUT["parameters"]
    assert piece.certificates == certificates
    assert piece.small.keys() == small.keys()
    for name, tensors in small.items():
        assert piece.small[name].keys() == tensors.keys()
        for part, tensor in tensors.items():
            assert piece.small[name][part].dtype == tensor.dtype
            assert torch.equal(piece.small[name][part], tensor)


def test_what_is_mentioned_twice_is_stored_once(tmp_path):
    values = bits(1, 4096)
    rows = {("T1", f"row {i}"): row(values) for i in range(50)}
    back(tmp_path, Piece(ABOUT, rows), Piece(ABOUT, rows))
    stored, _ = storage.read(tmp_path / "spots.outcomes.safetensors")
    assert len(stored) == 1


def test_where_there_is_no_file_there_are_no_pieces(tmp_path):
    assert outcomes_files.read(tmp_path / "spots.outcomes.safetensors") == []


# ---- the piece of a run ----


def test_the_piece_of_a_run_has_its_rows_and_what_it_has_used():
    shelf.note("verdicts-1", CERTIFICATE, {"value": torch.ones(3)})
    shelf.note("model-2", CERTIFICATE)
    other = Outcomes(bits(2, 6, seed=1), [3, 4], range(4, 10))
    rate = Outcomes(bits(2, 6), [3, 4], range(4, 10)).measured(other)
    alone = Outcomes(np.arange(5.0), [0]).measured()
    exact = Measurement((1.0, 2.0), None, 2, [])
    many = Outcomes(np.zeros(outcomes_files.MOST_POINTS + 1, bool), [0]).measured()
    measured = {("T1", "rate"): rate, ("T1", "mean"): alone, ("L1", "L1"): exact, ("T2", "pixels"): many}
    piece = outcomes_files.of_run(ABOUT | {"artifacts": ["model-2", "verdicts-1"]}, measured)
    assert piece.about == ABOUT
    assert piece.rows.keys() == measured.keys()
    assert piece.rows["T1", "rate"].arrays["reference"].tolist() == bits(2, 6, seed=1).tolist()
    assert piece.rows["T1", "rate"].images.tolist() == [4, 5, 6, 7, 8, 9]
    assert (piece.rows["T1", "rate"].seeds, piece.rows["T1", "rate"].value) == ((3, 4), rate.value)
    assert piece.rows["T1", "mean"].arrays["values"].tolist() == [[0, 1, 2, 3, 4]]
    assert piece.rows["T1", "mean"].images.tolist() == [0, 1, 2, 3, 4]
    assert (piece.rows["L1", "L1"].arrays, piece.rows["L1", "L1"].value) == ({}, (1.0, 2.0))
    assert piece.rows["T2", "pixels"].arrays == {}, "too many to publish: the numbers alone"
    assert piece.certificates == {"verdicts-1": CERTIFICATE, "model-2": CERTIFICATE}
    assert piece.small.keys() == {"verdicts-1"}


def test_an_exported_run_is_a_file_of_one_piece(tmp_path):
    path = tmp_path / "deep" / "piece.safetensors"
    outcomes_files.export(path, ABOUT, {("T1", "rate"): Outcomes(bits(1, 6), [3]).measured()})
    (piece,) = outcomes_files.read(path)
    assert piece.about == ABOUT
    assert piece.rows.keys() == {("T1", "rate")}


# ---- merging ----


def piece(epsilon: float, *rows: str, **certificates: float) -> Piece:
    about = {"parameters": {"profile": "standard", "epsilon": epsilon}}
    measured = {("T1", name): row(bits(1, 8)) for name in rows}
    notes = {name.replace("_", "-"): CERTIFICATE | {"seconds": s} for name, s in certificates.items()}
    return Piece(about, measured, {}, notes)


def test_a_new_run_replaces_the_pieces_whose_rows_it_has_and_stands_last():
    kept, fewer, same_run = piece(0.1, "a", "z"), piece(0.2, "a"), piece(0.3, "a", "b", "y")
    new = piece(0.3, "a", "b")
    found = outcomes_files.merged([kept, fewer, same_run], new)
    assert found[0] is kept, "it has a row of its own"
    assert [one.parameters for one in found] == [kept.parameters, new.parameters]
    assert found[1].rows == new.rows


def test_certificates_of_networks_come_along_from_what_is_replaced():
    old = piece(0.2, "a", model_1=100, model_2=200, verdicts_3=1)
    (found,) = outcomes_files.merged([old], piece(0.3, "a", model_2=2, verdicts_4=3))
    seconds = {name: certificate["seconds"] for name, certificate in found.certificates.items()}
    assert seconds == {"model-1": 100, "model-2": 2, "verdicts-4": 3}
    kept, _ = outcomes_files.merged([old], piece(0.3, "b"))
    assert kept is old


# ---- complaints ----


def test_a_file_beyond_the_limit_is_not_written_and_the_largest_are_named(tmp_path, monkeypatch):
    path = tmp_path / "spots.outcomes.safetensors"
    outcomes_files.write(path, [Piece(ABOUT)])
    before = path.read_bytes()
    monkeypatch.setattr(outcomes_files, "LIMIT", 1 << 20)
    small = {f"losses-{i}": {"value": torch.rand(i * 2**16)} for i in range(1, 5)}
    with pytest.raises(ValueError, match=r"spots\.outcomes\..*2\.5 MiB.* 1") as error:
        outcomes_files.write(path, [Piece(ABOUT, {}, small, dict.fromkeys(small, CERTIFICATE))])
    assert "largest: losses-4 (1024 KiB), losses-3 (768 KiB), losses-2 (512 KiB)" in str(error.value)
    assert "losses-1" not in str(error.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-3],
        lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:],
        lambda raw: raw.replace(b"standard", b"standerd"),
        lambda raw: b"not outcomes",
    ],
    ids=["empty", "truncated", "a bit flipped", "another profile", "other content"],
)
def test_a_damaged_file_is_named_with_what_restores_it(damage, tmp_path):
    path = tmp_path / "spots.outcomes.safetensors"
    outcomes_files.write(path, [Piece(ABOUT, {("T1", "FGSM"): row(bits(1, 100))})])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"damaged .*{path}.*git"):
        outcomes_files.read(path)


def test_another_artifact_in_its_place_and_a_pickle_are_damage(tmp_path, pickle_trap):
    path, (pickle, sprung) = tmp_path / "spots.outcomes.safetensors", pickle_trap
    storage.write(path, "losses-1", {"value": torch.ones(3)})
    with pytest.raises(ValueError, match="losses-1"):
        outcomes_files.read(path)
    path.write_bytes(pickle)
    with pytest.raises(ValueError, match="damaged"):
        outcomes_files.read(path)
    assert not sprung.exists(), "the file was unpickled"


# ---- at hand ----


def test_the_environment_names_the_file_that_a_run_takes_its_artifacts_from(tmp_path, monkeypatch):
    assert outcomes_files.at_hand() == {}
    path = tmp_path / "spots.outcomes.safetensors"
    monkeypatch.setenv(outcomes_files.VARIABLE, str(path))
    assert outcomes_files.at_hand() == {}, "there is no file yet"
    made = [
        Piece(
            ABOUT, {}, {name: {"value": torch.tensor([number])}}, {name: CERTIFICATE, "model-9": CERTIFICATE}
        )
        for number, name in enumerate(("losses-1", "losses-2"))
    ]
    outcomes_files.write(path, made)
    found = outcomes_files.at_hand()
    assert found.keys() == {"losses-1", "losses-2"}
    tensors, certificate = found["losses-2"]
    assert tensors["value"].tolist() == [1]
    assert certificate == CERTIFICATE
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="git"):
        outcomes_files.at_hand()


def test_what_a_run_has_measured_is_at_hand_for_the_next_without_measuring(
    tiny_data, tiny_net, tmp_path, cache, monkeypatch
):
    expected = kept(evaluation.correct, tiny_net(), tiny_data.images, tiny_data.labels)
    path = tmp_path / "spots.outcomes.safetensors"
    outcomes_files.export(path, ABOUT, {})
    for file in cache.iterdir():
        file.unlink()
    monkeypatch.setenv(outcomes_files.VARIABLE, str(path))
    shelf.clear()
    shelf.outcomes = outcomes_files.at_hand()
    assert torch.equal(kept(evaluation.correct, tiny_net(), tiny_data.images, tiny_data.labels), expected)
    assert list(cache.iterdir()) == []


def test_a_run_that_measured_nothing_new_leaves_the_piece_that_says_when_it_was_measured():
    old = piece(0.3, "a", verdicts_1=2, verdicts_4=3)
    again = replace(piece(0.3, "a", verdicts_1=2), about=ABOUT | {"date": "2026-12-01"})
    assert outcomes_files.merged([old], again) == [old]
    moved = {
        name: replace(row, arrays={"outcomes": ~row.arrays["outcomes"]}) for name, row in again.rows.items()
    }
    assert outcomes_files.merged([old], replace(again, rows=moved)) != [old]
    assert outcomes_files.merged([old], replace(again, small=again.small | {"new": {}})) != [old]
