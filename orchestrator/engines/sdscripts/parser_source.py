"""Read the options of a program from its source.

``setup_parser`` of a script is followed by ``ast`` through the functions that add options, so torch is not imported.
"""

from __future__ import annotations

import ast
import contextlib
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TYPES = ("str", "int", "float", "switch", "int_or_float")


@dataclass(frozen=True, slots=True)
class ParserOption:
    """One option of a program.

    ``type`` is str, int, float, switch or int_or_float; ``many`` takes a list.
    """

    name: str
    type: str = "str"
    many: bool = False
    choices: tuple[str | int | float | None, ...] = ()
    default: str | int | float | bool | None = None


Options = dict[str, ParserOption]


def parse_options(folder: Path, script: str) -> Options:
    """Read a script's options from its source.

    Raises:
        OSError, SyntaxError: it cannot be read.
    """
    options: Options = {}
    _ParsedModules(folder).walk_script(folder / script, options)
    return options


class _ParsedModules:
    """Modules of a checkout, parsed once each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._modules: dict[Path, ast.Module] = {}

    def _module(self, path: Path) -> ast.Module:
        if path not in self._modules:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of its string escapes
                self._modules[path] = ast.parse(path.read_text("utf-8"))
        return self._modules[path]

    def _functions(self, path: Path) -> dict[str, ast.FunctionDef]:
        return {node.name: node for node in self._module(path).body if isinstance(node, ast.FunctionDef)}

    def walk_script(self, path: Path, options: Options) -> None:
        """Collect the options of a script, whose main block may add them."""
        functions = self._functions(path)
        name = next((name for name in ("setup_parser", "parse_args") if name in functions), None)
        self._collect(path, self._module(path) if name is None else functions[name], options)

    def _collect(self, path: Path, tree: ast.AST, options: Options) -> None:
        """Collect the options that a part of a module adds.

        The functions that it calls are followed.
        """
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called == "add_argument":
                for option in _option(node):
                    options.setdefault(option.name, option)
            elif called.startswith("add_") and called.endswith("arguments"):
                module = self._defining(path, called)
                self._collect(module, self._functions(module)[called], options)
            elif called == "setup_parser" and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                module = self._folder / f"{node.func.value.id}.py"
                self._collect(module, self._functions(module)[called], options)

    def _defining(self, path: Path, name: str) -> Path:
        """Return the module, here or in ``library``, that defines a function."""
        candidates = [path]
        candidates += [
            self._folder / "library" / f"{stem}.py" for stem in ("train_util", "config_util", "utils", "sdxl_train_util")
        ]
        candidates += sorted((self._folder / "library").glob("*.py"))
        for module in candidates:
            if module.is_file() and f"def {name}(" in module.read_text("utf-8") and name in self._functions(module):
                return module
        raise FileNotFoundError(2, f"{name} is not defined in library/", str(path))


def _option(call: ast.Call) -> Iterable[ParserOption]:
    """Yield one option per ``--name`` of an ``add_argument`` call."""
    keywords = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    action = _literal(keywords.get("action")) or ""
    kind = keywords.get("type")
    typed = kind.id if isinstance(kind, ast.Name) else ""
    if action in ("store_true", "store_false"):
        typed = "switch"
    elif typed not in _TYPES:
        typed = "str"
    choices = _literal(keywords.get("choices")) or ()
    default = _literal(keywords.get("default"))
    many = _literal(keywords.get("nargs")) in ("*", "+") or isinstance(_literal(keywords.get("nargs")), int)
    if typed == "switch" and default is None:
        default = False
    for argument in call.args:
        name = _literal(argument)
        if isinstance(name, str) and name.startswith("--"):
            yield ParserOption(
                name[2:], typed, many, tuple(choices), default if isinstance(default, str | int | float) else None
            )


def _literal(node: ast.expr | None) -> Any:
    """Return the value of a literal, or None for any other expression."""
    if node is None:
        return None
    with contextlib.suppress(ValueError, TypeError):
        return ast.literal_eval(node)
    return None
