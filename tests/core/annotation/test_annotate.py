"""A folder of pictures becomes records: what is good, what is left out and why, what a person did, who shares it."""

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import truth
from filelock import FileLock
from PIL import Image
from truth import COLOURS, draw

from mmdiff_core.annotation.annotate import annotate
from mmdiff_core.annotation.records import Rules
from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.validate import validate
from mmdiff_core.errors import MMDiffError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def records(tmp_path):
    return tmp_path / "out" / "records"


def annotation(records: Path, name: str) -> dict:
    return json.loads((records / f"{name}.json").read_text())


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# From pictures to records


def test_pictures_become_records_that_can_be_trained_on(pictures, made, records):
    draw(pictures / "one.png", "red")
    draw(pictures / "sub" / "two.jpg", "blue", "green", seed=1)
    written = made()
    assert written.names == ["one", "sub/two"] and not written.left_out
    assert validate(records) == (2, [])
    two = annotation(records, "sub/two")
    phrases = [two["caption"][one["start"] : one["end"]] for one in two["segments"]]
    assert phrases == ["a blue box", "a green box"]
    numbers = np.load(records / "sub" / "two.npy")
    picture = Image.open(pictures / "sub" / "two.jpg")
    for segment, colour in zip(two["segments"], ("blue", "green"), strict=True):
        assert np.array_equal(numbers == segment["id"], truth.seen(picture, colour))
    assert (records / "sub" / "two.jpg").read_bytes() == (pictures / "sub" / "two.jpg").read_bytes()
    item = AnnotatedScenes(records, 64, 28, seed=0)[0]
    assert item["image"].shape == (3, 64, 64)


def test_captions_come_from_where_they_are(pictures, made, records):
    for number, name in enumerate(("text", "json", "listed", "none")):
        draw(pictures / f"{name}.png", "red", seed=number)
    (pictures / "text.txt").write_text("a  red one,\nby hand\n")
    (pictures / "json.json").write_text('{"prompt": "see a red thing", "width": 3}')
    (pictures / "all.csv").write_text("file_name,text\nlisted.png,look at a red toy\n")
    made()
    captions = {name: annotation(records, name)["caption"] for name in ("text", "json", "listed", "none")}
    assert captions == {
        "text": "a red one, by hand",
        "json": "see a red thing",
        "listed": "look at a red toy",
        "none": "a red box in the dust",
    }
    assert [caption for stage, caption in truth.CALLS if stage == "caption"] == [""], "only where there was none"


