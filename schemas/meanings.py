"""Adds the docstrings under the fields of the models to their JSON Schemas.

pydantic has an option for this, but it would parse the source in every process that imports a model.
"""

import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any


def describe(schemas: Mapping[str, dict[str, Any]]) -> None:
    """Set `description` of each property of the schemas, given by the names of their models."""
    for name, schema in schemas.items():
        meanings = _meanings().get(name, {})
        for field, described in schema.get("properties", {}).items():
            if text := meanings.get(field.replace(".", "_").replace("-", "_").strip("_")):
                described["description"] = text


@cache
def _meanings() -> dict[str, dict[str, str]]:
    """Give the docstrings by model and field, those of the base models included."""
    files = [file.read_text(encoding="utf-8") for file in sorted(Path(__file__).parent.glob("*.py"))]
    classes = {node.name: node for text in files for node in ast.parse(text).body if isinstance(node, ast.ClassDef)}

    def of(name: str) -> dict[str, str]:
        found: dict[str, str] = {}
        if (model := classes.get(name)) is None:
            return found
        for base in model.bases:
            found |= of(ast.unparse(base))
        for field, below in zip(model.body, model.body[1:], strict=False):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=field_name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[field_name] = " ".join(text.split())
        return found

    return {name: of(name) for name in classes}
