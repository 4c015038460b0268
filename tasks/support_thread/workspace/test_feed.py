from feed import Feed


def test_batches_hold_different_positions():
    seen = [position for batch in Feed(12, 3, seed=5) for position in batch]
    assert sorted(seen) == list(range(12))


def test_drop_last():
    assert [len(batch) for batch in Feed(10, 4, drop_last=True)] == [4, 4]


def test_the_first_epoch_of_seed_3():
    assert list(Feed(8, 4, seed=3)) == [[0, 5, 7, 2], [1, 6, 4, 3]]


def test_two_workers_share_what_there_is():
    first, second = (list(Feed(8, 2, workers=2, worker=worker, seed=1)) for worker in (0, 1))
    assert sorted(sum(first + second, [])) == list(range(8))
