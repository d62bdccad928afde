from collections import Counter
from pathlib import Path

import pytest
import torch

from diffusion.conditioning.feature_set import FeatureSet
from diffusion.data.cache import Cache
from diffusion.data.order import MicroBatches, ShuffledOrder, WindowedOrder
from diffusion.data.pairs import DenoisingBatch, DenoisingDataset, PairedSet
from diffusion.data.portraits import StoredPortraits
from diffusion.data.prepared import PreparedRows
from renderer.fitted_set import FittedSet
from renderer.triplane import resize_planes
from renderer.triplane_sets import DownsampleConfig, downsample
from runtime.errors import UserError


def test_every_epoch_is_a_permutation_and_epochs_differ() -> None:
    order = ShuffledOrder(7, 3, "x")
    epochs = [[order[7 * e + i] for i in range(7)] for e in range(3)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    fresh = ShuffledOrder(7, 3, "x")
    assert [fresh[i] for i in (15, 2, 8)] == [epochs[2][1], epochs[0][2], epochs[1][1]]


@pytest.mark.parametrize(("split", "world"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_any_split_covers_the_same_samples(split: int, world: int) -> None:
    ranks = [list(MicroBatches(4, 6, 12, split, rank, world)) for rank in range(world)]
    for step in range(2):
        taken = [
            position
            for rank in ranks
            for batch in rank[step * split : (step + 1) * split]
            for position in batch
        ]
        assert sorted(taken) == list(range((4 + step) * 12, (5 + step) * 12))


def test_shards_are_mixed_a_few_at_a_time() -> None:
    groups = [list(range(first, first + 5)) for first in range(0, 100, 5)]
    order = WindowedOrder(groups, 3, "x")
    epoch = [order[place] for place in range(100)]
    assert sorted(epoch) == list(range(100))
    for first in range(0, 80, 40):  # eight shards at a time
        window = epoch[first : first + 40]
        assert len({item // 5 for item in window}) == 8
        assert len({item // 5 for item in window[:8]}) > 2
    again = WindowedOrder(groups, 3, "x")
    assert [again[place] for place in (110, 3)] == [order[110], epoch[3]]
    assert [order[100 + place] for place in range(100)] != epoch


def test_prepared_rows_are_made_once_and_again_when_their_source_changes(tmp_path: Path) -> None:
    made: list[str] = []

    def source(name: str) -> Path:
        return tmp_path / f"{name}.txt"

    def make(name: str) -> torch.Tensor:
        made.append(name)
        return torch.full((2, 3), float(source(name).read_text()))

    def opened(names: list[str]) -> PreparedRows:
        return PreparedRows(tmp_path / "x.rows", names, (2, 3), torch.float16, make, source)

    for number, name in enumerate("abc"):
        source(name).write_text(str(number))
    rows = opened(["a", "c"])
    assert float(rows["c"].mean()) == 2 and float(rows["c"].mean()) == 2
    assert float(opened(["a", "c"])["c"].mean()) == 2  # another process
    assert made == ["c"]
    grown = opened(["a", "b", "c"])  # b stands where c was
    assert [float(grown[name].mean()) for name in "abc"] == [0, 1, 2]
    source("b").write_text("7.5")
    assert float(grown["b"].mean()) == 7.5
    data = bytearray((tmp_path / "x.rows").read_bytes())
    data[20] ^= 1  # a's first value
    (tmp_path / "x.rows").write_bytes(data)
    assert float(grown["a"].mean()) == 0
    (tmp_path / "folder").mkdir()
    unwritable = PreparedRows(tmp_path / "folder", ["a"], (2, 3), torch.float16, make, source)
    assert float(unwritable["a"].mean()) == 0 and not unwritable.writable


def test_cache_forgets_the_oldest() -> None:
    loads: list[str] = []
    cache = Cache(lambda key: loads.append(key) or key, len, limit=4)
    for key in ("aa", "bb", "aa", "cc", "aa", "bb"):
        assert cache[key] == key
    assert loads == ["aa", "bb", "cc", "bb"]


def test_problems_depend_on_the_position_alone(
    tiny_fitted: FittedSet, tiny_features: FeatureSet
) -> None:
    names = ["s0", "s1", "s2", "s3"]
    pairs = PairedSet(tiny_fitted, StoredPortraits(tiny_features, 1.0), names, (8,))
    first = DenoisingDataset(pairs, 100, 0.2, 5, "base")
    second = DenoisingDataset(pairs, 100, 0.2, 5, "base")
    a, b = first[37], second[37]
    assert a.names == b.names and torch.equal(a.noise, b.noise)
    assert torch.equal(a.timesteps, b.timesteps) and torch.equal(a.drop, b.drop)
    assert not torch.equal(a.noise, first[38].noise)
    assert torch.equal(a.planes, resize_planes(tiny_fitted.load(a.names[0])[None], 8).half())
    assert torch.equal(a.portrait.latent.float(), tiny_features.load(a.names[0]).latent)
    many = [first[i] for i in range(2000)]
    assert set(Counter(item.names[0] for item in many).values()) == {500}
    dropped = sum(float(item.drop) for item in many) / len(many)
    assert abs(dropped - 0.2) < 0.03
    steps = torch.cat([item.timesteps for item in many])
    assert int(steps.min()) == 0 and int(steps.max()) == 99
    assert abs(float(torch.cat([item.noise for item in many[:200]]).std()) - 1) < 0.01
    joined = DenoisingBatch.join(many[:3])
    assert joined.noise.shape == (3, 8, 8, 24) and len(joined.portrait) == 3


@pytest.mark.parametrize("normalization", ["none", "channel", "mean"])
def test_a_downsampled_set_gives_the_same_problems(
    tiny_fitted: FittedSet, tiny_features: FeatureSet, tmp_path: Path, normalization: str
) -> None:
    """Resized while training or before: the same numbers, to the bit."""
    downsample(DownsampleConfig(tiny_fitted.folder, tmp_path / "small", size=8))
    sets = (tiny_fitted, FittedSet.open(tmp_path / "small"))
    names = ["s0", "s2"]
    pairs = [
        PairedSet(
            fitted, StoredPortraits(tiny_features, 1.0), names, (8,), normalization=normalization
        )
        for fitted in sets
    ]
    a, b = (DenoisingDataset(pair, 100, 0.2, 5, "base") for pair in pairs)
    for position in range(4):
        assert torch.equal(a[position].planes, b[position].planes)
    assert torch.equal(pairs[0].true_planes("s2"), pairs[1].true_planes("s2"))


def test_data_that_does_not_match_is_refused(
    tiny_fitted: FittedSet, tiny_features: FeatureSet, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="plane size 32 can't be made"):
        PairedSet(tiny_fitted, StoredPortraits(tiny_features, 1.0), ["s0"], (32,))
    with pytest.raises(UserError, match="lacks triplanes of 1 training subjects .nobody."):
        PairedSet(tiny_fitted, StoredPortraits(tiny_features, 1.0), ["s0", "nobody"], (8,))
    empty = FeatureSet.create(
        tmp_path, {k: v for k, v in tiny_features.manifest.items() if k != "format"}
    )
    with pytest.raises(UserError, match="no portraits of 1 training subjects .s0."):
        PairedSet(tiny_fitted, StoredPortraits(empty, 1.0), ["s0"], (8,))
