"""Both fitting stages at the smallest scale: schedule, resuming, hold-out, refusals."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captures.multiview import MultiViewSet
from fitting.decoder_config import FitDecoderConfig
from fitting.decoder_fit import DecoderFit
from fitting.fit_decoder import fit_decoder
from fitting.fit_triplanes import fit_triplanes
from fitting.ray_pool import RayPool
from fitting.subject_fit import FitSettings, SubjectFit, new_planes
from fitting.triplane_config import FitTriplanesConfig
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from runtime.errors import UserError
from runtime.files import read_json

EXAMPLE = Path(__file__).parents[2] / "data" / "example"
TINY = FitSettings(rays=128, steps=48, grid=16, smoothness_points=16, free_space_points=64)


def decoder_config(folder: Path, **changes) -> FitDecoderConfig:
    config = FitDecoderConfig(
        root=EXAMPLE,
        output_dir=folder,
        end_idx=2,
        image_size=32,
        plane_size=12,
        channels=6,
        color_channels=4,
        hidden=16,
        rounds=2,
        inner_steps=4,
        fisher_batches=2,
        fit=TINY,
        device="cpu",
        log_every=2,
    )
    return replace(config, **changes)


def triplanes_config(folder: Path, decoder: Path, **changes) -> FitTriplanesConfig:
    config = FitTriplanesConfig(
        root=EXAMPLE,
        decoder=decoder,
        output_dir=folder,
        end_idx=2,
        image_size=32,
        iterations=9,
        fit=TINY,
        device="cpu",
        save_every=4,
        log_every=3,
    )
    return replace(config, **changes)


@pytest.fixture(scope="module")
def fitted_decoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage1") / "run"
    fit_decoder(decoder_config(folder))
    return folder


def same_triplanes(a: Path, b: Path) -> bool:
    left, right = FittedSet.open(a), FittedSet.open(b)
    assert left.names == right.names and left.names
    return all(torch.equal(left.load(name), right.load(name)) for name in left.names)


def test_replay_visits_every_identity_once_a_round(tmp_path):
    data = MultiViewSet(EXAMPLE)
    names = data.split("train")[:5]
    for together in (1, 2):
        config = decoder_config(tmp_path / str(together), rounds=6, subjects_per_step=together)
        fit = DecoderFit(config, data, names)
        visits = [fit.schedule(k) for k in range(fit.visits)]
        for turn in range(6):
            groups = [members for r, members in visits if r == turn]
            assert Counter(name for members in groups for name in members) == Counter(names)
            # The last group has what is left.
            assert [len(members) for members in groups] == {1: [1] * 5, 2: [2, 2, 1]}[together]
        orders = {tuple(sum((m for r, m in visits if r == turn), [])) for turn in range(6)}
        assert len(orders) > 1


@pytest.mark.parametrize("kind", ["identity", "online"])
def test_visits_hold_the_decoder_to_what_was_stored(kind, tmp_path, monkeypatch):
    """Visits as scheduled; what holds the decoder is the identity's own or the last pair."""
    held: list[tuple[str, torch.Tensor | None]] = []
    ends: list[torch.Tensor] = []
    original = SubjectFit.backward

    def backward(self, pair, weight):
        weights = torch.nn.utils.parameters_to_vector(self.decoder.parameters()).detach()
        if self.step_index == 0:
            held.append((self.name, None if pair is None else pair.anchor.clone()))
            ends.append(weights.clone())
        return original(self, pair, weight)

    monkeypatch.setattr(SubjectFit, "backward", backward)
    config = decoder_config(
        tmp_path / "run", rounds=3, consolidation=kind, consolidation_weight=100.0
    )
    data = MultiViewSet(EXAMPLE)
    fit = DecoderFit(config, data, data.split("train")[:2])
    fit.run()
    assert [[name] for name, _ in held] == [fit.schedule(k)[1] for k in range(6)]
    for visit, (name, anchor) in enumerate(held):
        before = [k for k in range(visit) if kind == "online" or held[k][0] == name]
        if not before:
            assert anchor is None
        else:
            # The weights after visit k are those at the start of the next.
            assert anchor is not None and torch.equal(anchor, ends[before[-1] + 1])


