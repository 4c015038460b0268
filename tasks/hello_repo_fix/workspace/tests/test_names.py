from hello import clean_name, join_names


def test_cleans_a_name():
    assert clean_name("  ada   lovelace ") == "Ada Lovelace"
    assert clean_name("fiona McKay") == "Fiona McKay"


def test_joins_names():
    assert join_names([]) == "everyone"
    assert join_names(["ada"]) == "Ada"
    assert join_names(["ada", "grace"]) == "Ada and Grace"
    assert join_names(["ada", " ", "grace", "linus"]) == "Ada, Grace, and Linus"
