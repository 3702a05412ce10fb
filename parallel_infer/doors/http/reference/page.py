"""The OpenAPI document as one HTML page: no script, nothing from elsewhere, in the reader's own light or dark. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --text: #1b2126; --back: #fff; --line: #d8dee4; --soft: #f4f6f8; --quiet: #57606a;
  --link: #0b57a4; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ed; --back: #14181d; --line: #3a4149; --soft: #1c2127;
  --quiet: #9da7b1; --link: #7db7f2; } }
body { margin: 0 auto; max-width: 62rem; padding: 1rem 1.25rem 4rem; font: 1rem/1.55 system-ui, sans-serif;
  background: var(--back); color: var(--text); overflow-wrap: break-word; }
a { color: var(--link); }
h2 { margin-top: 3rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { margin: 2rem 0 .3rem; font-size: 1.05rem; }
h4 { margin: 1rem 0 .2rem; font-size: .9rem; color: var(--quiet); }
code { font: .92em/1.4 ui-monospace, monospace; }
.method { display: inline-block; min-width: 3rem; padding: .05rem .4rem; border-radius: .25rem; text-align: center;
  font-weight: 600; background: var(--soft); border: 1px solid var(--line); }
.table { overflow-x: auto; margin: .9rem 0; }
td:first-child, th:first-child { width: min(15rem, 28%); }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--quiet); }
nav ul { columns: 18rem; padding-left: 1.1rem; }
.quiet { color: var(--quiet); }
"""
_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
Document = Mapping[str, Any]
_WORDS = {
    "string": "text",
    "number": "number",
    "integer": "whole number",
    "boolean": "true or false",
    "object": "object",
    "": "",
}


def page(document: Document) -> str:
    """The page of a document that `document.document` made."""
    info = document["info"]
    title = f"{escape(info['title'])} {escape(info['version'])}"
    tags = document["tags"]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}: HTTP</title><style>{STYLE}</style></head><body><main>",
            f"<h1>{title}</h1><p>{escape(info['summary'])} Its HTTP door, made from ",
            '<a href="openapi.json">openapi.json</a> (OpenAPI 3.1).</p>',
            _keys(document),
            "<nav><ul>",
            *(f'<li><a href="#{_anchor(tag["name"])}">{escape(tag["name"])}</a></li>' for tag in tags),
            '<li><a href="#errors">Errors</a></li><li><a href="#bodies">Bodies</a></li></ul></nav>',
            *(_section(document, tag) for tag in tags),
            _errors(document),
            _bodies(document),
            "</main></body></html>",
        )
    )


def _keys(document: Document) -> str:
    if "security" in document:
        return (
            "<p>This server asks for a key: send it as <code>Authorization: Bearer KEY</code>, "
            "or as <code>api_key</code> in the query.</p>"
        )
    return "<p>This server asks for no key.</p>"


def _section(document: Document, tag: Document) -> str:
    operations = [
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag["name"] in operation["tags"]
    ]
    head = f'<h2 id="{_anchor(tag["name"])}">{escape(tag["name"])}</h2><p>{escape(tag["description"])}</p>'
    return head + "".join(operations)


def _operation(method: str, path: str, operation: Document) -> str:
    body = operation.get("requestBody", {}).get("content", {})
    answers = operation["responses"]["200"].get("content", {})
    refused = ", ".join(status for status in operation["responses"] if status != "200")
    return "".join(
        (
            f'<section id="{escape(operation["operationId"])}">',
            f'<h3><code class="method">{method.upper()}</code> <code>{escape(path)}</code></h3>',
            f"<p>{escape(operation['summary'])}</p>",
            _parameters(operation.get("parameters", ())),
            _contents("Body", body),
            _contents("Answer", answers),
            f'<p class="quiet">Refused with {refused}: see <a href="#errors">Errors</a>.</p></section>',
        )
    )


def _parameters(parameters: Iterable[Document]) -> str:
    rows = []
    for parameter in parameters:
        if parameter.get("style") == "form":  # an object, each of whose properties is a parameter
            rows += _properties(parameter["schema"], parameter["in"])
        else:
            schema = parameter["schema"] | {"description": parameter.get("description", "")}
            rows.append((_code(parameter["name"]), parameter["in"], _type(schema), _described(schema)))
    return _table(("Parameter", "In", "Type", ""), rows)


def _properties(schema: Document, place: str) -> list[tuple[str, ...]]:
    rows = [(_code(name), place, _type(item), _described(item)) for name, item in schema["properties"].items()]
    return [*rows, ("others", place, "", escape(schema.get("description", "")))]


def _contents(title: str, content: Document) -> str:
    if not content:
        return ""
    rows = [(_code(kind), _held(kind, media["schema"]), _described(media["schema"])) for kind, media in content.items()]
    return _table((title, "Holds", ""), rows)


def _held(kind: str, schema: Document) -> str:
    if kind == "multipart/form-data":
        return f"the part {' and '.join(map(_code, schema['required']))}"
    return _type(schema) or "bytes"


def _errors(document: Document) -> str:
    rows = [
        (_code(status), escape(error["description"])) for status, error in document["components"]["responses"].items()
    ]
    return (
        f'<h2 id="errors">Errors</h2><p>The body of each is an {_type({"$ref": "/Error"})}.</p>'
        f"{_table(('Status', 'What it is'), rows)}"
    )


def _bodies(document: Document) -> str:
    parts = ['<h2 id="bodies">Bodies</h2>']
    for name, schema in document["components"]["schemas"].items():
        parts.append(f'<h3 id="{_anchor("body " + name)}">{escape(name)}</h3>')
        if schema.get("description"):
            parts.append(f"<p>{escape(schema['description'])}</p>")
        inner = schema["items"] if schema["type"] == "array" else schema
        if schema["type"] == "array":
            parts.append("<p>A list of:</p>")
        parts.append(_fields(inner))
    return "".join(parts)


def _fields(schema: Document) -> str:
    needed = schema.get("required", ())
    rows = [
        (
            _code(name) + ("" if name in needed else ' <span class="quiet">optional</span>'),
            _type(item),
            _described(item),
        )
        for name, item in _flattened(schema)
    ]
    return _table(("Field", "Type", ""), rows)


def _flattened(schema: Document, before: str = "") -> list[tuple[str, Document]]:
    """Fields of an object, those of objects within it too: `inputs[].name`."""
    found: list[tuple[str, Document]] = []
    for name, item in schema.get("properties", {}).items():
        found.append((before + name, item))
        inner, mark = (item["items"], "[].") if item.get("type") == "array" else (item, ".")
        found += _flattened(inner, before + name + mark)
    return found


def _type(schema: Document) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_anchor("body " + name)}">{escape(name)}</a>'
    if "oneOf" in schema:
        return " or ".join(map(_type, schema["oneOf"]))
    if schema.get("type") == "array":
        inner = _type(schema["items"])
        return f"list of {inner}" if inner else "list"
    if "enum" in schema:
        return " or ".join(map(_code, schema["enum"]))
    return _WORDS[schema.get("type", "")]


def _described(schema: Document) -> str:
    words = [escape(schema["description"])] if schema.get("description") else []
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        words.append(f"{low:g} to {high:g}.")
    elif low is not None:
        words.append(f"At least {low:g}.")
    elif high is not None:
        words.append(f"At most {high:g}.")
    if "default" in schema:
        words.append(f"Default: {_code(str(schema['default']))}.")
    return " ".join(words)


def _table(head: Iterable[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _anchor(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
