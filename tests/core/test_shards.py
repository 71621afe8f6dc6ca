"""Tar shards: the same scenes as from a folder, divided over processes and workers, and what is broken in them."""

import logging
import tarfile
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.shards import Shard, ShardScenes
from mmdiff_core.errors import MMDiffError
from tests.core.test_data import write

COUNTS = (5, 3, 4, 4)


@pytest.fixture
def shards(tmp_path):
    """Four tar files of records of one folder; returns their pattern."""
    number = 0
    for shard, count in enumerate(COUNTS):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as file:
            for _ in range(count):
                made = write(tmp_path / "folder", f"record{number:02}")
                for suffix in ("json", "npy", "jpg"):
                    path = made.with_suffix(f".{suffix}")
                    file.add(path, f"deep.er/{path.name}")
                number += 1
            (tmp_path / "readme.txt").write_text("not a record")
            file.add(tmp_path / "readme.txt", "readme.txt")
    return str(tmp_path / "*.tar")


def names(scenes, indices):
    return [scenes[index]["record"].rpartition("/")[2] for index in indices]


def test_every_record_comes_once_in_an_epoch_and_as_the_folder_has_it(shards, tmp_path):
    scenes = ShardScenes(shards, 64, 32, seed=3)
    assert len(scenes) == sum(COUNTS) and scenes.max_subjects == 2
    whole = AnnotatedScenes(tmp_path / "folder", 64, 32, 0)
    folder = {whole[index]["record"]: whole[index] for index in range(len(whole))}
    seen = [scenes[index] for index in range(4 * min(COUNTS))]
    assert len({one["record"] for one in seen}) == len(seen)
    for one in seen:
        other = folder[one["record"].rpartition("/")[2]]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "masks"))
        assert one["caption"] == other["caption"] and one["entities"] == other["entities"]
        assert one["references"].shape == other["references"].shape and "sizes" not in one
    assert set(names(scenes, range(200))) == set(folder)


def test_items_are_a_function_of_seed_batch_and_index(shards):
    """Read in any order, back and forth, and in the loader's processes."""
    scenes = ShardScenes(shards, 32, 32, seed=0, batch=2)
    wanted = [scenes[index] for index in range(24)]
    backwards = [scenes[index] for index in reversed(range(24))][::-1]
    loaded = list(DataLoader(scenes, batch_size=None, sampler=range(24), num_workers=2))
    for found in (backwards, loaded):
        for one, other in zip(wanted, found, strict=True):
            assert one["record"] == other["record"] and torch.equal(one["references"], other["references"])
    assert names(scenes, range(24)) != names(ShardScenes(shards, 32, 32, seed=1, batch=2), range(24))
    with pytest.raises(IndexError):
        scenes[-1]


@pytest.mark.parametrize("readers", [1, 2, 4])
def test_processes_and_workers_read_shards_of_their_own(shards, monkeypatch, readers):
    """Each reader takes every so-manieth batch, as `Steps` and the loader divide them; one epoch here."""
    opened = [set() for _ in range(readers)]
    records = Shard.records
    for reader in range(readers):
        monkeypatch.setattr(Shard, "records", lambda self, to=opened[reader]: (to.add(self.path), records(self))[1])
        scenes = ShardScenes(shards, 32, 32, seed=0, batch=1)
        for batch in range(reader, 4 * min(COUNTS), readers):
            scenes[batch]
    assert [len(one) for one in opened] == [4 // readers] * readers
    assert len(set().union(*opened)) == 4


def test_a_shard_is_read_once_from_beginning_to_end(shards, monkeypatch):
    started = []
    records = Shard.records
    monkeypatch.setattr(Shard, "records", lambda self: (started.append(self.path), records(self))[1])
    scenes = ShardScenes(shards, 32, 32, seed=0)
    for index in range(4 * min(COUNTS)):
        scenes[index]
    assert len(started) == len(set(started)) == 4


def test_a_broken_record_is_named_and_the_next_one_comes_instead(tmp_path, caplog):
    for name in ("a", "b", "c"):
        write(tmp_path, name)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:500])
    (tmp_path / "c.json").write_text("{")
    with tarfile.open(tmp_path / "one.tar", "w") as file:
        for path in sorted(tmp_path.glob("?.*")):
            file.add(path, path.name)
    with caplog.at_level(logging.WARNING):
        assert names(ShardScenes(str(tmp_path / "one.tar"), 32, 32, 0), range(6)) == ["a"] * 6
    said = sorted(caplog.messages)
    assert (
        len(said) == 2
        and "one.tar/b.jpg: the picture can't be read" in said[0]
        and "one.tar/c.json: not JSON" in said[1]
    )


def bad(path: Path) -> Path:
    with tarfile.open(path, "w") as file:
        for suffix in ("npy", "json"):
            file.add(write(path.parent / "x", "a").with_suffix(f".{suffix}"), f"a.{suffix}")
    return path


def test_what_is_no_shard_gets_a_sentence(shards, tmp_path):
    with pytest.raises(MMDiffError, match=r"No record is in .*none\*.*NAME\.jpg"):
        ShardScenes(str(tmp_path / "none*"), 32, 32, 0)
    with pytest.raises(MMDiffError, match="No record is in"):
        ShardScenes(str(bad(tmp_path / "bad.tar")), 32, 32, 0)
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "text.tar").write_text("no tar file at all" * 100)
    with pytest.raises(MMDiffError, match=r"text\.tar is no whole tar file"):
        ShardScenes(str(tmp_path / "text.tar"), 32, 32, 0)
    (tmp_path / "cut.tar").write_bytes(whole[: whole.index(b"\x93NUMPY") + 600])
    with pytest.raises(MMDiffError, match=r"cut\.tar (is cut off within|is no whole tar file)"):
        ShardScenes(str(tmp_path / "cut.tar"), 32, 32, 0)