def test_moments_go_on_where_the_last_visit_ended(tmp_path, monkeypatch):
    starts, ends = [], []
    visit = DecoderFit._commit

    def commit(self, members, fits, pairs):
        ends.append({f.name: {k: v.clone() for k, v in f.moments().items()} for f in fits})
        visit(self, members, fits, pairs)

    original = SubjectFit.set_moments

    def set_moments(self, moments):
        original(self, moments)
        starts.append((self.name, {k: v.clone() for k, v in self.moments().items()}))

    monkeypatch.setattr(DecoderFit, "_commit", commit)
    monkeypatch.setattr(SubjectFit, "set_moments", set_moments)
    fit_decoder(decoder_config(tmp_path / "run", carry_optimizer=True))
    assert [bool(moments) for _, moments in starts] == [False, False, True, True]
    for name, moments in starts[2:]:
        last = next(end[name] for end in ends[:2] if name in end)
        assert moments["step"] == 4
        for key in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(moments[key], last[key]) and moments[key].abs().max() > 0


@pytest.mark.parametrize("save_every", [2, 500])  # within the visit, or before it
def test_stage1_resumes_to_the_same_result(save_every, fitted_decoder, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    calls = 0
    original = SubjectFit.backward

    def backward(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 11:
            raise Killed
        return original(self, *args, **kwargs)

    config = decoder_config(tmp_path / "run", save_every=save_every)
    with monkeypatch.context() as patch:
        patch.setattr(SubjectFit, "backward", backward)
        with pytest.raises(Killed):
            fit_decoder(config)
    calls = -100
    with monkeypatch.context() as patch:
        patch.setattr(SubjectFit, "backward", backward)
        fit_decoder(config)
    # Of 16 steps the last 6 or the last 8 were left.
    assert calls + 100 == (6 if save_every == 2 else 8)
    assert same_triplanes(fitted_decoder, tmp_path / "run")
    assert (
        FittedSet.open(fitted_decoder).manifest["decoder_hash"]
        == FittedSet.open(tmp_path / "run").manifest["decoder_hash"]
    )
    # Each identity keeps exactly one state file: its last visit's.
    assert len(list((tmp_path / "run" / "state" / "subjects").iterdir())) == 2


# The state that is gone on from is that of step 4: before, at and after the planes grow.
@pytest.mark.parametrize("coarse_steps", [0, 2, 4, 6])
def test_stage2_resumes_to_the_same_result(coarse_steps, fitted_decoder, tmp_path, monkeypatch):
    coarse = {"coarse_size": 6, "coarse_steps": coarse_steps} if coarse_steps else {}
    fit_triplanes(triplanes_config(tmp_path / "whole", fitted_decoder, **coarse))
    config = triplanes_config(tmp_path / "killed", fitted_decoder, **coarse)
    original = SubjectFit.step
    calls = 0

    def step(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 15:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SubjectFit, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fit_triplanes(config)
    assert len(FittedSet.open(tmp_path / "killed").names) == 1
    fit_triplanes(config)
    assert same_triplanes(tmp_path / "whole", tmp_path / "killed")
    quality = read_json(tmp_path / "killed" / "quality.json")
    assert set(quality["subjects"]) == set(FittedSet.open(tmp_path / "whole").names)


def test_stage2_begins_with_smaller_planes(fitted_decoder, tmp_path, monkeypatch):
    sizes, original = [], SubjectFit.step

    def step(self, *arguments):
        assert self.optimizer.param_groups[0]["params"][0] is self.planes
        assert self.optimizer.reference.shape == self.planes.shape
        sizes.append(self.planes.shape[-1])
        return original(self, *arguments)

    monkeypatch.setattr(SubjectFit, "step", step)
    config = triplanes_config(
        tmp_path / "run", fitted_decoder, end_idx=1, iterations=5, coarse_size=6, coarse_steps=3
    )
    fit_triplanes(config)
    assert sizes == [6, 6, 6, 12, 12]
    assert FittedSet.open(tmp_path / "run").shape == (3, 6, 12, 12)


@pytest.mark.parametrize("init", ["mean", "stage1", "random"])
def test_planes_of_stage2_may_have_another_size(init, fitted_decoder, tmp_path):
    config = triplanes_config(
        tmp_path / init, fitted_decoder, end_idx=1, iterations=1, init=init, plane_size=20
    )
    fit_triplanes(replace(config, fit=replace(TINY, learning_rate=0.0)))
    fitted, stage1 = FittedSet.open(tmp_path / init), FittedSet.open(fitted_decoder)
    assert fitted.shape == (3, 6, 20, 20)
    name = fitted.names[0]
    if init != "random":
        start = stage1.mean() if init == "mean" else stage1.load(name)
        expected = resize_planes(start[None], 20)[0]
        torch.testing.assert_close(fitted.load(name), expected, atol=2e-3, rtol=0)


def test_held_out_views_are_never_loaded_for_training(fitted_decoder, tmp_path, monkeypatch):
    data = MultiViewSet(EXAMPLE)
    trained: set[int] = set()
    original = RayPool.__init__

    def spy(self, views, *args, **kwargs):
        trained.update(views.frames)
        original(self, views, *args, **kwargs)

    monkeypatch.setattr(RayPool, "__init__", spy)
    fit_triplanes(triplanes_config(tmp_path / "run", fitted_decoder, end_idx=1, iterations=1))
    fit_decoder(decoder_config(tmp_path / "stage1", end_idx=1, rounds=1, inner_steps=1))
    held_out = set(data.split_views("test", data.names[0]))
    assert held_out and not trained & held_out


def test_the_decoder_learns_in_stage1_and_stays_frozen_in_stage2(tmp_path):
    fitted_decoder = tmp_path / "stage1"
    fit_decoder(decoder_config(fitted_decoder, inner_steps=60, decoder_learning_rate=1e-2))
    data = MultiViewSet(EXAMPLE)
    name = data.names[0]
    views = data.load(name, data.split_views("train", name)[:4], 32)
    decoder = FittedSet.open(fitted_decoder).decoder()
    before = torch.nn.utils.parameters_to_vector(decoder.parameters()).clone()
    planes = new_planes(name, 0, 6, 12, 0.1)
    fit = SubjectFit(name, RayPool(views), planes, decoder, TINY, seed=0, total=60)
    losses = [float(fit.step()) for _ in range(60)]
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])
    after = torch.nn.utils.parameters_to_vector(decoder.parameters())
    assert torch.equal(before, after)
    assert fit.planes.abs().max() <= 1
    assert float((fit.planes - planes).abs().max()) > 0.01


def test_stage1_starts_a_subject_from_those_before(tmp_path, monkeypatch):
    """With init "mean": the first from its noise, the second from the first's result plus noise."""
    fits, starts = [], []

    class Recorded(SubjectFit):
        def __init__(self, name, rays, planes, *arguments, **named):
            super().__init__(name, rays, planes, *arguments, **named)
            fits.append(self)
            starts.append(planes.clone())

    monkeypatch.setattr("fitting.decoder_fit.SubjectFit", Recorded)
    config = decoder_config(tmp_path / "run", init="mean", rounds=2, inner_steps=2)
    fit_decoder(config)
    first, second = fits[:2]
    noise = {f.name: new_planes(f.name, config.seed, 6, 12, TINY.init_std) for f in (first, second)}
    assert torch.equal(starts[0], noise[first.name])
    expected = first.planes.detach() + noise[second.name]
    assert torch.allclose(starts[1], expected.clamp(-1, 1), atol=1e-6)
    again = next(f for f in fits[2:] if f.name == first.name)
    assert torch.equal(starts[fits.index(again)], first.planes.detach())


def test_stage1_refuses_processes_it_cannot_share_with(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="multiple of the number of processes"):
        fit_decoder(decoder_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_refusals(fitted_decoder, tmp_path):
    with pytest.raises(UserError, match="no subjects left"):
        fit_decoder(decoder_config(tmp_path / "a", start_idx=50))
    with pytest.raises(UserError, match="not a triplane folder"):
        fit_triplanes(triplanes_config(tmp_path / "b", tmp_path))
    listed = tmp_path / "names.txt"
    listed.write_text("nobody\n")
    with pytest.raises(UserError, match="nobody"):
        fit_triplanes(triplanes_config(tmp_path / "c", fitted_decoder, txt_file=listed))
    with pytest.raises(UserError, match="plane_size is 1"):
        fit_triplanes(triplanes_config(tmp_path / "c", fitted_decoder, plane_size=1))
    for wrong in ({"coarse_size": 6}, {"coarse_steps": 2}):
        with pytest.raises(UserError, match="belong together"):
            fit_triplanes(triplanes_config(tmp_path / "c", fitted_decoder, **wrong))
    with pytest.raises(UserError, match="leaves none of the 9 iterations"):
        config = triplanes_config(tmp_path / "c", fitted_decoder, coarse_size=6, coarse_steps=9)
        fit_triplanes(config)
    fit_decoder(decoder_config(tmp_path / "other", seed=1, rounds=1, inner_steps=1))
    fit_triplanes(triplanes_config(tmp_path / "d", fitted_decoder, end_idx=1, iterations=1))
    with pytest.raises(UserError, match="decoder"):
        fit_triplanes(triplanes_config(tmp_path / "d", tmp_path / "other", iterations=1))
