"""What names stand for, which of a request's options goes where, and every mistake by its name."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from parallel_infer.chains.plan import Served, asked, parts_of, resolve
from parallel_infer.chains.steps import read_chain
from parallel_infer.crops import Selection
from parallel_infer.errors import BadInput, InferError, UnknownModel
from parallel_infer.model_spec import ModelSpec, TensorSpec

TENSOR = (TensorSpec("x", "float32", (1,)),)
DETECTING = ("confidence", "class_filter", "decode", "color")


def spec(name: str, task: str, options: tuple[str, ...], names: tuple[str, ...] = (), **more: Any) -> ModelSpec:
    fields = {"family": "f", "path": "", "inputs": TENSOR, "outputs": TENSOR, "preprocess": {"input": "x"}, **more}
    return ModelSpec(name=name, task=task, options=options, names=names, **fields)


SPECS = {
    found.name: found
    for found in (
        spec("detector", "detect", DETECTING, ("person", "car")),
        spec("masks", "segment", (*DETECTING, "mask_format"), ("person",)),
        spec("reader", "text", ("confidence", "decode")),
        spec("kinds", "classify", ("top", "confidence")),
        spec("depth", "map", ("map_format",)),
        spec("numbers", "tensor", (), preprocess={}),
    )
}


def served(**chains: str) -> Served:
    return Served(SPECS, {name: read_chain(name, text) for name, text in chains.items()}, 64)


def options(encoded: bytes) -> Any:
    return msgspec.msgpack.decode(encoded)


def test_a_chain_is_its_models_with_their_options_and_what_is_cut_out() -> None:
    node = resolve("plates", served(plates="detector(class_filter=car) > reader(of=car|0, margin=0.1, confidence=0.5)"))
    assert (node.name, node.model, options(node.options)) == ("plates", "detector", {"class_filter": ["car"]})
    assert [(below.name, options(below.options)) for below in node.then] == [("reader", {"confidence": 0.5})]
    assert node.selections == (Selection(64, (1, 0), margin=0.1),)
    assert node.models == ("detector", "reader")


def test_what_is_cut_out_may_lie_across() -> None:
    assert resolve("a", served(a="detector > reader(wide=true)")).selections == (Selection(64, wide=True),)
    with pytest.raises(BadInput, match="option wide: expected true or false"):
        resolve("a", served(a="detector > reader(wide=1)"))


def test_a_chain_may_be_a_step_of_another_under_its_own_name() -> None:
    chains = served(
        both="masks > inner(max_objects=3, confidence=0.9), kinds", inner="detector(confidence=0.1) > reader"
    )
    node = resolve("both", chains)
    assert [below.name for below in node.then] == ["inner", "kinds"]
    assert (node.then[0].model, options(node.then[0].options)) == ("detector", {"confidence": 0.9})
    assert [below.name for below in node.then[0].then] == ["reader"]
    assert [selection.max_objects for selection in node.selections] == [3, 64]


@pytest.mark.parametrize(
    ("error", "why", "chains"),
    [
        (BadInput, "chain 'a': it goes in a circle: a > b > a", {"a": "b > reader", "b": "a"}),
        (BadInput, "it goes in a circle: a > a", {"a": "detector > a"}),
        (UnknownModel, "chain 'a': no model 'readr' is served; served are: depth, ", {"a": "detector > readr"}),
        (BadInput, "model 'reader' does text: it finds no objects", {"a": "reader > detector"}),
        (BadInput, "model 'numbers' takes no pictures", {"a": "detector > numbers"}),
        (BadInput, "model 'depth' does map", {"a": "detector > depth"}),
        (BadInput, "class_filter: model 'detector' has no class 'cat'; did you mean 'car'?",
         {"a": "detector(class_filter=cat) > reader"}),
        (BadInput, "of: class 2 is not among 0 to 1 of model 'detector'", {"a": "detector > reader(of=2)"}),
        (BadInput, "model 'detector' has no option 'confidnce'; did you mean 'confidence'?",
         {"a": "detector(confidnce=1) > reader"}),
        (BadInput, "the option 'margin' of 'detector' belongs to a step behind", {"a": "detector(margin=1) > reader"}),
        (BadInput, "max_objects: expected a whole number from 1 to 100000", {"a": "detector > reader(max_objects=0)"}),
        (BadInput, "min_score: expected a number from 0 to 1", {"a": "detector > reader(min_score=2)"}),
        (BadInput, "mask=true of 'reader': model 'detector' does detect", {"a": "detector > reader(mask=true)"}),
        (BadInput, "masks of 'masks' are polygons", {"a": "detector > masks(mask_format=rle)"}),
        (BadInput, "'reader' is there twice below 'detector'", {"a": "detector > reader, reader(of=car)"}),
    ],
)  # fmt: skip
def test_mistakes_are_named(error: type[InferError], why: str, chains: dict[str, str]) -> None:
    with pytest.raises(error, match=re.escape(why)):
        resolve("a", served(**chains))


def test_names_joined_are_several_models_unless_one_is_called_so() -> None:
    assert parts_of("detector+kinds", served()) == ("detector", "kinds")
    assert parts_of("detector", served()) == ("detector",)
    assert parts_of("a+b", served(**{"a+b": "detector"})) == ("a+b",)
    for wrong in ("detector+detector", "detector+", "+", "a++b"):
        with pytest.raises(BadInput, match="names a model twice, or none"):
            parts_of(wrong, served())


def test_a_request_s_options_go_to_the_first_models_that_know_them() -> None:
    chains = served(plates="detector(confidence=0.4) > reader")
    nodes = [resolve(name, chains) for name in ("plates", "kinds")]
    plates, kinds = asked(nodes, chains, msgspec.msgpack.encode({"confidence": 0.7, "class_filter": [1], "top": 2}))
    assert options(plates.options) == {"confidence": 0.7, "class_filter": [1]}
    assert options(kinds.options) == {"confidence": 0.7, "top": 2}
    assert options(plates.then[0].options) == {}
    with pytest.raises(BadInput, match="unknown option 'tip'; did you mean 'top'"):
        asked(nodes, chains, msgspec.msgpack.encode({"tip": 1}))
    with pytest.raises(BadInput, match="not a MessagePack map"):
        asked(nodes, chains, b"\xc1")


def test_the_order_of_a_frame_s_channels_goes_to_every_step() -> None:
    chains = served(plates="detector > reader, masks > kinds")
    (node,) = asked([resolve("plates", chains)], chains, msgspec.msgpack.encode({"color": "rgb", "decode": "fast"}))
    reader, masks = node.then
    told = [options(each.options) for each in (node, reader, masks, masks.then[0])]
    assert told == [{"color": "rgb", "decode": "fast"}, *[{"color": "rgb"}] * 3]
