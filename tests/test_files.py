from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from facenet_fast.errors import UserError
from facenet_fast.files import check_output_folder, folder_written_aside


def is_ours(path):
    return os.path.isfile(os.path.join(path, "mark"))


def make(path, *names, text="old"):
    path.mkdir(parents=True)
    for name in names:
        (path / name).write_text(text)
    return path


def tree(path):
    """All that is under a folder, hidden or not: files with their texts, folders with None."""
    return {
        str(found.relative_to(path)): found.read_text() if found.is_file() else None
        for found in sorted(path.rglob("*"))
    }


def write(path, text="new"):
    with folder_written_aside(str(path), is_ours) as aside:
        os.makedirs(os.path.join(aside, "sub"))
        for name in ("mark", os.path.join("sub", "file")):
            Path(aside, name).write_text(text)


NEW = {"out": None, "out/mark": "new", "out/sub": None, "out/sub/file": "new"}


@pytest.mark.parametrize("before", [None, (), ("mark", "more")])
def test_folder_is_new_or_takes_the_place_of_an_empty_one_or_of_its_like(before, tmp_path):
    if before is not None:
        make(tmp_path / "out", *before)
    check_output_folder(str(tmp_path / "out"), is_ours, "an example")
    write(tmp_path / "out")
    assert tree(tmp_path) == NEW


def test_folder_is_written_beside_under_its_own_name_and_is_not_there_before(tmp_path):
    make(tmp_path / "out", "mark")
    with folder_written_aside(str(tmp_path / "out"), is_ours) as aside:
        assert not os.path.exists(aside)
        assert os.path.basename(aside) == "out"
        assert Path(aside).is_relative_to(tmp_path)
        assert (tmp_path / "out" / "mark").read_text() == "old"
        make(Path(aside), "mark", text="new")
    assert (tmp_path / "out" / "mark").read_text() == "new"


def test_folder_is_readable_as_other_new_folders_are(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "other").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_name_may_end_in_a_slash_or_be_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_output_folder("out/", is_ours, "an example")
    write("out/")
    assert tree(tmp_path) == NEW
    write("out")
    assert tree(tmp_path) == NEW


def test_where_a_link_leads_the_folder_is_replaced_and_the_link_stays(tmp_path):
    make(tmp_path / "models" / "out", "mark")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "current").symlink_to(tmp_path / "models" / "out")
    check_output_folder(str(tmp_path / "links" / "current"), is_ours, "an example")
    write(tmp_path / "links" / "current")
    assert os.listdir(tmp_path / "links") == ["current"]
    assert (tmp_path / "links" / "current").is_symlink()
    assert tree(tmp_path / "models") == NEW


def test_two_at_a_time_do_not_mix(tmp_path):
    with folder_written_aside(str(tmp_path / "out"), is_ours) as first:
        write(tmp_path / "out", "second")
        make(Path(first), "mark", text="first")
    assert tree(tmp_path) == {"out": None, "out/mark": "first"}


@pytest.mark.parametrize("error", [UserError("wrong"), KeyboardInterrupt(), OSError(28, "No space left")])
@pytest.mark.parametrize("before", [None, (), ("mark",)])
def test_failure_while_writing_leaves_what_was_there(before, error, tmp_path):
    if before is not None:
        make(tmp_path / "out", *before)
    was = tree(tmp_path)

    def fail():
        with folder_written_aside(str(tmp_path / "out"), is_ours) as aside:
            make(Path(aside), "mark", "half")
            raise error

    is_os_error = isinstance(error, OSError)
    with pytest.raises(
        UserError if is_os_error else type(error),
        match=r"^cannot write '.*out': No space left$" if is_os_error else None,
    ):
        fail()
    assert tree(tmp_path) == was