def test_shards_are_unpacked_once(pictures, made, records):
    with tarfile.open(pictures / "shard-0.tar", "w") as tar:
        for name, content in (("a.png", draw(pictures / "x" / "a.png", "red").read_bytes()), ("a.txt", b"a red dog")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (pictures / "x" / "a.png").unlink()
    (pictures / "broken.tar").write_bytes(b"no tar")
    assert made().names == ["shard-0/a"] and annotation(records, "shard-0/a")["caption"] == "a red dog"
    assert any("broken.tar: not a whole tar file" in line for line in made.told)
    made()
    assert not truth.CALLS


def test_a_shard_can_t_write_outside(pictures, made, tmp_path):
    draw(pictures / "good.png", "red")
    with tarfile.open(pictures / "evil.tar", "w") as tar:
        member = tarfile.TarInfo("../../../evil.png")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    assert made().names == ["good"]
    assert not list(tmp_path.parent.rglob("evil.png")) and any("evil.tar" in line for line in made.told)


def test_what_is_wrong_with_captions_is_said(pictures, made):
    draw(pictures / "a.png", "red")
    draw(pictures / "a.jpg", "red")
    (pictures / "a.json").write_text("{")
    (pictures / "a.csv").write_text("x,y\n1,2\n")
    (pictures / "b.csv").write_bytes(b"\xff\xfe\x00")
    assert made().names == ["a"]
    told = "\n".join(made.told)
    assert all(one in told for one in ("a.png: a.jpg has the same name", "a.json: no caption", "a.csv: its columns"))
    assert "b.csv: not a CSV" in told


# Bad pictures


def test_pictures_of_every_kind(pictures, made, records):
    """What can be read becomes a record of its upright self; what can't is named."""
    draw(pictures / "plain.png", "red")
    Image.open(draw(pictures / "x.png", "red", seed=9)).convert("CMYK").save(pictures / "cmyk.jpg")
    exif = Image.Exif()
    exif[274] = 6
    draw(pictures / "x.png", "red", seed=7)
    Image.open(pictures / "x.png").save(pictures / "turned.jpg", exif=exif, quality=95)
    (pictures / "x.png").unlink()
    grey = np.zeros((64, 96), np.uint16)
    grey[8:50, 8:50] = 65535
    Image.fromarray(grey).save(pictures / "deep.png")
    (pictures / "deep.txt").write_text("a white box")
    frames = [Image.open(draw(pictures / "f.png", "blue", seed=seed)).convert("RGB") for seed in (2, 3)]
    (pictures / "f.png").unlink()
    frames[0].save(pictures / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    (pictures / "cut.png").write_bytes((pictures / "plain.png").read_bytes()[:200])
    (pictures / "empty.jpg").touch()
    written = made()
    assert written.names == ["cmyk", "deep", "moving", "plain", "turned"] and set(written.left_out) == {"cut", "empty"}
    assert all("can't be read" in written.left_out[name] for name in ("cut", "empty"))
    assert validate(records)[1] == []
    assert np.load(records / "turned.npy").shape == (96, 64)
    assert Image.open(records / "moving.png").size == frames[0].size


def test_an_enormous_picture_is_made_smaller_or_named(pictures, made, records, monkeypatch):
    monkeypatch.setattr("mmdiff_core.annotation.records.LARGEST", 128)
    draw(pictures / "large.png", "red", size=(480, 320))
    draw(pictures / "small.png", "red", seed=4)
    assert made().names == ["large", "small"]
    assert Image.open(records / "large.png").size == (192, 128)
    assert np.load(records / "large.npy").shape == (128, 192)
    assert validate(records) == (2, [])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 480 * 320 // 4)
    draw(pictures / "large.png", "red", size=(480, 320), seed=5)
    written = made()
    assert written.names == ["small"] and "decompression bomb" in written.left_out["large"]
    assert not (records / "large.json").exists(), "its record is gone with it"


# What is left out


def test_every_reason_is_counted(pictures, made):
    draw(pictures / "good.png", "red")
    draw(pictures / "tiny.png", "red", size=(40, 24), seed=1)
    draw(pictures / "none.png", seed=2)
    draw(pictures / "many.png", "red", "blue", "green", "white", seed=3)
    draw(pictures / "wrong.png", "red", seed=4)
    (pictures / "wrong.txt").write_text("a blue box")
    (draw(pictures / "wordless.png", "red", seed=5)).with_suffix(".txt").write_text("dust")
    copy = Image.open(pictures / "good.png")
    copy.resize((72, 48)).save(pictures / "copy.jpg", quality=60)
    written = made(most=3)
    assert written.names == ["good"]
    assert written.left_out == {
        "tiny": "too small (shorter side below 32 pixels)",
        "none": "no caption",
        "many": "more than 3 subjects",
        "wrong": "no subject is left",
        "wordless": "no noun in the caption",
        "copy": "nearly the same as good",
    }
    assert written.subjects == {"not found": 1}


def test_other_rules_need_no_look(pictures, made, records):
    draw(pictures / "one.png", "red")
    draw(pictures / "two.png", "blue", "green", seed=1)
    assert made().names == ["one", "two"]
    assert made(most=1).names == ["one"] and not truth.CALLS and not (records / "two.npy").exists()
    assert made().names == ["one", "two"] and not truth.CALLS


# Who is the same


def test_people_are_known_again_by_their_faces(pictures, made, records):
    draw(pictures / "a.png", "red", "blue", seed=1)
    draw(pictures / "b.png", "red", seed=2)
    draw(pictures / "c.png", "green", seed=3)
    written = made("caption", "words", "boxes", "masks", "faces")
    who = {(name, one["id"]): one["same"] for name in "abc" for one in annotation(records, name)["segments"]}
    assert who["a", 1] == who["b", 1] and len(set(who.values())) == 3 and written.people == 1
    dataset = AnnotatedScenes(records, 64, 28, seed=0, faces="dlib")
    shown = {dataset[index]["record"]: dataset[index] for index in range(3)}
    assert set(shown) == set("abc") and shown["a"]["faces"].shape == (2, 128)
    vector = AnnotatedScenes(records, 64, 28, seed=1, faces="dlib")
    assert len(vector.records) == 3


def test_a_folder_can_say_who_it_is(pictures, made, records):
    draw(pictures / "rex" / "a.png", "red", seed=1)
    draw(pictures / "rex" / "b.png", "red", seed=2)
    draw(pictures / "rex" / "pair.png", "red", "blue", seed=3)
    made(same="folder")
    assert [one["same"] for name in ("rex/a", "rex/b") for one in annotation(records, name)["segments"]] == ["rex"] * 2
    assert not any("same" in one for one in annotation(records, "rex/pair")["segments"])


# Going on, and what a person did


def test_nothing_is_found_twice(pictures, made, records):
    draw(pictures / "one.png", "red")
    made()
    before = files(records)
    times = {path: path.stat().st_mtime_ns for path in records.rglob("*")}
    made()
    assert not truth.CALLS and files(records) == before
    assert {path: path.stat().st_mtime_ns for path in records.rglob("*")} == times
    draw(pictures / "two.png", "blue", seed=1)
    made()
    assert len(truth.CALLS) == 4
    changed = Image.open(pictures / "one.png")
    changed.putpixel((95, 63), (0, 0, 0))
    changed.save(pictures / "one.png")
    made()
    assert Image.open(records / "one.png").getpixel((95, 63)) == (0, 0, 0), "the same annotation of another picture"
    draw(pictures / "one.png", "green", seed=2)
    made()
    assert len(truth.CALLS) == 4 and "green" in annotation(records, "one")["caption"]


def test_another_stage_is_made_again_with_those_behind_it(pictures, made, records, monkeypatch):
    draw(pictures / "one.png", "red")
    made()
    truth.Other = truth.Boxes
    plan = [one._replace(given="truth:Other") if one.name == "boxes" else one for one in truth.plan()]
    annotate(pictures, records.parent, plan, Rules(smallest=32), lambda line: None)
    assert [stage for stage, _ in truth.CALLS] == ["caption", "words", "boxes", "masks", "boxes", "masks"]


def test_a_corrected_record_stays(pictures, made, records):
    for number, name in enumerate(("caption", "map", "own", "same")):
        draw(pictures / f"{name}.png", "red", seed=number)
    made()
    changed = annotation(records, "caption") | {"caption": "a red box that I know"}
    (records / "caption.json").write_text(json.dumps(changed))
    numbers = np.load(records / "map.npy")
    numbers[0, 0] = 1
    np.save(records / "map.npy", numbers)
    (records / "own.json").write_text("{ not finished")
    before = {name: content for name, content in files(records).items() if not name.startswith("same")}
    for number, name in enumerate(("caption", "map", "own", "same")):
        draw(pictures / f"{name}.png", "blue", seed=10 + number)
    written = made()
    assert written.corrected == ["caption", "map", "own"]
    assert {name: files(records)[name] for name in before} == before
    assert "blue" in annotation(records, "same")["caption"]
    made(smallest=999)
    assert {name: files(records)[name] for name in before} == before and not (records / "same.json").exists()


def test_a_stage_that_fails_leaves_what_was_done(pictures, made, records, monkeypatch):
    for number in range(4):
        draw(pictures / f"{number}.png", "red", seed=number)
    calls = []
    real = truth.Masks.__call__

    def failing(self, picture, found):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return real(self, picture, found)

    monkeypatch.setattr(truth.Masks, "__call__", failing)
    with pytest.raises(RuntimeError):
        made()
    assert not records.exists()
    made()
    assert len(calls) == 5, "two were done, the third is done again"
    assert validate(records) == (4, [])


def test_a_full_disk_leaves_nothing_half_written(pictures, made, records, monkeypatch):
    draw(pictures / "a.png", "red")
    draw(pictures / "b.png", "blue", seed=1)
    replace, kept = os.replace, []

    def full(part, path):
        if Path(path).suffix == ".json":
            kept.append(path)
            raise OSError(28, "No space left on device")
        replace(part, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MMDiffError, match=r"a\.json could not be written .*No space left"):
        made()
    assert not list(records.rglob("*.json")) and not list(records.rglob("*.part"))
    monkeypatch.undo()
    assert made().names == ["a", "b"] and validate(records) == (2, [])


# Several at one folder


def test_processes_share_the_work(pictures, tmp_path, records):
    for number in range(12):
        draw(pictures / f"{number:02}.png", "red", seed=number)
    script = (
        "import sys, time; sys.path[:0] = [sys.argv[1], sys.argv[2]]; import truth; from pathlib import Path\n"
        "from mmdiff_core.annotation.annotate import annotate; from mmdiff_core.annotation.records import Rules\n"
        "real = truth.Boxes.__call__\n"
        "truth.Boxes.__call__ = lambda *given: (time.sleep(0.05), real(*given))[1]\n"
        "out = annotate(Path(sys.argv[3]), Path(sys.argv[4]), truth.plan(), Rules(smallest=32), lambda line: None)\n"
        "print(sum(stage == 'boxes' for stage, _ in truth.CALLS), out and len(out.names))\n"
    )
    command = [sys.executable, "-c", script, ROOT, Path(__file__).parent, pictures, tmp_path / "out"]
    both = [subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [one.communicate()[0].split() for one in both]
    assert sum(int(count) for count, _ in said) == 12, "none is done twice"
    assert "12" in [names for _, names in said] and validate(records) == (12, [])


def test_a_picture_that_another_process_has_is_left_to_it(pictures, made, tmp_path, records):
    import hashlib

    draw(pictures / "a.png", "red")
    draw(pictures / "b.png", "blue", seed=1)
    claim = tmp_path / "out" / "claims" / hashlib.sha256(b"a").hexdigest()[:32]
    claim.parent.mkdir(parents=True)
    with FileLock(claim):
        assert made() is None and not records.exists()
        assert [caption for stage, caption in truth.CALLS if stage == "masks"] == ["a blue box in the dust"]
        assert "Other processes are at the last 1 pictures" in made.told[-1]
    assert made().names == ["a", "b"], "a claim ends with the process that had it"


def test_two_runs_of_other_settings_are_refused(pictures, made, tmp_path, monkeypatch):
    draw(pictures / "a.png", "red")
    inside, go = threading.Event(), threading.Event()
    real = truth.Masks.__call__

    def waits(self, picture, found):
        inside.set()
        assert go.wait(60)
        return real(self, picture, found)

    monkeypatch.setattr(truth.Masks, "__call__", waits)
    first = threading.Thread(
        target=lambda: annotate(pictures, tmp_path / "out", truth.plan(), Rules(smallest=32), print)
    )
    first.start()
    try:
        assert inside.wait(60)
        with pytest.raises(MMDiffError, match="Another run is at .*smallest 32.*smallest 64"):
            made(smallest=64)
    finally:
        go.set()
        first.join()
    assert made(smallest=64).names == ["a"]


# Bad folders and stages


def test_folders_that_are_none(pictures, made, tmp_path):
    with pytest.raises(MMDiffError, match="holds no pictures"):
        made()
    draw(pictures / "a.png", "red")
    with pytest.raises(MMDiffError, match="Name another folder"):
        made(out="pictures/out")
    with pytest.raises(MMDiffError, match="no folder .*nowhere"):
        annotate(tmp_path / "nowhere", tmp_path / "out", truth.plan(), Rules(), print)


def test_stages_that_are_none_are_named(pictures, tmp_path):
    from mmdiff_core.annotation.stages import Planned

    draw(pictures / "a.png", "red")
    for given, words in (
        ("nowhere", "there is no folder nowhere"),
        ("truth:Nothing", "'truth:Nothing'.*can't be opened"),
    ):
        with pytest.raises(MMDiffError, match=f"--masks.*{words}"):
            annotate(pictures, tmp_path / "out", [Planned("masks", given)], Rules(), lambda line: None)


# What is shown


def test_the_page_shows_records_and_is_safe(pictures, made, tmp_path):
    (draw(pictures / "a <b> & 'c'.png", "red")).with_suffix(".txt").write_text('<script>alert("x")</script> a red box')
    draw(pictures / "small.png", "red", size=(24, 24), seed=1)
    made()
    out = tmp_path / "out"
    page = (out / "index.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page and "a &lt;b&gt; &amp; &#x27;c&#x27;" in page
    assert '<mark style="border-color:#e6194b">a red box</mark>' in page
    assert "left out: too small</td><td>1" in page and (out / "left-out.tsv").read_text().startswith("small\ttoo small")
    assert Image.open(out / "sheet.jpg").width > 320 and Image.open(out / "shown" / "0.jpg").size == (320, 213)


def test_the_command(pictures, tmp_path):
    draw(pictures / "a.png", "red")
    stages = [part for one in ("caption", "words", "boxes", "masks") for part in (f"--{one}", f"truth:{one.title()}")]
    command = [sys.executable, "-m", "mmdiff_core", "annotate", str(pictures), "--out", str(tmp_path / "out")]
    path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    options = {"cwd": ROOT, "capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": path}}
    done = subprocess.run([*command, "--smallest", "32", *stages], **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "1 records; 0 subjects are on several of them.",
        f"See {tmp_path / 'out' / 'index.html'}.",
    ]
    assert set(COLOURS) and validate(tmp_path / "out" / "records") == (1, [])
