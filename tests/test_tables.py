from ovenet_jax.tables import aligned, percent


def test_the_first_column_goes_to_the_left_and_the_others_to_the_right():
    rows = [("class", "pixels", "%"), ("road", 1200, "7.5"), None, ("all", 16000, "100.0")]
    assert aligned(rows).splitlines() == [
        "class  pixels      %",
        "road     1200    7.5",
        "--------------------",
        "all     16000  100.0",
    ]
    assert aligned([("a", "b"), ("cc", 1)], width=5).splitlines() == ["a     b", "cc    1"]


def test_shares_are_shown_in_percent_and_none_as_a_dash():
    assert [percent(share) for share in (0.12345, 1, 0, None, float("nan"))] == ["12.35", "100.00", "0.00", "-", "-"]
