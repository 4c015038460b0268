import pytest

from hello import format_clock, format_span, parse_clock


@pytest.mark.parametrize(("text", "minute"), [("00:00", 0), ("07:05", 425), (" 9:30 ", 570), ("23:59", 1439)])
def test_parses_a_time_of_day(text, minute):
    assert parse_clock(text) == minute


@pytest.mark.parametrize("text", ["", "7", "24:00", "12:60", "noon", "12:5"])
def test_refuses_what_is_no_time_of_day(text):
    with pytest.raises(ValueError):
        parse_clock(text)


def test_formats_a_minute_of_the_day():
    assert format_clock(425) == "07:05"


@pytest.mark.parametrize(("minutes", "text"), [(0, "0 min"), (45, "45 min"), (120, "2 h"), (65, "1 h 5 min")])
def test_formats_a_span(minutes, text):
    assert format_span(minutes) == text