@pytest.mark.parametrize("before", [None, (), ("mark", "more")])
@pytest.mark.parametrize("n_before_failure", [0, 1])
def test_failure_while_renaming_leaves_what_was_there(before, n_before_failure, tmp_path, monkeypatch):
    """The first that is renamed is the old folder, where there is one, then the new one."""
    if before is not None:
        make(tmp_path / "out", *before)
    was = tree(tmp_path)
    true_replace, n_calls = os.replace, 0

    def replace(*names):
        nonlocal n_calls
        n_calls += 1
        if n_calls == n_before_failure + 1:
            raise PermissionError(13, "Permission denied")
        true_replace(*names)

    monkeypatch.setattr(os, "replace", replace)
    if n_before_failure == 1 and not before:
        write(tmp_path / "out")
        assert n_calls == 1
        return
    with pytest.raises(UserError, match=r"^cannot write '.*out': Permission denied$"):
        write(tmp_path / "out")
    assert tree(tmp_path) == was


def test_old_folder_that_cannot_be_put_back_is_kept_aside(tmp_path, monkeypatch):
    make(tmp_path / "out", "mark")
    true_replace, n_calls = os.replace, 0

    def replace(*names):
        nonlocal n_calls
        n_calls += 1
        if n_calls > 1:
            raise OSError(5, "Input/output error")
        true_replace(*names)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match=r"cannot write '.*out': Input/output error"):
        write(tmp_path / "out")
    (kept,) = tmp_path.rglob("out.old")
    assert (kept / "mark").read_text() == "old"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_took_the_place_meanwhile_is_kept(kind, tmp_path):
    def write_late():
        with folder_written_aside(str(tmp_path / "out"), is_ours) as aside:
            make(Path(aside), "mark", text="new")
            if kind == "folder":
                make(tmp_path / "out", "notes")
            else:
                (tmp_path / "out").write_text("old")

    with pytest.raises(UserError, match=r"cannot write '.*out': (Directory not empty|Not a directory)"):
        write_late()
    assert tree(tmp_path) == ({"out": None, "out/notes": "old"} if kind == "folder" else {"out": "old"})


def test_block_that_writes_nothing_is_refused_and_leaves_what_was_there(tmp_path):
    make(tmp_path / "out", "mark")

    def write_nothing():
        with folder_written_aside(str(tmp_path / "out"), is_ours):
            pass

    with pytest.raises(UserError, match=r"cannot write '.*out': No such file"):
        write_nothing()
    assert tree(tmp_path) == {"out": None, "out/mark": "old"}


@pytest.mark.parametrize("place", ["missing", "file"])
def test_folder_in_none_cannot_be_written(place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"^cannot write '.*out': (No such file or|Not a) directory$"):
        write(tmp_path / place / "out")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("", r"the output must be a folder, new, empty or an example; got ''"),
        ("file", r"must be a folder, new, empty or an example; '.*file' is a file"),
        ("other", r"must be a folder, new, empty or an example; '.*other' holds a, b, c, \.\.\.$"),
        ("few", r"must be a folder, new, empty or an example; '.*few' holds a$"),
        ("nowhere/out", r"the output's folder must exist; got '.*nowhere/out'"),
        ("file/out", r"the output's folder must exist"),
    ],
)
def test_folder_that_cannot_be_is_refused_and_left_alone(output, message, tmp_path):
    (tmp_path / "file").write_text("text")
    make(tmp_path / "other", *"dcba")
    make(tmp_path / "few", "a")
    was = tree(tmp_path)
    with pytest.raises(UserError, match=message):
        check_output_folder(output and str(tmp_path / output), is_ours, "an example")
    assert tree(tmp_path) == was


def test_folder_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # for root every folder is writable
    with pytest.raises(UserError, match=r"folder must be writable; got '.*out'"):
        check_output_folder(str(tmp_path / "out"), is_ours, "an example")


def test_folder_that_cannot_be_listed_is_refused(tmp_path, monkeypatch):
    make(tmp_path / "out", "a")

    def fail(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(UserError, match=r"'.*out' cannot be read: Permission denied"):
        check_output_folder(str(tmp_path / "out"), is_ours, "an example")


def test_old_folder_that_cannot_be_removed_is_no_failure(tmp_path, monkeypatch):
    make(tmp_path / "out", "mark")

    def rmtree(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    write(tmp_path / "out")
    assert (tmp_path / "out" / "mark").read_text() == "new"
