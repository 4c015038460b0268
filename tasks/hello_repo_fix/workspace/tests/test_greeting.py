import pytest

from hello import Schedule, greet, time_left
from hello.cli import main


def test_greets_by_day():
    assert greet(["ada"], at="09:15") == "Good morning, Ada!"
    assert greet(["ada", "grace"], at="18:00") == "Good evening, Ada and Grace!"


@pytest.mark.parametrize("at", ["22:00", "23:30", "00:00", "04:59"])
def test_greets_by_night(at):
    assert greet(["ada"], at=at) == "Good night, Ada!"


def test_time_left_by_day():
    assert time_left("16:55") == "1 h 5 min"


@pytest.mark.parametrize(("at", "left"), [("22:00", "7 h"), ("23:30", "5 h 30 min"), ("04:15", "45 min")])
def test_time_left_by_night(at, left):
    assert time_left(at) == left


def test_takes_another_schedule():
    schedule = Schedule.parse("06:00-14:00 Early shift\n14:00-22:00 Late shift")
    assert greet([], at="14:00", schedule=schedule) == "Late shift, everyone!"


def test_the_command_line_prints_a_greeting(capsys):
    assert main(["--at", "17:30", "--left", "ada"]) == 0
    assert capsys.readouterr().out == "Good afternoon, Ada! (for another 30 min)\n"


def test_the_command_line_refuses_a_strange_time(capsys):
    assert main(["--at", "25:00", "ada"]) == 2
    assert "25:00" in capsys.readouterr().err
