"""Names of images and folders."""

from __future__ import annotations

import pytest

from orchestrator.dataset import naming


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("krnk girl_f0512", naming.FolderName("krnk girl", "krnk", (), None)),
        (
            "kuroneko girl, short hair, choker_f0768",
            naming.FolderName("kuroneko girl", "kuroneko", ("short hair", "choker"), None),
        ),
        ("krnk girl_flip_f0128", naming.FolderName("krnk girl", "krnk", (), True)),
        ("krnk girl, tall_noflip_f0128", naming.FolderName("krnk girl", "krnk", ("tall",), False)),
        ("krnk", naming.FolderName("krnk", "krnk", (), None)),
    ],
)
def test_folder_names_of_charframework(name: str, expected: naming.FolderName) -> None:
    assert naming.charframework(name) == expected


def test_a_folder_name_that_we_write_reads_back() -> None:
    for tags in ((), ("short hair", "choker")):
        for flip in (None, True, False):
            name = naming.folder("krnk girl", tags, flip, "f0512")
            assert naming.charframework(name) == naming.FolderName("krnk girl", "krnk", tags, flip)
    assert naming.folder('a/b\\c:"d', (), None, "f0512") == "a b c d_f0512"
    assert len(naming.folder("word " * 100, ("tag",) * 50, None, "f0512").encode()) < 255


def test_repeats_and_views() -> None:
    assert naming.repeats("4_krnk") == (4, "krnk")
    assert naming.repeats("2_krnksf_krnk") == (2, "krnksf_krnk")
    assert naming.repeats("krnk") == (None, "krnk")
    assert naming.view("f17_second") == naming.View("f", "1", "7")
    for wrong in ("f30", "f08", "g00", "portrait", "F00", ""):
        assert naming.view(wrong) is None
