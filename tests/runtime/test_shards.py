"""Archives of files: any place, room on the disk, damage."""

import tarfile
from pathlib import Path

import pytest

from runtime.errors import UserError
from runtime.formats.shards import Shards, write_shards


def packed(tmp_path: Path, url: str | None = None, most: int = 300) -> dict[str, bytes]:
    contents = {f"n{index}": bytes([index]) * (100 + index) for index in range(7)}
    for name, data in contents.items():
        (tmp_path / f"{name}.x").write_bytes(data)
    files = [(name, tmp_path / f"{name}.x") for name in contents]
    assert write_shards(tmp_path / "set", files, ".x", most, url) == 4
    return contents


def test_files_are_read_back_and_other_tools_read_them_too(tmp_path):
    contents = packed(tmp_path)
    shards = Shards(tmp_path / "set")
    assert {name: shards.read(name) for name in shards.names} == contents
    assert [len(members) for members in shards.members] == [2, 2, 2, 1]
    with tarfile.open(tmp_path / "set" / "000001.tar") as archive:
        assert archive.getnames() == ["n2.x", "n3.x"]
        assert archive.extractfile("n3.x").read() == contents["n3"]
    assert "n3" in shards and "other" not in shards
    with pytest.raises(UserError, match="has no other"):
        shards.read("other")


def test_archives_of_another_place_are_fetched_and_make_room(tmp_path, monkeypatch):
    away = tmp_path / "away"
    contents = packed(tmp_path, url=away.as_uri())
    away.mkdir()
    for archive in (tmp_path / "set").glob("*.tar"):
        archive.rename(away / archive.name)
    one = (away / "000000.tar").stat().st_size
    monkeypatch.setenv("TRIAVATAR_SHARDS_GIB", str(2.5 * one / 2**30))
    shards = Shards(tmp_path / "set")
    for name in contents:
        assert shards.read(name) == contents[name]
    kept = sorted(path.name for path in (tmp_path / "set" / "fetched").glob("*.tar"))
    assert kept == ["000002.tar", "000003.tar"]
    assert shards.read("n0") == contents["n0"]  # fetched again
    (away / "000001.tar").unlink()
    with pytest.raises(UserError, match=r"000001\.tar can't be fetched"):
        shards.read("n2")
    assert not list((tmp_path / "set" / "fetched").glob("000001.tar*[!k]"))  # nothing half-fetched


def test_damaged_archives_are_named(tmp_path):
    packed(tmp_path)
    shards = Shards(tmp_path / "set")
    archive = tmp_path / "set" / "000000.tar"
    archive.write_bytes(archive.read_bytes()[:600])
    with pytest.raises(UserError, match="truncated"):
        shards.read("n0")
    archive.unlink()
    with pytest.raises(UserError, match="missing"):
        shards.read("n0")
    (tmp_path / "set" / "shards.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="format"):
        Shards(tmp_path / "set")
