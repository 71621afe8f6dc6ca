"""Files that are not what their name says, files that survive a failed write, names that stay in their folder."""

import os
import pickle
import re
from pathlib import Path, PurePosixPath

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mmdiff_core import MMDiffError
from mmdiff_core.files import path_within, read_pickle, read_safetensors, refuse_impostors, write_safetensors

ONE = {"one": torch.arange(4.0)}


def saved(path: Path) -> bytes:
    save_file(ONE, path)
    return path.read_bytes()


def pickled(path: Path, zipped: bool = True) -> bytes:
    torch.save(ONE, path, _use_new_zipfile_serialization=zipped)
    return path.read_bytes()


@pytest.mark.parametrize("read", [read_safetensors, read_pickle, refuse_impostors])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no file {}. Put it there, or choose another one."),
        (b"", "{} is empty. Its download failed; download it again."),
        (b" \n", "{} is empty"),
        (b"<!DOCTYPE html><title>Sign in", "{} is a web page, not weights. Download the file itself"),
        (b"\r\n  <html lang='en'>", "{} is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "{} is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "{} is a Git LFS pointer, not weights. Run `git"),
    ],
)
def test_impostors(tmp_path, read, content, said):
    path = tmp_path / "weights"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MMDiffError) as caught:
        read(path)
    assert said.format(path) in str(caught.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(MMDiffError, match="There is no file"):
        read_safetensors(tmp_path)


def test_safetensors_round_trip(tmp_path):
    path = tmp_path / "sub" / "folder" / "a.safetensors"
    tensors = {"half": torch.randn(3, 2).half(), "turned": torch.randn(4, 5).T, "one": torch.tensor(2.0)}
    write_safetensors(path, tensors, {"key": "value"})
    found, metadata = read_safetensors(path)
    assert metadata == {"key": "value"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) and found[key].dtype == tensors[key].dtype for key in tensors)


def test_a_file_without_metadata_has_none(tmp_path):
    saved(tmp_path / "a")
    assert read_safetensors(tmp_path / "a")[1] == {}


def test_no_part_of_a_safetensors_file_is_taken_for_the_whole(tmp_path):
    path = tmp_path / "a.safetensors"
    whole = saved(path)
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(MMDiffError, match=re.escape(f"{path} is not a whole safetensors file")):
            read_safetensors(path)


