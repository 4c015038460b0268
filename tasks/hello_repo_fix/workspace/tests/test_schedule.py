import pytest

from hello import DEFAULT, Schedule, Window, parse_clock


def test_a_window_ends_just_before_its_end():
    assert DEFAULT.at(parse_clock("11:59")).greeting == "Good morning"
    assert DEFAULT.at(parse_clock("12:00")).greeting == "Good afternoon"


def test_the_first_window_listed_wins():
    schedule = Schedule.parse("11:30-13:00 Enjoy your lunch\n05:00-18:00 Good day")
    assert schedule.at(parse_clock("12:15")).greeting == "Enjoy your lunch"
    assert schedule.at(parse_clock("13:00")).greeting == "Good day"


def test_a_time_without_a_window_is_an_error():
    with pytest.raises(LookupError):
        Schedule.parse("08:00-09:00 Hi").at(parse_clock("09:00"))


def test_a_line_that_is_no_window_is_refused():
    with pytest.raises(ValueError):
        Schedule.parse("08:00 Hi")


def test_minutes_left_in_the_daytime():
    assert Window("Good evening", 1080, 1320).minutes_left(1085) == 235


def test_a_window_may_run_past_midnight():
    night = Window("Good night", parse_clock("22:00"), parse_clock("05:00"))
    assert night.contains(parse_clock("23:30"))
    assert night.contains(parse_clock("00:00"))
    assert not night.contains(parse_clock("05:00"))
    assert not night.contains(parse_clock("21:59"))
