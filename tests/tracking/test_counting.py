"""Lines that are crossed and zones that are entered, for objects whose way is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parallel_infer.errors import ConfigError
from parallel_infer.tracking.counting import Followed, LineCounter, ZoneCounter
from parallel_infer.tracking.shapes import Line, Zone, check_names, contains, crosses, distance

WIDTH, HEIGHT = 200, 100
ACROSS = "0,50,200,50:door"  # from the left edge to the right one: down is in

points = st.tuples(st.floats(0, WIDTH), st.floats(0, HEIGHT))


def line_counter(text=ACROSS):
    counter = LineCounter(Line.parse(text, 1))
    counter.place(WIDTH, HEIGHT)
    return counter


def zone_counter(text="0.5,0,1,0,1,1,0.5,1:yard"):
    counter = ZoneCounter(Zone.parse(text, 1))
    counter.place(WIDTH, HEIGHT)
    return counter


def walk(counter, *way, number=1, kind="person", size=20.0):
    """The counts after an object went along `way`, points in pixels."""
    for point in way:
        found = counter.see([Followed(number, kind, point, size)], {number})
    return found.to_dict()


# --- lines ------------------------------------------------------------------------------------------------------------


def test_in_is_from_the_left_to_the_right_of_the_way_along_the_line():
    assert walk(line_counter(), (100, 20), (100, 80)) == {"in": {"person": 1}, "out": {}}
    assert walk(line_counter(), (100, 80), (100, 20)) == {"in": {}, "out": {"person": 1}}
    assert walk(line_counter("200,50,0,50"), (100, 80), (100, 20)) == {"in": {"person": 1}, "out": {}}


def test_each_class_and_each_crossing_is_counted():
    counter = line_counter()
    walk(counter, (100, 20), (100, 80), (100, 20), (100, 80))
    assert walk(counter, (50, 20), (50, 80), number=2, kind="dog") == {
        "in": {"person": 2, "dog": 1},
        "out": {"person": 1},
    }


def test_who_stands_on_the_line_is_not_counted_and_then_once():
    trembling = [(100, 50 + 0.9 * (-1) ** step) for step in range(50)]
    counter = line_counter()
    assert walk(counter, (100, 20), *trembling) == {"in": {}, "out": {}}
    assert walk(counter, (100, 80)) == {"in": {"person": 1}, "out": {}}
    assert walk(counter, *trembling, (100, 80)) == {"in": {"person": 1}, "out": {}}


def test_who_goes_round_an_end_of_the_line_is_not_counted():
    counter = line_counter("50,50,100,50")
    assert walk(counter, (20, 20), (20, 80), (75, 80)) == {"in": {}, "out": {}}
    assert walk(counter, (75, 20)) == {"in": {}, "out": {"person": 1}}
    near = line_counter("50,50,100,50")
    assert walk(near, (20, 20), (20, 50.5), (80, 50.5), (80, 80)) == {"in": {}, "out": {}}, "round it, within its width"


def test_who_was_hidden_while_crossing_is_counted():
    counter = line_counter()
    walk(counter, (100, 20))
    counter.see([], {1})
    assert walk(counter, (100, 80)) == {"in": {"person": 1}, "out": {}}


def test_who_is_forgotten_does_not_cross():
    counter = line_counter()
    walk(counter, (100, 20))
    counter.see([], set())
    assert walk(counter, (100, 80)) == {"in": {}, "out": {}}


@given(st.lists(points, min_size=2, max_size=12))
def test_in_and_out_take_turns_and_tell_the_side(way):
    counter = line_counter()
    assume(abs(way[0][1] - 50) > 1 and abs(way[-1][1] - 50) > 1)
    found = walk(counter, *way)
    balance = found["in"].get("person", 0) - found["out"].get("person", 0)
    assert balance == (way[-1][1] > 50) - (way[0][1] > 50)


@given(points, points, points, points, st.floats(0, 1))
def test_a_way_in_pieces_crosses_as_often_as_in_one(start, end, before, after, share):
    assume(math.dist(start, end) > 1)
    line = np.array([start, end])
    middle = tuple(first + share * (last - first) for first, last in zip(before, after, strict=True))
    sides = [distance(line, point) for point in (before, middle, after)]
    assume(min(map(abs, sides)) > 1e-6)
    meeting = sides[0] / (sides[0] - sides[2]) if sides[0] != sides[2] else 0.0
    at = np.array(before) + meeting * (np.array(after) - np.array(before))
    assume(min(np.linalg.norm(at - line, axis=1)) > 1e-3)  # at an end, rounding decides
    assert crosses(line, before, after) == (crosses(line, before, middle) != crosses(line, middle, after))
    assert crosses(line, before, after) == crosses(line, after, before)


# --- zones ------------------------------------------------------------------------------------------------------------


def test_who_is_in_a_zone_and_who_ever_was():
    counter = zone_counter()
    assert walk(counter, (20, 50)) == {"present": {}, "entered": {}}
    assert walk(counter, (150, 50)) == {"present": {"person": 1}, "entered": {"person": 1}}
    assert walk(counter, (20, 50), (150, 50)) == {"present": {"person": 1}, "entered": {"person": 1}}
    two = [Followed(1, "person", (150.0, 50.0), 20.0), Followed(2, "dog", (160.0, 50.0), 20.0)]
    assert counter.see(two, {1, 2}).to_dict() == {
        "present": {"person": 1, "dog": 1},
        "entered": {"person": 1, "dog": 1},
    }
    assert counter.see([], {1, 2}).to_dict() == {"present": {}, "entered": {"person": 1, "dog": 1}}


@given(st.lists(st.floats(0, 2 * math.pi), min_size=3, max_size=8, unique=True), points)
def test_a_convex_zone_is_what_lies_on_one_side_of_all_its_edges(angles, point):
    corners = np.array([(100 + 90 * math.cos(angle), 50 + 45 * math.sin(angle)) for angle in sorted(angles)])
    edges = list(zip(corners, np.roll(corners, -1, 0), strict=True))
    assume(min(math.dist(*edge) for edge in edges) > 1)
    sides = [distance(np.array(edge), point) for edge in edges]
    assume(min(map(abs, sides)) > 1e-3)
    assert contains(corners, point) == (min(sides) > 0)


# --- as they are written ----------------------------------------------------------------------------------------------


def test_fractions_and_pixels_and_names():
    assert Line.parse("0,0.5,1,0.5", 2).name == "line-2"
    assert Zone.parse("0,0,1,0,1,1:the yard", 1).name == "the yard"
    assert Line.parse("0,0.5,1,0.5", 1).placed(640, 480).tolist() == [[0, 240], [640, 240]]
    assert Line.parse("0,0.5,2,0.5", 1).placed(640, 480).tolist() == [[0, 0.5], [2, 0.5]]


@pytest.mark.parametrize(
    ("shape", "text", "problem"),
    [
        (Line, "0,0,1", "a line is x1,y1,x2,y2"),
        (Line, "0,0,1,1,2,2", "a line is x1,y1,x2,y2"),
        (Line, "0,0,1,one", "a line is x1,y1,x2,y2"),
        (Line, "", "a line is x1,y1,x2,y2"),
        (Line, "5,5,5,5", "the same point"),
        (Line, "0,0,-1,1", "outside of every picture"),
        (Line, "0,0,nan,1", "outside of every picture"),
        (Line, "0,0,inf,1", "outside of every picture"),
        (Line, "0,0,1,1:", "a name has 1 to 64"),
        (Line, "0,0,1,1:" + "n" * 65, "a name has 1 to 64"),
        (Zone, "0,0,1,1", "with 3 to 256 points"),
        (Zone, "0,0,1,1,2", "with 3 to 256 points"),
        (Zone, "0,0,1,1,2,2", "in one line"),
        (Zone, ",".join(["1,2"] * 257), "with 3 to 256 points"),
    ],
)
def test_what_is_no_shape_is_refused_with_its_option(shape, text, problem):
    with pytest.raises(ConfigError, match=problem) as refusal:
        shape.parse(text, 1)
    assert str(refusal.value).startswith(shape.option)


def test_what_is_outside_of_the_picture_is_refused():
    with pytest.raises(
        ConfigError, match=r"--count-line 0,0,300,50 is outside of the picture, which is 200x100 pixels"
    ):
        LineCounter(Line.parse("0,0,300,50", 1)).place(WIDTH, HEIGHT)
    with pytest.raises(ConfigError, match=r"--count-zone .* is outside"):
        ZoneCounter(Zone.parse("0,0,50,101,10,10", 1)).place(WIDTH, HEIGHT)
    with pytest.raises(ConfigError, match="another one is called door"):
        check_names([Line.parse(ACROSS, 1), Line.parse(ACROSS, 2)])
