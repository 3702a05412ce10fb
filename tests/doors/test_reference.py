"""/openapi.json tells of every route and of nothing else, and what it tells is so; /docs shows all of it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from parallel_infer.doors.http import oip, plain, roboflow
from parallel_infer.doors.http.reference.document import document
from parallel_infer.doors.http.reference.page import STYLE, page
from parallel_infer.doors.http.reference.routes import routes

DOCUMENT = document("1.2.3", keys=True)
OPERATIONS = [
    (method, path, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]


def test_the_document_is_openapi_3_1() -> None:
    for keys in (True, False):
        OpenAPIV31SpecValidator(document("1.2.3", keys=keys)).validate()
    assert "security" not in document("1.2.3", keys=False)


def test_every_route_is_described_and_no_other() -> None:
    app = web.Application()
    app.add_routes([*oip.routes(""), *roboflow.routes(), *plain.routes(), *routes("", keys=False)])
    app.add_routes(roboflow.version_zero())
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert {(method, path) for method, path, _ in OPERATIONS} == served


def test_names_of_operations_differ() -> None:
    names = [operation["operationId"] for *_, operation in OPERATIONS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=lambda value: str(value)[:60])
def test_parameters_of_a_path_are_described(method: str, path: str, operation: dict[str, Any]) -> None:
    described = {given["name"] for given in operation.get("parameters", ()) if given["in"] == "path"}
    assert described == set(re.findall(r"{(\w+)}", path))


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id" and value]
        self.links += [value for name, value in attributes if name == "href" and value]
        self.loaded += [str(given[name]) for name in ("src", "srcset", "data", "action") if name in given]


def test_the_page_shows_every_operation_without_script_or_anything_from_elsewhere() -> None:
    shown = page(DOCUMENT)
    found = Elements()
    found.feed(shown)
    assert {operation["operationId"] for *_, operation in OPERATIONS} <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    assert found.loaded == []
    assert {link for link in found.links if not link.startswith("#")} == {"openapi.json"}
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)
    assert "url(" not in STYLE
    text = html.unescape(re.sub(r"<[^>]+>", "", shown))
    for name in DOCUMENT["components"]["schemas"]:
        assert name in text
    assert ">None<" not in shown


def test_what_a_version_says_is_no_markup() -> None:
    assert "<b>1</b>" not in page(document("<b>1</b>", keys=False))
