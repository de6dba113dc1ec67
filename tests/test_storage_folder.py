"""A folder that is written is either whole or absent, and nobody else's files are replaced."""

from pathlib import Path

import pytest

from geodream_lib.errors import InputError
from geodream_lib.storage import atomic_folder


def write(folder: Path, text: str) -> None:
    with atomic_folder(folder) as temporary:
        (temporary / "unet").mkdir()
        (temporary / "unet" / "config.json").write_text(text)


def test_the_folder_appears_whole_and_a_later_one_replaces_it(tmp_path):
    folder = tmp_path / "weights" / "zero123"
    for text in ("first", "second"):
        write(folder, text)
        assert (folder / "unet" / "config.json").read_text() == text
        assert list(folder.parent.iterdir()) == [folder]
    assert folder.stat().st_mode == tmp_path.joinpath("weights").stat().st_mode


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_an_error_leaves_the_earlier_folder_and_nothing_else(tmp_path, error):
    folder = tmp_path / "zero123"
    write(folder, "first")
    with pytest.raises(InputError if error is OSError else error):
        with atomic_folder(folder) as temporary:
            (temporary / "half").write_text("")
            raise error("disk full")
    assert (folder / "unet" / "config.json").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_folders_and_files_of_the_user_are_refused_before_anything_is_written(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("important")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name, message in {
        "thesis": "holds files of yours",
        "thesis/thesis.tex": "not a folder",
        "link": "not a folder",
    }.items():
        with pytest.raises(InputError, match=message):
            write(tmp_path / name, "x")
    assert (tmp_path / "thesis" / "thesis.tex").read_text() == "important"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "thesis"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        with atomic_folder(tmp_path / "file" / "below"):
            pass
