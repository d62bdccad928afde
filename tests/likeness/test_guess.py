"""The first guess: networks beside regression, on pictures whose coefficients are known."""

import pytest
import torch

from captures.cameras import orbit_cameras
from likeness.learned.encoder import SIDE, EncoderSettings, encoder_pictures
from likeness.learned.guess import FirstGuess, _best_share, fit_guess
from likeness.learned.regression import small_pixels
from likeness.portrait.portrait import Portrait
from runtime.errors import UserError

PEOPLE = 48
SETTINGS = EncoderSettings(folds=2, epochs=25, batch=16, learning_rate=3e-3, dropout=0.0)


def disc(x: float, y: float) -> Portrait:
    """A disc about (x, y) in sides, of any colour: up and down is even, left and right is odd."""
    shade = torch.rand(3, generator=torch.Generator().manual_seed(int(1e6 * (x + 2 * y + 2))))
    axis = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
    inside = ((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2).sqrt() < 0.15
    alpha = torch.nn.functional.avg_pool2d(inside.float()[None, None], 3, 1, 1)[0, 0]
    color = 1 - alpha[..., None] * shade
    return Portrait(color, alpha, orbit_cameras(1, size=SIDE))


@pytest.fixture(scope="module")
def people():
    """Portraits, and even and odd coefficients [PEOPLE, 1] of them."""
    places = torch.rand(PEOPLE, 2, generator=torch.Generator().manual_seed(2)) * 0.5 - 0.25
    portraits = [disc(x, y) for x, y in places.tolist()]
    return portraits, places[:, 1:] / 0.15, places[:, :1] / 0.15


def learn(people, kept=None, **changes) -> FirstGuess:
    portraits, even, odd = people
    pixels = torch.stack([small_pixels(p) for p in portraits])
    pictures = torch.stack([encoder_pictures(p) for p in portraits])
    settings = EncoderSettings(**{**vars(SETTINGS), **changes})
    return fit_guess(pixels, pictures, (even, odd), torch.ones(2), settings, kept)


@pytest.fixture(scope="module")
def learnt(people) -> FirstGuess:
    return learn(people)


def test_networks_learn_and_the_average_is_told_how_far_off_it_is(learnt):
    assert len(learnt.encoders) == 2 and 0 < learnt.share <= 1
    places = torch.rand(24, 2, generator=torch.Generator().manual_seed(9)) * 0.5 - 0.25
    truth = places.flip(1) / 0.15
    strangers = [disc(x, y) for x, y in places.tolist()]
    together = torch.stack([learnt(p) for p in strangers])
    pictures = torch.stack([encoder_pictures(p) for p in strangers])
    networks = torch.stack([e.coefficients(pictures) for e in learnt.encoders]).mean(dim=0)
    assert (networks - truth).square().mean() < truth.square().mean() / 10
    missed = (together - truth).square().mean().sqrt()
    assert missed < 1.1 * learnt.spread.square().mean().sqrt()


def test_the_share_is_the_one_that_misses_least():
    random = torch.Generator().manual_seed(4)
    one, other = torch.randn(2, 30, 3, generator=random) * torch.tensor([1.0, 1.5]).view(2, 1, 1)
    weights = torch.tensor([3.0, 1.0, 0.5])
    shares = torch.linspace(0, 1, 2001)
    errors = [float((((1 - s) * one + s * other).square() * weights).sum()) for s in shares]
    best = shares[torch.tensor(errors).argmin()]
    assert _best_share(one, other, weights) == pytest.approx(float(best), abs=1e-3)
    assert _best_share(one, 3 * one, weights) == 0


def test_a_mirrored_portrait_has_mirrored_coefficients(learnt):
    portrait = disc(0.1, -0.05)
    mirrored = Portrait(portrait.color.flip(1), portrait.alpha.flip(1), portrait.camera)
    signs = torch.tensor([1.0, -1.0])
    assert torch.allclose(learnt(portrait) * signs, learnt(mirrored), atol=1e-4)


def test_a_guess_is_read_as_it_was_written(learnt, tmp_path):
    learnt.save(tmp_path)
    again = FirstGuess.load(tmp_path, 1, 1, 2)
    assert torch.allclose(again(disc(0.1, 0.1)), learnt(disc(0.1, 0.1)), atol=1e-5)
    with pytest.raises(UserError, match="encoders.safetensors"):
        FirstGuess.load(tmp_path, 1, 1, 3)


def test_a_stopped_training_goes_on_with_the_next_network(people, learnt, tmp_path, monkeypatch):
    from likeness.learned import guess

    trained = []

    def dies_second(*args):
        trained.append(args[-1])
        if len(trained) == 2:
            raise KeyboardInterrupt
        return real(*args)

    real = guess.train_encoder
    monkeypatch.setattr(guess, "train_encoder", dies_second)
    with pytest.raises(KeyboardInterrupt):
        learn(people, tmp_path / "kept")
    resumed = learn(people, tmp_path / "kept")
    assert trained == [0, 1, 1]
    assert not (tmp_path / "kept").exists()
    for one, other in zip(resumed.encoders, learnt.encoders, strict=True):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])


def test_no_networks_is_regression_alone_and_one_fold_is_refused(people):
    none = learn(people, folds=0)
    assert none.encoders == () and torch.equal(none.spread, none.regression.spread)
    with pytest.raises(UserError, match="folds"):
        EncoderSettings(folds=1).check()