@pytest.mark.parametrize("make", [pickled, lambda path: path.write_bytes(b"Entry not found")])
def test_another_file_renamed_to_safetensors(tmp_path, make):
    path = tmp_path / "a.safetensors"
    make(path)
    with pytest.raises(MMDiffError, match="another kind of file was renamed to .safetensors; download or convert it"):
        read_safetensors(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_tensors_is_read(tmp_path, zipped):
    pickled(tmp_path / "a.bin", zipped)
    assert torch.equal(read_pickle(tmp_path / "a.bin")["one"], ONE["one"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_no_part_of_a_pickle_is_taken_for_the_whole(tmp_path, zipped):
    path = tmp_path / "a.bin"
    whole = pickled(path, zipped)
    for size in {*range(1, len(whole), 7), *range(1, 20), len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(MMDiffError, match=rf"{re.escape(str(path))} is not a .*download"):
            read_pickle(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"Entry not found", b"hello", b"\x89PNG\r\n\x1a\n" + bytes(99), bytes(500)])
def test_another_file_renamed_to_bin(tmp_path, content):
    path = tmp_path / "a.bin"
    path.write_bytes(content)
    with pytest.raises(MMDiffError, match=rf"{re.escape(str(path))} is not a .*another kind of file"):
        read_pickle(path)


def test_safetensors_renamed_to_bin(tmp_path):
    saved(tmp_path / "a.bin")
    with pytest.raises(MMDiffError, match="another kind of file"):
        read_pickle(tmp_path / "a.bin")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_code_in_a_pickle_is_not_run(tmp_path, save):
    made = tmp_path / "made"
    save({**ONE, "two": Touch(made)}, tmp_path / "a.bin")
    with pytest.raises(MMDiffError, match=r"a\.bin is not a PyTorch file of tensors alone, so nothing in it was run"):
        read_pickle(tmp_path / "a.bin")
    assert not made.exists()
    torch.load(tmp_path / "a.bin", weights_only=False) if save is torch.save else pickle.loads(  # noqa: S301
        (tmp_path / "a.bin").read_bytes()
    )
    assert made.exists(), "the trap works"


def test_a_pickle_of_something_else(tmp_path):
    torch.save([1, 2], tmp_path / "a.bin")
    with pytest.raises(MMDiffError, match=r"a\.bin holds a list; wanted is a dictionary of tensors"):
        read_pickle(tmp_path / "a.bin")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("bad")])
def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.safetensors"
    old = saved(path)

    def half(tensors, name, metadata):
        Path(name).write_bytes(old[: len(old) // 2])
        raise failure

    monkeypatch.setattr("mmdiff_core.files.save_file", half)
    with pytest.raises(MMDiffError if isinstance(failure, OSError) else type(failure)):
        write_safetensors(path, {"two": torch.zeros(9)}, {})
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_a_file_is_replaced_and_not_written_over(tmp_path):
    """Who has the old file open, as a host that mapped it into memory, keeps the old one."""
    path, kept = tmp_path / "a.safetensors", tmp_path / "kept"
    old = saved(path)
    os.link(path, kept)
    write_safetensors(path, {"two": torch.zeros(9)}, {})
    assert kept.read_bytes() == old != path.read_bytes()


def test_a_full_disk(tmp_path):
    """A limit on the size of files stands for the disk; the system refuses the write half way."""
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.safetensors"
    old = saved(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(MMDiffError) as caught:
            write_safetensors(path, {"large": torch.zeros(9999)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"{path} could not be written" in str(caught.value) and "Make room on the disk" in str(caught.value)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == [path.name]


def test_a_folder_that_can_not_be_made(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MMDiffError, match=r"taken.a\.safetensors could not be written"):
        write_safetensors(tmp_path / "taken" / "a.safetensors", ONE, {})
    assert (tmp_path / "taken").read_text() == "a file"


def test_a_name_as_long_as_the_system_allows(tmp_path):
    ending = ".safetensors"
    write_safetensors(tmp_path / ("n" * (255 - len(ending)) + ending), ONE, {})
    with pytest.raises(MMDiffError, match="could not be written .* take a shorter name"):
        write_safetensors(tmp_path / ("n" * 300 + ending), ONE, {})
    assert len(os.listdir(tmp_path)) == 1


def test_a_written_file_is_as_readable_as_any_other(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", ONE, {})
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["Ada", "Ada Lee", "family/Ada", "Zoë-2_b", "v1.5", ".hidden", "a..b", "x" * 200])
def test_names_of_files(name, tmp_path):
    path = path_within(tmp_path, name, "the name")
    assert path == tmp_path / f"{name}.safetensors"
    write_safetensors(path, ONE, {})
    assert path.is_file()


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "../Ada", "a/../../Ada", "a/../b", "./a", "/Ada", "/", "a/", "a//b", "a/.", "a/ ", "..\\Ada"]
    + ["a\\b", "C:Ada", "C:/Ada", "a\0b", "a\nb", "a*", "a?", "<a>", '"a"', "a|b"],
)
def test_names_that_leave_the_folder_or_are_none(name, tmp_path):
    with pytest.raises(MMDiffError) as caught:
        path_within(tmp_path / "subjects", name, "Save Subject: the name")
    assert str(caught.value).startswith(f"Save Subject: the name {name!r} can't be a file name below {tmp_path}")


@given(st.text("ab./\\: \0~$%é-", max_size=12) | st.text(max_size=30))
@example("a/../../b")
@example("~/b")
def test_any_name_is_refused_or_stays_in_the_folder(name):
    folder = Path("models", "subjects").absolute()
    try:
        path = path_within(folder, name, "the name")
    except MMDiffError as error:
        assert repr(name) in str(error)
        return
    inside = Path(os.path.normpath(path)).relative_to(folder)
    assert path.suffix == ".safetensors" and inside.as_posix() == f"{name}.safetensors"
    assert PurePosixPath(inside).with_suffix("").name.strip(". "), "a list of subjects can show it"
