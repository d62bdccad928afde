"""The linear model of fitted people."""

import pytest
import torch

from likeness.learned.mirror import mirror, split, unfold
from likeness.learned.prior import LinearPrior, prior_of
from runtime.errors import UserError


@pytest.fixture(scope="module")
def people() -> torch.Tensor:
    """40 triplanes [3, 2, 6, 8] of few dimensions and a little noise."""
    random = torch.Generator().manual_seed(0)
    shape = (3, 2, 6, 8)
    basis = torch.randn(5, *shape, generator=random) * 0.1
    weights = torch.randn(40, 5, generator=random)
    noise = 1e-3 * torch.randn(40, *shape, generator=random)
    return torch.einsum("nk,kpchw->npchw", weights, basis) + 0.2 + noise


def test_folding_is_orthogonal_and_reversible(people):
    even, odd = split(people)
    assert torch.allclose(unfold(even, odd, people.shape[1:]), people, atol=1e-6)
    lengths = even.square().sum(1) + odd.square().sum(1)
    assert torch.allclose(lengths, people.flatten(1).square().sum(1), rtol=1e-5)
    assert split(mirror(people))[1].add(odd).abs().max() < 1e-6


def test_components_are_those_of_people_and_mirror_images(people):
    prior = prior_of(people, 10, "hash")
    both = torch.cat([people, mirror(people)]).flatten(1)
    _, expected, _ = torch.linalg.svd(both - both.mean(0), full_matrices=False)
    expected = expected[:10].square() / len(both)
    found = torch.cat([prior.even.square().sum(1), prior.odd.square().sum(1)])
    scale = torch.linalg.svdvals(both - both.mean(0))[:10].square() / len(both)
    assert torch.allclose(found.sort(descending=True).values, scale, rtol=1e-3)
    assert torch.allclose(prior.mean, both.mean(0).view_as(prior.mean), atol=1e-6)


def test_coefficients_of_a_person_give_the_person_back(people):
    prior = prior_of(people, 10, "hash")
    coefficients = prior.coefficients(people)
    again = torch.stack([prior.planes(z) for z in coefficients])
    assert (again - people).abs().max() < 0.02
    assert coefficients.square().mean() == pytest.approx(1, abs=0.2)
    mirrored = torch.stack([prior.planes(z) for z in prior.mirrored(coefficients)])
    assert torch.allclose(mirrored, mirror(again), atol=1e-5)


def test_noise_is_what_people_left_out_keep(people):
    """Ten even and odd dimensions hold all but the noise of 1e-3 of these people."""
    prior = prior_of(people, 10, "hash")
    assert prior.noise.square().mean().sqrt() == pytest.approx(1e-3, rel=0.15)
    assert torch.equal(prior.noise, mirror(prior.noise))


def test_fewer_components_are_the_largest(people):
    prior = prior_of(people, 10, "hash")
    fewer = prior.first(4)
    assert fewer.components == 4
    kept = torch.cat([fewer.even, fewer.odd[:, :0].new_zeros(0, fewer.even.shape[1])])
    sizes = torch.cat([prior.even.square().sum(1), prior.odd.square().sum(1)]).sort().values
    assert kept.square().sum() + fewer.odd.square().sum() == pytest.approx(
        float(sizes[-4:].sum()), rel=1e-5
    )


def test_file_round_trip(people, tmp_path):
    prior = prior_of(people, 10, "hash")
    prior.save(tmp_path)
    again = LinearPrior.load(tmp_path, "hash")
    z = prior.coefficients(people)[0]
    assert (again.planes(z) - prior.planes(z)).abs().max() < 4e-3
    assert (again.people, again.components) == (40, 10)
    with pytest.raises(UserError, match="another decoder"):
        LinearPrior.load(tmp_path, "other")


def test_damaged_file_is_refused(people, tmp_path):
    prior_of(people, 10, "hash").save(tmp_path)
    path = tmp_path / "prior.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="truncated"):
        LinearPrior.load(tmp_path)
