"""Descriptions that are wrong in every way JSON and YAML can be: one sentence names the place."""

import os

import pytest

from runtime.described import Count, Described, Matrix, Name, Number, read_described
from runtime.errors import UserError
from runtime.files import inside, read_json
from runtime.formats.settings_files import parse_yaml

EYE = "[[1,0,0,0],[0,1,0,0],[0,0,1,0],[0,0,0,1]]"


class Thing(Described):
    number: Number
    count: Count = 0
    name: Name = "x"
    matrix: Matrix | None = None
    pair: tuple[int, int] | tuple[None, None] = (None, None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"number": "a"}', "number is 'a' but must be a valid number"),
        ('{"number": true}', "number is True"),
        ('{"number": NaN}', "number is nan"),
        ('{"number": Infinity}', "number is inf"),
        ('{"number": 1%s}' % ("0" * 400), "number is 1000"),
        ('{"number": 1e300}', "number is 1e"),
        ('{"number": 1%s}' % ("0" * 5000), "not valid JSON"),
        ('{"number": 1, "count": 1.5}', "count is 1.5"),
        ('{"number": 1, "count": -1}', "count is -1"),
        ('{"number": 1, "name": ""}', "name is ''"),
        ('{"number": 1, "matrix": [1, 2]}', "matrix"),
        ('{{"number": 1, "matrix": {}}}'.format(EYE.replace("1", "{}")), "matrix"),
        ('{"number": 1, "matrix": [[1, 2, 3, 4]]}', "matrix is [[1, 2, 3, 4]] but must have 4 ent"),
        ('{"number": 1, "pair": ["x", 2]}', "pair[0] is 'x' but must be a valid integer"),
        ('{"number": 1, "other": {"a": [1, NaN]}}', "must be finite everywhere, also in other"),
        ("{}", "number is missing"),
        ("[]", "its content is"),
        ("", "not valid JSON"),
        ("\0", "not valid JSON"),
        ("[" * 10**5, "not valid JSON"),
        ('{"number":' * 10**5, "not valid JSON"),
    ],
)
def test_one_sentence_names_file_key_and_both_values(tmp_path, text, words):
    file = tmp_path / "thing.json"
    file.write_text(text)
    with pytest.raises(UserError) as refused:
        read_described(Thing, file)
    sentence = str(refused.value)
    assert "thing.json" in sentence and words in sentence
    assert len(sentence) < 400 + len(str(file)) and "\n" not in sentence


@pytest.mark.parametrize("text", ["NaN", "[" * 10**5, "1" * 5000, "{", "\udcff"])
def test_plain_json_is_refused_too(tmp_path, text):
    file = tmp_path / "any.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match="any.json"):
        read_json(file)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"number": 1}')
    assert read_described(Thing, tmp_path / "a.json").number == 1
    (tmp_path / "b.json").write_bytes('{"number": 1}'.encode("utf-16"))
    with pytest.raises(UserError, match="not UTF-8"):
        read_described(Thing, tmp_path / "b.json")


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "pipe", tmp_path / "circle", tmp_path, tmp_path / "gone", "/dev/zero"):
        with pytest.raises(UserError):
            read_json(path)
    with pytest.raises(UserError, match="at most 10 are expected"):
        (tmp_path / "long.json").write_text("[" + " " * 20 + "]")
        read_json(tmp_path / "long.json", most=10)


def test_names_that_lead_out(tmp_path):
    (tmp_path / "out.png").write_text("")
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    for name in ("../out.png", "/etc/passwd", "link.png", "a\0b"):
        with pytest.raises(UserError, match="leads out of"):
            inside(folder, name)
    assert inside(folder, "./a/../b.png") == folder / "a/../b.png"


def test_yaml_that_means_more_than_settings():
    assert parse_yaml("day: 2024-13-45", "f") == {"day": "2024-13-45"}
    bomb = "a: &a [1, 1]\n" + "\n".join(f"b{i}: [*a, *a]" for i in range(3))
    for text in (bomb, "a: !!python/object/apply:os.system [ls]", "- 1", "1: 2", "a: [" * 9999):
        with pytest.raises(UserError, match="^settings.yaml "):
            parse_yaml(text, "settings.yaml")
