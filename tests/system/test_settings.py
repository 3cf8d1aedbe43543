"""Settings: environment variables, and the user's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import RecipeError
from orchestrator.system import settings


def test_settings_come_from_variables_then_from_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("SD_SCRIPTS_DIR", "SD_SCRIPTS_PYTHON", "SD_SCRIPTS_TOKENIZERS", "KRNK_MODELS"):
        monkeypatch.delenv(name, raising=False)
    assert settings.sd_scripts() == settings.ROOT / "third_party" / "sd-scripts"
    assert settings.model_folders() == ()
    file = settings.config_file()
    file.parent.mkdir()
    file.write_text('models = ["/m"]\n[sd-scripts]\ndir = "/opt/sd"\npython = "/opt/py"\n', "utf-8")
    assert settings.sd_scripts() == Path("/opt/sd")
    assert settings.sd_scripts_python() == Path("/opt/py")
    assert settings.model_folders() == (Path("/m"),)
    monkeypatch.setenv("SD_SCRIPTS_DIR", "/elsewhere")
    assert settings.sd_scripts() == Path("/elsewhere")


def test_mistakes_in_the_users_file_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    file = settings.config_file()
    file.parent.mkdir()
    file.write_text('model = []\n[sd-scripts]\npyton = "/x"\ndir = 3\n', "utf-8")
    with pytest.raises(RecipeError) as caught:
        settings.read()
    text = str(caught.value)
    assert "did you mean models?" in text
    assert "did you mean python?" in text
    assert "takes a path" in text
    file.write_text("x =", "utf-8")
    with pytest.raises(RecipeError, match="cannot be read"):
        settings.read()
